"""What may go is said, and removed only where that is asked for; what is held or new stays."""

import os
import time
from pathlib import Path

import pytest

from flows.cli import clean_up
from stages.common.runtime import locks
from stages.common.training import token_cache

DAY = 86_400


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Trainings of three ages, another one that is at work, and copies."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(clean_up, "dvc", lambda *, remove: "not asked")
    monkeypatch.setattr(token_cache, "FOLDER", "tokens")  # where it is outside the tests
    ages = {"checkpoints/sft/new": 1, "checkpoints/sft/old": 30, "checkpoints/sft/held": 40, "checkpoints/ppo/old": 50}
    ages |= {".lathe/models/m-1": 9, ".lathe/models/m-2": 2, "checkpoints/tokens/tokens-1": 20}
    for name, days in ages.items():
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "weights").write_bytes(b"0" * 2**20)
        for path in (folder / "weights", folder):
            os.utime(path, (time.time() - days * DAY,) * 2)
    return tmp_path


def test_old_trainings_and_copies_go_and_what_is_held_or_new_stays(
    kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = kept / "checkpoints/sft/held/lock"
    lock.touch()
    for path in (lock, lock.parent):
        os.utime(path, (time.time() - 40 * DAY,) * 2)
    with locks.waiting(lock):
        os.utime(lock, (time.time() - 40 * DAY,) * 2)
        clean_up.main(keep=1, days=7)
        said = capsys.readouterr().out
        assert [line.split("  ")[-1].split(":")[0] for line in said.splitlines() if line.startswith("would go")] == [
            "checkpoints/sft/old", "checkpoints/tokens/tokens-1", ".lathe/models/m-1",
        ]  # fmt: skip
        assert "lathe: 3 folders, 3.0 MiB; to remove them: make gc REMOVE=1" in said
        assert (kept / "checkpoints/sft/old").exists()
        clean_up.main(keep=1, days=7, remove=True)
    left = sorted(str(path.parent.relative_to(kept)) for path in kept.rglob("weights"))
    assert left == [".lathe/models/m-2", "checkpoints/ppo/old", "checkpoints/sft/held", "checkpoints/sft/new"]
