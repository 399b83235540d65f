"""Measures against numbers worked by hand."""

import math

import pytest

from stages.common.evaluation import metrics


def answer(text: str, reference: str = "Paris.", group: str = "iid", **more: object) -> metrics.Answer:
    return {"answer": text, "reference": reference, "group": group, "language": "en", "correct": False} | more


def test_accuracy_is_counted_by_group_and_language_with_wilson_intervals() -> None:
    rows = [
        {"group": "iid", "language": language, "correct": right}
        for language, right in (("en", True), ("en", True), ("zh", False), ("", True))
    ]
    report = metrics.Report()
    metrics.accuracy(report, rows)
    assert report.metrics == {"accuracy/iid": 0.75, "accuracy/iid/en": 1.0, "accuracy/iid/zh": 0.0}
    assert report.counts == {"accuracy/iid": 4, "accuracy/iid/en": 2, "accuracy/iid/zh": 1}
    assert report.intervals["accuracy/iid"] == pytest.approx((0.300642, 0.954413), abs=1e-6)


def test_refusals_are_counted_where_due_and_where_not() -> None:
    report = metrics.Report()
    refusal, ignorance = "I can't help with that.", "I don't know."
    rows = [answer(refusal, refusal), answer("Sure.", refusal), answer(refusal), answer("Paris."), answer("Rome.")]
    metrics.behaviour(report, [*rows, answer(ignorance, ignorance)], "chat")
    found = {name: value for name, value in report.metrics.items() if name.startswith(("refusal", "unsure"))}
    assert found == {"refusal/due": 0.5, "refusal/false": 0.25, "unsure/due": 1.0, "unsure/false": 0.0}
    assert [report.counts[f"refusal/{kind}"] for kind in ("due", "false")] == [2, 4]


def test_variety_and_length_are_of_the_part_that_is_judged() -> None:
    report = metrics.Report()
    metrics.behaviour(report, [answer("a b a\nQ: c d e f"), answer("a b")], "plain")
    # unigrams a b a a b: 2 of 5 differ; bigrams ab ba ab: 2 of 3
    assert report.metrics["distinct/1"] == 0.4
    assert report.metrics["distinct/2"] == pytest.approx(2 / 3, abs=1e-6)
    assert report.metrics["length/units"] == 2.5
    assert "distinct/1" not in report.intervals


def test_no_answer_measures_nothing() -> None:
    report = metrics.Report()
    metrics.behaviour(report, [], "chat")
    metrics.rewards(report, [])
    metrics.perplexities(report, {"documents": []})
    assert report.metrics == {}


def test_rewards_are_means_over_all_and_by_group() -> None:
    report = metrics.Report()
    metrics.rewards(report, [answer("", reward=1.0), answer("", reward=2.0), answer("", group="general", reward=6.0)])
    assert report.metrics == {"reward": 3.0, "reward/general": 6.0, "reward/iid": 1.5}


def test_perplexity_is_over_all_tokens() -> None:
    report = metrics.Report()
    metrics.perplexities(report, {"documents": [(math.log(2.0), 1), (3 * math.log(4.0), 3), (0.0, 0)]})
    assert report.metrics["perplexity/documents"] == pytest.approx(math.exp(math.log(128) / 4), rel=1e-5)
    assert report.counts["perplexity/documents"] == 4
