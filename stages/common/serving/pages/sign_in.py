"""The door of /annotate: nothing but a name, and behind it the tabs where something waits for
people.

A round is asked for only where there are several. Who has no name yet is told to type one.
"""

from typing import Any

from stages.common.annotation import queue
from stages.common.runtime.errors import DataError
from stages.common.serving.api.metrics import Observer
from stages.common.serving.pages import AT_ONCE, Room, annotate, check_records, compare, failures
from stages.common.serving.pages.inputs import Page

OPEN = "(refusal) => { document.body.classList.toggle('seated', !refusal); }"
STYLE = """
body:not(.seated) #room, body.seated #door { display: none !important; }
#door { max-width: 420px; margin: 12vh auto 0; }
#room { max-width: 1280px; margin: 0 auto; }
#problem p, #refusal p { color: var(--error-text-color); }
#problem p, #refusal p, #progress p { margin: 0; }
"""


def add(blocks: Any, observer: Observer, page: Page) -> None:
    """Add the page to `blocks`, which are open."""
    import gradio
    from gradio.components.navbar import Navbar

    Navbar(main_page_name="Chat")
    with gradio.Column(elem_id="door"):
        gradio.Markdown("## Annotate\nYour name goes with what you say, so that agreement can be measured.")
        who = gradio.Textbox(label="Your name", max_length=40, autofocus=True)
        name = gradio.Dropdown([], label="Round", interactive=True, visible=False)
        begin = gradio.Button("Begin", variant="primary")
        refusal = gradio.Markdown("", elem_id="refusal")
    with gradio.Column(elem_id="room"):
        problem, progress = gradio.Markdown("", elem_id="problem"), gradio.Markdown("", elem_id="progress")
        ranking = annotate.Desk(page.samples, page.annotations, page.feedback, page.wanted)
        rooms = [
            annotate.add(ranking, problem, progress),
            check_records.add(check_records.Desk(page.extracted, page.reviews)),
            compare.add(observer, page),
        ]

    def enter(given: Any, of: Any) -> dict[Any, Any]:
        """Open the room."""
        with failures.noted("entering") as failed:
            return _entered(rooms, queue.person(str(given or "")), of) | {refusal: ""}
        return {refusal: f"**{failed.text}**"}

    def rounds() -> Any:
        found = queue.rounds(ranking.samples)
        return gradio.Dropdown(choices=found, value=found[-1] if found else None, visible=len(found) > 1)

    outputs = [refusal, *(one for of in rooms for one in of.outputs)]
    entered = gradio.on([begin.click, who.submit], enter, [who, name], outputs, **AT_ONCE)
    # By a class of the page: Gradio mixes up tabs that it shows together with what is in them.
    entered.success(None, refusal, None, js=OPEN, show_progress="hidden")
    blocks.load(rounds, None, name, **AT_ONCE)


def _entered(rooms: list[Room], person: str, of: Any) -> dict[Any, Any]:
    """Return what the tabs show. Raises DataError when nothing waits in any."""
    found = [(room, room.enter(person, of)) for room in rooms]
    if not any(shown for _, shown in found):
        remedy = "run `dvc repro sample`, or set extract.review and run `dvc repro extract`, or `make challenge`"
        what = "nothing waits for people: there are no samples, no extracted records and no version beside the champion"
        raise DataError(what, remedy=remedy)
    return {part: value for room, shown in found for part, value in (shown or room.empty).items()}
