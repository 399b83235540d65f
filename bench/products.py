"""A linear layer's products in training by MKL, as torch makes them in fp32, and by oneDNN: whether
this processor gains by the latter.

    python -m bench.products

The products are the layer's output and both gradients of the loss, of rows and columns as the 4 M
model has them. Columns of ratios say MKL's time over oneDNN's. Time is the processor's, of one
thread, the least of several rounds in turns, so other work on the machine counts for little.
"""

import time
from collections.abc import Callable
from typing import Annotated, Any

import torch
import typer
from torch import nn

from bench.reward import VOCABULARY

ROWS = (64, 256, 1024)
SIZES = ((256, 256), (256, 688), (688, 256), (256, VOCABULARY))


def multiplied(rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return rows [..., in] times weight [out, in] by oneDNN, as `linear` without a bias does by
    MKL.
    """
    found: torch.Tensor = torch.ops.mkldnn._linear_pointwise.default(rows, weight, None, "none", [], "")
    return found


def least(work: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Return the least seconds of the processor by name, each worked in turns."""
    found = dict.fromkeys(work, float("inf"))
    for _ in range(rounds):
        for name, call in work.items():
            start = time.thread_time()
            call()
            found[name] = min(found[name], time.thread_time() - start)
    return found


def products(rows: int, inside: int, outside: int, rounds: int) -> str:
    """Return a row of the table: ratios of MKL's time to oneDNN's, and MKL's speed."""
    given, weight, gradient = torch.randn(rows, inside), torch.randn(outside, inside), torch.randn(rows, outside)
    work: dict[str, Callable[[], Any]] = {
        "output": lambda: nn.functional.linear(given, weight),
        "output, oneDNN": lambda: multiplied(given, weight),
        "input's gradient": lambda: gradient @ weight,
        "input's gradient, oneDNN": lambda: multiplied(gradient, weight.t()),
        "weights' gradient": lambda: gradient.t() @ given,
        "weights' gradient, oneDNN": lambda: multiplied(gradient.t(), given.t()),
    }
    took = least(work, rounds)
    ratios = " | ".join(f"{took[name] / took[f'{name}, oneDNN']:.2f}" for name in list(work)[::2])
    speed = 2 * rows * inside * outside / took["output"] / 1e9
    return f"| {rows:,} | {inside} | {outside:,} | {speed:.0f} | {ratios} |"


def main(
    rounds: Annotated[int, typer.Option(help="Times each product is made, in turns.")] = 50,
) -> None:
    """Print the table."""
    torch.set_num_threads(1)
    with torch.no_grad():
        print("| rows | in | out | MKL, GFLOP/s | output | input's gradient | weights' gradient |")
        print("|---|---|---|---|---|---|---|")
        for rows in ROWS:
            for inside, outside in SIZES:
                print(products(rows, inside, outside, rounds), flush=True)


if __name__ == "__main__":
    typer.run(main)
