"""Votes of people who chose between a version and the champion without knowing which was which:
counted, kept with the version, and said in words.

They are the version's tag `votes` and a paragraph of its card, so whoever reads the registry sees
them, on whichever machine. Each line of the store stays where it was written.
"""

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, TypeAdapter, ValidationError

from stages.common.core.statistics import sign_test
from stages.common.release import registry
from stages.common.release.registry import Version
from stages.common.runtime.errors import DataError
from stages.common.tracking import mlflow_store

if TYPE_CHECKING:
    from stages.common.tracking.mlflow_store import MlflowClient

TAG = "votes"
BEGINS = "Side by side with version "
TOP = 2
"""Blocks of a card before what people voted: its title, and the decision."""
SIDE = 0.025
Outcome = Literal["won", "lost", "tie", "both bad"]


class Cast(NamedTuple):
    """One vote: whose, against which version, how it ended for the one that was tried, and whether
    it was a rank in its release by traffic.
    """

    who: str
    against: str
    outcome: Outcome
    counted: bool


class Tally(BaseModel):
    """The votes between a version and version `against`, of so many `reviewers`; `counted` of them
    were ranks in its release by traffic.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    against: str = Field(pattern=r"^[0-9]+$")
    won: NonNegativeInt
    lost: NonNegativeInt
    ties: NonNegativeInt
    both_bad: NonNegativeInt
    reviewers: NonNegativeInt
    counted: NonNegativeInt

    @property
    def votes(self) -> int:
        """All of them."""
        return self.won + self.lost + self.ties + self.both_bad

    @property
    def p(self) -> float:
        """The exact two-sided p of the sign test, were both preferred alike."""
        return min(1.0, 2 * min(sign_test(self.won, self.lost), sign_test(self.lost, self.won)))

    def __str__(self) -> str:
        parts = f"won {self.won:,}, lost {self.lost:,}, ties {self.ties:,}, both bad {self.both_bad:,}"
        people = f"{self.reviewers:,} reviewer{'' if self.reviewers == 1 else 's'}"
        said = f"{BEGINS}{self.against}, blind: {parts}, by {people}. "
        decided = self.won + self.lost
        if decided:
            low, high = clopper_pearson(self.won, decided)
            said += f"It wins {self.won / decided:.1%} [{low:.1%}, {high:.1%}] of the {decided:,} that prefer one "
            said += f"(exact 95 % interval; sign test p = {self.p:.2g}). "
        else:
            said += "None of them prefers one. "
        return said + (
            f"The gate did not use them; {self.counted:,} of {self.votes:,} were ranks in a release by traffic."
        )


TALLIES = TypeAdapter(list[Tally])


def tallies(cast: Iterable[Cast]) -> list[Tally]:
    """Return the votes about a version, counted for each that it was compared with."""
    found: dict[str, list[Cast]] = {}
    for one in cast:
        found.setdefault(one.against, []).append(one)

    def count(some: list[Cast], outcome: Outcome) -> int:
        return sum(one.outcome == outcome for one in some)

    return [
        Tally(
            against=against,
            won=count(some, "won"),
            lost=count(some, "lost"),
            ties=count(some, "tie"),
            both_bad=count(some, "both bad"),
            reviewers=len({one.who for one in some}),
            counted=sum(one.counted for one in some),
        )
        for against, some in sorted(found.items(), key=lambda item: int(item[0]))
    ]


def clopper_pearson(successes: int, count: int) -> tuple[float, float]:
    """Return the exact 95 % interval of a proportion (Clopper & Pearson 1934)."""
    from scipy.special import betaincinv

    failures = count - successes
    low = float(betaincinv(successes, failures + 1, SIDE)) if successes else 0.0
    high = float(betaincinv(successes + 1, failures, 1 - SIDE)) if failures else 1.0
    return low, high


def of(version: Version | None) -> list[Tally]:
    """Return the votes that are kept with a version. Raises DataError for a tag that is none of
    ours.
    """
    told = version.tags.get(TAG) if version else None
    if not version or not told:
        return []
    try:
        return TALLIES.validate_json(told)
    except ValidationError as error:
        what = f"its tag `{TAG}` is not what the server writes: {error.errors()[0]['msg']}"
        where = f"{version.name} version {version.number}"
        raise DataError(what, where=where, remedy="take the tag away; the next vote writes it anew") from error


def keep(client: "MlflowClient", version: Version, found: list[Tally]) -> None:
    """Write the votes to a version: into its tag and its card."""
    registry.tag(client, version, {TAG: json.dumps([one.model_dump() for one in found])})
    with mlflow_store.answers():
        card = client.get_model_version(version.name, version.number).description or ""
    registry.describe(client, version, on_card(card, found))


def on_card(card: str, found: Iterable[Tally]) -> str:
    """Return a model card with what people voted below its decision, in the place of what it said
    of them before.
    """
    blocks = [block for block in card.split("\n\n") if not block.startswith(BEGINS)]
    return "\n\n".join([*blocks[:TOP], *map(str, found), *blocks[TOP:]])
