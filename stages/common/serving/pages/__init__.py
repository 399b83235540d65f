"""The pages of the server: what surrounds the chat, and /annotate."""

from typing import Any

AT_ONCE: dict[str, Any] = {"api_visibility": "private", "queue": False}
"""How everything but a streamed answer is wired: not through Gradio's queue, which ends its stream
when nothing is under way; an event that joins in that moment is never answered, and the page waits
for ever.
"""
LOOK_SECONDS = 0.02, 0.1
"""How often the queue looks for events and for progress: Gradio's 1 and 10 ms cost an idle server 3
% of a core.
"""
