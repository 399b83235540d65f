"""The histograms of each day and of the latest questions, in one small file that a restart reads
again. It holds counts alone: no text, nothing of who asked.
"""

import json
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from stages.common.runtime.logs import log
from stages.common.runtime.whole_files import written_whole
from stages.common.serving.drift import histograms
from stages.common.serving.drift.distances import REST
from stages.common.serving.drift.histograms import Bins, Profile

FILE = "days.json"
BLOCKS = 10
"""Parts of the window: it moves on by one of them."""
BINS_AT_MOST = 40
CHAMPIONS_A_DAY = 8


@dataclass
class Days:
    """What was counted so far.

    `days` has a day's histograms by champion; `blocks` are those of the window that are full,
    `block` the one that fills, of `counted` questions to the champion `weights`; `drifted` are the
    quantities of which it was said that they have drifted.
    """

    days: dict[str, dict[str, Profile]] = field(default_factory=dict)
    weights: str = ""
    blocks: deque[Profile] = field(default_factory=lambda: deque(maxlen=BLOCKS))
    block: Profile = field(default_factory=dict)
    counted: int = 0
    drifted: list[str] = field(default_factory=list)

    def of(self, weights: str) -> None:
        """Begin a window for another champion."""
        if weights != self.weights:
            self.weights, self.block, self.counted, self.drifted = weights, {}, 0, []
            self.blocks.clear()

    def add(self, day: str, bins: Bins) -> None:
        """Count a question and its answer."""
        self.counted += 1
        champions = self.days.setdefault(day, {})
        while self.weights not in champions and len(champions) >= CHAMPIONS_A_DAY:
            del champions[next(iter(champions))]
        for profile in (champions.setdefault(self.weights, {}), self.block):
            histograms.add(profile, {name: _bounded(profile, name, found) for name, found in bins.items()})

    def turn(self) -> None:
        """Begin the next block of the window."""
        self.blocks.append(self.block)
        self.block, self.counted = {}, 0

    def window(self) -> Profile:
        """Return the histograms of the window."""
        return histograms.merged(self.blocks)

    def write(self, folder: Path, kept: int) -> None:
        """Write it whole, without all but the latest days."""
        for day in sorted(self.days)[:-kept]:
            del self.days[day]
        folder.mkdir(parents=True, exist_ok=True)
        with written_whole(folder / FILE) as file:
            file.write_text(json.dumps(vars(self) | {"blocks": list(self.blocks)}), encoding="utf-8")


def _bounded(profile: Profile, quantity: str, found: str) -> str:
    """Return the bin; where a histogram of names has many already, the rest."""
    counts = profile.get(quantity, {})
    return REST if quantity in histograms.LANGUAGES and len(counts) >= BINS_AT_MOST and found not in counts else found


def read(folder: Path) -> Days:
    """Return what was counted before; from the beginning where the file is missing or damaged."""
    try:
        told = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return Days(**told | {"blocks": deque(told["blocks"], maxlen=BLOCKS)})
    except FileNotFoundError:
        return Days()
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("%s cannot be read (%s): drift is counted from the beginning", folder / FILE, error)
        return Days()
