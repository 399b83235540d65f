"""A reward model gets better with more answers to a prompt, and with more prompts."""

from pathlib import Path

from flows.experiments import measures
from flows.experiments.plan import Arm, Contrast, Experiment, Measured

SAMPLED = {"demo.comparisons": 100, "demo.checks": 0}
"""Nearly all comparisons are sampled answers: those given by people always have four."""


def measure(folder: Path) -> Measured:
    """Return the share of held-out pairs of ranked answers that the reward model orders rightly."""
    return {"pairs": measures.figure(folder, "reward/r1.json", "pair_accuracy", "all", "value")}


EXPERIMENT = Experiment(
    claim="The reward model is more accurate with more answers to a prompt and with more prompts.",
    source="Ouyang et al. 2022, InstructGPT, section 3.5; Stiennon et al. 2020, section 4.3",
    arms={
        "two answers": Arm(SAMPLED | {"sample.answers": 2}),
        "eight answers": Arm(SAMPLED | {"sample.answers": 8}),
        "a third of the prompts": Arm(SAMPLED | {"sample.answers": 8, "demo.prompts": 330}),
    },
    until=("reward@r1",),
    measure=measure,
    tests=(
        Contrast("eight answers against two", ("eight answers", "pairs"), ("two answers", "pairs")),
        Contrast("all prompts against a third", ("eight answers", "pairs"), ("a third of the prompts", "pairs")),
    ),
)
