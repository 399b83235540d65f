"""What a page offers and asks: its settings, its library of prompts, and the question that its
inputs make.
"""

import html
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from stages.common.annotation.feedback import CHARACTERS_AT_MOST
from stages.common.core.records import Record, message
from stages.common.generation.sampling import Sampling
from stages.common.ranking.eligibility import Wanted
from stages.common.runtime.errors import DataError
from stages.common.serving.api.schema import BEAMS_AT_MOST
from stages.common.serving.api.tools import Tools
from stages.common.serving.engine.champions import Question

PROBLEM = "problem"
SAMPLING, GREEDY, BEAM = "sampling", "greedy", "beam search"


class Prompt(NamedTuple):
    """One entry of the page's library."""

    name: str
    system: str
    text: str


LIBRARY = (
    Prompt(
        "SQL from a schema",
        "You write one SQL query that answers the question for the given schema. Answer with the query alone.",
        "Schema:\nCREATE TABLE orders (id INTEGER, customer TEXT, total REAL, placed DATE);\n\n"
        "Question: which three customers spent most in 2025?",
    ),
    Prompt(
        "Commit message from a diff",
        "You write a commit message: one line of at most 72 characters that says why, in the imperative.",
        "diff --git a/retry.py b/retry.py\n-    time.sleep(1)\n+    time.sleep(min(2 ** attempt, 30))",
    ),
    Prompt(
        "Role play",
        "You are the keeper of a lighthouse in 1890. You have never heard of anything that came later.",
        "Good evening. What do you see out there tonight?",
    ),
    Prompt("Translation", "You translate what you are given into Chinese, and add nothing.", "Where is the station?"),
    Prompt("翻译", "你把收到的内容译成英文, 不添加任何解释。", "请问火车站在哪里?"),
    Prompt(
        "By examples",
        "You continue the pattern of the examples.",
        "sea -> blue\ngrass -> green\nsnow -> white\ncoal ->",
    ),
)


@dataclass(frozen=True)
class Page:
    """What the page offers."""

    system_prompt: str
    temperature: float
    max_new_tokens: int
    examples: tuple[str, ...]
    feedback: Path
    """The store of what people say of answers."""
    samples: Path = Path("data/samples")
    """The answers of each round, for people to rank, as dvc.yaml lays them out; below, where their
    ranks go.
    """
    annotations: Path = Path("data/annotations")
    wanted: Wanted = field(default_factory=Wanted)
    """Which of the samples are to be ranked."""
    extracted: Path = Path("data/extracted/records")
    """The records that `extract` made, for people to check; below, where their decisions go."""
    reviews: Path = Path("data/extraction/reviews.jsonl")
    tools: Tools = field(default_factory=lambda: Tools((), Path()))
    """What the model may have done for it, where one asks for that."""
    tool_rounds: int = 4
    """How often, for one answer."""


def components(page: Page) -> list[Any]:
    """Return the inputs beside the message, system prompt first, in the order `question` takes
    them.
    """
    import gradio

    first = SAMPLING if page.temperature else GREEDY
    return [
        gradio.Textbox(page.system_prompt, label="System prompt", lines=2, max_length=2000, render=False),
        gradio.Radio([SAMPLING, GREEDY, BEAM], value=first, label="Decoding", render=False),
        gradio.Slider(0.05, 2, value=page.temperature or 1, step=0.05, label="Temperature (sampling)", render=False),
        gradio.Slider(0.05, 1, value=1, step=0.05, label="Top-p (sampling)", render=False),
        gradio.Slider(2, BEAMS_AT_MOST, value=4, step=1, label="Beams (beam search)", render=False),
        gradio.Slider(1, 2, value=1, step=0.05, label="Repetition penalty", render=False),
        gradio.Slider(
            1, page.max_new_tokens, value=page.max_new_tokens, step=1, label="Longest answer (tokens)", render=False
        ),
        gradio.CheckboxGroup(
            list(page.tools.names), value=[], label="Tools", visible=bool(page.tools.names), render=False
        ),
    ]


def question(
    page: Page,
    text: str,
    history: list[Record],
    system: str,
    decoding: str,
    temperature: float,
    top_p: float,
    beams: float,
    penalty: float,
    longest: float,
    tools: Sequence[str] = (),
) -> Question:
    """Return what the page asks; no setting goes beyond its slider, whatever a client sends."""
    is_sampled = decoding == SAMPLING
    sampling = Sampling(
        temperature=_within(temperature, 0.05, 2.0) if is_sampled else 0.0,
        top_p=_within(top_p, 0.05, 1.0) if is_sampled else 1.0,
        repetition_penalty=_within(penalty, 1.0, 2.0),
        seed=secrets.randbits(62),
    )
    return Question(
        conversation(text[:CHARACTERS_AT_MOST], [one for one in history if not is_problem(one)], system),
        int(_within(longest, 1, page.max_new_tokens)),
        sampling,
        beams=int(_within(beams, 2, BEAMS_AT_MOST)) if decoding == BEAM else 1,
        tools=page.tools.schemas(tools) if tools else None,
    )


def _within(value: float, low: float, high: float) -> float:
    return min(max(float(value), low), high)


def of_last_message(page: Page, history: list[Record], settings: Sequence[Any], temperature: float) -> Question:
    """Return the last message of the page, to be answered by chance at a temperature of its own,
    whatever the settings. Raises DataError.
    """
    last = next((at for at in reversed(range(len(history))) if history[at]["role"] == "user"), None)
    if last is None:
        raise DataError("there is no message yet", remedy="ask something first")
    system, _, _, *others, _ = settings
    text = conversation("", history, "")[last]["content"]
    return question(page, text, history[:last], system, SAMPLING, temperature, *others)


def conversation(text: str, history: Sequence[Record], system_prompt: str) -> list[Record]:
    """Return the page's history and the new text as messages; Gradio's parts of a message become
    one text.
    """
    said = [message("system", system_prompt)] if system_prompt.strip() else []
    for turn in history:
        parts = turn["content"] if isinstance(turn["content"], list) else [turn["content"]]
        texts = [part if isinstance(part, str) else str(part.get("text", "")) for part in parts]
        said.append(message(turn["role"], "\n".join(texts)))
    return [*said, message("user", text)]


def turns(history: Sequence[Record]) -> list[Record]:
    """Return the page's history as messages."""
    return conversation("", history, "")[:-1]


def last(history: Sequence[Record]) -> str:
    """Return the text of the last turn."""
    return str(turns(history[-1:])[0]["content"])


def turn(role: str, text: str) -> Record:
    """Return a turn of the page's history."""
    return {"role": role, "content": text}


def problem(text: str) -> Record:
    """Return what the page says in the place of an answer; chat.js knows it by its metadata, and no
    model reads it.
    """
    said = f'<span class="{PROBLEM}">⚠ Not answered: {html.escape(text, quote=False)}</span>'
    return turn("assistant", said) | {"metadata": {"id": PROBLEM}}


def is_problem(turn: Record) -> bool:
    """Whether a turn of the page says why there is no answer."""
    return (turn.get("metadata") or {}).get("id") == PROBLEM
