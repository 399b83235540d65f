"""Questions to an engine, and its answers."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from stages.common.core import chat
from stages.common.core.records import message
from stages.common.serving.engine.engine import Engine
from stages.common.serving.engine.requests import Request, pieces

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def prompt(tokenizer: "PreTrainedTokenizerBase", number: int) -> list[int]:
    return chat.encode_prompt(tokenizer, [message("user", f"What is the capital of land {number}?" * (number % 3 + 1))])


def text(engine: Engine, request: Request) -> tuple[str, int, str | None]:
    found = list(pieces(engine.submit, request)[1])
    assert [piece.finish for piece in found[:-1]] == [None] * (len(found) - 1)
    return "".join(piece.text for piece in found), found[-1].tokens, found[-1].finish


def at_once(engine: Engine, requests: list[Request]) -> list[tuple[str, int, str | None]]:
    with ThreadPoolExecutor(len(requests)) as pool:
        return list(pool.map(lambda request: text(engine, request), requests))


def until_load(engine: Engine, load: tuple[int, int]) -> None:
    end = time.monotonic() + 10
    while engine.load() != load:
        assert time.monotonic() < end, engine.load()
        time.sleep(0.005)


def slow(model: "PreTrainedModel", seconds: float = 0.01) -> "torch.utils.hooks.RemovableHandle":
    return model.register_forward_hook(lambda *_: time.sleep(seconds))
