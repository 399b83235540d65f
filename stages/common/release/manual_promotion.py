"""A champion that a person made in MLflow's page: noticed, recorded, and `previous` brought up to
date.

MLflow keeps no history of aliases and its webhooks are for public addresses, so whoever polls calls
`notice`.
"""

from typing import TYPE_CHECKING

from stages.common.release import aliases, promotion_history, registry
from stages.common.release.registry import CHAMPION, PREVIOUS, Version
from stages.common.runtime.logs import log

if TYPE_CHECKING:
    from stages.common.tracking.mlflow_store import MlflowClient

BY = "MLflow's page"
REASON = "alias champion was moved by hand"


def notice(client: "MlflowClient", name: str) -> Version | None:
    """Record a move of alias champion that the history does not have, and return the new champion;
    else None.

    A pending version is thereby approved. Call it under `release.one_at_a_time`.
    """
    held, known = registry.with_alias(client, name, CHAMPION), recorded(name)
    if held is None or known is None or held.number == known or unfinished(client, held, known):
        return None
    before = {one.number: one for one in registry.versions(client, name)}.get(known)
    tags = {"champion_before": known, "rejected": "", "rolled_back": "", "rolled_back_to": ""}
    if held.tags.get("gate") == aliases.PASSED:
        tags |= {"review": "approved", "review_by": BY, "review_reason": REASON}
    else:
        said = held.tags.get("reason", "it was never judged")
        log.warning("version %s is champion by hand without having passed the gate: %s", held.number, said)
    registry.tag(client, held, tags)
    if before:
        registry.point(client, PREVIOUS, before)
    promotion_history.append(aliases.line(held, "moved by hand", REASON, known, held.number), by=BY)
    registry.tag(client, held, {"decision": "promoted"})
    return held


def note(client: "MlflowClient", name: str) -> Version | None:
    """Record what a server that follows the alias sees: as `notice`, but nothing that a command on
    another machine did, whose history is there.
    """
    known = recorded(name)
    held = registry.with_alias(client, name, CHAMPION)
    if held is None or known is None or held.number == known:
        return None
    with aliases.one_at_a_time(name):  # whoever has moved it may be about to write that down
        held, known = registry.with_alias(client, name, CHAMPION), recorded(name)
        if held is None or known is None or _by_command(client, held, known):
            return None
        found = notice(client, name)
    if found:
        log.info("alias champion was moved to version %s by hand: written down", found.number)
    return found


def oddity(client: "MlflowClient", name: str, held: Version | None, answers: str) -> str:
    """Return what is wrong with who has alias champion while version `answers` answers, or ""."""
    if held is None:
        there = any(one.number == answers for one in registry.versions(client, name))
        gone = "is champion no longer" if there else "was deleted from the registry"
        return f"version {answers} {gone} and nobody succeeds it: it goes on answering"
    if back := held.tags.get("rolled_back"):
        return f"version {held.number} is champion though it was rolled back: {back}"
    return ""


def _by_command(client: "MlflowClient", held: Version, known: str) -> bool:
    """Whether the registry says that a command made `held` champion, and our history does not: that
    was elsewhere.
    """
    told = [line for line in promotion_history.read() if line.get("name") == held.name]
    if held.tags.get("decision") == "promoted" and all(line.get("to") != held.number for line in told):
        return True
    before = {one.number: one for one in registry.versions(client, held.name)}.get(known)
    back = before is not None and before.tags.get("rolled_back_to") == held.number
    return back and all(line.get("version") != known or line.get("action") != "rolled back" for line in told)


def recorded(name: str) -> str | None:
    """Return the number of the champion as the history has it, "" for none; None when it never
    heard of `name`.
    """
    lines = [line for line in promotion_history.read() if line.get("name") == name]
    return str(lines[-1].get("to") or "") if lines else None


def unfinished(client: "MlflowClient", held: Version, known: str) -> bool:
    """Whether our own move to `held` died before it wrote the history: the same command again
    finishes that.
    """
    if held.tags.get("review") in ("auto", "approved") and held.tags.get("decision") != "promoted":
        return True
    previous = registry.with_alias(client, held.name, PREVIOUS)
    if not known or previous is None or previous.number != held.number:
        return False
    return registry.numbered(client, held.name, known).tags.get("rolled_back_to") == held.number
