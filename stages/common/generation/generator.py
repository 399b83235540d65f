"""Batched decoding: answers leave the batch when they end and prompts take their place; greedy,
sampled, or beams.

`generate` is greedy and returns tokens; `decode` returns K answers a prompt with what ended them
and, on request, their log-probabilities; `beam` is transformers' own search.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import TYPE_CHECKING, Any

from stages.common.generation.batch import Batch, Continuation, Order
from stages.common.generation.engines.structured import Constraint
from stages.common.generation.engines.vllm_process import Vllm
from stages.common.generation.sampling import Sampling
from stages.common.runtime.errors import DataError, ParamsError
from stages.common.runtime.progress import Progress

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

GREEDY = Sampling()


def generate(
    model: "PreTrainedModel | Vllm",
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stop: Sequence[int],
    batch_size: int = 64,
) -> list[list[int]]:
    """Return the greedy continuation of each prompt, in the order given, without the stop token
    that ended it.
    """
    answers = decode(model, prompts, max_new_tokens=max_new_tokens, stop=stop, batch_size=batch_size)
    return [answer.tokens for (answer,) in answers]


def decode(
    model: "PreTrainedModel | Vllm",
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stop: Sequence[int],
    sampling: Sampling = GREEDY,
    samples: int = 1,
    log_probabilities: bool = False,
    batch_size: int = 64,
    progress: Progress | None = None,
    before: Sequence[int] | None = None,
    constraint: Constraint | None = None,
) -> list[list[Continuation]]:
    """Return `samples` continuations of each prompt, in the order given; a prompt is read once for
    all of them.

    A continuation depends on model, prompt, seed and its number among the samples, not on order or
    batch size, up to the rounding of the model's sums. An answer ends where the model's context
    does. `progress` counts the answers, by default against those of this call. `before` is
    `sampling.earlier` of all prompts where these are a share of them. `constraint` keeps answers on
    JSON schemas (`engines.structured`). An engine in the model's place has its own batch size.
    Raises DataError for a prompt that is empty or leaves no room, and for logits that are not
    numbers.
    """
    import torch

    from stages.common.generation import transformers_generate

    for name, value in (("max_new_tokens", max_new_tokens), ("samples", samples), ("batch_size", batch_size)):
        if value < 1:
            raise ParamsError(f"{name} is {value}, it must be 1 or more", where="params.yaml")
    room = check(model, prompts)
    order = Order(prompts, room, max_new_tokens, stop, sampling, samples, log_probabilities, before, constraint)
    progress = progress or Progress(len(prompts) * samples)
    if isinstance(model, Vllm):
        if constraint:
            raise ParamsError("vLLM in a stage keeps no schema", where="run.engine", remedy="serve it as an endpoint")
        return _by_prompt(model.answers(order, progress), order)
    with torch.inference_mode(), evaluating(model):
        if transformers_generate.needed(model, order):
            found = transformers_generate.answers(model, order, batch_size, progress)
        else:
            found = _in_a_batch(Batch(model, order, batch_size, progress))
    return _by_prompt(found, order)


def _by_prompt(found: dict[int, Continuation], order: Order) -> list[list[Continuation]]:
    places = range(len(order.prompts))
    return [[found[place * order.samples + number] for number in range(order.samples)] for place in places]


def _in_a_batch(batch: Batch) -> dict[int, Continuation]:
    while batch.queue or batch.size:
        if batch.wants_prompts():
            batch.admit()
        batch.step()
    return batch.answers


def _search(
    beams: int, stop: Sequence[int], repetition_penalty: float, is_stopped: Callable[[], bool] | None
) -> dict[str, Any]:
    """Return how transformers is to search."""
    import torch
    from transformers import StoppingCriteriaList

    def stopped(tokens: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
        return torch.full((len(tokens),), bool(is_stopped and is_stopped()), device=tokens.device)

    return {
        "num_beams": beams,
        "do_sample": False,
        "use_cache": True,
        "repetition_penalty": repetition_penalty,
        "eos_token_id": list(stop),
        "stopping_criteria": StoppingCriteriaList([stopped]),
        "pad_token_id": stop[0] if stop else 0,  # stands behind the end of an answer, where `until` cuts
    }


def beam(
    model: "PreTrainedModel",
    prompts: Sequence[Sequence[int]],
    *,
    beams: int,
    max_new_tokens: int,
    stop: Sequence[int],
    repetition_penalty: float = 1.0,
    batch_size: int = 16,
    is_stopped: Callable[[], bool] | None = None,
) -> list[list[int]]:
    """Return the best of `beams` continuations of each prompt without its stop token; refuses
    prompts as `decode` does.

    Only prompts of one length share a batch: transformers would count padding among the tokens to
    be penalised. A search ends early, with what it has, when `is_stopped` says so.
    """
    import torch

    how = _search(beams, stop, repetition_penalty, is_stopped)
    room = check(model, prompts)
    answers: list[list[int]] = [[] for _ in prompts]
    by_length = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    for length, group in groupby(by_length, key=lambda index: len(prompts[index])):
        indices = list(group)
        for start in range(0, len(indices), batch_size):
            chosen = indices[start : start + batch_size]
            batch = torch.tensor([list(prompts[index]) for index in chosen], device=model.device)
            longest = min(max_new_tokens, room - length) if room else max_new_tokens
            with torch.inference_mode(), evaluating(model):
                mask = torch.ones_like(batch)
                output = model.generate(input_ids=batch, attention_mask=mask, max_new_tokens=longest, **how)
            for index, row in zip(chosen, output[:, length:].tolist(), strict=True):
                answers[index] = until(row, set(stop))
    return answers


def until(tokens: list[int], stop: set[int]) -> list[int]:
    """Return the tokens before the first one in `stop`."""
    return next((tokens[:place] for place, token in enumerate(tokens) if token in stop), tokens)


def context(model: "PreTrainedModel | Vllm") -> int | None:
    """Return the most tokens a prompt and its answer may have together; None: there is no limit."""
    return model.context if isinstance(model, Vllm) else context_of(model.config)


def context_of(config: "PretrainedConfig") -> int | None:
    """Return the same of a model that only its config is known of."""
    # Models without learned or rotary positions have no such key.
    limit: int | None = getattr(config.get_text_config(decoder=True), "max_position_embeddings", None)
    return limit


def check(model: "PreTrainedModel | Vllm", prompts: Sequence[Sequence[int]]) -> int | None:
    """Return the model's context. Raises DataError for a prompt that is empty, or has no room for
    an answer in it.
    """
    return fitting(context(model), prompts)


def fitting(limit: int | None, prompts: Sequence[Sequence[int]]) -> int | None:
    """Return the context `limit`. Raises DataError as `check` does."""
    for number, prompt in enumerate(prompts):
        if not prompt:
            raise DataError("it has no tokens", where=f"prompt {number}", remedy="leave it out")
        if limit and len(prompt) >= limit:
            raise DataError(
                f"it has {len(prompt)} tokens, and the model's context of {limit} leaves no room for an answer",
                where=f"prompt {number}",
                remedy="shorten it, or leave it out",
            )
    return limit


@contextmanager
def evaluating(model: "PreTrainedModel") -> Iterator[None]:
    """Inside, dropout is off; afterwards each module that was training is so again."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
