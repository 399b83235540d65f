"""Evaluation: who is asked what, what counts as right, and a report that is the same each time."""

import json
from pathlib import Path

import pytest

from stages import evaluate
from stages.common import generation, records
from tests.tiny import make_model, make_tokenizer

SETTINGS = evaluate.Params(max_new_tokens=6, max_tokens=64, batch_size=4)


def question(number: int, group: str = "iid", category: str = "capital/en") -> records.Record:
    return {
        "id": f"q:{number}",
        "messages": [records.message("user", f"What is the capital of land {number}?")],
        "reference": f"town {number}",
        "group": group,
        "category": category,
    }


@pytest.mark.parametrize("prompt", ["plain", "chat"])
def test_every_question_gets_an_answer_and_none_is_no_error(prompt: str) -> None:
    tokenizer = make_tokenizer()
    model = make_model(tokenizer).eval()
    asked = [question(number) for number in range(5)]
    answers = evaluate.ask(model, tokenizer, asked, prompt, SETTINGS)
    assert [row["id"] for row in answers] == [row["id"] for row in asked]
    assert answers == evaluate.ask(model, tokenizer, asked, prompt, SETTINGS)
    assert evaluate.ask(model, tokenizer, [], prompt, SETTINGS) == []


def test_a_plain_answer_is_judged_by_the_line_that_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = make_tokenizer()
    said = tokenizer("town 1.\nWhat is the capital of land 2?")["input_ids"]
    monkeypatch.setattr(generation, "generate", lambda *_, **__: [said])
    model = make_model(tokenizer)
    assert evaluate.ask(model, tokenizer, [question(1)], "plain", SETTINGS)[0]["correct"]
    assert not evaluate.ask(model, tokenizer, [question(1)], "chat", SETTINGS)[0]["correct"]


def test_accuracy_is_counted_by_group_and_language_with_wilson_intervals() -> None:
    rows = [
        {"group": "iid", "language": language, "correct": right}
        for language, right in (("en", True), ("en", True), ("zh", False), ("", True))
    ]
    report = evaluate.accuracy(rows)
    assert report.metrics == {"accuracy/iid": 0.75, "accuracy/iid/en": 1.0, "accuracy/iid/zh": 0.0}
    assert report.counts == {"accuracy/iid": 4, "accuracy/iid/en": 2, "accuracy/iid/zh": 1}
    assert report.intervals["accuracy/iid"] == pytest.approx((0.300642, 0.954413), abs=1e-6)


def test_the_report_has_one_line_an_answer_and_one_a_group(tmp_path: Path) -> None:
    rows = [{"group": "iid", "language": "en", "correct": True, "answer": "北京"}]
    evaluate.write(evaluate.accuracy(rows), rows, tmp_path, {"candidate": "sft"})
    assert json.loads((tmp_path / "metrics.json").read_text())["metrics"]["accuracy/iid"] == 1.0
    assert "北京" in (tmp_path / "answers.jsonl").read_text(encoding="utf-8")
    assert (tmp_path / "accuracy.csv").read_text().splitlines()[1] == "sft,iid,1.0,0.206549,1.0,1"
