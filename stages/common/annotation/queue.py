"""A round of samples as people annotate it: what to show to whom, in what order, what is done, who
agrees with whom.
"""

import math
import re
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from stages.common.annotation import feedback, ranking_store
from stages.common.annotation.feedback import CHARACTERS_AT_MOST, Demonstration
from stages.common.annotation.ranking_store import MARKS, Mark, Ranking
from stages.common.core.records import SPLITS, Record
from stages.common.pairs import losses
from stages.common.ranking import samples
from stages.common.ranking.eligibility import Wanted, wanted
from stages.common.ranking.samples import Sample
from stages.common.runtime.errors import DataError
from stages.common.text import content_hash, normalisation

NAME = re.compile(r"[\w][\w .'-]{0,39}")
FOR_EVERYBODY = 10
"""One prompt in so many is shown to everybody first, so that there is something to agree on."""
ANSWERS_AT_MOST = 9
"""Answers that a page shows side by side, and that a digit ranks."""


class Round(NamedTuple):
    """The samples of a round that are to be ranked, by the prompt's id, and the file that people's
    rankings go to.
    """

    name: str
    samples: dict[str, Sample]
    prompts: dict[str, list[Record]]
    """The messages of every prompt that is not held out, for people to answer."""
    file: Path
    needed: int
    """How many prompts somebody must have ranked before the round goes on."""


def rounds(folder: Path) -> list[str]:
    """Return the names of the rounds that have samples, the newest last."""
    found = [path.name for path in folder.iterdir() if _parts(path)] if folder.is_dir() else []
    return sorted(found, key=lambda name: (len(name), name))


def load(folder: Path, annotations_folder: Path, name: str, settings: Wanted) -> Round:
    """Return a round. Raises DataError when there is none of that name, or it has too many answers
    for a page.
    """
    if name not in rounds(folder):  # a name from a page is no path until it is one of these
        raise DataError(f"no samples of a round '{name[:40]}'", where=folder, remedy="run `dvc repro sample`")
    parts = _parts(folder / name)
    stamp = tuple((str(part), part.stat().st_mtime_ns, part.stat().st_size) for part in parts)
    found, prompts = _read(folder / name, stamp, settings.model_dump_json())
    needed = math.ceil(settings.human_share * len(found))
    return Round(name, found, prompts, annotations_folder / f"{name}.jsonl", needed)


def person(name: str) -> str:
    """Return an annotator's name, made uniform. Raises DataError when it is none."""
    uniform = " ".join(normalisation.normalise(name).split())
    if not uniform:
        raise DataError("type your name first")
    if not NAME.fullmatch(uniform):
        raise DataError("a name has 1 to 40 letters, digits, spaces, and . ' - _", where="your name")
    return uniform


def to_rank(of: Round, given: Mapping[str, Mapping[str, Any]], who: str, skipped: Collection[str]) -> str:
    """Return the id of the prompt whose answers `who` is to rank, "" when nothing is left.

    First what everybody sees, then what nobody has ranked, in an order of the person's own; then
    the rest. What was skipped comes last.
    """
    ranked = {id for one in given.values() for id in one}

    def place(id: str) -> tuple[bool, bool, bool, bytes]:
        shared = content_hash.digest(id)[0] % FOR_EVERYBODY == 0
        return id in skipped, not shared, id in ranked, content_hash.digest(id if shared else [who, id])

    return min((id for id in of.samples if id not in given.get(who, {})), key=place, default="")


def to_write(of: Round, given: Mapping[str, Mapping[str, Any]], who: str, skipped: Collection[str]) -> str:
    """Return the id of the prompt that `who` is to answer, "" when nothing is left.

    First those nobody has answered; among them those whose answers are not worth ranking: a good
    one is missing.
    """
    answered = {id for one in given.values() for id in one}

    def place(id: str) -> tuple[bool, bool, bool, bytes]:
        return id in skipped, id in answered, id in of.samples, content_hash.digest([who, id])

    return min((id for id in of.prompts if id not in given.get(who, {})), key=place, default="")


