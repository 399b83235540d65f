"""What is exported: a version of the registry with its files verified, its record, what was
measured of it, and the questions that it was asked.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages import evaluate
from stages.common.core import models, params, precision, records
from stages.common.core.records import Record
from stages.common.core.sparse import pattern
from stages.common.evaluation import question_prompts, results
from stages.common.evaluation.results import Evaluated
from stages.common.release import champion_evaluation, promoted, provenance, registry
from stages.common.release.registry import Version
from stages.common.runtime import ranks
from stages.common.runtime.errors import DataError
from stages.common.tracking import mlflow_store

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

REPORTS = Path("reports/evaluate")
ADAPTER = "adapter_config.json"


@dataclass(frozen=True)
class Source:
    """A version: `folder` holds its files, `evaluation` is None where none of its weights is kept
    here, `settings` are those by which it was asked.
    """

    version: Version
    folder: Path
    record: dict[str, Any]
    description: str
    evaluation: Evaluated | None
    settings: evaluate.Params
    tokenizer: "PreTrainedTokenizerBase"

    @property
    def title(self) -> str:
        """Name and number, as the export's folder is called."""
        return f"{self.version.name}-{self.version.number}"

    @property
    def prompt(self) -> str:
        """How it is asked: `chat` or `plain`."""
        return self.version.tags.get("prompt", "chat")

    def stops(self) -> list[int]:
        """Return the ids at which its answers end."""
        return question_prompts.stops(self.tokenizer, self.prompt, line=False)

    def asked(self, question: Record) -> list[int]:
        """Return a question as Lathe asks it."""
        if self.prompt == "chat":
            return question_prompts.turns(self.tokenizer, question, [])
        return question_prompts.bare(self.tokenizer, question)

    def job(self, folder: Path, gguf_file: str | None) -> dict[str, Any]:
        """Return what `plain` needs to know to load `folder` as this version is loaded here."""
        return {
            "folder": str(folder.resolve()),
            "gguf_file": gguf_file,
            "dtype": str(precision.frozen(self.folder)).removeprefix("torch."),
            "device": str(ranks.device()),
            "max_new_tokens": self.settings.max_new_tokens,
        }


def read(number: str) -> Source:
    """Return version `number` of the registry. Raises DataError where there is none, a file is not
    as registered, or plain transformers cannot compute it.
    """
    client, name = mlflow_store.client(), promoted.registered_name()
    version = registry.numbered(client, name, number)
    folder = registry.fetch(client, version)
    refuse(folder, f"{name} version {number}")
    record = provenance.of(client, version)
    with mlflow_store.answers():
        description = client.get_model_version(name, number).description or ""
    asked = record.get("params", {}).get("evaluate")
    settings = evaluate.Params.model_validate(asked) if asked else params.load(evaluate.Params, "evaluate")
    found = evaluation(version.tags["weights_sha256"])
    return Source(version, folder, record, description, found, settings, models.load_tokenizer(folder))


def refuse(folder: Path, where: str) -> None:
    """Raise DataError naming what in a model's folder only this project can compute."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if config.get(pattern.KEY) or pattern.NAME in (
        config.get("attn_implementation"),
        config.get("_attn_implementation"),
    ):
        what = f"it has sparse attention ({pattern.KEY} in its config.json), which plain transformers does not know"
        remedy = "train with pretrain.attention.pattern: dense to export, or serve it with lathe"
        raise DataError(what, where=where, remedy=remedy)
    if config.get("auto_map"):
        what = "its config.json asks for code of its own (auto_map), which an export never runs"
        raise DataError(what, where=where, remedy="begin from a base that transformers knows")
    if (folder / ADAPTER).exists():
        what = "it is an adapter without the model below it"
        raise DataError(what, where=where, remedy="have the stage merge it (sft.lora), and promote that")


def evaluation(weights_sha256: str) -> Evaluated | None:
    """Return the newest evaluation of these weights that is kept here, or None."""
    kept = [*REPORTS.glob("*/metrics.json"), *champion_evaluation.KEPT.glob("*/*/metrics.json")]
    for file in sorted(kept, key=lambda one: one.stat().st_mtime, reverse=True):
        try:
            of = json.loads(file.read_text(encoding="utf-8")).get("weights_sha256")
        except ValueError:
            continue
        if of == weights_sha256:
            return results.one(file.parent)
    return None


def questions(source: Source, folder: Path, most: int) -> list[Record]:
    """Return up to `most` of the test's questions, those whose id has the smallest hash; only such
    as the kept evaluation was asked, where there is one. Raises DataError where it was asked none.
    """
    if not most:
        return []
    found = sorted(records.read(folder), key=lambda row: _hash(row["id"]))
    if source.evaluation:
        answers = source.evaluation.answers
        found = [row for row in found if answers.get(row["id"], {}).get("question") == row["messages"][-1]["content"]]
        if not found:
            what = "none of these questions is among those that the version was asked"
            raise DataError(what, where=folder, remedy="check out its data: dvc checkout, or give --questions 0")
    return found[:most]


def kept(source: Source, asked: Sequence[Record]) -> dict[str, dict[str, Any]]:
    """Return the kept evaluation's answers to these questions by id; none without one."""
    if source.evaluation is None:
        return {}
    return {row["id"]: source.evaluation.answers[row["id"]] for row in asked}


def _hash(identifier: object) -> str:
    import hashlib

    return hashlib.sha256(str(identifier).encode()).hexdigest()
