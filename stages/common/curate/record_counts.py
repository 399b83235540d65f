"""What is counted while records flow: each task writes its own counts, and the report is their sum.

A count's key is a tuple of words, such as ("dropped", source, reason) or ("after", "characters",
"128"). A task that is run again writes its counts again, so nothing is counted twice.
"""

import json
from collections import Counter
from pathlib import Path

from stages.common.runtime.whole_files import written_whole

Tally = Counter[tuple[str, ...]]
SCORE_BINS = 20


def save(tally: Tally, folder: Path, task: int) -> None:
    """Write the counts of one task."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [[*key, number] for key, number in sorted(tally.items())]
    with written_whole(folder / f"{task:05d}.json") as own:
        own.write_text(json.dumps(rows), encoding="utf-8")


def load(folder: Path) -> Tally:
    """Return the sum over all tasks of every step that counted under `folder`."""
    total: Tally = Counter()
    for file in sorted(folder.rglob("*.json")):
        for *key, number in json.loads(file.read_text(encoding="utf-8")):
            total[tuple(key)] += number
    return total


def under(tally: Tally, *prefix: str) -> dict[str, int]:
    """Return the counts below `prefix` by the word that follows it, in order."""
    found: Counter[str] = Counter()
    for key, number in tally.items():
        if key[: len(prefix)] == prefix:
            found[key[len(prefix)]] += number
    return dict(sorted(found.items()))


def observe(tally: Tally, when: str, text: str, language: str, score: float | None) -> None:
    """Count a record's length (the power of two below its characters), language and quality
    score.
    """
    tally[when, "characters", str(1 << max(len(text).bit_length() - 1, 0))] += 1
    tally[when, "language", language] += 1
    if score is not None:
        tally[when, "score", f"{min(int(score * SCORE_BINS), SCORE_BINS - 1) / SCORE_BINS:.2f}"] += 1
