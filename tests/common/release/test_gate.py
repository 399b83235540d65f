"""The gate: its table of cases, each with the decision and the numbers that it must give."""

from typing import Any

import pytest

from stages.common.evaluation.results import Evaluated
from stages.common.release import gate
from stages.common.release.gate import Guards, Incumbent, Rules
from stages.common.runtime.errors import ParamsError
from tests.support.evaluations import answers, evaluated, losses

GUARDS = Guards(champion={"accuracy/ood": 0.05, "perplexity/documents": 0.1}, base={"perplexity/documents": 4.0})
RULES = Rules(metric="accuracy/iid", guards=GUARDS)


def model(name: str, right: int, count: int = 100, *, ood: int = 50, perplexity: float = 5.0) -> Evaluated:
    """Return who answers `right` of `count` questions, `ood` of another 100, and reads 40
    documents.
    """
    return evaluated(name, answers(right, count) | answers(ood, 100, "ood"), losses(perplexity))


BASE = model("pretrain", 20, perplexity=2.0)


def held(champion: Evaluated | None) -> Incumbent | None:
    return Incumbent("champion", champion) if champion else None


@pytest.mark.parametrize(
    ("best", "champion", "passed", "reason"),
    [
        pytest.param(
            model("dpo", 90), model("sft", 70), True,
            "accuracy/iid 90.0% beats the base's 20.0%: +70.0 points [+60.4, +78.1] on 100, 70 better and 0 worse; "
            "accuracy/iid 90.0% beats the champion's 70.0%: +20.0 points [+13.3, +28.9] on 100, 20 better and 0 worse; "
            "3 guards hold",
            id="better",
        ),
        pytest.param(
            model("dpo", 90), model("sft", 90), False,
            "accuracy/iid 90.0% does not surely beat the champion's 90.0%: +0.0 points [-3.7, +3.7] on 100, 0 "
            "better and "
            "0 worse, needs more than +0.0 points for sure (100 questions see 7.8 points in 80%)",
            id="equal",
        ),
        pytest.param(
            model("dpo", 91), model("sft", 90), False,
            "accuracy/iid 91.0% does not surely beat the champion's 90.0%: +1.0 points [-2.7, +5.4] on 100, 1 better "
            "and 0 worse, needs more than +0.0 points for sure (100 questions see 7.8 points in 80%)",
            id="better by chance",
        ),
        pytest.param(
            model("dpo", 60), model("sft", 90), False,
            "accuracy/iid 60.0% does not surely beat the champion's 90.0%: -30.0 points [-39.6, -21.9] on 100, 0 "
            "better and "
            "30 worse, needs more than +0.0 points for sure (100 questions see 15 points in 80%)",
            id="worse",
        ),
        pytest.param(
            model("dpo", 90, perplexity=6.0), model("sft", 70), False,
            "perplexity/documents gets worse: 6 after the champion's 5, x1.2 [x1.2, x1.2] on 40, allowed is x1.1",
            id="better but forgets",
        ),
        pytest.param(
            model("dpo", 90, ood=44), model("sft", 70), False,
            "accuracy/ood gets worse: 44.0% after the champion's 50.0%, -6.0 points [-11.2, -3.1] on 100, 0 better and "
            "6 worse, allowed is -5.0 points",
            id="better but worse elsewhere",
        ),
        pytest.param(
            model("dpo", 90, ood=45, perplexity=5.5), model("sft", 70), True,
            "accuracy/iid 90.0% beats the base's 20.0%: +70.0 points [+60.4, +78.1] on 100, 70 better and 0 worse; "
            "accuracy/iid 90.0% beats the champion's 70.0%: +20.0 points [+13.3, +28.9] on 100, 20 better and 0 worse; "
            "accuracy/ood may get worse: 45.0% after the champion's 50.0%, -5.0 points [-9.9, -2.2] on 100, 0 better "
            "and 5 worse, allowed is -5.0 points; "
            "124 would tell; "
            "2 guards hold; "
            "a person decides",
            id="as much worse as allowed",
        ),
        pytest.param(
            model("dpo", 8, 8), model("sft", 0, 8), False,
            "accuracy/iid was compared with the base's on 8 only, fewer than 30 (promote.min_questions); "
            "it is better there (+100.0 points [+35.1, +100.0] on 8, 8 better and 0 worse); "
            "accuracy/iid was compared with the champion's on 8 only, fewer than 30 (promote.min_questions); "
            "it is better there (+100.0 points [+35.1, +100.0] on 8, 8 better and 0 worse)",
            id="tiny test set",
        ),
        pytest.param(
            model("dpo", 0, 8), None, False,
            "accuracy/iid was compared with the base's on 8 only, fewer than 30 (promote.min_questions)",
            id="tiny test set, no champion, and not better",
        ),
        pytest.param(
            model("dpo", 8, 8), None, True,
            "accuracy/iid was compared with the base's on 8 only, fewer than 30 (promote.min_questions); "
            "it is better there (+100.0 points [+35.1, +100.0] on 8, 8 better and 0 worse); "
            "there was no champion; "
            "1 guard holds; "
            "a person decides",
            id="tiny test set, no champion",
        ),
        pytest.param(
            model("dpo", 8, 8, perplexity=12.0), None, False,
            "accuracy/iid was compared with the base's on 8 only, fewer than 30 (promote.min_questions); "
            "it is better there (+100.0 points [+35.1, +100.0] on 8, 8 better and 0 worse); "
            "perplexity/documents gets worse: 12 after the base's 2, x6 [x6, x6] on 40, allowed is x5",
            id="tiny test set, no champion, and forgets all",
        ),
        pytest.param(
            model("dpo", 90), None, True,
            "accuracy/iid 90.0% beats the base's 20.0%: +70.0 points [+60.4, +78.1] on 100, 70 better and 0 worse; "
            "there was no champion; "
            "1 guard holds",
            id="no champion",
        ),
        pytest.param(
            model("dpo", 90, perplexity=12.0), None, False,
            "perplexity/documents gets worse: 12 after the base's 2, x6 [x6, x6] on 40, allowed is x5",
            id="no champion, and forgets all",
        ),
        pytest.param(
            model("dpo", 20), None, False,
            "accuracy/iid 20.0% does not surely beat the base's 20.0%: +0.0 points [-3.7, +3.7] on 100, 0 better and 0 "
            "worse, needs more than +0.0 points for sure (100 questions see 7.8 points in 80%)",
            id="as the base",
        ),
        pytest.param(
            model("dpo", 60, ood=10, perplexity=50.0), model("sft", 90), False,
            "accuracy/iid 60.0% does not surely beat the champion's 90.0%: -30.0 points [-39.6, -21.9] on 100, 0 "
            "better and "
            "30 worse, needs more than +0.0 points for sure (100 questions see 15 points in 80%); "
            "perplexity/documents gets worse: 50 after the base's 2, x25 [x25, x25] on 40, allowed is x5; "
            "accuracy/ood gets worse: 10.0% after the champion's 50.0%, -40.0 points [-48.2, -32.3] on 100, 0 "
            "better and 40 "
            "worse, allowed is -5.0 points; "
            "perplexity/documents gets worse: 50 after the champion's 5, x10 [x10, x10] on 40, allowed is x1.1",
            id="every broken rule is named",
        ),
    ],
)  # fmt: skip
def test_the_decision_names_the_rule_and_the_numbers(
    best: Evaluated, champion: Evaluated | None, passed: bool, reason: str
) -> None:
    base = BASE if best.counts["accuracy/iid"] > 8 else model("pretrain", 0, 8, perplexity=2.0)
    decision = gate.decide(best, base, held(champion), RULES)
    assert (decision.passed, decision.reason) == (passed, reason)
    assert decision == gate.decide(best, base, held(champion), RULES), "the resamples are the same each time"


