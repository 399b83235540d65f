"""A second round, with answers of the policy ranked anew and a new reward model, helps again."""

from pathlib import Path

from flows.experiments import measures
from flows.experiments.plan import Arm, Contrast, Experiment, Measured


def measure(folder: Path) -> Measured:
    """Return what the rules give the answers to held-out prompts, after each round."""
    return {name: measures.grade(folder, name, "prompts") for name in ("sft_best", "ppo_r1", "ppo_r2")}


EXPERIMENT = Experiment(
    claim="A second round of ranking, reward model and PPO makes answers better again.",
    source="Bai et al. 2022, Training a Helpful and Harmless Assistant, section 4.5",
    arms={"run": Arm(rounds=2)},
    until=("evaluate@sft_best", "evaluate@ppo_r1", "evaluate@ppo_r2"),
    measure=measure,
    tests=(
        Contrast("the first round against SFT", ("run", "ppo_r1"), ("run", "sft_best")),
        Contrast("the second round against the first", ("run", "ppo_r2"), ("run", "ppo_r1")),
    ),
)
