"""Reading documents beside PPO keeps the policy from forgetting them."""

from pathlib import Path

from flows.experiments import measures
from flows.experiments.plan import Arm, Contrast, Experiment, Measured


def measure(folder: Path) -> Measured:
    """Return nats a token of held-out documents, and what the rules give the answers to prompts."""
    return {
        "documents": measures.losses(folder, "ppo_r1", "documents"),
        "prompts": measures.grade(folder, "ppo_r1", "prompts"),
    }


EXPERIMENT = Experiment(
    claim="PPO-ptx lowers forgetting and costs no reward.",
    source="Ouyang et al. 2022, InstructGPT, section 4.2",
    arms={"PPO-ptx": Arm(), "PPO": Arm({"ppo.ptx_weight": 0.0})},
    until=("evaluate@ppo_r1",),
    measure=measure,
    tests=(
        Contrast("documents' nats without ptx against with", ("PPO", "documents"), ("PPO-ptx", "documents")),
        Contrast(
            "grade of answers with against without",
            ("PPO-ptx", "prompts"),
            ("PPO", "prompts"),
            expects="near",
            margin=0.35,
        ),
    ),
)
