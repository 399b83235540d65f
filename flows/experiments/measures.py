"""What experiments read from a finished run of the pipeline: answers by question, losses by text,
figures.
"""

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from flows.experiments.plan import Values
from stages.common.text import rule_grader

ONE = ""
"""The unit of what is one number a run."""
BATCH = 64


def answers(folder: Path, candidate: str, file: str = "answers") -> Iterator[dict[str, Any]]:
    """Yield a candidate's answers: question, reference, answer, correct; of `shots` each with their
    number.
    """
    with (folder / f"reports/evaluate/{candidate}/{file}.jsonl").open(encoding="utf-8") as lines:
        yield from (json.loads(line) for line in lines if line.strip())


def correct(folder: Path, candidate: str, *groups: str) -> Values:
    """Return 1 or 0 by question of these groups (none: all): whether the answer is right."""
    asked = answers(folder, candidate)
    return {one["id"]: float(one["correct"]) for one in asked if not groups or one["group"] in groups}


def grade(folder: Path, candidate: str, *groups: str) -> Values:
    """Return by question of these groups what the rules give the answer: right and plain 4, wrong
    -3.
    """
    asked = [one for one in answers(folder, candidate) if one["group"] in groups]
    judged = {one["id"]: (one["question"], one["answer"], one["reference"], one["category"]) for one in asked}
    return {
        name: rule_grader.score(rule_grader.judge(*said, cut=False), rule_grader.WEIGHTS)
        for name, said in judged.items()
    }


def with_examples(folder: Path, candidate: str, shots: int, *groups: str) -> Values:
    """Return 1 or 0 by question of these groups (none: all): whether the answer is right after so
    many worked examples.
    """
    asked = [one for one in answers(folder, candidate, "shots") if one["shots"] == shots]
    return {one["id"]: float(one["correct"]) for one in asked if not groups or one["group"] in groups}


def decoded(model: Any, tokenizer: Any, prompts: Sequence[list[int]], **way: Any) -> list[str]:
    """Return what a chat model says to prompts (tokens) by a way of transformers' own decoding,
    `num_beams` and the like, nothing drawn.
    """
    import torch

    from stages.common.core import chat

    found = []
    for start in range(0, len(prompts), BATCH):
        rows = prompts[start : start + BATCH]
        width = max(map(len, rows))
        padded = [[tokenizer.pad_token_id] * (width - len(row)) + row for row in rows]
        seen = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
        ends = {"eos_token_id": chat.stops(tokenizer), "pad_token_id": tokenizer.pad_token_id}
        said = model.generate(
            torch.tensor(padded), attention_mask=torch.tensor(seen), max_new_tokens=48, do_sample=False, **ends, **way
        )
        found += tokenizer.batch_decode(said[:, width:], skip_special_tokens=True)
    return [str(text).strip() for text in found]


def share(folder: Path, candidate: str, holds: Callable[[str], bool]) -> Values:
    """Return 1 or 0 by question: whether something holds of the answer's text."""
    return {one["id"]: float(holds(one["answer"])) for one in answers(folder, candidate)}


def losses(folder: Path, candidate: str, texts: str) -> Values:
    """Return nats per token by text, of `documents` or `conversations` held out."""
    with (folder / f"reports/evaluate/{candidate}/losses.csv").open(encoding="utf-8") as lines:
        rows = [row for row in csv.DictReader(lines) if row["texts"] == texts]
    return {str(at): float(row["nats"]) / float(row["tokens"]) for at, row in enumerate(rows)}


def figure(folder: Path, report: str, *keys: str) -> Values:
    """Return one number of a report, found by its keys."""
    found: Any = json.loads((folder / "reports" / report).read_text(encoding="utf-8"))
    for key in keys:
        found = found[key]
    return {ONE: float(found)}


def column(folder: Path, table: str, across: str, name: str) -> Values:
    """Return a column of a table by another: a curve; rows without a value are none of it."""
    with (folder / "reports" / table).open(encoding="utf-8") as lines:
        return {row[across]: float(row[name]) for row in csv.DictReader(lines) if row[name]}
