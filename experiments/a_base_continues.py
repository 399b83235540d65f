"""A base model asked a question writes on with more questions; SFT makes it answer."""

from pathlib import Path

from flows.experiments import measures
from flows.experiments.plan import Arm, Contrast, Experiment, Measured

ASKED = ("iid", "ood-phrasing")


def asks(text: str) -> bool:
    """Whether a text asks something."""
    return "?" in text or "？" in text


def measure(folder: Path) -> Measured:
    """Return which answers ask and which are right, before and after SFT."""
    found = {}
    for candidate in ("pretrain", "sft_best"):
        found[f"asks/{candidate}"] = measures.share(folder, candidate, asks)
        found[f"right/{candidate}"] = measures.correct(folder, candidate, *ASKED)
    return found


EXPERIMENT = Experiment(
    claim="A base model continues a question with questions, a model after SFT answers it.",
    source="Ouyang et al. 2022, InstructGPT, section 1",
    arms={"run": Arm()},
    until=("evaluate@pretrain", "evaluate@sft_best"),
    measure=measure,
    tests=(
        Contrast("the base asks back more often", ("run", "asks/pretrain"), ("run", "asks/sft_best"), margin=0.2),
        Contrast("after SFT more answers are right", ("run", "right/sft_best"), ("run", "right/pretrain"), margin=0.2),
    ),
)
