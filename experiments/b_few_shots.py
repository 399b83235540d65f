"""Worked examples before a question help a base model, five more than one."""

from pathlib import Path

from flows.experiments import measures
from flows.experiments.plan import Arm, Contrast, Experiment, Measured


def measure(folder: Path) -> Measured:
    """Return which answers of the base are right after 0, 1 and 5 examples."""
    return {f"{shots} examples": measures.with_examples(folder, "pretrain", shots) for shots in (0, 1, 5)}


EXPERIMENT = Experiment(
    claim="A base model answers better after one worked example, and better still after five.",
    source="Brown et al. 2020, GPT-3, figure 1.2",
    arms={"run": Arm({"evaluate.shots": [0, 1, 5]})},
    until=("evaluate@pretrain",),
    measure=measure,
    tests=(
        Contrast("one example against none", ("run", "1 examples"), ("run", "0 examples")),
        Contrast("five examples against one", ("run", "5 examples"), ("run", "1 examples")),
    ),
)
