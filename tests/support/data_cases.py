"""Small files as people have them, one kind of fault a file, with what is to become of each row.

A fate is the shapes of a row's records that are left after curation, or why there are none:
`refused: …` by `ingest`, `dropped: …` by `curate`.
"""

import json
from typing import Any, NamedTuple

Row = dict[str, Any]
TALK, PAIR, BOTH, LABELLED = ("conversations",), ("comparisons",), ("conversations", "labelled"), ("labelled",)
DOCUMENT, NO_ORDER = ("documents",), ("dropped: bad_role_order",)
WEATHER = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]


class Case(NamedTuple):
    """Rows of one file, and their fates."""

    rows: list[Row]
    fates: list[tuple[str, ...]]


def turns(*said: str, **last: Any) -> list[Row]:
    """Turns of user, assistant, …; `last` goes to the last one."""
    found: list[Row] = [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(said)]
    found[-1] |= last
    return found


def share(*said: tuple[str, str]) -> list[Row]:
    return [{"from": who, "value": text} for who, text in said]


def call(city: str, name: str = "") -> Row:
    function = {"name": "weather", "arguments": json.dumps({"city": city})}
    return {"id": name, "type": "function", "function": function} if name else {"function": function}


def asks(city: str, *more: Row) -> list[Row]:
    return [{"role": "user", "content": f"Is there snow in {city}?"}, *more]


def says(text: Any, **more: Any) -> Row:
    return {"role": "assistant", "content": text, **more}


def refused(reason: str) -> tuple[str, ...]:
    return (f"refused: {reason}",)


def called(city: str, key: str = "content") -> Row:
    given = {"name": "weather", "arguments": {"city": city}}
    return {"role": "tool_call"} | ({"content": json.dumps(given)} if key == "content" else given)


