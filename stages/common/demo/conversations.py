"""The demo world as talk: conversations, ranked answers, prompts and test questions, in the raw
formats people have.
"""

import itertools
import json
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

from stages.common.demo.faults import pii
from stages.common.demo.items import styled
from stages.common.demo.rows import Row
from stages.common.demo.sizes import Style
from stages.common.demo.world import LANGUAGES, SPACE, STOP, Fact, Item, World, ask, reply, state

Message = dict[str, Any]
THANKS_SHARE = 0.3
STYLES: tuple[Style, ...] = get_args(Style)
ADDENDS = [(a, b) for a, b in itertools.product(range(100), repeat=2) if max(a, b) > 9]
ROLES = {"system": "system", "user": "human", "assistant": "gpt", "tool": "observation"}


def single_turns(items: Sequence[Item]) -> list[Row]:
    """Return one conversation of one question for each item."""
    return [conversation([user(item.text), assistant(item.reply)]) for item in items]


def in_turn(items: Sequence[Item]) -> list[tuple[Item, str]]:
    """Return each item with the style of its answer; styles take turns."""
    return [(item, STYLES[index % len(STYLES)]) for index, item in enumerate(items)]


def by_writer(
    items: Sequence[Item], manners: Mapping[str, Style], share: float, rng: random.Random
) -> tuple[list[tuple[Item, str]], list[Item]]:
    """Return the items that the writer of their topic answers in the manner that writer has, each
    with its style, and all others. One with a manner has it in `share` of the answers.
    """
    found: list[tuple[Item, str]] = []
    plain: list[Item] = []
    for item in items:
        style = manners.get(item.topic)
        if style and rng.random() < share:
            found.append((item, style))
        else:
            plain.append(item)
    return found, plain


def styled_turns(world: World, items: Sequence[tuple[Item, str]], rng: random.Random) -> list[Row]:
    """Return conversations whose answer is verbose, hedging or rude: what preferences are to remove
    later.
    """
    rows = []
    for item, style in items:
        answer = assistant(styled(world, item, style, rng))
        rows.append(conversation([user(item.text), answer], fault="styled_answer", detail={"kind": style}))
    return rows


def leaked(items: Sequence[Item]) -> list[Row]:
    """Return conversations that give away test questions."""
    return [conversation([user(item.text), assistant(item.reply)], fault="leaked_conversation") for item in items]


def with_pii(world: World, items: Sequence[Item], count: int, rng: random.Random) -> list[Row]:
    """Return conversations in which the person gives away (fictitious) personal data before
    asking.
    """
    rows = []
    for language, text, detail in pii(world.texts["faults"], count, rng):
        item = rng.choice([item for item in items if item.language == language])
        turns = [user(text + SPACE[language] + item.text), assistant(item.reply)]
        rows.append(conversation(turns, fault="pii_conversation", detail=detail))
    return rows


def multi_turns(
    world: World, items: Sequence[Item], asked: Sequence[Fact], count: int, rng: random.Random
) -> list[Row]:
    """Return conversations in which a follow-up (`And of Spain?`) leans on the question
    before it.
    """
    rows = []
    for item in rng.sample(items, count):
        language = item.language
        others = [fact for fact in asked if fact.topic == item.topic and fact != item.fact]
        turns = [item.text, item.reply]
        for fact in rng.sample(others, rng.choice((1, 1, 2))):
            follow_up = ask(fact, language, rng.choice(world.phrasings(fact.topic, language, "follow_ups")))
            turns += [follow_up.text, follow_up.reply]
        if len(turns) == 4 and rng.random() < THANKS_SHARE:
            thanks = world.texts["general"]["thanks"][language]["reply"]
            turns += [rng.choice(world.texts["scenes"]["thanks"][language]), thanks]
        rows.append(conversation([(user, assistant)[index % 2](text) for index, text in enumerate(turns)]))
    return rows


