"""SIGKILL of curation, as by an OOM killer: its workers end with it, and the next run, whenever the
kill came, ends with the same bytes.

One kill in CI, fifty with `make faults FULL=1`. Moments are seeded.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from stages.common.runtime.errors import DataError
from stages.curate import Params, counted
from tests.support.counts import FULL
from tests.test_curate import ROOT, SETTINGS, TWO, asked, lay
from tests.test_curate_runs import files

KILLS = 50 if FULL else 1
SCRIPT = f"""
import os, sys
from pathlib import Path
os.environ["LATHE_DATATROVE"] = "executor.yaml"
from stages.common.curate import steps
steps.RECORDS_PER_TASK = 100
from stages.curate import Params, counted, publish
if __name__ == "__main__":
    print("begun", flush=True)
    counted(Path("ingested"), Path("work"), Params(**{SETTINGS!r}))
    publish(Path("work"), Path("out"), Path("dropped"))
"""


def start(folder: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "script.py"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)


def begun(process: "subprocess.Popen[str]") -> None:
    assert process.stdout is not None and process.stdout.readline() == "begun\n"


def ended(processes: list[psutil.Process], allowed: float) -> bool:
    """Whether all end within so many seconds; nobody may ask an orphan for its exit code."""

    def left() -> list[psutil.Process]:
        return [one for one in processes if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]

    deadline = time.monotonic() + allowed
    while left() and time.monotonic() < deadline:
        time.sleep(0.05)
    return not left()


@pytest.fixture
def laid(tmp_path: Path) -> Path:
    texts = [{"text": f"The river {n % 210} is {n % 210 * 7} miles long, and it ends in a lake."} for n in range(300)]
    turns = [{"messages": asked(f"How long is river {n % 90}?", f"It is {n % 90 * 7} miles.")} for n in range(110)]
    lay(tmp_path, documents=texts, conversations=turns)
    (tmp_path / "executor.yaml").write_text(TWO)
    (tmp_path / "script.py").write_text(SCRIPT)
    return tmp_path


@pytest.mark.fault
@pytest.mark.timeout(7200 if FULL else 600)
def test_after_every_kill_the_next_run_ends_with_the_same_bytes_and_no_worker_is_left(laid: Path) -> None:
    whole = start(laid)
    begun(whole)
    since = time.monotonic()
    assert whole.wait(300) == 0
    seconds, expected = time.monotonic() - since, files(laid)
    assert len(expected) > 10
    chance = random.Random(17)
    for number in range(KILLS):
        killed = start(laid)
        begun(killed)
        time.sleep(chance.uniform(0, seconds))
        workers = psutil.Process(killed.pid).children(recursive=True) if killed.poll() is None else []
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        again = start(laid)
        assert again.wait(300) == 0, number
        assert files(laid) == expected, number
        assert ended(workers, max(5.0, seconds / 2)), number
        assert not (laid / "work").exists()


def test_workers_end_with_their_stage(laid: Path) -> None:
    stage = start(laid)
    begun(stage)
    since = time.monotonic()
    deadline = since + 60
    workers: list[psutil.Process] = []
    while len(workers) < 3 and time.monotonic() < deadline:  # the fork server and two workers
        found = psutil.Process(stage.pid).children(recursive=True)
        workers = [one for one in found if "forkserver" in " ".join(one.cmdline())]
        time.sleep(0.01)
    took = time.monotonic() - since
    stage.kill()
    stage.wait()
    assert len(workers) >= 3
    assert ended(workers, max(5.0, took)), "a machine that is slow to start them may be slow to end them"


def test_a_wrong_sum_removes_what_was_done(laid: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = laid / "one.yaml"
    one.write_text("executor: local\nworkers: 1\n")
    monkeypatch.setenv("LATHE_DATATROVE", str(one))
    monkeypatch.setattr("stages.curate.row_count", lambda folder: 1_000_000)
    with pytest.raises(DataError, match="1000000 records in") as caught:
        counted(laid / "ingested", laid / "work", Params(**SETTINGS))
    assert caught.value.remedy.endswith("the next run begins anew")
    assert not (laid / "work").exists()
