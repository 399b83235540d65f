"""A promoted project in a folder: two tiny models, their evaluations, and the params that promote and deploy read."""

import json
from pathlib import Path

from stages.common import models
from tests.tiny import make_model, make_tokenizer

PARAMS = """
run:
  name: world
promote:
  name: lathe
  metric: accuracy/iid
  base: pretrain
deploy:
  canned:
    - What is the capital of land 3?
    - 第3国的首都是哪里？
  max_new_tokens: 16
"""


def write_project(root: Path) -> None:
    """Write params.yaml, the base and one better candidate."""
    (root / "params.yaml").write_text(PARAMS, encoding="utf-8")
    add_candidate(root, "pretrain", 0.2, seed=0)
    add_candidate(root, "sft", 0.9, seed=1)


def add_candidate(root: Path, name: str, accuracy: float, seed: int, questions: str = "q1") -> None:
    """Write (or replace) a candidate's model and what `evaluate` says of it."""
    tokenizer = make_tokenizer()
    models.save(make_model(tokenizer, seed), tokenizer, root / "models" / name)
    folder = root / "reports/evaluate" / name
    folder.mkdir(parents=True, exist_ok=True)
    facts = {
        "candidate": name,
        "model": f"models/{name}",
        "prompt": "chat",
        "weights_sha256": models.weights_sha256(root / "models" / name),
        "questions_sha256": questions,
        "metrics": {"accuracy/iid": accuracy, "perplexity/documents": 10 / accuracy},
        "intervals": {"accuracy/iid": [accuracy - 0.1, accuracy + 0.1]},
        "counts": {"accuracy/iid": 100},
    }
    (folder / "metrics.json").write_text(json.dumps(facts), encoding="utf-8")
