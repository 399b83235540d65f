"""Evaluation: who is asked what, what is written, and that it is the same each time."""

import csv
import json
import shutil
from contextlib import nullcontext
from pathlib import Path

import pytest

from stages import evaluate
from stages.common.core import chat, left_out, models, params, records
from stages.common.evaluation import metrics, results
from stages.common.generation import generator
from stages.common.ranking import samples
from stages.common.runtime.errors import ParamsError
from stages.common.text.parquet_writer import Shards
from stages.common.text.parquet_writer import write as write_records
from stages.common.tracking import session
from stages.common.tracking.run import Run
from tests.support.tiny import make_model, make_tokenizer, write_validated

PARAMS = "run: {name: test}\nevaluate: {max_new_tokens: 6, max_tokens: 64, batch_size: 4, shots: [0, 2]}\n"
FILES = ["accuracy.csv", "answers.jsonl", "losses.csv", "metrics.json", "shots.csv", "shots.jsonl"]


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(session, "start", lambda *_, **__: nullcontext(Run(None)))
    (tmp_path / "params.yaml").write_text(PARAMS)
    write_validated(tmp_path / "data")
    models.save(make_model(make_tokenizer()), make_tokenizer(), tmp_path / "model")
    return tmp_path


def run(work: Path, prompt: str, out: str, drawn: Path | None = None) -> Path:
    data = work / "data"
    folders = data / "questions", data / "documents", data / "conversations", work / out / prompt
    evaluate.main(prompt, work / "model", prompt, *folders, samples=drawn)
    return work / out / prompt


@pytest.mark.parametrize("prompt", ["plain", "chat"])
def test_two_runs_write_the_same_bytes(work: Path, prompt: str) -> None:
    first, second = run(work, prompt, "one"), run(work, prompt, "two")
    assert sorted(path.name for path in first.iterdir()) == FILES
    assert [(first / name).read_bytes() for name in FILES] == [(second / name).read_bytes() for name in FILES]


@pytest.mark.parametrize(("kept", "prompt"), [(True, "chat"), (False, "plain")])
def test_a_base_is_asked_through_the_template_it_brought_or_as_text(work: Path, kept: bool, prompt: str) -> None:
    tokenizer = models.load_tokenizer(work / "model")
    tokenizer.init_kwargs[chat.OF_BASE] = {"ends": [], "new": [], "kept": kept}
    tokenizer.save_pretrained(work / "model")
    asked, as_base = run(work, prompt, "one"), run(work, "base", "two")
    assert (asked / "answers.jsonl").read_bytes() == (as_base / "answers.jsonl").read_bytes()
    assert json.loads((as_base / "metrics.json").read_text())["prompt"] == prompt


def test_another_way_of_asking_is_refused(work: Path) -> None:
    with pytest.raises(ParamsError, match="--prompt is 'Chat', none of chat, plain, base"):
        run(work, "Chat", "out")


def test_what_is_written_is_read_back(work: Path) -> None:
    run(work, "chat", "out")
    (found,) = results.read(work / "out")
    assert (found.candidate, found.prompt, len(found.answers)) == ("chat", "chat", 4)
    assert found.counts["accuracy/iid"] == found.counts["shots-0/iid"] == found.counts["shots-2/iid"] == 4
    assert found.metrics["shots-0/iid"] == found.metrics["accuracy/iid"]
    assert {name: len(scored) for name, scored in found.losses.items()} == {"documents": 10, "conversations": 10}
    with (work / "out/chat/shots.csv").open() as handle:
        assert [row["shots"] for row in csv.DictReader(handle) if row["group"] == "iid"] == ["0", "2"]


def test_held_out_prompts_are_asked_too_those_without_a_reference_have_no_accuracy(work: Path) -> None:
    asked = [records.message("user", "Who?")]
    row: records.Record = {"source": "p", "messages": asked, "category": None, "responses": ["Me."], "cut": [False]}
    with Shards({work / "drawn/validation": samples.SCHEMA}) as shards:
        for name, reference in (("p:1", "Me."), ("p:2", None)):
            shards.add(work / "drawn/validation", row | {"id": name, "reference": reference})
    run(work, "chat", "out", work / "drawn")
    (found,) = results.read(work / "out")
    assert len(found.answers) == 6
    assert (found.counts["accuracy/prompts"], found.counts["accuracy/iid"]) == (1, 4)
    assert found.answers["p:2"]["correct"] is None
    assert not any(name.startswith("shots") and name.endswith("prompts") for name in found.metrics)


def test_no_questions_are_no_error(work: Path) -> None:
    for file in (work / "data/questions").glob("*"):
        file.unlink()
    write_records([], work / "data/questions", "questions")
    document = json.loads((run(work, "chat", "out") / "metrics.json").read_text())
    assert sorted(document["metrics"]) == ["perplexity/conversations", "perplexity/documents"]


def test_a_grader_of_no_group_is_refused_before_a_model_is_loaded(work: Path) -> None:
    (work / "params.yaml").write_text(PARAMS.replace("evaluate: {", "evaluate: {grader: {idd: contains}, "))
    shutil.rmtree(work / "model")
    with pytest.raises(ParamsError, match="no question is of this group, did you mean 'iid'"):
        run(work, "chat", "out")


def test_an_answer_is_graded_as_its_group_asks(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = make_tokenizer()("<think>land 1?</think>It must be town 7, I think.")["input_ids"]
    monkeypatch.setattr(generator, "generate", lambda _, prompts, **__: [said] * len(prompts))
    run(work, "chat", "exact")
    (work / "params.yaml").write_text(PARAMS.replace("evaluate: {", "evaluate: {grader: {iid: contains}, "))
    run(work, "chat", "contains")
    found = {kind: results.read(work / kind)[0] for kind in ("exact", "contains")}
    assert [found[kind].metrics["accuracy/iid"] for kind in found] == [0.0, 0.25]  # town 0, 7, 14 and 21
    assert found["contains"].answers["q:1"]["correct"] is True


def test_a_candidate_that_was_left_out_is_no_candidate_and_a_reward_model_that_was_scores_nothing(work: Path) -> None:
    left_out.write("no pair to learn from", [work / "reward"], {}, [])
    data = work / "data"
    folders = data / "questions", data / "documents", data / "conversations"
    evaluate.main("dpo", work / "reward", "chat", *folders, work / "out/dpo")
    evaluate.main("sft", work / "model", "chat", *folders, work / "out/sft", reward=work / "reward")
    assert sorted(path.name for path in (work / "out/dpo").iterdir()) == FILES
    assert json.loads((work / "out/dpo/metrics.json").read_text())["left_out"] == "no pair to learn from"
    assert all(path.stat().st_size for path in (work / "out").rglob("*.*"))  # DVC warns of empty files
    (found,) = results.read(work / "out")
    assert found.candidate == "sft" and "reward" not in found.metrics


def test_the_headline_is_accuracy_or_else_perplexity() -> None:
    report = metrics.Report()
    report.add("perplexity/documents", 12.345, (11.0, 13.0), 100)
    assert evaluate.headline(report) == "perplexity/documents 12.35"
    report.share("accuracy/iid", [True, True, True, False])
    assert evaluate.headline(report) == "iid exact match 75.0% [30.1%, 95.4%]"
    assert evaluate.headline(report, "number") == "iid right by number 75.0% [30.1%, 95.4%]"


def test_a_negative_number_of_examples_is_refused(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("evaluate: {shots: [-1]}\n")
    with pytest.raises(ParamsError, match="shots"):
        params.load(evaluate.Params, "evaluate", tmp_path / "params.yaml")
