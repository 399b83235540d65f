"""A challenger's release by traffic: its state on the disk, and its moves in registry and history.

The state is a small JSON file, written whole after each move and each batch of observations, so a
server that ends goes on where it was. A move is written to the history before it is made, with its
evidence; done again after a death between the two it changes nothing more.
"""

import json
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from stages.common.release import aliases, promotion_history, registry
from stages.common.release.gate import Approval
from stages.common.release.registry import CHALLENGER, CHAMPION, Version
from stages.common.release.traffic import evidence, moves
from stages.common.release.traffic.evidence import Evidence, Rules
from stages.common.release.traffic.moves import Move
from stages.common.runtime import whole_files
from stages.common.runtime.errors import DataError
from stages.common.runtime.logs import log

if TYPE_CHECKING:
    from stages.common.tracking.mlflow_store import MlflowClient

STATE = Path(".lathe/challenger.json")
BY = "traffic"
TAG = "challenge"
"""Of a version: how its release by traffic ended; while it is there none begins."""
AGAINST = ("rejected", "rolled_back")
ACTIONS: dict[Move, str] = {"grow": "challenges", "promote": "won", "back": "sent back", "open": "not shown better"}
Mode = Literal["off", "shadow", "canary"]
ARMS_KEPT = 1000


@dataclass
class Challenge:
    """One version against the champion; `salt` decides which conversations are whose."""

    name: str
    champion: str
    challenger: str
    salt: str = field(default_factory=lambda: secrets.token_hex(8))
    known: Evidence = field(default_factory=evidence.nothing)
    ended: str = ""
    arms: dict[str, tuple[bool, float]] = field(default_factory=dict)
    """The last conversations that were begun: whether they are the challenger's, and the share
    then.
    """

    def held(self) -> dict[str, Any]:
        """Return the state as JSON holds it."""
        arms = dict(list(self.arms.items())[-ARMS_KEPT:])
        return vars(self) | {"known": evidence.to_json(self.known), "arms": arms}


def write(held: dict[str, Any], place: Path) -> None:
    """Write the state whole."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with whole_files.written_whole(place) as own:
        own.write_text(json.dumps(held) + "\n", encoding="utf-8")


def resumed(place: Path, name: str, champion: str, challenger: str) -> Challenge:
    """Return the release of these two as it was left, or a new one."""
    try:
        held: dict[str, Any] = json.loads(place.read_text(encoding="utf-8"))
        arms = {key: (bool(takes), float(share)) for key, (takes, share) in held["arms"].items()}
        found = Challenge(**held | {"known": evidence.from_json(held["known"]), "arms": arms})
    except FileNotFoundError:
        return Challenge(name, champion, challenger)
    except (ValueError, KeyError, TypeError) as error:
        log.warning("%s cannot be read, the release by traffic begins anew: %s", place, error)
        return Challenge(name, champion, challenger)
    same = (found.name, found.champion, found.challenger) == (name, champion, challenger)
    return found if same and not found.ended else Challenge(name, champion, challenger)


def waits(client: "MlflowClient", name: str, champion: str) -> Version | None:
    """Return the version with alias challenger that is to be tried, or None: it passed the gate, no
    person is against it, and its release has not ended.
    """
    found = registry.with_alias(client, name, CHALLENGER)
    if found is None or found.number == champion or found.tags.get(TAG):
        return None
    return None if against(found) else found


def against(version: Version) -> str:
    """Return what keeps a version from being tried, or ""."""
    if version.tags.get("gate") != aliases.PASSED:
        return "it did not pass the gate"
    said = [f"it was {tag.replace('_', ' ')}: {version.tags[tag]}" for tag in AGAINST if version.tags.get(tag)]
    return said[0] if said else ""


def challenge(client: "MlflowClient", name: str, number: str) -> str:
    """Give a version the alias challenger, as a person wants; return what was done. Raises
    DataError for the champion and for one that may not be tried.
    """
    with aliases.one_at_a_time(name):
        version, held = registry.numbered(client, name, number), registry.with_alias(client, name, CHAMPION)
        if held is None or held.number == number:
            what = f"version {number} is the champion" if held else f"'{name}' has no champion to challenge"
            raise DataError(what, where=name)
        if said := against(version):
            raise DataError(f"version {number} may not be tried: {said}", where=name)
        registry.tag(client, version, {TAG: ""})
        registry.point(client, CHALLENGER, version)
        line = aliases.line(version, "set as challenger", "a person wants it tried", held.number, held.number)
        promotion_history.append(line)
    return f"version {number} of {name} challenges version {held.number}"


def settle(client: "MlflowClient", release: Challenge, rules: Rules, approval: Approval, canary: bool) -> Move:
    """Make the move that the evidence asks for, and return it; without `canary` the share stays 0.

    With `approval` manual a challenger that won waits for a person. A release that ended has
    `ended` set.
    """
    move = moves.MOVES[int(moves.next_move(release.known, rules))]
    if move == "stay" or (move == "grow" and not canary):
        return "stay"
    if move == "grow":
        moves.grown(release.known, moves.GROW)
    reason = moves.reason(release.known, rules, move)
    version = registry.numbered(client, release.name, release.challenger)
    line = aliases.line(version, ACTIONS[move], reason, release.champion, release.champion)
    with aliases.one_at_a_time(release.name):
        promotion_history.append(line | {"evidence": moves.figures(release.known, rules)}, by=BY)
        if move != "grow":
            registry.tag(client, version, {TAG: f"{ACTIONS[move]}: {reason}"})
        if move == "promote" and approval == "manual":
            registry.tag(client, version, {"review": "pending"})
    if move == "promote" and approval == "auto":
        aliases.approve(client, release.name, release.challenger, reason, by=BY)
    release.ended = "" if move == "grow" else move
    log.info("version %s %s: %s", release.challenger, ACTIONS[move], reason)
    return move
