"""A promoted project in a folder: two tiny models, their evaluations, and the params that promote
and deploy read.
"""

from pathlib import Path

import pytest

from stages.common.core import models
from stages.common.tracking import mlflow_store
from tests.support import evaluations
from tests.support.tiny import make_model, make_tokenizer

PARAMS = """
run:
  name: world
promote:
  name: lathe
  metric: accuracy/iid
  base: pretrain
  against: null
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


def write_project_with_store(root: Path) -> Path:
    """Write the project before its first promotion, with an empty store, made once to be copied;
    return it.
    """
    write_project(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        mlflow_store.client()
    return root


def add_candidate(root: Path, name: str, accuracy: float, seed: int, test: str = "t1", perplexity: float = 4.0) -> None:
    """Write (or replace) a candidate's model and what `evaluate` says of it, on 100 questions and
    40 documents.
    """
    tokenizer = make_tokenizer()
    models.save(make_model(tokenizer, seed), tokenizer, root / "models" / name)
    weights = models.weights_sha256(root / "models" / name)
    rows, texts = evaluations.answers(round(100 * accuracy), 100), evaluations.losses(perplexity)
    one = evaluations.evaluated(name, rows, texts, weights=weights, test=test)
    evaluations.write(root / "reports/evaluate", one)
