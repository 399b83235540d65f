"""Rewards that can be checked: each one's values by hand, weights, functions of one's own, and what
is refused.
"""

from pathlib import Path
from typing import Any

import pytest

from stages.common.reward import checked
from stages.common.reward.checked import Asked, Weighted
from stages.common.runtime.errors import DataError, ParamsError

SUM = Asked("What is 3 + 4?", "7")
SCHEMA = '{"type": "object", "required": ["sum"], "properties": {"sum": {"type": "integer"}}}'


def value(name: str, answer: str, asked: Asked = SUM, cut: bool = False, **settings: Any) -> float | None:
    (one,) = checked.load({name: Weighted(**settings)}, "grpo.rewards")
    return one.of(asked, answer, cut)


@pytest.mark.parametrize(
    ("name", "answer", "expected"),
    [
        ("exact", "7", 1.0),
        ("exact", "It is 7.", 0.0),
        ("contains", "It is 7.", 1.0),
        ("number", "3 + 4 = 7", 1.0),
        ("number", "The answer is 8.", 0.0),
        ("boxed", r"So \boxed{7}", 1.0),
        ("boxed", "7", 0.0),
        ("exact", "<think>perhaps 8</think>7", 1.0),  # thoughts are not what is said
        ("length", "It is seven, 就是七", 6.0),  # three words, three characters
        ("rules", "7", 4.0),
        ("rules", "8", -3.0),
    ],
)
def test_values_by_hand(name: str, answer: str, expected: float) -> None:
    assert value(name, answer) == expected


def test_an_answer_that_was_cut_loses_by_the_rules() -> None:
    assert value("rules", "7", cut=True) == 2.0  # 4 for right, -2 for cut


@pytest.mark.parametrize(
    ("answer", "expected"), [('{"sum": 7}', 1.0), ('{"sum": "7"}', 0.0), ("{}", 0.0), ("sum: 7", 0.0), ("[7]", 0.0)]
)
def test_json_is_held_to_its_schema(tmp_path: Path, answer: str, expected: float) -> None:
    file = tmp_path / "sum.json"
    file.write_text(SCHEMA, encoding="utf-8")
    assert value("json_schema", answer, schema=str(file)) == expected
    assert value("json_schema", answer, Asked("As JSON?", SCHEMA)) == expected
    assert value("json_schema", answer, Asked("As JSON?")) is None
    with pytest.raises(DataError, match="no JSON schema: '7': it is no object"):
        value("json_schema", answer)


def test_without_a_reference_a_grader_has_no_opinion() -> None:
    rewards = checked.load({"exact": 1.0, "length": -0.5}, "grpo.rewards")
    columns = checked.columns(rewards, [SUM, Asked("Hello")], ["7", "Hello there"], [False, False])
    assert columns == {"exact": [1.0, None], "length": [1.0, 2.0]}
    totals = [checked.total(rewards, {name: found[at] for name, found in columns.items()}) for at in (0, 1)]
    assert totals == [0.5, -1.0]
    assert checked.scorable(rewards, Asked("Hello"))
    assert not checked.scorable(rewards[:1], Asked("Hello"))


def test_a_function_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "own_rewards.py"
    file.write_text(
        "def polite(asked, answer, cut):\n    return 1.0 if 'please' in answer else 0.0\n"
        "def broken(asked, answer, cut):\n    return 1 / 0\n"
        "def nothing(asked, answer, cut):\n    return 'much'\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert value("own_rewards:polite", "please") == 1.0
    (one,) = checked.load({"own_rewards:polite": 2.0}, "grpo.rewards")
    assert checked.sources([one]) == {"reward own_rewards:polite": file}
    with pytest.raises(DataError, match=r"reward own_rewards:broken: ZeroDivisionError: .*for the answer '7' to 'What"):
        value("own_rewards:broken", "7")
    with pytest.raises(DataError, match="it gives 'much', no number"):
        value("own_rewards:nothing", "7")


@pytest.mark.parametrize(
    ("rewards", "message"),
    [
        ({}, "'grpo.rewards' names no reward"),
        ({"exakt": 1.0}, "unknown reward 'grpo.rewards.exakt', did you mean 'exact'"),
        ({"judge": 1.0}, "unknown reward 'grpo.rewards.judge'"),
        ({"no_such_module:f": 1.0}, "'grpo.rewards.no_such_module:f': No module named 'no_such_module'"),
        ({"json:nothing": 1.0}, "has no attribute 'nothing'"),
        ({"json:__name__": 1.0}, "is no function"),
        ({"exact": Weighted(schema="a.json")}, "'grpo.rewards.exact.schema' has no effect"),
        ({"json_schema": Weighted(schema="nowhere.json")}, "nowhere.json"),
    ],
)
def test_what_is_no_reward_is_refused(rewards: Any, message: str) -> None:
    with pytest.raises(ParamsError) as error:
        checked.load(rewards, "grpo.rewards")
    assert message in str(error.value)
