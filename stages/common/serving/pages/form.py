"""Answers side by side, each with its rank (1 is the best, ties are allowed) and, where wanted,
what holds of it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from stages.common.annotation.ranking_store import MARKS

KEYS = Path(__file__).with_name("ranking_keys.js")
"""Ranks by keys: digits, letters, Enter."""
HELP = (
    "Click, or use keys: a digit ranks the first answer without a rank, a letter marks the answer to rank next, "
    "Enter saves. 1 is the best; equal ranks are ties."
)
CSS = """
.answers { display: grid !important; grid-template-columns: repeat(auto-fill, minmax(220px, 1fr)); }
.ranked[data-marked] { outline: 2px solid var(--color-accent); }
.ranking:not(:has(.ranked)) { display: none; }
"""
"""Every answer gets the same room; without answers there is nothing to see."""
AT_FIRST = list(MARKS[:2])
"""What is ticked to begin with: most answers answer and are truthful, and a tick less is a click
less.
"""


class Form(NamedTuple):
    """The components; `marks` is empty where nothing but ranks is asked."""

    cards: list[Any]
    texts: list[Any]
    ranks: list[Any]
    marks: list[Any]
    save: Any

    @property
    def outputs(self) -> list[Any]:
        """The components in the order of `showing`."""
        return [*self.cards, *self.texts, *self.ranks, *self.marks, self.save]


def build(answers: int, with_marks: bool, save: str) -> Form:
    """Return a form for up to so many answers, empty."""
    import gradio

    form = Form([], [], [], [], None)
    with gradio.Column(elem_classes="ranking"):
        with gradio.Row(elem_classes="answers"):
            for letter in letters(answers):
                with gradio.Column(visible=False, min_width=200, elem_classes="ranked") as card:
                    form.cards.append(card)
                    form.texts.append(gradio.Textbox(label=letter, interactive=False, lines=3, max_lines=20))
                    form.ranks.append(gradio.Radio([1], label=f"Rank of {letter}", interactive=True))
                    if with_marks:
                        form.marks.append(gradio.CheckboxGroup(list(MARKS), label=f"What holds of {letter}"))
        gradio.Markdown(HELP)
        button = gradio.Button(save, variant="primary", interactive=False, elem_classes="save")
    return form._replace(save=button)


def showing(responses: Sequence[str], answers: int, with_marks: bool) -> list[Any]:
    """Return the updates that show the responses without ranks, for the outputs of a form."""
    import gradio

    shown, count = [*responses, *[""] * (answers - len(responses))], len(responses)
    choices = list(range(1, count + 1)) or [1]
    return [
        *(gradio.Column(visible=at < count) for at in range(answers)),
        *shown,
        *(gradio.Radio(choices=choices, value=None) for _ in range(answers)),
        *(AT_FIRST if with_marks else [] for _ in range(answers if with_marks else 0)),
        gradio.Button(interactive=count > 0),
    ]


def letters(count: int) -> list[str]:
    """Return A, B, C, …"""
    return [chr(ord("A") + at) for at in range(count)]
