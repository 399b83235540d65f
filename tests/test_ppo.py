"""PPO learns a bandit, keeps near its reference, resumes, refuses what it cannot do; LoRA, ptx,
average, processes.
"""

from pathlib import Path
from typing import Any

import pytest
import torch

from stages.common.core import checkpoints, models
from stages.common.ppo import losses as ppo_losses
from stages.common.ppo import report as ppo_report
from stages.common.ppo.collector import Collector
from stages.common.ppo.rollouts import Rollout
from stages.common.reward import calibration
from stages.common.runtime import process
from stages.common.runtime.errors import StopRequested
from stages.common.training import packed_blocks
from tests.support import held_models
from tests.support.small_ppo import fit, trainer_in, write_ppo


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(checkpoints, "ROOT", tmp_path / "checkpoints")
    write_ppo(tmp_path)
    return tmp_path


def test_a_bandit_is_learnt_to_95_percent_of_the_optimum(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A first token pays 1 where it and the prompt's last number agree in their rest by 4, else 0.
    Without the KL penalty two of four seeds settle on a token that pays nothing for one prompt.
    """

    def scores(_: Any, prompts: list[list[int]], answers: list[Any]) -> list[float]:
        first = [(one.tokens or [one.stop])[0] for one in answers]
        return [float(token % 4 == prompt[-1] % 4) for prompt, token in zip(prompts, first, strict=True)]

    monkeypatch.setattr(Collector, "_score", scores)
    monkeypatch.setattr(calibration, "unit", lambda *_: (0.0, 1.0))
    prompts = [[9, 10 + arm] for arm in range(4)]
    trainer = trainer_in(
        work,
        {"train": prompts, "validation": prompts},
        max_new_tokens=1,
        rollout_episodes=64,
        rollouts_per_epoch=100,
        end_penalty=0.0,
        kl_coefficient=0.1,
        kl_stop=1000.0,
        training={"per_device_train_batch_size": 32, "lr_scheduler_type": "constant"},
    )
    fit(trainer)
    rewards = [row["reward"] for row in trainer.state.log_history if "reward" in row]
    assert rewards[0] < 0.5
    assert sum(rewards[-3:]) / 3 >= 0.95


def test_the_first_ratio_is_one_and_kl_to_the_start_is_none(work: Path) -> None:
    trainer = trainer_in(work)
    fit(trainer)
    first = trainer.state.log_history[0]
    assert first["clip_fraction"] == 0
    assert first["update_kl"] == pytest.approx(0.0, abs=1e-9)
    assert first["kl_k1"] == pytest.approx(0.0, abs=1e-4)
    later = [row for row in trainer.state.log_history if "kl_k1" in row][1]
    assert later["kl"] > 0


def test_the_first_ratio_is_one_under_autocast_too(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def decoders(one: Collector, models: Any, prompts: Any, number: int, autocast: Any) -> Rollout:
        assert autocast is not None
        return collect(one, models, prompts, number)

    found, collect = [], Collector.collect
    for is_read_again in (True, False):
        monkeypatch.setattr(checkpoints, "ROOT", work / f"checkpoints-{is_read_again}")
        monkeypatch.setattr(Collector, "collect", collect if is_read_again else decoders)
        trainer = trainer_in(work, training={"bf16": True, "per_device_train_batch_size": 8})
        fit(trainer)
        found.append(trainer.state.log_history[0]["update_kl"])
    again, apart = found
    assert 0 <= again < 1e-3 * apart


def test_what_the_decoder_rounds_otherwise_is_logged_and_weighted(work: Path) -> None:
    trainer = trainer_in(work, training={"bf16": True, "per_device_train_batch_size": 8})
    fit(trainer)
    columns = trainer.rollout.columns
    apart = (columns["sampled"] - columns["log_probs"])[columns["mask"]].abs()
    assert 0 < float(apart.max()) < 0.5
    last = [row for row in trainer.state.log_history if "mismatch_most" in row and "loss" in row][-1]
    assert last["mismatch_most"] == pytest.approx(float(apart.max()), rel=1e-6)
    assert last["mismatch_truncated"] == 0 and 0 < last["mismatch_kl"] < 0.1
    plain = trainer_in(work)
    plain.next_rollout(0)
    assert "sampled" not in plain.rollout.columns


def test_the_report_holds_one_model_at_a_time(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trainer_in(work)
    kept = fit(trainer)
    actor, setup = trainer.model, trainer.setup.collector
    counts = held_models.counted(monkeypatch, actor.policy, actor.value, setup.reward, setup.reference)
    del actor, setup
    paths = {"out": work / "out", "curve": work / "c.csv", "report": work / "r.json"}
    ppo_report.publish(trainer, kept, start=work / "model", reward=work / "reward", **paths)
    assert counts == [0, 0, 0]


def test_a_stop_in_the_first_rollout_saves_and_resumes_to_the_same_weights(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def weights(trainer: Any) -> torch.Tensor:
        return torch.cat([value.detach().flatten() for value in trainer.model.parameters()])

    whole = trainer_in(work)
    fit(whole)
    monkeypatch.setattr(checkpoints, "ROOT", work / "again")
    stopped = trainer_in(work)
    with monkeypatch.context() as patch:
        patch.setattr(process, "stop_requested", lambda: True)
        with pytest.raises(StopRequested):
            fit(stopped)
    assert [path.name for path in (work / "again/ppo/test").glob("checkpoint-*")] == ["checkpoint-0"]
    resumed = trainer_in(work)
    fit(resumed)
    assert torch.equal(weights(whole), weights(resumed))


def test_one_step_is_the_gradient_of_the_losses_worked_apart(work: Path) -> None:
    trainer = trainer_in(work, training={"per_device_train_batch_size": 8}, value_weight=0.5, ppo_epochs=1)
    loss = trainer.compute_loss(trainer.model, {"place": torch.arange(8)})
    loss.backward()
    found = {name: value.grad.clone() for name, value in trainer.model.named_parameters()}
    trainer.model.zero_grad()
    rollout, losses = trainer.rollout, torch.zeros(3)
    count = int(rollout.lengths().sum())
    for row in range(8):
        prompt, answer = rollout.episodes.prompts[row], rollout.episodes.answers[row]
        ids, here = torch.tensor([[*prompt, *answer]]), slice(len(prompt) - 1, len(prompt) + len(answer) - 1)
        logits = trainer.model.policy(ids).logits[0, here]
        hidden = trainer.model.value.base_model(ids).last_hidden_state[0, here]
        values = trainer.model.value.score(hidden)[:, 0]
        old, advantages, old_values, returns = rollout.tokens([row], "log_probs", "advantages", "values", "returns")
        log_probs = ppo_losses.token_log_probs(logits, torch.tensor(answer))
        policy, _ = ppo_losses.policy_loss(log_probs, old, advantages, 0.2)
        value, _ = ppo_losses.value_loss(values, old_values, returns, 0.2)
        part = len(answer) / count * (policy + 0.5 * value)
        part.backward()
        losses += part.detach()
    assert loss.item() == pytest.approx(losses[0].item(), abs=1e-6)
    for name, value in trainer.model.named_parameters():
        assert torch.allclose(value.grad, found[name], atol=1e-5), name


def test_the_value_model_learns_first_and_alone(work: Path) -> None:
    trainer = trainer_in(work, value_warmup=1, rollouts_per_epoch=1, value_clip=None)
    start = {name: value.detach().clone() for name, value in trainer.model.named_parameters()}
    fit(trainer)
    moved = {name for name, value in trainer.model.named_parameters() if not torch.equal(value, start[name])}
    assert moved
    assert all(name.startswith("value.") for name in moved)
    losses = [row["value_loss"] for row in trainer.state.log_history if "value_loss" in row]
    assert losses[-1] < losses[0]


def test_accumulated_shares_make_the_step_of_one_batch(work: Path) -> None:
    ends = []
    for batch, accumulation in ((8, 1), (2, 4)):
        checkpoints.ROOT = work / f"checkpoints-{batch}"  # restored by the fixture's monkeypatch
        one = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}
        trainer = trainer_in(work, training=one | {"optim": "sgd", "learning_rate": 0.1})
        fit(trainer)
        ends.append(torch.cat([value.detach().flatten() for value in trainer.model.policy.parameters()]))
    assert torch.allclose(ends[0], ends[1], atol=1e-5)


def test_adapters_are_trained_the_reference_is_the_policy_without_them_and_what_is_kept_is_whole(work: Path) -> None:
    trainer = trainer_in(work, lora={"r": 2, "target_modules": ["q_proj", "v_proj"]})
    assert trainer.setup.collector.reference is None
    kept = fit(trainer)
    trained = {name for name, value in trainer.model.named_parameters() if value.requires_grad}
    assert all("lora" in name or "score" in name for name in trained)
    assert {name.split(".")[0] for name in trained} == {"policy", "value"}
    first = trainer.state.log_history[0]
    assert first["kl_k1"] == pytest.approx(0.0, abs=1e-4)
    whole = models.load(kept[0])
    start = models.load(work / "model").state_dict()
    moved = {name for name, value in whole.state_dict().items() if not torch.equal(value, start[name])}
    assert moved
    assert all("q_proj" in name or "v_proj" in name for name in moved)


def test_ptx_holds_the_loss_on_documents(work: Path) -> None:
    losses = {}
    for weight in (0.0, 5.0):
        checkpoints.ROOT = work / f"checkpoints-{weight}"
        trainer = trainer_in(work, ptx_weight=weight, ptx_block_tokens=32, ptx_blocks=4)
        fit(trainer)
        blocks = packed_blocks.documents(trainer.processing_class, work / "documents/train", 32)
        batch = torch.stack([blocks[index]["input_ids"] for index in range(len(blocks))])
        with torch.no_grad():
            losses[weight] = trainer.model.policy(input_ids=batch, labels=batch).loss.item()
        assert ("ptx_loss" in trainer.state.log_history[0]) == bool(weight)
    assert losses[5.0] < losses[0.0] - 0.1


def test_an_average_is_kept_in_place_of_the_weights(work: Path) -> None:
    trainer = trainer_in(work, average_decay=0.5)
    start = {name: value.detach().clone() for name, value in trainer.model.policy.named_parameters()}
    kept = fit(trainer)
    found, now = dict(models.load(kept[0]).named_parameters()), dict(trainer.model.policy.named_parameters())
    name = "model.layers.0.mlp.up_proj.weight"
    assert not torch.equal(found[name], now[name])
    assert torch.equal(found[name], trainer.average.weights[name])
    assert (found[name] - start[name]).norm() < (now[name] - start[name]).norm()
