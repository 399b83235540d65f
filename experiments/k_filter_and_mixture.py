"""A quality filter on crawled text, and sources read by weight, make a better base model."""

from pathlib import Path

from flows.experiments import measures
from flows.experiments.plan import Arm, Contrast, Experiment, Measured

JUNK = {"demo.faults.spam": 150, "demo.faults.gibberish": 150, "demo.faults.boilerplate": 300}
WEIGHTS = {"demo/articles.jsonl": 5, "demo/prose_*.txt": 3, "demo/quiz.txt": 1, "demo/crawl.jsonl": 0.5}
SHOTS = 5


def measure(folder: Path) -> Measured:
    """Return which questions about facts the base answers rightly after examples, and SFT does."""
    asked = ("iid", "ood-phrasing", "ood-fact")
    return {
        "base": measures.with_examples(folder, "pretrain", SHOTS, *asked),
        "sft": measures.correct(folder, "sft_best", *asked),
    }


EXPERIMENT = Experiment(
    claim="A quality filter on crawled text and mixture weights make a base model that knows more.",
    source="Brown et al. 2020, GPT-3, section 2.2 and appendix A",
    arms={
        "as it comes": Arm(JUNK | {"curate.quality.trusted": []}),
        "filtered": Arm(JUNK),
        "weighted": Arm(JUNK | {"curate.mixture.documents.weights": WEIGHTS}),
    },
    until=("evaluate@pretrain", "evaluate@sft_best"),
    measure=measure,
    tests=(
        Contrast("the base, filtered against as it comes", ("filtered", "base"), ("as it comes", "base")),
        Contrast("after SFT, filtered against as it comes", ("filtered", "sft"), ("as it comes", "sft")),
        Contrast("the base, weighted against filtered", ("weighted", "base"), ("filtered", "base")),
    ),
)
