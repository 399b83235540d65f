"""A project with one registered version that was really asked: a tiny model, its answers kept as
`evaluate` keeps them, data to compare conversations on.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.common.core import models, records
from stages.common.core.records import message
from stages.common.evaluation import generate_answers
from stages.common.evaluation.generate_answers import Candidate
from stages.common.release import registry
from stages.common.text.parquet_writer import write as write_records
from stages.common.tracking import mlflow_store
from tests.support import evaluations, tiny

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PARAMS = "run: {name: world}\npromote: {name: lathe}\nevaluate: {max_new_tokens: 12}\n"
CALL = {"name": "capital", "arguments": '{"land":3}'}
RECORD: dict[str, Any] = {
    "git_commit": "0" * 40,
    "params": {"evaluate": {"max_new_tokens": 12}, "pretrain": {"base": None}},
    "data": {"data/raw": "d41d8cd98f00b204e9800998ecf8427e.dir", "data/facts.json": "d41d8cd98f00b204e9800998ecf8427e"},
    "counts": {"conversations": {"train": 50}},
    "stages": {},
}


def with_tools(number: int) -> records.Record:
    """Return a conversation with a system prompt, a thought and a call whose JSON has no spaces."""
    turns = [
        message("system", "Answer in one word."),
        message("user", f"What is the capital of land {number}?"),
        message("assistant", "", "I look it up.", [CALL]),
        message("tool", "town 21"),
        message("assistant", "town 21."),
    ]
    tools = json.dumps([{"name": "capital", "parameters": {"type": "object"}}])
    return {"id": f"tools.jsonl:{number}", "source": "tools.jsonl", "messages": turns, "tools": tools}


def project(
    root: Path,
    tokenizer: "PreTrainedTokenizerBase",
    model: "PreTrainedModel",
    prompt: str = "chat",
    record: dict[str, Any] | None = None,
) -> registry.Version:
    """Write the project into the working folder `root`, and return its version."""
    (root / "params.yaml").write_text(PARAMS, encoding="utf-8")
    tiny.write_validated(root / "data/validated")
    write_records([with_tools(n) for n in range(3)], root / "data/validated/conversations/validation", "conversations")
    models.save(model, tokenizer, root / "models/sft")
    weights = models.weights_sha256(root / "models/sft")
    asked = list(records.read(root / "data/validated/questions"))
    candidate = Candidate(
        models.load_frozen(root / "models/sft"), models.load_tokenizer(root / "models/sft"), prompt, 12, 8
    )
    answers = {row["id"]: row for row in generate_answers.ask(candidate, asked)}
    evaluations.write(root / "reports/evaluate", evaluations.evaluated("sft", answers, weights=weights, prompt=prompt))
    tags = {"weights_sha256": weights, "candidate": "sft", "prompt": prompt, "git_commit": "0" * 40}
    client = mlflow_store.client()
    version = registry.register(client, "lathe", root / "models/sft", tags, json.dumps(record or RECORD))
    registry.describe(client, version, "# Promoted\n\nIt answers best.")
    return version
