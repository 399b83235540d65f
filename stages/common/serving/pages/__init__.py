"""The pages of the server: what surrounds the chat, and /annotate."""

from typing import Any

AT_ONCE: dict[str, Any] = {"api_visibility": "private", "queue": False}
"""How everything but a streamed answer is wired: not through Gradio's queue, which ends its stream when nothing is
under way; an event that joins in that moment is never answered, and the page waits for ever."""
