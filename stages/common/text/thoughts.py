"""What an answer says, without what a reasoning model thinks before it: only that is judged.

Known are `<think>` (Qwen, DeepSeek, GLM) under its usual names, `[THINK]` (Mistral), `◁think▷`
(Kimi) and the channels of Harmony (gpt-oss), with or without its special tokens.
"""

import re

MARK = re.compile(
    r"(?<!`)(?:<(?P<xml>/?)(?:think|thinking|thought|thoughts|reasoning|seed:think)>"
    r"|\[(?P<square>/?)THINK\]|◁(?P<kimi>/?)think▷)",
    re.IGNORECASE,
)
FINAL_CHANNEL = re.compile(r"<\|channel\|>\s*final[^<]*<\|message\|>")
OTHER_CHANNEL = re.compile(r"\s*(?:<\|start\|>\s*assistant\s*)?<\|channel\|>")
SPECIAL = re.compile(r"<\|(?:return|end|start|call|channel)\|>")
BARE_FINAL = re.compile(r"\s*analysis.*assistant\s*final", re.DOTALL)


def without_thoughts(text: str) -> str:
    """Return the part of an answer that is said; a text without a mark of thought as it is.

    A closing mark without an opening one ends a thought that the prompt began. A thought that is
    not closed goes on to the end: nothing was said yet.
    """
    if FINAL_CHANNEL.search(text):
        return SPECIAL.split(FINAL_CHANNEL.split(text)[-1])[0].strip()
    if OTHER_CHANNEL.match(text):
        return ""
    if bare := BARE_FINAL.match(text):
        return text[bare.end() :].strip()
    return _between_marks(text)


def unfinished(text: str) -> bool:
    """Whether an answer ended within its thought, so that nothing is said."""
    return bool(text.strip()) and not without_thoughts(text)


def _between_marks(text: str) -> str:
    said: list[str] = []
    end, thinking = 0, False
    for mark in MARK.finditer(text):
        closes = "/" in mark.groups()
        if not thinking:
            said.append(text[end : mark.start()])
        if closes and not thinking:
            said.clear()
        thinking, end = not closes, mark.end()
    if not end:
        return text
    if not thinking:
        said.append(text[end:])
    return "".join(said).strip()
