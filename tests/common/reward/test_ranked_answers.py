"""Comparisons as rows of tokens: what is left out is counted, and a batch holds every
answer once.
"""

from pathlib import Path

import pytest

from stages.common.core import chat, records
from stages.common.pairs import pair_dataset
from stages.common.reward import batches, ranked_answers
from stages.common.runtime.errors import DataError
from stages.common.text.parquet_writer import write as write_records
from tests.support.tiny import comparison, make_tokenizer

GOOD = comparison(1, ["town 7.", "...", "land 3"], [1, 3, 2])


def read(folder: Path, *rows: records.Record, limit: int = 100, without: frozenset[bytes] = frozenset()):  # type: ignore[no-untyped-def]  # the pair of `tokenise`
    write_records(rows, folder / "train", "comparisons")
    return ranked_answers.tokenise(make_tokenizer(), [folder], "train", limit, without)


def test_every_answer_is_one_row_that_ends_where_it_is_scored(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    (row,), _ = read(tmp_path, GOOD)
    for tokens, answer, length in zip(row["rows"], GOOD["responses"], row["lengths"], strict=True):
        talk = [*GOOD["prompt"], records.message("assistant", answer)]
        assert tokens == chat.encode(tokenizer, talk).input_ids
        assert tokens[-1] == chat.end_of_turn(tokenizer)
        assert tokenizer.decode(tokens[-length:]) == answer + chat.END_OF_TURN
    assert row["length"] == max(map(len, row["rows"]))
    asked = len(chat.encode_prompt(tokenizer, GOOD["prompt"]))
    assert row["width"] == asked + sum(row["lengths"])  # the prompt once, with all its answers


def test_what_gives_no_pair_is_left_out_and_counted(tmp_path: Path) -> None:
    rows, counts = read(
        tmp_path,
        GOOD,
        comparison(2, ["town 14."], [1]),
        comparison(3, ["one", "two", "three"], [1, 1, 1]),
        comparison(4, ["town 28.", "...", "long " * 60], [1, 2, 3]),
        comparison(5, ["town 35.", "long " * 60], [1, 2]),
    )
    assert [row["ranks"] for row in rows] == [[1, 3, 2], [1, 2]]
    assert counts == {
        "comparisons": 5,
        "with a single answer": 1,
        "without two ranks": 1,
        "answers too long": 2,
        "without two ranks that fit": 1,
    }


@pytest.mark.parametrize("rows", [[], [comparison(1, ["a", "b"], [1, 1])], [comparison(1, ["a"], [1])]])
def test_nothing_to_learn_from_is_an_error_that_says_why(tmp_path: Path, rows: list[records.Record]) -> None:
    with pytest.raises(DataError, match=f"0 of {len(rows)} comparisons"):
        read(tmp_path, *rows)


def test_a_prompt_held_out_in_one_folder_is_trained_on_in_none(tmp_path: Path) -> None:
    for folder, split, number in (("people", "train", 1), ("people", "validation", 2), ("r1", "train", 2)):
        write_records([comparison(number, ["a", "b"], [1, 2])], tmp_path / folder / split, "comparisons")
    write_records([], tmp_path / "r1/validation", "comparisons")
    folders = [tmp_path / "people", tmp_path / "r1"]
    held_out = pair_dataset.held_out(folders)
    rows, counts = ranked_answers.tokenise(make_tokenizer(), folders, "train", 100, held_out)
    assert len(rows) == 1
    assert counts["held out elsewhere"] == 1


def test_a_batch_holds_every_answer_once_and_pairs_point_at_their_rows() -> None:
    rows = [{"rows": [[1], [2, 2], [3]], "ranks": [2, 1, 2]}, {"rows": [[4, 4, 4], [5]], "ranks": [1, 2]}]
    made = batches.Collator(9)(rows)
    assert made["input_ids"].tolist() == [[1, 9, 9], [2, 2, 9], [3, 9, 9], [4, 4, 4], [5, 9, 9]]
    assert made["attention_mask"].sum(dim=1).tolist() == [1, 2, 1, 3, 1]
    assert list(zip(made["better"].tolist(), made["worse"].tolist(), strict=True)) == [(1, 0), (1, 2), (3, 4)]
    assert made["weight"].tolist() == [0.25, 0.25, 0.5]
