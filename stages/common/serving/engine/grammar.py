"""What an answer has to be, as a grammar for structured decoding: JSON on a schema, calls of tools
as the model's template writes them, or either.
"""

import json
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from stages.common.core import templates
from stages.common.core.records import Record, message
from stages.common.generation.engines import structured
from stages.common.runtime.errors import DataError, ParamsError
from stages.common.serving.engine.requests import UnansweredError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

OPEN, CLOSE = "<tool_call>", "</tool_call>"
CALLS_AT_MOST = 4
NAME, ARGUMENTS = "probe_name", {"probe_key": "probe_value"}
ANY: Record = {"type": "object"}
SPACED = structured.COMPACT | {"item_separator": ", ", "key_separator": ": "}
"""A call's arguments stand as `json.dumps` writes them: so templates show them to a model."""


@dataclass(frozen=True)
class Form:
    """What an answer has to be."""

    schema: str | None = None
    """A JSON schema, as JSON, that an answer which calls nothing is valid on."""
    must_call: bool = False
    """Whether it has to call a tool."""
    name: str | None = None
    """The only tool that it may call."""
    strict: tuple[str, ...] = ()
    """The tools whose arguments have to be valid on their schemas; of the others that is tried."""
    calls_at_most: int = CALLS_AT_MOST

    def after_a_call(self) -> "Form":
        """Return what the answer has to be once a tool was called."""
        return replace(self, must_call=False, name=None)


class Written(NamedTuple):
    """How a template writes a call: what stands before its name, between name and arguments, behind
    them, and between two calls.
    """

    before: str
    between: str
    behind: str
    apart: str


def text_of(tokenizer: "PreTrainedTokenizerBase", form: Form, tools: str | None) -> str:
    """Return the grammar, in the language of llguidance. `tools` is their JSON, as in
    `chat.encode_prompt`. Raises UnansweredError for what cannot be kept.
    """
    offered = [tool.get("function", tool) for tool in json.loads(tools)] if tools else []
    offered = [tool for tool in offered if form.name in (None, tool["name"])]
    called = _calls(written(str(tokenizer.chat_template), tokenizer), offered, form) if offered else []
    if form.must_call:
        rules = [f'start: "{OPEN}" calls']
    elif form.schema is not None:
        answer = _kept(json.loads(form.schema), "response_format", structured.COMPACT, strict=True)
        rules = [f'start: answer | "{OPEN}" calls' if called else "start: answer", f"answer: {answer}"]
    else:
        free = f"SAID: /(?s:.+)/ & ~/(?s:.*{OPEN}.*)/"
        rules = ["start: SAID? | until_call calls", free, f'until_call[suffix="{OPEN}"]: /(?s:.*)/']
    return "\n".join([*rules, *called])


def _calls(how: Written, offered: list[Record], form: Form) -> list[str]:
    """Return the rules of calls, of which the first is opened already."""
    rules, opening = [], how.before.partition(OPEN)[2]
    for number, tool in enumerate(offered):
        arguments = _kept(tool.get("parameters") or ANY, "tools", SPACED, strict=tool["name"] in form.strict)
        head, tail = _literal(opening + tool["name"] + how.between), _literal(how.behind)
        rules.append(f"call_{number}: {head} {arguments} {tail}")
    one_more = f" ({_literal(how.apart + how.before.partition(OPEN)[0] + OPEN)} call)"
    any_call = " | ".join(f"call_{number}" for number in range(len(offered)))
    return [
        f"calls: call{one_more}~0..{form.calls_at_most - 1}" if form.calls_at_most > 1 else "calls: call",
        f"call: {any_call}",
        *rules,
    ]


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _kept(schema: Record, field: str, spaces: Record, *, strict: bool) -> str:
    """Return the rule of JSON on a schema; of one that cannot be kept, and does not have to be, of
    any object.
    """
    try:
        structured.check(schema)
    except ParamsError as error:
        if strict:
            raise UnansweredError(error.what, field=field, kind="invalid_value") from error
        schema = ANY
    return f"%json {json.dumps(schema | {'x-guidance': spaces}, ensure_ascii=False)}"


@lru_cache(maxsize=16)
def written(template: str, tokenizer: "PreTrainedTokenizerBase") -> Written:
    """Return how the tokenizer's template writes calls. Raises UnansweredError where that is not a
    way in which calls are read here.
    """
    del template  # a key: a tokenizer may be given another
    call: dict[str, Any] = {"name": NAME, "arguments": json.dumps(ARGUMENTS)}
    asked = message("user", "a")
    try:
        said = templates.text(tokenizer, [asked, message("assistant", "", tool_calls=[call, call])])
    except DataError as error:
        raise UnansweredError(error.what, field="tools") from error
    inner = said.partition(OPEN)[2].partition(CLOSE)[0]
    before, _, rest = inner.partition(NAME)
    between, found, behind = rest.partition(json.dumps(ARGUMENTS))
    apart, opened, _ = said.partition(CLOSE)[2].partition(OPEN)
    if not (found and opened):
        raise UnansweredError("the model's template writes calls in a way that is not read here", field="tools")
    return Written(OPEN + before, between, behind + CLOSE, apart)
