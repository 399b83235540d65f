"""A stage that lacks its data stops with a remedy, or is left out and says why in all that it
should have written.
"""

import json
from pathlib import Path

import pytest

from stages.common.core import left_out
from stages.common.core.left_out import LackError
from stages.common.runtime.errors import DataError, ParamsError


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lacking(work: Path, params: str) -> None:
    (work / "params.yaml").write_text(params)
    with left_out.allowed(
        folders=[work / "model"], tables={work / "x/curve.csv": "step,loss"}, reports=[work / "r.json"]
    ):
        raise LackError("no pair to learn from", where="data/x", remedy="bring ranked answers")


@pytest.mark.parametrize("params", ["validate: {lacking: stop}\n", "validate: {}\n", "sft: {}\n"])
def test_it_stops_with_the_remedy_and_the_key(work: Path, params: str) -> None:
    with pytest.raises(DataError) as caught:
        lacking(work, params)
    assert not isinstance(caught.value, LackError)
    assert str(caught.value) == (
        "data/x: no pair to learn from; bring ranked answers, or leave such stages out (validate.lacking: leave_out)"
    )
    assert not (work / "model").exists()


def test_left_out_it_says_why_in_folder_table_and_report(work: Path) -> None:
    lacking(work, "validate: {lacking: leave_out}\n")
    why = "data/x: no pair to learn from"
    assert left_out.reason(work / "model") == json.loads((work / "r.json").read_text())["left_out"] == why
    assert (work / "x/curve.csv").read_text() == "step,loss\n"
    with pytest.raises(LackError, match="the reward model was left out"):
        left_out.need(work / "model", "the reward model")
    left_out.need(work / "x", "the reward model")


def test_any_other_failure_is_one(work: Path) -> None:
    (work / "params.yaml").write_text("validate: {lacking: leave_out}\n")
    with pytest.raises(DataError, match="corrupt"), left_out.allowed(folders=[work / "model"]):
        raise DataError("corrupt")
    assert not (work / "model").exists()


def test_a_choice_that_is_none_is_refused(work: Path) -> None:
    with pytest.raises(ParamsError, match=r"'validate.lacking' is 'skip'"):
        lacking(work, "validate: {lacking: skip}\n")
