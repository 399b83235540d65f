"""How strange a prompt is to the training prompts: its cross-entropy under their hashed words and
pairs of words.

The features are those of Xie et al. 2023 (Data Selection for Language Models via Importance
Resampling): unigrams and bigrams, hashed into buckets (Weinberger et al. 2009). Cross-entropy under
an in-domain model is the measure of Moore & Lewis 2010 for how near a text is to a domain.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import pairwise
from zlib import crc32

from stages.common.serving.drift import histograms
from stages.common.serving.drift.histograms import Bins
from stages.common.text.units import units

BUCKETS = 8192


def features(text: str) -> Counter[int]:
    """Return how often each bucket is hit by the words and pairs of words of a text."""
    words = units(text)
    named = [*words, *(f"{one} {other}" for one, other in pairwise(words))]
    return Counter(crc32(name.encode()) % BUCKETS for name in named)


class Known:
    """The features of the training prompts, counted."""

    def __init__(self, counts: Mapping[int, int]) -> None:
        self.counts, self.total = counts, sum(counts.values())

    @classmethod
    def of(cls, texts: Iterable[str]) -> "Known":
        """Return the counts of texts."""
        counts: Counter[int] = Counter()
        for text in texts:
            counts.update(features(text))
        return cls(counts)

    def bins(self, text: str, *, is_one_of_them: bool = False) -> Bins:
        """Return the bin of a prompt, none for one without words."""
        found = self.perplexity(text, is_one_of_them=is_one_of_them)
        return {} if found is None else {"prompt_novelty": histograms.number(found)}

    def perplexity(self, text: str, *, is_one_of_them: bool = False) -> float | None:
        """Return 2 to the cross-entropy, -1/n sum of log2 P(feature), with P smoothed by one count
        a bucket; None for a text without words.

        Of a text that was counted itself the own counts are taken away first: what a new text of
        the same kind would get.
        """
        found = features(text)
        own = found if is_one_of_them else Counter[int]()
        total = self.total - own.total() + BUCKETS
        bits = sum(
            times * math.log2(total / (self.counts.get(bucket, 0) - own[bucket] + 1)) for bucket, times in found.items()
        )
        return 2 ** (bits / found.total()) if found else None
