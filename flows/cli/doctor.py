"""Whether this machine can run the pipeline: a line a check, ok, warn or fail, each with the
command that mends it.

Command: python -m flows.cli.doctor
"""

import importlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Literal, NamedTuple

from flows.local import background, server, services
from flows.plans import memory_plan, question_plan
from stages import promote
from stages.common.core import params
from stages.common.memory import estimate
from stages.common.runtime import libraries
from stages.common.runtime.errors import StageError
from stages.common.tracking import lineage, mlflow_store

CONSTRAINTS, PROJECT = Path("constraints.txt"), Path("pyproject.toml")
DATA_BYTES = 2 * estimate.GIBIBYTE
"""Room for data, reports and the cache beside models and checkpoints."""


class Finding(NamedTuple):
    """What one check found."""

    state: Literal["ok", "warn", "fail"]
    name: str
    what: str
    mend: str = ""


def versions() -> Iterator[Finding]:
    """Compare what is installed with constraints.txt."""
    lines = CONSTRAINTS.read_text(encoding="utf-8").splitlines()
    tested = {canonical(name): version for name, _, version in (line.partition("==") for line in lines)}
    wanted = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["dependencies"]
    missing, other = [], []
    for name in map(canonical, wanted):
        try:
            found = metadata.version(name).partition("+")[0]
        except metadata.PackageNotFoundError:
            missing.append(name)
            continue
        if found != tested[name]:
            other.append(f"{name} {found} (tested: {tested[name]})")
    mend = "make clean env"
    if missing:
        yield Finding("fail", "packages", f"missing: {', '.join(missing)}", mend)
    elif other:
        yield Finding("warn", "packages", ", ".join(other), mend)
    else:
        yield Finding("ok", "packages", f"{len(wanted)} as tested, Python {sys.version.split()[0]}")


def canonical(requirement: str) -> str:
    """Return the name of a requirement as package indexes write it."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", requirement)[0]).lower()


def device() -> Iterator[Finding]:
    """Look for GPUs, and for a torch that cannot use the ones there are."""
    import torch

    wanted = int(lineage.run_section().get("gpus") or 0)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    names = ", ".join(torch.cuda.get_device_properties(index).name for index in range(count))
    if not count and Path("/proc/driver/nvidia").exists():
        what = f"torch {torch.__version__} does not see this machine's NVIDIA GPU"
        yield Finding("fail" if wanted else "warn", "device", what, "make clean env EXTRAS=dev,gpu")
    elif count < wanted:
        yield Finding(
            "fail", "device", f"{count} GPUs, but run.gpus is {wanted}", f"set run.gpus: {count} in params.yaml"
        )
    else:
        where = names or f"{os.cpu_count()} cores, {torch.get_num_threads()} threads"
        yield Finding("ok", "device", f"torch {torch.__version__} on {where}")


def parameters() -> Iterator[Finding]:
    """Read every section of params.yaml as its stage will."""
    sections = [name for name in params.read_yaml(params.PARAMS_FILE) if name != "run"]
    for name in sections:
        params.load(importlib.import_module(f"stages.{name}").Params, name)
    yield Finding("ok", "params.yaml", f"{len(sections)} sections")


def memories() -> Iterator[Finding]:
    """Compare what each trainer would take with what there is."""
    document = params.plain(params.read_yaml(params.PARAMS_FILE))
    room_needed = DATA_BYTES
    for stage, job, need, free in memory_plan.plans(document):
        what = f"at most {need.shown()} of {estimate.amount(free)}, batch {job.batch}"
        if need.total > free * estimate.SPARE:
            yield Finding("fail", f"memory {stage}", what, f"{estimate.remedy(job, free, stage)} in params.yaml")
        else:
            yield Finding("ok", f"memory {stage}", what)
        kept = int(document[stage].get("keep_checkpoints", 2)) + 1  # one more while it is written
        room_needed += kept * (need.parameters + need.optimiser) * job.processes + 3 * need.parameters
    free_disk = shutil.disk_usage(".").free
    what = f"{estimate.amount(free_disk)} free, about {estimate.amount(room_needed)} needed"
    enough = free_disk > room_needed
    yield Finding("ok" if enough else "fail", "disk", what, "" if enough else "free some, for example: dvc gc -w")


def questions() -> Iterator[Finding]:
    """Compare the questions that the gate's rules need with those that were asked."""
    section = params.plain(params.read_yaml(params.PARAMS_FILE))
    if "promote" not in section:
        return
    settings = params.load(promote.Params, "promote")
    variables = params.plain(params.read_yaml(Path("dvc.yaml"))).get("vars", [])
    named: dict[str, object] = next((one["candidates"] for one in variables if "candidates" in one), {})
    skipped = {name for name, one in section.items() if isinstance(one, dict) and one.get("skip")}
    competing = question_plan.competing(settings.base, set(named) - skipped)
    for one in question_plan.plans(settings, competing):
        how = f"{one.differing:.1%} answered differently{'' if one.measured else ', assumed'}"
        there = "none evaluated yet" if one.there is None else f"{one.there:,} there"
        sees = "" if one.sees is None else f", which show {one.sees:.1%} in 80 %"
        if one.asked is None:
            yield Finding("ok", "gate", f"{one.metric}, best of {competing}: {there}{sees} ({how})")
        elif one.there is None or one.there >= one.asked:
            yield Finding("ok", "gate", f"guard {one.metric}: needs {one.asked:,} questions, {there} ({how})")
        else:
            what = f"guard {one.metric}: needs {one.asked:,} questions, {there}{sees} ({how})"
            mend = f"more questions in data/raw, or a wider promote.guards for {one.metric}; else a person decides"
            yield Finding("warn", "gate", what, mend)


