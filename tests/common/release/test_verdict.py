"""What a reviewer reads first: who became what and why, who is better where, and answers on both
sides.
"""

from pathlib import Path

from stages.common.evaluation.results import Evaluated
from stages.common.release import gate, verdict
from stages.common.release.gate import Choice, Guards, Incumbent, Rules
from tests.common.release.test_gate import BASE
from tests.support.evaluations import WRONG, answers, evaluated, losses

RULES = Rules(guards=Guards(base={"perplexity/documents": 30.0}))
SFT = evaluated("sft_best", answers(70, 100) | answers(20, 40, "ood"), losses(4.0))
BEST = evaluated("ppo", answers(90, 100) | answers(10, 40, "ood", wrong="<b>Rome</b>."), losses(4.0))
FORGETS = evaluated("orpo", answers(95, 100) | answers(35, 40, "ood"), losses(107 * 2.0))


def chosen() -> tuple[list[Evaluated], Choice]:
    found = [BASE, SFT, BEST, FORGETS]
    return found, gate.choose(found, "pretrain", RULES, Incumbent("sft_best", SFT))


def told() -> verdict.Verdict:
    found, choice = chosen()
    return verdict.of(found, choice, "promoted", "accuracy/iid", "sft_best")


def test_every_candidate_has_its_decision_with_the_reason_and_where_it_is_better() -> None:
    said = {one.name: one for one in told().standings}
    assert list(said) == ["orpo", "sft_best", "pretrain"]
    orpo = said["orpo"]
    assert (orpo.outcome, orpo.value) == ("refused", "95.0%")
    assert "perplexity/documents gets worse: 214 after the base's 2, x107 [x107, x107] on 40" in orpo.why
    assert "ood 87.5% against 25.0%" in orpo.better
    assert orpo.worse == ["perplexity/documents 214 against 4"]
    assert said["sft_best"].worse == ["iid 70.0% against 90.0%"]
    assert said["pretrain"].outcome == "base"
    _, choice = chosen()
    assert verdict.as_json(choice.judged)["orpo"] == {"passed": False, "reason": orpo.why}
    assert set(choice.judged) == {"sft_best", "ppo", "orpo"}


def test_three_answers_are_better_and_three_are_worse() -> None:
    found = told()
    assert found.against == "sft_best"
    assert [len(found.better), len(found.worse)] == [3, 3]
    assert {(one.group, one.ours, one.theirs) for one in found.better} == {("iid", "Paris.", WRONG)}
    assert {(one.group, one.theirs) for one in found.worse} == {("ood", "Paris.")}
    assert told() == found, "drawn by hash"


def test_without_somebody_to_beat_the_next_best_stands_beside_it() -> None:
    choice = gate.choose([BASE, BEST], "pretrain", RULES)
    found = verdict.of([BASE, BEST], choice, "promoted", "accuracy/iid", None)
    assert found.against == BASE.candidate


def test_the_page_opens_with_it_and_no_answer_is_markup() -> None:
    page = verdict.on_page(f"<h1>Lathe: review</h1>\n{verdict.MARK}\n<p>the rest</p>", told())
    assert page.index("<h2>ppo: promoted</h2>") < page.index("the rest")
    for said in (
        "accuracy/iid 90.0% [82.6%, 94.5%]",
        "x107 [x107, x107]",
        "Better answers than sft_best&#39;s",
        "&lt;b&gt;Rome&lt;/b&gt;.",
        "ood 87.5% against 25.0%",
    ):
        assert said in page, said
    assert "<b>Rome" not in page and verdict.MARK not in page
    template = Path(gate.__file__).parents[1] / "report/page.html.jinja"
    assert verdict.MARK in template.read_text(encoding="utf-8")
