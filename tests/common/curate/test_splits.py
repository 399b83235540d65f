"""A record's split is decided by its prompt alone; shapes that stay apart share none."""

from pathlib import Path

import pytest

from stages.common.core import params
from stages.common.core.records import Record, message
from stages.common.curate.splits import Splits, limit, split, value
from stages.common.runtime.errors import ParamsError
from stages.common.text import content_hash

SHARES = {shape: {"validation": 0.1} for shape in ("documents", "conversations", "comparisons", "prompts")}


def talk(*turns: str) -> Record:
    return {"messages": [message(("user", "assistant")[number % 2], text) for number, text in enumerate(turns)]}


def test_the_first_user_turn_decides_in_every_shape_alike() -> None:
    records = [talk(f"Question {number}?", "Answer.") for number in range(300)]
    held_out = [split("conversations", record, limit(0.1)) for record in records]
    assert 12 < held_out.count("validation") < 55
    for record, found in zip(records, held_out, strict=True):
        first = record["messages"][0]
        assert split("prompts", {"messages": [message("system", "Be kind."), first]}, limit(0.1)) == found
        assert (
            split("comparisons", {"prompt": [first | {"content": f" {first['content'].upper()}"}]}, limit(0.1)) == found
        )
        assert split("questions", record, limit(0.1)) == "whole"
    assert len({value("conversations", record) for record in records}) == 300


def test_the_limit_is_a_share_of_all_hashes() -> None:
    assert (limit(0), limit(0.25), limit(0.5)) == (0, 2**62, 2**63)
    record = {"text": "A document."}
    here = value("documents", record)
    assert here == int.from_bytes(content_hash.split_digest("documents", record)[:8], "big")
    assert (split("documents", record, here), split("documents", record, here + 1)) == ("train", "validation")
    assert split("documents", record, limit(0)) == "train"


def test_earlier_shapes_of_each_group_go_first() -> None:
    groups = Splits.model_validate(
        SHARES | {"apart": [["conversations", "prompts"], ["conversations", "comparisons", "prompts"]]}
    )
    assert groups.before("conversations") == []
    assert groups.before("comparisons") == ["conversations"]
    assert groups.before("prompts") == ["conversations", "comparisons"]
    assert groups.before("documents") == [] and Splits.model_validate(SHARES).before("prompts") == []
    assert (groups.share("prompts"), groups.share("questions")) == (0.1, 0.0)


@pytest.mark.parametrize(
    ("apart", "message"),
    [
        ([["conversations"]], "two or more different shapes"),
        ([["prompts", "prompts"]], "two or more different shapes"),
        ([["documents", "prompts"]], "apart.0.0"),
    ],
)
def test_a_group_that_cannot_stay_apart_is_named(tmp_path: Path, apart: list[list[str]], message: str) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(f"splits: {SHARES | {'apart': apart}}", encoding="utf-8")
    with pytest.raises(ParamsError, match=message):
        params.load(Splits, "splits", file)
