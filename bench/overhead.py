"""What DVC and the flow add to the stages: the commands of dvc.yaml one after the other,
`dvc repro` and the flow, each from nothing, in turns; then with nothing to do.

A copy of this project with a small demo world, as far as `--until`; `--done FOLDER` is a checkout
whose pipeline has ended: there only what nothing to do takes is measured.
Beside seconds stand the processor's, which say more on a busy machine. A Prefect server runs
before; its own processor time is in a column of its own.

    python -m bench.overhead [--until tokenizer] [--rounds 3] [--done ../demo]
"""

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import chdir
from functools import partial
from pathlib import Path
from typing import Annotated, NamedTuple

import psutil
import typer

from flows import pipeline
from flows.local import background, server
from tests.support import project
from tests.support.mlflow_server import free_port
from tests.support.small_world import SMALL

DVC, FLOW = ["-m", "dvc", "repro"], ["-m", "flows.train"]


class Spent(NamedTuple):
    seconds: float
    processor: float
    server: float


def environment(folder: Path, url: str) -> dict[str, str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return os.environ | {"PATH": path, "PYTHONPATH": str(folder), "PREFECT_API_URL": url, "DVC_NO_ANALYTICS": "1"}


def must(folder: Path, url: str, *commands: list[str]) -> None:
    for command in commands:
        done = subprocess.run(command, cwd=folder, env=environment(folder, url), capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def clean(folder: Path) -> None:
    """Remove all that a run leaves, DVC's cache too."""
    (folder / "dvc.lock").unlink(missing_ok=True)
    subprocess.run(["git", "clean", "-xdffq"], cwd=folder, check=True)
    subprocess.run(["git", "checkout", "-q", "."], cwd=folder, check=True)


def measured(call: Callable[[], None], prefect: psutil.Process) -> Spent:
    def processor() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    def of_server() -> float:
        times = prefect.cpu_times()
        return float(times.user + times.system)

    began, spent, its = time.monotonic(), processor(), of_server()
    call()
    return Spent(time.monotonic() - began, processor() - spent, of_server() - its)


def row(what: str, rounds: list[Spent], stages: int, bare: list[Spent] | None) -> str:
    best = min(rounds, key=lambda one: one.processor)
    seconds = min(one.seconds for one in rounds)
    cells = [f"{seconds:.1f}", f"{best.processor:.1f}", f"{best.server:.1f}"]
    if bare:
        ratios = [one.processor / other.processor for one, other in zip(rounds, bare, strict=True)]
        more = (min(one.processor for one in rounds) - min(one.processor for one in bare)) / stages
        cells += [f"{min(ratios):.2f} to {max(ratios):.2f}", f"{more:.2f}"]
    else:
        cells += ["", ""]
    return f"| {what} | {' | '.join(cells)} |"


def from_nothing(folder: Path, url: str, prefect: psutil.Process, until: str, rounds: int) -> None:
    with chdir(folder):
        stages = pipeline.until(pipeline.load(), until)
    shell, python = ["/bin/sh", "-c"], [sys.executable]
    sides: dict[str, list[list[str]]] = {
        "the commands alone": [[*shell, stage.cmd] for stage in stages],
        "`dvc repro`": [[*python, *DVC, until]],
        "the flow": [[*python, *FLOW, "--until", until]],
    }
    found: dict[str, list[Spent]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, commands in sides.items():
            clean(folder)
            found[name].append(measured(partial(must, folder, url, *commands), prefect))
    for name, spent in found.items():
        print(row(f"{len(stages)} stages: {name}", spent, len(stages), found["the commands alone"]), flush=True)


def nothing(folder: Path, url: str, prefect: psutil.Process, until: str | None, rounds: int) -> None:
    with chdir(folder):
        stages = pipeline.load()
        count = len(pipeline.until(stages, until) if until else stages)
    ends = {"`dvc repro`": [until] if until else [], "the flow": ["--until", until] if until else []}
    for name, end in ends.items():
        command = [sys.executable, *(FLOW if name == "the flow" else DVC), *end]
        spent = [measured(partial(must, folder, url, command), prefect) for _ in range(rounds)]
        print(row(f"nothing to do, {count} stages: {name}", spent, count, None), flush=True)


def main(
    until: Annotated[str | None, typer.Option(help="stage to end with; tokenizer unless --done is given")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="rounds of each side")] = 3,
    done: Annotated[Path | None, typer.Option(help="a checkout whose pipeline has ended")] = None,
) -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as place:
        home, folder = Path(place, "server"), Path(place, "project")
        home.mkdir()
        shutil.copy("pyproject.toml", home)
        os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{free_port()}/api"
        with chdir(home):
            url = server.ensure()
            top = background.find(server.RECORD)
        assert top is not None
        try:
            print("| what | least seconds | processor | server | processor, over the commands' | more a stage |")
            print("|---|---|---|---|---|---|")
            if done:
                return nothing(done.absolute(), url, top, until, rounds)
            until = until or "tokenizer"
            folder.mkdir()
            project.lay(folder, "params.yaml", SMALL)
            from_nothing(folder, url, top, until, rounds)
            nothing(folder, url, top, until, rounds)
        finally:
            with chdir(home):
                background.end(server.RECORD)


if __name__ == "__main__":
    typer.run(main)
