"""PPO against an independent implementation: TRL 1.12, the last release with PPO in it.

trl_ppo.json is what `trl.experimental.ppo.PPOTrainer.train()` worked out, read from its own
variables while it ran, with its sampling replaced by given answers: the models of `filled` below on
the CPU in fp32, 8 episodes in one minibatch, three PPO epochs with SGD. A row is one episode's
tokens; `updated_*` is read after two updates. In `mixed` answers have 1 to 7 tokens and two are
cut, in `full` all have 7 and end there.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from stages import ppo
from stages.common.core import checkpoints, models
from stages.common.generation.batch import Continuation
from stages.common.ppo import actor_critic
from stages.common.ppo import advantages as ppo_advantages
from stages.common.ppo import collector as ppo_collector
from stages.common.ppo import kl as ppo_kl
from stages.common.ppo import losses as ppo_losses
from stages.common.ppo.actor_critic import ActorCritic, Episodes
from stages.common.ppo.collector import Collector
from stages.common.ppo.payment import Payment
from stages.common.reward import checked
from tests.support.small_ppo import build, fit
from tests.support.tiny import CONFIG, make_tokenizer, write_validated

TRL = json.loads((Path(__file__).parent / "trl_ppo.json").read_text(encoding="utf-8"))
SETTINGS = TRL["settings"]
VOCABULARY, END, WIDTH, CLOSE = 320, 2, 7, 1e-5


def filled(model: Any, seed: int) -> Any:
    """Return the model with weights by a formula: 1 +- 0.2 in norms, else within +- 0.3."""
    with torch.no_grad():
        for number, (name, value) in enumerate(sorted(model.named_parameters())):
            at = torch.arange(value.numel(), dtype=torch.float64)
            made = 2 * ((torch.sin(at * 12.9898 + (100 * seed + number) * 78.233) * 43758.5453) % 1) - 1
            value.copy_((1 + 0.2 * made if "norm" in name else 0.3 * made).view(value.shape))
    return model


def policy(seed: int) -> Any:
    return filled(models.build(CONFIG, VOCABULARY, "test"), seed).eval()


def scorer(seed: int) -> Any:
    from transformers import AutoConfig, AutoModelForSequenceClassification

    config = AutoConfig.for_model(**CONFIG, vocab_size=VOCABULARY, num_labels=1, pad_token_id=0)
    return filled(AutoModelForSequenceClassification.from_config(config), seed).eval()


def rows(case: dict[str, Any], name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a column [R, 7] of TRL's, 0 behind an answer's end, and its mask."""
    found, mask = torch.zeros(len(case[name]), WIDTH), torch.zeros(len(case[name]), WIDTH, dtype=torch.bool)
    for number, row in enumerate(case[name]):
        found[number, : len(row)], mask[number, : len(row)] = torch.tensor(row), True
    return found, mask


def flat(case: dict[str, Any], name: str) -> torch.Tensor:
    return torch.cat([torch.tensor(row) for row in case[name]])


def close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return torch.allclose(found, expected, rtol=0, atol=CLOSE)


@pytest.mark.parametrize("name", ["mixed", "full"])
def test_log_probabilities_and_values(name: str) -> None:
    case = TRL[name]
    episodes = Episodes(case["prompts"], case["answers"])
    with torch.no_grad():
        assert close(
            actor_critic.log_probabilities(policy(1), episodes, SETTINGS["temperature"]), flat(case, "log_probs")
        )
        assert close(
            actor_critic.log_probabilities(policy(2), episodes, SETTINGS["temperature"]), flat(case, "reference")
        )
        # TRL also reads the state behind an answer's end; PPO's episode is over there, and its
        # value 0.
        theirs = [row[: len(answer)] for row, answer in zip(case["values"], case["answers"], strict=True)]
        assert close(actor_critic.values(scorer(4), episodes), flat({"values": theirs}, "values"))


@pytest.mark.parametrize("name", ["mixed", "full"])
def test_rewards_advantages_and_returns(name: str) -> None:
    case = TRL[name]
    scores, ended = torch.tensor(case["scores"]), torch.tensor([row[-1] == END for row in case["answers"]])
    (log_probs, mask), (reference, _), (values, steps) = (
        rows(case, key) for key in ("log_probs", "reference", "values")
    )
    # TRL pays the score one step behind the last token where an answer is shorter than the batch:
    # its mask for rewards and values is longer there by one. With that mask these functions give
    # its numbers.
    assert bool((steps.sum(1) == (mask.sum(1) + 1).clamp(max=WIDTH)).all())
    scores = ppo_advantages.end_penalty(scores, ended, SETTINGS["end_penalty"])
    kl = ppo_kl.kl_k1(log_probs, reference)
    rewards = ppo_advantages.token_rewards(scores, kl, steps, SETTINGS["kl_coefficient"])
    found, returns = ppo_advantages.advantages(rewards, values, steps, SETTINGS["gamma"], SETTINGS["gae_lambda"])
    assert close(rewards, rows(case, "rewards")[0])
    assert close(found, rows(case, "advantages")[0])
    assert close(returns, rows(case, "returns")[0])
    assert close(ppo_advantages.whiten(found, mask), rows(case, "whitened")[0])


