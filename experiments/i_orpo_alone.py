"""ORPO makes a base model answer in one training, without a reference model or SFT before it."""

from pathlib import Path

from flows.experiments import measures
from flows.experiments.plan import Arm, Contrast, Experiment, Measured

ASKED = ("iid", "ood-phrasing")


def measure(folder: Path) -> Measured:
    """Return which answers are right of the base, after SFT, and after ORPO alone."""
    return {name: measures.correct(folder, name, *ASKED) for name in ("pretrain", "sft_best", "orpo")}


EXPERIMENT = Experiment(
    claim="ORPO alone comes as far as SFT.",
    source="Hong et al. 2024, ORPO, section 6",
    arms={"run": Arm()},
    until=("evaluate@pretrain", "evaluate@sft_best", "evaluate@orpo"),
    measure=measure,
    tests=(
        Contrast("ORPO against the base", ("run", "orpo"), ("run", "pretrain"), margin=0.2),
        Contrast("ORPO against SFT", ("run", "orpo"), ("run", "sft_best"), expects="near", margin=0.05),
    ),
)
