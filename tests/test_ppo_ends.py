"""How PPO ends early: a KL that explodes, what it cannot train, a reward that is no number;
and what its report compares.
"""

import json
import math
from pathlib import Path

import pytest

from stages.common.core import checkpoints
from stages.common.ppo import report as ppo_report
from stages.common.ppo.collector import Collector
from stages.common.reward import scoring
from stages.common.runtime.errors import DataError, ParamsError
from tests.support.small_ppo import fit, trainer_in, write_ppo


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(checkpoints, "ROOT", tmp_path / "checkpoints")
    write_ppo(tmp_path)
    return tmp_path


def test_a_kl_that_explodes_ends_training_and_the_policy_before_it_comes_out(work: Path) -> None:
    trainer = trainer_in(work, kl_stop=0.02, training={"num_train_epochs": 40, "learning_rate": 0.0003})
    kept = fit(trainer)
    assert trainer.state.global_step < trainer.state.max_steps
    reason = ppo_report.exploded(trainer.state.log_history, 0.02)
    assert "KL to the starting policy reached" in reason
    start = {"start": work / "model", "reward": work / "reward"}
    ppo_report.publish(trainer, kept, **start, out=work / "out", curve=work / "c.csv", report=work / "r.json")
    report = json.loads((work / "r.json").read_text())
    assert report["stopped"] == reason
    best = next(row for row in report["epochs"] if row["epoch"] == report["best"])
    assert best["kl_k1"] <= 0.02
    again = trainer_in(work, kl_stop=0.02, training={"num_train_epochs": 40, "learning_rate": 0.0003})
    assert fit(again) == kept
    assert again.state.global_step == trainer.state.global_step


def test_a_kl_that_explodes_before_anything_is_kept_is_an_error_with_a_remedy(work: Path) -> None:
    history = [{"step": 3, "kl_k1": 31.5}]
    with pytest.raises(DataError, match=r"KL to the starting policy reached 31\.5 nats a sequence at step 3") as caught:
        ppo_report.pick([], history, 20.0)
    assert "kl_coefficient" in str(caught.value.remedy)


def test_what_cannot_be_trained_is_refused(work: Path) -> None:
    with pytest.raises(ParamsError, match="a rollout of 6 episodes is not a whole number of optimiser steps of 4"):
        trainer_in(work, rollout_episodes=6)
    with pytest.raises(DataError, match="no prompt to answer"):
        trainer_in(work, max_tokens=8)
    with pytest.raises(ParamsError, match=r"ppo.max_tokens' is 4096, but the model reads 256"):
        trainer_in(work, max_tokens=4096)


def test_a_reward_that_is_no_number_stops_the_training(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Collector, "_score", lambda _, prompts, answers: [math.nan] * len(prompts))
    trainer = trainer_in(work)
    with pytest.raises(DataError, match="a score is not a number"):
        fit(trainer)


def test_the_lead_is_paired_by_prompt() -> None:
    found = ppo_report.compare([0.0, 1.0, 2.0], [0.5, 1.5, 2.5])
    assert found == {"prompts": 3, "start": 1.0, "reward": 1.5, "lead": [0.5, 0.5, 0.5]}


def test_scores_of_a_reward_model_are_what_the_report_compares(work: Path) -> None:
    trainer = trainer_in(work)
    found, again = ppo_report.score_greedy([work / "model", work / "model"], work / "reward", trainer)
    assert len(found) == len(trainer.setup.held_out)
    assert found == again
    assert scoring.load(work / "reward").config.num_labels == 1
