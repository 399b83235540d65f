"""A product laid out beforehand is the usual one, and is left to the layer itself where it would not be."""

import pytest
import torch
from torch import nn

from stages.common import generation, models, prepacking
from tests import decoders

needs_layout = pytest.mark.skipif(not prepacking.pays(nn.Linear(1, 1)), reason="this processor has no such layout")


@needs_layout
@pytest.mark.parametrize("rows", [1, 2, 8, 33, 300])
@pytest.mark.parametrize("bias", [False, True])
def test_it_is_the_product_of_each_layer(rows: int, bias: bool) -> None:
    torch.manual_seed(rows)
    layers = [nn.Linear(48, out, bias=bias) for out in (40, 7, 96)]
    hidden = torch.randn(rows, 48)
    with torch.inference_mode():
        found = prepacking.product(layers)(hidden)
        expected = torch.cat([layer(hidden) for layer in layers], dim=-1)
        deeper = prepacking.product(layers)(hidden[None])
    assert torch.allclose(found, expected, atol=1e-5)
    assert torch.equal(deeper[0], found)


@needs_layout
def test_by_hand() -> None:
    layer = nn.Linear(2, 2)
    layer.weight.data, layer.bias.data = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([0.5, -1.0])
    with torch.inference_mode():
        found = prepacking.product([layer])(torch.tensor([[10.0, 1.0], [0.0, 1.0]]))
    assert found.tolist() == [[12.5, 33.0], [2.5, 3.0]]


def test_what_is_not_plain_is_left_alone() -> None:
    class Other(nn.Linear):
        pass

    watched = nn.Linear(2, 2)
    watched.register_forward_hook(lambda *_: None)
    for module in (Other(2, 2), nn.Linear(2, 2).bfloat16(), nn.Linear(2, 2, device="meta"), watched, nn.LayerNorm(2)):
        assert not prepacking.is_plain(module)
    assert prepacking.is_plain(nn.Linear(2, 2))


@needs_layout
def test_a_model_too_large_keeps_one_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    model = decoders.build("llama")
    linear = sum(one.weight.nbytes for one in model.modules() if isinstance(one, nn.Linear))
    monkeypatch.setattr(prepacking, "LARGEST", linear)
    assert prepacking.pays(model)
    monkeypatch.setattr(prepacking, "LARGEST", linear - 1)
    assert not prepacking.pays(model)


def test_another_processor_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    assert not prepacking.pays(decoders.build("llama"))


def test_weights_that_changed_since_are_seen_by_the_next_answers() -> None:
    model, prompt, stop = decoders.build("llama"), [5, 9, 33], [1]
    before = generation.generate(model, [prompt], max_new_tokens=8, stop=stop)
    for weight, other in zip(model.parameters(), decoders.build("llama", seed=1).parameters(), strict=True):
        weight.data.copy_(other.data)  # as an optimiser over flat buffers does: no version of a tensor counts it
    (after,) = generation.generate(model, [prompt], max_new_tokens=8, stop=stop)
    assert [after] != before
    assert after == decoders.alone(model, prompt, stop, max_new_tokens=8)


def test_no_copy_outlives_the_answers() -> None:
    """The layout belongs to the batch; the model keeps nothing of it."""
    model = models.build({"model_type": "llama", "hidden_size": 32, "num_hidden_layers": 1}, 50, "test").eval()
    before = {name: id(value) for module in model.modules() for name, value in vars(module).items()}
    generation.generate(model, [[3, 4]], max_new_tokens=2, stop=[1])
    assert {name: id(value) for module in model.modules() for name, value in vars(module).items()} == before
