"""Every case of data as people have it, whole: read, curated, and what became of each row.

The rows here are our own, kind by kind and line by line those of ../shared/cases/data, which are
held to the same fates where that folder is there.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stages import ingest
from stages.common.core import records
from stages.common.core.records import SHAPES, Record
from stages.common.curate.executors import Executor
from stages.curate import Params, curate, publish
from tests.support.data_cases import CASES, PAIR, TALK, Case, refused, turns
from tests.support.real_data import SHARED
from tests.test_curate import LOCAL, shares

THEIRS = SHARED.parent / "cases/data"
Fates = dict[str, list[str]]
ANSWER = "It is a bay."
CASES["06-instruct"] = Case(
    [
        {"instruction": "When?", "context": "The mill burnt in 1804.", "response": "In 1804.", "category": "closed_qa"},
        {"kind": "Couplet", "input": "写一句关于雪的话。", "target": "雪落无声，屋檐渐白。"},
        {"input": "What is a cove?", "output": ANSWER, "idx": 5},
        {"conversation": [{"input": "A cape?", "output": "Land."}, {"input": "And a bay?", "output": "Water."}]},
        {"id": "7", "data": ["What is a bight?", ANSWER, "Where?", "On a coast."]},
        {
            "instruction": "To French.",
            "input": "bay",
            "output": "baie",
            "history": [["sea", "mer"]],
            "system": "Brief.",
        },
        {"title": "Bays", "question": "海湾是什么？", "answer": "伸入陆地的海。", "score": 5},
        {"ask": "海峡是什么？", "answer": "两海之间的水道。", "department": "地理", "title": "海"},
        {"Question": "What is a fjard?", "Complex_CoT": "It is like a fjord.", "Response": "A wide inlet."},
        {"problem": "What is 11 times 4?", "solution": "11 * 4 = 44", "answer": "44"},
        {"question": "What is 6 plus 9?", "answer": "6 + 9 = 15\n#### 15"},
        {"text": "### Human: What is a ria?### Assistant: A drowned valley."},
        {"text": "<s>[INST] What is a firth? [/INST] An estuary. </s>"},
        {"text": "<|im_start|>user\nWhat is a sound?<|im_end|>\n<|im_start|>assistant\nA wide strait.<|im_end|>"},
        {"system_prompt": "Think.", "question": "Is a lagoon deep?", "response": "No, it is shallow."},
        {"prompt": "Is a gulf large?", "response": "Yes.", "chat_id": 3},
        {"q": "What is a creek?", "a": "A small inlet."},
        {"inputs": "What is a harbour?", "targets": "Sheltered water."},
        {"message_1": "What is a haven?", "message_2": "A safe harbour.", "topic": "sea"},
        {
            "messages": turns("What is a roadstead?", "An anchorage."),
            "prompt": "What is a roadstead?",
            "prompt_id": "a",
        },
        {"prompt": "Tell me of tides.", "messages": turns("Tell me of tides.", "They rise and fall.")},
        {"instruction": "", "input": "What is surf?", "output": "Breaking waves."},
        {"instruction": "What is spray?", "input": None, "output": "Drops from waves."},
        {"instruction": "What is foam?", "input": "<noinput>", "output": "White bubbles."},
        {"instruction": "What is ebb?", "output": ""},
        {"instruction": "What is flood?", "output": None},
    ],
    [*[TALK] * 24, ("dropped: empty_turn",), refused("bad output")],
)
HH = "\n\nHuman: {}\n\nAssistant: {}"
CASES["09-hh"] = Case(
    [
        {
            "chosen": HH.format("How do I whistle?", "Purse your lips."),
            "rejected": HH.format("How do I whistle?", "No."),
        },
        {
            "chosen": HH.format("List:\n\nHuman needs\n\nAssistant skills", "Here."),
            "rejected": HH.format("List:\n\nHuman needs\n\nAssistant skills", "No."),
        },
        {"chosen": HH.format("Hum.", "Hm.") + HH.format("More.", "Hmm."), "rejected": HH.format("Hum.", "No.")},
        {"text": HH.format("What is 3+3?", "6")},
    ],
    [PAIR, PAIR, refused("bad chosen"), TALK],
)


def fates(folder: Path) -> Fates:
    """Return what became of every line of the files in `folder`/raw, by `<file>:<line>`."""
    ingest.ingest(folder / "raw", folder / "ingested", folder / "quarantine", ingest.Params())
    (folder / "executor.yaml").write_text(LOCAL)
    with Executor(folder / "executor.yaml") as executor:
        curate(folder / "ingested", folder / "work", Params(**shares(0.0)), executor)
    publish(folder / "work", folder / "out", folder / "dropped")
    found: Fates = {}
    for shape in SHAPES:
        for record in records.read(folder / "out" / shape):
            found.setdefault(record["id"], []).append(shape)
    for place in ("dropped", "quarantine"):
        for row in lines(folder / place):
            name = row["id"] if place == "dropped" else f"{row['file']}:{row['line']}"
            found.setdefault(name, []).append(f"{'dropped' if place == 'dropped' else 'refused'}: {row['reason']}")
    return found


def lines(folder: Path) -> Iterator[Record]:
    for file in sorted(folder.rglob("*.jsonl")):
        yield from map(json.loads, file.read_text(encoding="utf-8").splitlines())


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Fates]:
    folder = tmp_path_factory.mktemp("cases")
    for name, case in CASES.items():
        (folder / "raw" / name).mkdir(parents=True)
        text = "\n".join(json.dumps(row, ensure_ascii=False) for row in case.rows)
        (folder / "raw" / name / "a.jsonl").write_text(text, encoding="utf-8")
    return folder, fates(folder)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Fates]:
    if not THEIRS.is_dir():
        pytest.skip(f"no cases in {THEIRS}")
    folder = tmp_path_factory.mktemp("theirs")
    for case in THEIRS.iterdir():
        if (case / "raw").is_dir() and not case.name.startswith("14"):  # megabytes of one kind
            shutil.copytree(case / "raw", folder / "raw" / case.name)
    return folder, fates(folder)


@pytest.mark.parametrize("name", CASES)
def test_each_row_of_a_case_has_its_fate(name: str, ours: tuple[Path, Fates]) -> None:
    assert [tuple(ours[1][f"{name}/a.jsonl:{line}"]) for line in range(1, len(CASES[name].rows) + 1)] == CASES[
        name
    ].fates


@pytest.mark.parametrize("name", CASES)
def test_so_has_each_row_of_the_case_it_stands_for(name: str, theirs: tuple[Path, Fates]) -> None:
    assert [tuple(theirs[1][f"{name}/a.jsonl:{line}"]) for line in range(1, len(CASES[name].rows) + 1)] == CASES[
        name
    ].fates


def kept(folder: Path, shape: str) -> dict[str, Any]:
    return {record["id"].replace("/a.jsonl", ""): record for record in records.read(folder / "out" / shape)}


def test_what_the_rows_say_is_where_it_belongs(ours: tuple[Path, Fates]) -> None:
    talks, pairs = kept(ours[0], "conversations"), kept(ours[0], "comparisons")
    said = {name: talk["messages"] for name, talk in talks.items()}
    assert [turn["content"] for turn in said["01-tool-calls:1"][2:4]] == ["snow", "rain"], "as they were called"
    assert [turn["role"] for turn in said["01-tool-calls:7"]] == ["user", "assistant", "tool", "assistant"]
    assert said["01-tool-calls:7"][1]["thought"] == "The weather is asked for."
    thoughts = [said[f"07-reasoning:{line}"][1]["thought"] for line in (1, 2, 3, 4, 6, 7)]
    assert thoughts == ["Six each."] * 6
    assert [turn["role"] for turn in said["08-openai:8"]] == ["user", "assistant"], "an empty system prompt is none"
    assert said["06-instruct:24"][0]["content"] == "What is foam?"
    best = {name: pair["responses"][pair["ranks"].index(1)] for name, pair in pairs.items()}
    assert best["05-preferences:11"] == "The moon pulls." and best["05-preferences:14"] == "Wind drives it."
    assert pairs["05-preferences:1"]["responses"] == ["It keeps a boat upright.", "To sink.", "For the look."]
    disliked = [name for name, one in kept(ours[0], "labelled").items() if not one["desirable"]]
    assert disliked == [f"04-kto:{line}" for line in (1, 3, 5, 7)]


WHOLE = {"16-same-passage": 16, "17-pii": 17, "18-text-damage": 28, "20-save-to-disk": 1, "23-shared-system": 10}
"""Of which every record stays, but for a page of scripts (18-text-damage/a.jsonl:12)."""
REFUSED = {
    "12-encodings": ["bad answer", "not UTF-8"],
    "13-json-faults": ["not valid JSON", "not an object"],
    "15-headless-tsv": ["unknown format"],
}


def test_nothing_of_the_other_cases_is_lost(theirs: tuple[Path, Fates]) -> None:
    for name, number in WHOLE.items():
        left = [fate for where, fate in theirs[1].items() if where.startswith(name) and fate[0] in SHAPES]
        assert len(left) == number, name
    assert theirs[1]["18-text-damage/a.jsonl:12"] == ["dropped: boilerplate"]
    for name, reasons in REFUSED.items():
        found = {one for where, fate in theirs[1].items() if where.startswith(name) for one in fate if "refused" in one}
        assert found == {f"refused: {reason}" for reason in reasons}, name
    assert sum(where.startswith("15-") for where in theirs[1]) == 8
    raw = [row["output"] for row in lines(theirs[0] / "raw/17-pii")]
    after = kept(theirs[0], "conversations")
    assert [after[f"17-pii:{line}"]["messages"][1]["content"] for line in range(1, 18)] == [
        text.strip() for text in raw
    ]
    movie = after["11-cornell/movie_conversations.txt:1"]["messages"]
    assert [turn["content"] for turn in movie][::3] == ["Do you still have the map?", "All the way to the coast?"]
