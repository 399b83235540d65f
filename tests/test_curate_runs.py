"""However `curate` is run (more workers, a kill, elsewhere) it writes the same; what mixture and
splits take.
"""

from pathlib import Path
from typing import Any

import pytest

from stages.common.core import records
from stages.common.core.records import Record
from stages.common.curate import steps
from stages.common.curate.executors import Executor
from stages.common.runtime.errors import ParamsError
from stages.common.text.parquet_writer import Shards
from stages.curate import Params, curate, order
from tests.support.counts import FULL
from tests.test_curate import LOCAL, ROOT, SETTINGS, TWO, asked, dropped, lay, run, shares


def files(folder: Path) -> dict[str, bytes]:
    found = [file for part in ("out", "dropped") for file in (folder / part).rglob("*.*")]
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in found}


def many(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Enough records, duplicates among them, for several tasks of a hundred."""
    monkeypatch.setattr(steps, "RECORDS_PER_TASK", 100)
    texts = [
        {"text": f"The river number {n % 220} is {n % 220 * 7} miles long and ends in a lake."} for n in range(300)
    ]
    turns = [{"messages": asked(f"How long is river {n % 130}?", f"It is {n % 130 * 7} miles.")} for n in range(150)]
    return {"documents": texts, "conversations": turns}


def test_several_workers_write_what_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = many(monkeypatch)
    reports = [run(tmp_path / name, executor=kind, **found) for name, kind in (("1", LOCAL), ("2", TWO))]
    assert reports[0] == reports[1] and reports[0]["documents"]["dropped"] == {"duplicate": 80}
    assert files(tmp_path / "1") == files(tmp_path / "2")
    assert len(list((tmp_path / "1/out/documents/train").iterdir())) == 3


def test_tasks_are_small_in_records_and_in_bytes_and_nothing_is_between_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay(tmp_path, documents=[{"text": f"{n} " * (400 if n >= 200 else 2)} for n in range(400)])
    folder = tmp_path / "ingested/documents"
    assert len(steps.slices(folder)) == 1

    def rows() -> list[tuple[int, int]]:
        return [(first, last) for _, first, last in steps.slices(folder)]

    monkeypatch.setattr(steps, "RECORDS_PER_TASK", 150)
    assert rows() == [(0, 3), (3, 6), (6, 8)]
    monkeypatch.setattr(steps, "BYTES_PER_TASK", 100_000)  # long documents: fewer a task
    assert rows()[:1] == [(0, 3)] and len(rows()) > 3
    assert [last for _, last in rows()[:-1]] == [first for first, _ in rows()[1:]] and rows()[-1][1] == 8
    assert [(first, last) for _, first, last in steps.written(folder)] == [(0, 8)]


def test_a_killed_run_goes_on_and_ends_as_one_never_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = many(monkeypatch)
    whole = run(tmp_path / "whole", **found)
    writes = 0

    def dies(self: Shards, folder: Path, record: Record) -> None:
        nonlocal writes
        writes += 1
        if writes == 120:
            raise KeyboardInterrupt
        add(self, folder, record)

    add = Shards.add
    lay(tmp_path / "killed", **found)
    monkeypatch.setattr(Shards, "add", dies)
    (tmp_path / "one.yaml").write_text(LOCAL)
    with pytest.raises(KeyboardInterrupt), Executor(tmp_path / "one.yaml") as executor:
        curate(tmp_path / "killed/ingested", tmp_path / "killed/work", Params(**SETTINGS), executor)
    monkeypatch.setattr(Shards, "add", add)
    done = list((tmp_path / "killed/work").rglob("completions/*"))
    assert run(tmp_path / "killed", **found) == whole
    assert done and files(tmp_path / "killed") == files(tmp_path / "whole")


def test_a_weight_reads_a_source_more_often_and_what_is_not_read_is_kept_aside(tmp_path: Path) -> None:
    texts = [{"text": f"In {name} stands number {n}.", "source": name} for name in ("book", "web") for n in range(100)]
    mixture = {"documents": {"weights": {"book": 3.0, "web": 1.0}}}
    report = run(tmp_path, shares(0.0) | {"mixture": mixture}, documents=texts)["documents"]
    found = list(records.read(tmp_path / "out/documents"))
    assert report["sources"]["book"] == {"rows": 100, "kept": 100, "dropped": {}}
    assert report["epochs"]["book"] == pytest.approx(1.5, abs=0.15)
    assert report["epochs"]["web"] == pytest.approx(0.5, abs=0.15)
    assert len(found) == report["splits"]["train"] == len({record["id"] for record in found})
    again = [record for record in found if record["id"].endswith("#2")]
    assert again and all(record["source"] == "book" for record in again)
    aside = dropped(tmp_path)["not_sampled"]
    assert len(aside) == report["dropped"]["not_sampled"] == 100 - report["sources"]["web"]["kept"]


def test_shapes_that_stay_apart_share_no_prompt(tmp_path: Path) -> None:
    apart = {"splits": SETTINGS["splits"] | {"apart": [["conversations", "prompts"]]}}
    talk = [{"messages": asked(f"How far is {n}?", "Far.")} for n in range(30)]
    prompts = [{"messages": asked(f"how  far is {n}?")} for n in range(20, 40)]
    run(tmp_path, apart, conversations=talk, prompts=prompts)
    assert dropped(tmp_path) == {"serves_conversations": [f"prompts:{row}" for row in range(1, 11)]}


def test_shapes_that_wait_for_each_other_are_refused() -> None:
    circle = {"apart": [["conversations", "prompts"], ["prompts", "conversations"]]}
    with pytest.raises(ParamsError, match="each waits for the other"):
        order(Params(splits=SETTINGS["splits"] | circle).splits)


@pytest.mark.slow
@pytest.mark.skipif(not FULL, reason="three minutes; LATHE_FULL=1. In CI test_executors.py has a cluster of Ray")
def test_ray_writes_what_this_machine_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray", reason="the extra ray is not installed")
    found = many(monkeypatch)
    here = run(tmp_path / "here", **found)
    environment = {"env_vars": {"PYTHONPATH": str(ROOT)}}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env=environment)
    try:
        there = run(tmp_path / "ray", executor="executor: ray\nmem_per_cpu_gb: 0.25\n", **found)
    finally:
        ray.shutdown()
    assert there == here and files(tmp_path / "ray") == files(tmp_path / "here")
