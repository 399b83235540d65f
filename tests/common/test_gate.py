"""The gate: its table of cases, each with the decision and the numbers that it must give."""

import json
from pathlib import Path

import pytest

from stages.common import gate
from stages.common.errors import DataError
from stages.common.gate import Evaluation
from stages.common.registry import Version

ACCURACY, PERPLEXITY = "accuracy/iid", "perplexity/documents"


def evaluation(name: str, value: float, metric: str = ACCURACY, questions: str = "q") -> Evaluation:
    return Evaluation(
        candidate=name,
        model=Path("models") / name,
        weights_sha256=f"weights of {name}",
        questions_sha256=questions,
        metrics={metric: value},
        intervals={},
    )


def champion(
    value: float, metric: str = ACCURACY, questions: str = "q", weights: str = "others", **tags: str
) -> Version:
    facts = {"weights_sha256": weights, "questions_sha256": questions, "metrics": json.dumps({metric: value})}
    return Version("lathe", "1", "models:/m-1", facts | tags)


@pytest.mark.parametrize(
    ("best", "base", "held", "metric", "promoted", "reason"),
    [
        (0.9, 0.2, None, ACCURACY, True, "accuracy/iid 0.9 beats the base's 0.2; there was no champion"),
        (0.2, 0.2, None, ACCURACY, False, "accuracy/iid 0.2 does not beat the base's 0.2"),
        (0.1, 0.2, None, ACCURACY, False, "accuracy/iid 0.1 does not beat the base's 0.2"),
        (5.0, 9.0, None, PERPLEXITY, True, "perplexity/documents 5 beats the base's 9; there was no champion"),
        (9.0, 5.0, None, PERPLEXITY, False, "perplexity/documents 9 does not beat the base's 5"),
        (0.9, 0.2, champion(0.8), ACCURACY, True, "accuracy/iid 0.9 beats the base's 0.2 and the champion's 0.8"),
        (0.9, 0.2, champion(0.9), ACCURACY, False, "accuracy/iid 0.9 does not beat the champion's 0.9"),
        (0.9, 0.2, champion(0.95), ACCURACY, False, "accuracy/iid 0.9 does not beat the champion's 0.95"),
        (
            5.0, 9.0, champion(4.0, PERPLEXITY), PERPLEXITY, False,
            "perplexity/documents 5 does not beat the champion's 4",
        ),
        (
            0.9, 0.2, champion(0.95, questions="others"), ACCURACY, True,
            "accuracy/iid 0.9 beats the base's 0.2; the champion was asked other questions",
        ),
        (
            0.9, 0.2, champion(0.95, metric="accuracy/ood"), ACCURACY, True,
            "accuracy/iid 0.9 beats the base's 0.2; the champion was not measured by this metric",
        ),
        (0.1, 0.2, champion(0.9, questions="others"), ACCURACY, False, "accuracy/iid 0.1 does not beat the base's 0.2"),
        (float("nan"), 0.2, None, ACCURACY, False, "accuracy/iid nan does not beat the base's 0.2"),
        (0.9, 0.2, champion(0.9, weights="weights of sft", promoted_because="why"), ACCURACY, True, "why"),
        (0.9, 0.2, champion(0.9, weights="weights of sft"), ACCURACY, True, "it was made champion by hand"),
    ],
)  # fmt: skip
def test_the_decision_names_the_rule_and_the_numbers(
    best: float, base: float, held: Version | None, metric: str, promoted: bool, reason: str
) -> None:
    decision = gate.decide(evaluation("sft", best, metric), evaluation("pretrain", base, metric), held, metric)
    assert (decision.promoted, decision.reason) == (promoted, reason)


def test_the_best_is_the_highest_accuracy_and_the_lowest_perplexity() -> None:
    for metric, expected in ((ACCURACY, "dpo"), (PERPLEXITY, "sft")):
        candidates = [
            evaluation(name, value, metric) for name, value in (("dpo", 7.0), ("pretrain", 9.0), ("sft", 3.0))
        ]
        best, base = gate.choose(candidates, metric, "pretrain")
        assert (best.candidate, base.candidate) == (expected, "pretrain")


@pytest.mark.parametrize(
    ("names", "metric", "base", "message"),
    [
        (
            ["pretrain", "sft"],
            "accuracy/odd",
            "pretrain",
            "pretrain has no metric 'accuracy/odd'; there are: accuracy/iid",
        ),
        (["pretrain"], ACCURACY, "pretrain", "another candidate; evaluated are: pretrain"),
        (
            ["dpo", "sft"],
            ACCURACY,
            "pretrain",
            "needs the base 'pretrain' and another candidate; evaluated are: dpo, sft",
        ),
    ],
)
def test_what_cannot_be_compared_is_named(names: list[str], metric: str, base: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        gate.choose([evaluation(name, 0.5) for name in names], metric, base)


def test_a_malformed_evaluation_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no \*/metrics.json here"):
        gate.read(tmp_path)
    (tmp_path / "sft").mkdir()
    (tmp_path / "sft/metrics.json").write_text('{"candidate": "sft"}')
    with pytest.raises(DataError, match="model: Field required"):
        gate.read(tmp_path)
