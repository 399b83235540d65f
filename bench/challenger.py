"""Many releases by traffic, with users of known truth: how often a challenger is promoted or
sent back, and how soon.

The users. A conversation has one to four questions. The champion satisfies 70 % of them, some
conversations more than others. The challenger differs from it on a share of questions, and on those
is the better or the worse one so that its own share is 70 % and the truth. People speak seldom: a
like after some satisfying answers, a complaint after some others. What compares the two answers to
one question (rules, a judge, a reward model) may be blind or wrong.

Run: python -m bench.challenger [--releases 1000]
"""

import time
from dataclasses import dataclass, fields, replace
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from stages.common.release.traffic import evidence, moves
from stages.common.release.traffic.evidence import COUNTED, GUARDS, Evidence, Rules

SATISFIED = 0.70
TILT = 0.3
"""How much conversations vary in which of the two is the better one, as a share of `differs`: one
about a subject that the challenger knows finds it better again and again.
"""


@dataclass(frozen=True)
class Comparer:
    """What compares two answers: of those that differ in truth it sees the better one (`right`) or
    the worse one (`wrong`), else a tie; of equal ones it prefers one for nothing (`noise`).
    """

    right: float
    wrong: float
    noise: float


EXACT, GOOD, NOISY = Comparer(1.0, 0.0, 0.0), Comparer(0.85, 0.05, 0.05), Comparer(0.65, 0.15, 0.40)


@dataclass(frozen=True)
class World:
    """A challenger and its users; rates beyond the champion's are the challenger's own."""

    better: float = 0.0
    """Points by which it satisfies more questions."""
    differs: float = 0.15
    """Share of questions on which just one of the two satisfies."""
    seen_better: float | None = None
    """The same as what compares sees it; None: the truth."""
    comparer: Comparer = GOOD
    shadowed: float = 1.0
    """Share of questions that both answer."""
    likes: float = 0.10
    """Of satisfying answers."""
    complains: float = 0.30
    """Of others."""
    failed: float = 0.0
    refused: float = 0.0
    slow: float = 0.0


SOON = 200
BEFORE = 200
"""Answers of the champion that were seen before the challenger came."""
USUAL = {"failed": 0.002, "refused": 0.03, "slow": 0.05}


@dataclass(frozen=True)
class Outcome:
    """How releases ended, each by its place in `moves.MOVES`, after how many conversations and
    answers of the challenger, seen or not, and how many people had seen.
    """

    ended: NDArray[np.int_]
    conversations: NDArray[np.float64]
    answers: NDArray[np.float64]
    shown: NDArray[np.float64]

    def rate(self, move: int) -> float:
        """Return the share of releases that ended so."""
        return float((self.ended == move).mean())


def simulate(world: World, releases: int, rules: Rules | None = None, seed: int = 0) -> Outcome:
    """Run releases until each has ended."""
    rules, chance = rules or evidence.rules(world.shadowed), np.random.default_rng(seed)
    known, active = evidence.nothing(releases), np.arange(releases)
    for at, rate in enumerate((*USUAL.values(), (1 - SATISFIED) * world.complains)):
        known.faults[:, at] = np.stack([chance.binomial(BEFORE, rate, releases), np.full(releases, BEFORE)], axis=-1)
    shown, final = np.zeros(releases), np.zeros((3, releases))
    ended = np.full(releases, moves.OPEN)
    while len(active):
        shown[active] += _conversation(known, rules, world, chance)
        move = moves.next_move(known, rules)
        moves.grown(known, move)
        over = move >= moves.PROMOTE
        if over.any():
            ended[active[over]] = move[over]
            final[:, active[over]] = known.conversations[over], known.answers[over], shown[active[over]]
            known, active = _only(known, ~over), active[~over]
    return Outcome(ended, *final)


def _only(known: Evidence, kept: NDArray[np.bool_]) -> Evidence:
    return Evidence(**{one.name: getattr(known, one.name)[kept] for one in fields(Evidence)})


def _conversation(known: Evidence, rules: Rules, world: World, chance: np.random.Generator) -> NDArray[np.float64]:
    """Hold one conversation of every release; return how many of the challenger's answers people
    saw.
    """
    share = moves.share(known, rules)
    count = len(share)
    takes, questions = chance.random(count) < share, chance.integers(1, COUNTED + 1, count)
    ease = chance.beta(8 * SATISFIED, 8 * (1 - SATISFIED), count)
    compared, (likes, complaints) = np.zeros((count, 2)), np.zeros((2, count))
    tilt = TILT * world.differs * chance.standard_normal(count)
    for question in range(COUNTED):
        asked, both = question < questions, chance.random(count) < world.shadowed
        champion, challenger = _answers(ease, world.differs, world.better + tilt, chance)
        seen = (champion, challenger)
        if world.seen_better is not None:
            seen = _answers(ease, world.differs, world.seen_better + tilt, chance)
        verdict = _compared(*seen, world.comparer, chance)
        compared += np.stack([verdict, np.ones(count)], axis=-1) * (asked & both)[:, None]
        satisfied, speaks = np.where(takes, challenger, champion), chance.random(count)
        liked = asked & satisfied & (speaks < world.likes)
        complained = asked & ~satisfied & (speaks < world.complains)
        likes, complaints = likes + liked, complaints + complained
        told = [
            _faults(world, theirs, asked & (there | both), asked & there, complained, verdict, asked & both, chance)
            for theirs, there in ((True, takes), (False, ~takes))
        ]
        evidence.answered(known, rules, *told)
    evidence.over(known, rules, evidence.outcome(likes, complaints), takes, share, compared)
    return np.where(takes, questions, 0)


