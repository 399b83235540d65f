"""The life of a trainer, from outside: killed or stopped at random moments, it ends with the same
bits.

A few of each in CI, 100 kills over all trainers with `make faults FULL=1`. Moments are seeded.
"""

import functools
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import lives, preloaded
from tests.support.counts import FULL, times, told

KILLS = dict(zip(lives.TRAINERS, (13, 13, 13, 13, 12, 12, 12, 12), strict=True))
STOPPED = [stage for stage in lives.TRAINERS if FULL or stage != "kto"]  # which lives as dpo does
ELSEWHERE = lives.TRAINERS if FULL else ("ppo",)  # which keeps most beside its checkpoints
STOP_SECONDS = 10
Measure = Callable[[str], tuple[dict[str, str], float]]

pytestmark = [pytest.mark.slow, pytest.mark.fault, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lives.write_world(tmp_path_factory.mktemp("life"))


@pytest.fixture(scope="module")
def uninterrupted(work: Path) -> Measure:
    """Return the bits of a stage's uninterrupted run, and how many seconds it took."""
    return functools.cache(functools.partial(_measured, work))


def _measured(work: Path, stage: str) -> tuple[dict[str, str], float]:
    started = time.monotonic()
    return lives.whole(work, stage), time.monotonic() - started


@pytest.mark.parametrize("stage", lives.TRAINERS)
def test_killed_at_random_moments_it_ends_with_the_same_bits(
    work: Path, uninterrupted: Measure, stage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the first line to the last report; a run that gets through starts afresh, until enough
    were killed.
    """
    wanted, killed, chance = times(1, KILLS[stage]), 0, random.Random(stage)
    expected, seconds = uninterrupted(stage)
    with told(capsys, f"{stage}, SIGKILL at random moments of {seconds:.1f} s") as counts:
        runs = resumed = 0
        while killed < wanted or not lives.bits(work, stage):
            saved = bool(lives.checkpoints(work, stage))
            process, runs = lives.start(work, stage), runs + 1
            if killed < wanted and chance.random() < 0.7:  # the rest of the kills: while it starts, or anywhere
                lives.wait_for_checkpoints(process, work, stage, chance.randint(1, 6))
                code = preloaded.ended(process, 0.3 * chance.random())
            else:
                code = preloaded.ended(process, seconds * chance.uniform(0.05, 1.0) if killed < wanted else 300)
            resumed += saved and "resuming from" in (work / "logs" / f"{stage}.log").read_text()
            if code is None:
                os.kill(process.pid, signal.SIGKILL)
                code, killed = preloaded.ended(process), killed + 1
                assert code == -signal.SIGKILL
                continue
            assert code == 0, lives.said(work)
            assert lives.bits(work, stage) == expected
            if killed < wanted:
                lives.forget(work, stage)
        counts |= {"kills": killed, "starts": runs, "of them resumed": resumed}
    assert lives.bits(work, stage) == expected
    assert not [path for path in (work / "models").rglob("*") if path.suffix in (".bin", ".pt")]


@pytest.mark.parametrize("stage", STOPPED)
def test_asked_to_stop_it_saves_and_leaves_in_time_and_resumes_to_the_same_bits(
    work: Path, uninterrupted: Measure, stage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (expected, _), chance, slowest = uninterrupted(stage), random.Random(f"{stage} stops"), 0.0
    wanted = times(1, 5)
    lives.forget(work, stage)
    with told(capsys, f"{stage}, SIGTERM") as counts:
        stops = 0
        while stops < wanted:
            process = lives.start(work, stage)
            lives.wait_for_checkpoints(process, work, stage, 1)
            time.sleep(chance.random() * 0.3)
            if not process.is_alive():
                assert preloaded.ended(process) == 0, lives.said(work)
                assert lives.bits(work, stage) == expected
                lives.forget(work, stage)
                continue
            asked = time.monotonic()
            os.kill(process.pid, signal.SIGTERM)
            code = preloaded.ended(process)
            if code == 0:  # it came when nothing was left to do
                continue
            assert code == 143, lives.said(work)
            assert lives.checkpoints(work, stage)
            stops, slowest = stops + 1, max(slowest, time.monotonic() - asked)
        assert preloaded.ended(lives.start(work, stage)) == 0, lives.said(work)
        counts |= {"stops": stops, "ms for the slowest": int(slowest * 1000)}
    said = (work / "logs" / f"{stage}.log").read_text()
    assert "resuming from" in said or "is the end of this very training" in said  # stopped behind its last step
    assert lives.bits(work, stage) == expected
    assert slowest < STOP_SECONDS


@pytest.mark.parametrize("stage", ELSEWHERE)
def test_killed_here_it_goes_on_on_another_machine_with_the_same_bits(
    work: Path, uninterrupted: Measure, stage: str, tmp_path: Path
) -> None:
    """By `run.checkpoints: remote`: the other machine has the data and DVC's remote, no more."""
    expected, _ = uninterrupted(stage)
    lives.forget(work, stage)
    places = [tmp_path / name for name in ("one", "other")]
    for place in places:
        shutil.copytree(work, place, ignore=shutil.ignore_patterns("checkpoints", "logs", "mlflow.db", ".lathe"))
        (place / "params.yaml").write_text(f"run: {{checkpoints: remote}}\n{lives.text()}")
        (place / ".dvc").mkdir()
        remote = f"[core]\nno_scm = true\nremote = store\n['remote \"store\"']\nurl = {tmp_path}/store\n"
        (place / ".dvc/config").write_text(remote)
    first, end = lives.start(places[0], stage), time.monotonic() + 300
    while not list((tmp_path / "store/checkpoints" / stage).glob("*/*.json")):
        assert first.is_alive() and time.monotonic() < end, lives.said(places[0])
        time.sleep(0.01)
    os.kill(first.pid, signal.SIGKILL)
    assert preloaded.ended(first) == -signal.SIGKILL
    assert preloaded.ended(lives.start(places[1], stage)) == 0, lives.said(places[1])
    said = (places[1] / f"logs/{stage}.log").read_text()
    assert "came from the remote 'store'" in said and "resuming from" in said
    assert lives.bits(places[1], stage) == expected
