"""What an experiment is: a claim from the literature, pipelines that differ in a few parameters
(arms), and tests of what they measured.
"""

import importlib.util
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from stages.common.runtime.errors import ParamsError

FOLDER = Path("experiments")
Values = Mapping[str, float]
"""What was measured, by unit: a question's id, an epoch, or "" for one number a run."""
Measured = Mapping[str, Values]
"""All that one run of an arm measured, by name."""
SEEDED = tuple(
    [f"{stage}.training.seed" for stage in ("pretrain", "sft", "reward", "ppo", "dpo", "orpo")] + ["sample.seed"]
)
"""What an experiment's seed is written to: the same everywhere, so that experiments share runs."""


@dataclass(frozen=True)
class Arm:
    """One variant of the pipeline: `params` by dotted key, run up to the stages `until`."""

    params: Mapping[str, Any] = field(default_factory=dict)
    until: tuple[str, ...] | None = None
    """None: as the experiment says."""
    raw: Mapping[str, str] = field(default_factory=dict)
    """Text by name of further files in data/raw."""
    rounds: int = 1
    """Rounds of RLHF in dvc.yaml."""


@dataclass(frozen=True)
class Contrast:
    """A sentence that the numbers bear out or not.

    `of` and `against` are (arm, name of a measurement); `against` may be a plain number. "more"
    asks that `of` exceeds `against` by over `margin`; "near", that they differ by less than
    `margin`.
    """

    claim: str
    of: tuple[str, str]
    against: tuple[str, str] | float = 0.0
    expects: Literal["more", "near"] = "more"
    margin: float = 0.0


@dataclass(frozen=True)
class Experiment:
    """A claim and how it is tried. `measure` reads a finished run in its folder; `curves` names
    measurements whose units are numbers, which the page draws.
    """

    claim: str
    source: str
    arms: Mapping[str, Arm]
    until: tuple[str, ...]
    measure: Callable[[Path], Measured]
    tests: tuple[Contrast, ...]
    seeds: tuple[int, ...] = (1, 2, 3)
    seeded: tuple[str, ...] = SEEDED
    """The keys of params.yaml that each seed is written to."""
    curves: tuple[str, ...] = ()
    curve_axis: str = ""

    def __post_init__(self) -> None:
        for test in self.tests:
            for side in (test.of, test.against):
                if isinstance(side, tuple) and side[0] not in self.arms:
                    raise ParamsError(f"a test names the arm {side[0]!r}; there are: {', '.join(self.arms)}")
        if not self.tests or not self.seeds:
            raise ParamsError("an experiment needs a test and a seed")


def names() -> list[str]:
    """Return the experiments there are, in their order."""
    return sorted(file.stem for file in FOLDER.glob("[a-z]*.py"))


def load(name: str) -> Experiment:
    """Return an experiment of the folder. Raises ParamsError for a name that is none."""
    file = FOLDER / f"{name}.py"
    if not file.exists():
        raise ParamsError(f"no experiment {name!r}; there are: {', '.join(names())}", where=FOLDER)
    spec = importlib.util.spec_from_file_location(f"experiments.{name}", file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # a dataclass looks its module up
    spec.loader.exec_module(module)
    found = getattr(module, "EXPERIMENT", None)
    if not isinstance(found, Experiment):
        raise ParamsError("it defines no EXPERIMENT", where=file)
    return found
