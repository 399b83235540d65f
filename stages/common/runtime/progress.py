"""A line every few seconds about work that takes long: rows a second and the time left."""

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from stages.common.runtime.logs import log

SECONDS_BETWEEN_LINES = 5.0
T = TypeVar("T")


class Progress:
    """Counts rows against a total amount of work in any unit (bytes, rows)."""

    def __init__(self, total: int) -> None:
        self.total = max(total, 1)
        self.rows = 0
        self.started = self.told = time.monotonic()

    def row(self, done: int) -> None:
        """Count one row; `done` is how much of the total lies behind it."""
        self.rows += 1
        now = time.monotonic()
        if now - self.told < SECONDS_BETWEEN_LINES:
            return
        self.told, seconds, share = now, now - self.started, min(done / self.total, 1.0)
        left = f", {seconds / share - seconds:,.0f} s left" if share > 0 else ""
        log.info("%s rows, %.0f %%, %s rows/s%s", f"{self.rows:,}", 100 * share, f"{self.rows / seconds:,.0f}", left)

    def over(self, rows: Iterable[T]) -> Iterator[T]:
        """Yield `rows`, counting them against a total of rows."""
        for row in rows:
            self.row(self.rows)
            yield row

    def rows_per_second(self) -> float:
        """Return the mean speed so far."""
        return self.rows / max(time.monotonic() - self.started, 1e-9)
