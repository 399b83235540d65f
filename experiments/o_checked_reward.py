"""A reward that can be checked teaches more than a learned one of the same answers."""

from pathlib import Path

from flows.experiments import measures
from flows.experiments.plan import Arm, Contrast, Experiment, Measured


def measure(folder: Path) -> Measured:
    """Return what the rules give the answers to held-out prompts, before and after PPO."""
    return {name: measures.grade(folder, name, "prompts") for name in ("sft_best", "ppo_r1")}


EXPERIMENT = Experiment(
    claim="PPO on a reward that can be checked beats PPO on a learned reward.",
    source="Lambert et al. 2024, Tulu 3, section 6 (RLVR)",
    arms={"learned": Arm({"ppo.rewards": {"model": 1.0}}), "checked": Arm({"ppo.rewards": {"rules": 0.5}})},
    until=("evaluate@sft_best", "evaluate@ppo_r1"),
    measure=measure,
    tests=(
        Contrast("checked against learned", ("checked", "ppo_r1"), ("learned", "ppo_r1")),
        Contrast("checked against SFT", ("checked", "ppo_r1"), ("checked", "sft_best")),
        Contrast("learned against SFT", ("learned", "ppo_r1"), ("learned", "sft_best")),
    ),
)
