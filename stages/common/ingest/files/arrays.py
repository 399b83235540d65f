"""JSON values that do not stand one a line: the elements of an array, or objects written over
several lines.
"""

import codecs
import json
import re
from collections.abc import Iterator

from stages.common.ingest.files.rows import ROW_BYTES, Row
from stages.common.ingest.files.unpack import DAMAGE, Stream

CHUNK_BYTES = 1 << 16
GAP = re.compile(r"[\s,]*")
WRAPPED = re.compile(
    r'\s*\{\s*(?:"(?:[^"\\]|\\.)*"\s*:\s*(?:"(?:[^"\\]|\\.)*"|[\w.+-]+)\s*,\s*)*"([^"\\]+)"\s*:\s*\[(?=\s*\{)'
)
"""An object of plain values that holds a list of objects: `{"version": 1, "data": [{`."""
NEXT_OBJECT = re.compile(r"\}\s*,?(?=\s*\{)")
LONGEST_TOKEN = 16
"""An error this close to the end of what has been read may be a number or a word cut in two."""


class Window:
    """The part of a stream that has been read and not yet used, as text, and the line it
    starts on.
    """

    def __init__(self, stream: Stream) -> None:
        self.stream, self.decoder = stream, codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self.text, self.at, self.line, self.ended = "", 0, 1, False

    def more(self) -> bool:
        """Read as much again as is waiting; False at the end, or when a row's worth is waiting
        already.
        """
        if self.ended or len(self.text) - self.at >= ROW_BYTES:
            return False
        data = self.stream.read(max(CHUNK_BYTES, len(self.text) - self.at))
        self.ended = not data
        self.text, self.at = self.text[self.at :] + self.decoder.decode(data, self.ended), 0
        return True

    def skip(self, end: int) -> None:
        """Use the text before `end`."""
        self.line += self.text.count("\n", self.at, end)
        self.at = end


def elements(stream: Stream, in_array: bool, wrapped: bool = False) -> Iterator[Row]:
    """Yield the elements of a JSON array, `wrapped` in an object or not, or values one after
    another, holding one at a time.

    After a malformed one reading goes on at the next that looks like an object.
    """
    window, decoder = Window(stream), json.JSONDecoder()
    try:
        if in_array:
            _open_array(window, wrapped)
        while not (wrapped and _ends_list(window)) and _at_element(window, in_array):
            end = _end(window, decoder)
            data = window.text[window.at : end].encode("utf-8", "surrogateescape")
            yield Row(window.line, data, "row too large" if len(data) >= ROW_BYTES else "")
            window.skip(end)
    except DAMAGE:
        yield Row(window.line, window.text[window.at :].encode("utf-8", "surrogateescape"), "damaged archive")


def _open_array(window: Window, wrapped: bool) -> None:
    while not (WRAPPED.match(window.text) if wrapped else "[" in window.text) and window.more():
        pass
    opened = WRAPPED.match(window.text) if wrapped else None
    window.skip(opened.end() if opened else window.text.index("[") + 1)


def _ends_list(window: Window) -> bool:
    """Whether the list ends here; what follows it in its object is of no element."""
    while True:
        gap = GAP.match(window.text, window.at)
        at = gap.end() if gap else window.at
        if at < len(window.text):
            return window.text[at] == "]"
        if not window.more():
            return True


def _at_element(window: Window, in_array: bool) -> bool:
    """Move to the next element; False at the end."""
    while True:
        gap = GAP.match(window.text, window.at)
        window.skip(gap.end() if gap else window.at)
        if not (window.at == len(window.text) or (in_array and _closes(window))):
            return True
        if not window.more():
            return False


def _closes(window: Window) -> bool:
    return window.text[window.at] == "]" and not window.text[window.at + 1 :].strip()


def _end(window: Window, decoder: json.JSONDecoder) -> int:
    """Return where the element at hand ends; a malformed one ends where the next object begins."""
    while True:
        try:
            end = decoder.raw_decode(window.text, window.at)[1]
            if end < len(window.text) or not window.more():
                return end
        except json.JSONDecodeError as error:
            cut = error.msg.startswith("Unterminated string") or error.pos >= len(window.text) - LONGEST_TOKEN
            if not (cut and window.more()):
                return _end_of_malformed(window)
        except (ValueError, RecursionError):
            return _end_of_malformed(window)


def _end_of_malformed(window: Window) -> int:
    while True:
        following = NEXT_OBJECT.search(window.text, window.at)
        if following:
            return following.start() + 1
        if not window.more():
            return len(window.text)
