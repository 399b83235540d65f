"""How often each source is read: numbers worked by hand, and what must hold for any weights."""

import math
from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from stages.common.curate.mixture import Mixture, copies, copy_id, epochs, overused, shares
from stages.common.runtime.errors import ParamsError
from stages.common.text.content_hash import draw

SIZES = {"books/a.txt": 100, "books/b.txt": 300, "crawl.jsonl": 1600}


@pytest.mark.parametrize(
    ("mixture", "expected"),
    [
        # 2000 characters; half of the mix from 400 characters of books, half from 1600 of the crawl
        (Mixture(weights={"books/*": 1, "*": 1}), [2.5, 2.5, 0.625]),
        # a mix of 1000 characters: 750 from the books, 250 from the crawl
        (Mixture(weights={"books/*": 3, "crawl.jsonl": 1}, size=0.5), [1.875, 1.875, 0.15625]),
        # the first glob that matches decides: a.txt 60 %, b.txt 30 %, the crawl 10 %
        (Mixture(weights={"books/a.txt": 6, "books/*": 3, "crawl*": 1}), [12.0, 2.0, 0.125]),
        (Mixture(weights={"books/*": 1, "crawl.jsonl": 0}), [5.0, 5.0, 0.0]),
        (Mixture(), [1.0, 1.0, 1.0]),
        (Mixture(size=2.5), [2.5, 2.5, 2.5]),
    ],
)
def test_epochs_by_hand(mixture: Mixture, expected: list[float]) -> None:
    found = epochs(SIZES, mixture)
    assert list(found) == list(SIZES)
    assert list(found.values()) == pytest.approx(expected)


def test_the_table_of_gpt_3() -> None:
    """Tokens (billions) and weights of table 2.2, of which 300 are read; its weights are rounded,
    so are its epochs.
    """
    tokens = {"common crawl": 410, "webtext2": 19, "books1": 12, "books2": 55, "wikipedia": 3}
    weights = dict(zip(tokens, (60.0, 22.0, 8.0, 8.0, 3.0), strict=True))
    found = epochs(tokens, Mixture(weights=weights, size=300 / sum(tokens.values())))
    for source, paper in zip(tokens, (0.44, 2.9, 1.9, 0.43, 3.4), strict=True):
        assert found[source] == pytest.approx(paper, rel=0.2), source
    assert overused(found) == {} and overused({"a": 4.0, "b": 4.1}) == {"b": 4.1}


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"books/*": 1}, "no weight for source 'crawl.jsonl'"),
        ({"books/*": 1, "crwl.jsonl": 1, "*": 1}, "left for 'crwl.jsonl', did you mean 'crawl.jsonl'"),
        ({"*": 1, "crawl.jsonl": 1}, "left for 'crawl.jsonl'"),
        ({"*": 0}, "all weights are 0"),
    ],
)
def test_weights_that_do_not_fit_the_sources_are_named(weights: dict[str, float], message: str) -> None:
    with pytest.raises(ParamsError, match=message.replace("*", r"\*")):
        epochs(SIZES, Mixture(weights=weights))


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        Mixture(weights={"*": -1})


SOURCES = st.dictionaries(st.sampled_from(["a/1", "a/2", "b/1", "b/2", "c"]), st.integers(1, 10**9), min_size=1)


@given(SOURCES, st.tuples(*[st.floats(0.01, 100)] * 3), st.floats(0.01, 10))
def test_shares_are_the_weights_and_the_mix_has_its_size(
    sizes: dict[str, int], numbers: tuple[float, ...], size: float
) -> None:
    patterns = {pattern for pattern in ("a/*", "b/*", "c") if any(fnmatchcase(source, pattern) for source in sizes)}
    weights = {pattern: number for pattern, number in zip(("a/*", "b/*", "c"), numbers, strict=True)
               if pattern in patterns}  # fmt: skip
    often = epochs(sizes, Mixture(weights=weights, size=size))
    assert math.isclose(sum(sizes[source] * often[source] for source in sizes), size * sum(sizes.values()))
    found = shares(sizes, often)
    for pattern, weight in weights.items():
        own = [source for source in sizes if fnmatchcase(source, pattern)]
        assert math.isclose(sum(found[source] for source in own), weight / sum(weights.values()))
        assert len({often[source] for source in own}) == 1


@given(st.floats(0, 6), st.integers(0, 1000))
def test_as_many_copies_are_written_as_epochs_say(often: float, seed: int) -> None:
    records = 2_000
    found = [copies(f"{seed}/{number}".encode(), often) for number in range(records)]
    assert set(found) <= {math.floor(often), math.floor(often) + 1}
    part = often - math.floor(often)
    # Hoeffding: P(|mean - expected| > 0.08) <= 2 exp(-2 * 2000 * 0.08 ** 2) < 2e-11
    assert abs(sum(found) / records - math.floor(often) - part) <= 0.08


def test_copies_by_hand() -> None:
    assert [copies(b"any", often) for often in (0.0, 1.0, 3.0)] == [0, 1, 3]
    edge = draw("mixture", b"any")
    assert copies(b"any", 2 + edge + 1e-9) == 3 and copies(b"any", 2 + edge - 1e-9) == 2
    assert [copy_id("demo/a.txt:3", copy) for copy in (1, 2)] == ["demo/a.txt:3", "demo/a.txt:3#2"]
