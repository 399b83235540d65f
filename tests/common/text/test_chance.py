"""Draws are made of content alone."""

import hashlib

import numpy as np
from scipy import stats

from stages.common.text.content_hash import draw


def test_a_draw_is_the_hash_of_purpose_and_content() -> None:
    digest = hashlib.blake2b("中文".encode(), digest_size=8, person=b"pareto").digest()
    assert draw("pareto", "中文") == draw("pareto", "中文".encode())
    assert abs(draw("pareto", "中文") - int.from_bytes(digest, "big") / 2**64) < 2**-52


def test_draws_are_uniform_and_independent_of_draws_for_another_purpose() -> None:
    texts = [f"text {number}" for number in range(20_000)]
    first, second = ([draw(purpose, text) for text in texts] for purpose in ("one", "two"))
    assert stats.kstest(first, "uniform").pvalue > 1e-3
    assert min(first) > 0 and max(first) < 1
    assert abs(np.corrcoef(first, second)[0, 1]) < 4 / np.sqrt(len(texts))
