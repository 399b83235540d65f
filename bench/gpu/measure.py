"""The parts of `make gpu-check` that hold a model, each in a process of its own.

    python -m bench.gpu.measure train|decode|determinism|ppo cpu|cuda FOLDER

A row of the table is a line of JSON behind ROW on the standard output, printed as soon as it is
known: what a part that is ended had found stays.
"""

import json
import random
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.gpu.sizes import ON, Sizes, flops, mfu
from bench.gpu.training import synchronise, trained, trainer, written_model

ROW = "ROW "
UPDATES = 2
"""Of PPO."""


def say(name: str, value: float | str, unit: str = "", note: str = "") -> None:
    """Print a row."""
    print(ROW + json.dumps({"name": name, "value": value, "unit": unit, "note": note}), flush=True)


def peak_gibibytes(device: str) -> float:
    """Return the most memory since the last look: the GPU's, or this process's."""
    import torch

    if device == "cuda":
        peak = torch.cuda.max_memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        return peak / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def train(sizes: Sizes, device: str, folder: Path) -> None:
    """Measure pretrain and SFT at each length."""
    import gc

    import torch

    model, name = written_model(sizes, device, folder), device_name(device)
    for stage in ("pretrain", "sft"):
        for tokens in sizes.lengths:
            made = trainer(stage, sizes, tokens, sizes.steps, model)
            peak_gibibytes(device)
            speed = sizes.step_tokens / trained(made, device, sizes.warm)
            weights = sum(one.numel() for one in made.model.parameters())
            share = mfu(name, speed * flops(sizes.model, weights, tokens))
            what = f"{stage}, {tokens} tokens"
            say(f"{what}: speed", round(speed), "tokens/s", f"{weights:,} weights")
            say(f"{what}: MFU", f"{share:.1%}" if share else "no data sheet")
            say(f"{what}: peak memory", round(peak_gibibytes(device), 1), "GiB")
            made = None
            gc.collect()
            if device == "cuda":
                torch.cuda.empty_cache()


def decode(sizes: Sizes, device: str, folder: Path) -> None:
    """Measure the local decoder: no answer ends before its time."""
    from stages.common.core import models
    from stages.common.generation import generator

    model = models.load_frozen(written_model(sizes, device, folder)).eval()
    dice = random.Random(1)
    for rows in sizes.rows:
        prompts = [[dice.randrange(300, sizes.vocabulary) for _ in range(sizes.prompt_tokens)] for _ in range(rows)]
        spent = []
        for new in (4, sizes.new_tokens):  # the first to warm up
            synchronise(device)
            start = time.monotonic()
            generator.decode(model, prompts, max_new_tokens=new, stop=[], batch_size=rows)
            synchronise(device)
            spent.append(time.monotonic() - start)
        say(f"decode, {rows} rows: speed", round(rows * sizes.new_tokens / spent[-1]), "tokens/s")


def determinism(sizes: Sizes, device: str, folder: Path) -> None:
    """Train twice from the same seed, with torch's own choice of kernels and with deterministic
    ones; compare the weights, and what the latter cost.
    """
    import torch

    model, tokens = written_model(sizes, device, folder), sizes.lengths[0]
    spent = {}
    for kernels in ("default", "deterministic"):
        torch.use_deterministic_algorithms(kernels == "deterministic", warn_only=True)
        found = []
        for _ in range(2):
            made = trainer("sft", sizes, tokens, sizes.steps // 2, model)
            spent[kernels] = trained(made, device, 1)
            found.append([one.detach().cpu() for one in made.model.parameters()])
        same = all(torch.equal(one, other) for one, other in zip(*found, strict=True))
        say(f"two runs, {kernels} kernels", "same bits" if same else "other bits")
    say("deterministic kernels cost", f"{spent['deterministic'] / spent['default'] - 1:+.0%}", "", "of a step's time")


def ppo(sizes: Sizes, device: str, folder: Path) -> None:
    """Measure PPO updates, and TRL 1.12's where it is given."""
    from contextlib import chdir

    from bench import ppo as bench

    peer = (folder / "peer").read_text(encoding="utf-8") if (folder / "peer").exists() else ""
    of: dict[str, Any] = {"model": sizes.model, "vocabulary": sizes.vocabulary, "device": device}
    of |= {"batch": sizes.episodes, "longest": sizes.episode_tokens}
    with chdir(folder):
        job = bench.prepare(folder, 6.0, UPDATES, 0, **of)
        stage = bench.speed(bench.ours(folder, job, 1))
        what = f"{UPDATES} updates of {sizes.episodes} episodes in {job['epochs']} epochs, the first one too"
        say("ppo: speed", round(stage, 2), "episodes/s", what)
        if not peer:
            say("ppo, against TRL 1.12", "not measured", "", "its environment is not here")
            return
        with bench.theirs(Path(peer), folder) as other:
            assert other
            theirs = bench.speed(other(1))
        say("TRL 1.12's PPO: speed", round(theirs, 2), "episodes/s")
        say("ppo, against TRL 1.12", round(stage / theirs, 2), "times")


def device_name(device: str) -> str:
    """Return the card's name, or the processor's kind."""
    import platform

    import torch

    return torch.cuda.get_device_name() if device == "cuda" else f"CPU ({platform.machine()})"


def facts(device: str) -> Iterator[tuple[str, str]]:
    """Yield what the figures depend on."""
    from importlib import metadata

    yield "device", device_name(device)
    for name in ("torch", "transformers", "trl", "accelerate", "peft"):
        yield name, metadata.version(name)


def main() -> None:
    """Run one part."""
    part, device, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    if part == "facts":
        print(ROW + json.dumps(dict(facts(device))), flush=True)
    else:
        {"train": train, "decode": decode, "determinism": determinism, "ppo": ppo}[part](ON[device], device, folder)


if __name__ == "__main__":
    main()
