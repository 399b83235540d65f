"""Wrong answers in the worked examples before a question cost a base model little: it takes their
form, not their facts.
"""

from pathlib import Path

from flows.experiments import measures
from flows.experiments.plan import Arm, Contrast, Experiment, Measured

SHOTS = 5


def measure(folder: Path) -> Measured:
    """Return which answers of the base are right: without examples, after right ones, and after the
    same questions with each other's answers.
    """
    from stages.common.core import models, records
    from stages.common.evaluation import generate_answers, question_prompts
    from stages.common.evaluation.question_prompts import Shot

    test = list(records.read(folder / "data/validated/questions"))
    place = folder / "models/pretrain"
    one = generate_answers.Candidate(models.load_frozen(place), models.load_tokenizer(place), "plain", 48, 64)
    right = question_prompts.pool(records.read(folder / "data/validated/conversations/train"))
    wrong = {
        script: [Shot(shot.question, other.answer) for shot, other in zip(shots, [*shots[7:], *shots[:7]], strict=True)]
        for script, shots in right.items()
    }
    found: Measured = {
        "no examples": measures.with_examples(folder, "pretrain", 0),
        "right answers": measures.with_examples(folder, "pretrain", SHOTS),
    }
    rows = generate_answers.ask_with_shots(one, test, [SHOTS], wrong, [])
    return {**found, "wrong answers": {row["id"]: float(row["correct"]) for row in rows}}


EXPERIMENT = Experiment(
    claim="Worked examples help a base model nearly as much when their answers are wrong.",
    source="Min et al. 2022, Rethinking the Role of Demonstrations, section 4",
    arms={"run": Arm()},
    until=("evaluate@pretrain",),
    measure=measure,
    tests=(
        Contrast("wrong answers against none", ("run", "wrong answers"), ("run", "no examples")),
        Contrast(
            "wrong answers against right ones",
            ("run", "wrong answers"),
            ("run", "right answers"),
            expects="near",
            margin=0.05,
        ),
    ),
)
