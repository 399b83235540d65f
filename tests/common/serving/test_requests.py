"""How often a reader gets a piece of an answer."""

import pytest

from stages.common.serving.requests import APART, Piece, Request, Ticket
from stages.common.serving.text import Text
from tests.tiny import make_tokenizer


def test_the_first_piece_and_the_last_come_at_once_the_others_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Piece | Exception] = []
    ticket = Ticket(Request([5], 9), found.append, Text(make_tokenizer()), 9)
    for count, (moment, text) in enumerate([(0.0, ""), (0.0, "a"), (0.1, "b"), (0.9, "c"), (1.0, "d"), (1.1, "e")], 1):
        monkeypatch.setattr("time.monotonic", lambda moment=moment: 100 + moment * APART)
        ticket.count = count
        ticket.say(text, None)
    assert found == [Piece("a", 2), Piece("bcd", 5)]
    ticket.say("f", "stop")
    assert found[2:] == [Piece("ef", 6, "stop")]
