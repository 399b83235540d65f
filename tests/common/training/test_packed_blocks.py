"""Blocks of tokens: conversations whole, and two sources in a share."""

from pathlib import Path

import numpy
import pytest

from stages import ppo
from stages.common.core import chat
from stages.common.text.parquet_writer import write as write_records
from stages.common.training import packed_blocks
from stages.common.training.packed_blocks import Blocks, Mixed
from tests.support.tiny import TEXTS, conversation, make_tokenizer


def of_numbers(path: Path, start: int, count: int) -> Blocks:
    numpy.arange(start, start + 2 * count, dtype=numpy.uint32).tofile(path)
    return Blocks(path, 2)


def firsts(mixed: Mixed) -> list[int]:
    return [int(mixed[index]["input_ids"][0]) for index in range(len(mixed))]


def test_blocks_of_two_sources_are_so_many_of_each(tmp_path: Path) -> None:
    """A quarter of four blocks: three of text, one of talk. Half: talk in turn, and again."""
    text, talk = of_numbers(tmp_path / "text", 0, 3), of_numbers(tmp_path / "talk", 100, 2)
    assert firsts(Mixed(text, talk, 0.25)) == [0, 2, 4, 100]
    assert firsts(Mixed(text, talk, 0.5)) == [0, 2, 4, 100, 102, 100]


def test_ppo_reads_conversations_whole_beside_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a share of them it reads documents alone."""
    monkeypatch.chdir(tmp_path)
    tokenizer, talk = make_tokenizer(), conversation(3)
    rows = [{"id": f"t:{n}", "source": "t", "text": text} for n, text in enumerate(TEXTS)]
    write_records(rows, tmp_path / "documents/train", "documents")
    write_records([talk] * 4, tmp_path / "conversations/train", "conversations")
    places = (tmp_path / "documents", tmp_path / "conversations")
    settings = ppo.Params(training={}, ptx_weight=0.1, ptx_block_tokens=8)
    alone = ppo.blocks(settings, tokenizer, *places)
    assert isinstance(alone, Blocks)
    both = ppo.blocks(settings.model_copy(update={"ptx_conversations": 0.5}), tokenizer, *places)
    assert len(both) == 2 * len(alone)
    read = [int(token) for at in range(len(alone), len(both)) for token in both[at]["input_ids"]]
    whole = [*chat.encode(tokenizer, talk["messages"]).input_ids, chat.end_of_document(tokenizer)]
    assert read[: len(whole)] == whole
    assert packed_blocks.documents(tokenizer, places[0] / "train", 8).array.tolist() == alone.array.tolist()
