"""The champion's evaluation on the present test: a candidate's own, one kept from before, or
measured anew.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stages.common.core import code_closure
from stages.common.evaluation import results
from stages.common.evaluation.results import Evaluated
from stages.common.release import registry
from stages.common.runtime import logs
from stages.common.runtime.errors import EXIT_AGAIN, EXIT_STOPPED, DataError, TryAgainError
from stages.common.tracking import lineage

if TYPE_CHECKING:
    from stages.common.release.registry import Version
    from stages.common.tracking.mlflow_store import MlflowClient

KEPT = Path(".lathe/evaluations")
NAME = "champion"


@dataclass(frozen=True)
class Test:
    """What `evaluate` asks and reads; without it no champion can be measured anew."""

    module: str
    """The stage that asks, as Python runs it; its code is part of what a kept evaluation is known
    by.
    """
    questions: Path | None = None
    documents: Path | None = None
    conversations: Path | None = None
    samples: Path | None = None
    reward: Path | None = None
    tasks: Path | None = None

    def options(self) -> list[str]:
        """Return the options of `evaluate` for what there is."""
        given = {name: path for name, path in vars(self).items() if isinstance(path, Path)}
        return [part for name, path in given.items() for part in (f"--{name}", str(path))]

    def is_whole(self) -> bool:
        """Whether it has all that `evaluate` cannot do without."""
        return all((self.questions, self.documents, self.conversations))

    def kept(self, weights_sha256: str) -> Path:
        """Return where the evaluation of these weights by the present code is kept."""
        return KEPT / code_closure.digest(self.module.rpartition(".")[2])[:16] / weights_sha256


def of(client: "MlflowClient", champion: "Version", candidates: Sequence[Evaluated], test: Test) -> Evaluated:
    """Return the champion's evaluation on the test that the candidates were given.

    Raises DataError when it was measured on another one and cannot be measured anew.
    """
    weights, wanted = champion.tags.get("weights_sha256", ""), candidates[0].test_sha256
    for one in candidates:
        if one.weights_sha256 == weights:
            return one
    kept = test.kept(weights)
    if (kept / "metrics.json").exists() and (known := results.one(kept)).test_sha256 == wanted:
        return known
    if not test.is_whole():
        what = f"version {champion.number} has no evaluation on the present test here, and the test is not given"
        raise DataError(what, where=champion.name, remedy="name --questions, --documents and --conversations")
    logs.log.info("version %s was not measured on this test: measuring it now", champion.number)
    found = _measured(registry.fetch(client, champion), champion.tags.get("prompt", "chat"), kept, test)
    if found.test_sha256 != wanted:
        what = f"the present test is {found.test_sha256[:16]}, the candidates were given {wanted[:16]}"
        raise DataError(what, where=kept, remedy="run `dvc repro evaluate`")
    return found


def keep(evaluation: Path, weights_sha256: str, test: Test) -> None:
    """Keep the evaluation in a folder for when these weights are champion; it is there whole or not
    at all.
    """
    kept = test.kept(weights_sha256)
    aside = _aside(kept)
    shutil.copytree(evaluation, aside)
    _put(aside, kept)


def _measured(model: Path, prompt: str, kept: Path, test: Test) -> Evaluated:
    """Run `evaluate` on the champion behind `run.launcher`, as dvc.yaml does on a candidate: in
    processes of its own, which share the questions and whose memory is free again before the gate
    goes on.
    """
    aside = _aside(kept)
    command = [*_launcher(), "-m", test.module, "--candidate", NAME, "--model", str(model)]
    command += ["--prompt", prompt, "--out", str(aside), *test.options()]
    stage = f"evaluate@{NAME}"
    began = time.time()
    done = subprocess.run(command, env={**os.environ, "DVC_STAGE": stage}, check=False)
    if done.returncode:
        kind = TryAgainError if _exit_code(stage, began, done.returncode) in (EXIT_AGAIN, EXIT_STOPPED) else DataError
        raise kind("the champion could not be evaluated", where=f"logs/{stage}.log", remedy="its last line says why")
    _put(aside, kept)
    return results.one(kept)


def _exit_code(stage: str, began: float, otherwise: int) -> int:
    """Return the exit code that a stage has written down: a launcher has one of its own."""
    facts = logs.execution(stage)
    if not facts.exists() or facts.stat().st_mtime < began:
        return otherwise
    return int(json.loads(facts.read_text(encoding="utf-8"))["exit_code"])


def _launcher() -> list[str]:
    """Return the words of `run.launcher`, without a shell, which would outlive a gate that is
    stopped; the plain one is the Python of this process.
    """
    words = shlex.split(str(lineage.run_section().get("launcher", "python")))
    if words == ["python"]:
        return [sys.executable]
    return ["env", *words] if "=" in words[0] else words


def _aside(folder: Path) -> Path:
    aside = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(aside, ignore_errors=True)
    aside.parent.mkdir(parents=True, exist_ok=True)
    return aside


def _put(aside: Path, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)
