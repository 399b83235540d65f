"""What is counted of a prompt and its answer: one bin each of a few histograms, never a text.

A number falls into a bin half an octave wide, named by its lower end: 16 to 22.6 is `16`.
"""

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from stages.common.curate.filters.language import detect
from stages.common.evaluation.behaviour import unsure
from stages.common.text.refusals import refuses
from stages.common.text.thoughts import without_thoughts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Bins = dict[str, str]
"""The bin of each quantity, of one prompt or answer."""
Counts = dict[str, int]
Profile = dict[str, Counts]
"""The histogram of each quantity."""

LANGUAGES = ("prompt_language", "answer_language")
NUMBERS = ("prompt_tokens", "prompt_novelty", "prompt_perplexity", "answer_tokens")
SHARES = ("answer_refused", "answer_unsure", "answer_cut")
YES, NO = "yes", "no"
TEXT_AT_MOST = 20_000
"""Characters of a text that are looked at."""


def number(value: float) -> str:
    """Return the bin of a number of 1 or more; a smaller one counts as 1."""
    return f"{2 ** (math.floor(2 * math.log2(max(1.0, value)) + 1e-9) / 2):.4g}"


def of_prompt(text: str, tokenizer: "PreTrainedTokenizerBase") -> Bins:
    """Return the bins of what was asked: of the last message alone, which a template, a system
    prompt or a history do not lengthen.
    """
    tokens = len(tokenizer.encode(text, add_special_tokens=False))
    return {"prompt_language": detect(text), "prompt_tokens": number(tokens)}


def of_answer(text: str, tokens: int, cut: bool | None) -> Bins:
    """Return the bins of an answer, its thoughts apart; `cut` is None where nobody knows."""
    said = without_thoughts(text)
    bins = {
        "answer_language": detect(said),
        "answer_tokens": number(tokens),
        "answer_refused": YES if refuses(said) else NO,
        "answer_unsure": YES if unsure(said) else NO,
    }
    return bins if cut is None else bins | {"answer_cut": YES if cut else NO}


def add(profile: Profile, bins: Bins) -> None:
    """Count one prompt or answer."""
    for quantity, found in bins.items():
        counts = profile.setdefault(quantity, {})
        counts[found] = counts.get(found, 0) + 1


def merged(profiles: Iterable[Mapping[str, Mapping[str, int]]]) -> Profile:
    """Return all counts together."""
    whole: Profile = {}
    for profile in profiles:
        for quantity, counts in profile.items():
            kept = whole.setdefault(quantity, {})
            for name, count in counts.items():
                kept[name] = kept.get(name, 0) + count
    return whole


def shares(counts: Mapping[str, int]) -> dict[str, float]:
    """Return the share of each bin, numbers in order, else the largest first."""
    total = sum(counts.values())
    if all(name[0].isdigit() for name in counts):
        names = sorted(counts, key=float)
    else:
        names = sorted(counts, key=lambda name: (-counts[name], name))
    return {name: counts[name] / total for name in names}


def quantile(counts: Mapping[str, int], share: float) -> float:
    """Return the number below which a share of the counts lies; a bin is even on a log scale."""
    wanted, passed = share * sum(counts.values()), 0
    names = sorted(counts, key=float)
    for name in names:
        if passed + counts[name] >= wanted:
            within = max(0.0, wanted - passed) / counts[name]
            return float(name) * 2 ** (within / 2)
        passed += counts[name]
    return float(names[-1]) * math.sqrt(2)


def median(counts: Mapping[str, int]) -> tuple[float, float, float]:
    """Return the median and its 95 % interval: between the order statistics at half the count, more
    or less 0.98 times its root (Conover 1999, section 3.2).
    """
    half = 0.98 / math.sqrt(sum(counts.values()))
    low, middle, high = (quantile(counts, min(1.0, max(0.0, 0.5 + side))) for side in (-half, 0.0, half))
    return middle, low, high
