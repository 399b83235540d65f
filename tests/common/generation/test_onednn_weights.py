"""A product laid out beforehand is the usual one, and is left to the layer itself where it would
not be.
"""

import pytest
import torch
from torch import nn

from stages.common.core import models
from stages.common.generation import generator, onednn_weights
from tests.support import decoders

needs_layout = pytest.mark.skipif(not onednn_weights.pays(nn.Linear(1, 1)), reason="this processor has no such layout")


@needs_layout
@pytest.mark.parametrize("rows", [1, 2, 8, 33, 300])
@pytest.mark.parametrize("bias", [False, True])
def test_it_is_the_product_of_each_layer(rows: int, bias: bool) -> None:
    torch.manual_seed(rows)
    layers = [nn.Linear(48, out, bias=bias) for out in (40, 7, 96)]
    hidden = torch.randn(rows, 48)
    with torch.inference_mode():
        found = onednn_weights.laid_out(layers)(hidden)
        expected = torch.cat([layer(hidden) for layer in layers], dim=-1)
        deeper = onednn_weights.laid_out(layers)(hidden[None])
    assert torch.allclose(found, expected, atol=1e-5)
    assert torch.equal(deeper[0], found)


@needs_layout
def test_by_hand() -> None:
    layer = nn.Linear(2, 2)
    layer.weight.data, layer.bias.data = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([0.5, -1.0])
    with torch.inference_mode():
        found = onednn_weights.laid_out([layer])(torch.tensor([[10.0, 1.0], [0.0, 1.0]]))
    assert found.tolist() == [[12.5, 33.0], [2.5, 3.0]]


def test_what_is_not_plain_is_left_alone() -> None:
    class Other(nn.Linear):
        pass

    watched = nn.Linear(2, 2)
    watched.register_forward_hook(lambda *_: None)
    for module in (Other(2, 2), nn.Linear(2, 2).bfloat16(), nn.Linear(2, 2, device="meta"), watched, nn.LayerNorm(2)):
        assert not onednn_weights.is_plain(module)
    assert onednn_weights.is_plain(nn.Linear(2, 2))


@needs_layout
def test_a_model_too_large_keeps_one_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    model = decoders.build("llama")
    linear = sum(one.weight.nbytes for one in model.modules() if isinstance(one, nn.Linear))
    monkeypatch.setattr(onednn_weights, "LARGEST", linear)
    assert onednn_weights.pays(model)
    monkeypatch.setattr(onednn_weights, "LARGEST", linear - 1)
    assert not onednn_weights.pays(model)


def test_another_processor_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    assert not onednn_weights.pays(decoders.build("llama"))


def test_weights_that_changed_since_are_seen_by_the_next_answers() -> None:
    model, prompt, stop = decoders.build("llama"), [5, 9, 33], [1]
    before = generator.generate(model, [prompt], max_new_tokens=8, stop=stop)
    for weight, other in zip(model.parameters(), decoders.build("llama", seed=1).parameters(), strict=True):
        weight.data.copy_(other.data)  # as an optimiser over flat buffers does: no version of a tensor counts it
    (after,) = generator.generate(model, [prompt], max_new_tokens=8, stop=stop)
    assert [after] != before
    assert after == decoders.alone(model, prompt, stop, max_new_tokens=8)


def test_no_copy_outlives_the_answers() -> None:
    """The layout belongs to the batch; the model keeps nothing of it."""
    model = models.build({"model_type": "llama", "hidden_size": 32, "num_hidden_layers": 1}, 50, "test").eval()
    before = {name: id(value) for module in model.modules() for name, value in vars(module).items()}
    generator.generate(model, [[3, 4]], max_new_tokens=2, stop=[1])
    assert {name: id(value) for module in model.modules() for name, value in vars(module).items()} == before
