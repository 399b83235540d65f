"""What follows from evidence, and releases with users of known truth."""

import json

import numpy as np
import pytest

from bench import challenger
from bench.challenger import World, simulate
from stages.common.release.traffic import evidence, moves
from stages.common.release.traffic.evidence import GUARDS, KNOWN, Evidence, Rules

NOT_ASKED = float("nan")
RULES = Rules(step_conversations=5)


def conversations(known: Evidence, count: int, compared: float, outcome: float = 0.5) -> None:
    for at in range(count):
        share = float(moves.share(known, RULES))
        evidence.over(known, RULES, outcome, share > 0 and at % 2 == 0, share, [compared, 2])


def test_the_share_grows_step_by_step_while_it_is_not_worse() -> None:
    known, shares = evidence.nothing(), []
    for _ in range(200):
        conversations(known, 1, 0.4)
        move = moves.next_move(known, RULES)
        moves.grown(known, move)
        shares.append(float(moves.share(known, RULES)))
    assert sorted(set(shares)) == list(RULES.steps)
    assert shares == sorted(shares)


def test_a_step_takes_its_conversations_however_good_it_looks() -> None:
    known = evidence.nothing()
    conversations(known, RULES.step_conversations - 1, 2.0)
    assert moves.next_move(known, RULES) == moves.STAY
    conversations(known, 1, 2.0)
    assert moves.next_move(known, RULES) == moves.GROW


def test_what_compares_alone_promotes_nobody_whom_people_have_not_seen() -> None:
    known = evidence.nothing()
    conversations(known, 200, 2.0)
    assert float(moves.better(known, RULES)) > 1 / RULES.alpha
    assert moves.next_move(known, RULES) == moves.GROW


@pytest.mark.parametrize("guard", GUARDS)
def test_each_guard_sends_it_back_and_says_which_it_was(guard: str) -> None:
    known, rules = evidence.nothing(), Rules()
    usual = [0.0, 0.0, 0.0, 0.0, NOT_ASKED]
    for _ in range(KNOWN):
        evidence.answered(known, rules, [NOT_ASKED] * len(GUARDS), usual)
    assert known.answers == 0
    faulty = [1.0 if name == guard else 0.0 for name in GUARDS]
    while moves.next_move(known, rules) != moves.BACK and known.answers < 200:
        evidence.answered(known, rules, faulty, usual)
    assert 2 <= known.answers < 30
    assert f"guard '{guard}'" in moves.reason(known, rules, "back")


def test_a_fault_that_the_champion_has_as_often_is_no_fault() -> None:
    known, chance = evidence.nothing(300), np.random.default_rng(1)
    for at in range(400):
        both = (chance.random((2, 300, len(GUARDS))) < 0.2).astype(float)
        both[..., -1] = 0.0
        evidence.answered(known, RULES, both[0] if at >= 100 else both[0] * NOT_ASKED, both[1])
    assert (moves.next_move(known, RULES) == moves.BACK).mean() <= 0.02


def test_evidence_survives_json() -> None:
    known = evidence.nothing()
    conversations(known, 20, 0.5, 1.0)
    evidence.answered(known, RULES, [0, 1, 0, NOT_ASKED, -1], [0, 0, 0, 1, NOT_ASKED])
    evidence.ranked(known, 0.5)
    again = evidence.from_json(json.loads(json.dumps(evidence.to_json(known))))
    assert moves.figures(again, RULES) == moves.figures(known, RULES)
    conversations(known, 1, 1.0)
    conversations(again, 1, 1.0)
    assert moves.figures(again, RULES) == moves.figures(known, RULES)


def test_a_conversation_stays_where_it_is_and_a_share_of_them_is_taken() -> None:
    places = [moves.place("release", str(one)) for one in range(2000)]
    assert places == [moves.place("release", str(one)) for one in range(2000)]
    assert 0.07 < np.mean([place < 0.1 for place in places]) < 0.13
    assert places[:5] != [moves.place("another", str(one)) for one in range(5)]


@pytest.fixture(scope="module")
def rules() -> Rules:
    return Rules()


def test_a_worse_challenger_is_not_promoted(rules: Rules) -> None:
    assert simulate(World(better=-0.03), 200, rules).rate(moves.PROMOTE) <= 0.01


def test_a_better_one_is_promoted_where_answers_are_compared_well(rules: Rules) -> None:
    found = simulate(World(better=0.03, comparer=challenger.EXACT), 200, rules)
    assert found.rate(moves.PROMOTE) >= 0.90
    assert found.rate(moves.BACK) <= 0.01


@pytest.mark.parametrize(
    "world",
    [World(failed=0.15), World(refused=0.25), World(slow=0.30), World(better=-0.30, differs=0.4)],
    ids=["fails", "refuses", "slow", "worse"],
)
def test_a_planted_regression_goes_back_within_200_answers(world: World, rules: Rules) -> None:
    found = simulate(world, 200, rules)
    assert found.rate(moves.PROMOTE) == 0
    assert np.mean((found.ended == moves.BACK) & (found.answers <= 200)) >= 0.95
