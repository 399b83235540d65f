"""Tokens on disk: made once, whole or not at all, the same bytes by one process or several, never
made again.
"""

import json
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pytest

from stages.common.core import chat, checkpoints, records
from stages.common.finetuning import conversation_dataset
from stages.common.pairs.preference_pairs import PairParams
from stages.common.runtime.errors import StageError
from stages.common.text.parquet_writer import write as write_records
from stages.common.training import packed_blocks, token_cache
from tests.support.tiny import TEXTS, conversation, make_tokenizer

SCHEMA = pa.schema([("size", pa.int32())])


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_cache, "FOLDER", "tokens")
    monkeypatch.setattr(checkpoints, "ROOT", tmp_path / "checkpoints")


def write_talks(folder: Path, count: int) -> Path:
    write_records([conversation(number, f"town {number}.") for number in range(count)], folder, "conversations")
    return folder


def tokenised(folder: Path, **given: Any) -> list[dict[str, Any]]:
    return list(conversation_dataset.tokenise(make_tokenizer(), folder, **({"max_tokens": 120} | given)))


def never(*_: Any) -> Counter[str]:
    raise AssertionError("tokenised again")


def test_what_was_made_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_talks(tmp_path / "train", 40)
    first = tokenised(folder)
    monkeypatch.setattr(token_cache, "write_part", never)
    assert tokenised(folder) == first
    data = conversation_dataset.tokenise(make_tokenizer(), folder, 120)
    assert [Path(file["filename"]).name for file in data.cache_files] == ["part-00000"]  # mapped, not read
    with pytest.raises(AssertionError, match="tokenised again"):
        tokenised(folder, max_tokens=119)
    write_talks(folder, 41)
    with pytest.raises(AssertionError, match="tokenised again"):
        tokenised(folder)


