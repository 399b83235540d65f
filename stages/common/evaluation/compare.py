"""Two candidates on the same questions: who wins how often, what was gained and what forgotten,
with 95 % intervals.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from stages.common.core import records
from stages.common.core.statistics import bootstrap_mean
from stages.common.evaluation import paired_bootstrap
from stages.common.evaluation.metrics import TASKS, Answer, digits
from stages.common.evaluation.paired_bootstrap import Change
from stages.common.evaluation.question_prompts import said
from stages.common.evaluation.results import Evaluated
from stages.common.ranking import llm_judge
from stages.common.ranking.samples import Sample
from stages.common.text import rule_grader

Judge = Callable[[Answer, Answer], float]


@dataclass(frozen=True)
class Wins:
    """Wins plus half the ties over all questions, its 95 % interval over questions, and how often
    which happened.
    """

    rate: float
    low: float
    high: float
    wins: int
    ties: int
    losses: int


def by_rules(first: Answer, second: Answer) -> float:
    """Return by how much the first answer is better, by the indicators that `rank` has its rules
    from.
    """
    return float(first["grade"] - second["grade"])


def by_reward(first: Answer, second: Answer) -> float:
    """Return by how much the reward model prefers the first answer."""
    return float(first["reward"] - second["reward"])


def outcome(judge: Judge, ours: Answer, theirs: Answer) -> float:
    """Return 1 for a win of ours, 0 for a loss, 1/2 for a tie; asked in both orders, a disagreement
    is a tie.
    """
    forward, backward = judge(ours, theirs), judge(theirs, ours)
    if forward > 0 > backward:
        return 1.0
    return 0.0 if forward < 0 < backward else 0.5


def wins(outcomes: Sequence[float]) -> Wins:
    """Return the win rate of outcomes 1, 1/2 and 0."""
    low, high = bootstrap_mean(outcomes)
    counts = [sum(value == kind for value in outcomes) for kind in (1.0, 0.5, 0.0)]
    return Wins(digits(sum(outcomes) / len(outcomes)), digits(low), digits(high), *counts)


def compared(ours: Evaluated, theirs: Evaluated) -> list[tuple[Answer, Answer]]:
    """Return the answers of both to the questions that both were asked, each with `said`, `grade`
    and `indicators`.
    """
    return [(_judged(ours, identifier), _judged(theirs, identifier)) for identifier in _shared(ours, theirs)]


def by_endpoint(endpoint: llm_judge.Judge, pairs: Sequence[tuple[Answer, Answer]]) -> list[float]:
    """Return the outcome of each pair by a judge endpoint, asked in both orders; equal answers are
    a tie unasked.

    Raises what `llm_judge.Judge.rank` does.
    """
    asked = {at: duel(*pair) for at, pair in enumerate(pairs) if pair[0]["said"] != pair[1]["said"]}
    found = endpoint.each(endpoint.compare, [(sample, 0, 1) for sample in asked.values()])
    decided = dict(zip(asked, found, strict=True))
    return [decided.get(at, 0.5) for at in range(len(pairs))]


def duel(ours: Answer, theirs: Answer) -> Sample:
    """Return two answers to a question as the judge is shown them."""
    record = {"messages": [records.message("user", ours["question"])], "reference": ours["reference"]}
    return Sample(record, [ours["said"], theirs["said"]], [False, False])


def win_rates(pairs: Sequence[tuple[Answer, Answer]], endpoint: llm_judge.Judge | None = None) -> dict[str, Wins]:
    """Return the win rate over all and by group: by the rules, by reward where all were scored, by
    a judge given.
    """
    outcomes = {"rules": [outcome(by_rules, *pair) for pair in pairs]}
    if all("reward" in answer for pair in pairs for answer in pair):
        outcomes["reward"] = [outcome(by_reward, *pair) for pair in pairs]
    if endpoint is not None:
        outcomes["judge"] = by_endpoint(endpoint, pairs)
    found: dict[str, Wins] = {}
    for name, values in outcomes.items():
        cells: dict[str, list[float]] = {}
        for (ours, _), value in zip(pairs, values, strict=True):
            for cell in (name, f"{name}/{ours['group']}"):
                cells.setdefault(cell, []).append(value)
        found |= {cell: wins(some) for cell, some in sorted(cells.items())}
    return found


def changes(after: Evaluated, before: Evaluated) -> dict[str, Change]:
    """Return the change of accuracy by group, perplexity by set of texts and tasks of lm_eval,
    since the one before.
    """
    return dict([*_accuracies(after, before), *_perplexities(after, before), *_tasks(after, before)])


def as_metrics(values: Mapping[str, Wins | Change]) -> dict[str, dict[str, float]]:
    """Return values as JSON writes them."""
    return {name: asdict(value) for name, value in values.items()}


def _shared(ours: Evaluated, theirs: Evaluated) -> list[str]:
    return [identifier for identifier in ours.answers if identifier in theirs.answers]


def _judged(one: Evaluated, identifier: str) -> Answer:
    row = one.answers[identifier]
    text = said(row["answer"], one.prompt)
    found = rule_grader.judge(row["question"], text, row["reference"], row["category"], cut=False)
    return row | {"said": text, "indicators": found, "grade": rule_grader.score(found, rule_grader.WEIGHTS)}


def _accuracies(after: Evaluated, before: Evaluated) -> Iterator[tuple[str, Change]]:
    cells: dict[str, list[tuple[float, float]]] = {}
    for identifier in _shared(after, before):
        pair = before.answers[identifier]["correct"], after.answers[identifier]["correct"]
        if None in pair:
            continue
        cells.setdefault(f"accuracy/{after.answers[identifier]['group']}", []).append((float(pair[0]), float(pair[1])))
    for name, pairs in sorted(cells.items()):
        yield name, paired_bootstrap.of_means(pairs)


def _perplexities(after: Evaluated, before: Evaluated) -> Iterator[tuple[str, Change]]:
    for name in after.losses:
        change = paired_bootstrap.perplexity(name, after, before)
        if change is not None:
            yield f"perplexity/{name}", change


def _tasks(after: Evaluated, before: Evaluated) -> Iterator[tuple[str, Change]]:
    for name in after.metrics:
        if not name.startswith(TASKS) or paired_bootstrap.lower_is_better(name):
            continue
        if (change := paired_bootstrap.unpaired(name, after, before)) is not None:
            yield name, change
