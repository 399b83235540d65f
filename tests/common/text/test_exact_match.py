"""What counts as the same answer."""

import pytest

from stages.common.text.exact_match import matches


@pytest.mark.parametrize(
    ("answer", "reference"),
    [("Paris.", "paris"), (" 北京。", "北京"), ("１２", "12"), ('"New  York"!', "new york"), ("H2O", "h2o")],
)
def test_case_width_space_and_outer_marks_do_not_count(answer: str, reference: str) -> None:
    assert matches(answer, reference)


@pytest.mark.parametrize(("answer", "reference"), [("Paris, of course.", "Paris"), ("", "Paris"), ("3.5", "35")])
def test_anything_else_counts(answer: str, reference: str) -> None:
    assert not matches(answer, reference)
