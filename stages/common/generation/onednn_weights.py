"""Products with weights laid out beforehand for the processor's kernels (oneDNN), while a model is
only read.

A batch of answers is products of few rows with the same weights, step after step. torch gives those
in float32 to MKL; of 8 rows oneDNN makes twice as many on an AMD processor (docs/decisions.md). The
layout is a second copy of the weights, as they are when it is made: it does not see what becomes of
them. Imported late: needs torch.
"""

import platform
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

Product = Callable[[torch.Tensor], torch.Tensor]
ROWS = 8
"""For which the layout is chosen; it serves other numbers as well."""
LARGEST = 2**31
"""Bytes of weights up to which a model gets a second copy of them: fixed, so that no run depends on
free memory.
"""


def pays(model: Any) -> bool:
    """Whether this processor has such a layout, and the model is small enough to have its weights
    twice.
    """
    if platform.machine() not in ("x86_64", "AMD64") or not torch.backends.mkldnn.is_available():
        return False
    return sum(module.weight.nbytes for module in model.modules() if is_plain(module)) <= LARGEST


def is_plain(module: Any) -> bool:
    """Whether this is a linear layer of the processor's, in float32, and nothing besides."""
    if type(module) is not torch.nn.Linear or module._forward_hooks or module._forward_pre_hooks:
        return False
    return module.weight.device.type == "cpu" and module.weight.dtype == torch.float32


def laid_out(modules: Sequence[Any]) -> Product:
    """Return what makes the products of several linear layers of one input at once, [..., in] to
    [..., sum of outs].

    They have biases all or none. No gradient goes through.
    """
    biases = [module.bias.detach() for module in modules if module.bias is not None]
    weight, bias = torch.cat([module.weight.detach() for module in modules]), torch.cat(biases) if biases else None
    packed = torch.ops.mkldnn._reorder_linear_weight.default(weight, ROWS)

    def multiply(hidden: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = torch.ops.mkldnn._linear_pointwise.default(hidden, packed, bias, "none", [], "")
        return found

    return multiply


def product(modules: Sequence[Any], lay_out: bool) -> Product:
    """Return what makes the products of several linear layers of one input, by `laid_out` where it
    is asked and can.
    """
    if lay_out and all(map(is_plain, modules)):
        return laid_out(modules)
    if len(modules) == 1:
        only: Product = modules[0]
        return only
    return lambda hidden: torch.cat([module(hidden) for module in modules], dim=-1)


def feed_forward(mlp: Any, lay_out: bool) -> Product:
    """Return a gated feed-forward part, its products by `laid_out` where it is asked and can."""
    if lay_out and all(map(is_plain, (mlp.gate_proj, mlp.up_proj, mlp.down_proj))):
        return partial(_gated, laid_out([mlp.gate_proj, mlp.up_proj]), mlp.act_fn, laid_out([mlp.down_proj]))
    whole: Product = mlp
    return whole


def _gated(widen: Product, activation: Product, narrow: Product, hidden: torch.Tensor) -> torch.Tensor:
    """Return the feed-forward part of Shazeer 2020, GLU variants, equation 6."""
    gate, up = widen(hidden).chunk(2, dim=-1)
    return narrow(activation(gate) * up)