def test_documents_are_tokenised_once_whatever_the_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = make_tokenizer()
    rows = [{"id": str(number), "source": "t", "text": text} for number, text in enumerate(TEXTS)]
    write_records(rows, tmp_path / "train", "documents")
    first = packed_blocks.documents(tokenizer, tmp_path / "train", 32)
    end = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    whole = [token for text in TEXTS for token in [*tokenizer(text)["input_ids"], end]]
    assert first.array.ravel().tolist() == whole[: len(whole) // 32 * 32]
    monkeypatch.setattr(token_cache, "write_part", never)
    again = packed_blocks.documents(tokenizer, tmp_path / "train", 64)
    assert again.array.ravel().tolist() == whole[: len(whole) // 64 * 64]


def test_every_argument_is_in_the_key(tmp_path: Path) -> None:
    folder = write_talks(tmp_path / "train", 3)
    tokenizer, other = make_tokenizer(), make_tokenizer()
    other.chat_template = (other.chat_template or "") + " "
    given: list[tuple[Any, ...]] = [
        (tokenizer, 120, "drop"),
        (other, 120, "drop"),
        (tokenizer, 121, "drop"),
        (tokenizer, 120, "split_turns"),
        (tokenizer, PairParams(most_pairs=1), frozenset({b"a"})),
        (tokenizer, PairParams(most_pairs=2), frozenset({b"a"})),
        (tokenizer, PairParams(most_pairs=1), frozenset({b"b"})),
    ]
    keys = [token_cache.key(partial(conversation_dataset.rows, *one), SCHEMA, [folder]) for one in given]
    assert len(set(keys)) == len(given)
    assert token_cache.key(partial(conversation_dataset.rows, *given[0]), SCHEMA, [folder]) == keys[0]
    with pytest.raises(TypeError):
        token_cache.key(partial(conversation_dataset.rows, tmp_path), SCHEMA, [folder])


def test_several_processes_write_the_same_bytes_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_talks(tmp_path / "train", 4_500)  # three row groups
    limit = len(chat.encode(make_tokenizer(), conversation(1_234, "town 1234.")["messages"]).input_ids) - 1
    alone = tokenised(folder, max_tokens=limit)
    (one,) = (checkpoints.ROOT / "tokens").glob("tokens-*[!k]")
    counts = json.loads((one / token_cache.COUNTS).read_text())
    assert counts["too long"] > 0
    monkeypatch.setattr(checkpoints, "ROOT", tmp_path / "again")
    monkeypatch.setattr(token_cache, "PART_BYTES", 1)
    monkeypatch.setattr(token_cache, "PROCESS_BYTES", 1)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(token_cache, "write_part", never)  # here; the processes have their own
    assert tokenised(folder, max_tokens=limit) == alone
    (other,) = (checkpoints.ROOT / "tokens").glob("tokens-*[!k]")
    assert json.loads((other / token_cache.COUNTS).read_text()) == counts
    assert len(list(other.glob("part-*"))) == 3


def test_a_changed_byte_is_found_and_the_rows_are_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_talks(tmp_path / "train", 5)
    first = tokenised(folder)
    (part,) = (checkpoints.ROOT / "tokens").rglob("part-*")
    content = bytearray(part.read_bytes())
    content[-200] ^= 1
    part.write_bytes(content)
    assert tokenised(folder) == first
    assert "tokens are not usable and are made again" in caplog.text


def test_a_making_that_failed_leaves_nothing_that_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_talks(tmp_path / "train", 5)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "seal", never)
        with pytest.raises(AssertionError):
            tokenised(folder)
    assert not list((checkpoints.ROOT / "tokens").glob("tokens-*[!k]"))
    assert len(tokenised(folder)) == 5
    assert not list((checkpoints.ROOT / "tokens").glob(".tokens-*"))


def test_of_several_at_once_one_makes_the_rows_and_the_others_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "lathe")
    folder = write_talks(tmp_path / "train", 5)
    made, write_part = [], token_cache.write_part

    def slow(*given: Any) -> Counter[str]:
        made.append(given)
        until = time.monotonic() + 120
        while caplog.text.count("waiting for process") < 2 and time.monotonic() < until:
            time.sleep(0.05)
        return write_part(*given)

    monkeypatch.setattr(token_cache, "write_part", slow)
    found: list[int] = []
    ranks = [threading.Thread(target=lambda: found.append(len(tokenised(folder)))) for _ in range(3)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    assert (found, len(made)) == ([5, 5, 5], 1)
    assert f"waiting for process {os.getpid()}, which tokenises the same" in caplog.text


def dies(comparisons: Iterable[records.Record], counts: Counter[str]) -> Iterator[dict[str, int]]:
    list(comparisons)
    os.kill(os.getpid(), signal.SIGKILL)
    yield {}


def test_a_process_that_is_killed_is_an_error_that_says_so(tmp_path: Path) -> None:
    jobs: list[Any] = [([], tmp_path / "part-0"), ([], tmp_path / "part-1")]
    with pytest.raises(StageError, match="a process that tokenises was killed"):
        token_cache._in_processes(2, partial(dies), SCHEMA, jobs)
    assert not multiprocessing.active_children()


def sleeps(comparisons: Iterable[records.Record], counts: Counter[str]) -> Iterator[dict[str, int]]:
    time.sleep(600)
    yield {}


def hang(folder: Path) -> None:
    """Run in a process of its own: two workers that would go on for ten minutes."""
    token_cache._in_processes(2, partial(sleeps), SCHEMA, [([], folder / "part-0"), ([], folder / "part-1")])


def test_the_processes_end_with_the_stage_that_is_killed(tmp_path: Path) -> None:
    code = f"from pathlib import Path; from {__name__} import hang; hang(Path({str(tmp_path)!r}))"
    with subprocess.Popen([sys.executable, "-c", code]) as stage:
        while not (tmp_path / "part-1").exists() and stage.poll() is None:
            time.sleep(0.2)
        workers = psutil.Process(stage.pid).children()
        stage.kill()
    assert len(workers) >= 2
    until = time.monotonic() + 120
    while alive := [one for one in workers if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]:
        assert time.monotonic() < until, alive
        time.sleep(0.2)
