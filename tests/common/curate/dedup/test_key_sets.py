"""Keys that several tasks wrote are found again on disk, and only they."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.common.curate.dedup import key_sets


@pytest.mark.parametrize("at_once", [7, 100, 2**22])
def test_what_was_written_is_found_however_many_keys_are_merged_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(key_sets, "KEYS_AT_ONCE", at_once)
    rng = np.random.default_rng(1)
    parts = [rng.integers(0, 2**64, size, dtype=np.uint64) for size in (500, 0, 30)]
    parts[2][:10] = parts[0][:10]
    for task, part in enumerate(parts):
        key_sets.write(tmp_path, task, part.tolist())
    key_sets.write(tmp_path, 2, parts[2].tolist())  # a task that is run again
    file = key_sets.merge(tmp_path)
    everything = np.unique(np.concatenate(parts))
    assert np.array_equal(np.fromfile(file, "<u8"), everything) and len(everything) == 520
    wanted = np.concatenate([parts[2], rng.integers(0, 2**64, 50, dtype=np.uint64)])
    assert key_sets.contains(key_sets.load(file), wanted).tolist() == [True] * 30 + [False] * 50


@given(st.lists(st.integers(0, 2**64 - 1)), st.lists(st.integers(0, 2**64 - 1)))
def test_membership_is_that_of_a_set(inside: list[int], asked: list[int]) -> None:
    keys = np.unique(np.array(inside, np.uint64))
    found = key_sets.contains(keys, np.array(asked + inside, np.uint64))
    assert found.tolist() == [key in set(inside) for key in asked + inside]


def test_no_keys_are_an_empty_file(tmp_path: Path) -> None:
    key_sets.write(tmp_path, 0, [])
    file = key_sets.merge(tmp_path)
    assert file.read_bytes() == b""
    assert not key_sets.contains(key_sets.load(file), np.array([0, 5], np.uint64)).any()
