"""Sound records, and what can be wrong with one: where, what, and which expectations find it."""

from typing import Any

from stages.common.core import records
from stages.common.core.records import SHAPES, Record, message

USER, ANSWER = message("user", "Hi"), message("assistant", "Hello.")
FOLDERS = [
    folder
    for shape in SHAPES
    for folder in ([shape] if shape == "questions" else [f"{shape}/{split}" for split in records.SPLITS])
]


def sound(folder: str, line: int) -> Record:
    """Return a sound record unlike any other."""
    turns = [message("user", f"What about {folder} {line}?")]
    own: dict[str, Record] = {
        "documents": {"text": f"Text of {folder} {line}."},
        "conversations": {"messages": [*turns, ANSWER], "tools": None},
        "comparisons": {"prompt": turns, "responses": ["a", "b", "c"], "ranks": [1, 2, 3]},
        "prompts": {"messages": turns},
        "questions": {"messages": turns, "reference": "r", "group": "iid"},
        "labelled": {"prompt": turns, "response": "a", "desirable": line % 2 == 1, "tools": None},
    }
    return {"id": f"{folder}:{line}", "source": folder} | own[folder.split("/")[0]]


BETWEEN = "expect_column_values_to_be_between"
REGEX = "expect_column_values_to_match_regex"
NOT_NULL = "expect_column_values_to_not_be_null"
TURNS = "expect_roles_to_take_turns(roles)"
RANKS = "expect_ranks_to_rank_responses(ranks)"
EMPTY = f"{BETWEEN}(empty)"
LONG = f"{BETWEEN}(characters)"
LEAK = "expect_no_test_question(test_question)"
PERSONAL = "expect_no_personal_data(personal_data)"
LANGUAGES = "expect_answers_in_the_language_asked(languages)"
SAME_ID = "expect_ids_to_stand_once(same_id)"
STRAYED = "expect_copies_to_follow_their_original(strayed_copy)"
AGAIN = "expect_records_to_stand_once(same_content)"
SPLIT = "expect_prompts_to_stand_in_one_split(other_split)"
STAGE = "expect_prompts_to_serve_one_stage(other_stage)"
ANSWERS = "expect_one_answer_to_a_question(other_answer)"
LABELS = "expect_one_label_to_an_answer(other_label)"
CALL = message("assistant", "", tool_calls=[{"name": "f", "arguments": "{}"}])
TOLD = [message("system", "s"), USER, CALL, message("tool", "t"), ANSWER]


def asked(folder: str, line: int) -> list[Record]:
    """The question of a sound record."""
    return [message("user", f"What about {folder} {line}?")]


