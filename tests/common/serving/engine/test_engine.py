"""The engine answers many at once as the decoder answers one by one; readers that go, and failures,
trouble nobody.
"""

import time
from typing import TYPE_CHECKING, Any

import pytest

from stages.common.core import chat
from stages.common.generation import generator, kv_cache
from stages.common.generation.llama_forward import Forward
from stages.common.generation.sampling import Sampling
from stages.common.runtime import process
from stages.common.runtime.errors import DataError
from stages.common.serving.engine.engine import Engine
from stages.common.serving.engine.requests import BusyError, ClosedError, Piece, Request, pieces
from tests.support.answering import at_once, prompt, slow, text, until_load
from tests.support.tiny import make_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def test_answers_in_a_shared_batch_are_those_of_the_decoder_alone(
    engine: Engine, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase"
) -> None:
    prompts = [prompt(tokenizer, number) for number in range(12)]
    kinds = [Sampling(), Sampling(1.0, 0.9, seed=7), Sampling(0.7, top_k=5, seed=1), Sampling(repetition_penalty=1.5)]
    requests = [Request(one, 8 + number, kinds[number % 4]) for number, one in enumerate(prompts)]
    expected = []
    for request in requests:
        ((answer,),) = generator.decode(
            model,
            [request.prompt],
            max_new_tokens=request.max_new_tokens,
            stop=chat.stops(tokenizer),
            sampling=request.sampling,
        )
        ended = answer.stop is not None
        said = tokenizer.decode(answer.tokens, skip_special_tokens=True)
        expected.append((said, len(answer.tokens) + ended, "stop" if ended else "length"))
    assert at_once(engine, requests) == expected
    assert [text(engine, request) for request in requests] == expected


