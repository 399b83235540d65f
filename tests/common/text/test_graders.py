r"""Graders against answers judged by hand: sentences, sums, boxes, choices; English and Chinese."""

import time
from fractions import Fraction

import pytest

from stages.common.text import graders
from stages.common.text.graders import Grader


@pytest.mark.parametrize(
    ("grader", "answer", "reference"),
    [
        ("exact", "**Paris**", "Paris"),
        ("exact", "−3.", "-3"),
        ("contains", "The capital of France is Paris.", "Paris"),
        ("contains", "Paris, the City of Light.", "paris."),
        ("contains", "法国的首都是巴黎。", "巴黎"),
        ("contains", "It was New  York!", "New York"),
        ("contains", "The answer is 1,000.", "1000"),
        ("contains", "🙂", "🙂"),
        ("number", "The answer is 42.", "42"),
        ("number", "The answer is 42, because 6 * 7 = 42 and 5 + 1 = 6.", "42"),
        ("number", "6 apples, then 36 more. So he has 42 apples.", "42"),
        ("number", "So the answer is 5 + 3 = 8.", "8"),
        ("number", "**Answer:** $1,234.50", "1234.5"),
        ("number", "He pays $18 a day.\n#### 18", "She sells 9 * 2 = $18.\n#### 18"),
        ("number", "First answer: 5. No, the final answer is 8.", "8"),
        ("number", "So \\boxed{42}, and not 43.", "42"),
        ("number", "答案是４２。", "42"),
        ("number", "答案：一共3万人", "30000"),
        ("number", "It is 1.5 million", "1500000"),
        ("number", "x = −3", "-3"),
        ("number", "10-4 leaves 6", "6"),
        ("number", "It falls by 3/4.", "0.75"),
        ("number", "about 1e3", "1000"),
        ("number", "20%", "20"),
        ("number", "1{,}000", "1000"),
        ("number", "The answer is:\n\n42", "42.0"),
        ("boxed", "The answer is \\boxed{42}.", "42"),
        ("boxed", "Thus $\\boxed{\\frac{1}{2}}$", "\\dfrac{1}{2}"),
        ("boxed", "\\boxed{\\sqrt{\\frac{a}{b}}}", "So \\boxed{\\sqrt{\\frac{a}{b}}}."),
        ("boxed", "\\boxed{1}, no: \\boxed{x^{2}+1}", "x^{2} + 1"),
        ("boxed", "\\boxed{x = 5}", "5"),
        ("boxed", "\\boxed{5\\text{ cm}}", "5"),
        ("boxed", "\\boxed{1,000}", "1000"),
        ("boxed", "\\boxed{\\text{Yes}}", "yes"),
        ("boxed", "\\boxed 7", "7"),
        ("boxed", "\\boxed{\\{1,2\\}}", "\\{1, 2\\}"),
        ("boxed", "\\boxed{42} and then \\boxed{4", "42"),
        ("choice", "B", "B"),
        ("choice", "(b)", "B"),
        ("choice", "**B**", "(B)"),
        ("choice", "B. Paris", "B"),
        ("choice", "B.巴黎", "B"),
        ("choice", "A good look shows that the answer is (C).", "C"),
        ("choice", "The correct answer is **D**, since A and B are wrong.", "D"),
        ("choice", "答案是B。", "B"),
        ("choice", "选项A错误，选项C错误，因此选Ｂ。", "B"),
        ("choice", "\\boxed{\\text{C}}", "C"),
        ("choice", "I think it is C", "C"),
        ("choice", "D\n\nBecause of A.", "D"),
    ],
)
def test_these_are_right(grader: Grader, answer: str, reference: str) -> None:
    assert graders.right(grader, answer, reference)


@pytest.mark.parametrize(
    ("grader", "answer", "reference"),
    [
        ("exact", "The capital of France is Paris.", "Paris"),
        ("exact", "-3", "3"),
        ("contains", "Parisian", "Paris"),
        ("contains", "", "Paris"),
        ("contains", "", "?"),
        ("contains", "It is 3.42", "42"),
        ("contains", "It is 142", "42"),
        ("number", "", "42"),
        ("number", "The answer is forty-two.", "42"),
        ("number", "42 or 43", "42"),
        ("number", "H2O", "2"),
        ("number", "10²", "102"),
        ("number", "3/2", "1/2"),
        ("number", "-3", "3"),
        ("number", "1/0", "1"),
        ("boxed", "The answer is 42.", "42"),
        ("boxed", "\\boxed{42} or \\boxed{43}", "42"),
        ("boxed", "\\boxed{}", "42"),
        ("boxed", "\\boxed{-3}", "3"),
        ("boxed", "\\boxed{X}", "x"),
        ("choice", "A or B", "A"),
        ("choice", "A cat sat there.", "A"),
        ("choice", "E.g. a cat", "E"),
        ("choice", "", "A"),
        ("choice", "The answer is Berlin.", "B"),
        ("choice", "Both A and C", "C"),
    ],
)
def test_these_are_wrong(grader: Grader, answer: str, reference: str) -> None:
    assert not graders.right(grader, answer, reference)


def test_the_numbers_of_a_text_in_order() -> None:
    found = graders.numbers("From -1.5 to 2,500: 3/4, 12,34 and 7km; 2e-2")
    assert found == [Fraction(-3, 2), 2500, Fraction(3, 4), 12, 34, 7, Fraction(1, 50)]


@pytest.mark.parametrize(
    ("grader", "reference", "what"),
    [
        ("number", "Paris", "no number"),
        ("choice", "Paris", "letter"),
        ("number", "42 apples", ""),
        ("choice", "(B) Paris", ""),
        ("boxed", "x", ""),
        ("judge", "Paris", ""),
    ],
)
def test_a_reference_that_no_answer_can_meet_is_named(grader: Grader, reference: str, what: str) -> None:
    found = graders.fault(grader, reference)
    assert what in found and bool(found) == bool(what)


@pytest.mark.parametrize(
    "text",
    ["\\boxed{" * 3_000, "1+" * 10_000, "9" * 100_000, "answer " * 5_000, "(" * 20_000, "1e999", ",." * 10_000],
    ids=["open boxes", "sum", "digits", "marks", "brackets", "power", "commas"],
)
def test_an_answer_that_loops_is_judged_in_a_moment(text: str) -> None:
    began = time.process_time()
    for rule in graders.RULES.values():
        rule(text, "4")
    assert time.process_time() - began < 5