def ports() -> Iterator[Finding]:
    """See whether the services' addresses are free, or taken by our own."""
    ours = background.find(services.RECORD) is not None
    for name, address in services.healths(server.api_url()).items():
        if not services.answers(address):
            yield Finding("ok", f"port {name}", f"{address} is free")
        elif ours or (name == "prefect" and server.answers(server.api_url())):
            yield Finding("ok", f"port {name}", f"{address} is ours")
        else:
            variable = (
                "PREFECT_API_URL=http://127.0.0.1:4201/api" if name == "prefect" else f"{name.upper()}_PORT=<port>"
            )
            yield Finding("warn", f"port {name}", f"something else answers at {address}", f"export {variable}")


def tracking() -> Iterator[Finding]:
    """Reach the MLflow store; one that is not there yet is made on first use."""
    if not os.environ.get("MLFLOW_TRACKING_URI") and not mlflow_store.DATABASE.exists():
        yield Finding("ok", "tracking", f"{mlflow_store.DATABASE} is made by the first run")
        return
    mlflow_store.client()
    yield Finding("ok", "tracking", mlflow_store.shown())


def versioning() -> Iterator[Finding]:
    """Look for the git repository and DVC's remote."""
    if lineage.commit() == lineage.UNKNOWN:
        yield Finding("fail", "git", "no commit here, which DVC needs", "git init && git add . && git commit -m start")
    else:
        changed = " with local changes, which a version's record keeps" if lineage.is_dirty() else ""
        yield Finding("ok", "git", f"commit {lineage.commit()[:10]}{changed}")
    command = [sys.executable, "-m", "dvc", "remote", "list"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        yield Finding("fail", "dvc", (done.stderr.strip().splitlines() or ["dvc does not run"])[-1], "dvc init")
    elif not done.stdout.strip():
        what = "no remote: data and models are on this disk alone"
        yield Finding("warn", "dvc", what, "dvc remote add -d storage <url> && dvc push --run-cache")
    else:
        yield Finding("ok", "dvc", f"remote {done.stdout.split()[0]}")


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    versions,
    device,
    parameters,
    memories,
    questions,
    ports,
    tracking,
    versioning,
)


def examine() -> Iterator[Finding]:
    """Yield every finding; a check that fails is a finding too."""
    for check in CHECKS:
        try:
            yield from check()
        except StageError as error:
            place = f"{error.where}: " if error.where else ""
            yield Finding("fail", check.__name__, f"{place}{error.what}", error.remedy or "mend it, then: make doctor")


def main() -> None:
    """Print the findings; exit code 1 when one is a failure."""
    libraries.quiet()
    failed = False
    for state, name, what, mend in examine():
        failed |= state == "fail"
        print(f"{state:<5}{name:<17}{what}", flush=True)
        if mend:
            print(f"{'':22}-> {mend}", flush=True)
    raise SystemExit(int(failed))


if __name__ == "__main__":
    main()
