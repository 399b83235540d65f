"""Check 1: the export's tokenizer and template write every conversation as Lathe does, token by
token, given OpenAI's messages and nothing more.

A template that needs Lathe's names, or leaves the first token to Lathe, is given a beginning that
supplies them; it is taken only where the check then holds.
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from flows.export import conversations
from stages.common.core import chat, templates
from stages.common.core.records import Record
from stages.common.runtime.errors import DataError
from stages.common.runtime.logs import log

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MARKS = re.compile(r"\{%-?\s*(?:end)?generation\s*-?%\}")
"""What tells a trainer what the assistant says; only transformers knows it."""
NAMES = """\
{%- set given = namespace(messages=[]) %}
{%- for message in messages %}
{%- set called = namespace(all=[]) %}
{%- for call in message.tool_calls or [] %}
{%- set one = call.function or call %}
{%- set text = one.arguments if one.arguments is string else one.arguments | tojson %}
{%- set called.all = called.all + [dict(call, name=one.name, arguments=text, function=one)] %}
{%- endfor %}
{%- set thought = message.thought or message.reasoning_content or message.thinking or '' %}
{%- set kept = dict(message, content=message.content or '', thought=thought, tool_calls=called.all) %}
{%- set given.messages = given.messages + [kept] %}
{%- endfor %}
{%- set messages = given.messages %}
"""
"""Gives each message the names that Lathe gives it: `thought`, and of a call `name` and
`arguments`.
"""
FIRST = "{{- bos_token }}\n"
"""Begins with the token that Lathe puts before every text where the template does not."""


class Adapted(NamedTuple):
    """A template for others: its text, what was put before it, and the forms of a call's arguments
    in which it writes what Lathe does.
    """

    text: str
    added: tuple[str, ...]
    forms: tuple[str, ...]


def expected(tokenizer: "PreTrainedTokenizerBase", rows: Sequence[Record]) -> list[list[int] | None]:
    """Return Lathe's tokens of every row; a whole conversation has none where Lathe trains on
    another rendering than the template's own (TRL's, with marks).
    """
    own = str(tokenizer.chat_template)
    other = [one for one in templates.with_marks(tokenizer) if one != own]
    return [None if other and not row["prompt"] else conversations.ours(tokenizer, row) for row in rows]


def adapted(
    tokenizer: "PreTrainedTokenizerBase", rows: Sequence[Record], ours: Sequence[list[int] | None], marks: bool
) -> Adapted:
    """Return the template with the fewest additions that writes all rows as Lathe does, without
    marks unless `marks`. Raises DataError with the first difference of the last try.
    """
    own = str(tokenizer.chat_template)
    bare = own if marks else MARKS.sub("", own)
    wrong = ""
    for added in ((), ("names",), ("first token",), ("first token", "names")):
        if "first token" in added and not tokenizer.bos_token:
            continue
        parts = {"first token": FIRST, "names": NAMES}
        text = "".join(parts[name] for name in added) + bare
        forms = []
        for form in conversations.FORMS:
            theirs = [_rendered(tokenizer, text, conversations.plain(row, form)) for row in rows]
            wrong = difference(tokenizer, rows, ours, theirs)
            if not wrong:
                forms.append(form)
        if forms:
            if added:
                log.info("the template was given a beginning: %s", " and ".join(added))
            return Adapted(text, added, tuple(forms))
    raise DataError(f"the chat template writes other tokens elsewhere than in training: {wrong}", remedy=REMEDY)


REMEDY = "have the template read OpenAI's messages, and train with it"


def difference(
    tokenizer: "PreTrainedTokenizerBase",
    rows: Sequence[Record],
    ours: Sequence[list[int] | None],
    theirs: Sequence[list[int] | None],
) -> str:
    """Return where the first row differs, with the text around it, or ""."""
    for number, (row, mine, other) in enumerate(zip(rows, ours, theirs, strict=True), start=1):
        if mine is None or (other is not None and _equal(tokenizer, row, mine, other)):
            continue
        roles = ", ".join(one["role"] for one in row["messages"])
        if other is None:
            return f"conversation {number} ({roles}) is refused"
        at = next((at for at, (one, two) in enumerate(zip(mine, other, strict=False)) if one != two), None)
        at = min(len(mine), len(other)) if at is None else at
        here, there = (str(tokenizer.decode(ids[max(0, at - 3) : at + 5])) for ids in (mine, other))
        return f"conversation {number} ({roles}), token {at}: {there!r} in place of {here!r}"
    return ""


def _equal(tokenizer: "PreTrainedTokenizerBase", row: Record, mine: list[int], other: list[int]) -> bool:
    """Whether the tokens are the same. Behind the last answer of a whole conversation Lathe writes
    nothing, and an end of turn where the template leaves that to the next one.
    """
    if row["prompt"] or row["messages"][-1]["role"] != "assistant":
        return mine == other
    behind = str(tokenizer.decode(other[len(mine) :]))
    return (other[: len(mine)] == mine and not behind.strip()) or mine == [*other, chat.end_of_turn(tokenizer)]


def _rendered(tokenizer: "PreTrainedTokenizerBase", text: str, one: Record) -> list[int] | None:
    from jinja2 import TemplateError

    how = {"tokenize": True, "return_dict": True, "add_generation_prompt": one["prompt"]}
    try:
        batch = tokenizer.apply_chat_template(one["messages"], tools=one["tools"], chat_template=text, **how)
    except (TemplateError, TypeError, ValueError):
        return None
    return list(batch["input_ids"])
