"""What an update of PPO takes at least: its products with the weights, without all else."""

import statistics
import time
from pathlib import Path
from typing import Any

from stages.common.core import models


def products(rows: int, weights: list[Any], backward: bool, seconds: float = 1.0) -> float:
    """Return how long the products of `rows` rows with the weights take, at the faster of two
    layouts.
    """
    import torch

    best = float("inf")
    layouts = [weights, [weight.t().contiguous().t() for weight in weights]]
    sides = [(torch.randn(rows, weight.shape[1]), torch.randn(rows, weight.shape[0])) for weight in weights]
    with torch.inference_mode():
        for matrices in layouts:
            began = time.perf_counter()
            while time.perf_counter() - began < seconds:
                start = time.perf_counter()
                for weight, (inputs, gradient) in zip(matrices, sides, strict=True):
                    torch.nn.functional.linear(inputs, weight)
                    if backward:
                        gradient @ weight
                        gradient.t() @ inputs
                best = min(best, time.perf_counter() - start)
    return best


def limit(folder: Path, asked: list[int], answered: list[int], *, batch: int, epochs: int) -> float:
    """Return the seconds that the products of one update of mean size take, with its rollout and
    scoring.

    `asked`, `answered`: lengths of the prompts and answers that were read; `batch` of them make an
    update.
    """
    import torch

    policy = models.load(folder / "policy")
    head = [policy.get_output_embeddings().weight.detach()]
    linear = [module for module in policy.modules() if isinstance(module, torch.nn.Linear)]
    body = [module.weight.detach() for module in linear if module.weight is not policy.get_output_embeddings().weight]
    prompts, answers = (round(statistics.fmean(lengths) * batch) for lengths in (asked, answered))
    whole = prompts + answers
    rollout = products(prompts, body, False) + answers / batch * products(batch, body + head, False)
    scored = 3 * products(whole, body, False) + products(answers, head, False)
    update = 2 * products(whole, body, True) + products(answers, head, True)
    return rollout + scored + epochs * update
