"""One answer as it is made: tokens come through a streamer from a thread that stops when the reader goes."""

import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from stages.common import chat
from stages.common.errors import DataError
from stages.common.records import Record

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def stream(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    messages: Sequence[Record],
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
) -> Iterator[str]:
    """Yield the answer to `messages` piece by piece (a piece may be empty); temperature 0 is greedy.

    Closing the iterator stops generation at the next token. Raises DataError when the conversation has no room.
    """
    import torch
    from transformers import StoppingCriteriaList, TextIteratorStreamer

    stop = chat.stops(tokenizer)
    room = model.config.max_position_embeddings - max_new_tokens
    prompt = torch.tensor([fitting(tokenizer, messages, room)], device=model.device)
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
    gone = threading.Event()
    sampling: dict[str, Any] = {"do_sample": True, "temperature": temperature} if temperature else {"do_sample": False}
    failures: list[Exception] = []

    def is_gone(tokens: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
        return torch.full((len(tokens),), gone.is_set(), device=tokens.device)

    def generate() -> None:
        try:
            model.generate(
                input_ids=prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=max_new_tokens,
                eos_token_id=stop,
                pad_token_id=stop[-1],
                streamer=streamer,
                stopping_criteria=StoppingCriteriaList([is_gone]),
                **sampling,
            )
        except Exception as error:  # the thread's boundary: it is raised where the answer is read
            failures.append(error)
            streamer.end()

    worker = threading.Thread(target=generate, name="answer", daemon=True)
    worker.start()
    try:
        yield from streamer
    finally:
        gone.set()
        worker.join()
    if failures:
        raise failures[0]


def fitting(tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Record], room: int) -> list[int]:
    """Return the prompt's tokens, the oldest turns dropped until they are at most `room`; a system prompt stays.

    Raises DataError when even the last turn alone is too long.
    """
    system = [message for message in messages[:1] if message["role"] == "system"]
    turns = list(messages[len(system) :])
    while True:
        tokens = chat.encode_prompt(tokenizer, [*system, *turns])
        if len(tokens) <= room:
            return tokens
        if len(turns) == 1:
            raise DataError(
                f"the message has {len(tokens)} tokens, and there is room for {max(room, 0)}",
                remedy="shorten it, or lower the longest answer",
            )
        turns = turns[1:]
        while turns[0]["role"] != "user" and len(turns) > 1:  # an answer without its question would confuse
            turns = turns[1:]