@pytest.mark.parametrize("name", ["mixed", "full"])
def test_losses_before_and_after_updates(name: str) -> None:
    case = TRL[name]
    # Value losses run over TRL's additional step, so the episodes are read with one token more,
    # which no loss sees.
    longer = [row + [0] * (len(values) - len(row)) for row, values in zip(case["answers"], case["values"], strict=True)]
    module = ActorCritic(policy(1), scorer(4), SETTINGS["temperature"])
    optimiser = torch.optim.SGD(module.parameters(), lr=SETTINGS["learning_rate"])
    spoken = torch.cat(
        [torch.arange(len(row)) < len(answer) for row, answer in zip(longer, case["answers"], strict=True)]
    )
    for epoch in range(SETTINGS["ppo_epochs"]):
        read, _ = module(case["prompts"], longer)
        log_probs = read.log_probs[spoken]
        loss, clipped = ppo_losses.policy_loss(log_probs, flat(case, "log_probs"), whitened(case), SETTINGS["clip"])
        old, returns = flat(case, "values"), flat(case, "returns")
        value_loss, value_clipped = ppo_losses.value_loss(read.values, old, returns, SETTINGS["value_clip"])
        found = {
            "policy_loss": loss,
            "clip_fraction": clipped,
            "value_loss": value_loss,
            "value_clip_fraction": value_clipped,
        }
        assert {key: value.item() for key, value in found.items()} == pytest.approx(
            {key: case[key][epoch] for key in found}, abs=CLOSE
        )
        optimiser.zero_grad()
        whole = loss + SETTINGS["value_weight"] * value_loss
        assert whole.item() == pytest.approx(case["loss"][epoch], abs=CLOSE)
        whole.backward()
        optimiser.step()
    assert min(case["clip_fraction"][1:]) > 0.1
    assert close(log_probs, flat(case, "updated_log_probs"))
    assert close(read.values, flat(case, "updated_values"))


def whitened(case: dict[str, Any]) -> torch.Tensor:
    column, _ = rows(case, "whitened")
    return column[rows(case, "log_probs")[1]]


PAYMENT = Payment(checked.load({"model": 1.0}, "ppo.rewards"), (0.0, 1.0), 1000.0)


class TheirAnswers(Collector):
    """Gives TRL's answers in place of drawn ones."""

    def _answer(self, policy: Any, prompts: list[Any], number: int, before: list[int]) -> list[Continuation]:
        given = dict(zip(map(tuple, TRL["full"]["prompts"]), TRL["full"]["answers"], strict=True))
        found = []
        for prompt in prompts:
            answer = given[tuple(prompt)]
            episode = Episodes([prompt], [answer])
            log_probs = actor_critic.log_probabilities(policy, episode, self.settings.temperature)
            found.append(Continuation(answer[:-1], END, log_probs.tolist()))
        return found


def collector(**made: Any) -> Collector:
    """Return the stage's collector with TRL's models and unit of reward."""
    return TheirAnswers(**made | {"reward": scorer(3), "reference": policy(2), "payment": PAYMENT})


def stage_settings() -> ppo.Params:
    sgd = {"num_train_epochs": 1, "per_device_train_batch_size": 8, "lr_scheduler_type": "constant", "optim": "sgd"}
    sizes: dict[str, Any] = {"max_tokens": 64, "max_new_tokens": WIDTH, "rollout_episodes": 8, "rollouts_per_epoch": 1}
    return ppo.Params(
        **{key: value for key, value in SETTINGS.items() if key != "learning_rate"},
        **sizes,
        training=sgd | {"learning_rate": SETTINGS["learning_rate"], "max_grad_norm": 0.0, "seed": 1},
        kl_stop=1000.0,
        reward_clip=1000.0,
        watch_prompts=0,
        value_warmup=0,
    )


def test_the_stage_takes_the_same_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers as long as the batch are where TRL has no additional step: there the whole stage is
    compared.
    """
    monkeypatch.setattr(checkpoints, "ROOT", tmp_path / "checkpoints")
    monkeypatch.setattr(ppo_collector, "Collector", collector)
    case = TRL["full"]
    write_validated(tmp_path)
    tokenizer = make_tokenizer()
    models.save(policy(1), tokenizer, tmp_path / "model")
    models.save(scorer(4), tokenizer, tmp_path / "reward")  # the stage starts the value model from it
    trainer = build(stage_settings(), tmp_path, {"train": case["prompts"], "validation": case["prompts"]})
    fit(trainer)
    steps = [row for row in trainer.state.log_history if "policy_loss" in row]
    assert len(steps) == SETTINGS["ppo_epochs"]
    for key in ("loss", "policy_loss", "value_loss", "clip_fraction", "value_clip_fraction"):
        assert [row[key] for row in steps] == pytest.approx(case[key], abs=CLOSE), key
