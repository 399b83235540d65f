"""State as safetensors and JSON comes back equal to the bit."""

import random
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

from stages.common.training import optimizer_state


def test_a_nest_of_everything_comes_back_equal(tmp_path: Path) -> None:
    nest: dict[str, Any] = {
        "state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.randn(3, 4)}, 1: {}},
        "param_groups": [{"lr": 1e-3 / 3, "betas": (0.9, 0.999), "fused": None, "params": [0, 1]}],
        "numpy": numpy.arange(5, dtype="uint32"),
        "last": float("inf"),
    }
    optimizer_state.save_state(nest, tmp_path, "x")
    back = optimizer_state.load_state(tmp_path, "x")
    assert torch.equal(back["state"][0]["exp_avg"], nest["state"][0]["exp_avg"])
    assert back["param_groups"] == nest["param_groups"]
    assert isinstance(back["param_groups"][0]["betas"], tuple)
    assert back["numpy"].dtype == numpy.uint32
    assert numpy.array_equal(back["numpy"], nest["numpy"])
    assert back["last"] == float("inf")
    assert {file.suffix for file in tmp_path.iterdir()} == {".json", ".safetensors"}


def test_random_generators_go_on_where_they_were(tmp_path: Path) -> None:
    optimizer_state.save_state(optimizer_state.random_state(), tmp_path, "random")
    drawn = (random.random(), numpy.random.rand(), torch.rand(3).tolist())
    optimizer_state.set_random_state(optimizer_state.load_state(tmp_path, "random"))
    assert (random.random(), numpy.random.rand(), torch.rand(3).tolist()) == drawn


def test_an_optimiser_continues_to_the_same_bits(tmp_path: Path) -> None:
    def step(weights: torch.Tensor, optimiser: torch.optim.Optimizer) -> None:
        weights.grad = torch.sin(weights.detach() * 3)
        optimiser.step()

    one = torch.linspace(-1, 1, 7, requires_grad=True)
    first = torch.optim.AdamW([one], lr=0.01)
    for _ in range(3):
        step(one, first)
    two = one.detach().clone().requires_grad_()
    second = torch.optim.AdamW([two], lr=0.5)
    optimizer_state.save_state(first.state_dict(), tmp_path, "optimizer")
    second.load_state_dict(optimizer_state.load_state(tmp_path, "optimizer"))
    for _ in range(3):
        step(one, first)
        step(two, second)
    assert torch.equal(one, two)


def test_an_object_has_no_place_in_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="has no place"):
        optimizer_state.save_state({"x": tmp_path}, tmp_path, "x")
