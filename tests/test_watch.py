"""The watch over a reward in PPO and GRPO: a planted flaw is named and ends the training at the
policy before it; a clean training is left alone; and looking changes no weight.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from stages import grpo
from stages.common.core import checkpoints, models
from stages.common.grpo import report as grpo_report
from stages.common.monitor import outcome
from stages.common.monitor.watch import LOOK, alarms
from stages.common.ppo import report as ppo_report
from stages.common.ranking.samples import SCHEMA
from stages.common.reward import checked
from stages.common.runtime.errors import DataError
from stages.common.training import fit as training
from tests.support import small_ppo
from tests.support.tiny import conversation
from tests.support.trainers import build_grpo

PROMPTS = 60


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small PPO's world with more prompts."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = tmp_path_factory.mktemp("watch")
    small_ppo.write_ppo(folder)
    for split, first in (("train", 100), ("validation", 200)):
        rows = [
            {"id": f"p:{n}", "source": "p", "messages": conversation(n)["messages"][:1], "reference": f"town {n}"}
            | {"category": None, "responses": ["a", "b"], "cut": [False, False]}
            for n in range(first, first + PROMPTS)
        ]
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), folder / "samples" / split / "part-00000.parquet")
    return folder


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "ROOT", tmp_path / "checkpoints")


def ppo_trainer(world: Path, reward: str, **settings: Any) -> Any:
    named: dict[str, Any] = {"rewards": {f"bench.flaws:{reward}": 1.0}, "watch_prompts": PROMPTS, "watch_every": 1}
    sizes = {"rollout_episodes": 32, "rollouts_per_epoch": 8, "rollout_batch_size": 64, "end_penalty": 0.0}
    rate = {"per_device_train_batch_size": 16, "learning_rate": 0.01, "lr_scheduler_type": "constant"}
    return small_ppo.trainer_in(
        world, **(named | sizes | {"kl_coefficient": 0.0, "kl_stop": 1e9} | settings), training=rate
    )


def grpo_trainer(world: Path, reward: str, **settings: Any) -> Any:
    rate = {"per_device_train_batch_size": 32, "num_generations": 8, "learning_rate": 0.01, "max_steps": 12, "seed": 1}
    named: dict[str, Any] = {"rewards": {f"bench.flaws:{reward}": 1.0}, "watch_prompts": PROMPTS, "watch_every": 1}
    sizes = {"max_tokens": 128, "max_new_tokens": 6}
    return build_grpo(
        grpo.Params(training=rate | {"lr_scheduler_type": "constant"}, **(sizes | named | settings)), world
    )


def fit_grpo(trainer: Any, **settings: Any) -> list[Path]:
    return training.fit(trainer, grpo.Params(training={}, **settings), trainer.run, "grpo")


def weights(folder: Path) -> torch.Tensor:
    return torch.cat([value.flatten() for value in models.load(folder).state_dict().values()])


def published(trainer: Any, kept: list[Path], world: Path, out: Path) -> dict[str, Any]:
    places: dict[str, Any] = {"out": out / "model", "curve": out / "c.csv", "report": out / "r.json"}
    if hasattr(trainer, "setup"):
        ppo_report.publish(trainer, kept, start=world / "model", reward=world / "reward", **places)
    else:
        grpo_report.publish(trainer, kept, start=world / "model", run=trainer.run, **places)
    found: dict[str, Any] = json.loads((out / "r.json").read_text())
    return found


def is_the_policy_before(found: dict[str, Any], trainer: Any, world: Path, out: Path) -> bool:
    """Whether what came out is what was kept at the last look before the sign."""
    looks = [row["step"] for row in trainer.state.log_history if LOOK in row]
    sign = found["watched"]["signs"][0]["step"]
    before = max(step for step in looks if step < sign)
    assert found["best"] == ("start" if before == 0 else f"step-{before:06d}")
    kept = Path(trainer.args.output_dir) / "kept" / found["best"] if before else world / "model"
    return torch.equal(weights(out / "model"), weights(kept))


@pytest.mark.slow
def test_a_flaw_ends_ppo_at_the_policy_before_it_and_a_resume_does_so_again(world: Path, tmp_path: Path) -> None:
    trainer = ppo_trainer(world, "likes_digits", on_hacking="stop", checkpoint_minutes=1e-9, keep_checkpoints=100)
    kept = small_ppo.fit(trainer)
    assert 0 < trainer.state.global_step < trainer.state.max_steps
    signs, folder = alarms(trainer.state.log_history), Path(trainer.args.output_dir)
    assert "digits" in {one["sign"] for one in signs}
    for path in folder.glob("checkpoint-*"):  # as if it had been killed some steps before
        if checkpoints.step(path) >= signs[0]["step"] - 1:
            shutil.rmtree(path)
    resumed = ppo_trainer(world, "likes_digits", on_hacking="stop", checkpoint_minutes=1e-9, keep_checkpoints=100)
    assert small_ppo.fit(resumed) == kept
    assert alarms(resumed.state.log_history) == signs
    found = published(resumed, kept, world, tmp_path)
    assert found["stopped"] == found["watched"]["stopped"] == outcome.stopped(trainer)
    assert found["stopped"].startswith(f"step {signs[0]['step']}: the reward pays for ")
    assert is_the_policy_before(found, resumed, world, tmp_path)
    again = ppo_trainer(world, "likes_digits", on_hacking="stop", checkpoint_minutes=1e-9, keep_checkpoints=100)
    assert small_ppo.fit(again) == kept, "it is over"
    (folder / "watched.json").unlink()
    for path in folder.glob("checkpoint-*"):
        if checkpoints.step(path) >= signs[0]["step"]:
            shutil.rmtree(path)
    with pytest.raises(DataError, match=r"what the start answered cannot be read: .*train anew: rm -r"):
        small_ppo.fit(
            ppo_trainer(world, "likes_digits", on_hacking="stop", checkpoint_minutes=1e-9, keep_checkpoints=100)
        )


@pytest.mark.slow
def test_a_flaw_ends_grpo_and_only_warns_where_that_is_asked(world: Path, tmp_path: Path) -> None:
    trainer = grpo_trainer(world, "likes_digits", on_hacking="stop")
    found = published(trainer, fit_grpo(trainer), world, tmp_path)
    assert "digits" in {one["sign"] for one in found["watched"]["signs"]}
    assert found["watched"]["stopped"]
    assert found["watched"]["looks"] < 12
    shutil.rmtree(checkpoints.ROOT)
    warned = grpo_trainer(world, "likes_digits", on_hacking="warn")
    kept = fit_grpo(warned)
    assert warned.state.global_step == 12
    signs = alarms(warned.state.log_history)
    assert signs[0] == found["watched"]["signs"][0]
    assert len({one["sign"] for one in signs}) == len(signs), "each is named once"
    found = published(warned, kept, world, tmp_path)
    assert (found["watched"]["stopped"], found["best"]) == ("", "epoch-" + found["best"].rpartition("-")[2])
    assert outcome.figure(warned.state.log_history)


@pytest.mark.slow
def test_a_reward_without_a_flaw_is_left_alone_and_looking_changes_no_weight(world: Path, tmp_path: Path) -> None:
    watched = ppo_trainer(world, "noise_1", on_hacking="stop", rollouts_per_epoch=4)
    (kept,) = small_ppo.fit(watched)
    assert alarms(watched.state.log_history) == []
    looks = [row for row in watched.state.log_history if LOOK in row]
    assert [row["step"] for row in looks] == [0, 4, 8, 12, 16]
    assert looks[0]["watch/win_rate"] == 0.5 and looks[0]["watch/kl"] == 0
    assert looks[-1]["watch/kl"] > 0
    checkpoints.ROOT = tmp_path / "unwatched"
    (other,) = small_ppo.fit(ppo_trainer(world, "noise_1", watch_prompts=0, rollouts_per_epoch=4))
    assert torch.equal(weights(kept), weights(other))


@pytest.mark.slow
def test_grpos_drift_is_none_at_the_start_and_looking_changes_no_weight(world: Path, tmp_path: Path) -> None:
    folders = []
    for prompts in (PROMPTS, 0):
        checkpoints.ROOT = tmp_path / f"{prompts}"
        trainer = grpo_trainer(world, "noise_1", watch_prompts=prompts)
        if prompts:
            start = trainer.watched_answers()
            assert trainer.drift(start) == pytest.approx(0.0, abs=1e-4)
            assert start == trainer.watched_answers(), "every look has the same random numbers"
            assert checked.rules(trainer.watch.asked[0], start.texts[0], start.cut[0]) < 4
        folders.append(fit_grpo(trainer)[-1])
        if prompts:
            assert [row["watch/kl"] for row in trainer.state.log_history if LOOK in row][-1] > 0
    assert torch.equal(*map(weights, folders))
