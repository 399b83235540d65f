"""Dropout, switched off where a model's probabilities are compared with those it gave before."""

from typing import Any


def switch_off(model: Any) -> None:
    """Set every share of dropout, and a router's jitter, to 0 in the modules of a model; its config
    stays.

    transformers' attention has its share as an attribute beside torch's Dropout modules.
    """
    from torch import nn

    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name, share in list(vars(module).items()):
            if ("dropout" in name or "jitter" in name) and isinstance(share, float):
                setattr(module, name, 0.0)
