"""The demo world as records, with what was planted in each: what the steps of `curate` are judged
by.
"""

from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from stages import demo
from stages.common.core.records import Record, Shape, message
from stages.common.demo import world
from stages.common.demo.rows import Row

FACTS = Path(__file__).parents[2] / "data/facts"
ROLES = {
    "system": "system",
    "human": "user",
    "gpt": "assistant",
    "function_call": "assistant",
    "observation": "tool",
}


class Planted(NamedTuple):
    """A record and the fault planted in it, if any."""

    shape: Shape
    record: Record
    fault: str


@cache
def build(seed: int = 1) -> list[Planted]:
    """Return every well-formed record of the world; each raw row is one."""
    p = demo.Params(seed=seed)
    return [
        planted(f"demo/{name}", number, row)
        for name, rows in demo.build(world.read(FACTS, p.largest_addend, p.facts_per_topic), p).items()
        for number, row in enumerate(rows, 1)
        if row.fault != "malformed"
    ]


def planted(source: str, number: int, row: Row) -> Planted:
    identity = {"id": f"{source}:{number}", "source": source}
    body: dict[str, Any] = row.body if isinstance(row.body, dict) else {"text": row.body}
    if "text" in body:
        return Planted("documents", identity | {"text": body["text"]}, row.fault)
    if "ranks" in body:
        prompt = [message(turn["role"], turn["content"]) for turn in body["prompt"]]
        return Planted("comparisons", identity | {"prompt": prompt, "responses": body["responses"]}, row.fault)
    turns = body.get("messages") or [
        {"role": ROLES[turn["from"]], "content": turn["value"]} for turn in body["conversations"]
    ]
    record = identity | {"messages": [message(turn["role"], turn["content"] or "") for turn in turns]}
    file = source.partition("/")[2].partition(".")[0].partition("_")[0]
    shape: Shape = "questions" if file == "questions" else "prompts" if file == "prompts" else "conversations"
    return Planted(shape, record, row.fault)
