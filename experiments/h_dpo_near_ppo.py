"""DPO reaches what PPO reaches, from the same start and comparisons."""

from pathlib import Path

from flows.experiments import measures
from flows.experiments.plan import Arm, Contrast, Experiment, Measured

ASKED = ("iid", "ood-phrasing")


def measure(folder: Path) -> Measured:
    """Return which answers are right after SFT, DPO and PPO."""
    return {name: measures.correct(folder, name, *ASKED) for name in ("sft_best", "dpo", "ppo_r1")}


EXPERIMENT = Experiment(
    claim="DPO comes as far as PPO.",
    source="Rafailov et al. 2023, Direct Preference Optimization, section 6",
    arms={"run": Arm()},
    until=("evaluate@sft_best", "evaluate@dpo", "evaluate@ppo_r1"),
    measure=measure,
    tests=(
        Contrast("DPO against PPO", ("run", "dpo"), ("run", "ppo_r1"), expects="near", margin=0.03),
        Contrast("PPO against SFT", ("run", "ppo_r1"), ("run", "sft_best")),
        Contrast("DPO against SFT", ("run", "dpo"), ("run", "sft_best")),
    ),
)
