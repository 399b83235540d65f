"""Many logits are never held at once, and what is learnt and measured is the same number."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from stages.common.core import checkpoints, fused_head
from stages.common.core.chat import Encoded
from stages.common.evaluation import perplexity
from stages.common.ppo import actor_critic
from tests.support import trainers
from tests.support.tiny import make_model, make_tokenizer

TOKENS, WIDTH = 8, 64
"""Of a tile."""


class Rows(TorchDispatchMode):
    """Counts the rows of the largest tensor that is as wide as the vocabulary, but the head's
    weights.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.vocabulary, self.weights, self.most = config.vocab_size, config.hidden_size, 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for one in tree_iter(result):
            if isinstance(one, torch.Tensor) and one.dim() and one.shape[-1] == self.vocabulary:
                rows = one.numel() // self.vocabulary
                self.most = max(self.most, rows if rows != self.weights else 0)
        return result


@pytest.fixture
def tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make TRL's tiles smaller than the models of these tests."""
    monkeypatch.setattr("trl.kernels.chunked_logprob.TOKEN_CHUNK_SIZE", TOKENS)
    monkeypatch.setattr("trl.trainer.utils._CHUNKED_LOGPROB_CHUNK_SIZE", WIDTH)


def step(trainer: Any, batch: dict[str, Any]) -> tuple[float, dict[str, torch.Tensor], int]:
    """Return the loss of a batch, its gradients, and how many positions had all their logits at
    once.
    """
    trainer.model.zero_grad()
    with Rows(trainer.model.config) as rows:
        loss = trainer.compute_loss(trainer.model, dict(batch))
        loss.backward()
    gradients = {name: one.grad.clone() for name, one in trainer.model.named_parameters() if one.grad is not None}
    return loss.item(), gradients, rows.most


@pytest.mark.parametrize("stage", ["pretrain", "sft", "orpo"])
def test_a_step_of_many_logits_learns_the_same_without_holding_them(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiles: None
) -> None:
    monkeypatch.setattr(checkpoints, "ROOT", tmp_path / "checkpoints")
    _, trainer = trainers.trainer(stage, trainers.write_small(tmp_path))
    trainer.model.eval()  # no dropout
    batch = next(iter(trainer.get_train_dataloader()))
    loss, gradients, positions = step(trainer, batch)
    assert positions > TOKENS
    monkeypatch.setattr(fused_head, "BUDGET", 0)
    fused, found, most = step(trainer, batch)
    assert most == 0
    assert fused == pytest.approx(loss, abs=1e-5) and loss > 1
    assert set(found) == set(gradients)
    assert all(torch.allclose(found[name], value, atol=1e-5) for name, value in gradients.items())


def test_perplexity_is_the_same_in_tiles(monkeypatch: pytest.MonkeyPatch, tiles: None) -> None:
    model = make_model(make_tokenizer()).eval()
    before = vars(model).copy()
    rows = [Encoded(list(range(5, 45)), [0, 1] * 20), Encoded(list(range(9, 29)), [1] * 20)]
    whole = perplexity.batch_losses(model, rows)
    monkeypatch.setattr(fused_head, "BUDGET", 0)
    with Rows(model.config) as seen:
        tiled = perplexity.batch_losses(model, rows)
    assert seen.most == 0 and vars(model).keys() == before.keys()
    assert [count for _, count in tiled] == [count for _, count in whole] == [20, 19]
    assert [loss for loss, _ in tiled] == pytest.approx([loss for loss, _ in whole], abs=1e-4)


def test_ppo_reads_answers_in_parts_with_the_same_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(make_tokenizer()).eval()
    vocabulary = model.config.vocab_size
    episodes = actor_critic.Episodes([[5, 6, 7], [8]], [list(range(9, 29)), list(range(30, 50))])
    hidden = torch.randn(40, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()
    tokens = torch.arange(40)
    found: list[Any] = []
    for budget in (fused_head.BUDGET, TOKENS * vocabulary):
        monkeypatch.setattr(fused_head, "BUDGET", budget)
        model.zero_grad()
        hidden.grad = None
        with Rows(model.config) as rows:
            log_probs, entropy = actor_critic.policy_figures(model, hidden, tokens, 0.7)
            log_probs.sum().backward()
            with torch.no_grad():
                read = actor_critic.log_probabilities(model, episodes, 1.0)
        head = model.get_output_embeddings().weight.grad
        assert hidden.grad is not None
        found.append(((log_probs.detach(), entropy, read, hidden.grad.clone(), head.clone()), rows.most))
    (whole, most), (parts, fewest) = found
    assert (most, fewest) == (40, TOKENS)
    assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(whole, parts, strict=True))


def test_blocks_beside_ppo_have_the_same_loss_in_tiles(monkeypatch: pytest.MonkeyPatch, tiles: None) -> None:
    model, blocks = make_model(make_tokenizer()).eval(), torch.arange(5, 69).view(2, 32)
    whole = actor_critic.block_loss(model, blocks).item()
    monkeypatch.setattr(fused_head, "BUDGET", 0)
    with Rows(model.config) as rows:
        assert actor_critic.block_loss(model, blocks).item() == pytest.approx(whole, abs=1e-5)
    assert rows.most == 0


@pytest.mark.parametrize(("entries", "tokens"), [(3_072, 4096), (49_152, 2048), (151_936, 2048)])
def test_tiles_hold_the_budget_and_change_nothing_of_a_small_vocabulary(entries: int, tokens: int) -> None:
    from transformers import AutoConfig
    from trl.kernels import chunked_logprob

    model = SimpleNamespace(config=AutoConfig.for_model("llama", vocab_size=entries))
    with fused_head.tiles_kept():
        chunked_logprob.TOKEN_CHUNK_SIZE = 4096
        fused_head.bound_tiles(model)
        assert tokens == chunked_logprob.TOKEN_CHUNK_SIZE
