"""The quality classifier of GPT-3 (Brown et al. 2020, appendix A): does a text read like the
trusted sources?

Hashed words and word pairs, logistic regression, trusted documents against those of all other
sources. Only the others are filtered: one is kept when a Pareto draw exceeds 1 - score, so that
some unlikely ones stay.

Two things differ. A document is scored by the one of FOLDS models that has not read it, or a small
crawl would be known by heart. And because a crawl also holds good text, from the second round on
the models forget the untrusted documents that the round before took for trusted ones (reliable
negatives: Liu et al. 2003); else text exactly like the trusted is bad to the degree that the crawl
has it.
"""

import heapq
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveFloat, PositiveInt

from stages.common.core import records
from stages.common.core.params import StageParams
from stages.common.runtime.logs import log
from stages.common.runtime.whole_files import written_whole
from stages.common.text.content_hash import draw
from stages.common.text.normalisation import normalise
from stages.common.text.units import units

FEATURES = 2**18
FOLDS = 5
CHARACTERS = 10_000  # a text's beginning shows what it is; bounds the memory of the sample
FEWEST = 20
DECIMALS = 4  # the last bits of a sum depend on the machine; a decision must not
BINS = 20
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


class Quality(StageParams):
    """The quality classifier; without trusted or without other sources there is nothing to learn,
    and none is used.
    """

    trusted: list[str] = []
    """Globs of sources (`books/*.txt`) whose documents are good; those of all other sources are
    filtered.
    """
    alpha: PositiveFloat = 9.0
    """Shape of the Pareto draw; the larger, the fewer documents of low score are kept."""
    sample: PositiveInt = 10_000
    """Most documents of each class that are learned from."""
    C: PositiveFloat = 100.0
    """Inverse strength of the regularisation."""
    rounds: PositiveInt = 3
    """Times the classifier is trained, each time without the untrusted documents last taken for
    trusted ones.
    """


@dataclass(frozen=True)
class Model:
    """One logistic regression a fold: weights [FOLDS, FEATURES], intercepts [FOLDS]; and how well
    they told apart.
    """

    weights: Floats
    intercepts: Floats
    report: dict[str, Any] = field(default_factory=dict)

    def save(self, file: Path) -> None:
        """Write plain arrays (.npz)."""
        text = np.frombuffer(json.dumps(self.report).encode(), np.uint8)
        with written_whole(file) as own, own.open("wb") as handle:
            np.savez_compressed(handle, weights=self.weights, intercepts=self.intercepts, report=text)

    @classmethod
    def load(cls, file: Path) -> "Model":
        """Return what `save` wrote."""
        with np.load(file, allow_pickle=False) as arrays:
            return cls(arrays["weights"], arrays["intercepts"], json.loads(arrays["report"].tobytes()))


def trusted(source: str, settings: Quality) -> bool:
    """Whether the source's documents are examples of good text, and never filtered."""
    return _matches(source, tuple(settings.trusted))


@lru_cache
def _matches(source: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(source, pattern) for pattern in patterns)


def keeps(text: str, score: float, alpha: float) -> bool:
    """Whether a draw from a Pareto (Lomax) distribution, made from the text itself, exceeds 1 -
    score.
    """
    return bool(draw("pareto", text) ** (-1 / alpha) - 1 > 1 - score)


def smallest(texts: Iterable[str], size: int) -> list[str]:
    """Return the `size` texts of the smallest hashes, sorted by hash: a random sample that no order
    changes.

    The smallest of several samples together are the smallest of all, so each worker may take its
    own first.
    """
    heap: list[tuple[float, str]] = []
    for text in texts:
        entry = (-draw("sample", text), text[:CHARACTERS])
        if len(heap) < size:
            heapq.heappush(heap, entry)
        elif entry[0] > heap[0][0]:
            heapq.heapreplace(heap, entry)
    return [text for _, text in sorted(heap, reverse=True)]


