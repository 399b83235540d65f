"""Which split a record falls in, decided by its content, and which shapes may not ask the same.

A record is known by its first user turn (a document: by its text), in every shape alike. So the
same prompt never falls in two splits, and no run, order or number of workers changes a split.
"""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from stages.common.core.params import StageParams
from stages.common.core.records import Record, Shape
from stages.common.text import content_hash

HASHES = 2**64
Split = Literal["train", "validation", "whole"]
Talk = Literal["conversations", "comparisons", "prompts", "labelled"]


def _different(shapes: list[Talk]) -> list[Talk]:
    if len(set(shapes)) < max(len(shapes), 2):
        raise ValueError("names two or more different shapes")
    return shapes


class HeldOut(StageParams):
    """The share of each split but `train`, which gets the rest."""

    validation: Annotated[float, Field(ge=0, lt=1)]
    """Share of records held out; 20 records or more give at least one, unless it is 0."""


class Splits(StageParams):
    """How much of each shape is held out, and which shapes do not share a prompt."""

    documents: HeldOut
    """For perplexity."""
    conversations: HeldOut
    """For the loss curve of SFT."""
    comparisons: HeldOut
    """For the accuracy of the reward model; labelled answers are split as these are."""
    prompts: HeldOut
    """For choosing a checkpoint by reward."""
    apart: list[Annotated[list[Talk], AfterValidator(_different)]] = []
    """Shapes that do not share a prompt, first come, first served: `[[conversations, prompts]]`
    drops prompts.
    """

    def share(self, shape: Shape) -> float:
        """Return the share held out of a shape; questions are not split."""
        if shape == "questions":
            return 0.0
        return float(getattr(self, "comparisons" if shape == "labelled" else shape).validation)

    def before(self, shape: Shape) -> list[Talk]:
        """Return the shapes whose prompts `shape` may not repeat."""
        earlier = [other for group in self.apart if shape in group for other in group[: group.index(shape)]]
        return list(dict.fromkeys(earlier))


def value(shape: Shape, record: Record) -> int:
    """Return the 64-bit hash by which a record is split, and known to shapes that stay apart from
    its own.
    """
    return int.from_bytes(content_hash.split_digest(shape, record)[:8], "big")


def limit(share: float) -> int:
    """Return the hash below which records are held out."""
    return int(share * HASHES)


def split(shape: Shape, record: Record, held_out: int) -> Split:
    """Return the split of a record, hashes below `held_out` being held out; questions stay
    whole.
    """
    if shape == "questions":
        return "whole"
    return "validation" if value(shape, record) < held_out else "train"
