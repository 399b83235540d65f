"""Which conversations and comparisons contradict themselves, and which only look like it."""

import gzip
import json
from collections import Counter
from collections.abc import Iterator

import pytest

from stages import demo
from stages.common.core.records import Record, Shape, message
from stages.common.curate.filters.conversation_checks import (
    TalkRules,
    cut,
    fault,
    languages_differ,
    length_ratio,
    same,
)
from stages.common.demo import world
from tests.support import demo_world
from tests.support.real_data import REAL, needs_real_data

RULES = TalkRules()
LONG_EN = "The river rises in the hills north of the town, flows west through farms and woods, and ends in the sea."
LONG_ZH = "这条河发源于城北的山地，向西流过农田和树林，最后注入大海，沿岸的居民多以捕鱼和种稻为生。"
ASK_EN = "Please describe the course of the river from its source down to the sea, in about two long sentences."
ASK_ZH = "请用两个比较长的句子描述一下这条河从源头一直到入海口的整个流程。"


def talk(*said: str, tools: str | None = None) -> Record:
    roles = ("user", "assistant")
    return {"messages": [message(roles[place % 2], text) for place, text in enumerate(said)], "tools": tools}


def comparison(asked: str, *responses: str, ranks: list[int] | None = None, category: str = "") -> Record:
    return {
        "prompt": [message("user", asked)],
        "responses": list(responses),
        "ranks": ranks or [*range(1, len(responses) + 1)],
        "annotator": "",
        "categories": [category] if category else None,
        "tools": None,
    }


CUT = "This answer is long enough that it is seen to end in the middle,"


@pytest.mark.parametrize(
    "answer",
    [
        "Run this in the folder of the project, with the environment:\n```python\nprint(1)",
        "The alloy of which the old bridge was made is one of iron, carbon,",
        "The best time to plant is spring, when the soil is warm again, because",
        "He went to the shop at the corner of the street to buy bread, and then to the",
        "There are several kinds of birds that spend the winter in the north (",
        "这座城市每年夏天举办的主要活动有：音乐节、电影节、",
        "天气转凉的时候应当注意保暖，少吃生冷食物，多喝水，",
        "根据检查的结果和您的描述，这种病常见的症状包括",
        "我们在车站一直等到晚上八点钟，他还是没有来，因为",
    ],
)
def test_cut_answers(answer: str) -> None:
    assert cut(answer)
    assert fault("conversations", talk("q", answer), RULES) == "cut_answer"
    assert fault("conversations", talk("q", answer), TalkRules(cut_answers=False)) == ""


@pytest.mark.parametrize(
    "answer",
    [
        "Paris", "42", "It is iron.", "Yes!", "The answer is B)", "A poem\nof two lines", "```python\nprint(1)\n```",
        "Vitamin A",
        "北京", "是的。", "……", "...", "音乐节、电影节", "他来了（昨天）", "Here is the list:\n- a\n- b", "https://example.com/a",
        "The preposition is to", "1. Dig a hole\n2. Plant the tree\n3. Water it,", "A left square bracket: [",
        "Type three backticks: ```", "Steam over the cup,", "这种病的症状包括",
        "Type `a`", "Plan B or plan A", "What is it for?", "口服；外用；",
    ],
)  # fmt: skip
def test_whole_answers(answer: str) -> None:
    assert not cut(answer)


def test_only_the_last_answer_and_the_best_ones_may_not_be_cut() -> None:
    assert fault("conversations", talk("q", "One, two,", "go on", "three."), RULES) == ""
    assert fault("comparisons", comparison("q", "whole.", CUT), RULES) == ""
    assert fault("comparisons", comparison("q", CUT, "whole."), RULES) == "cut_answer"
    assert fault("comparisons", comparison("q", "whole.", CUT, "bad.", ranks=[1, 1, 2]), RULES) == "cut_answer"
    call = [message("user", "q"), message("assistant", "calling,", tool_calls=[{"name": "f", "arguments": "{}"}])]
    assert fault("conversations", {"messages": call, "tools": None}, RULES) == ""


def test_answers_that_read_the_same() -> None:
    assert same(["You’re welcome!", "you’re  welcome."]) and same(["北京。", "北京"])
    assert not same(["a - b", "a + b"]) and not same(["Paris", "paris is", "Paris"])
    assert fault("comparisons", comparison("q", "Paris.", "paris"), RULES) == "same_answers"
    assert fault("comparisons", comparison("q", "Paris.", "paris"), TalkRules(same_answers=False)) == ""
    assert fault("comparisons", comparison("q", "Paris.", "Rome.", "Paris."), RULES) == ""


def test_length_ratio() -> None:
    assert length_ratio(["a" * 20, "a" * 60]) == 3 and length_ratio(["", "a" * 20]) == 1
    far = comparison("q", "word " * 500, "no")
    assert fault("comparisons", far, RULES) == "length_ratio"
    assert (
        fault("comparisons", far, TalkRules(length_ratio=200))
        == ""
        == fault("comparisons", far, TalkRules(length_ratio=0))
    )


