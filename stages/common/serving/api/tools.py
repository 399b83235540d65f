"""Tools the server runs for a model: a calculator, and a search over the curated documents. They do
nothing else.
"""

import ast
import json
import math
import operator
import threading
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from stages.common.core import records
from stages.common.core.records import Record
from stages.common.runtime.errors import DataError
from stages.common.runtime.logs import log
from stages.common.text.units import units

Name = Literal["calculator", "search"]
Number = int | float

EXPRESSION_AT_MOST = 200
VALUE_AT_MOST = 10**30
EXPONENT_AT_MOST = 64
PASSAGE_CHARACTERS, PASSAGES = 300, 2
OPERATIONS: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
SIGNS = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-"})  # how people write them


class ToolError(Exception):
    """What a tool could not do, in words for the model."""


@dataclass(frozen=True)
class Tool:
    """A function of one text argument."""

    description: str
    argument: str
    run: Callable[[str], str]


class Tools:
    """The tools `names`; `documents` is the folder of Parquet files that `search` reads."""

    def __init__(self, names: Sequence[Name], documents: Path) -> None:
        known: dict[Name, Tool] = {
            "calculator": Tool("Works out a sum.", "expression", calculate),
            "search": Tool("Finds passages in the documents.", "query", Search(documents)),
        }
        self._tools: dict[str, Tool] = {name: known[name] for name in dict.fromkeys(names)}

    @property
    def names(self) -> tuple[str, ...]:
        """Which there are."""
        return tuple(self._tools)

    def schemas(self, names: Sequence[str]) -> str:
        """Return the JSON that tells a model of the tools `names`, in the form of the training
        data's.
        """
        return json.dumps([_schema(name, self._tools[name]) for name in names], ensure_ascii=False)

    def run(self, name: str, arguments: str, allowed: Sequence[str]) -> str:
        """Return what the tool says, or `error: ...`: the model is told of its mistakes as of
        everything else.
        """
        try:
            if name not in allowed or name not in self._tools:
                raise ToolError(f"there is no tool '{name}', only: {', '.join(allowed)}")
            tool = self._tools[name]
            return tool.run(_argument(arguments, tool.argument))
        except ToolError as error:
            return f"error: {error}"


def _schema(name: str, tool: Tool) -> Record:
    parameters = {"type": "object", "properties": {tool.argument: {"type": "string"}}}
    function = {"name": name, "description": tool.description, "parameters": parameters}
    return {"type": "function", "function": function}


def _argument(arguments: str, name: str) -> str:
    try:
        given = json.loads(arguments)
    except (ValueError, RecursionError) as error:
        raise ToolError("the arguments are not JSON") from error
    if not isinstance(given, dict) or not isinstance(given.get(name), str):
        raise ToolError(f'the arguments are to be {{"{name}": "..."}}')
    return str(given[name])


def calculate(expression: str) -> str:
    """Return the value of a sum of numbers, + - * / ** and parentheses. Raises ToolError."""
    text = unicodedata.normalize("NFKC", expression).translate(SIGNS).strip()
    if len(text) > EXPRESSION_AT_MOST:
        raise ToolError(f"the expression has more than {EXPRESSION_AT_MOST} characters")
    try:
        value = _value(ast.parse(text, mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # MemoryError: nested beyond the parser
        raise ToolError("not an expression of numbers") from error
    except ZeroDivisionError as error:
        raise ToolError("a division by zero") from error
    except OverflowError as error:
        raise ToolError("a number is too large") from error
    return str(value) if isinstance(value, int) else f"{value:.12g}"


def _value(node: ast.AST) -> Number:
    """Return a node's value. Nothing but numbers and operators is known, so there is nothing to
    call or to look up.
    """
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return _bounded(value)
        case ast.UnaryOp(op=ast.UAdd() | ast.USub() as sign, operand=inner):
            return _value(inner) if isinstance(sign, ast.UAdd) else -_value(inner)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATIONS:
            first, second = _value(left), _value(right)
            if isinstance(op, ast.Pow) and abs(second) > EXPONENT_AT_MOST:
                raise ToolError(f"an exponent is larger than {EXPONENT_AT_MOST}")
            return _bounded(OPERATIONS[type(op)](first, second))
    raise ToolError("only numbers, + - * / ** and parentheses are known")


def _bounded(value: Any) -> Number:
    if isinstance(value, complex):
        raise ToolError("a root of a negative number")
    if not math.isfinite(value) or abs(value) > VALUE_AT_MOST:
        raise ToolError("a number is too large")
    return value


class Search:
    """The best passages by BM25 (Robertson and Zaragoza 2009), of an index in memory that the first
    query builds.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._lock = folder, threading.Lock()
        self._passages: list[str] = []
        self._index: Any = None

    def __call__(self, query: str) -> str:
        """Return the passages, one a paragraph. Raises ToolError when there is nothing to find."""
        import numpy as np

        with self._lock:
            if self._index is None:
                self._build()
        asked = units(query)
        scores = self._index.get_scores(asked) if asked else np.zeros(len(self._passages))
        best = np.argsort(-scores, kind="stable")[:PASSAGES]
        found = [self._passages[place] for place in best if scores[place] > 0]
        if not found:
            raise ToolError("nothing was found")
        return "\n\n".join(found)

    def _build(self) -> None:
        import bm25s

        try:
            found = dict.fromkeys(one for row in records.read(self._folder) for one in passages(row["text"]))
        except DataError as error:
            log.warning("nothing can be searched: %s", error)
            raise ToolError("there are no documents") from error
        self._passages = list(found)
        index = bm25s.BM25()
        index.index([units(one) for one in self._passages], show_progress=False)
        self._index = index
        log.info("%d passages can be searched", len(self._passages))


def passages(text: str) -> Iterator[str]:
    """Yield `text` in pieces of at most PASSAGE_CHARACTERS, cut between lines where that is
    possible.
    """
    piece = ""
    for line in text.split("\n"):
        if piece and len(piece) + len(line) >= PASSAGE_CHARACTERS:
            yield piece
            piece = ""
        piece = f"{piece}\n{line}" if piece else line
        while len(piece) > PASSAGE_CHARACTERS:
            yield piece[:PASSAGE_CHARACTERS]
            piece = piece[PASSAGE_CHARACTERS:]
    if piece.strip():
        yield piece
