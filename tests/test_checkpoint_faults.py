"""A real checkpoint with any of its files damaged in any way: found, named, and the one before is
what goes on.
"""

import functools
import json
import logging
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stages.common.core import checkpoints
from tests.support import lives, preloaded
from tests.support.counts import told

FLIPS = 16
STAGES = ("sft", "ppo")  # a library's own files, and those we add: rollout, controller, both models

pytestmark = [pytest.mark.slow, pytest.mark.fault]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = lives.write_world(tmp_path_factory.mktemp("faults"))
    for stage in STAGES:
        assert preloaded.ended(lives.start(folder, stage)) == 0, lives.said(folder)
    return folder


def flipped(content: bytes, position: int) -> bytes:
    changed = bytearray(content)
    changed[position // 8] ^= 1 << position % 8
    return bytes(changed)


def mutations(file: Path, foreign: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield what may become of a file, and what does it; all of them change its bytes."""
    content, chance = file.read_bytes(), random.Random(file.name)
    yield "missing", file.unlink
    yield "empty", lambda: file.write_bytes(b"")
    yield "half", lambda: file.write_bytes(content[: len(content) // 2])
    yield "one byte short", lambda: file.write_bytes(content[:-1])
    if foreign.read_bytes() != content:
        yield "foreign", lambda: shutil.copy(foreign, file)
    for position in chance.sample(range(8 * len(content)), FLIPS):
        yield f"bit {position}", functools.partial(file.write_bytes, flipped(content, position))


@pytest.mark.parametrize("stage", STAGES)
def test_each_file_damaged_in_each_way_is_named_and_the_one_before_is_used(
    work: Path, stage: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    before, newest = lives.checkpoints(work, stage)[-2:]
    logging.getLogger("lathe").propagate = True
    files = sorted(file for file in newest.rglob("*") if file.is_file())
    assert {"optimizer.safetensors", "random-0.json", "trainer_state.json", checkpoints.MANIFEST} <= {
        file.name for file in files
    }
    with told(capsys, f"{stage}, a checkpoint's files damaged") as counts:
        count = 0
        for file in files:
            content = file.read_bytes()
            for name, mutate in mutations(file, before / file.name):
                mutate()
                caplog.clear()
                assert checkpoints.newest(newest.parent) == before, f"{file.name}: {name}"
                said = caplog.messages[0]
                assert str(newest) in said, said
                assert file.name == checkpoints.MANIFEST or str(file) in said, f"{name}: {said}"
                file.write_bytes(content)
                count += 1
        counts |= {"files": len(files), "mutations": count}
    assert checkpoints.newest(newest.parent) == newest


def test_a_checkpoint_of_another_training_or_another_step_is_foreign(work: Path) -> None:
    newest = lives.checkpoints(work, "sft")[-1]
    later = newest.with_name("checkpoint-9999")
    elsewhere = newest.parent.with_name("0123456789abcdef") / newest.name
    for copy in (later, elsewhere):
        shutil.copytree(newest, copy)
        assert checkpoints.fault(copy).endswith(f"written for {newest.parent.name}/{newest.name}")
        assert checkpoints.newest(copy.parent) == (newest if copy is later else None)
        shutil.rmtree(copy)
    elsewhere.parent.rmdir()


@pytest.mark.parametrize("content", ["null", "[]", "3", '"text"', "{}", '{"model.safetensors": null}', '{"a": {}}'])
def test_a_manifest_that_is_another_document_is_a_fault_and_no_crash(tmp_path: Path, content: str) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / checkpoints.MANIFEST).write_text(content)
    assert checkpoints.fault(tmp_path)


def test_folders_that_only_look_like_checkpoints_are_passed_over(work: Path) -> None:
    newest = lives.checkpoints(work, "sft")[-1]
    for name in ("checkpoint-old", "checkpoint-", "checkpoint-1.bak"):
        newest.with_name(name).mkdir()
        assert checkpoints.newest(newest.parent) == newest
        newest.with_name(name).rmdir()


@pytest.mark.parametrize("stage", STAGES)
def test_a_training_resumed_past_a_damaged_checkpoint_ends_with_the_same_bits(work: Path, stage: str) -> None:
    expected = lives.bits(work, stage)
    newest = lives.checkpoints(work, stage)[-1]
    file = newest / "optimizer.safetensors"
    file.write_bytes(flipped(file.read_bytes(), 8 * file.stat().st_size - 1))
    shutil.rmtree(work / "models" / stage)
    assert preloaded.ended(lives.start(work, stage)) == 0, lives.said(work)
    log = (work / "logs" / f"{stage}.log").read_text()
    assert f"{Path(*file.parts[-5:])}: content differs from the manifest" in log
    assert "resuming from" in log
    assert lives.bits(work, stage) == expected


def test_other_params_start_anew_and_say_so(work: Path) -> None:
    params = work / "params.yaml"
    given = params.read_text()
    params.write_text(given.replace("learning_rate: 0.01", "learning_rate: 0.02"))
    try:
        assert preloaded.ended(lives.start(work, "sft")) == 0, lives.said(work)
    finally:
        params.write_text(given)
    log = (work / "logs/sft.log").read_text()
    assert "resuming from" not in log
    assert "starting anew: 1 in checkpoints/sft are of other params, data or code" in log


def test_a_manifest_names_every_file(work: Path) -> None:
    newest = lives.checkpoints(work, "ppo")[-1]
    listed = set(json.loads((newest / checkpoints.MANIFEST).read_text())) - {checkpoints.PLACE}
    assert listed == {file.name for file in newest.iterdir()} - {checkpoints.MANIFEST}
