"""A read of many long answers never holds their logits: at a vocabulary of 151,936 it takes less
than 2 GiB.

With LATHE_FULL=1 the answers are 64, as docs/log.md has them, else 16: 4.6 GiB of logits.
"""

import pytest

from tests.support import vocabulary_peak
from tests.support.counts import times


@pytest.mark.slow
@pytest.mark.parametrize("reader", vocabulary_peak.READERS)
def test_a_read_of_answers_takes_less_than_two_gibibytes(reader: str) -> None:
    assert vocabulary_peak.measured(reader, times(16, 64)) < 2048
