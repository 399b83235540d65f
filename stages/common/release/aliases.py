"""Who is champion: the moves of the aliases challenger, champion and previous, each recorded, one
at a time.

Every move is a few writes to a registry that has no transactions. They come in an order that
leaves, wherever a process dies, champion on a version that passed the gate, and the same call again
finishes what was begun.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.common.release import promotion_history, registry
from stages.common.release.gate import Approval, Decision
from stages.common.release.registry import CHALLENGER, CHAMPION, PREVIOUS, Version
from stages.common.runtime import kill_points, locks
from stages.common.runtime.errors import DataError, TryAgainError
from stages.common.runtime.logs import log
from stages.common.tracking import mlflow_store

if TYPE_CHECKING:
    from stages.common.tracking.mlflow_store import MlflowClient

PASSED, REFUSED = "passed", "refused"


@contextmanager
def one_at_a_time(name: str) -> Iterator[None]:
    """Wait for whoever moves aliases of `name` in this store; held by a live process, from
    whichever checkout.

    Against a server, two machines do not see each other's lock: there `enthrone` looks again before
    it moves.
    """

    def say(holder: str) -> None:
        log.info("waiting: process %s moves aliases of %s", holder, name)

    with locks.waiting(_lock_file(name), say):
        yield


def _lock_file(name: str) -> Path:
    address = mlflow_store.uri()
    if address.startswith("sqlite:///"):
        database = Path(address.removeprefix("sqlite:///")).absolute()
        return database.with_name(f"{database.name}-{name}.lock")
    digest = hashlib.sha256(f"{mlflow_store.shown()}/{name}".encode()).hexdigest()[:16]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lathe"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{digest}.lock"


def settled(version: Version | None, champion: Version | None) -> Decision | None:
    """Return what was decided before about these weights, where it still holds, else None.

    The champion keeps the reason it was promoted for; what a person rejected or rolled back stays
    refused.
    """
    if version is None:
        return None
    if champion and champion.number == version.number:
        if "comparisons" in version.tags:
            return Decision(
                passed=True, reason=version.tags["reason"], comparisons=tuple(json.loads(version.tags["comparisons"]))
            )
        return Decision(passed=True, reason="it was made champion by hand")
    for tag, said in (("rolled_back", "rolled back"), ("rejected", "rejected")):
        if version.tags.get(tag):
            reason = f"version {version.number} has these weights and was {said}: {version.tags[tag]}"
            return Decision(passed=False, reason=f"{reason}; remove its tag `{tag}` to have it judged again")
    return None


def release(
    client: "MlflowClient", version: Version, decision: Decision, approval: Approval, card: str, held: Version | None
) -> str:
    """Record the decision at `version`, move the aliases as decided, and return `promoted`,
    `pending` or `refused`.

    `held` is the champion that it was compared with. A decision made before is not recorded anew.
    Done twice, it changes nothing.
    """
    crowned = held is not None and held.number == version.number
    outcome = verdict(decision, approval, crowned)
    before = version.tags.get("champion_before", "") if crowned else (held.number if held else "")
    if decision.comparisons and not crowned:
        comparisons = json.dumps([one.model_dump() for one in decision.comparisons])
        tags = {"gate": PASSED if decision.passed else REFUSED, "reason": decision.reason, "comparisons": comparisons}
        review = {"pending": "pending", "promoted": "auto", "refused": "none"}[outcome]
        registry.describe(client, version, card)
        registry.tag(client, version, tags | {"champion_before": before, "review": review})
    if not crowned:
        registry.point(client, CHALLENGER, version)
        if outcome == "promoted":
            enthrone(client, version, held)
    if version.tags.get("decision") != outcome or not crowned:
        promotion_history.append(line(version, outcome, decision.reason, before, version.number))
        kill_points.point("promote:history")
        registry.tag(client, version, {"decision": outcome})
    return outcome


def verdict(decision: Decision, approval: Approval, crowned: bool = False) -> str:
    """Return `promoted`, `pending` (it waits for a person) or `refused`."""
    if not decision.passed:
        return "refused"
    return "promoted" if crowned or (approval == "auto" and not decision.asks_person) else "pending"


def enthrone(client: "MlflowClient", version: Version, held: Version | None) -> None:
    """Make `version` champion and `held`, the champion until now, previous.

    Raises TryAgainError when the champion is another one by now.
    """
    now = registry.with_alias(client, version.name, CHAMPION)
    if (now and now.number) != (held and held.number):
        what = f"the champion changed meanwhile: {_shown(held)} when this began, {_shown(now)} now"
        raise TryAgainError(what, where=mlflow_store.shown(), remedy="the same command decides again")
    if held is not None:
        registry.point(client, PREVIOUS, held)
    registry.point(client, CHAMPION, version)


def approve(
    client: "MlflowClient", name: str, number: str, reason: str, by: str = "", ask: Callable[[str], bool] | None = None
) -> str:
    """Make a version that passed the gate champion, as a person decided; return what was done: of
    who is champion already, nothing. Raises DataError.

    `ask` is asked whether to go on with one that a person rejected or rolled back before; without
    it, no.
    """
    with one_at_a_time(name):
        version, held = _passed(client, name, number), registry.with_alias(client, name, CHAMPION)
        by, crowned = by or promotion_history.who(), held is not None and held.number == version.number
        if crowned and version.tags.get("decision") == "promoted":
            return f"nothing to do: version {version.number} of {name} is champion already"
        _not_against(version, ask)
        before = version.tags.get("champion_before", "") if crowned else (held.number if held else "")
        tags = {"review": "approved", "review_by": by, "review_reason": reason, "champion_before": before}
        registry.tag(client, version, tags | {"rejected": "", "rolled_back": "", "rolled_back_to": ""})
        if not crowned:
            enthrone(client, version, held)
        promotion_history.append(line(version, "approved", reason, before, version.number), by=by)
        registry.tag(client, version, {"decision": "promoted"})
    return f"version {version.number} of {name} is champion"


def reject(client: "MlflowClient", name: str, number: str, reason: str, by: str = "") -> str:
    """Record that a person does not want a version; it is not judged again. Raises DataError for
    the champion.
    """
    with one_at_a_time(name):
        version, held = registry.numbered(client, name, number), registry.with_alias(client, name, CHAMPION)
        if held and held.number == version.number:
            raise DataError(f"version {number} is the champion", where=name, remedy="roll back: make rollback")
        by = by or promotion_history.who()
        tags = {"review": "rejected", "review_by": by, "review_reason": reason, "rejected": f"{reason} ({by})"}
        registry.tag(client, version, tags | {"decision": "refused"})
        champion = held.number if held else ""
        promotion_history.append(line(version, "rejected", reason, champion, champion), by=by)
    return f"version {version.number} of {name} is rejected"


def rollback(client: "MlflowClient", name: str, reason: str, by: str = "") -> str:
    """Make `previous` champion again and return what was done; done twice, it changes nothing.

    The version that goes keeps the reason as tag `rolled_back`, and the gate refuses its weights
    from then on. Raises DataError when there is nothing to go back to.
    """
    with one_at_a_time(name):
        champion, previous = (registry.with_alias(client, name, alias) for alias in (CHAMPION, PREVIOUS))
        if champion is None or previous is None:
            raise DataError(f"'{name}' has no {CHAMPION if champion is None else PREVIOUS}", where=mlflow_store.shown())
        if previous.tags.get("rolled_back"):
            return (
                f"nothing to do: version {champion.number} is champion since version {previous.number} was rolled back"
            )
        by = by or promotion_history.who()
        if previous.number != champion.number:
            if previous.tags.get("gate") != PASSED:
                passed = [one for one in registry.versions(client, name) if one.tags.get("gate") == PASSED]
                others = [one.number for one in passed if one.number != champion.number]
                remedy = f"approve another: make approve VERSION={others[-1]}" if others else "no other version passed"
                raise DataError(f"version {previous.number} never passed the gate", where=name, remedy=remedy)
            tags = {"rolled_back": f"{reason} ({by})", "rolled_back_to": previous.number}
            registry.tag(client, champion, tags)
            registry.point(client, CHAMPION, previous)
            gone, back = champion, previous
        else:  # a rollback died between its two aliases
            gone, back = _gone(client, name, champion), champion
        if promotion_history.last(name, gone.number).get("action") != "rolled back":
            promotion_history.append(line(gone, "rolled back", reason, gone.number, back.number), by=by)
            kill_points.point("promote:history")
        registry.point(client, PREVIOUS, gone)  # last: from now on a call finds nothing to do
    return f"version {back.number} of {name} is champion again, version {gone.number} is rolled back"


def _not_against(version: Version, ask: Callable[[str], bool] | None) -> None:
    """Raise DataError where a person decided against the version, and nobody says it is meant."""
    for tag, said in (("rejected", "rejected"), ("rolled_back", "rolled back")):
        against = version.tags.get(tag)
        if against and not (ask and ask(f"version {version.number} was {said}: {against}")):
            remedy = f"if you mean it: make approve VERSION={version.number} ANYWAY=1"
            raise DataError(f"version {version.number} was {said}: {against}", where=version.name, remedy=remedy)


def _gone(client: "MlflowClient", name: str, champion: Version) -> Version:
    """Return the newest version that was rolled back to `champion`. Raises DataError when there is
    none.
    """
    found = [one for one in registry.versions(client, name) if one.tags.get("rolled_back_to") == champion.number]
    if not found:
        what = f"champion and previous are both version {champion.number}: there is nothing to go back to"
        raise DataError(what, where=name, remedy="`dvc repro -f promote` finishes a promotion that was stopped")
    return max(found, key=lambda one: int(one.number))


def _passed(client: "MlflowClient", name: str, number: str) -> Version:
    version = registry.numbered(client, name, number)
    if version.tags.get("gate") != PASSED:
        what = f"version {number} did not pass the gate: {version.tags.get('reason', 'it was never judged')}"
        raise DataError(what, where=name, remedy="lower promote.margin or a guard, and run `dvc repro promote`")
    return version


def line(version: Version, what: str, why: str, before: str, after: str) -> dict[str, Any]:
    """Return a line of the history: `what` was done with `version`, and champion went from `before`
    to `after`.
    """
    facts: Mapping[str, str] = version.tags
    return {
        "name": version.name,
        "version": version.number,
        "action": what,
        "reason": why,
        "from": before or None,
        "to": (after if what not in ("refused", "pending") else before) or None,
        "candidate": facts.get("candidate"),
        "weights_sha256": facts.get("weights_sha256"),
    }


def _shown(version: Version | None) -> str:
    return f"version {version.number}" if version else "none"
