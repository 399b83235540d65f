"""One metric of two candidates on the same questions or texts: what changed, with its paired
interval.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from stages.common.core.params import PARAMS_FILE
from stages.common.core.statistics import bootstrap_mean, bootstrap_ratio
from stages.common.evaluation import paired_proportions
from stages.common.evaluation.behaviour import unsure
from stages.common.evaluation.metrics import TASKS, Answer, digits
from stages.common.evaluation.paired_proportions import SIDE
from stages.common.evaluation.question_prompts import said
from stages.common.evaluation.results import Evaluated
from stages.common.runtime.errors import ParamsError
from stages.common.text.refusals import refuses

BEHAVIOURS: dict[str, Callable[[str], bool]] = {"refusal": refuses, "unsure": unsure}
DUE = {"due": True, "false": False}
LOSSES = ("perplexity", "bits_per_byte", "brier_score")
"""Metrics of lm-evaluation-harness that are better when lower, by their ends."""


@dataclass(frozen=True)
class Change:
    """A value before and after a stage, their difference (of perplexities: ratio) and its paired
    interval, 95 % unless asked otherwise.

    Of answers that are right or wrong, `gained` counts those that are 1 only after, `lost` those
    that are 1 only before.
    """

    before: float
    after: float
    change: float
    low: float
    high: float
    count: int
    gained: int | None = None
    lost: int | None = None


def is_ratio(metric: str) -> bool:
    """Whether changes of `metric` are ratios, not differences."""
    return metric.startswith("perplexity/")


def lower_is_better(metric: str) -> bool:
    """Whether a smaller value of `metric` is the better one: perplexity, undue refusals, undue
    ignorance.
    """
    return is_ratio(metric) or metric.endswith("/false") or (metric.startswith(TASKS) and _is_loss(metric))


def change(metric: str, after: Evaluated, before: Evaluated, side: float = SIDE) -> Change | None:
    """Return how `metric` changed on the questions (or texts) that both were given; None when they
    share none. Beyond each end of the interval lies `side`.

    Raises ParamsError for a metric that is no mean over questions.
    """
    if is_ratio(metric):
        return perplexity(metric.partition("/")[2], after, before, side)
    if metric.startswith(TASKS):
        return unpaired(metric, after, before, side)
    pairs = [
        (old, new)
        for identifier, answer in after.answers.items()
        if (was := before.answers.get(identifier)) and was["question"] == answer["question"]
        if (new := score(metric, answer, after.prompt)) is not None
        if (old := score(metric, was, before.prompt)) is not None
    ]
    return of_means(pairs, side) if pairs else None


def of_means(pairs: Sequence[tuple[float, float]], side: float = SIDE) -> Change:
    """Return the change of the mean of (before, after) pairs, one pair a question.

    The interval is Tango's for answers that are 0 or 1, else pairs are resampled together.
    """
    count = len(pairs)
    old, new = sum(was for was, _ in pairs) / count, sum(now for _, now in pairs) / count
    differing: dict[str, int] = {}
    if {one for pair in pairs for one in pair} <= {0.0, 1.0}:
        differing = {"gained": sum(now > was for was, now in pairs), "lost": sum(now < was for was, now in pairs)}
        low, high = paired_proportions.interval(**differing, count=count, side=side)
    else:
        low, high = bootstrap_mean([now - was for was, now in pairs], side=side)
    return Change(digits(old), digits(new), digits(new - old), digits(low), digits(high), count, **differing)


def unpaired(metric: str, after: Evaluated, before: Evaluated, side: float = SIDE) -> Change | None:
    """Return the change of a metric of which only value and interval are known, as if each had its
    own questions.

    The interval is wider than a paired one would be where both get the same questions right.
    """
    sides = [one for one in (before, after) if metric in one.metrics and metric in one.intervals]
    if len(sides) < 2:
        return None
    old, new = (one.metrics[metric] for one in sides)
    half = math.hypot(*((one.intervals[metric][1] - one.intervals[metric][0]) / 2 for one in sides))
    half *= paired_proportions.quantile(side) / paired_proportions.quantile(SIDE)
    count = min(one.counts[metric] for one in sides)
    moved = new - old
    return Change(digits(old), digits(new), digits(moved), digits(moved - half), digits(moved + half), count)


def perplexity(texts: str, after: Evaluated, before: Evaluated, side: float = SIDE) -> Change | None:
    """Return the change of perplexity on `texts`, a ratio: above 1 is forgetting; documents are
    resampled together.

    None unless both read every text in the same tokens: a perplexity per token says nothing across
    tokenizers.
    """
    ours, theirs = after.losses.get(texts, []), before.losses.get(texts, [])
    if [tokens for _, tokens in ours] != [tokens for _, tokens in theirs]:
        return None
    pairs = [(now, was, tokens) for (now, tokens), (was, _) in zip(ours, theirs, strict=True) if tokens]
    if not pairs:
        return None
    total = sum(tokens for *_, tokens in pairs)
    old, new = (math.exp(sum(pair[side] for pair in pairs) / total) for side in (1, 0))
    low, high = bootstrap_ratio([now - was for now, was, _ in pairs], [tokens for *_, tokens in pairs], side=side)
    return Change(
        digits(old), digits(new), digits(new / old), digits(math.exp(low)), digits(math.exp(high)), len(pairs)
    )


def score(metric: str, answer: Answer, prompt: str) -> float | None:
    """Return what one answer adds to `metric`, a mean over questions; None when the question does
    not count there.

    Raises ParamsError for a metric that is no such mean.
    """
    kind, _, cell = metric.partition("/")
    if kind == "accuracy" and cell:
        counts = cell in (answer["group"], f"{answer['group']}/{answer['language']}") and answer["correct"] is not None
        return float(answer["correct"]) if counts else None
    if kind in BEHAVIOURS and cell in DUE:
        if not answer["reference"] or BEHAVIOURS[kind](answer["reference"]) is not DUE[cell]:
            return None
        return float(BEHAVIOURS[kind](said(answer["answer"], prompt)))
    if kind == "reward":
        return float(answer["reward"]) if "reward" in answer and cell in ("", answer["group"]) else None
    raise ParamsError(
        f"'{metric}' cannot be compared question by question",
        where=PARAMS_FILE,
        remedy="choose accuracy/…, refusal/…, unsure/…, reward, perplexity/… or lm_eval/…",
    )


def _is_loss(metric: str) -> bool:
    return metric.split("/")[2].endswith(LOSSES)
