"""Pairs from ranked answers: which, in which tokens, and what is left out."""

import logging
from pathlib import Path
from typing import Any

import pytest

from stages.common.core import chat, records
from stages.common.pairs import pair_dataset, preference_pairs
from stages.common.pairs.preference_pairs import PairParams
from stages.common.runtime.errors import DataError
from stages.common.text.parquet_writer import write as write_records
from tests.support.tiny import comparison, make_tokenizer


@pytest.mark.parametrize(
    ("ranks", "best", "every"),
    [
        ([2, 1, 3], [(1, 0), (1, 2)], [(0, 2), (1, 0), (1, 2)]),
        ([1, 1, 2], [(0, 2), (1, 2)], [(0, 2), (1, 2)]),
        ([3, 2, 2, 5], [(1, 0), (1, 3), (2, 0), (2, 3)], [(0, 3), (1, 0), (1, 3), (2, 0), (2, 3)]),
        ([1, 1, 1], [], []),
        ([1], [], []),
        ([], [], []),
    ],
)
def test_pairs_worked_by_hand(ranks: list[int], best: list[Any], every: list[Any]) -> None:
    assert preference_pairs.pairs(ranks, "best") == best
    assert preference_pairs.pairs(ranks, "all") == every


def test_an_answer_is_encoded_as_sft_and_decoding_see_it() -> None:
    tokenizer = make_tokenizer()
    messages = [records.message("user", "What is the capital of land 3?")]
    prompt, answer = preference_pairs.encode(tokenizer, messages, "town 21.")
    assert prompt == chat.encode_prompt(tokenizer, messages)
    assert tokenizer.decode(answer) == "town 21.<|im_end|>"
    whole = chat.encode(tokenizer, [*messages, records.message("assistant", "town 21.")])
    assert prompt + answer == whole.input_ids
    assert [0] * len(prompt) + [1] * len(answer) == whole.assistant_mask


BEST = PairParams(max_tokens=120)


def tokenised(folder: Path, rows: list[records.Record], settings: PairParams = BEST) -> list[dict[str, Any]]:
    write_records(rows, folder / "train", "comparisons")
    return list(pair_dataset.tokenise(make_tokenizer(), [folder], "train", settings))


def test_every_pair_is_there_better_answer_first(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    rows = tokenised(tmp_path, [comparison(1, ["town 9.", "town 7.", "..."], [2, 1, 3])])
    assert [(tokenizer.decode(row["chosen_ids"]), tokenizer.decode(row["rejected_ids"])) for row in rows] == [
        ("town 7.<|im_end|>", "town 9.<|im_end|>"),
        ("town 7.<|im_end|>", "...<|im_end|>"),
    ]
    assert all(row["length"] == len(row["prompt_ids"]) + len(row["chosen_ids"]) for row in rows[1:])


def test_at_most_so_many_pairs_of_a_comparison_and_always_the_same(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    answers = ["town 7.", "town 1.", "town 2.", "town 3.", "town 4."]
    found = {}
    for most in (1, 3, 9):
        rows = [comparison(n, [f"{answer} {n}" for answer in answers], [1, 2, 3, 4, 4]) for n in range(6)]
        made = tokenised(tmp_path, rows, PairParams(max_tokens=120, most_pairs=most))
        found[most] = [tokenizer.decode(row["rejected_ids"]) for row in made]
        assert all("town 7." in tokenizer.decode(row["chosen_ids"]) for row in made)
    assert [len(rows) for rows in found.values()] == [6, 18, 24]
    assert set(found[1]) < set(found[3]) < set(found[9])
    assert len({text[:7] for text in found[1]}) > 1  # not always the answer that stands first


def test_folders_are_read_together(tmp_path: Path) -> None:
    for number, name in enumerate(("given", "round")):
        write_records([comparison(number, ["town 1.", "..."], [1, 2])], tmp_path / name / "train", "comparisons")
    folders = [tmp_path / "given", tmp_path / "round"]
    assert len(pair_dataset.tokenise(make_tokenizer(), folders, "train", BEST)) == 2
    named = preference_pairs.inputs(model=tmp_path, comparisons=folders)
    assert named == {"model": tmp_path, "comparisons-1": folders[0], "comparisons-2": folders[1]}


def test_a_prompt_held_out_in_one_folder_is_trained_on_in_none(tmp_path: Path) -> None:
    for folder, split, number in (("people", "train", 1), ("people", "validation", 2), ("r1", "train", 2)):
        write_records([comparison(number, ["town 1.", "..."], [1, 2])], tmp_path / folder / split, "comparisons")
    write_records([], tmp_path / "r1/validation", "comparisons")
    folders = [tmp_path / "people", tmp_path / "r1"]
    tokenizer = make_tokenizer()
    train, validation = pair_dataset.both_splits(tokenizer, folders, BEST)
    asked = [tokenizer.decode(row["prompt_ids"]) for row in (*train, *validation)]
    assert ["land 1?" in asked[0], "land 2?" in asked[1], len(asked)] == [True, True, 2]


def test_what_teaches_nothing_is_left_out_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "lathe")
    rows = [
        comparison(1, ["town 7.", "..."], [1, 2]),
        comparison(2, ["town 7.", "..."], [1, 1]),
        comparison(3, ["town 7."], [1]),
        comparison(4, ["town 7.", "town 7."], [1, 2]),
        comparison(5, ["town 7.", "long " * 200], [1, 2]),
    ]
    assert len(tokenised(tmp_path, rows)) == 1
    counted = "1 all tied, 1 pairs longer than 120 tokens, 1 pairs of equal answers, 1 with a single answer"
    assert caplog.messages[-1] == f"train: 1 pairs of 5 comparisons; left out: {counted}"


def test_no_pair_at_all_is_an_error_that_says_why(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no pair to learn from: 0 pairs of 1 comparisons; left out: 1 all tied"):
        tokenised(tmp_path, [comparison(1, ["a", "b"], [1, 1])])
    with pytest.raises(DataError, match="no pair to learn from: 0 pairs of 0 comparisons"):
        tokenised(tmp_path / "empty", [])


def test_collate_worked_by_hand() -> None:
    rows = [
        {"prompt_ids": [5, 6], "chosen_ids": [7], "rejected_ids": [8, 9]},
        {"prompt_ids": [5], "chosen_ids": [1], "rejected_ids": [2]},
    ]
    batch = preference_pairs.collate(rows)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 0], [5, 1, 0, 0], [5, 6, 8, 9], [5, 2, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 0, 0]]
    none = -100
    assert batch["answers"].tolist() == [
        [none, none, 7, none],
        [none, 1, none, none],
        [none, none, 8, 9],
        [none, 2, none, none],
    ]
