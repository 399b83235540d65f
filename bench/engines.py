"""Tokens a second of sampling by vLLM and by the local decoder, on the same prompts, in turns.

A chat model answers questions four times each at temperature 1, as the stage `sample` has it done:
answers of at most 48 tokens, which end at the end of turn. Tokens of answers count, stop tokens
among them. On a CPU both sides hold fp32 weights and have the same threads. The engine's start and
each side's first call are no part of it. Greedy answers of both sides are compared by token. Beside
seconds stand the processor's: on a busy machine they say more.

    make vllm && python -m bench.engines --model base/smollm2-135m-instruct
"""

import os
import statistics
import time
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer

from stages.common.core import chat, models, precision, records
from stages.common.generation import generator
from stages.common.generation.engines.vllm_process import Vllm
from stages.common.generation.sampling import Sampling
from stages.common.runtime import libraries
from stages.common.runtime.errors import ParamsError

ANSWERS, LONGEST = 4, 48
TOPICS = ("the sea", "a bicycle", "winter", "bread", "the moon", "a library", "iron", "a river", "music", "trade")
HEADS = ("Tell me about", "What is good about", "Why do people like", "Write a line about", "Explain", "Who needs")


def questions(count: int) -> list[list[records.Record]]:
    asked = [f"{head} {topic}?" for head in HEADS for topic in TOPICS]
    return [[records.message("user", f"{asked[n % len(asked)]} Answer {n}.")] for n in range(count)]


def processor(model: Any) -> float:
    """Return the processor's seconds that a side has had."""
    times = psutil.Process(model.worker.pid if isinstance(model, Vllm) else None).cpu_times()
    return float(times.user + times.system)


def speed(model: Any, prompts: list[list[int]], stop: list[int], rows: int, seed: int) -> tuple[float, float]:
    """Return tokens of answers a second, and a second of the processor."""
    started, spent = time.perf_counter(), processor(model)
    found = generator.decode(
        model,
        prompts,
        max_new_tokens=LONGEST,
        stop=stop,
        sampling=Sampling(temperature=1.0, seed=seed),
        samples=ANSWERS,
        batch_size=rows,
    )
    seconds, spent = time.perf_counter() - started, processor(model) - spent
    tokens = sum(len(one.tokens) + (one.stop is not None) for some in found for one in some)
    return tokens / seconds, tokens / spent


def main(
    model: Annotated[Path, typer.Option(help="folder of a chat model")] = Path("models/sft_best"),
    prompts: Annotated[int, typer.Option(help="questions")] = 32,
    rounds: Annotated[int, typer.Option(help="times both sides run, in turns")] = 5,
    threads: Annotated[int, typer.Option(help="threads of both sides")] = 2,
    rows: Annotated[int, typer.Option(help="answers under way at once")] = 128,
) -> None:
    libraries.quiet()
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if not model.is_dir():
        return print(f"no model in {model}: name one with --model")
    import torch

    torch.set_num_threads(threads)
    tokenizer, local = models.load_tokenizer(model), models.load_frozen(model)
    asked, stop = [chat.encode_prompt(tokenizer, one) for one in questions(prompts)], list(chat.stops(tokenizer))
    began = time.perf_counter()
    try:
        dtype = str(precision.frozen(model)).removeprefix("torch.")
        engine = Vllm(model, generator.context(local), rows=rows, dtype=dtype)
    except ParamsError as error:
        return print(error)
    print(f"{prompts} questions, {ANSWERS} answers each, {threads} threads, load {os.getloadavg()[0]:.1f}")
    print(f"vLLM started in {time.perf_counter() - began:.0f} s")
    greedy = [generator.generate(one, asked, max_new_tokens=LONGEST, stop=stop) for one in (local, engine)]
    equal = sum(ours == theirs for ours, theirs in zip(*greedy, strict=True))
    print(f"greedy answers equal: {equal} of {prompts}")
    speeds: dict[str, list[tuple[float, float]]] = {"local": [], "vllm": []}
    for number in range(rounds):
        for name, one in (("local", local), ("vllm", engine)):
            speeds[name].append(speed(one, asked, stop, rows, number))
        print("  ".join(f"{name} {found[-1][0]:,.0f}" for name, found in speeds.items()), flush=True)
    for kind, unit in enumerate(("tokens/s", "tokens a second of the processor")):
        ours, theirs = ([one[kind] for one in found] for found in speeds.values())
        for name, found in (("local", ours), ("vllm", theirs)):
            print(f"  {name:<6}{statistics.median(found):>8,.0f} {unit} ({min(found):,.0f} to {max(found):,.0f})")
        ratios = [other / mine for mine, other in zip(ours, theirs, strict=True)]
        print(f"  ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    typer.run(main)