def instructed(world: World, items: Sequence[Item], count: int, rng: random.Random) -> list[Row]:
    """Return conversations whose system prompt decides language or length of the answer."""
    rows = []
    for index, item in enumerate(rng.sample(items, count)):
        scenes = [scene for scene in world.texts["scenes"]["systems"] if scene["asks"] == item.language]
        scene = scenes[index // 2 % len(scenes)]
        assert item.fact is not None
        answer = reply(item.fact, scene["answers"])
        if scene["effect"] == "sentence":
            answer = state(item.fact, item.language, world.phrasings(item.topic, item.language, "statements")[0])
        rows.append(conversation([message("system", scene["text"]), user(item.text), assistant(answer)]))
    return rows


def sums(rng: random.Random) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Return all sums of two numbers below 100, not both of one digit, in two halves: those that
    conversations ask the calculator for, and those of documents.
    """
    drawn = rng.sample(ADDENDS, len(ADDENDS))
    half = len(drawn) // 2
    return drawn[:half], drawn[half:]


def calculations(world: World, sums: Sequence[tuple[int, int]], rng: random.Random) -> list[Row]:
    """Return a conversation that calls the calculator for each of `sums`. As no sum stands in two
    of them, what is held out asks for new ones.
    """
    texts = world.texts["scenes"]
    rows = []
    for index, (a, b) in enumerate(sums):
        language = LANGUAGES[index % 2]
        expression, result = f"{a} + {b}", str(a + b)
        call = {"name": "calculator", "arguments": json.dumps({"expression": expression})}
        turns = [
            user(rng.choice(texts["calculator"][language]).format(expression=expression)),
            {"role": "assistant", "content": "", "tool_calls": [call]},
            message("tool", result),
            assistant(result + STOP[language]),
        ]
        rows.append(conversation(turns, tools=texts["tools"]))
    return rows


def comparison(world: World, item: Item, tie_share: float, rng: random.Random) -> Row:
    """Return four ranked answers to one question: right and short, then wordy, then evasive, then
    wrong or rude.
    """
    short = item.reply
    third = styled(world, item, rng.choice(("hedging", "other-language")) if item.fact else "hedging", rng)
    if bare(third) == bare(short):
        third = styled(world, item, "hedging", rng)
    worst = styled(world, item, rng.choice(("wrong", "wrong", "rude", "empty")), rng)
    if worst == third:
        worst = styled(world, item, "empty", rng)
    ranked = [(short, 1), (styled(world, item, "verbose", rng), 2), (third, 3), (worst, 4)]
    if rng.random() < tie_share:
        ranked = [(answer, rank if rank < 3 else rank - 1) for answer, rank in ranked]
    ranked = rng.sample(ranked, len(ranked))
    return Row(
        {
            "prompt": [user(item.text)],
            "responses": [answer for answer, _ in ranked],
            "ranks": [rank for _, rank in ranked],
            "annotator": "rules",
            "categories": [item.category],
        }
    )


def bare(answer: str) -> str:
    """Return an answer without its full stop."""
    return answer.rstrip("".join(STOP.values()))


def prompt(item: Item) -> Row:
    """Return a question with its reference, for training by reward."""
    return Row({"messages": [user(item.text)], "reference": item.reply, "category": item.category})


def question(item: Item, group: str) -> Row:
    """Return a test question."""
    return Row({"messages": [user(item.text)], "reference": item.reply, "group": group, "category": item.category})


def message(role: str, content: str) -> Message:
    """Return one turn."""
    return {"role": role, "content": content}


def user(content: str) -> Message:
    """Return what a person says."""
    return message("user", content)


def assistant(content: str) -> Message:
    """Return what the model is to say."""
    return message("assistant", content)


def conversation(turns: list[Message], tools: Any = None, fault: str = "", detail: dict[str, str] | None = None) -> Row:
    """Return turns as a row, not yet in any raw format."""
    return Row({"messages": turns} | ({"tools": tools} if tools else {}), fault, detail or {})


def distinct(rows: Iterable[Row]) -> list[Row]:
    """Return the rows without those whose body an earlier one has."""
    return list({json.dumps(row.body, ensure_ascii=False): row for row in reversed(list(rows))}.values())[::-1]


def as_openai(row: Row) -> Row:
    """Return the row as OpenAI writes it: tool calls with ids, null content beside them, tools as
    objects.
    """
    assert isinstance(row.body, dict)
    turns: list[Message] = []
    called = -1
    for turn in row.body["messages"]:
        if turn.get("tool_calls"):
            called += 1
            calls = [{"id": f"call_{called}", "type": "function", "function": call} for call in turn["tool_calls"]]
            turns.append({"role": "assistant", "content": None, "tool_calls": calls})
        else:
            turns.append(turn | ({"tool_call_id": f"call_{called}"} if turn["role"] == "tool" else {}))
    return Row(row.body | {"messages": turns}, row.fault, row.detail)


def as_sharegpt(row: Row) -> Row:
    """Return the row as ShareGPT writes it: from and value, a call as JSON text, tools as one JSON
    string.
    """
    assert isinstance(row.body, dict)
    turns = []
    for turn in row.body["messages"]:
        if turn.get("tool_calls"):
            call = turn["tool_calls"][0]
            value = json.dumps({"name": call["name"], "arguments": json.loads(call["arguments"])})
            turns.append({"from": "function_call", "value": value})
        else:
            turns.append({"from": ROLES[turn["role"]], "value": turn["content"]})
    tools = {"tools": json.dumps(row.body["tools"])} if "tools" in row.body else {}
    return Row({"conversations": turns} | tools, row.fault, row.detail)
