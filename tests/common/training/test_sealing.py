"""A checkpoint is sealed beside the training, by as many processes as wrote it; one that takes long
is written seldom.
"""

import threading
from pathlib import Path

import pytest

from stages.common.core import checkpoints, models
from stages.common.runtime.errors import TryAgainError
from stages.common.training.callbacks import interval
from stages.common.training.sealing import Sealing


def written(folder: Path, step: int) -> tuple[Path, Path, int]:
    """Write what is to be sealed; return what `Sealing` is told first."""
    temporary = folder / ".checkpoint-writing" / f"checkpoint-{step}"
    temporary.mkdir(parents=True)
    for rank in range(3):
        (temporary / f"shard-{rank}").write_bytes(bytes([rank]) * 1000 * (rank + 1))
    return temporary, folder / f"checkpoint-{step}", 1


@pytest.mark.parametrize("world", [1, 3])
def test_it_is_there_when_every_process_has_hashed_its_share(
    tmp_path: Path, world: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, hashed = threading.Event(), models.file_sha256
    monkeypatch.setattr(checkpoints, "file_sha256", lambda file: go_on.wait(30) and hashed(file))
    for step in (1, 2):
        go_on.clear()
        place = written(tmp_path, step)
        seals = [Sealing(*place, rank, world) for rank in range(world)]
        assert checkpoints.newest(tmp_path, lambda _: "") == (tmp_path / "checkpoint-1" if step == 2 else None)
        go_on.set()
        for one in seals:
            one.wait()
        assert checkpoints.newest(tmp_path) == tmp_path / f"checkpoint-{step}"
    assert [item.name for item in tmp_path.iterdir()] == ["checkpoint-2"], "the one before is rotated away"


def test_what_goes_wrong_is_raised_where_it_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "seal", full)
    sealing = Sealing(*written(tmp_path, 1), 0, 1)
    with pytest.raises(TryAgainError, match="no room on the disk"):
        sealing.wait()
    assert not (tmp_path / "checkpoint-1").exists()


@pytest.mark.parametrize(("minutes", "took", "seconds"), [(5, 0, 300), (5, 12, 300), (5, 60, 1200), (1e-9, 9, 6e-8)])
def test_checkpoints_that_stop_the_training_for_long_are_seldom(minutes: float, took: float, seconds: float) -> None:
    assert interval(minutes, took) == pytest.approx(seconds)
