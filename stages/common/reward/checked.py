"""Rewards that can be checked without a model: each a function of what was asked and answered, and
several of them weighted.
"""

import importlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Protocol

from pydantic import Field

from stages.common.core import params
from stages.common.core.records import Record
from stages.common.runtime.errors import DataError, ParamsError
from stages.common.text import graders, rule_grader
from stages.common.text.thoughts import without_thoughts
from stages.common.text.units import units

MODEL = "model"
"""The reward that is the reward model's score, in standard deviations of demonstrations."""


@dataclass(frozen=True)
class Asked:
    """What an answer is compared with."""

    question: str
    """The prompt's last turn."""
    reference: str | None = None
    category: str | None = None

    @classmethod
    def of(cls, row: Record) -> "Asked":
        """Return what a record with messages, reference and category asks."""
        return cls(row["messages"][-1]["content"], row.get("reference"), row.get("category"))


class Prompt(list[int]):
    """A prompt as tokens, with what it asks."""

    def __init__(self, tokens: Sequence[int], asked: Asked) -> None:
        super().__init__(tokens)
        self.asked = asked


class Check(Protocol):
    """A reward: `cut` says that the answer has no end of turn; None where it cannot be said."""

    def __call__(self, asked: Asked, answer: str, cut: bool) -> float | None:
        """Return the reward of one answer."""


class Weighted(params.StageParams):
    """One of `rewards`: its weight, and what it needs to know."""

    weight: float = 1.0
    """What its value is multiplied by; below 0 it is a penalty."""
    schema_file: str | None = Field(default=None, alias="schema")
    """Of `json_schema`: file of the JSON schema; without one, the reference is the schema."""


Rewards = dict[str, float | Weighted]
"""Weight by name: `model`, one of FUNCTIONS, or a function of one's own as `module:function`."""


def graded(grader: graders.Grader, asked: Asked, answer: str, cut: bool) -> float | None:
    """Return 1.0 for an answer that a grader calls right, else 0.0; None without a reference."""
    return None if asked.reference is None else float(graders.RULES[grader](answer, asked.reference))


def rules(asked: Asked, answer: str, cut: bool) -> float:
    """Return the sum of the weighted indicators that rank answers in a round."""
    found = rule_grader.judge(asked.question, answer, asked.reference, asked.category, cut)
    return rule_grader.score(found, rule_grader.WEIGHTS)


def length(asked: Asked, answer: str, cut: bool) -> float:
    """Return the words and Chinese characters of an answer."""
    return float(len(units(answer)))


def json_schema(schema: Path | None, asked: Asked, answer: str, cut: bool) -> float | None:
    """Return 1.0 for an answer that is JSON by the schema, else 0.0; None where there is no schema.

    Raises DataError for a schema that is none.
    """
    text = schema.read_text(encoding="utf-8") if schema else asked.reference
    if text is None:
        return None
    try:
        return float(validator(text).is_valid(json.loads(answer)))
    except ValueError:
        return 0.0


@cache
def validator(schema: str) -> Any:
    """Return jsonschema's validator of a schema as text. Raises DataError for a schema that is
    none.
    """
    import jsonschema

    try:
        found = json.loads(schema)
        if not isinstance(found, (dict, bool)):
            raise ValueError("it is no object")
        kind = jsonschema.validators.validator_for(found)
        kind.check_schema(found)
    except (ValueError, jsonschema.SchemaError) as error:
        shown = schema if len(schema) < 80 else f"{schema[:80]}…"
        what = f"no JSON schema: {shown!r}: {str(error).splitlines()[0]}"
        raise DataError(what, remedy="mend the schema, or take json_schema out of the rewards") from error
    return kind(found)


FUNCTIONS: dict[str, Check] = {
    "rules": rules,
    "length": length,
    **{name: partial(graded, name) for name in graders.RULES},
}
"""By name; `json_schema` is made with its file."""
REFERENCED = frozenset(graders.RULES)
"""Those that say nothing without a reference."""


