"""Better and worse answers to one prompt, in every layout."""

import json
from typing import Any

import pytest

from stages.common.core.records import Record, message
from stages.common.ingest.layouts.comparisons import ranks_of
from stages.common.ingest.layouts.fields import Malformed
from stages.common.ingest.layouts.recognise import recognise
from tests.support.parse import parse

HI = [message("user", "Hi")]


def expected(prompt: list[Record], *responses: str) -> Record:
    return {"prompt": prompt, "responses": list(responses), "ranks": [1, 2], "tools": None}


def said(*texts: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(texts)]


def test_hh_rlhf_shares_all_but_the_last_answer() -> None:
    start = "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: Help me"
    row = {"chosen": f"{start}\n\nAssistant: Gladly.", "rejected": f"{start}\n\nAssistant: No."}
    prompt = [*HI, message("assistant", "Hello."), message("user", "Help me")]
    assert parse(row) == ("hh", "comparisons", expected(prompt, "Gladly.", "No."))


def test_an_empty_answer_of_hh_rlhf_is_kept_for_curation_to_drop() -> None:
    row = {"chosen": "\n\nHuman: Hi\n\nAssistant: ", "rejected": "\n\nHuman: Hi\n\nAssistant: Go."}
    assert parse(row)[2] == expected(HI, "", "Go.")


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Hi", "chosen": "Hello.", "rejected": "Go."},
        {"question": "Hi", "response_chosen": "Hello.", "response_rejected": "Go.", "history": []},
        {"prompt": said("Hi"), "chosen": said("Hi", "Hello.")[1:], "rejected": said("Hi", "Go.")[1:]},
        {"prompt": "Hi", "chosen": said("Hi", "Hello."), "rejected": said("Hi", "Go.")},
        {"prompt": "Hi", "chosen": said("Hi", "Hello.")[1], "rejected": said("Hi", "Go.")[1]},
        {"chosen": said("Hi", "Hello."), "rejected": said("Hi", "Go.")},
        {"messages": said("Hi"), "chosen": "Hello.", "rejected": "Go."},
        {"prompt": "\n\nHuman: Hi\n\nAssistant:", "chosen": "Hello.", "rejected": "Go."},
        {"instruction": "Hi", "input": "", "chosen": "Hello.", "rejected": "Go."},
    ],
)
def test_every_layout_of_dpo_means_the_same(row: Record) -> None:
    assert parse(row) == ("dpo", "comparisons", expected(HI, "Hello.", "Go."))


def test_dpo_on_sharegpt_turns_with_tools() -> None:
    tools = [{"name": "weather"}]
    row = {
        "conversations": [{"from": "human", "value": "Hi"}],
        "chosen": {"from": "gpt", "value": "Hello."},
        "rejected": "Go.",
        "tools": json.dumps(tools),
    }
    assert parse(row) == (
        "sharegpt comparison",
        "comparisons",
        expected(HI, "Hello.", "Go.") | {"tools": json.dumps(tools)},
    )


def test_dpo_with_system_and_history() -> None:
    row = {"system": "Be brief.", "history": [["Hi", "Hello."]], "question": "Bye"}
    prompt = [message("system", "Be brief."), *HI, message("assistant", "Hello."), message("user", "Bye")]
    assert parse(row | {"response_chosen": "Bye.", "response_rejected": "…"})[2] == expected(prompt, "Bye.", "…")


def test_ranked_answers_with_ties() -> None:
    row = {"prompt": "Hi", "responses": ["a", "b", "c"], "ranks": [2, 1, 1], "annotator": "rules", "categories": ["x"]}
    name, shape, record = parse(row)
    assert (name, shape) == ("comparison", "comparisons")
    assert record["prompt"] == HI
    assert (record["ranks"], record["annotator"], record["categories"]) == ([2, 1, 1], "rules", ["x"])


def test_scores_become_ranks_and_equal_ones_tie() -> None:
    assert ranks_of([0.5, 9, 0.5, -1]) == [2, 1, 2, 3]
    assert parse({"prompt": "Hi", "responses": ["a", "b"], "scores": [1, 2.5]})[2]["ranks"] == [2, 1]


def test_half_of_a_pair_is_no_known_format() -> None:
    assert recognise({"chosen": "\n\nHuman: Hi\n\nAssistant: Hello."}) is None


PROMPT: dict[str, Any] = {"prompt": "Hi", "responses": ["a", "b"]}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"chosen": "Hello.", "rejected": "Go."}, "bad transcript"),
        ({"chosen": None, "rejected": "\n\nHuman: Hi\n\nAssistant: Go."}, "bad chosen"),
        ({"chosen": "\n\nHuman: Hi", "rejected": "\n\nHuman: Hi\n\nAssistant: Go."}, "bad chosen"),
        ({"chosen": "\n\nHuman: A\n\nAssistant: B", "rejected": "\n\nHuman: C\n\nAssistant: B"}, "bad chosen"),
        ({"prompt": "Hi", "chosen": "a", "rejected": None}, "bad rejected"),
        ({"prompt": "Hi", "chosen": {}, "rejected": "b"}, "bad value"),
        ({"prompt": "Hi", "chosen": [], "rejected": "b"}, "bad turn"),
        ({"prompt": "Hi", "chosen": said("Hi"), "rejected": said("Hi")}, "bad chosen"),
        ({"chosen": said("Hi", "a"), "rejected": said("Ho", "b")}, "bad chosen"),
        ({"chosen": said("Hi", "a"), "rejected": "b"}, "bad chosen"),
        ({"chosen": said("Hi", "a")[1:], "rejected": said("Hi", "b")[1:]}, "bad prompt"),
        ({"prompt": 3, "chosen": "a", "rejected": "b"}, "bad prompt"),
        (PROMPT | {"responses": "a", "ranks": [1]}, "bad responses"),
        (PROMPT | {"responses": ["a", None], "ranks": [1, 2]}, "bad responses"),
        (PROMPT | {"responses": ["a"], "ranks": [1]}, "bad ranks"),
        (PROMPT | {"responses": []}, "bad ranks"),
        (PROMPT, "bad ranks"),
        (PROMPT | {"ranks": [1]}, "bad ranks"),
        (PROMPT | {"ranks": [0, 1]}, "bad ranks"),
        (PROMPT | {"ranks": [1, 3]}, "bad ranks"),
        (PROMPT | {"ranks": [True, 2]}, "bad ranks"),
        (PROMPT | {"ranks": [2, 2]}, "bad ranks"),
        (PROMPT | {"scores": [2, None]}, "bad scores"),
        (PROMPT | {"scores": [2, float("inf")]}, "bad scores"),
        (PROMPT | {"scores": [True, 1]}, "bad scores"),
        (PROMPT | {"scores": "best"}, "bad scores"),
        (PROMPT | {"scores": [1, 2, 3]}, "bad ranks"),
        (PROMPT | {"ranks": [1, 2], "categories": "x"}, "bad categories"),
        (PROMPT | {"prompt": 1, "ranks": [1, 2]}, "bad prompt"),
    ],
)
def test_a_malformed_row_is_refused_with_a_reason(row: Record, reason: str) -> None:
    with pytest.raises(Malformed) as refusal:
        parse(row)
    assert refusal.value.reason == reason
