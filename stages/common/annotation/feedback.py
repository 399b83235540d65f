"""What people say of answers: an append-only file of JSON lines, each on the disk before the page
thanks for it.
"""

import json
import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, TypeAdapter, model_validator

from stages.common.annotation import lines
from stages.common.core.records import Record
from stages.common.runtime import locks
from stages.common.runtime.errors import DataError

Choice = Literal["left", "right", "tie", "both bad"]
CHARACTERS_AT_MOST = 65_536
"""Of one message, written by a client, a visitor or an annotator."""
BYTES_AT_MOST = 1 << 30
"""Beyond, nothing is taken: a page that is open to many must not fill the disk."""


class Said(BaseModel):
    """What every line has."""

    model_config = ConfigDict(strict=True, extra="forbid")

    time: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    messages: list[dict[str, str]]
    """The conversation before the answer, each with role and content."""
    annotator: str = "page"
    """Who said it: a name, or of the chat page one visit."""


class Model(BaseModel):
    """Which model had answered."""

    model: str
    version: str
    weights_sha256: str


class Opinion(Said, Model):
    """An answer, and whether somebody liked it."""

    kind: Literal["opinion"] = "opinion"
    response: str
    liked: bool | None
    """None takes back what the same visitor said before."""


class Edit(Said, Model):
    """An answer, and how somebody would rather have it."""

    kind: Literal["edit"] = "edit"
    response: str
    better: str


class Ordered(Said, Model):
    """Several answers to one conversation, and somebody's ranks of them."""

    kind: Literal["ranking"] = "ranking"
    responses: list[str]
    ranks: list[Annotated[int, Field(ge=1)]]
    """Of each answer; 1 is the best, ties are allowed."""

    @model_validator(mode="after")
    def _one_rank_each(self) -> "Ordered":
        if len(self.ranks) != len(self.responses):
            raise ValueError(f"{len(self.responses)} responses, {len(self.ranks)} ranks")
        return self


class Demonstration(Said):
    """An answer that a person has written."""

    kind: Literal["demonstration"] = "demonstration"
    response: str


class Side(Model):
    """One of two models that answered the same messages, and what it said to each."""

    answers: list[str]


class Vote(Said):
    """Two models side by side, and which of them somebody preferred who did not know them.

    `messages` are that person's, below the system prompt; each side answered all of them, and read
    its own answers.
    """

    kind: Literal["vote"] = "vote"
    conversation: str
    left: Side
    right: Side
    challenger: Literal["left", "right"]
    """Which side it was on; the other one was the champion."""
    vote: Choice
    counted: bool = False
    """Whether it was a rank in the challenger's release by traffic."""

    @model_validator(mode="after")
    def _one_answer_each(self) -> "Vote":
        asked = sum(one["role"] == "user" for one in self.messages)
        if not len(self.left.answers) == len(self.right.answers) == asked:
            raise ValueError(f"{asked} messages, {len(self.left.answers)} and {len(self.right.answers)} answers")
        return self

    @property
    def sides(self) -> tuple[Side, Side]:
        """The champion and the challenger."""
        return (self.right, self.left) if self.challenger == "left" else (self.left, self.right)

    @property
    def preferred(self) -> Side | None:
        """The side that the vote is for; None where it is for neither."""
        return {"left": self.left, "right": self.right}.get(self.vote)


def before_last(messages: Sequence[Record], answers: Sequence[str]) -> list[dict[str, str]]:
    """Return a side's conversation before its last answer: `messages` with the answers to all but
    the last of them, as far as there are any.
    """
    found, left = list[dict[str, str]](), list(answers)
    for one in turns(messages):
        if found and found[-1]["role"] == "user" and left:
            found.append({"role": "assistant", "content": left.pop(0)})
        found.append(one)
    return found


Line = Opinion | Edit | Ordered | Demonstration | Vote


def _kind(value: Any) -> Any:
    """Return a line's kind; the first stores held opinions alone and did not say so."""
    return value.get("kind", "opinion") if isinstance(value, dict) else getattr(value, "kind", None)


LINE: TypeAdapter[Line] = TypeAdapter(
    Annotated[
        Annotated[Opinion, Tag("opinion")]
        | Annotated[Edit, Tag("edit")]
        | Annotated[Ordered, Tag("ranking")]
        | Annotated[Demonstration, Tag("demonstration")]
        | Annotated[Vote, Tag("vote")],
        Discriminator(_kind),
    ]
)


def append(file: Path, line: BaseModel) -> None:
    """Add a line and wait until the disk has it; several processes may write. Raises DataError when
    it is full.
    """
    data = (json.dumps(line.model_dump(), ensure_ascii=False) + "\n").encode()
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("ab") as handle, locks.writing(handle.fileno()):
        size = handle.seek(0, os.SEEK_END)
        if size + len(data) > BYTES_AT_MOST:
            raise DataError("the store of feedback is full", where=file, remedy="begin another beside it: rename it")
        if size and not _ends_whole(file):
            data = b"\n" + data  # a machine that died here left half a line
        handle.write(data)
        handle.flush()
        os.fsync(handle.fileno())


def entries(file: Path) -> Iterator[tuple[int, Line | str]]:
    """Yield each line's number with what it says, or with what is wrong with it; a store not begun
    yet has none.
    """
    return lines.entries(file, LINE)


def read(file: Path) -> Iterator[Line]:
    """Yield the lines. Raises DataError with file and line."""
    return lines.read(file, LINE, "an opinion")


def turns(messages: Sequence[Record]) -> list[dict[str, str]]:
    """Return role and content of each message."""
    return [{"role": one["role"], "content": one["content"]} for one in messages]


def _ends_whole(file: Path) -> bool:
    with file.open("rb") as handle:
        handle.seek(-1, os.SEEK_END)
        return handle.read(1) == b"\n"