@dataclass(frozen=True)
class Reward:
    """One of the rewards, ready to be called; `function` is None of the reward model."""

    name: str
    weight: float
    function: Check | None
    source: Path | None = None
    """The file of a function of one's own, or a schema: part of what a training is known by."""

    def of(self, asked: Asked, answer: str, cut: bool) -> float | None:
        """Return the unweighted reward of what an answer says. Raises DataError when the function
        fails or gives no number.
        """
        assert self.function is not None
        try:
            value = self.function(asked, without_thoughts(answer), cut)
        except DataError:
            raise
        except Exception as error:  # the function may be anybody's
            what = f"{type(error).__name__}: {error}, for the answer {answer[:200]!r} to {asked.question[:200]!r}"
            raise DataError(what, where=f"reward {self.name}", remedy="mend the function") from error
        if value is not None and not (isinstance(value, (int, float)) and math.isfinite(value)):
            what = f"it gives {value!r}, no number, for the answer {answer[:200]!r}"
            raise DataError(what, where=f"reward {self.name}", remedy="return a float, or None for no opinion")
        return None if value is None else float(value)


def load(rewards: Rewards, where: str) -> list[Reward]:
    """Return the rewards of a section of params.yaml, in the order given.

    Raises ParamsError for none, for a name that is unknown, and for a function that is not there.
    """
    if not rewards:
        raise ParamsError(f"'{where}' names no reward", where=params.PARAMS_FILE, remedy=f"{where}: {{model: 1.0}}")
    return [_reward(name, given, where) for name, given in rewards.items()]


def _reward(name: str, given: float | Weighted, where: str) -> Reward:
    settings = given if isinstance(given, Weighted) else Weighted(weight=given)
    if settings.schema_file and name != "json_schema":
        raise ParamsError(f"'{where}.{name}.schema' has no effect", where=params.PARAMS_FILE, remedy="remove it")
    if name == MODEL:
        return Reward(name, settings.weight, None)
    if name == "json_schema":
        schema = Path(settings.schema_file) if settings.schema_file else None
        if schema and not schema.is_file():
            raise ParamsError(f"'{where}.{name}.schema' is not there", where=str(schema), remedy="name a file")
        return Reward(name, settings.weight, partial(json_schema, schema), schema)
    if ":" in name:
        return _own(name, settings.weight, where)
    if name not in FUNCTIONS:
        known = [MODEL, "json_schema", *FUNCTIONS]
        what = f"unknown reward '{where}.{name}'{params.suggestion(name, known)}"
        remedy = f"choose from {', '.join(known)}, or write module:function"
        raise ParamsError(what, where=params.PARAMS_FILE, remedy=remedy)
    return Reward(name, settings.weight, FUNCTIONS[name])


def _own(name: str, weight: float, where: str) -> Reward:
    module, _, attribute = name.partition(":")
    try:
        loaded = importlib.import_module(module)
        function: Check = getattr(loaded, attribute)
    except (ImportError, AttributeError) as error:
        remedy = "the module must be importable from the project's root"
        raise ParamsError(f"'{where}.{name}': {error}", where=params.PARAMS_FILE, remedy=remedy) from error
    if not callable(function):
        raise ParamsError(f"'{where}.{name}' is no function", where=params.PARAMS_FILE, remedy="name a function")
    return Reward(name, weight, function, Path(str(loaded.__file__)))


def uses_model(rewards: Sequence[Reward]) -> bool:
    """Whether the reward model is one of the rewards."""
    return any(one.function is None for one in rewards)


def sources(rewards: Sequence[Reward]) -> dict[str, Path]:
    """Return the files that functions of one's own and schemas lie in, for a training's
    fingerprint.
    """
    return {f"reward {one.name}": one.source for one in rewards if one.source}


def scorable(rewards: Sequence[Reward], asked: Asked) -> bool:
    """Whether any of the rewards can say something of an answer to this prompt."""
    return asked.reference is not None or any(one.name not in REFERENCED for one in rewards)


def total(rewards: Sequence[Reward], values: Mapping[str, float | None]) -> float:
    """Return the weighted sum of what each reward gives; one that gives None adds nothing."""
    return sum(one.weight * (values[one.name] or 0.0) for one in rewards)


def columns(
    rewards: Sequence[Reward],
    asked: Sequence[Asked],
    answers: Sequence[str],
    cut: Sequence[bool],
    scores: Callable[[], Sequence[float]] | None = None,
) -> dict[str, list[float | None]]:
    """Return what each reward gives each answer; `scores` are the reward model's."""
    found: dict[str, list[float | None]] = {}
    for one in rewards:
        if one.function is None:
            assert scores is not None
            found[one.name] = list(scores())
        else:
            rows = zip(asked, answers, cut, strict=True)
            found[one.name] = [one.of(*row) for row in rows]
    return found