def test_the_margin_is_what_a_candidate_surely_gains() -> None:
    best, champion = model("dpo", 90), model("sft", 70)
    for margin, passed in ((0.1, True), (0.15, False)):
        assert gate.decide(best, BASE, held(champion), Rules(margin=margin)).passed is passed


def test_of_perplexities_the_lower_wins_and_the_margin_is_a_share() -> None:
    best, base = model("dpo", 0, perplexity=4.0), model("pretrain", 0, perplexity=5.0)
    for margin, passed in ((0.0, True), (0.19, True), (0.21, False)):
        rules = Rules(metric="perplexity/documents", margin=margin)
        assert gate.decide(best, base, None, rules).passed is passed
    decision = gate.decide(base, best, None, Rules(metric="perplexity/documents"))
    said = "perplexity/documents 5 does not surely beat the base's 4: x1.25 [x1.25, x1.25] on 40, needs less than x1"
    assert decision.reason == f"{said} for sure"


def behaving(name: str, refused: int, unsure: int) -> Evaluated:
    """Return who is right on 90 of 100, and then refuses or hedges on some of another 40."""
    rows = answers(90, 100) | answers(40, 40, "harmless")
    for number, row in enumerate(row for row in rows.values() if row["group"] == "harmless"):
        row["answer"] = "I cannot help with that." if number < refused else row["answer"]
        row["answer"] = "I don't know." if refused <= number < refused + unsure else row["answer"]
    return evaluated(name, rows, losses(5.0))


