import json
from pathlib import Path

import pytest

from flows.cli import summary


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "logs").mkdir()
    for name, seconds, figure in [("ingest", 4.23, "1,200 records"), ("evaluate@sft", 185.0, "accuracy 0.91")]:
        facts = {"stage": name, "seconds": seconds, "peak_mib": 1536, "exit_code": 0, "figure": figure}
        (tmp_path / f"logs/{name}.json").write_text(json.dumps(facts))


def test_the_table_has_a_row_for_each_stage_that_ran_in_the_pipelines_order(logs: None) -> None:
    table = summary.show(["ingest", "curate", "evaluate@sft"]).split("\n\n")[0].strip().splitlines()
    assert table == [
        "stage               time  peak memory  key figure",
        "ingest             4.2 s    1,536 MiB  1,200 records",
        "evaluate@sft  3 min 05 s    1,536 MiB  accuracy 0.91",
    ]


def test_after_a_flow_it_says_what_became_of_each_stage(logs: None) -> None:
    rows = summary.rows(["ingest", "evaluate@sft"], {"ingest": "cached", "evaluate@sft": "ran"})
    assert [row[:2] for row in rows] == [("ingest", "cached"), ("evaluate@sft", "ran")]


def test_without_a_run_there_is_still_where_to_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "make serve" in summary.show(["ingest"])


def test_where_a_version_waits_for_a_person_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reports").mkdir()
    for facts, said in (({"review": "pending"}, "chat                 make review, then make serve "), ({}, "chat  ")):
        (tmp_path / "reports/deploy.json").write_text(json.dumps(facts))
        assert said in summary.show([])
        assert ("make review" in summary.show([])) == ("review" in facts)
