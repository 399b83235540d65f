"""People's rankings of samples: an append-only file of JSON lines, one ranking a line.

A line is {"id": the prompt's id, "responses": [texts as shown], "ranks": [1 = best, ties allowed],
"annotator": name, "marks"?: [of each answer, what holds of it]}; other keys (a comment) are let
through. Responses are matched by their text, so a ranking survives another order and never falls on
answers that were drawn anew. A person's later line on a prompt replaces the earlier one.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from stages.common.annotation import lines
from stages.common.pairs import losses
from stages.common.ranking.samples import Sample
from stages.common.runtime.errors import TryAgainError
from stages.common.text.rule_grader import ranks

Mark = Literal["answers the question", "truthful", "harmful", "rude"]
MARKS: tuple[Mark, ...] = get_args(Mark)


class Ranking(BaseModel):
    """One line of the store."""

    model_config = ConfigDict(strict=True, extra="ignore")

    id: str
    """The prompt's id."""
    responses: list[str]
    """The answers as they were shown."""
    ranks: list[Annotated[int, Field(ge=1)]]
    """Of each answer; 1 is the best, ties are allowed."""
    annotator: str
    """Who ranked."""
    marks: list[list[Mark]] | None = None
    """Of each answer, what the person says holds of it; None where that was not asked."""
    time: str | None = None
    """When, in UTC."""

    @model_validator(mode="after")
    def _one_rank_each(self) -> "Ranking":
        if len(self.ranks) != len(self.responses):
            raise ValueError(f"{len(self.responses)} responses, {len(self.ranks)} ranks")
        if self.marks is not None and len(self.marks) != len(self.responses):
            raise ValueError(f"{len(self.responses)} responses, {len(self.marks)} with marks")
        return self


def read(file: Path) -> Iterator[Ranking]:
    """Yield the rankings of a store; one that does not exist yet has none. Raises DataError with
    file and line.
    """
    return lines.read(file, TypeAdapter(Ranking), "a ranking")


def complete(file: Path, samples: Sequence[Sample]) -> dict[str, dict[str, Ranking]]:
    """Return annotator -> prompt id -> the last ranking that covers all of the sample's
    responses.
    """
    wanted = {sample.record["id"]: set(sample.responses) for sample in samples}
    found: dict[str, dict[str, Ranking]] = {}
    for ranking in read(file):
        if ranking.id in wanted and wanted[ranking.id] <= set(ranking.responses):
            found.setdefault(ranking.annotator, {})[ranking.id] = ranking
    return dict(sorted(found.items()))


def by_annotator(file: Path, samples: Sequence[Sample]) -> dict[str, dict[str, list[int]]]:
    """Return annotator -> prompt id -> ranks of the sample's responses, for every ranking that
    covers all of them.
    """
    responses = {sample.record["id"]: sample.responses for sample in samples}
    return {
        person: {
            id: [dict(zip(one.responses, one.ranks, strict=True))[response] for response in responses[id]]
            for id, one in given.items()
        }
        for person, given in complete(file, samples).items()
    }


def marks(file: Path, samples: Sequence[Sample]) -> dict[str, int]:
    """Return how many answers people marked at all, and of how many each mark holds; an answer
    counts once a person.
    """
    counts: Counter[str] = Counter({"answers": 0} | dict.fromkeys(MARKS, 0))
    for given in complete(file, samples).values():
        for one in given.values():
            counts["answers"] += len(one.marks or [])
            counts.update(mark for of_answer in one.marks or [] for mark in of_answer)
    return dict(counts)


def merged(file: Path, samples: Sequence[Sample]) -> list[list[int] | None]:
    """Return the ranks of each sample by the mean rank people gave its responses, or None where
    nobody has.
    """
    people = by_annotator(file, samples)
    result: list[list[int] | None] = []
    for sample in samples:
        given = [ranked[sample.record["id"]] for ranked in people.values() if sample.record["id"] in ranked]
        result.append(ranks([-sum(each) / len(given) for each in zip(*given, strict=True)]) if given else None)
    return result


def by_people(samples: Sequence[Sample], file: Path, share: float) -> "list[list[int] | None]":
    """Return people's ranks. Raises TryAgainError, with how many are missing, until `share` of the
    samples has some.
    """
    result = merged(file, samples)
    ranked = sum(ranks is not None for ranks in result)
    missing = math.ceil(share * len(samples)) - ranked
    if missing > 0:
        what = f"people have ranked {ranked} of {len(samples)} samples, {missing} more are needed"
        raise TryAgainError(what, where=file, remedy="rank them, or lower rank.human_share")
    return result


def people_agree(samples: Sequence[Sample], file: Path) -> dict[str, Any]:
    """Return how many samples each person ranked, their agreement on those they share, and what
    they marked.
    """
    people = by_annotator(file, samples)
    orders = {name: [given.get(sample.record["id"]) for sample in samples] for name, given in people.items()}
    facts: dict[str, Any] = {"ranked": {name: len(given) for name, given in people.items()}}
    return facts | {"agreement": losses.agreement(orders), "marks": marks(file, samples)}
