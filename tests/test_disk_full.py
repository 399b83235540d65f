"""The disk fills up anywhere in a checkpoint: the one before stays whole, the error says how much
is needed and where.

A real file system of a few hundred KiB that is full; where this host lets nobody mount one, the
same at every call that Python makes. A trainer of its own saves; nothing is mocked but, in the
second, the call that fails.
"""

import ctypes
import errno
import json
import os
import shutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from stages.common.core import checkpoints
from stages.common.runtime import disk_space
from stages.common.runtime.errors import TryAgainError
from tests.support import preloaded
from tests.support.counts import told
from tests.support.tiny import make_model, make_tokenizer, write_validated

PAGE = 4096
CLONE_NEWNS, CLONE_NEWUSER = 0x20000, 0x10000000
NOT_ALLOWED = 77

pytestmark = [pytest.mark.slow, pytest.mark.fault]


@pytest.fixture
def world(tmp_path: Path) -> Path:
    from stages.common.core import models

    write_validated(tmp_path / "data")
    tokenizer = make_tokenizer()
    models.save(make_model(tokenizer), tokenizer, tmp_path / "model")
    (tmp_path / "params.yaml").write_text(
        "sft:\n  training:\n    num_train_epochs: 1\n    per_device_train_batch_size: 8\n    learning_rate: 0.01\n"
    )
    return tmp_path


def mounted(folder: Path) -> bool:
    """Give this process alone a file system of a few MiB at `folder`; False where that is not
    allowed.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    folder.mkdir()
    if libc.unshare(CLONE_NEWNS) and libc.unshare(CLONE_NEWNS | CLONE_NEWUSER):
        return False
    private, recursive = 1 << 18, 1 << 14
    libc.mount(b"none", b"/", None, private | recursive, None)
    return libc.mount(b"none", str(folder).encode(), b"tmpfs", 0, b"size=8m") == 0


def trained() -> Any:
    """Return SFT's trainer after its last step, its checkpoint written."""
    from stages import sft
    from stages.common.core import params
    from stages.common.tracking.run import Run
    from stages.common.training import fit

    settings = params.load(sft.Params, "sft")
    trainer = sft.build_trainer(settings, Path("model"), Path("data/conversations"), "fingerprint")
    fit.fit(trainer, settings, Run(None), "sft")
    return trainer


def attempt(trainer: Any, before: Path, how: str) -> bool:
    """Try to write the next checkpoint; whether it was refused for lack of room, with all as it has
    to be then.
    """
    folder = before.parent
    try:
        trainer._save_checkpoint(trainer.model, None)
        trainer.sealed()
    except TryAgainError as error:
        assert "MiB are needed" in str(error) and "MiB are free" in str(error) and str(folder) in str(error), error
        assert checkpoints.fault(before) == "", how
        after = before.with_name(f"checkpoint-{trainer.state.global_step}")
        assert checkpoints.newest(folder) == (after if after.exists() else before), how  # refused after the last rename
        shutil.rmtree(after, ignore_errors=True)
        assert not (folder / ".checkpoint-writing").exists(), how
        return True
    return False


def fill_up() -> dict[str, int]:
    """Leave room for 0, 1, 2, … pages while a checkpoint is written, until there is enough."""
    trainer = trained()
    (before,) = checkpoints.in_order(Path(trainer.args.output_dir))
    trainer.state.global_step += 1
    for count in range(10_000):
        left = disk_space.free(before)
        with (before.parent / "ballast").open("wb") as ballast:
            os.posix_fallocate(ballast.fileno(), 0, max(left - count * PAGE, PAGE))
        with mock.patch.object(disk_space, "check"):  # there was room when it was looked for
            refused = attempt(trainer, before, f"{count} pages")
        (before.parent / "ballast").unlink()
        if not refused:
            return {"pages": count, "bytes": disk_space.size(before)}
    raise AssertionError("no room is enough")


def fail_calls() -> dict[str, int]:
    """Let the n-th call that writes fail for lack of room, for each n until none is left."""
    trainer = trained()
    (before,) = checkpoints.in_order(Path(trainer.args.output_dir))
    trainer.state.global_step += 1
    calls, wanted = 0, 0

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal calls
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if wanted and (writes or event in ("os.mkdir", "os.rename", "fsync")):
            calls += 1
            if calls == wanted:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(arguments[0]))

    sys.addaudithook(count)
    fsync = os.fsync

    def audited(descriptor: int) -> None:
        sys.audit("fsync", descriptor)
        fsync(descriptor)

    with mock.patch.object(os, "fsync", audited):
        for number in range(1, 1000):
            calls, wanted = 0, number
            refused = attempt(trainer, before, f"call {number}")
            reached, wanted = calls >= number, 0
            if not reached:
                return {"calls": number - 1}
            if not refused:  # a folder that was there already: nobody minds that it cannot be made
                assert checkpoints.fault(before.with_name(f"checkpoint-{trainer.state.global_step}")) == ""
                shutil.rmtree(before.with_name(f"checkpoint-{trainer.state.global_step}"))
    raise AssertionError("it never stops writing")


def child(folder: str, work: Callable[[], dict[str, int]], mount: bool) -> None:
    os.chdir(folder)
    if mount and not mounted(Path(folder) / "checkpoints"):
        os._exit(NOT_ALLOWED)
    try:
        Path("report.json").write_text(json.dumps(work()))
    except BaseException:
        Path("report.json").write_text(json.dumps(traceback.format_exc()))
        os._exit(1)


@pytest.mark.parametrize(("work", "mount"), [(fill_up, True), (fail_calls, False)], ids=["real", "every call"])
def test_a_disk_that_fills_up_leaves_the_checkpoint_before(
    world: Path, work: Callable[[], dict[str, int]], mount: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    with told(capsys, f"disk full ({work.__name__})") as counts:
        process = preloaded.context().Process(target=child, args=(str(world), work, mount))
        process.start()
        if preloaded.ended(process) == NOT_ALLOWED:
            pytest.skip("this host lets nobody mount a file system")
        found = json.loads((world / "report.json").read_text())
        assert isinstance(found, dict), found
        counts |= found
    assert min(found.values()) > 15


def test_without_room_nothing_is_begun_and_the_stage_may_be_tried_again(world: Path) -> None:
    command = ["--model", "model", "--conversations", "data/conversations", "--out", "out", "--curve", "curve.csv"]
    process = preloaded.context().Process(target=starved, args=(str(world), command))
    process.start()
    assert preloaded.ended(process) == 75
    said = (world / "said.log").read_text().splitlines()[-1]
    assert said.startswith("lathe: sft failed (75): checkpoints/sft/")
    assert "no room on the disk: 0.4 MiB are needed, 0.1 MiB are free; free 0.4 MiB" in said
    assert said.split("then continue with: ")[1].startswith("dvc repro sft")
    assert not list((world / "checkpoints").rglob("checkpoint-*"))
    assert preloaded.ended(preloaded.stage("sft", command, world)) == 0, (world / "said.log").read_text()


def starved(folder: str, command: list[str]) -> None:
    with mock.patch.object(disk_space, "free", return_value=100_000):
        preloaded._stage("sft", command, folder, {})


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "x"), True),
        (OSError(errno.EDQUOT, "x"), True),
        (RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"), True),
        (OSError(errno.EACCES, "x"), False),
        (ValueError("x"), False),
    ],
)
def test_a_full_disk_is_recognised_whatever_a_library_makes_of_it(error: Exception, full: bool) -> None:
    assert disk_space.is_full(error) is full
    wrapped = RuntimeError("could not save")
    wrapped.__cause__ = error
    assert disk_space.is_full(wrapped) is full