def blind(who: str, sample: Sample) -> list[str]:
    """Return the answers in an order that is this person's own and says nothing of how they were
    drawn.
    """
    return sorted(sample.responses, key=lambda response: content_hash.digest([who, sample.record["id"], response]))


def save(of: Round, who: str, id: str, ranks: Sequence[int | None], marks: Sequence[Sequence[Mark]]) -> Ranking:
    """Return the ranking of the answers as `blind` shows them. Raises DataError when one of them
    has no rank.
    """
    sample = of.samples.get(id)
    if sample is None:
        raise DataError("that prompt is not in the round", where=of.name, remedy="load the page again")
    shown = blind(who, sample)
    given = [rank for rank in ranks[: len(shown)] if type(rank) is int and 1 <= rank <= len(shown)]
    if len(given) < len(shown):
        raise DataError(f"every answer needs a rank from 1 to {len(shown)}; ties are allowed", where="ranks")
    held = [[mark for mark in MARKS if mark in of_answer] for of_answer in marks[: len(shown)]]
    time = datetime.now(UTC).isoformat(timespec="seconds")
    return Ranking(id=id, responses=shown, ranks=given, annotator=who, marks=held, time=time)


def given(of: Round) -> dict[str, dict[str, list[int]]]:
    """Return annotator -> prompt id -> ranks, as `rank` reads them. Raises DataError for a
    malformed line.
    """
    return ranking_store.by_annotator(of.file, list(of.samples.values()))


def agreement(given: Mapping[str, Mapping[str, list[int]]], of: Round, who: str) -> dict[str, dict[str, float]]:
    """Return other person -> `ranking.mean_tau` with `who` on the prompts both have ranked; none
    without any.
    """
    mine = given.get(who, {})
    cells = {
        other: losses.mean_tau((mine[id], theirs[id]) for id in of.samples if id in mine and id in theirs)
        for other, theirs in given.items()
        if other != who
    }
    return {other: cell for other, cell in cells.items() if cell}


def written(store: Path, of: Round) -> dict[str, dict[str, str]]:
    """Return annotator -> prompt id -> the answer that person wrote. Raises DataError for a
    malformed line.
    """
    ids = {_asked(feedback.turns(messages)): id for id, messages in of.prompts.items()}
    found: dict[str, dict[str, str]] = {}
    for line in feedback.read(store):
        if isinstance(line, Demonstration) and (id := ids.get(_asked(line.messages))):
            found.setdefault(line.annotator, {})[id] = line.response
    return found


def demonstration(of: Round, who: str, id: str, answer: str) -> Demonstration:
    """Return a person's answer to a prompt as a line of the store. Raises DataError when there is
    no answer.
    """
    messages = of.prompts.get(id)
    if messages is None:
        raise DataError("that prompt is not in the round", where=of.name, remedy="load the page again")
    if not answer.strip() or len(answer) > CHARACTERS_AT_MOST:
        raise DataError(f"an answer has 1 to {CHARACTERS_AT_MOST:,} characters", where="your answer")
    return Demonstration(messages=feedback.turns(messages), annotator=who, response=answer.strip())


@lru_cache(maxsize=4)
def _read(folder: Path, stamp: tuple[object, ...], settings: str) -> tuple[dict[str, Sample], dict[str, list[Record]]]:
    """Return the samples to be ranked, and the prompts to be answered; `stamp` changes when the
    files do.
    """
    found = {split: list(samples.read(folder, split)) for split in SPLITS}
    kept = wanted([sample for split in SPLITS for sample in found[split]], Wanted.model_validate_json(settings))
    most = max((len(sample.responses) for sample in kept), default=0)
    if most > ANSWERS_AT_MOST:
        raise DataError(f"a prompt has {most} answers, a page shows {ANSWERS_AT_MOST}", where=folder)
    by_id = {sample.record["id"]: sample for sample in kept}
    return by_id, {one.record["id"]: one.record["messages"] for one in found["train"]}


def _asked(messages: Sequence[dict[str, str]]) -> bytes:
    return content_hash.digest([[one["role"], one["content"]] for one in messages])


def _parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.parquet"))
