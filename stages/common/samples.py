"""Answers drawn from a policy: a prompt of the shape `prompts` with its K responses, in the split the prompt is in."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from stages.common import records
from stages.common.records import SCHEMAS, Record

SCHEMA = pa.schema([*SCHEMAS["prompts"], ("responses", pa.list_(pa.string())), ("cut", pa.list_(pa.bool_()))])
"""`cut` says of each response whether it ran into the longest length allowed, without an end of turn."""


class Sample(NamedTuple):
    """A prompt with its different responses, in the order they were drawn; `cut` as in SCHEMA."""

    record: Record
    responses: list[str]
    cut: list[bool]

    @property
    def question(self) -> str:
        """The last user turn."""
        return next((turn["content"] for turn in reversed(self.record["messages"]) if turn["role"] == "user"), "")


def read(folder: Path, split: str) -> Iterator[Sample]:
    """Yield the samples of a split, equal responses once (cut only if every copy is)."""
    for record in records.read(folder / split):
        ended: dict[str, bool] = {}
        for response, cut in zip(record["responses"], record["cut"], strict=True):
            ended[response] = ended.get(response, True) and cut
        yield Sample(record, list(ended), list(ended.values()))
