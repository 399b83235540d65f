"""The classifier tells trusted text from junk that it has not read, and its decisions depend on
nothing but text.
"""

import itertools
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from stages.common.curate.filters import quality_classifier
from stages.common.curate.filters.quality_classifier import (
    FEATURES,
    FOLDS,
    Model,
    Quality,
    keeps,
    score,
    smallest,
    train,
    trusted,
)
from stages.common.text.content_hash import draw
from stages.common.text.units import units
from tests.support import demo_world

SETTINGS = Quality(trusted=["demo/prose_*.txt", "demo/quiz.txt", "demo/articles.jsonl"])
JUNK = ("spam", "gibberish", "boilerplate")


def sentences(words: str, count: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(words.split(), k=12)) for _ in range(count)]


@pytest.fixture(scope="module")
def classes() -> tuple[list[str], list[str]]:
    shared = "the a of and to in is it on for"
    good = sentences(f"{shared} planet atom river capital music", 120, 1)
    return good, sentences(f"{shared} buy cheap click free casino", 80, 2)


@pytest.fixture(scope="module")
def model(classes: tuple[list[str], list[str]]) -> Model:
    found = train(*classes, SETTINGS)
    assert found
    return found


def test_sources_are_trusted_by_glob() -> None:
    assert trusted("demo/prose_en.txt", SETTINGS) and trusted("demo/quiz.txt", SETTINGS)
    assert not trusted("demo/crawl.jsonl", SETTINGS) and not trusted("demo/quiz.txt", Quality())


@pytest.mark.parametrize("value", [0.0, 0.3, 0.9, 1.0])
def test_as_many_are_kept_as_the_pareto_distribution_says(value: float) -> None:
    texts = [f"document {number}" for number in range(20_000)]
    kept = sum(keeps(text, value, 9.0) for text in texts)
    share = (2 - value) ** -9  # P(X > 1 - score) of Lomax: (1 + x) ** -alpha
    drawn = (np.random.default_rng(1).pareto(9, len(texts)) > 1 - value).sum()
    margin = 4 * np.sqrt(len(texts) * share * (1 - share))
    assert abs(kept - len(texts) * share) <= margin
    assert abs(kept - drawn) <= 2 * margin


def test_the_draw_by_hand() -> None:
    uniform = draw("pareto", "hello")
    edge = 2 - uniform ** (-1 / 9)  # where uniform ** (-1 / 9) - 1 = 1 - score
    assert keeps("hello", edge + 1e-6, 9.0) and not keeps("hello", edge - 1e-6, 9.0)


def test_a_sample_is_the_same_in_any_order_and_from_any_parts() -> None:
    texts = [f"text {number}" for number in range(300)]
    whole = smallest(texts, 20)
    assert whole == smallest(reversed(texts), 20)
    parts = [smallest(texts[start::3], 20) for start in range(3)]
    assert whole == smallest(itertools.chain(*parts), 20)
    assert whole == sorted(texts, key=lambda text: draw("sample", text))[:20]


def test_training_twice_in_another_order_gives_the_same_model(
    classes: tuple[list[str], list[str]], model: Model
) -> None:
    again = train(reversed(classes[0]), iter(classes[1][::-1]), SETTINGS)
    assert again and np.array_equal(again.weights, model.weights) and again.report == model.report


def test_a_saved_model_is_plain_arrays_and_scores_the_same(
    tmp_path: Path, classes: tuple[list[str], list[str]], model: Model
) -> None:
    for name in ("one.npz", "two.npz"):
        model.save(tmp_path / name)
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    with np.load(tmp_path / "one.npz", allow_pickle=False) as arrays:
        assert sorted(arrays) == ["intercepts", "report", "weights"]
    loaded = Model.load(tmp_path / "one.npz")
    assert loaded.report == model.report
    assert np.array_equal(score(loaded, classes[1]), score(model, classes[1]))


def test_scores_are_those_of_sklearn_trained_without_the_texts_fold(classes: tuple[list[str], list[str]]) -> None:
    once = train(*classes, Quality(trusted=["*"], rounds=1))
    texts, good = [*classes[0], *classes[1]], np.arange(200) < 120
    folds = np.array([int(draw("fold", text) * FOLDS) for text in texts])
    vectorizer = HashingVectorizer(
        tokenizer=units, token_pattern=None, ngram_range=(1, 2), n_features=FEATURES, alternate_sign=False
    )
    features, expected = vectorizer.transform(texts), np.zeros(len(texts))
    for fold in range(FOLDS):
        own = folds == fold
        to_the_end = {"C": 100, "class_weight": "balanced", "tol": 1e-6, "max_iter": 10_000}
        fitted = LogisticRegression(**to_the_end).fit(features[~own], good[~own])
        expected[own] = fitted.predict_proba(features[own])[:, 1]
    assert once and np.abs(score(once, texts) - expected).max() < 1e-3
    assert once.report["roc_auc"] == pytest.approx(roc_auc_score(good, expected), abs=1e-3)


def test_the_reported_auc_is_of_text_not_read(classes: tuple[list[str], list[str]]) -> None:
    noise = [" ".join(sentences("a b c d e f g h i j", 1, seed)) for seed in range(400)]
    found = train(noise[:200], noise[200:], Quality(trusted=["*"], rounds=1))
    assert found and 0.38 < found.report["roc_auc"] < 0.62  # by heart it would be 1


def test_good_text_in_the_crawl_is_forgiven(classes: tuple[list[str], list[str]]) -> None:
    good, junk = classes
    plain, forgiving = (train(good[:80], junk + good[80:], Quality(trusted=["*"], rounds=rounds)) for rounds in (1, 3))
    assert plain and forgiving
    lost = [sum(not keeps(text, value, 9.0) for text, value in zip(good[80:], score(m, good[80:]), strict=True))
            for m in (plain, forgiving)]  # fmt: skip
    assert lost[1] < lost[0] / 2
    assert score(forgiving, junk).max() < 0.5
    assert forgiving.report["taken_for_trusted"] >= 36 and plain.report["taken_for_trusted"] == 0


def test_a_text_without_words_has_no_quality(model: Model) -> None:
    assert score(model, ["#@%&*", "", "planet atom river"]).tolist()[:2] == [0, 0]
    assert len(score(model, [])) == 0


def test_too_few_of_a_class_teach_nothing(classes: tuple[list[str], list[str]]) -> None:
    assert train(classes[0], classes[1][: quality_classifier.FEWEST - 1], SETTINGS) is None
    assert train([], classes[1], SETTINGS) is None
    assert train(classes[0], ["the same text"] * 100, SETTINGS) is None


@pytest.mark.parametrize("seed", [1, 2])
def test_the_demos_junk_goes_and_its_prose_stays(seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    documents = [one for one in demo_world.build(seed) if one.shape == "documents"]
    good = [one.record["text"] for one in documents if trusted(one.record["source"], SETTINGS)]
    crawl = {one.record["text"]: one.fault for one in documents if not trusted(one.record["source"], SETTINGS)}
    found = train(good, crawl, SETTINGS)
    assert found
    kept = Counter(
        fault
        for (text, fault), value in zip(crawl.items(), score(found, list(crawl)), strict=True)
        if keeps(text, value, SETTINGS.alpha)
    )
    with capsys.disabled():
        print(f"\nkept of 60 good / 30 spam / 30 gibberish / 60 boilerplate: {[kept[f] for f in ('', *JUNK)]}", end=" ")
    assert kept[""] >= 54 and sum(kept[fault] for fault in JUNK) <= 4
    assert found.report["untrusted"] == 180 and found.report["roc_auc_without_them"] > 0.98