@pytest.mark.parametrize(
    ("asked", "answer"), [(ASK_EN, LONG_ZH), (ASK_ZH, LONG_EN), (ASK_EN, "Der Fluss entspringt im Norden der Stadt, "
     "fließt nach Westen durch Felder und Wälder und mündet schließlich in das Meer.")],
)  # fmt: skip
def test_an_answer_in_another_language(asked: str, answer: str) -> None:
    assert fault("conversations", talk(asked, answer), RULES) == "language_mismatch"
    assert fault("comparisons", comparison(asked, answer, "..."), RULES) == "language_mismatch"
    assert fault("comparisons", comparison(asked, "...", answer), RULES) == ""  # the worse answer may be
    assert fault("conversations", talk(asked, answer), TalkRules(language_mismatch=False)) == ""


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        (ASK_EN, LONG_EN),
        (ASK_ZH, LONG_ZH),
        ("Who?", LONG_ZH),
        (ASK_EN, "海。"),
        ("Translate into Chinese: " + LONG_EN, LONG_ZH),
        ("请翻译成英文：" + LONG_ZH, LONG_EN),
        (ASK_EN + " Answer in Chinese.", LONG_ZH),
        (ASK_ZH + "（" + ASK_EN + "）", LONG_EN),
        (
            "写一段代码，计算两个整数的最大公约数，并且打印出来。",
            "```python\ndef gcd(a, b):\n    return gcd(b, a % b)\n```",
        ),
        (ASK_ZH, "import math; print(math.gcd(48, 18)) # prints the greatest common divisor of both of the numbers"),
    ],
)
def test_a_reason_for_another_language(asked: str, answer: str) -> None:
    assert fault("conversations", talk(asked, answer), RULES) == ""


def test_the_language_may_be_named_before_or_by_the_system() -> None:
    assert fault("conversations", talk("Let us speak Chinese.", "好的。", ASK_EN, LONG_ZH), RULES) == ""
    turns = [message("system", "Always answer in Chinese."), *talk(ASK_EN, LONG_ZH)["messages"]]
    assert not languages_differ("conversations", {"messages": turns}, 60)


@pytest.mark.parametrize(
    ("category", "best", "other", "reason"),
    [
        ("harmful/en", "First you need a long fuse.", "I can't help with that.", "refusal_mislabelled"),
        ("harmful/en", "I can't help with that.", "First you need a long fuse.", ""),
        ("harmful/en", "First you need a fuse.", "You need powder first.", ""),
        ("有害", "首先你需要一些工具。", "我不能帮助做这件事。", "refusal_mislabelled"),
        ("capital/en", "I can't help with that.", "Paris.", "refusal_mislabelled"),
        ("capital/zh", "我不能帮助做这件事。", "北京。", "refusal_mislabelled"),
        ("capital/en", "Paris.", "I can't help with that.", ""),
        ("capital/en", "I can't help with that.", "I cannot answer this.", ""),
        ("harmless", "I can't help with that.", "Paris.", "refusal_mislabelled"),
        ("made-up/en", "I don't know.", "Paris.", ""),
        ("", "I can't help with that.", "Paris.", ""),
    ],
)
def test_refusals_against_the_categories(category: str, best: str, other: str, reason: str) -> None:
    assert fault("comparisons", comparison("q", best, other, category=category), RULES) == reason
    assert fault("comparisons", comparison("q", best, other, category=category), TalkRules(refusals=False)) == ""


def test_other_shapes_are_not_asked() -> None:
    assert fault("documents", {"text": "cut,"}, RULES) == ""
    assert fault("prompts", {"messages": [message("user", "cut,")]}, RULES) == ""


def demo_talk(seed: int) -> Iterator[tuple[Shape, Record]]:
    p = demo.Params(seed=seed)
    for row in demo.build(world.read(demo_world.FACTS, p.largest_addend), p)["comparisons.jsonl"]:
        if row.fault != "malformed":
            body = json.loads(json.dumps(row.body))
            yield "comparisons", body | {"prompt": [message(turn["role"], turn["content"]) for turn in body["prompt"]]}
    for one in demo_world.build(seed):
        if one.shape == "conversations":
            yield one.shape, one.record


@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_of_the_demo_is_dropped(seed: int) -> None:
    found = Counter((shape, fault(shape, record, RULES)) for shape, record in demo_talk(seed))
    assert set(found) == {("comparisons", ""), ("conversations", "")} and found["conversations", ""] > 5000


def real(name: str) -> Iterator[tuple[Shape, Record]]:
    path = REAL / "medicalgpt" / name
    lines = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    roles = {"human": "user", "gpt": "assistant", "system": "system"}
    for line in lines.decode().splitlines():
        row = json.loads(line)
        turns = [message(roles[turn["from"]], turn["value"]) for turn in row["conversations"] if turn["from"] in roles]
        if "chosen" in row:
            yield (
                "comparisons",
                {"prompt": turns, "responses": [row["chosen"], row["rejected"]], "ranks": [1, 2], "categories": None},
            )
        elif turns[-1]["role"] == "assistant":
            yield "conversations", {"messages": turns}


@needs_real_data
@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("dpo_zh_500.jsonl", {"cut_answer": 4, "language_mismatch": 2}),
        ("sharegpt_zh_1K_format.jsonl.gz", {"cut_answer": 4, "language_mismatch": 5}),
        ("medical_sft_1K_format.jsonl", {"cut_answer": 9}),
        ("toolcall_dpo_zh_demo.jsonl", {}),
    ],
)
def test_few_of_the_real_rows_are_dropped(name: str, most: dict[str, int]) -> None:
    found = Counter(fault(shape, record, RULES) for shape, record in real(name))
    assert {reason for reason in found if reason} <= set(most), found
    assert all(found[reason] <= number for reason, number in most.items()), found
