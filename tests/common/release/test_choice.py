"""Whom the gate puts forward of several candidates, before and after there is a champion."""

import pytest

from stages.common.release import gate
from stages.common.release.gate import Decision, Guards, Incumbent, Rules
from stages.common.runtime.errors import DataError
from tests.common.release.test_gate import BASE, held, model
from tests.support.evaluations import answers


def test_the_best_that_passes_is_the_highest_accuracy_or_the_lowest_perplexity() -> None:
    found = [model("dpo", 70, perplexity=7.0), model("pretrain", 20, perplexity=9.0), model("sft", 30, perplexity=3.0)]
    for metric, expected in (("accuracy/iid", "dpo"), ("perplexity/documents", "sft")):
        assert gate.choose(found, "pretrain", Rules(metric=metric)).best.candidate == expected


def test_who_breaks_a_guard_comes_after_who_breaks_none() -> None:
    forgets, holds = model("dpo", 95, perplexity=11.0), model("sft", 90)
    rules = Rules(guards=Guards(base={"perplexity/documents": 4.0}))  # five times the base's 2.0 at most
    assert gate.choose([BASE, forgets, holds], "pretrain", rules).best.candidate == "sft"
    assert gate.choose([BASE, forgets, holds], "pretrain", Rules()).best.candidate == "dpo"
    alone = gate.choose([BASE, forgets], "pretrain", rules)
    assert (alone.best.candidate, alone.decision.passed) == ("dpo", False)


def test_before_there_is_a_champion_another_candidate_must_beat_who_stands_in() -> None:
    sft, equal, better = model("sft_best", 70), model("ppo", 71), model("dpo", 90)
    stands_in = Incumbent("sft_best", sft)
    best = gate.choose([BASE, sft, equal, better], "pretrain", Rules(), stands_in)
    assert (best.best.candidate, best.decision.passed, best.passed_over) == ("dpo", True, {})
    assert "accuracy/iid 90.0% beats sft_best's 70.0%: +20.0 points [" in best.decision.reason
    assert best.decision.reason.endswith("there was no champion")
    alone = gate.choose([BASE, sft, equal], "pretrain", Rules(), stands_in)
    assert (alone.best.candidate, alone.decision.passed) == ("sft_best", True)
    assert alone.decision.reason.startswith("accuracy/iid 70.0% beats the base's 20.0%: +50.0 points [")
    assert list(alone.passed_over) == ["ppo"]
    assert alone.passed_over["ppo"].startswith("accuracy/iid 71.0% does not surely beat sft_best's 70.0%: +1.0 ")


def test_of_equal_weights_the_one_that_stands_in_keeps_its_name() -> None:
    sft = model("sft_best", 70)
    twin = sft.model_copy(update={"candidate": "ppo"})
    found = gate.choose([BASE, twin, sft], "pretrain", Rules(), Incumbent("sft_best", sft))
    assert (found.best.candidate, list(found.passed_over)) == ("sft_best", ["ppo"])


def test_a_champion_that_is_one_of_the_candidates_is_put_forward_again_with_what_was_decided() -> None:
    sft, equal = model("sft_best", 70), model("ppo", 71)
    known = Decision(passed=True, reason="as it was")
    settled = {"sft_best": known}
    found = gate.choose([BASE, sft, equal], "pretrain", Rules(), held(sft), lambda one: settled.get(one.candidate))
    assert (found.best.candidate, found.decision) == ("sft_best", known)
    other = gate.choose([BASE, equal], "pretrain", Rules(), held(sft))
    assert (other.best.candidate, other.decision.passed) == ("ppo", False)


def test_what_a_person_refused_leaves_the_place_to_the_next() -> None:
    refused = {"dpo": Decision(passed=False, reason="version 2 has these weights and was rejected: rude")}
    found = gate.choose(
        [BASE, model("sft_best", 70), model("dpo", 90)],
        "pretrain",
        Rules(),
        None,
        lambda one: refused.get(one.candidate),
    )
    assert (found.best.candidate, found.decision.passed) == ("sft_best", True)


def test_the_error_is_shared_among_the_candidates() -> None:
    """7 better and 0 worse have p = 0.0078: enough for one candidate or three, not for four."""
    rows = {"before": model("pretrain", 50), "after": model("dpo", 57)}
    for others, passed in ((0, True), (2, True), (3, False)):
        rest = [model(f"other{number}", 40) for number in range(others)]
        found = gate.choose([rows["before"], rows["after"], *rest], "pretrain", Rules())
        assert (found.best.candidate, found.decision.passed) == ("dpo", passed)


def test_the_base_is_asked_as_it_answers_best() -> None:
    shown = BASE.model_copy(update={"examples": {0: answers(30, 100), 1: answers(60, 100), 5: answers(55, 100)}})
    sft = model("sft", 65)
    assert gate.decide(sft, BASE, None, Rules()).passed
    decision = gate.decide(sft, shown, None, Rules(guards=Guards(base={"accuracy/ood": 0.05})))
    assert not decision.passed
    assert decision.reason.startswith("accuracy/iid 65.0% does not surely beat the base's 60.0% with 1 example: +5.0 ")
    assert [one.against for one in decision.comparisons] == ["base with 1 example", "base"]
    assert gate.at_its_best(shown, "perplexity/documents") == (shown, "base")


@pytest.mark.parametrize(
    ("names", "metric", "message"),
    [
        (["pretrain", "sft"], "accuracy/odd", "pretrain has no metric 'accuracy/odd'; there are: accuracy/iid"),
        (["pretrain"], "accuracy/iid", "another candidate; evaluated are: pretrain"),
        (["dpo", "sft"], "accuracy/iid", "needs the base 'pretrain' and another candidate; evaluated are: dpo, sft"),
    ],
)
def test_what_was_not_evaluated_is_named(names: list[str], metric: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        gate.choose([model(name, 50) for name in names], "pretrain", Rules(metric=metric))
