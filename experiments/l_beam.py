"""Beam search with a repetition penalty answers better than greedy decoding."""

from pathlib import Path
from typing import Any

from flows.experiments import measures
from flows.experiments.plan import Arm, Contrast, Experiment, Measured
from stages.common.text import exact_match

ASKED = ("iid", "ood-phrasing", "ood-fact")
WAYS: dict[str, dict[str, Any]] = {
    "greedy": {"num_beams": 1},
    "beam": {"num_beams": 4},
    "beam with penalty": {"num_beams": 4, "repetition_penalty": 1.2},
}


def measure(folder: Path) -> Measured:
    """Return which questions SFT's best answers rightly, by way of decoding."""
    from stages.common.core import chat, models, records

    asked = [row for row in records.read(folder / "data/validated/questions") if row["group"] in ASKED]
    model = models.load_frozen(folder / "models/sft_best")
    tokenizer = models.load_tokenizer(folder / "models/sft_best")
    prompts = [chat.encode_prompt(tokenizer, row["messages"]) for row in asked]
    found = {}
    for name, way in WAYS.items():
        said = measures.decoded(model, tokenizer, prompts, **way)
        found[name] = {
            row["id"]: float(exact_match.matches(text, row["reference"])) for row, text in zip(asked, said, strict=True)
        }
    return found


EXPERIMENT = Experiment(
    claim="Beam search with a repetition penalty answers better than greedy decoding.",
    source="Keskar et al. 2019, CTRL, section 4.1, for the penalty; a habit of chat demos for the claim",
    arms={"run": Arm()},
    until=("select_sft",),
    measure=measure,
    tests=(
        Contrast("beam with penalty against greedy", ("run", "beam with penalty"), ("run", "greedy")),
        Contrast("beam against greedy", ("run", "beam"), ("run", "greedy")),
    ),
)
