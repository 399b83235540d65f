"""What is known of a challenger in traffic: one process of bets for each question about it.

Two kinds. What promotes counts by conversation, which are independent of each other: their answers
are not. What sends back counts each answer at once: an alarm for nothing costs a delay, a late one
costs people. Arrays hold one release at each place, so that a thousand are simulated as one is run.
"""

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from stages.common.release.traffic import betting
from stages.common.release.traffic.betting import Array

COUNTED = 4
"""Compared answers of one conversation that count, its first ones: one that goes on for ever must
not weigh more.
"""
KNOWN = 50
"""Answers of the champion that must be known before a guard bets against the challenger."""
GUARDS = ("failed", "refused", "slow", "complaint", "lost")
"""What a challenger's answer is asked: did it fail, refuse, come late, was it disliked, edited or
asked again, and was it worse than the champion's to the same prompt (1, 0, or -1 for better)?
"""


@dataclass(frozen=True)
class Rules:
    """What a release must show, and how sure it must be."""

    alpha: float = 0.01
    """Chance at most that a challenger which is no better is promoted."""
    guard_alpha: float = 0.005
    """Chance at most, for each guard, that a challenger within its tolerance is sent back."""
    people_alpha: float = 0.05
    """Chance at most that one is promoted which people like less by more than the margin."""
    margin: float = 0.05
    """Of people's opinion (0 to 1 a conversation) and of compared answers (-1 to 1)."""
    steps: tuple[float, ...] = (0.0, 0.01, 0.05, 0.10, 0.25, 0.50)
    """Shares of conversations; at 0 the challenger answers unseen alone."""
    step_conversations: int = 50
    """At each step at least."""
    conversations: int = 2000
    """After so many the question stays open, and the champion stays."""
    tolerances: tuple[float, ...] = (0.02, 0.05, 0.10, 0.05, 0.0)
    """How much more of each guard's fault than the champion has is borne."""
    weights: tuple[float, float, float] = (0.8, 0.1, 0.1)
    """Of compared answers, ranks and conversations in the evidence that it is better."""
    compares: bool = True
    """Whether answers are compared unseen; else people's evidence is all there is, and the share
    grows without it, under the guards alone.
    """


def rules(compared: float = 1.0, conversations: int = 2000) -> Rules:
    """Return the rules for a share of questions that both models answer: where it is 0, people's
    evidence is all there is.
    """
    if compared:
        return Rules(conversations=conversations)
    return Rules(conversations=conversations, weights=(0.0, 0.2, 0.8), compares=False)


@dataclass
class Evidence:
    """The capitals, with shape [..., 4], and what the champion does meanwhile, with shape [...]."""

    better_compared: Array
    """Against: compared answers of a conversation are no better on average."""
    better_ranked: Array
    """Against: people rank its answers no better."""
    better_people: Array
    """Against: what people show of conversations is no better."""
    borne_compared: Array
    """Against: compared answers are worse by more than the margin."""
    borne_people: Array
    """Against: what people show is worse by more than the margin."""
    guards: Array
    """[..., 5, 4] against: no more than the champion's rate and the tolerance."""
    faults: Array
    """[..., 5, 2] the champion's answers with each fault, and those that were asked."""
    outcomes: Array
    """[..., 2] sum and count of conversations' outcomes."""
    conversations: Array
    answers: Array
    """Of the challenger, seen or not."""
    step: Array = field(default_factory=lambda: np.zeros(()))
    since: Array = field(default_factory=lambda: np.zeros(()))
    """Conversations at this step."""


def nothing(*shape: int) -> Evidence:
    """Return the evidence before a release has begun."""
    capital, zero = betting.begun(*shape), np.zeros(shape)
    guards, faults = betting.begun(*shape, len(GUARDS)), np.zeros((*shape, len(GUARDS), 2))
    outcomes = np.zeros((*shape, 2))
    return Evidence(
        capital, capital, capital, capital, capital, guards, faults, outcomes, zero, zero, step=zero, since=zero
    )


def answered(known: Evidence, rules: Rules, challenger: Any, champion: Any) -> None:
    """Count the faults [..., 5] of one answer of the challenger, and of the champion; what was not
    asked of one is not a number. The champion has no `lost`: it is compared with itself.
    """
    challenger, champion = np.asarray(challenger, dtype=float), np.asarray(champion, dtype=float)
    faulty, asked = known.faults[..., 0], known.faults[..., 1]
    usual = np.where(asked < KNOWN, np.nan, (faulty + 1) / (asked + 20))  # a little more than was seen
    usual[..., -1] = 0.0
    least = np.array([0.0] * (len(GUARDS) - 1) + [-1.0])
    known.guards = betting.bet(known.guards, challenger, np.minimum(usual + rules.tolerances, 0.95), least)
    told = ~np.isnan(champion)
    known.faults = known.faults + np.stack([np.where(told, champion, 0.0), told], axis=-1)
    known.answers = known.answers + ~np.isnan(challenger[..., 0])


def over(known: Evidence, rules: Rules, outcome: Any, takes: Any, share: Any, compared: Any) -> None:
    """Count conversations [...] that are over: what people showed in each (0 to 1), whether the
    challenger answered it, at which share of all, and `compared` [..., 2]: the sum of its first
    compared answers (-1 worse to 1 better), and how many they are.
    """
    total, count = np.moveaxis(np.asarray(compared, dtype=float), -1, 0)
    known.better_compared = betting.bet(known.better_compared, total / COUNTED, 0.0, -1.0)
    known.borne_compared = betting.bet(known.borne_compared, (total + rules.margin * count) / COUNTED, 0.0, -1.0)
    total, count = known.outcomes[..., 0], known.outcomes[..., 1]
    expected = (total + 1) / (count + 2)
    drawn = np.where((np.asarray(share) > 0) & (np.asarray(share) < 1), share, np.nan)
    change, least = betting.assigned(outcome, expected, takes, drawn)
    least = np.where(np.isnan(least), -1.0, least)
    known.better_people = betting.bet(known.better_people, change, 0.0, least)
    known.borne_people = betting.bet(known.borne_people, change, -rules.margin, least)
    known.outcomes = known.outcomes + np.stack([np.asarray(outcome, dtype=float), np.ones_like(total)], axis=-1)
    known.conversations, known.since = known.conversations + 1, known.since + 1


def ranked(known: Evidence, difference: Any) -> None:
    """Count people's ranks [...] of answers of both to one prompt, from -1, all of the challenger's
    behind, to 1.
    """
    known.better_ranked = betting.bet(known.better_ranked, difference, 0.0, -1.0)


def outcome(likes: Any, complaints: Any) -> Array:
    """Return what people showed of a conversation: 0 for a complaint alone (a dislike, an edit, a
    question asked again), 1 for a like alone, else 1/2. Whoever shows nothing counts too, else the
    silence of the contented would.
    """
    return (1.0 + (np.asarray(likes) > 0) - (np.asarray(complaints) > 0)) / 2


def to_json(known: Evidence) -> dict[str, Any]:
    """Return the evidence as JSON holds it."""
    return {one.name: np.asarray(getattr(known, one.name)).tolist() for one in fields(known)}


def from_json(held: dict[str, Any]) -> Evidence:
    """Return what `to_json` wrote. Raises KeyError where a part is missing."""
    return Evidence(**{one.name: np.asarray(held[one.name], dtype=float) for one in fields(Evidence)})
