"""The questions that the gate's rules need, before and after a promotion has measured how answers
differ.
"""

import json
from pathlib import Path

import pytest

from flows.plans import question_plan
from stages import promote
from tests.support import evaluations

SETTINGS = promote.Params.model_validate(
    {
        "name": "lathe",
        "metric": "accuracy/iid",
        "guards": {"champion": {"accuracy/ood": 0.05, "perplexity/documents": 0.1}, "base": {"accuracy/ood": 0.2}},
    }
)


def test_before_anything_was_evaluated_a_guess_is_named_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert question_plan.competing("pretrain", ["pretrain", "sft", "dpo"]) == 2
    ranks, guards = question_plan.plans(SETTINGS, 4)
    assert (ranks.metric, ranks.asked, ranks.there, ranks.sees) == ("accuracy/iid", None, None, None)
    # ((1.6449 + 0.8416) / 0.05)² x 0.1 = 247.3
    assert (guards.metric, guards.asked, guards.there, guards.measured) == ("accuracy/ood", 248, None, False)


def test_a_promotion_measures_how_much_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = evaluations.answers(80, 100) | evaluations.answers(50, 400, "ood")
    evaluations.write(tmp_path / "reports/evaluate", evaluations.evaluated("sft", rows))
    change = {"gained": 4, "lost": 4, "count": 400}
    compared = [
        {"rule": "guard", "metric": "accuracy/ood", "against": "base", "change": {**change, "gained": 200}},
        {"rule": "guard", "metric": "accuracy/ood", "against": "sft_best", "change": change},
        {"rule": "guard", "metric": "perplexity/documents", "against": "sft_best", "change": {"count": 40}},
        {"rule": "beats", "metric": "accuracy/gone", "against": "sft_best", "change": None},
    ]
    assert question_plan.competing("pretrain", ["pretrain", "sft", "dpo", "grpo"]) == 1, "only sft was evaluated"
    Path("reports/promote.json").write_text(json.dumps({"comparisons": compared}), encoding="utf-8")
    ranks, guards = question_plan.plans(SETTINGS, 1)
    # (1.96 + 0.8416) x (0.1 / 100)^0.5 = 0.0886
    assert (ranks.there, ranks.measured) == (100, False)
    assert ranks.sees == pytest.approx(0.0886, abs=1e-4)
    # a loss of the margin makes that many differ: ((1.6449 + 0.8416) / 0.05)² x 0.05 = 123.7
    assert (guards.asked, guards.there, guards.differing, guards.measured) == (124, 400, 0.02, True)