# Where, what is wrong, which expectations find it, and the value that one of them names.
FAULTS: list[tuple[str, Record, dict[str, Any]]] = [
    ("documents/train", {"id": None}, {f"{NOT_NULL}(id)": None}),
    ("documents/train", {"id": "no line"}, {f"{REGEX}(id)": "no line"}),
    ("documents/train", {"id": "documents/train:1.0"}, {f"{REGEX}(id)": "documents/train:1.0"}),
    ("documents/train", {"id": "documents/train:7.2"}, {}),  # the second record of line 7
    ("documents/train", {"id": "documents/train:7.x1.2#2"}, {STRAYED: "no original"}),
    ("conversations/train", {"id": "conversations/train:7.x1.2"}, {}),  # extracted
    ("documents/train", {"source": None}, {f"{NOT_NULL}(source)": None}),
    ("documents/train", {"text": " \n"}, {EMPTY: 1}),
    ("documents/train", {"text": None}, {EMPTY: 1}),
    ("documents/train", {"text": "x" * 1_000_001}, {LONG: 1_000_001}),
    ("documents/train", {"text": "So. What about questions 2? Well."}, {LEAK: "questions:2"}),
    ("documents/train", {"text": "Mail a.b@post.sample or c.d@post.sample."}, {PERSONAL: "2 mail"}),
    ("documents/train", {"text": "Text of documents/train 1."}, {AGAIN: "documents/train:1"}),
    ("documents/validation", {"text": "Text of documents/train 2."}, {SPLIT: "documents/train:2"}),
    ("documents/validation", {"id": "documents/train:2"}, {SAME_ID: "train"}),
    ("documents/train", {"id": "documents/train:1#2", "text": "Text of documents/train 1."}, {}),
    ("documents/train", {"id": "documents/train:2#2"}, {STRAYED: "another content"}),
    ("documents/train", {"id": "documents/train:9#2"}, {STRAYED: "no original"}),
    ("documents/train", {"id": "documents/train:2#1"}, {f"{REGEX}(id)": "documents/train:2#1"}),
    (
        "documents/validation",
        {"id": "documents/train:2#3", "text": "Text of documents/train 2."},
        {STRAYED: "another split", SPLIT: "documents/train:2"},
    ),
    ("conversations/train", {"messages": [*asked("a", 1), message("assistant", " ")]}, {EMPTY: 1}),
    ("conversations/train", {"messages": asked("b", 1)}, {TURNS: "user"}),
    ("conversations/train", {"messages": [ANSWER, *asked("c", 1)]}, {TURNS: "assistant user"}),
    ("conversations/train", {"messages": [message("bot", "<b>"), ANSWER]}, {TURNS: "other assistant"}),
    ("conversations/train", {"messages": None}, {TURNS: ""}),
    ("conversations/train", {"messages": [*TOLD[:3], ANSWER]}, {TURNS: "system user call assistant"}),
    ("conversations/train", {"messages": TOLD}, {}),
    ("conversations/train", {"messages": [*asked("d", 1), message("assistant", "x" * 50_001)]}, {LONG: 50_016}),
    (
        "conversations/train",
        {"messages": [message("user", f"What is it like in {'Paris ' * 10}?"), message("assistant", "很好。" * 20)]},
        {LANGUAGES: "en, answered in zh"},
    ),
    (
        "conversations/train",
        {"messages": [*asked("conversations/train", 1), message("assistant", "Otherwise.")]},
        {ANSWERS: "conversations/train:1"},
    ),
    (
        "conversations/validation",
        {"messages": sound("conversations/train", 2)["messages"]},
        {SPLIT: "conversations/train:2"},
    ),
    ("comparisons/train", {"prompt": [*asked("e", 1), ANSWER]}, {TURNS: "user assistant"}),
    (
        "comparisons/train",
        {"responses": ["a"], "ranks": [1]},
        {f"{BETWEEN}({name})": 1 for name in ("responses", "different_responses", "different_ranks")},
    ),
    ("comparisons/train", {"responses": ["a", "", "c"]}, {f"{BETWEEN}(empty_responses)": 1}),
    ("comparisons/train", {"ranks": [1, 2]}, {RANKS: "1 2 of 3"}),
    ("comparisons/train", {"ranks": [0, 1, 2]}, {RANKS: "0 1 2 of 3"}),
    ("comparisons/train", {"ranks": [1, 2, 4]}, {RANKS: "1 2 4 of 3"}),
    ("comparisons/train", {"ranks": [1, None, 2]}, {RANKS: "1 None 2 of 3"}),
    ("comparisons/train", {"ranks": [1, 1, 1]}, {f"{BETWEEN}(different_ranks)": 1}),
    ("comparisons/train", {"responses": ["a", "a", "a"]}, {f"{BETWEEN}(different_responses)": 1}),
    ("prompts/train", {"messages": [*asked("f", 1), ANSWER]}, {TURNS: "user assistant"}),
    ("prompts/train", {"messages": [message("user", "what  about QUESTIONS 1?")]}, {LEAK: "questions:1"}),
    ("prompts/train", {"messages": asked("conversations/train", 1)}, {STAGE: "conversations/train:1"}),
    ("comparisons/train", {"prompt": asked("conversations/train", 2)}, {}),
    ("labelled/train", {"prompt": [*asked("g", 1), ANSWER]}, {TURNS: "user assistant"}),
    ("labelled/train", {"response": " "}, {f"{BETWEEN}(response_characters)": 0}),
    ("labelled/train", {"response": None}, {f"{BETWEEN}(response_characters)": 0}),
    ("labelled/train", {"desirable": None}, {f"{NOT_NULL}(desirable)": None}),
    ("labelled/train", {"response": "So. What about questions 2? Well."}, {LEAK: "questions:2"}),
    ("labelled/train", {"response": "Mail a.b@post.sample."}, {PERSONAL: "1 mail"}),
    ("labelled/train", {"prompt": asked("labelled/train", 1), "response": "Otherwise."}, {}),
    (
        "labelled/train",
        {"prompt": asked("labelled/train", 1), "response": "A", "desirable": False},
        {LABELS: "labelled/train:1"},
    ),
    ("labelled/validation", {"prompt": asked("labelled/train", 2)}, {SPLIT: "labelled/train:2"}),
    ("questions", {"messages": [message("user", "Who?"), ANSWER]}, {TURNS: "user assistant"}),
    ("questions", {"reference": "  "}, {f"{BETWEEN}(reference_characters)": 0}),
    ("questions", {"group": None}, {f"{BETWEEN}(group_characters)": 0}),
]
FAULTY = [
    (folder, sound(folder, line) | change, expected) for line, (folder, change, expected) in enumerate(FAULTS, 10)
]


SUITE_OF = {
    SAME_ID: "ids",
    STRAYED: "ids",
    AGAIN: "contents",
    SPLIT: "contents",
    STAGE: "contents",
    ANSWERS: "contents",
    LABELS: "contents",
}
