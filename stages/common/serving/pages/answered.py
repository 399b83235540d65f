"""What was answered here: an opinion of an answer comes with a history that the client sends, and
is not believed.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from stages.common.annotation import feedback
from stages.common.core.records import Record, message
from stages.common.serving.challenger.conversations import Sign
from stages.common.text import content_hash, normalisation

ANSWERS_REMEMBERED = 10_000


class Answer(NamedTuple):
    """An answer that was given here: the whole conversation before it, its text, and which model
    gave it.
    """

    messages: list[dict[str, str]]
    text: str
    facts: dict[str, Any]


class Answered:
    """The last answers, by conversation; an opinion may come when another champion has
    taken over.
    """

    def __init__(self, told: Callable[[Sequence[Record], Sign], None] | None = None) -> None:
        self._told, self._asked = told, OrderedDict[bytes, None]()
        self._known: OrderedDict[bytes, tuple[str, str, dict[str, Any]]] = OrderedDict()

    def note(self, messages: Sequence[Record], text: str, facts: dict[str, Any]) -> None:
        """Remember who said this to whom."""
        system = "\n".join(one["content"] for one in messages if one["role"] == "system")
        self._known[_key(messages, text)] = system, text, facts
        while len(self._known) > ANSWERS_REMEMBERED:
            self._known.popitem(last=False)
        asked = _key(messages, "")
        if asked in self._asked:
            self.tell(messages, "regeneration")
        self._asked[asked] = None
        while len(self._asked) > ANSWERS_REMEMBERED:
            self._asked.popitem(last=False)

    def tell(self, messages: Sequence[Record], sign: Sign) -> None:
        """Let whoever compares two models hear what a person showed of an answer."""
        if self._told:
            self._told(messages, sign)

    def find(self, turns: Sequence[Record], index: object) -> Answer | None:
        """Return the answer at `index` of a page's turns, however it has laid them out; None: not
        given here.
        """
        if not isinstance(index, int) or not 0 < index < len(turns) or turns[index]["role"] != "assistant":
            return None
        before = [turn for turn in turns[:index] if turn["role"] != "system"]
        known = self._known.get(_key(before, turns[index]["content"]))
        if known is None:
            return None
        system, text, facts = known
        told = [message("system", system)] if system else []
        return Answer(feedback.turns([*told, *before]), text, facts)


def _key(messages: Sequence[Record], text: str) -> bytes:
    """Return the digest of a conversation and its answer, the system prompt apart: a page's history
    has none.
    """
    said = [[one["role"], normalisation.key(one["content"])] for one in messages if one["role"] != "system"]
    return content_hash.digest([said, normalisation.key(text)])
