"""Fine-tuning costs knowledge that no demonstration asks for, less of it after pretraining on more
diverse text.
"""

from pathlib import Path

from flows.experiments import measures
from flows.experiments.plan import Arm, Contrast, Experiment, Measured

SHOTS = 5
NARROW = {"demo.documents.paragraph_rounds": 4, "demo.documents.profile_rounds": 1}


def measure(folder: Path) -> Measured:
    """Return of facts that no conversation asks for which are right of the base after examples, and
    after SFT; and what was lost, by question.
    """
    before = measures.with_examples(folder, "pretrain", SHOTS, "ood-fact")
    after = measures.correct(folder, "sft_best", "ood-fact")
    return {"before": before, "after": after, "lost": {name: before[name] - after[name] for name in before}}


EXPERIMENT = Experiment(
    claim="SFT costs facts that it does not ask for, and fewer after pretraining on more diverse text.",
    source="Kumar et al. 2022, Fine-Tuning can Distort Pretrained Features, table 1",
    arms={"diverse": Arm(), "narrow": Arm(NARROW | {"pretrain.training.num_train_epochs": 16})},
    until=("evaluate@pretrain", "evaluate@sft_best"),
    measure=measure,
    tests=(
        Contrast("the base with five examples against SFT", ("diverse", "before"), ("diverse", "after")),
        Contrast("what narrow text loses against what diverse text loses", ("narrow", "lost"), ("diverse", "lost")),
    ),
)