def train(positives: Iterable[str], negatives: Iterable[str], settings: Quality) -> Model | None:
    """Return a model that tells positives from negatives, or None: fewer than FEWEST of a class
    teach nothing.

    `Model.report` has counts, ROC-AUC and histograms of scores, all of held-out scores.
    """
    samples = smallest(positives, settings.sample), smallest(negatives, settings.sample)
    texts = samples[0] + samples[1]
    good, used = np.arange(len(texts)) < len(samples[0]), np.ones(len(texts), bool)
    folds = _folds(texts)
    if not _teaches(good, folds, used):
        return None
    features = _features(texts)
    for done in range(1, settings.rounds + 1):  # noqa: B007 - the number of rounds is reported
        model = _fit(features, good, folds, used, settings.C)
        scores = _scores(model, features, folds)
        last, used = used, good | (scores < 0.5)
        if (last == used).all() or not _teaches(good, folds, used):
            break
    return Model(model.weights, model.intercepts, _report(scores, good, last) | {"rounds": done})


def score(model: Model, texts: Sequence[str]) -> Floats:
    """Return how likely each text is to come from a trusted source [len(texts)]; 0 for a text
    without words.
    """
    if not texts:
        return np.zeros(0)
    beginnings = [text[:CHARACTERS] for text in texts]
    return _scores(model, _features(beginnings), _folds(beginnings))


def grams(text: str) -> list[str]:
    """Return the units of a text and its pairs of neighbours."""
    words = units(text)
    return words + [f"{first} {second}" for first, second in pairwise(words)]


def _features(texts: Sequence[str]) -> Any:
    from sklearn.feature_extraction.text import HashingVectorizer

    options = {"n_features": FEATURES, "alternate_sign": False, "norm": "l2", "dtype": np.float32}
    return HashingVectorizer(analyzer=grams, **options).transform(texts)


def _folds(texts: Sequence[str]) -> NDArray[np.intp]:
    return np.array([int(draw("fold", text) * FOLDS) for text in texts], np.intp)


def _teaches(good: Flags, folds: NDArray[np.intp], used: Flags) -> bool:
    """Whether there are enough examples of each class, some of them outside each fold."""
    classes = (used & good, used & ~good)
    return all(rows.sum() >= FEWEST and len(np.unique(folds[rows])) > 1 for rows in classes)


def _fit(features: Any, good: Flags, folds: NDArray[np.intp], used: Flags, strength: float) -> Model:
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    weights, intercepts = np.zeros((FOLDS, FEATURES), np.float32), np.zeros(FOLDS, np.float32)
    with threadpool_limits(1):  # sums of several threads differ in their last bits
        for fold in range(FOLDS):
            rows = used & (folds != fold)
            options = {"C": strength, "class_weight": "balanced", "solver": "newton-cg", "tol": 1e-6, "max_iter": 1_000}
            fitted = LogisticRegression(**options).fit(features[rows], good[rows])
            weights[fold], intercepts[fold] = fitted.coef_[0], fitted.intercept_[0]
    return Model(weights.astype(np.float64), intercepts.astype(np.float64))


def _scores(model: Model, features: Any, folds: NDArray[np.intp]) -> Floats:
    from scipy.special import expit

    logits = (features @ model.weights.T + model.intercepts)[np.arange(len(folds)), folds]
    scores: Floats = np.where(np.diff(features.indptr) > 0, expit(logits), 0.0)
    return np.round(scores, DECIMALS)


def _report(scores: Floats, good: Flags, used: Flags) -> dict[str, Any]:
    """Return counts, ROC-AUC over all documents and over those `used`, and the histogram of scores
    by class.
    """
    from sklearn.metrics import roc_auc_score

    edges = np.linspace(0, 1, BINS + 1)
    return {
        "trusted": int(good.sum()),
        "untrusted": int((~good).sum()),
        "taken_for_trusted": int((~used).sum()),
        "roc_auc": round(float(roc_auc_score(good, scores)), DECIMALS),
        "roc_auc_without_them": round(float(roc_auc_score(good[used], scores[used])), DECIMALS),
        "scores": {
            name: np.histogram(scores[rows], edges)[0].tolist()
            for name, rows in (("trusted", good), ("untrusted", ~good))
        },
    }


def of(documents: Path, settings: Quality, file: Path) -> Model | None:
    """Return the quality classifier, trained unless `file` has it; None when there is nothing to
    learn from.
    """

    def texts(good: bool) -> Iterator[str]:
        found = (record for record in records.read(documents) if trusted(record["source"], settings) == good)
        return (normalise(record["text"]) for record in found)

    if not settings.trusted:
        return None
    if not file.exists():
        model = train(texts(True), texts(False), settings)
        if model is None:
            log.info("no quality classifier: too few documents of trusted or of other sources")
            return None
        file.parent.mkdir(parents=True, exist_ok=True)
        model.save(file)
    return Model.load(file)
