"""Tokens a second of generator.decode against transformers' own `generate`, on the same prompts,
in turns.

512 prompts of 8 to 64 tokens, answers of at most 48, which end at any of a sixteenth of the
vocabulary: most are short, some are cut. The model is a Llama of 4 million with weights so large
that its answers look random. Only tokens of answers count, stop tokens among them: not padding, nor
what a row makes once its answer is over. `generate` gets the prompts in order of length, its best
batch size, found first, and there the better of its two caches. Greedy answers must be the same
tokens on both sides.

The limit is what the matrix products with the model's weights alone allow, at the fastest number of
rows and layout: no attention, no prompts, no choice of tokens.

    python -m bench.generate
"""

import os
import random
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stages.common.core import models
from stages.common.generation import generator
from stages.common.generation.sampling import Sampling
from stages.common.runtime import libraries

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MODEL: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 688,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
    "initializer_range": 0.2,
}
VOCABULARY, LONGEST = 3072, 48
STOP = list(range(1, VOCABULARY, 16))
SIZES = (16, 32, 64, 128, 256)
WAYS = {
    "greedy": Sampling(),
    "sampled, top-p 0.95": Sampling(temperature=1.0, top_p=0.95),
}
Answers = list[list[int]]


def build() -> "PreTrainedModel":
    from transformers import set_seed

    set_seed(1)
    return models.build(MODEL, VOCABULARY, "bench").eval()


def made(count: int) -> list[list[int]]:
    dice = random.Random(1)
    return [[dice.randrange(VOCABULARY) for _ in range(dice.randint(8, 64))] for _ in range(count)]


def ours(model: "PreTrainedModel", prompts: Sequence[list[int]], sampling: Sampling, size: int) -> Answers:
    found = generator.decode(model, prompts, max_new_tokens=LONGEST, stop=STOP, sampling=sampling, batch_size=size)
    return [one.tokens + ([] if one.stop is None else [one.stop]) for (one,) in found]


def theirs(
    model: "PreTrainedModel", prompts: Sequence[list[int]], sampling: Sampling, size: int, cache: str
) -> Answers:
    import torch

    answers: Answers = [[] for _ in prompts]
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    how: dict[str, Any] = {"do_sample": False}
    if sampling.temperature:
        how = {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
    for start in range(0, len(order), size):
        chosen = order[start : start + size]
        width = max(len(prompts[index]) for index in chosen)
        ids = torch.tensor([[0] * (width - len(prompts[index])) + prompts[index] for index in chosen])
        lengths = torch.tensor([len(prompts[index]) for index in chosen])
        with torch.inference_mode():
            output = model.generate(
                input_ids=ids,
                attention_mask=(torch.arange(width) >= width - lengths[:, None]).long(),
                max_new_tokens=LONGEST,
                eos_token_id=STOP,
                pad_token_id=0,
                cache_implementation=cache,
                disable_compile=True,
                **how,
            )
        for index, row in zip(chosen, output[:, width:].tolist(), strict=True):
            ended = generator.until(row, set(STOP))
            answers[index] = row[: len(ended) + 1]
    return answers


def limit(model: "PreTrainedModel", seconds: float = 1.0) -> tuple[float, int]:
    """Return the most tokens a second that the products with the weights alone allow, and the rows
    of a step there.
    """
    import torch

    weights = [module.weight.detach() for module in model.modules() if isinstance(module, torch.nn.Linear)]
    layouts = {"stored": weights, "transposed": [weight.t().contiguous().t() for weight in weights]}
    best = (0.0, 0)
    for rows in SIZES:
        inputs = [torch.randn(rows, weight.shape[1]) for weight in weights]
        for matrices in layouts.values():
            steps, started = 0, time.perf_counter()
            with torch.inference_mode():
                while time.perf_counter() - started < seconds / len(SIZES):
                    for rows_in, weight in zip(inputs, matrices, strict=True):
                        torch.nn.functional.linear(rows_in, weight)
                    steps += 1
            best = max(best, (rows * steps / (time.perf_counter() - started), rows))
    return best


def speed(work: Callable[[], Answers]) -> tuple[float, Answers]:
    started = time.perf_counter()
    answers = work()
    seconds = time.perf_counter() - started
    return sum(map(len, answers)) / seconds, answers


def searched(model: "PreTrainedModel", asked: list[list[int]], sampling: Sampling) -> tuple[int, str, int]:
    """Print one run of each batch size; return the best size and cache of `generate`, and the best
    size of decode.
    """
    there = {size: speed(partial(theirs, model, asked, sampling, size, "dynamic"))[0] for size in SIZES}
    here = {size: speed(partial(ours, model, asked, sampling, size))[0] for size in SIZES}
    size, own = max(SIZES, key=lambda size: there[size]), max(SIZES, key=lambda size: here[size])
    static = speed(partial(theirs, model, asked, sampling, size, "static"))[0]
    print("  one run, tokens/s at batch  " + "".join(f"{one:>7}" for one in SIZES))
    print(f"  {'generate':<28}" + "".join(f"{there[one]:>7,.0f}" for one in SIZES), end="")
    print(f"   static cache at {size}: {static:,.0f}")
    print(f"  {'decode':<28}" + "".join(f"{here[one]:>7,.0f}" for one in SIZES), flush=True)
    return size, "static" if static > there[size] else "dynamic", own


def compare(model: "PreTrainedModel", asked: list[list[int]], sampling: Sampling, rounds: int) -> None:
    """Print both sides' speeds in turns at their best, their ratio and the limit."""
    size, cache, own = searched(model, asked, sampling)
    here, there, limits = [], [], []
    for _ in range(rounds):
        figure, expected = speed(partial(theirs, model, asked, sampling, size, cache))
        there.append(figure)
        figure, answers = speed(partial(ours, model, asked, sampling, own))
        here.append(figure)
        limits.append(limit(model))
        if not sampling.temperature and answers != expected:
            raise SystemExit("the answers differ")
    lengths = sorted(map(len, answers))
    half = lengths[len(lengths) // 2]
    print(f"  {sum(lengths):,} tokens, answers of {lengths[0]} to {lengths[-1]}, the middle one {half}")
    most = statistics.median(figure for figure, _ in limits)
    print(f"  {'limit':<28}{most:>7,.0f} tokens/s, {max(limits)[1]} rows")
    for name, figures in ((f"generate, {cache}, batch {size}", there), (f"decode, batch {own}", here)):
        spread, middle = f"{min(figures):,.0f} to {max(figures):,.0f}", statistics.median(figures)
        print(f"  {name:<28}{middle:>7,.0f} tokens/s ({spread}), {middle / most:.0%} of the limit")
    ratios = [mine / other for mine, other in zip(here, there, strict=True)]
    print(f"  ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})", flush=True)


def main(
    prompts: Annotated[int, typer.Option(help="number of prompts")] = 512,
    rounds: Annotated[int, typer.Option(help="times both sides run, in turns")] = 5,
    threads: Annotated[int, typer.Option(help="threads of both sides")] = 2,
) -> None:
    libraries.quiet()
    import torch

    torch.set_num_threads(threads)
    print(f"{prompts} prompts, {threads} threads, load {os.getloadavg()[0]:.1f}")
    model, asked = build(), made(prompts)
    for name, sampling in WAYS.items():
        print(name)
        compare(model, asked, sampling, rounds)


if __name__ == "__main__":
    typer.run(main)
