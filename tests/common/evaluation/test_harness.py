"""lm-evaluation-harness: its numbers under our names, with intervals that the gate can use."""

import json
import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import pytest

from stages.common.evaluation import compare, harness, metrics, paired_bootstrap
from stages.common.evaluation.generate_answers import Candidate
from stages.common.evaluation.results import Evaluated
from stages.common.release import gate
from stages.common.runtime.errors import DataError, ParamsError
from tests.support.evaluations import evaluated
from tests.support.tiny import make_model, make_tokenizer

FOUND = {
    "results": {
        "towns": {"alias": "towns", "acc,none": 0.5, "acc_stderr,none": 0.1, "bits_per_byte,none": 2.0},
        "sums": {"exact_match,strict": 0.25, "exact_match_stderr,strict": "N/A", "broken,none": math.nan},
    },
    "n-samples": {"towns": {"original": 40, "effective": 25}},
}
TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list: [{{metric: acc}}]
"""
needs_harness = pytest.mark.skipif(find_spec("lm_eval") is None, reason="needs the extra `eval` (lm_eval)")


def test_metrics_have_our_names_and_95_percent_intervals() -> None:
    report = metrics.Report()
    harness.add(report, FOUND)
    assert report.metrics == {
        "lm_eval/towns/acc": 0.5,
        "lm_eval/towns/bits_per_byte": 2.0,
        "lm_eval/sums/exact_match/strict": 0.25,
    }
    assert report.intervals == {"lm_eval/towns/acc": (0.304004, 0.695996)}  # 0.5 -+ 1.959964 * 0.1
    assert report.counts == {
        "lm_eval/towns/acc": 25,
        "lm_eval/towns/bits_per_byte": 25,
        "lm_eval/sums/exact_match/strict": 0,
    }


def measured(name: str, value: float, half: float, metric: str = "lm_eval/towns/acc") -> Evaluated:
    numbers = {"metrics": {metric: value}, "intervals": {metric: (value - half, value + half)}, "counts": {metric: 50}}
    return evaluated(name, {}).model_copy(update=numbers)


def test_a_change_has_both_intervals_in_its_own() -> None:
    change = paired_bootstrap.change("lm_eval/towns/acc", measured("dpo", 0.8, 0.04), measured("sft", 0.5, 0.03))
    assert change is not None
    assert (change.before, change.after, change.change, change.count) == (0.5, 0.8, 0.3, 50)
    assert (change.low, change.high) == pytest.approx((0.25, 0.35))  # 0.05 = root of 0.04² + 0.03²
    assert paired_bootstrap.change("lm_eval/towns/acc", measured("dpo", 0.8, 0.04), evaluated("sft", {})) is None
    assert list(compare.changes(measured("dpo", 0.8, 0.04), measured("sft", 0.5, 0.03))) == ["lm_eval/towns/acc"]


def test_the_gate_judges_by_a_task() -> None:
    rules = gate.Rules(metric="lm_eval/towns/acc")
    base = measured("pretrain", 0.5, 0.03)
    for best, passed in ((measured("dpo", 0.8, 0.04), True), (measured("dpo", 0.54, 0.04), False)):
        decision = gate.decide(best, base, None, rules)
        assert decision.passed is passed, decision.reason


def test_a_loss_is_better_when_lower() -> None:
    assert paired_bootstrap.lower_is_better("lm_eval/wikitext/word_perplexity")
    assert paired_bootstrap.lower_is_better("lm_eval/wikitext/bits_per_byte")
    assert not paired_bootstrap.lower_is_better("lm_eval/towns/acc")


@pytest.mark.skipif(find_spec("lm_eval") is not None, reason="lm_eval is installed")
def test_without_the_library_it_is_said_what_to_install() -> None:
    with pytest.raises(ParamsError, match=r"evaluate\.lm_eval.*lm_eval; pip install -e '\.\[eval\]'"):
        harness.run(metrics.Report(), candidate(), ["towns"], None)


def candidate(prompt: str = "plain") -> Candidate:
    tokenizer = make_tokenizer()
    return Candidate(make_model(tokenizer).eval(), tokenizer, prompt, max_new_tokens=4, batch_size=2)


def write_task(folder: Path) -> list[dict[str, Any]]:
    rows = [
        {"question": f"The capital of land {n} is", "choices": [f" town {n * 7 % 50}.", f" city {n}."], "answer": n % 2}
        for n in range(8)
    ]
    (folder / "towns.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "towns.yaml").write_text(TASK.format(name="lathe_towns", data=folder / "towns.jsonl"))
    return rows


def chosen(one: Candidate, row: dict[str, Any]) -> int:
    """Return the choice whose tokens behind the question are the more likely ones."""
    import torch

    scores, policy = [], cast(Any, one.policy)
    for choice in row["choices"]:
        start = len(one.tokenizer(row["question"])["input_ids"])
        ids = one.tokenizer(row["question"] + choice)["input_ids"]
        with torch.inference_mode():
            logs = policy(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        scores.append(sum(float(logs[at - 1, ids[at]]) for at in range(start, len(ids))))
    return scores.index(max(scores))


@needs_harness
def test_a_local_task_is_asked_with_our_model_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    rows, one = write_task(tmp_path), candidate()
    report = metrics.Report()
    harness.run(report, one, ["lathe_towns"], tmp_path)
    right = sum(chosen(one, row) == row["answer"] for row in rows) / len(rows)
    assert report.metrics["lm_eval/lathe_towns/acc"] == right
    assert report.counts["lm_eval/lathe_towns/acc"] == 8
    low, high = report.intervals["lm_eval/lathe_towns/acc"]
    assert low < right < high or right in (0.0, 1.0)
    chat = metrics.Report()
    harness.run(chat, candidate("chat"), ["lathe_towns"], tmp_path)
    assert list(chat.metrics) == list(report.metrics)


@needs_harness
def test_a_task_that_is_unknown_or_has_no_data_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    with pytest.raises(ParamsError, match="no task 'nowhere'"):
        harness.run(metrics.Report(), candidate(), ["nowhere"], tmp_path)
    write_task(tmp_path)
    (tmp_path / "towns.jsonl").unlink()
    with pytest.raises(DataError, match=r"lathe_towns: lm_eval: .*must be on this machine"):
        harness.run(metrics.Report(), candidate(), ["lathe_towns"], tmp_path)
