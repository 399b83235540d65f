"""How often the fault tests do what they do: a few times in CI, as often as is claimed with `make
faults FULL=1`.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

FULL = os.environ.get("LATHE_FULL") == "1"


def times(few: int, full: int) -> int:
    """Return how often: `few` unless LATHE_FULL=1."""
    return full if FULL else few


@contextmanager
def told(capsys: pytest.CaptureFixture[str], what: str) -> Iterator[dict[str, int]]:
    """Print what was done, how often and how long it took; the body fills in the counts."""
    counts: dict[str, int] = {}
    started = time.monotonic()
    yield counts
    listed = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    with capsys.disabled():
        print(f"\nfaults: {what}: {listed}; {time.monotonic() - started:.0f} s", flush=True)