def test_an_answer_comes_in_pieces(
    engine: Engine, tokenizer: "PreTrainedTokenizerBase", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.common.serving.engine.requests.APART", 0.0)
    found = list(pieces(engine.submit, Request(prompt(tokenizer, 3), 24))[1])
    assert len([piece for piece in found if piece.text]) > 3
    assert [piece.tokens for piece in found] == sorted(piece.tokens for piece in found)


def test_a_request_joins_while_others_are_answered(
    engine: Engine, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase"
) -> None:
    hook = slow(model)
    try:
        _, long = pieces(engine.submit, Request(prompt(tokenizer, 1), 150, Sampling(1.0)))
        next(long)
        _, tokens, _ = text(engine, Request(prompt(tokenizer, 2), 3))
        assert tokens <= 3
        until_load(engine, (0, 1))  # the first one still goes on
    finally:
        hook.remove()


def test_a_stop_string_ends_the_answer_before_it(engine: Engine, tokenizer: "PreTrainedTokenizerBase") -> None:
    stop = (whole := text(engine, Request(prompt(tokenizer, 3), 24))[0])[5:8]
    said, _, finish = text(engine, Request(prompt(tokenizer, 3), 24, stop=("never", stop)))
    assert (said, finish) == (whole[: whole.index(stop)], "stop")


def test_the_context_ends_an_answer_and_refuses_a_prompt_without_room(engine: Engine) -> None:
    _, tokens, finish = text(engine, Request([5] * 250, 100))
    assert tokens <= 6 and finish in ("length", "stop")
    with pytest.raises(DataError, match="leaves no room for an answer"):
        engine.submit(Request([5] * 256, 1), print)


def test_an_answer_nobody_reads_any_more_leaves_the_batch(
    engine: Engine, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase"
) -> None:
    hook = slow(model)
    try:
        answers = [
            pieces(engine.submit, Request(prompt(tokenizer, n), 150, Sampling(1.5, seed=n)))[1] for n in range(6)
        ]
        for answer in answers[:4]:
            next(answer)
        for answer in answers[:3]:
            answer.close()  # type: ignore[attr-defined]  # a generator
        until_load(engine, (0, 1))
    finally:
        hook.remove()


def test_beams_are_those_of_transformers_and_the_batch_goes_on(
    engine: Engine, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase"
) -> None:
    asked = prompt(tokenizer, 4)
    (expected,) = generator.beam(
        model, [asked], beams=3, max_new_tokens=12, stop=chat.stops(tokenizer), repetition_penalty=1.2
    )
    search = Request(asked, 12, Sampling(repetition_penalty=1.2), beams=3)
    (said, tokens, _), other = at_once(engine, [search, Request(asked, 12)])
    assert said == tokenizer.decode(expected, skip_special_tokens=True)
    assert tokens == len(expected)
    assert other == text(engine, Request(asked, 12))


def test_a_stop_string_ends_what_a_search_found(engine: Engine, tokenizer: "PreTrainedTokenizerBase") -> None:
    whole = text(engine, Request(prompt(tokenizer, 4), 12, beams=2))[0]
    stop = whole[3:5]
    assert text(engine, Request(prompt(tokenizer, 4), 12, stop=(stop,), beams=2))[0] == whole[: whole.find(stop)]


def test_a_cancelled_search_ends(
    engine: Engine, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase"
) -> None:
    hook, events = slow(model, 0.02), list[Any]()
    try:
        ticket = engine.submit(Request(prompt(tokenizer, 4), 200, beams=2), events.append)
        time.sleep(0.1)
        ticket.cancel()
        engine.close()
        assert engine.join(2)
        assert events[0].finish == "cancelled" and events[0].tokens < 100
    finally:
        hook.remove()


def test_a_failure_reaches_its_readers_and_the_engine_goes_on(
    engine: Engine, tokenizer: "PreTrainedTokenizerBase", monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Request(prompt(tokenizer, 3), 8)
    expected = text(engine, asked)

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(Forward, "read", fail)
        with pytest.raises(RuntimeError, match="out of memory"):
            text(engine, asked)
    assert text(engine, asked) == expected


def test_logits_that_are_not_numbers_end_the_answer_by_name(tokenizer: "PreTrainedTokenizerBase") -> None:
    broken = make_model(tokenizer, seed=3)
    broken.model.norm.weight.data[0] = float("nan")
    with pytest.raises(DataError, match="logits are not numbers, at token 0"):
        text(Engine(broken, tokenizer, rows=1), Request(prompt(tokenizer, 3), 8))


def test_every_engine_reads_on_all_cores(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", monkeypatch: pytest.MonkeyPatch
) -> None:
    """A champion's successor too: torch's number of threads is the process's, and the one before it
    has changed it.
    """
    import torch

    asked, change = Request(prompt(tokenizer, 3), 3), torch.set_num_threads
    seen: list[int] = []
    used: list[int] = []

    def changed(count: int) -> None:
        seen.append(count)
        change(count)

    monkeypatch.setattr(torch, "set_num_threads", changed)
    for _ in range(2):
        seen.clear()
        text(Engine(model, tokenizer, rows=1), asked)
        used.append(max(seen))
    assert used == [process.threads()] * 2


def test_answers_whose_keys_and_values_have_no_room_wait_and_are_the_same(
    engine: Engine, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", monkeypatch: pytest.MonkeyPatch
) -> None:
    long = [Request([5 + number] * 150, 60, Sampling(1.0, seed=number)) for number in range(2)]
    short = [Request([9, number], 12) for number in range(20, 26)]
    mixed = [*short[:5], long[0], *short[5:], long[1]]
    expected = at_once(engine, mixed)
    steps: list[tuple[int, int]] = []
    step = kv_cache.Slots.step

    def watched(cache: kv_cache.Slots, *given: Any) -> Any:
        assert all(
            layer.keys is not None and layer.keys.shape[0] * layer.keys.shape[2] <= 300 for layer in cache.layers
        )
        steps.append((cache.used, cache.capacity))
        return step(cache, *given)

    monkeypatch.setattr(kv_cache.Slots, "step", watched)
    small = Engine(model, tokenizer, rows=4, tokens=300)
    with small._changed:  # all wait before one is taken
        found = [pieces(small.submit, request)[1] for request in mixed]
    said = [list(one) for one in found]
    assert [("".join(one.text for one in some), some[-1].tokens, some[-1].finish) for some in said] == expected
    small.close()
    assert small.join(30)
    assert {used for used, capacity in steps if capacity == 256} == {1}  # a long one stands alone
    assert max(used for used, _ in steps) == 4 and max(used * capacity for used, capacity in steps) <= 300
    assert {capacity for _, capacity in steps} == {64, 256}


def test_more_than_may_wait_are_refused_and_a_closed_engine_ends_what_it_has(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase"
) -> None:
    engine, hook = Engine(model, tokenizer, rows=1, waiting_at_most=2), slow(model)
    try:
        events: list[list[Piece | Exception]] = [[], [], []]
        engine.submit(Request(prompt(tokenizer, 0), 10), events[0].append)
        until_load(engine, (0, 1))
        for found in events[1:]:
            engine.submit(Request(prompt(tokenizer, 1), 5), found.append)
        with pytest.raises(BusyError, match="2 requests are waiting; try again"):
            engine.submit(Request(prompt(tokenizer, 1), 5), print)
        engine.close()
        with pytest.raises(ClosedError):
            engine.submit(Request(prompt(tokenizer, 1), 5), print)
        assert engine.join(30)
        assert all(isinstance(found[-1], Piece) and found[-1].finish in ("length", "stop") for found in events)
    finally:
        hook.remove()