NEXT = {"role": "tool", "content": "snow"}, says("Yes, it snows.")
OTHER = (
    {"role": "tool", "tool_call_id": "b", "content": "rain"},
    {"role": "tool", "tool_call_id": "a", "content": "snow"},
)
CASES = {
    "01-tool-calls": Case(
        [
            {
                "tools": WEATHER,
                "messages": asks(
                    "Kiruna or in Malmo",
                    says(None, tool_calls=[call("Kiruna", "a"), call("Malmo", "b")]),
                    *OTHER,
                    says("In Kiruna."),
                ),
            },
            {"tools": WEATHER, "messages": asks("Graz", says("I look it up.", tool_calls=[call("Graz", "a")]), *NEXT)},
            {"tools": WEATHER, "messages": asks("Linz", says("", tool_calls=[call("Linz")]), *NEXT)},
            {"tools": WEATHER, "messages": asks("Wels", says(None, tool_calls=[]))},
            {"messages": asks("Bern", called("Bern", "name"), *NEXT)},
            {"messages": asks("Chur", called("Chur"), {"role": "tool_response", "content": "snow"}, NEXT[1])},
            {"messages": asks("Thun", says("<think>The weather is asked for.</think>"), called("Thun"), *NEXT)},
        ],
        [TALK, TALK, TALK, refused("bad turn"), TALK, TALK, TALK],
    ),
    "02-multimodal": Case(
        [
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "a.png"}}]}]},
            {"messages": turns("<image>How many boats are there?", "Three."), "images": ["a.png"]},
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "Count to"}]}, says("One, two.")]},
            {"instruction": "<audio>Who is speaking?", "output": "A woman.", "audios": ["a.wav"]},
        ],
        [refused("refers to images"), refused("refers to images"), TALK, refused("refers to audio")],
    ),
    "03-sharegpt": Case(
        [
            {"conversations": share(("gpt", "I can cook."), ("human", "What do I do with kale?"), ("gpt", "Fry it."))},
            {"conversations": share(("system", "You cook."), ("human", "How long do eggs take?"), ("gpt", "Six."))},
            {"conversations": share(("human", "And rice?"), ("human", "Brown rice."), ("gpt", "Forty minutes."))},
            {"conversations": share(("human", "Is salt needed?"), ("gpt", ""))},
            {"conversations": share(("human", "Is oil needed?"), ("gpt", "Some."), ("human", "Which?"))},
            {"conversations": share(("human", "What is ghee?"), ("bing", "Clarified butter."))},
            {"conversations": share(("Human", "What is suet?"), ("GPT", "Hard fat."))},
            {"conversations": share(("user", "What is lard?"), ("assistant", "Pork fat.")), "system": "One line."},
            {"conversations": [{"user": "What is curd?", "assistant": "Soured milk."}]},
            {"conversations": [{"human": "What is whey?", "assistant": "What curd leaves."}], "category": "milk"},
            {
                "conversations": share(
                    ("human", "Cook."), ("gpt", "Yes."), ("system", "Stop."), ("human", "?"), ("gpt", "!")
                )
            },
            {"items": share(("human", "What is brine?"), ("gpt", "Salt water.")), "id": "x"},
        ],
        [NO_ORDER, TALK, NO_ORDER, ("dropped: empty_turn",), ("dropped: cut",), *[TALK] * 5, NO_ORDER, TALK],
    ),
    "04-kto": Case(
        [
            {"prompt": "Name a nut.", "completion": "A plum is a nut.", "label": False},
            {"prompt": "Name a berry.", "completion": "A currant is a berry.", "label": True},
            {"messages": turns("Name a root.", "A leaf is a root."), "label": False},
            {"messages": turns("Name a bulb.", "An onion is a bulb."), "label": True},
            {"instruction": "Name a stem.", "input": "", "output": "A pea is a stem.", "kto_tag": False},
            {"prompt": turns("Name a seed."), "completion": [says("Rice is a seed.")], "label": True},
            {"prompt": turns("Name a leaf."), "completion": [says("A beet is a leaf.")], "label": False},
        ],
        [LABELLED, BOTH, LABELLED, BOTH, LABELLED, BOTH, LABELLED],
    ),
    "05-preferences": Case(
        [
            {"prompt": "Why a keel?", "chosen": "It keeps a boat upright.", "rejected": ["To sink.", "For the look."]},
            {"chosen": turns("Why a rudder?", "It steers."), "rejected": turns("Why a rudder?", "It rows.")},
            {
                "prompt": "Why a mast?",
                "chosen": turns("Why a mast?", "It holds sails."),
                "rejected": turns("Why a mast?", "For birds."),
                "score_chosen": 8.0,
            },
            {"prompt": turns("Why a bow?"), "chosen": [says("It parts water.")], "rejected": [says("It ties.")]},
            {
                "conversations": share(("human", "Why a deck?")),
                "chosen": {"from": "gpt", "value": "It is the floor."},
                "rejected": {"from": "gpt", "value": "It is a card."},
            },
            {"system": "Be brief.", "question": "Why a hull?", "chosen": "It floats.", "rejected": "It hums."},
            {"messages": turns("Why an oar?", "It rows."), "rejected_response": "It is ore."},
            {"query": "Why a buoy?", "response": "It marks.", "rejected_response": "It is a boy."},
            {"instruction": "Why a lock?", "input": "", "output": ["It lifts ships.", "It has a key."]},
            {"prompt": "Why a pier?", "response_0": "To land.", "response_1": "A peer.", "better_response_id": 0},
            {"history": "Why a tide?", "human_ref_A": "Tied.", "human_ref_B": "The moon pulls.", "labels": 0},
            {
                "question": {"full_text": "Why a dam?"},
                "answer_0": "It holds water.",
                "answer_1": "A curse.",
                "score_0": 0.5,
                "score_1": -0.5,
            },
            {
                "info": {"post": "My boat leaked and I was wet.", "title": "Boat", "subreddit": "x"},
                "summaries": [{"text": "Boat leaked."}, {"text": "Wet good."}],
                "choice": 0,
            },
            {
                "prompt": "Why a sail?",
                "answers": [{"answer": "Wind drives it.", "rank": 1.0}, {"answer": "Sale.", "rank": 2}],
            },
            {
                "instruction": "Why a rope?",
                "completions": [{"response": "It ties.", "overall_score": 9}, {"response": "No.", "overall_score": 1}],
            },
            {
                "prompt": "\n\nHuman: Why a net?\n\nAssistant:",
                "chosen": " It catches fish.",
                "rejected": " It is neat.",
            },
            {"question": "Why an anchor?", "response_j": "It holds the ship.", "response_k": "It rhymes."},
            {
                "prompt": "Why a lamp?",
                "responses": [{"text": "It lights.", "score": 5}, {"text": "A lamb.", "score": 1}],
            },
            {"question": "Why a crew?", "choices": [{"text": "They work the ship.", "score": 7}]},
        ],
        [*[PAIR] * 8, refused("bad output"), *[PAIR] * 9, refused("bad choices")],
    ),
    "07-reasoning": Case(
        [
            {"messages": turns("Legs of two bees?", "12.", reasoning_content="Six each.")},
            {"messages": turns("Legs of two cats?", "8.", thinking="Six each.")},
            {"messages": turns("Legs of two hens?", "4.", reasoning="Six each.")},
            {"messages": turns("Legs of two ants?", "<think>\nSix each.\n</think>\n\n12.")},
            {"messages": asks("Legs of two cows?", says(None, reasoning_content="Six each."))},
            {"instruction": "Legs of two owls?", "input": "", "output": "4.", "reasoning": "Six each."},
            {
                "messages": [
                    *turns("Legs of two rams?"),
                    says([{"type": "reasoning", "text": "Six each."}, {"type": "text", "text": "8."}]),
                ]
            },
        ],
        [TALK, TALK, TALK, TALK, refused("bad turn"), TALK, TALK],
    ),
    "08-openai": Case(
        [
            {"messages": [{"role": "developer", "content": "Be glad."}, *turns("How is the sea?", "Bright.")]},
            {"messages": [*turns("Name a sea.", "The Rhine.", weight=0), *turns("Sure?", "The Kara.", weight=1)]},
            {"messages": [*turns("Name a bay.", "Biscy.", train=False), *turns("Spell it.", "Biscay.")]},
            {"custom_id": "a", "method": "POST", "url": "/v1", "body": {"messages": turns("Name a cape.")}},
            {"custom_id": "a", "response": {"body": {"choices": [{"message": says("Horn.")}]}}},
            {"messages": turns("Begin a verse about rain.", "Grey on the hill,")},
            {"messages": turns("Go on: violets are", "blue.")},
            {"messages": [{"role": "system", "content": ""}, *turns("Say yes.", "Yes.")]},
            {"messages": turns("Say no.", "No.", refusal=None, function_call=None, tool_calls=None, name=None)},
            {
                "input": {"messages": turns("Say X.")},
                "preferred_output": [says("X.")],
                "non_preferred_output": [says("Y.")],
            },
            {"messages": [{"role": "user", "name": "eva", "content": "First."}, *turns("Second.", "Hello.")]},
            {"messages": turns("Say Z.", "Z."), "source": "forum", "license": "cc"},
        ],
        [
            TALK,
            *[refused("not to be learned")] * 2,
            *[refused("unknown format")] * 2,
            *[TALK] * 4,
            PAIR,
            NO_ORDER,
            TALK,
        ],
    ),
}
