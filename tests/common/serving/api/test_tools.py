"""The tools themselves: what they work out and find, and that nothing else can be done with
them.
"""

import json
import time
from pathlib import Path

import pytest

from stages.common.serving.api.tools import PASSAGE_CHARACTERS, ToolError, Tools, calculate, passages
from stages.common.text.parquet_writer import write


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("87 + 55", "142"),
        ("2 * (3 - 5) ** 3", "-16"),
        ("10 / 4", "2.5"),
        ("10 / 5", "2"),
        ("0.1 + 0.2", "0.3"),
        ("1 / 3", "0.333333333333"),
        ("-2 ** 2", "-4"),
        ("2 ** -1", "0.5"),
        ("2 ** 64", "18446744073709551616"),
        ("６×７ − ２", "40"),
        ("（1 + 2）÷ 3", "1"),
    ],
)
def test_sums(expression: str, value: str) -> None:
    assert calculate(expression) == value


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "1 +",
        "a",
        "__import__('os').system('id')",
        "().__class__",
        "(lambda: 1)()",
        "[1 for _ in range(9)]",
        "'a' * 9",
        "1 if 1 else 2",
        "1 < 2",
        "True + 1",
        "1j",
        "7 // 2",
        "7 % 2",
        "1 << 99",
        "(x := 3)",
        "f'{1}'",
        "9 ** 99",
        "9 ** 9 ** 9",
        "9e29 ** 2",
        "1e400",
        "1 / 0",
        "0 ** -1",
        "(-8) ** 0.5",
        "1\n2",
        "1" * 201,
        "(" * 150 + "1" + ")" * 49,
        "\x00",
    ],
)
def test_what_is_no_sum_or_too_large_is_refused_at_once(expression: str) -> None:
    started = time.monotonic()
    with pytest.raises(ToolError):
        calculate(expression)
    assert time.monotonic() - started < 1


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Tools:
    folder = tmp_path_factory.mktemp("documents")
    texts = ["Lima is the capital of Peru.", "中国的首都是北京。", "Gold is a metal.\nIts symbol is Au."]
    write([{"id": f"a:{at}", "source": "a", "text": text} for at, text in enumerate(texts)], folder, "documents")
    return Tools(["calculator", "search"], folder)


def search(tools: Tools, query: str) -> str:
    return tools.run("search", json.dumps({"query": query}), ["search"])


def test_a_search_finds_the_passage_that_says_it(tools: Tools) -> None:
    assert search(tools, "What is the capital of PERU?").split("\n\n")[0] == "Lima is the capital of Peru."
    assert search(tools, "首都") == "中国的首都是北京。"
    assert search(tools, "gold symbol") == "Gold is a metal.\nIts symbol is Au."
    for query in ("zebra", "", "?", "a" * 10_000):
        assert search(tools, query) == "error: nothing was found"


def test_a_tool_tells_the_model_of_its_mistakes(tools: Tools) -> None:
    both = ["calculator", "search"]
    assert tools.run("calculator", '{"expression": "1/0"}', both) == "error: a division by zero"
    assert tools.run("calculator", '{"expression": 1}', both) == 'error: the arguments are to be {"expression": "..."}'
    for broken in ("{", "", "[" * 100_000):
        assert tools.run("calculator", broken, both) == "error: the arguments are not JSON"
    assert (
        tools.run("shell", '{"expression": "id"}', both) == "error: there is no tool 'shell', only: calculator, search"
    )
    assert tools.run("search", '{"query": "gold"}', ["calculator"]).startswith("error: there is no tool 'search'")


def test_without_documents_a_search_says_so(tmp_path: Path) -> None:
    assert search(Tools(["search"], tmp_path / "nowhere"), "gold") == "error: there are no documents"


def test_long_texts_are_cut_between_lines_where_they_can_be() -> None:
    lines = [f"line {number} " + "x" * 90 for number in range(8)]
    pieces = list(passages("\n".join(lines)))
    assert all(len(piece) <= PASSAGE_CHARACTERS for piece in pieces)
    assert "\n".join(pieces) == "\n".join(lines)
    assert [len(piece) for piece in passages("y" * 700)] == [300, 300, 100]
    assert list(passages(" \n")) == []
