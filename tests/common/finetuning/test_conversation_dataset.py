"""Conversations as rows: the loss is on answers, and none longer than allowed gets in, whatever is
done with it.
"""

import logging
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from stages.common.core import chat, records
from stages.common.finetuning import conversation_dataset
from stages.common.finetuning.conversation_dataset import TooLong
from stages.common.runtime.errors import DataError
from stages.common.text.parquet_writer import write as write_records
from tests.support.tiny import conversation, make_tokenizer

LIMIT = 90


def talk(exchanges: int, system: bool = True, longest: int = -1) -> records.Record:
    """A conversation of numbered questions and answers; question `longest` does not fit alone."""
    turns = [records.message("system", "Be short.")] if system else []
    for number in range(exchanges):
        extra = " please" * 40 if number == longest else ""
        turns += [records.message("user", f"Land {number}?{extra}"), records.message("assistant", f"town {number}.")]
    return conversation(1) | {"messages": turns}


def tokenised(folder: Path, rows: list[records.Record], limit: int, too_long: TooLong = "drop") -> list[dict[str, Any]]:
    write_records(rows, folder, "conversations")
    return list(conversation_dataset.tokenise(make_tokenizer(), folder, limit, too_long))


def learnt(row: dict[str, Any]) -> str:
    return make_tokenizer().decode([token for token in row["labels"] if token != -100])


def test_the_answer_is_labelled_and_what_is_too_long_left_out(tmp_path: Path) -> None:
    (row,) = tokenised(tmp_path, [conversation(1), conversation(2, "long " * 200)], 120)
    assert learnt(row) == "town 7.<|im_end|>"


def test_only_too_long_conversations_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"raise sft\.max_tokens"):
        tokenised(tmp_path, [conversation(1)], 5)


@pytest.mark.parametrize("too_long", ["drop", "truncate_left", "split_turns"])
def test_what_fits_is_the_same_row_whatever_becomes_of_the_others(tmp_path: Path, too_long: TooLong) -> None:
    expected = chat.encode(make_tokenizer(), talk(2)["messages"])
    (row,) = tokenised(tmp_path, [talk(2)], LIMIT, too_long)
    assert row["input_ids"] == expected.input_ids
    assert [label != -100 for label in row["labels"]] == [bool(mask) for mask in expected.assistant_mask]


def test_truncate_left_keeps_the_end_with_its_labels(tmp_path: Path) -> None:
    whole = chat.encode(make_tokenizer(), talk(6)["messages"]).input_ids
    assert len(whole) > LIMIT
    (row,) = tokenised(tmp_path, [talk(6)], LIMIT, "truncate_left")
    assert row["input_ids"] == whole[-LIMIT:]
    assert all(label in (-100, token) for label, token in zip(row["labels"], row["input_ids"], strict=True))
    assert learnt(row).endswith("town 4.<|im_end|>town 5.<|im_end|>")


def test_truncate_left_keeps_the_token_that_begins_a_text() -> None:
    tokenizer = make_tokenizer()
    tokenizer.bos_token = chat.END_OF_DOCUMENT
    begin = tokenizer.bos_token_id
    row = {"input_ids": [begin, 5, 6, 7, 8], "labels": [-100, -100, 6, 7, 8]}
    cut = conversation_dataset.truncate_left(tokenizer, row, 3)
    assert cut == [{"input_ids": [begin, 7, 8], "labels": [-100, 7, 8]}]


def test_a_cut_that_leaves_nothing_to_learn_is_left_out_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "lathe")
    asked = talk(2)
    asked["messages"].append(records.message("user", "please " * 200))
    assert len(tokenised(tmp_path, [asked, talk(1)], LIMIT, "truncate_left")) == 1
    said = "1 conversations, 1 cut on their left as longer than 90 tokens, 1 of them lost whole"
    assert caplog.messages[-1].endswith(said)


@pytest.mark.parametrize("system", [True, False])
def test_split_turns_has_every_answer_once_in_pieces_that_fit(tmp_path: Path, system: bool) -> None:
    tokenizer = make_tokenizer()
    rows = tokenised(tmp_path, [talk(12, system)], LIMIT, "split_turns")
    assert len(rows) > 2
    assert all(len(row["input_ids"]) <= LIMIT for row in rows)
    assert "".join(map(learnt, rows)) == "".join(f"town {number}.<|im_end|>" for number in range(12))
    opening = "<|im_start|>system\nBe short.<|im_end|>" if system else "<|im_start|>user"
    assert all(tokenizer.decode(row["input_ids"]).startswith(opening) for row in rows)
    longer = [len(one["input_ids"]) + len(other["input_ids"]) for one, other in pairwise(rows)]
    assert min(longer) > LIMIT  # as many exchanges as fit


def test_split_turns_leaves_out_an_exchange_too_long_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "lathe")
    rows = tokenised(tmp_path, [talk(4, longest=2)], LIMIT, "split_turns")
    assert "".join(map(learnt, rows)) == "town 0.<|im_end|>town 1.<|im_end|>town 3.<|im_end|>"
    assert caplog.messages[-1].endswith("1 split as longer than 90 tokens, 1 exchanges left out as longer alone")


def test_an_exchange_holds_all_turns_up_to_the_next_question() -> None:
    roles = ["assistant", "user", "user", "assistant", "tool", "assistant", "user", "assistant", "user"]
    turns = [records.message(role, str(number)) for number, role in enumerate(roles)]
    found = [[turn["content"] for turn in exchange] for exchange in conversation_dataset.exchanges(turns)]
    assert found == [["0"], ["1", "2", "3", "4", "5"], ["6", "7"]]
