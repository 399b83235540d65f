"""What counts as a leaked test question: the rule by cases, against a plain search, and on the demo
world.
"""

import json
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.common.core.records import Record, message
from stages.common.curate.filters.contamination import Contamination, Index, find, texts
from stages.common.text.units import units
from tests.support import demo_world
from tests.support.real_data import REAL, needs_real_data

SETTINGS = Contamination()
LONG = " ".join(first + second for first in "vwxyz" for second in "abcdefgh")  # 40 words


def index(*asked: str, settings: Contamination = SETTINGS) -> Index:
    rows = [{"id": f"q{number}", "messages": [message("user", text)]} for number, text in enumerate(asked)]
    return Index.build(rows, settings)


def document(text: str) -> Record:
    return {"id": "d", "text": text}


def talk(*turns: str) -> Record:
    return {"messages": [message(("user", "assistant")[number % 2], text) for number, text in enumerate(turns)]}


@pytest.mark.parametrize(
    ("question", "text", "leaks"),
    [
        ("What is the capital of France?", "They asked: what is the CAPITAL of France  and left.", True),
        ("What is the capital of France?", "What is the capital of Spain? Of France?", False),
        ("法国的首都是哪里？", "有人在论坛上问：法国的首都是哪里？最好的回复是：巴黎。", True),
        ("法国的首都是哪里？", "德国的首都是哪里？", False),
        ("Which planet is number 3?", "Which planet is number 3?", True),
        ("Which planet is number 3?", "Which planet is number 33?", False),
        # 15 units: of its three 13-grams the template has two, and only all three are the question
        ("a b c d e f g h i j k l m n mars", "a b c d e f g h i j k l m n", False),
        ("a b c d e f g h i j k l m n mars", "x a b c d e f g h i j k l m n mars y", True),
        ("a1 a2 a3 mars", "x a1 a2 a3 mars y", True),
        # 40 units, 28 13-grams: half of them are a leak
        (LONG, " ".join(LONG.split()[:26]), True),
        (LONG, " ".join(LONG.split()[:25]), False),
        (LONG, LONG.replace("xe", "another"), True),
        (LONG, LONG.replace("wf", "another").replace("yd", "another"), False),
    ],
)
def test_a_question_leaks_into_a_document(question: str, text: str, leaks: bool) -> None:
    assert find(index(question), "documents", document(text)) == ("q0" if leaks else "")


def test_a_very_short_question_leaks_as_a_whole_turn_or_line_only() -> None:
    hello = index("Hello!")
    assert find(hello, "conversations", talk("hello", "Hi.")) == "q0"
    assert find(hello, "conversations", talk("Hello, what is the capital of France?", "Hello!")) == ""
    assert find(hello, "conversations", talk("Hi.\nHello.", "Hi.")) == ""
    assert find(hello, "documents", document("They say:\nHello!\nAnd go.")) == "q0"
    assert find(hello, "documents", document("They say hello and go.")) == ""
    assert find(index("Hello!", settings=Contamination(shortest=1)), "documents", document("They say hello.")) == "q0"


def test_all_that_is_said_is_searched_and_only_the_last_turn_is_the_question() -> None:
    asked = "What is the capital of France?"
    here = index(asked)
    assert find(here, "prompts", talk(asked)) == "q0"
    assert find(here, "conversations", talk("Quote the test.", f"It reads: {asked} Paris.")) == "q0"
    comparison = {"prompt": talk("Quote the test.")["messages"], "responses": ["No.", f"It reads: {asked}"]}
    assert find(here, "comparisons", comparison) == "q0"
    assert find(here, "comparisons", {**comparison, "responses": ["No."]}) == ""
    few_shot = Index.build([{"id": "q", **talk("Name the capital of Spain, please.", "Madrid.", asked)}], SETTINGS)
    assert find(few_shot, "conversations", talk("Name the capital of Spain, please.", "Madrid.")) == ""
    assert find(few_shot, "conversations", talk(asked, "Paris.")) == "q"
    split = talk("What is the capital", "of France?")
    assert find(here, "conversations", split) == ""


