"""What the demo says is true: every answer in it agrees with the tables."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from stages.common.demo import world
from tests.support.reading import COLUMNS, FACTS, Known, Raw, chinese, generate, known_facts, normal, reference_of


def test_equal_seeds_write_equal_bytes_and_other_seeds_others(tmp_path: Path) -> None:
    reports = [generate(tmp_path / name / "demo", seed=seed) for name, seed in (("a", 5), ("b", 5), ("c", 6))]
    assert reports[0] == reports[1] != reports[2]
    for file in (tmp_path / "a/demo").iterdir():
        assert file.read_bytes() == (tmp_path / "b/demo" / file.name).read_bytes()
        assert file.read_bytes() != (tmp_path / "c/demo" / file.name).read_bytes()


def test_switched_off_it_leaves_an_empty_folder_and_the_users_files(tmp_path: Path) -> None:
    generate(tmp_path)
    (tmp_path / "mine.txt").write_text("my own text", encoding="utf-8")
    report = generate(tmp_path, enabled=False)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]
    assert report == {"enabled": False, "seed": 1, "rows": {}, "planted": {}, "planted_rows": {}}


@pytest.mark.parametrize("file", ["questions", "prompts", "comparisons", "checks"])
def test_every_reference_agrees_with_the_tables(raw: Raw, known: dict[str, list[Known]], file: str) -> None:
    facts = 0
    for key, row in raw.of(file).items():
        text = (row.get("messages") or row["prompt"])[-1]["content"]
        reference = row["reference"] if "reference" in row else row["responses"][row["ranks"].index(1)]
        category = row["category"] if "category" in row else row["categories"][0]
        topic, language = category.split("/")
        assert chinese(text) == (language == "zh"), key
        if topic == "sum" or topic in COLUMNS:
            facts += 1
            assert reference_of(known, text) == {normal(reference)}, key
            assert (known[text][0].topic, known[text][0].language) == (topic, language)
        else:
            assert text not in known, key
    assert facts > 500


def test_every_conversation_agrees_with_the_tables(raw: Raw, known: dict[str, list[Known]]) -> None:
    other = {"I don't know.", "我不知道。", "I can't help with that.", "我不能帮助做这件事。"}
    general = json.loads((FACTS / "general.json").read_text(encoding="utf-8"))
    other |= {texts[language]["reply"] for texts in general.values() for language in ("en", "zh")}
    everything = {(topic, language, key): normal(answer) for topic, language, key, _, answer in known_facts()}
    kinds: Counter[str] = Counter()
    for key, messages in raw.conversations().items():
        if key in raw.planted("styled_answer", "pii_conversation"):
            continue
        system = messages[0]["content"] if messages[0]["role"] == "system" else ""
        answers: set[str] = set()
        meant: list[Known] = []
        for turn in messages:
            text = turn["content"]
            if turn["role"] == "user":
                meant = known.get(text, [])
                answers = reference_of(known, text)
            elif turn["role"] == "tool":
                answers = {normal(text)}
            elif turn["role"] == "assistant" and not text.startswith(("call", "{")):
                if system in ("Answer in a full sentence.", "请用完整的句子回答。"):
                    kind = "sentence"
                    assert reference_of(known, text) == answers, key
                elif system in ("Answer in Chinese.", "请用英语回答。"):
                    kind = "translated"
                    other_language = "zh" if "Chinese" in system else "en"
                    assert normal(text) in {everything[entry.topic, other_language, entry.key] for entry in meant}, key
                elif answers:
                    kind = "fact"
                    assert normal(text) in answers, key
                else:
                    kind = "other"
                    assert text in other, key
                kinds[kind] += 1
    assert kinds["fact"] > 4000 and kinds["sentence"] > 50 and kinds["translated"] > 50 and kinds["other"] > 500


def test_sums_are_right_by_arithmetic(raw: Raw) -> None:
    checked = 0
    for row in [*raw.questions().values(), *raw.of("prompts").values()]:
        if row["category"].startswith("sum/"):
            numbers = [int(number) for number in re.findall(r"\d+", row["messages"][-1]["content"])]
            assert len(numbers) == 2 and normal(row["reference"]) == str(sum(numbers))
            checked += 1
    asked: Counter[tuple[int, ...]] = Counter()
    copies = raw.planted("exact_duplicate")
    for key, messages in raw.conversations().items():
        if key not in copies and any(turn["role"] == "tool" for turn in messages):
            a, b = map(int, re.findall(r"\d+", messages[0]["content"]))
            asked[a, b] += 1
            assert [turn["content"].rstrip(".。") for turn in messages[2:]] == [str(a + b)] * 2
            checked += 1
    assert all(9 < max(pair) < 100 for pair in asked) and set(asked.values()) == {1}  # what is held out is new
    exercised = 0
    for text in raw.documents.values():
        for a, b, total, said in re.findall(r'"(\d+) \+ (\d+)"}</tool_call>\n(\d+)\n(\d+)[.。]', text):
            assert int(a) + int(b) == int(total) == int(said) and (int(a), int(b)) not in asked
            exercised += 1
        for a, b, total in re.findall(r"(\d+) \+ (\d+) = (\d+)", text):
            assert int(a) + int(b) == int(total)
            checked += 1
    assert checked > 400 and exercised > 1500


def test_a_smaller_world_has_every_topic_and_fewer_facts_of_it() -> None:
    """Of each table some rows are left, evenly: continents differ though the table goes by them."""
    whole, small = world.read(FACTS, 9), world.read(FACTS, 9, 12)
    sizes = Counter(fact.topic for fact in whole.facts)
    assert Counter(fact.topic for fact in small.facts) == {topic: min(12, count) for topic, count in sizes.items()}
    assert all(fact in whole.facts for fact in small.facts)
    assert len({fact.answer["en"] for fact in small.facts if fact.topic == "continent"}) > 3
