"""Tokens to text as they come: only whole characters, and nothing that may yet turn out to be a
stop string.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

UNFINISHED = "\ufffd"
"""What a tokenizer makes of bytes that are no character (yet)."""


class Text:
    """The text of one answer; `ended` says that a stop string stands in it, behind which nothing is
    given out. With `marks` special tokens are part of it.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", stop: Sequence[str] = (), *, marks: bool = False) -> None:
        self._tokenizer, self._stop, self.ended, self._marks = tokenizer, tuple(stop), False, marks
        # A token's text can depend on the one before it, so those given out last stay in the
        # window.
        self._window: list[int] = []
        self._known, self._shown = 0, ""
        self._held = ""

    @property
    def is_urgent(self) -> bool:
        """Whether each token's text has to be looked at: the answer may end with it."""
        return bool(self._stop)

    @property
    def is_holding(self) -> bool:
        """Whether text is held back, which may turn out to be a stop string."""
        return bool(self._held)

    def add(self, token: int) -> None:
        """Take a token."""
        self._window.append(token)

    def take(self) -> str:
        """Return the text that the tokens since the last time make certain, "" if none."""
        if len(self._window) == self._known:
            return ""
        whole = self.decode(self._window)
        if whole.endswith(UNFINISHED):
            return ""
        new, recent = whole[len(self._shown) :], self._window[self._known :]
        self._window, self._known, self._shown = recent, len(recent), self.decode(recent)
        return self._release(new)

    def end(self) -> str:
        """Return what was held back, when no token follows."""
        if self.ended:
            return ""
        rest = self._held + self._release(self.decode(self._window)[len(self._shown) :], last=True)
        self._held = ""
        return rest

    def decode(self, tokens: list[int]) -> str:
        """Return the text of tokens."""
        return str(self._tokenizer.decode(tokens, skip_special_tokens=not self._marks))

    def _release(self, new: str, last: bool = False) -> str:
        """Return what of the held and the new text can be given out."""
        if not self._stop:
            return new
        text, self._held = self._held + new, ""
        found = [place for stop in self._stop if (place := text.find(stop)) >= 0]
        if found:
            self.ended = True
            return text[: min(found)]
        if last:
            return text
        keep = max(overlap(text, stop) for stop in self._stop)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def overlap(text: str, stop: str) -> int:
    """Return how many characters at the end of `text` are the beginning of `stop`."""
    return next((size for size in range(min(len(stop), len(text)), 0, -1) if stop.startswith(text[-size:])), 0)
