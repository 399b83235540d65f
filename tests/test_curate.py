"""What is dropped, why, and in which split the rest falls."""

import json
from collections import Counter
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages import ingest
from stages.common.core import records
from stages.common.core.records import SHAPES, Record, Shape, message
from stages.common.curate.executors import Executor
from stages.common.curate.report import summary
from stages.common.text import normalisation, parquet_writer, record_checks
from stages.common.text.parquet_writer import row_count
from stages.common.text.parquet_writer import write as write_records
from stages.curate import Params, curate, publish
from tests.support.real_data import REAL, needs_real_data

ROOT = Path(__file__).parent.parent
Report = dict[str, dict[str, Any]]


def shares(validation: float) -> dict[str, Any]:
    return {"splits": {shape: {"validation": validation} for shape in SHAPES if shape not in ("questions", "labelled")}}


SETTINGS = shares(0.1) | {"heuristics": {"enabled": False}}  # the texts here are too short for them
LOCAL, TWO = "executor: local\nworkers: 1\n", "executor: local\nworkers: 2\n"


def asked(*texts: str) -> list[Record]:
    """Turns of user, assistant, user, …"""
    return [message("assistant" if number % 2 else "user", text) for number, text in enumerate(texts)]


def lay(folder: Path, **found: list[Record]) -> Path:
    """Lay records as ingested."""
    for shape in SHAPES:
        rows = [{"id": f"{shape}:{line}", "source": shape, **row} for line, row in enumerate(found.get(shape, []), 1)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(parquet_writer, "RECORDS_PER_GROUP", 50)
            write_records(rows, folder / "ingested" / shape, shape)
    return folder


def run(folder: Path, settings: dict[str, Any] | None = None, executor: str = LOCAL, **found: list[Record]) -> Report:
    """Lay records as ingested, curate them and return the report as it is written."""
    lay(folder, **found)
    (folder / "executor.yaml").write_text(executor)
    wanted = Params(**{**SETTINGS, **(settings or {})})
    with Executor(folder / "executor.yaml") as ready:
        counts = curate(folder / "ingested", folder / "work", wanted, ready)
    publish(folder / "work", folder / "out", folder / "dropped")
    report = {shape: summary(counts[shape], row_count(folder / "ingested" / shape)) for shape in SHAPES}
    return cast(Report, json.loads(json.dumps(report)))


def dropped(folder: Path) -> dict[str, list[str]]:
    """The ids of what was dropped, by reason."""
    found: dict[str, list[str]] = {}
    for file in sorted((folder / "dropped").rglob("*.jsonl")):
        found.setdefault(file.parent.name, []).extend(json.loads(line)["id"] for line in file.open())
    return found


def kept(folder: Path, shape: Shape) -> list[Record]:
    return list(records.read(folder / "out" / shape))


def test_every_drop_is_kept_aside_with_its_reason_and_the_counts_add_up(tmp_path: Path) -> None:
    report = run(
        tmp_path,
        conversations=[
            {"messages": asked("Hi", "Hello.")},
            {"messages": asked("Hi ", "Hello.\r\n")},
            {"messages": asked("Hi", "")},
            {"messages": asked("Hi")},
            {"messages": asked("Hi", "Hello.", "Bye")},
            {"messages": [message("user", "Hi"), *asked("Hi", "Hello.")]},
            {"messages": asked("Well?", "Yes.", "What  is 1+1?", "2")},
        ],
        documents=[{"text": "One."}, {"text": " \n"}, {"text": "One.  "}, {"text": "Tom asked: a. WHAT IS 1+1？ Two."}],
        prompts=[{"messages": asked("What is 1+1?")}, {"messages": asked("Hi", "Hello.")}],
        comparisons=[{"prompt": asked("Hi"), "responses": ["a", ""], "ranks": [1, 2]}],
        questions=[
            {"messages": asked("What is 1+1?"), "reference": "2", "group": "iid"},
            {"messages": asked("What is 1+1?"), "reference": "two", "group": "iid"},
            {"messages": asked("What is 1+1?"), "reference": "2", "group": "general"},
            {"messages": asked("What?"), "reference": " ", "group": "iid"},
        ],
    )
    assert dropped(tmp_path) == {
        "bad_role_order": ["conversations:6"],
        "cut": ["conversations:5"],
        "duplicate": ["conversations:2", "documents:3", "questions:2"],
        "empty": ["documents:2"],
        "empty_answer": ["comparisons:1"],
        "empty_turn": ["conversations:3"],
        "leaked_question": ["conversations:7", "documents:4", "prompts:1"],
        "no_answer": ["conversations:4"],
        "no_question": ["prompts:2"],
        "no_reference": ["questions:4"],
    }
    assert {shape: (part["rows"], part["kept"]) for shape, part in report.items()} == {
        "documents": (4, 1),
        "conversations": (7, 1),
        "comparisons": (1, 0),
        "prompts": (2, 0),
        "questions": (4, 2),
        "labelled": (0, 0),
    }
    for shape, part in report.items():
        assert part["rows"] == part["kept"] + sum(part["dropped"].values())
        told = {shape: {key: part[key] for key in ("rows", "kept", "dropped")}} if part["rows"] else {}
        assert part["sources"] == told
        assert part["kept"] == sum(part["splits"].values())


def test_a_dropped_record_can_be_read_as_it_came(tmp_path: Path) -> None:
    run(tmp_path, documents=[{"text": "One."}, {"text": "One. "}])
    line = json.loads((tmp_path / "dropped/duplicate/documents-00000.jsonl").read_text())
    assert line == {
        "reason": "duplicate",
        "shape": "documents",
        "of": "documents:1",
        "id": "documents:2",
        "source": "documents",
        "text": "One.",
    }


def test_a_duplicate_is_the_same_content_in_the_same_shape(tmp_path: Path) -> None:
    turns = {"messages": asked("Hi", "Hello.")}
    pair = {"prompt": asked("Hi"), "responses": ["a", "b"], "ranks": [1, 2]}
    run(
        tmp_path,
        conversations=[turns, turns | {"tools": "[1]"}],
        comparisons=[pair, pair | {"responses": ["b", "a"]}, pair | {"ranks": [2, 1]}],
        prompts=[{"messages": asked("Hi")}],
    )
    assert dropped(tmp_path) == {"duplicate": ["comparisons:3"]}


def test_kept_text_is_clean_and_ids_survive(tmp_path: Path) -> None:
    run(tmp_path, documents=[{"text": "\ufeffcafe\u0301 \r\n\r\n\r\nend"}])
    assert kept(tmp_path, "documents") == [{"id": "documents:1", "source": "documents", "text": "café\n\nend"}]


def test_the_share_held_out_is_about_what_is_asked(tmp_path: Path) -> None:
    report = run(tmp_path, documents=[{"text": f"Text {number}."} for number in range(3000)])
    assert 240 <= report["documents"]["splits"]["validation"] <= 360


def test_a_share_of_zero_holds_nothing_out(tmp_path: Path) -> None:
    texts = [{"text": f"Text {number}."} for number in range(100)]
    report = run(tmp_path, shares(0.0), documents=texts)
    assert report["documents"]["splits"] == {"train": 100}


@pytest.mark.parametrize(("rows", "held_out"), [(19, 0), (20, 1)])
def test_twenty_records_or_more_give_a_validation_record_however_small_the_share(
    rows: int, held_out: int, tmp_path: Path
) -> None:
    texts: list[Record] = [{"text": f"Text {number}."} for number in range(rows)]
    report = run(tmp_path, shares(1e-9), documents=[*texts, texts[0]])
    assert report["documents"]["splits"].get("validation", 0) == held_out
    assert len(kept(tmp_path, "documents")) == rows
    assert dropped(tmp_path) == {"duplicate": [f"documents:{rows + 1}"]}


def test_one_prompt_never_falls_in_two_splits(tmp_path: Path) -> None:
    run(
        tmp_path,
        conversations=[{"messages": asked(f"Hi {row % 50}", f"Hello {row}.")} for row in range(300)],
        prompts=[{"messages": asked(f"hi  {row}")} for row in range(50)],
    )
    splits: dict[str, set[str]] = {}
    for split in records.SPLITS:
        for shape in ("conversations", "prompts"):
            for record in records.read(tmp_path / "out" / shape / split):
                splits.setdefault(normalisation.key(record["messages"][0]["content"]), set()).add(split)
    assert len(splits) == 50 and all(len(found) == 1 for found in splits.values())
    assert {split for found in splits.values() for split in found} == set(records.SPLITS)


def test_a_split_depends_on_nothing_but_the_record(tmp_path: Path) -> None:
    texts: list[Record] = [{"text": f"Text {number}."} for number in range(500)]
    held_out = []
    for name, rows in (("all", texts), ("fewer", texts[::-2])):
        run(tmp_path / name, documents=rows)
        held_out.append({record["text"] for record in records.read(tmp_path / name / "out/documents/validation")})
    assert held_out[1] == held_out[0] & {row["text"] for row in texts[::-2]}


def test_two_runs_write_the_same_bytes(tmp_path: Path) -> None:
    texts: list[Record] = [{"text": f"Text {number % 40}."} for number in range(60)]
    turns: list[Record] = [{"messages": asked(f"Hi {number}", "Hello.")} for number in range(60)]
    for name in "ab":
        run(tmp_path / name, documents=texts, conversations=turns)
    one, two = (
        {
            file.relative_to(tmp_path / name).as_posix(): file.read_bytes()
            for part in ("out", "dropped")
            for file in (tmp_path / name / part).rglob("*.*")
        }
        for name in "ab"
    )
    assert one == two and len(one) == 12


TURN = st.builds(
    message, st.sampled_from(["system", "user", "assistant", "tool"]), st.sampled_from(["", "a", " ", "文"])
)


@given(st.lists(TURN, max_size=4))
def test_any_turns_are_kept_or_dropped_for_a_known_reason(turns: list[Record]) -> None:
    record = normalisation.clean("conversations", {"messages": turns, "tools": None})
    assert record_checks.fault("conversations", record) in {"", "empty_turn", "no_answer", "bad_role_order", "cut"}


@needs_real_data
def test_every_row_of_the_real_files_is_kept_dropped_or_in_quarantine(tmp_path: Path) -> None:
    counts = ingest.ingest(REAL, tmp_path / "ingested", tmp_path / "quarantine", ingest.Params())
    with Executor() as executor:
        tallies = curate(tmp_path / "ingested", tmp_path / "work", Params(**SETTINGS), executor)
    publish(tmp_path / "work", tmp_path / "out", tmp_path / "dropped")
    parts = {shape: summary(tallies[shape], row_count(tmp_path / "ingested" / shape)) for shape in SHAPES}
    assert len(counts) == 9
    for source, count in counts.items():
        of_source = [part["sources"][source] for part in parts.values() if source in part["sources"]]
        assert count.rows == count.kept + count.quarantined.total()
        assert sum(count.records.values()) == sum(part["rows"] for part in of_source)
        assert all(part["rows"] == part["kept"] + sum(part["dropped"].values()) for part in of_source)
        reasons = sum((Counter(part["dropped"]) for part in of_source), Counter[str]())
        told = f"{count.rows} rows, {count.kept} read as {sum(count.records.values())} records"
        print(f"{source}: {told}, quarantined {dict(count.quarantined)}, dropped {dict(reasons)}")
    for shape in SHAPES:
        assert parts[shape]["kept"] == sum(1 for _ in records.read(tmp_path / "out" / shape))
    by_source = parts["conversations"]["sources"]
    assert by_source["medicalgpt/glaive_toolcall_zh_demo.jsonl"]["dropped"]["duplicate"] == 43
    assert by_source["medicalgpt/sharegpt_zh_1K_format.jsonl.gz"]["dropped"]["no_answer"] == 1
    put_aside = sum(len(ids) for ids in dropped(tmp_path).values())
    assert put_aside == sum(sum(part["dropped"].values()) for part in parts.values())