def test_what_long_questions_share_gives_none_of_them_away() -> None:
    preamble = " ".join("rule" + letter for letter in "abcdefghijklmnopqrstuvwxyz")
    both = index(f"{preamble} Name the capital of France.", f"{preamble} Name the largest planet we know of.")
    assert find(both, "documents", document(preamble)) == ""
    assert find(both, "documents", document(f"{preamble} Name the capital of France.")) == "q0"
    assert find(both, "documents", document(f"{preamble} Name the largest planet we know of.")) == "q1"


def test_the_first_of_two_questions_is_named() -> None:
    two = index("Who wrote that long book?", "who wrote: that long book", "Who painted that old picture?")
    assert two.ids == ["q0", "q2"]
    assert find(two, "documents", document("Who painted that old picture? Who wrote that long book?")) == "q0"


def test_no_questions_find_nothing() -> None:
    assert find(index(), "documents", document("What is the capital of France?")) == ""
    assert find(index("?!"), "documents", document("?!")) == ""


def test_a_saved_and_a_pickled_index_find_the_same(tmp_path: Path) -> None:
    here = index("Hello!", "What is the capital of France?", LONG)
    here.save(tmp_path / "index.npz")
    for copy in (Index.load(tmp_path / "index.npz"), pickle.loads(pickle.dumps(here))):
        for text in ("Hello!", "what is the capital of France", LONG, "nothing"):
            assert find(copy, "documents", document(text)) == find(here, "documents", document(text))


WORDS = st.lists(st.sampled_from("ab"), min_size=4, max_size=25).map(" ".join)


@settings(deadline=None)
@given(st.lists(WORDS, min_size=1, max_size=8), st.lists(st.sampled_from("ab"), max_size=60).map(" ".join))
def test_a_search_for_every_n_gram_of_every_question_finds_the_same(asked: list[str], text: str) -> None:
    def grams(words: list[str], length: int) -> set[tuple[str, ...]]:
        return {tuple(words[start : start + length]) for start in range(len(words) - length + 1)}

    there = units(text)
    leaked = [
        number
        for number, question in enumerate(asked)
        for length in [min(13, len(units(question)))]
        if grams(units(question), length) <= grams(there, length)
    ]
    first = next((number for number in leaked), None)
    assert find(index(*asked), "documents", document(text)) == ("" if first is None else f"q{first}")


def test_a_text_longer_than_the_powers_at_hand_is_searched_to_its_end() -> None:
    filler = " ".join(f"filler {number}" for number in range(4_500))
    here = index("What is the capital of France?", LONG)
    assert find(here, "documents", document(f"{filler} what is the capital of france")) == "q0"
    assert find(here, "documents", document(f"{filler} {LONG} {filler}")) == "q1"
    assert find(here, "documents", document(filler)) == ""


@pytest.mark.parametrize("seed", [1, 2])
def test_the_demos_leaks_are_all_found_and_nothing_else(seed: int) -> None:
    world = demo_world.build(seed)
    here = Index.build([one.record for one in world if one.shape == "questions"], SETTINGS)
    found: Counter[str] = Counter()
    for one in world:
        if one.shape != "questions" and find(here, one.shape, one.record):
            found[one.fault] += 1
    assert found == {"leaked_document": 20, "leaked_conversation": 20}


@needs_real_data
def test_real_questions_are_found_where_they_stand_and_only_there() -> None:
    roles = {"human": "user", "gpt": "assistant"}
    with (REAL / "medicalgpt/medical_sft_1K_format.jsonl").open(encoding="utf-8") as lines:
        talks = [json.loads(line)["conversations"] for line in lines]
    rows = [
        {"id": str(number), "messages": [message(roles[turn["from"]], turn["value"]) for turn in turns]}
        for number, turns in enumerate(talks)
    ]
    chosen = np.random.default_rng(1).choice(len(rows), 50, replace=False)
    asked = {rows[n]["id"]: rows[n]["messages"][0]["content"] for n in chosen}
    here = Index.build([{"id": name, "messages": [message("user", text)]} for name, text in asked.items()], SETTINGS)
    flagged = {row["id"] for row in rows if find(here, "conversations", row)}
    plain = {
        row["id"]
        for row in rows
        for _, text in texts("conversations", row)
        if any(f" {' '.join(units(question))} " in f" {' '.join(units(text))} " for question in asked.values())
    }
    assert plain >= set(asked) and flagged >= plain
    assert len(flagged - plain) <= 2
