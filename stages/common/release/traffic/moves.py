"""What follows from the evidence: the next step of a challenger in traffic, and who of the two
answers a conversation.
"""

import hashlib
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stages.common.release.traffic import betting
from stages.common.release.traffic.betting import Array
from stages.common.release.traffic.evidence import GUARDS, Evidence, Rules

Move = Literal["stay", "grow", "promote", "back", "open"]
MOVES: tuple[Move, ...] = ("stay", "grow", "promote", "back", "open")
STAY, GROW, PROMOTE, BACK, OPEN = range(len(MOVES))


def better(known: Evidence, rules: Rules) -> Array:
    """Return the evidence [...] that the challenger is better: the mean of three e-values, weighted
    as was said before, for none of them may be picked afterwards.
    """
    parts = (known.better_compared, known.better_ranked, known.better_people)
    return np.sum([weight * betting.e_value(part) for weight, part in zip(rules.weights, parts, strict=True)], axis=0)


def borne(known: Evidence) -> Array:
    """Return the evidence [...] that it is not worse by the margin, on which the share grows: by
    what was compared, or by people.
    """
    return np.maximum(betting.e_value(known.borne_compared), betting.e_value(known.borne_people))


def next_move(known: Evidence, rules: Rules) -> NDArray[np.int_]:
    """Return the move [...], by its place in MOVES.

    Back at once where any guard holds. Promoted where it is better with evidence 1/alpha, and
    people's own evidence that it is not worse by the margin is 1/people_alpha: what compares
    answers is no person. The share grows with the evidence that it is not worse, from
    1/alpha^(1/steps) for the first step to 1/alpha for the last.
    """
    last = len(rules.steps) - 1
    asked = rules.alpha ** -((known.step + 1) / max(1, last))
    grows = (
        ((borne(known) >= asked) | (not rules.compares))
        & (known.since >= rules.step_conversations)
        & (known.step < last)
    )
    people = betting.e_value(known.borne_people) >= 1 / rules.people_alpha
    promoted = (better(known, rules) >= 1 / rules.alpha) & people
    is_over = known.conversations >= rules.conversations
    back = (betting.e_value(known.guards) >= 1 / rules.guard_alpha).any(axis=-1)
    return np.select([back, promoted, is_over, grows], [BACK, PROMOTE, OPEN, GROW], STAY)


def grown(known: Evidence, move: Any) -> None:
    """Take the next step where `move` says so."""
    grows = np.asarray(move) == GROW
    known.step, known.since = known.step + grows, np.where(grows, 0, known.since)


def share(known: Evidence, rules: Rules) -> Array:
    """Return the share of new conversations [...] that the challenger answers."""
    return np.asarray(rules.steps)[known.step.astype(int)]


def place(salt: str, conversation: str) -> float:
    """Return where a conversation stands between 0 and 1, for one release the same always: the
    challenger answers those below the share.
    """
    digest = hashlib.sha256(f"{salt}/{conversation}".encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64


def figures(known: Evidence, rules: Rules) -> dict[str, float]:
    """Return the evidence of one release in numbers that people read."""
    guards = dict(zip(GUARDS, betting.e_value(known.guards).tolist(), strict=True))
    found = {
        "conversations": float(known.conversations),
        "answers": float(known.answers),
        "share": float(share(known, rules)),
        "better": float(better(known, rules)),
        "better_compared": float(betting.e_value(known.better_compared)),
        "better_ranked": float(betting.e_value(known.better_ranked)),
        "better_people": float(betting.e_value(known.better_people)),
        "not_worse_people": float(betting.e_value(known.borne_people)),
    }
    return {
        key: round(value, 4)
        for key, value in (found | {f"guard_{key}": value for key, value in guards.items()}).items()
    }


def reason(known: Evidence, rules: Rules, move: Move) -> str:
    """Return why a move is made, for the history."""
    seen = f"after {known.conversations:.0f} conversations and {known.answers:.0f} answers"
    if move == "back":
        values = betting.e_value(known.guards)
        worst = int(np.argmax(values))
        return f"guard '{GUARDS[worst]}': e-value {values[worst]:.3g} of {1 / rules.guard_alpha:.3g} {seen}"
    if move == "promote":
        people = float(betting.e_value(known.borne_people))
        return f"better: e-value {better(known, rules):.3g} of {1 / rules.alpha:.3g}, people {people:.3g} {seen}"
    if move == "grow":
        return f"not worse: e-value {borne(known):.3g} {seen}; it answers {share(known, rules):.0%} from now on"
    return f"not shown to be better: e-value {better(known, rules):.3g} of {1 / rules.alpha:.3g} {seen}"
