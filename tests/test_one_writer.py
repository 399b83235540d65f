"""The same training started many times at once: one runs, and no crash leaves a lock behind.

Four at once and twice in CI, eight and twenty times with `make faults FULL=1`.
"""

import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from stages.common.core import checkpoints
from stages.common.runtime.errors import EXIT_DONE, EXIT_RUNNING, AlreadyRunningError
from tests.support import lives, preloaded
from tests.support.counts import times, told

AT_ONCE = times(4, 8)

pytestmark = [pytest.mark.slow, pytest.mark.fault, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lives.write_world(tmp_path_factory.mktemp("one"))


def start(work: Path, number: int, turn: int) -> object:
    """Start one of many; in every other turn under names of their own, so that only the
    checkpoints are the same.
    """
    return lives.start(work, "sft", **({"DVC_STAGE": f"sft@{number}"} if turn % 2 else {}))


def test_of_many_at_once_one_runs_and_the_others_say_who(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = lives.whole(work, "sft")
    with told(capsys, f"{AT_ONCE} of one training at once") as counts:
        turns = times(2, 20)
        for turn in range(turns):
            lives.forget(work, "sft")
            said = len(lives.said(work))
            started = [start(work, number, turn) for number in range(AT_ONCE)]
            codes = Counter(preloaded.ended(one) for one in started)
            new = lives.said(work)[said:]
            assert codes == {EXIT_DONE: 1, EXIT_RUNNING: AT_ONCE - 1}, new
            assert new.count("already running as process") == AT_ONCE - 1
            assert lives.bits(work, "sft") == expected
        counts |= {"turns": turns, "ran": turns, "refused": turns * (AT_ONCE - 1)}


def test_a_killed_training_leaves_no_lock(work: Path) -> None:
    lives.forget(work, "sft")
    process = lives.start(work, "sft")
    while not lives.checkpoints(work, "sft"):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert preloaded.ended(process) == -signal.SIGKILL
    assert preloaded.ended(lives.start(work, "sft", DVC_STAGE="sft@again")) == EXIT_DONE, lives.said(work)


def test_the_error_names_the_folder_and_the_process(tmp_path: Path) -> None:
    holder = preloaded.context().Process(target=hold, args=(str(tmp_path),))
    holder.start()
    while not (tmp_path / "held").exists():
        time.sleep(0.01)
    with pytest.raises(AlreadyRunningError) as refused, checkpoints.held(tmp_path):
        pass
    assert str(refused.value) == (
        f"{tmp_path}/lock: already running as process {holder.pid}; wait for it, or: kill {holder.pid}"
    )
    holder.kill()
    holder.join()
    with checkpoints.held(tmp_path):
        assert (tmp_path / "lock").read_text() == str(os.getpid())


def hold(folder: str) -> None:
    with checkpoints.held(Path(folder)):
        (Path(folder) / "held").touch()
        time.sleep(300)
