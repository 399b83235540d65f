"""How often a reader gets a piece of an answer, and readers in event loops."""

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from stages.common.serving.engine.engine import Engine
from stages.common.serving.engine.requests import APART, Piece, Request, Ticket, arriving
from stages.common.serving.engine.text import Text
from tests.support.answering import prompt, slow, text
from tests.support.tiny import make_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def test_the_first_piece_and_the_last_come_at_once_the_others_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Piece | Exception] = []
    ticket = Ticket(Request([5], 9), found.append, Text(make_tokenizer()), 9)
    for count, (moment, said) in enumerate([(0.0, ""), (0.0, "a"), (0.1, "b"), (0.9, "c"), (1.0, "d"), (1.1, "e")], 1):
        monkeypatch.setattr("time.monotonic", lambda moment=moment: 100 + moment * APART)
        ticket.count = count
        ticket.say(said, None)
    assert found == [Piece("a", 2), Piece("bcd", 5)]
    ticket.say("f", "stop")
    assert found[2:] == [Piece("ef", 6, "stop")]


def test_an_event_loop_reads_answers_side_by_side(engine: Engine, tokenizer: "PreTrainedTokenizerBase") -> None:
    async def read(number: int) -> str:
        asked = Request(prompt(tokenizer, number), 8)
        _, found = await arriving(engine.submit, asked)
        return "".join([piece.text async for piece in found])

    async def read_all() -> list[str]:
        return await asyncio.gather(*(read(number) for number in range(6)))

    expected = [text(engine, Request(prompt(tokenizer, number), 8))[0] for number in range(6)]
    assert asyncio.run(read_all()) == expected


def test_a_reader_whose_loop_is_gone_stops_nobody(
    engine: Engine, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase"
) -> None:
    hook = slow(model)

    async def leave() -> None:
        _, found = await arriving(engine.submit, Request(prompt(tokenizer, 1), 100))
        async for _ in found:
            return

    try:
        threads = [threading.Thread(target=lambda: asyncio.run(leave())) for _ in range(3)]
        for thread in threads:
            thread.start()
        assert text(engine, Request(prompt(tokenizer, 2), 5))[1] > 0
        for thread in threads:
            thread.join(10)
    finally:
        hook.remove()
