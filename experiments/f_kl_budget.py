"""PPO on a learned reward makes answers truly better as long as KL holds it near its start."""

from pathlib import Path

from flows.experiments import measures
from flows.experiments.plan import Arm, Contrast, Experiment, Measured

LONG = {"ppo.rewards": {"model": 1.0}, "ppo.training.num_train_epochs": 6, "ppo.kl_stop": 1000.0}


def measure(folder: Path) -> Measured:
    """Return what the rules give the answers to held-out prompts, before and after PPO."""
    return {name: measures.grade(folder, name, "prompts") for name in ("sft_best", "ppo_r1")}


EXPERIMENT = Experiment(
    claim="PPO raises the true reward at a KL budget, and without one it does not.",
    source="Stiennon et al. 2020, figure 5; Gao et al. 2022, Scaling Laws for Reward Model Overoptimization",
    arms={"KL 0.05": Arm(LONG), "no KL": Arm(LONG | {"ppo.kl_coefficient": 0.0})},
    until=("evaluate@sft_best", "evaluate@ppo_r1"),
    measure=measure,
    tests=(
        Contrast("with KL, PPO against SFT", ("KL 0.05", "ppo_r1"), ("KL 0.05", "sft_best")),
        Contrast("with KL against without", ("KL 0.05", "ppo_r1"), ("no KL", "ppo_r1")),
    ),
)
