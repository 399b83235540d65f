"""Runs of an experiment's arms: the pipeline in a work tree of its own, its numbers measured and
kept, so that a stopped command goes on where it was.
"""

import hashlib
import io
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML

from flows.experiments.plan import FOLDER, Arm, Experiment, Measured
from flows.local import work_tree
from stages.common.core import params
from stages.common.runtime.errors import DataError, ParamsError
from stages.common.runtime.logs import log

ROOT = Path(".lathe/experiments")
TREE = ROOT / "tree"
RAW, PIPELINE = Path("data/raw"), Path("dvc.yaml")
BASE = Path("infra/profiles/quick.yaml")
"""What an arm changes: the demo's world made small enough for many runs."""


class Run(NamedTuple):
    """One run of one arm."""

    experiment: str
    arm: str
    seed: int

    @property
    def file(self) -> Path:
        """Where its numbers are kept."""
        return ROOT / "results" / self.experiment / f"{self.arm}-{self.seed}.json"


def check_out() -> str:
    """Bring the work tree to the present commit, its finished stages kept; return the commit.

    Raises DataError while tracked files differ from it: what a page reports must be a commit.
    """
    if changed := work_tree.git("status", "--porcelain", "--untracked-files=no"):
        first = changed.splitlines()[0].split()[-1]
        raise DataError("it is changed and not committed", where=Path(first), remedy="git commit")
    commit = work_tree.git("rev-parse", "HEAD")
    if not (TREE / ".git").exists():
        work_tree.make(TREE, commit)
    else:
        work_tree.git("-C", str(TREE), "checkout", "--quiet", "--force", "--detach", commit)
    return commit


def measured(name: str, experiment: Experiment, commit: str) -> dict[tuple[str, int], Measured]:
    """Run every arm with every seed and return what was measured, by arm and seed.

    Logs a line a run with the time it took and what is left by the mean so far.
    """
    todo = [Run(name, arm, seed) for arm in experiment.arms for seed in experiment.seeds]
    found: dict[tuple[str, int], Measured] = {}
    seconds: list[float] = []
    for number, run in enumerate(todo, 1):
        started = time.monotonic()
        found[run.arm, run.seed], ran = one(run, experiment, commit)
        if ran:
            seconds.append(time.monotonic() - started)
            left = (len(todo) - number) * sum(seconds) / len(seconds) / 60
            log.info("%s: %s of %s, %s with seed %s, %.0f s; at most %.0f minutes left",
                     name, number, len(todo), run.arm, run.seed, seconds[-1], left)  # fmt: skip
    return found


def one(run: Run, experiment: Experiment, commit: str) -> tuple[Measured, bool]:
    """Return what a run measured, and whether it had to run: numbers of the same commit, parameters
    and experiment are kept.
    """
    arm = experiment.arms[run.arm]
    text = parameters(arm, dict.fromkeys(experiment.seeded, run.seed))
    source = (FOLDER / f"{run.experiment}.py").read_text(encoding="utf-8")
    more = [f"{arm.rounds} rounds", *(part for file in sorted(arm.raw.items()) for part in file)]
    key = hashlib.sha256("\0".join([commit, text, source, *more]).encode()).hexdigest()
    kept = json.loads(run.file.read_text(encoding="utf-8")) if run.file.exists() else {}
    if kept.get("key") == key:
        return kept["measured"], False
    (TREE / params.PARAMS_FILE).write_text(text, encoding="utf-8")
    with changed(arm):
        work_tree.repro(TREE, arm.until or experiment.until)
    numbers = {name: dict(values) for name, values in experiment.measure(TREE).items()}
    run.file.parent.mkdir(parents=True, exist_ok=True)
    run.file.write_text(json.dumps({"key": key, "measured": numbers}) + "\n", encoding="utf-8")
    return numbers, True


@contextmanager
def changed(arm: Arm) -> Iterator[None]:
    """Give the work tree the arm's raw files and rounds, as long as it runs."""
    files = {TREE / RAW / name: text for name, text in arm.raw.items()}
    if arm.rounds > 1:
        files |= {TREE / PIPELINE: with_rounds((TREE / PIPELINE).read_text(encoding="utf-8"), arm.rounds)}
    before = {file: file.read_text(encoding="utf-8") for file in files if file.exists()}
    try:
        for file, text in files.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        yield
    finally:
        for file in files:
            if file in before:
                file.write_text(before[file], encoding="utf-8")
            else:
                file.unlink(missing_ok=True)


def with_rounds(pipeline: str, count: int) -> str:
    """Return dvc.yaml's text with so many rounds."""
    from flows import rounds  # it needs Prefect, which takes seconds

    for _ in range(count - 1):
        pipeline = rounds.add(pipeline, YAML().load(pipeline)).text
    return pipeline


def parameters(arm: Arm, seeds: Mapping[str, int]) -> str:
    """Return the text of params.yaml for a run: BASE of the work tree's commit, changed by the arm,
    seeded.
    """
    yaml = YAML()
    document = yaml.load(work_tree.git("-C", str(TREE), "show", f"HEAD:{BASE}"))
    for key, value in (dict(arm.params) | dict(seeds)).items():
        assign(document, key, value)
    written = io.StringIO()
    yaml.dump(document, written)
    return written.getvalue()


def assign(document: Any, key: str, value: Any) -> None:
    """Set a dotted key. Raises ParamsError where its section is none."""
    *parents, last = key.split(".")
    section = document
    for parent in parents:
        if not isinstance(section, Mapping) or parent not in section:
            raise ParamsError(f"no section {parent!r} for the key {key!r}", where=params.PARAMS_FILE)
        section = section[parent]
    section[last] = value


def kept(name: str, experiment: Experiment) -> Iterator[tuple[tuple[str, int], Measured]]:
    """Yield the numbers that earlier calls kept, whatever commit they are of."""
    for arm in experiment.arms:
        for seed in experiment.seeds:
            file = Run(name, arm, seed).file
            if file.exists():
                yield (arm, seed), json.loads(file.read_text(encoding="utf-8"))["measured"]
