"""A conversation is a near duplicate when what is asked and what is answered are each alike: a
passage or a system prompt that many share makes none.
"""

import random
from pathlib import Path

import numpy as np
import pytest

from stages.common.core.records import Record, message
from stages.common.curate.dedup import shingles
from stages.common.curate.dedup.dedup_keys import SKETCH_SIZE
from tests.test_curate import asked, dropped, kept, run

WORDS = [f"word{number}" for number in range(400)]
PASSAGE = " ".join(random.Random(1).choices(WORDS, k=150))
ANSWERS = [" ".join(random.Random(number).choices(WORDS, k=40)) for number in range(20)]
QUESTIONS = [f"When was number {number} built, and who paid for it?" for number in range(8)]


def talks(*pairs: tuple[str, str], system: str = "") -> list[Record]:
    start = [message("system", system)] if system else []
    return [{"messages": [*start, *asked(question, answer)]} for question, answer in pairs]


def test_questions_about_one_passage_all_stay(tmp_path: Path) -> None:
    about = [(f"{question}\n{PASSAGE}", f"In {1600 + number}.") for number, question in enumerate(QUESTIONS)]
    long = [(f"{question} {PASSAGE}", answer) for question, answer in zip(QUESTIONS, ANSWERS, strict=False)]
    report = run(tmp_path, conversations=talks(*about, *long))
    assert report["conversations"]["dropped"] == {}


def test_conversations_under_one_system_prompt_all_stay(tmp_path: Path) -> None:
    short = [(question, f"It was {number}.") for number, question in enumerate(QUESTIONS)]
    report = run(tmp_path, conversations=talks(*short, system=PASSAGE))
    assert report["conversations"]["dropped"] == {}


def test_what_repeats_question_and_answer_goes_whatever_its_system_prompt(tmp_path: Path) -> None:
    question, answer = f"{QUESTIONS[0]} {ANSWERS[3]}", ANSWERS[5]
    found = talks((question, answer)) + talks((f"{question} Please.", f"{answer} Good luck."), system="Be brief.")
    run(tmp_path, conversations=[*found, *talks((question, ANSWERS[6]), (ANSWERS[7], answer))])
    assert dropped(tmp_path) == {"near_duplicate": ["conversations:2"]} or dropped(tmp_path) == {
        "near_duplicate": ["conversations:1"]
    }
    assert len(kept(tmp_path, "conversations")) == 3


def jaccard(one: str, other: str) -> float:
    sets = shingles.sets([one, other], 3, 5)
    first, second = (set(sets.take(np.array([at])).values & shingles.EVEN) for at in (0, 1))
    return len(first & second) / len(first | second) if first | second else 1.0


def measured(pairs: list[tuple[tuple[str, str], tuple[str, str]]], size: int) -> list[float]:
    def sketch(side: int) -> shingles.Sets:
        parts = [shingles.sets([pair[side][at] for pair in pairs], 3, 5) for at in (0, 1)]
        return shingles.sketches(shingles.sided(*parts), size)

    return shingles.sided_similarities(sketch(0), sketch(1), size).min(axis=1).tolist()


def changed(text: str, share: float, chance: random.Random) -> str:
    return " ".join(chance.choice(WORDS) if chance.random() < share else word for word in text.split())


def test_the_lower_of_both_similarities_counts() -> None:
    chance = random.Random(3)
    texts = [(PASSAGE, ANSWERS[0]), ("", ANSWERS[1]), ("", ""), ("one", "two three"), (ANSWERS[2], ANSWERS[3])]
    pairs = [((a, b), (changed(a, 0.05, chance), changed(b, 0.1, chance))) for a, b in texts]
    pairs += [((PASSAGE, "In 1612."), (PASSAGE, "Orr.")), ((PASSAGE, ""), (PASSAGE, "x"))]
    expected = [min(jaccard(one[0], other[0]), jaccard(one[1], other[1])) for one, other in pairs]
    assert measured(pairs, SKETCH_SIZE) == pytest.approx(expected)
    assert expected[2] == 1.0 and expected[-2:] == [0.0, 0.0]


def test_long_texts_are_measured_by_a_sample_of_either_side() -> None:
    chance = random.Random(4)
    for share in (0.02, 0.06, 0.1):
        long = " ".join(chance.choices(WORDS, k=6_000))
        short = " ".join(chance.choices(WORDS, k=1_500))
        pair = ((long, short), (changed(long, share, chance), changed(short, share / 2, chance)))
        expected = min(jaccard(pair[0][0], pair[1][0]), jaccard(pair[0][1], pair[1][1]))
        assert measured([pair], SKETCH_SIZE)[0] == pytest.approx(expected, abs=0.08)
