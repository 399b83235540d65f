"""The pages of the server: what surrounds the chat, and /annotate."""

from collections.abc import Callable
from typing import Any, NamedTuple

AT_ONCE: dict[str, Any] = {"api_visibility": "private", "queue": False}
"""How everything but a streamed answer is wired: not through Gradio's queue, which ends its stream
when nothing is under way; an event that joins in that moment is never answered, and the page waits
for ever.
"""
LOOK_SECONDS = 0.02, 0.1
"""How often the queue looks for events and for progress: Gradio's 1 and 10 ms cost an idle server 3
% of a core.
"""


class Room(NamedTuple):
    """What a person finds behind the door of /annotate: what entering changes, how to enter with a
    name and a round (None where nothing waits for people), and what there is to see then.
    """

    outputs: list[Any]
    enter: Callable[[str, Any], dict[Any, Any] | None]
    empty: dict[Any, Any]
