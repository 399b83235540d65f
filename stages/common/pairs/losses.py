"""K ranked answers to one prompt: the loss a reward model learns from, and how well its scores
agree with the ranks.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple

from stages.common.core.statistics import bootstrap_ratio, correlation, wilson
from stages.common.pairs.preference_pairs import pairs
from stages.common.runtime.errors import DataError

if TYPE_CHECKING:
    import torch

CALIBRATION_BINS = 10


def kwise_loss(
    scores: "torch.Tensor",
    better: "torch.Tensor",
    worse: "torch.Tensor",
    weight: "torch.Tensor",
    margin: float = 0.0,
    centre: float = 0.0,
) -> "torch.Tensor":
    """Return the weighted sum over pairs of -log sigmoid(r_better - r_worse - margin) (InstructGPT,
    eq. 1).

    `scores` [N] of all answers of a batch, or [N, K] of several heads, with a `weight` [P, K] that
    says how much each head learns from a pair; `better`, `worse` [P] index them; `weight` [P] is
    1 / (prompts in the batch x pairs of the prompt), so a prompt counts as one however many answers
    it has, and C(K,2) of them without ties. `centre` weighs (r_better + r_worse)^2, which keeps
    scores near 0 (Eisenstein et al. 2023).
    """
    from torch.nn.functional import logsigmoid

    high, low = scores[better], scores[worse]
    loss = -(weight * logsigmoid(high - low - margin)).sum()
    return loss + centre * (weight * (high + low) ** 2).sum() if centre else loss


class Scored(NamedTuple):
    """One prompt's K answers: how they were ranked (1 = best), scored, and how many tokens they
    have.
    """

    ranks: Sequence[int]
    scores: Sequence[float]
    lengths: Sequence[int]
    source: str = ""
    categories: Sequence[str] = ()


def outcomes(row: Scored) -> list[float]:
    """Return of each ordered pair 1 where the better answer scores higher, 0 where lower, 1/2 where
    both are equal.

    Raises DataError for a score that is not a number.
    """
    if not all(map(math.isfinite, row.scores)):
        raise DataError(f"a score is not a number: {list(row.scores)}", remedy="run `dvc repro -f reward`")
    differences = [row.scores[better] - row.scores[worse] for better, worse in pairs(row.ranks, "all")]
    return [0.5 if difference == 0 else float(difference > 0) for difference in differences]


def pair_accuracy(rows: Iterable[Scored]) -> dict[str, float]:
    """Return {value, low, high, pairs, prompts}: the share of ordered pairs scored in their order,
    ties left out.

    The 95 % interval is a bootstrap over prompts: pairs of one prompt are not independent. Where
    all pairs are right (or all wrong) that has no width, and Wilson's interval for so many prompts
    stands in. Empty when there is no pair.
    """
    found = [right for right in map(outcomes, rows) if right]
    if not found:
        return {}
    correct, count = [sum(right) for right in found], [len(right) for right in found]
    value = sum(correct) / sum(count)
    if value in (0.0, 1.0):
        low, high = wilson(int(value) * len(found), len(found))
    else:
        low, high = bootstrap_ratio(correct, count)
    return {"value": value, "low": low, "high": high, "pairs": sum(count), "prompts": len(found)}


def kendall_tau(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Return Kendall's tau-b of two orders of the same things, or None when one of them is all ties
    (Kendall 1945).
    """
    concordance, untied_first, untied_second = 0, 0, 0
    for at in range(len(first)):
        for other in range(at):
            one, two = _sign(first[at] - first[other]), _sign(second[at] - second[other])
            concordance += one * two
            untied_first += abs(one)
            untied_second += abs(two)
    if not untied_first or not untied_second:
        return None
    return concordance / math.sqrt(untied_first * untied_second)


def mean_tau(orders: Iterable[tuple[Sequence[float], Sequence[float]]]) -> dict[str, float]:
    """Return {value, low, high, prompts}: the mean over prompts of tau-b between two orders, with
    its bootstrap.

    Prompts on which one of the two is all ties are left out; empty when none is left.
    """
    taus = [tau for first, second in orders if (tau := kendall_tau(first, second)) is not None]
    if not taus:
        return {}
    low, high = bootstrap_ratio(taus, [1.0] * len(taus))
    return {"value": sum(taus) / len(taus), "low": low, "high": high, "prompts": len(taus)}


def agreement(rankings: Mapping[str, Sequence[Sequence[int] | None]]) -> dict[str, dict[str, float]]:
    """Return of every two annotators `mean_tau` on the prompts both have ranked (None: has not), to
    six digits.
    """
    result = {}
    for one, other in combinations(rankings, 2):
        both = [pair for pair in zip(rankings[one], rankings[other], strict=True) if pair[0] and pair[1]]
        if cell := mean_tau((first, second) for first, second in both if first and second):
            result[f"{one}-{other}"] = {name: float(f"{value:.6g}") for name, value in cell.items()}
    return result


def calibration(rows: Iterable[Scored], bins: int = CALIBRATION_BINS) -> dict[str, Any]:
    """Return {error, bins}: how often the first of two answers is the better, by the predicted
    sigmoid(r_i - r_j).

    A bin is {predicted, observed, pairs}, means over the pairs i < j that fall in it; `error` is
    the mean of |predicted - observed| weighted by pairs (Naeini et al. 2015).
    """
    cells: list[list[tuple[float, bool]]] = [[] for _ in range(bins)]
    for row in rows:
        for better, worse in pairs(row.ranks, "all"):
            first, second = sorted((better, worse))
            predicted = sigmoid(row.scores[first] - row.scores[second])
            cells[min(int(predicted * bins), bins - 1)].append((predicted, first == better))
    table = [
        {
            "predicted": sum(predicted for predicted, _ in cell) / len(cell),
            "observed": sum(right for _, right in cell) / len(cell),
            "pairs": len(cell),
        }
        for cell in cells
        if cell
    ]
    total = sum(len(cell) for cell in cells)
    error = sum(abs(cell["predicted"] - cell["observed"]) * cell["pairs"] for cell in table)
    return {"error": error / total if total else 0.0, "bins": table}


def length_bias(rows: Sequence[Scored]) -> dict[str, float]:
    """Return correlations with an answer's length in tokens: of its score, over all answers
    (`score`) and within a prompt (`score_within_prompts`), and of its rank's goodness
    (`ranks_within_prompts`): the bias the data teaches.
    """
    scores = [score for row in rows for score in row.scores]
    lengths = [float(length) for row in rows for length in row.lengths]
    within = [length for row in rows for length in _centred(row.lengths)]
    return {
        "score": correlation(scores, lengths),
        "score_within_prompts": correlation([score for row in rows for score in _centred(row.scores)], within),
        "ranks_within_prompts": correlation([-rank for row in rows for rank in _centred(row.ranks)], within),
    }


def sigmoid(value: float) -> float:
    """Return 1 / (1 + exp(-value)), for any float."""
    return 1 / (1 + math.exp(-value)) if value >= 0 else math.exp(value) / (1 + math.exp(value))


def _centred(values: Sequence[float]) -> list[float]:
    mean = sum(values) / len(values)
    return [value - mean for value in values]


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)
