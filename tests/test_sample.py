"""Sample: answers for the ranks, in the splits of their prompts, the same bytes for the
same seed.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from stages import rank, sample
from stages.common.core import chat, models, records
from stages.common.generation import generator
from stages.common.ranking import samples
from stages.common.runtime import logs, progress
from stages.common.runtime.errors import DataError, ParamsError, StopRequested
from stages.common.text.parquet_writer import write as write_records
from tests.support.tiny import conversation, make_model, make_tokenizer

PARAMS = "run: {name: test}\nsample: {answers: 3, max_new_tokens: 6, batch_size: 5}\nrank: {annotators: [rules]}\n"


def prompt(number: int, text: str = "What is the capital of land") -> records.Record:
    return {
        "id": f"p.jsonl:{number}",
        "source": "p.jsonl",
        "messages": [records.message("user", f"{text} {number}?")],
        "reference": f"town {number}",
        "category": "capital/en",
    }


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    tokenizer = make_tokenizer()
    models.save(make_model(tokenizer), tokenizer, tmp_path / "policy")
    write_records([prompt(number) for number in range(9)], tmp_path / "prompts/train", "prompts")
    write_records([prompt(number) for number in (20, 21)], tmp_path / "prompts/validation", "prompts")
    talks = [conversation(number) for number in range(30, 36)] + [conversation(40) | {"tools": "[]"}]
    write_records(talks, tmp_path / "conversations/train", "conversations")
    write_records([conversation(50)], tmp_path / "conversations/validation", "conversations")
    (tmp_path / "params.yaml").write_text(PARAMS)
    return tmp_path


def run(work: Path, out: str = "out") -> dict[str, Any]:
    names = ("policy", "prompts", "conversations", out, f"{out}.json")
    sample.main(*(work / name for name in names))
    return json.loads((work / f"{out}.json").read_text())


def draw(work: Path, out: str = "out", **section: Any) -> dict[str, int]:
    settings = sample.Params(**({"answers": 3, "max_new_tokens": 6, "batch_size": 5} | section))
    parts = work / f"{out}-parts"
    shutil.rmtree(parts, ignore_errors=True)
    return sample.sample(work / "policy", work / "prompts", work / "conversations", work / out, parts, settings)


def responses(work: Path, out: str = "out") -> dict[str, list[str]]:
    return {row["id"]: row["responses"] for row in records.read(work / out)}


def test_every_prompt_gets_its_answers_in_its_split_and_rank_reads_them(work: Path) -> None:
    report = run(work)
    assert (report["train"], report["validation"], report["answers"], report["too_long"]) == (9, 2, 33, 0)
    train = list(records.read(work / "out/train"))
    assert [row["id"] for row in train] == [f"p.jsonl:{number}" for number in range(9)]
    assert [row["id"] for row in records.read(work / "out/validation")] == ["p.jsonl:20", "p.jsonl:21"]
    assert {(len(row["responses"]), len(row["cut"])) for row in train} == {(3, 3)}
    assert {key: train[4][key] for key in ("reference", "category", "messages")} == {
        key: prompt(4)[key] for key in ("reference", "category", "messages")
    }
    read = [one for split in records.SPLITS for one in samples.read(work / "out", split)]
    assert report["different"] == sum(len(one.responses) for one in read)
    assert report["comparable"] == sum(len(one.responses) > 1 for one in read) > 0
    assert logs.key_figure == [f"33 answers; {report['comparable']} of 11 prompts have two different ones or more"]
    rank.main(work / "out", work / "ranked", work / "given", work / "pool", work / "r1.json")
    comparisons = json.loads((work / "r1.json").read_text())["comparisons"]
    assert comparisons["train"] + comparisons["validation"] == report["comparable"]


def test_the_same_seed_writes_the_same_bytes_another_one_other_answers(work: Path) -> None:
    for out in ("one", "two"):
        run(work, out)
    for name in (".json", "/train/part-00000.parquet", "/validation/part-00000.parquet"):
        assert (work / f"one{name}").read_bytes() == (work / f"two{name}").read_bytes()
    draw(work, "three", seed=2)
    assert responses(work, "one") != responses(work, "three")


def test_memory_holds_a_part_of_the_prompts_and_the_answers_stay_the_same(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = draw(work, "one")
    monkeypatch.setattr(sample, "PROMPTS_AT_ONCE", 4)
    assert draw(work, "two", batch_size=64) == facts
    assert responses(work, "one") == responses(work, "two")


def test_a_stopped_sampling_goes_on_and_writes_the_same_bytes(
    work: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sample, "PROMPTS_AT_ONCE", 4)
    run(work, "whole")
    decode, calls = generator.decode, []

    def stopped(*given: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise StopRequested
        return decode(*given, **named)

    monkeypatch.setattr(generator, "decode", stopped)
    with pytest.raises(StopRequested):
        run(work, "resumed")
    (parts,) = (work / "checkpoints/sample").iterdir()
    assert sorted(part.name for part in parts.iterdir()) == ["part-1", "part-2"]
    (parts / "part-2/counts.json").write_text("{}")  # not as it was written: made again
    with caplog.at_level("INFO", logger="lathe"):
        run(work, "resumed")
    assert len(calls) == 3 + 3  # part 2, the one that was stopped, and the held-out one
    assert any("part-2" in line and "made again" in line for line in caplog.messages)
    assert not parts.exists()
    for name in (".json", "/train/part-00000.parquet", "/validation/part-00000.parquet"):
        assert (work / f"whole{name}").read_bytes() == (work / f"resumed{name}").read_bytes()


def test_an_answer_is_cut_or_ends_with_its_turn(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = draw(work)
    rows = list(records.read(work / "out"))
    assert facts["cut"] == sum(sum(row["cut"]) for row in rows) == 33  # nothing taught this model to end
    assert facts["tokens"] == 33 * 6
    tokenizer = make_tokenizer()
    monkeypatch.setattr(chat, "stops", lambda _: list(range(len(tokenizer) // 4)))
    facts = draw(work)
    assert 0 < facts["cut"] < 33
    assert facts["tokens"] < 33 * 6


def test_a_prompt_beyond_the_context_is_left_out_counted_and_said(work: Path, caplog: pytest.LogCaptureFixture) -> None:
    long = prompt(7, "capital " * 300)
    write_records([prompt(1), long, prompt(2)], work / "prompts/train", "prompts")
    with caplog.at_level("WARNING", logger="lathe"):
        facts = draw(work)
    assert (facts["train"], facts["validation"], facts["too_long"], facts["answers"]) == (2, 2, 1, 12)
    assert set(responses(work)) == {"p.jsonl:1", "p.jsonl:2", "p.jsonl:20", "p.jsonl:21"}
    assert caplog.messages == [
        "1 prompts are left out: they leave no room for an answer in the model's context of 256 tokens"
    ]
    for split in records.SPLITS:
        write_records([long], work / "prompts" / split, "prompts")
    with pytest.raises(DataError, match="no prompt to answer; 2 are too long for the model") as caught:
        draw(work)
    assert "sample.from_conversations" in caught.value.remedy


def test_conversations_are_asked_where_there_are_no_prompts(work: Path) -> None:
    for split in records.SPLITS:
        write_records([], work / "prompts" / split, "prompts")
    with pytest.raises(DataError, match="no prompt to answer"):
        draw(work)
    facts = draw(work, from_conversations=4)
    assert (facts["train"], facts["validation"], facts["answers"]) == (4, 1, 15)
    rows = list(records.read(work / "out"))
    assert {len(row["messages"]) for row in rows} == {1}
    assert {row["reference"] for row in rows} == {None}
    chosen = {row["id"] for row in rows}
    assert "tiny.jsonl:41" not in chosen  # it has tools
    draw(work, from_conversations=99)
    assert chosen < set(responses(work))
    assert len(responses(work)) == 7


def test_a_question_is_what_stands_before_the_first_answer() -> None:
    system, user, answer = (records.message(role, role) for role in ("system", "user", "assistant"))
    assert samples.opening([system, user, answer, user, answer]) == [system, user]
    assert samples.opening([user]) == [user]
    assert samples.opening([answer, user]) == []
    assert samples.opening([system, answer]) == []


def test_one_answer_has_nothing_to_be_compared_with(work: Path) -> None:
    (work / "params.yaml").write_text("sample: {answers: 1}\n")
    with pytest.raises(ParamsError, match=r"sample\.answers.*greater than or equal to 2"):
        run(work)


def test_progress_is_that_of_all_prompts(
    work: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    with caplog.at_level("INFO", logger="lathe"):
        draw(work)
    assert caplog.messages[10].startswith("11 rows, 33 %, ")
    assert caplog.messages[-1].startswith("33 rows, 100 %, ")
