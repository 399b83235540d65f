"""make feedback: what people said lies in data/raw under DVC, the same bytes each time, and ingest
reads it.
"""

import json
from pathlib import Path

import pytest

from flows.cli import feedback as command
from stages.common.annotation import feedback, feedback_export
from stages.common.annotation.feedback import Demonstration, Edit, Opinion
from stages.common.core import records
from stages.common.runtime.errors import DataError
from tests.support import project

FACTS = {"model": "lathe", "version": "3", "weights_sha256": "f" * 64}
ASKED = [{"role": "user", "content": "Which city is the capital of Portugal?"}]


def say(stores: Path) -> None:
    """Write a store as the pages do: an edit, two votes, a vote alone, a demonstration in a store
    of its own.
    """
    page = stores / "page.jsonl"
    said = {"messages": ASKED, "annotator": "ada", **FACTS}
    feedback.append(page, Edit.model_validate(said | {"response": "Porto.", "better": "It is Lisbon."}))
    for response, liked in (("Lisbon.", True), ("Madrid.", False)):
        feedback.append(page, Opinion.model_validate(said | {"response": response, "liked": liked}))
    alone = said | {"messages": [{"role": "user", "content": "Why?"}], "response": "Because.", "liked": True}
    feedback.append(page, Opinion.model_validate(alone))
    line = Demonstration(messages=[{"role": "user", "content": "And of Spain?"}], response="Madrid.", annotator="ada")
    feedback.append(stores / "demonstrations.jsonl", line)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_all_stores_are_read_and_broken_lines_named(tmp_path: Path) -> None:
    say(tmp_path)
    with (tmp_path / "page.jsonl").open("ab") as handle:
        handle.write(b'{"kind": "edit", "time": "20\n\xff\xfe\n[1]\n')
    broken: list[str] = []
    exported = feedback_export.export(command.lines(tmp_path, broken))
    assert (len(exported.comparisons), len(exported.conversations)) == (2, 2)
    assert [line.split(": ")[0] for line in broken] == [f"{tmp_path}/page.jsonl:{number}" for number in (5, 6, 7)]
    said = command.summary(exported, broken, tmp_path)
    assert "2 comparisons, 2 conversations and 1 labelled answers" in said
    assert "from 1 edited answers, 3 likes and dislikes, 1 written" in said
    assert "left out  3  broken lines" in said
    with pytest.raises(DataError, match="nobody has said anything yet"):
        list(command.lines(tmp_path / "none", broken))


def test_votes_are_told_with_those_that_make_no_pair(tmp_path: Path) -> None:
    for number, choice in enumerate(("left", "tie", "both bad", "both bad")):
        sides = {name: {**FACTS, "answers": [f"{name} {number}"]} for name in ("left", "right")}
        about = {"conversation": str(number), "challenger": "left", "vote": choice, "annotator": "ada"}
        feedback.append(tmp_path / "votes.jsonl", feedback.Vote.model_validate({"messages": ASKED} | about | sides))
    said = command.summary(feedback_export.export(command.lines(tmp_path, [])), [], tmp_path)
    assert "1 comparisons, 0 conversations and 6 labelled answers" in said
    assert "from 4 votes" in said
    assert "no pair   1  votes that hold both answers good: each is labelled as liked" in said
    assert "no pair   2  votes that hold both answers bad: each is labelled as not liked" in said
    assert "left out" not in said


def test_the_same_store_gives_the_same_bytes_and_an_unchanged_file_is_left(tmp_path: Path) -> None:
    say(tmp_path / "feedback")
    out = tmp_path / "out"
    assert command.write(feedback_export.export(command.lines(tmp_path / "feedback", [])), out)
    first, stamp = content(out), (out / "comparisons.jsonl").stat().st_mtime_ns
    assert not command.write(feedback_export.export(command.lines(tmp_path / "feedback", [])), out)
    assert content(out) == first and (out / "comparisons.jsonl").stat().st_mtime_ns == stamp
    assert not command.write(feedback_export.export([]), tmp_path / "nothing") and not (tmp_path / "nothing").exists()


@pytest.mark.slow
def test_it_is_under_dvc_and_ingest_reads_it(tmp_path: Path) -> None:
    folder = project.lay(tmp_path / "project", "params.yaml", {"demo.enabled": False})
    assert project.run(folder, "python", "-m", "flows.cli.feedback").returncode == 4, "nobody has said anything"
    say(folder / "feedback")
    done = project.run(folder, "python", "-m", "flows.cli.feedback")
    assert done.returncode == 0, done.stderr
    assert "changed; keep it: git add data/raw/feedback.dvc" in done.stdout
    pointer, files = (folder / "data/raw/feedback.dvc").read_text(), content(folder / "data/raw/feedback")
    status = project.run(folder, "git", "status", "--short", "-uall").stdout.split("\n")
    assert "?? data/raw/feedback.dvc" in status and not [line for line in status if "jsonl" in line]
    again = project.run(folder, "python", "-m", "flows.cli.feedback")
    assert "as it was" in again.stdout
    assert (folder / "data/raw/feedback.dvc").read_text() == pointer and content(folder / "data/raw/feedback") == files
    done = project.run(folder, "dvc", "repro", "ingest")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = list(records.read(folder / "data/ingested/comparisons"))
    assert [(row["id"], row["responses"]) for row in rows] == [
        ("feedback/comparisons.jsonl:1", ["It is Lisbon.", "Porto."]),
        ("feedback/comparisons.jsonl:2", ["Lisbon.", "Madrid."]),
    ]
    read = json.loads((folder / "reports/ingest.json").read_text())
    told = list(records.read(folder / "data/ingested/labelled"))
    assert [(row["prompt"][0]["content"], row["response"], row["desirable"]) for row in told] == [
        ("Why?", "Because.", True)
    ], read
    assert len(list(records.read(folder / "data/ingested/conversations"))) == 3, "what was liked is one as well"