def _answers(
    ease: NDArray[np.float64], differs: float, better: NDArray[np.float64], chance: np.random.Generator
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return whom of champion and challenger each question finds satisfying."""
    better = np.clip(better, -differs, differs)
    draw, gains, loses = chance.random(len(ease)), (differs + better) / 2, (differs - better) / 2
    both = chance.random(len(ease)) < np.clip((ease - loses) / (1 - differs), 0, 1)
    gained, lost = draw < gains, (draw >= gains) & (draw < gains + loses)
    return (both & ~gained) | lost, (both & ~lost) | gained


def _compared(
    champion: NDArray[np.bool_], challenger: NDArray[np.bool_], comparer: Comparer, chance: np.random.Generator
) -> NDArray[np.float64]:
    """Return -1 where the challenger's answer is found worse, 1 where better, else 0."""
    truth, draw = challenger.astype(float) - champion, chance.random(len(champion))
    right, wrong = draw < comparer.right, (draw >= comparer.right) & (draw < comparer.right + comparer.wrong)
    ahead, behind = draw < comparer.noise / 2, (draw >= comparer.noise / 2) & (draw < comparer.noise)
    return np.where(truth == 0, 1.0 * ahead - behind, truth * (1.0 * right - wrong))


def _faults(
    world: World,
    theirs: bool,
    answered: NDArray[np.bool_],
    read: NDArray[np.bool_],
    complained: NDArray[np.bool_],
    verdict: NDArray[np.float64],
    both: NDArray[np.bool_],
    chance: np.random.Generator,
) -> NDArray[np.float64]:
    """Return the faults [..., 5] of one of the two's answers, as `evidence.answered` takes them."""
    found = np.full((len(answered), len(GUARDS)), np.nan)
    for at, name in enumerate(("failed", "refused", "slow")):
        rate = USUAL[name] + (getattr(world, name) if theirs else 0.0)
        found[answered, at] = (chance.random(len(answered)) < rate)[answered]
    found[read, GUARDS.index("complaint")] = complained[read]
    if theirs:
        found[both, GUARDS.index("lost")] = -verdict[both]
    return found


ALONE = World(better=0.03, shadowed=0.0)
WORLDS: dict[str, World] = {
    "equal": World(),
    "1 point worse": World(better=-0.01),
    "3 points worse": World(better=-0.03),
    "3 worse, all questions differ a little": World(better=-0.03, differs=0.3),
    "people 5 worse, comparer sees 5 better": World(better=-0.05, seen_better=0.05),
    "people 10 worse, comparer sees 5 better": World(better=-0.10, seen_better=0.05),
    "1 point better": World(better=0.01),
    "2 points better": World(better=0.02),
    "3 points better": World(better=0.03),
    "4 points better": World(better=0.04),
    "5 points better": World(better=0.05),
    "3 better, exact comparer": World(better=0.03, comparer=EXACT),
    "3 better, noisy comparer": World(better=0.03, comparer=NOISY),
    "3 better, a third of questions compared": World(better=0.03, shadowed=0.33),
    "3 better, they differ on 30 %": World(better=0.03, differs=0.3),
    "3 better, people speak half as often": World(better=0.03, likes=0.05, complains=0.15),
    "3 better, people alone": ALONE,
    "6 better, they differ on 30 %, noisy": World(better=0.06, differs=0.3, comparer=NOISY),
    "10 better, people alone": replace(ALONE, better=0.10),
    "5 worse, people alone": replace(ALONE, better=-0.05),
    "fails 5 % more": World(failed=0.05),
    "fails 10 % more": World(failed=0.10),
    "fails 15 % more": World(failed=0.15),
    "refuses 25 points more": World(refused=0.25),
    "refuses 15 points more": World(refused=0.15),
    "slow 30 points more": World(slow=0.30),
    "30 points worse": World(better=-0.30, differs=0.4),
    "20 points worse": World(better=-0.20, differs=0.3),
    "10 points worse": World(better=-0.10, differs=0.3),
    "fails 10 % more, seen by people alone": replace(ALONE, better=0.0, failed=0.10),
}


def main(
    releases: Annotated[int, typer.Option(help="of each kind")] = 200,
    only: Annotated[str, typer.Option(help="worlds whose name has this")] = "",
) -> None:
    """Print the table."""
    print(
        "| challenger | promoted | back | back within 200 answers | open | conversations | answers | shown | s |\n|"
        + "---|" * 9
    )
    for name, world in WORLDS.items():
        if only not in name:
            continue
        began = time.monotonic()
        found = simulate(world, releases)
        middle = [np.percentile(one, [50, 95]) for one in (found.conversations, found.answers, found.shown)]
        soon = np.mean((found.ended == moves.BACK) & (found.answers <= SOON))
        rates = (found.rate(moves.PROMOTE), found.rate(moves.BACK), soon, found.rate(moves.OPEN))
        shares = " | ".join(f"{one:.1%}" for one in rates)
        counts = " | ".join(f"{low:.0f}, {high:.0f}" for low, high in middle)
        print(f"| {name} | {shares} | {counts} | {time.monotonic() - began:.0f} |", flush=True)


if __name__ == "__main__":
    typer.run(main)
