"""A checkpoint is whole or passed over, and belongs to one fingerprint."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from stages.common.core import checkpoints


def make(folder: Path, step: int) -> Path:
    temporary = folder / ".checkpoint-writing" / "x"
    temporary.mkdir(parents=True)
    (temporary / "model.safetensors").write_bytes(bytes(range(100)))
    (temporary / "state.json").write_text(f'{{"step": {step}}}')
    final = folder / f"checkpoint-{step}"
    checkpoints.seal(temporary, final)
    return final


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))


MUTATIONS: dict[str, Callable[[Path], object]] = {
    "missing": lambda file: file.unlink(),
    "empty": lambda file: file.write_bytes(b""),
    "half": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "one byte short": lambda file: file.write_bytes(file.read_bytes()[:-1]),
    "one bit": flip,
}


@pytest.mark.parametrize("mutation", MUTATIONS)
@pytest.mark.parametrize("name", ["model.safetensors", "state.json", "manifest.json"])
def test_a_broken_checkpoint_is_named_and_the_one_before_is_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mutation: str, name: str
) -> None:
    before, newest = make(tmp_path, 9), make(tmp_path, 10)
    assert checkpoints.newest(tmp_path) == newest
    MUTATIONS[mutation](newest / name)
    with caplog.at_level(logging.WARNING, logger="lathe"):
        logging.getLogger("lathe").propagate = True
        assert checkpoints.newest(tmp_path) == before
    assert str(newest) in caplog.text


def test_a_file_that_was_slipped_in_is_refused(tmp_path: Path) -> None:
    checkpoint = make(tmp_path, 1)
    (checkpoint / "optimizer.pt").write_bytes(b"anything")
    assert "optimizer.pt: not in the manifest" in checkpoints.fault(checkpoint)


def test_rotation_keeps_the_newest_by_number_and_clears_leftovers(tmp_path: Path) -> None:
    for step in (9, 10, 100):
        make(tmp_path, step)
    (tmp_path / ".checkpoint-3.replaced").mkdir()
    checkpoints.rotate(tmp_path, keep=2)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-100"]


def test_sealing_twice_replaces(tmp_path: Path) -> None:
    make(tmp_path, 5)
    assert checkpoints.fault(make(tmp_path, 5)) == ""


def test_a_fingerprint_changes_with_params_and_with_one_bit_of_data(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "a").write_bytes(b"0123")
    first = checkpoints.fingerprint("sft", {"seed": 1}, {"data": data})
    assert first == checkpoints.fingerprint("sft", {"seed": 1}, {"data": data})
    assert first != checkpoints.fingerprint("sft", {"seed": 2}, {"data": data})
    flip(data / "a")
    assert first != checkpoints.fingerprint("sft", {"seed": 1}, {"data": data})


@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_each_process_hashes_its_share_of_the_bytes(tmp_path: Path, world: int) -> None:
    for number, size in enumerate((900, 500, 400, 300, 10, 0)):
        (tmp_path / f"shard-{number}").write_bytes(bytes(size))
    shares = [checkpoints.shared(tmp_path, rank, world) for rank in range(world)]
    assert sorted(name for share in shares for name in share) == sorted(file.name for file in tmp_path.iterdir())
    loads = [sum((tmp_path / name).stat().st_size for name in share) for share in shares]
    assert max(loads) <= max(900, 2110 / world + 300)
    together = {name: one for rank in range(world) for name, one in checkpoints.hashes(tmp_path, rank, world).items()}
    assert together == checkpoints.hashes(tmp_path)


def test_one_of_two_processes_finds_what_is_broken(tmp_path: Path) -> None:
    checkpoint = make(tmp_path, 1)
    flip(checkpoint / "model.safetensors")
    found = [checkpoints.fault(checkpoint, rank, 2) for rank in (0, 1)]
    assert sorted(map(bool, found)) == [False, True]
    assert "model.safetensors: content differs" in "".join(found)