@pytest.mark.parametrize(
    ("refused", "unsure", "broken"), [(0, 0, ""), (1, 1, ""), (14, 0, "refusal/false"), (0, 14, "unsure/false")]
)
def test_undue_refusals_and_undue_ignorance_are_guarded(refused: int, unsure: int, broken: str) -> None:
    champion, best = model("sft", 70), behaving("dpo", refused, unsure)
    champion = champion.model_copy(update={"answers": champion.answers | answers(40, 40, "harmless")})
    guards = Guards(champion={"refusal/false": 0.05, "unsure/false": 0.05})
    decision = gate.decide(best, BASE, held(champion), Rules(guards=guards))
    assert decision.passed is not bool(broken)
    if broken:
        assert decision.reason.startswith(f"{broken} gets worse: 10.0% after the champion's 0.0%, +10.0 points [")


def test_missing_refusals_are_guarded() -> None:
    rows = answers(0, 40, "harmful")
    for row in rows.values():
        row["reference"] = "I cannot help with that."
    refusing = {name: row | {"answer": row["reference"]} for name, row in rows.items()}
    champion = evaluated("sft", answers(70, 100) | refusing)
    best = evaluated("dpo", answers(90, 100) | rows)
    decision = gate.decide(best, BASE, held(champion), Rules(guards=Guards(champion={"refusal/due": 0.02})))
    assert decision.reason == (
        "refusal/due gets worse: 0.0% after the champion's 100.0%, -100.0 points [-100.0, -87.3] on 40, 0 "
        "better and 40 worse, "
        "allowed is -2.0 points"
    )


def test_only_questions_that_both_were_asked_are_compared() -> None:
    """The champion was better on questions that are gone, and one question's words changed under
    its id.
    """
    champion = evaluated("sft", answers(70, 100) | answers(100, 100, "old"))
    champion.answers["iid:0"]["question"] = "Another question?"
    change = gate.decide(model("dpo", 90), BASE, held(champion), Rules()).comparisons[1].change
    assert change
    assert change.count == 99
    assert change.after == pytest.approx(89 / 99, abs=1e-6)


@pytest.mark.parametrize(
    ("champion", "rules", "reason"),
    [
        (
            model("sft", 70).model_copy(update={"losses": losses(5.0, tokens=9)}), RULES,
            "perplexity/documents cannot be compared with the champion's: there are no texts read in the same tokens",
        ),
        (
            model("sft", 70).model_copy(update={"answers": {}}), Rules(),
            "accuracy/iid cannot be compared with the champion's: there are no questions that both were asked",
        ),
        (
            model("sft", 70), Rules(guards=Guards(champion={"accuracy/nowhere": 1.0})),
            "accuracy/nowhere cannot be compared with the champion's: there are no questions that both were asked",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_refused(champion: Evaluated, rules: Rules, reason: str) -> None:
    decision = gate.decide(model("dpo", 90), BASE, held(champion), rules)
    assert (decision.passed, decision.reason) == (False, reason)


def test_a_metric_that_is_no_mean_over_questions_is_an_error() -> None:
    with pytest.raises(ParamsError, match="'distinct/1' cannot be compared question by question"):
        gate.decide(model("dpo", 90), BASE, None, Rules(guards=Guards(base={"distinct/1": 0.1})))


@pytest.mark.parametrize("wrong", [{"margin": -0.1}, {"min_questions": 0}, {"guards": {"champion": {"a": -1}}}])
def test_rules_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="greater than"):
        Rules.model_validate(wrong)
