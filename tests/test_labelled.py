"""Labelled answers on their way to the trainers: what is dropped, what is scrubbed, and on which
side of the split a prompt falls.
"""

from pathlib import Path
from typing import Any

from stages.common.core import records
from stages.common.core.records import Record
from stages.common.curate.splits import Splits, limit, split
from tests.test_curate import asked, dropped, kept, run

GO_ON = "on and " * 9


def labelled(prompt: list[Record], response: str, desirable: bool) -> Record:
    return {"prompt": prompt, "response": response, "desirable": desirable}


def test_labelled_answers_are_asked_what_comparisons_are_and_the_counts_add_up(tmp_path: Path) -> None:
    report = run(
        tmp_path,
        labelled=[
            labelled(asked("Hi"), "Hello.", True),
            labelled(asked("Hi "), "Hello.\u200b", True),
            labelled(asked("Hi"), "Hello.", False),
            labelled(asked("Hi"), " ", False),
            labelled(asked("Hi", "Hello."), "Bye", False),
            labelled(asked("Hi"), "You may ask: what is 1+1?", False),
            labelled(asked("Hi"), f"It is cut, {GO_ON} for the", True),
            labelled(asked("Hi"), f"Mail a.b@post.sample, {GO_ON} for the", False),
        ],
        questions=[{"messages": asked("What is 1+1?"), "reference": "2", "group": "iid"}],
    )
    assert dropped(tmp_path) == {
        "cut_answer": ["labelled:7"],
        "duplicate": ["labelled:2"],
        "empty_answer": ["labelled:4"],
        "leaked_question": ["labelled:6"],
        "no_question": ["labelled:5"],
    }
    found: dict[str, Any] = report["labelled"]
    assert (found["rows"], found["kept"], sum(found["dropped"].values())) == (8, 3, 5)
    assert found["kept"] == sum(found["splits"].values()) and found["personal"] == {"mail": 1}
    told = {record["id"]: (record["response"], record["desirable"]) for record in kept(tmp_path, "labelled")}
    assert told == {
        "labelled:1": ("Hello.", True),
        "labelled:3": ("Hello.", False),
        "labelled:8": (f"Mail [MAIL], {GO_ON} for the", False),  # cut: perhaps why it was not liked
    }


def test_a_prompt_is_on_one_side_in_labelled_answers_and_in_comparisons(tmp_path: Path) -> None:
    prompts = [asked(f"What is {number}?") for number in range(60)]
    run(
        tmp_path,
        {"splits": {shape: {"validation": 0.3} for shape in ("documents", "conversations", "comparisons", "prompts")}},
        labelled=[labelled(one, f"It is {word}.", word == "this") for one in prompts for word in ("this", "that")],
        comparisons=[{"prompt": one, "responses": ["It is this.", "It is that."], "ranks": [1, 2]} for one in prompts],
    )
    sides = {
        (shape, side): {row["prompt"][0]["content"] for row in records.read(tmp_path / "out" / shape / side)}
        for shape in ("labelled", "comparisons")
        for side in records.SPLITS
    }
    for side in records.SPLITS:
        assert sides["labelled", side] == sides["comparisons", side] and sides["labelled", side]
    assert not sides["labelled", "train"] & sides["labelled", "validation"]


def test_labelled_answers_are_split_by_the_share_of_comparisons_and_may_be_kept_apart() -> None:
    shares = {"documents": 0.0, "conversations": 0.1, "comparisons": 0.5, "prompts": 0.2}
    splits = Splits.model_validate(
        {shape: {"validation": share} for shape, share in shares.items()} | {"apart": [["prompts", "labelled"]]}
    )
    assert splits.share("labelled") == 0.5 and splits.before("labelled") == ["prompts"]
    row = {"prompt": asked("Hi")}
    assert split("labelled", row, limit(0.5)) == split("comparisons", row, limit(0.5))
