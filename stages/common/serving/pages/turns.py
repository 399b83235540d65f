"""The page's history as messages."""

from collections.abc import Sequence

from stages.common.records import Record, message


def conversation(text: str, history: Sequence[Record], system_prompt: str) -> list[Record]:
    """Return the page's history and the new text as messages; Gradio's parts of a message become one text."""
    said = [message("system", system_prompt)] if system_prompt.strip() else []
    for turn in history:
        parts = turn["content"] if isinstance(turn["content"], list) else [turn["content"]]
        texts = [part if isinstance(part, str) else str(part.get("text", "")) for part in parts]
        said.append(message(turn["role"], "\n".join(texts)))
    return [*said, message("user", text)]


def turns(history: Sequence[Record]) -> list[Record]:
    """Return the page's history as messages."""
    return conversation("", history, "")[:-1]
