"""The spool on disk: whole on a full disk, readable past a torn or damaged line."""

import resource
from pathlib import Path

import pytest

from stages.common.tracking import event_log, run


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_full_disk_in_the_middle_keeps_the_spool_whole(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    events = event_log.create()
    tracked = run.Run(events)
    tracked.metrics({"loss": 1.0}, step=0)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (events.path.stat().st_size + 40, limit[1]))
    try:
        for step in range(1, 4):
            tracked.metrics({"loss": 1.0}, step=step)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    tracked.metrics({"loss": 1.0}, step=4)
    assert [event["step"] for event, _ in events.read(0)] == [0, 4]
    assert caplog.text.count("tracking misses events") == 1


def test_a_damaged_line_is_left_out_and_a_torn_last_one_waited_for(project: Path) -> None:
    events = event_log.create()
    events.append("metrics", step=1)
    with events.path.open("ab") as handle:
        handle.write(b"\0\0\0\n")
    events.append("metrics", step=2)
    with events.path.open("ab") as handle:
        handle.write(b'{"kind": "metr')
    assert [event["step"] for event, _ in events.read(0)] == [1, 2]


def test_an_event_larger_than_one_read_arrives_whole(project: Path) -> None:
    events = event_log.create()
    events.append("tags", values={"long": "x" * 5000})
    assert [len(event["values"]["long"]) for event, _ in events.read(0, limit=100)] == [5000]
