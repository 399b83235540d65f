"""The wheels that a machine without a package registry needs: a folder to carry there.

    python -m flows.cli.wheelhouse --image infra/images/torch-cuda13.txt --out wheelhouse

Versions are those of constraints.txt. With `--image`, a list of what a machine has, only what it
lacks is collected; without one, everything. `--for gpu-check` takes what that script imports,
`--for all` every dependency of Lathe and of its `--extras`. On the machine:

    python3 -m pip install --no-index --no-deps --target site wheelhouse/*.whl
    PYTHONPATH=site python3 -m bench.gpu
"""

import argparse
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path

from stages.common.runtime.errors import ParamsError, TryAgainError

CHECKED = ("trl", "datasets", "pydantic", "ruamel.yaml", "orjson", "psutil", "pytest", "pytest-timeout")
"""What `make gpu-check` imports beside torch and transformers."""
OF_THE_MACHINE = frozenset({"torch", "triton", "transformers", "accelerate", "peft", "lathe"})
"""Taken as the image has them: torch is built for its CUDA, and the others for that torch."""
GLIBCS = (39, 35, 34, 31, 28, 27, 24, 17)
"""Minor versions of the C library that wheels are built for; pip takes each for itself alone."""
MEBIBYTE = 2**20
PYTHON = "3.12"


def canonical(name: str) -> str:
    """Return a name as package indexes write it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def listed(file: Path) -> dict[str, str]:
    """Return name -> version (empty: not known) of a list as pip writes it."""
    found = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        name, _, version = line.partition("#")[0].strip().partition("==")
        if name:
            found[canonical(name)] = version.partition("+")[0]
    return found


def lacking(
    roots: Iterable[str], image: Mapping[str, str], versions: Mapping[str, str], python: str = PYTHON
) -> dict[str, str]:
    """Return name -> version of what `roots` need under a `python` and the image does not have, or
    has too old.

    What needs what is read from the environment this runs in, and so are versions that
    constraints.txt lacks. Raises ParamsError for what is not in it.
    """
    from packaging.requirements import Requirement

    found: dict[str, str] = {}
    there = {"extra": "", "python_version": python, "python_full_version": f"{python}.0"}
    queue = [Requirement(root) for root in roots]
    while queue:
        wanted = queue.pop()
        name = canonical(wanted.name)
        if name in found or name in OF_THE_MACHINE & set(image) or has(image, name, str(wanted.specifier)):
            continue
        version, needs = installed(wanted.name)
        found[name] = versions.get(name, version)
        for need in map(Requirement, needs):
            if need.marker is None or need.marker.evaluate(there):
                queue.append(need)
    return dict(sorted(found.items()))


def installed(name: str) -> tuple[str, list[str]]:
    """Return the version of a package and what it asks for. Raises ParamsError for one that is not
    here.
    """
    try:
        return metadata.version(name).partition("+")[0], metadata.requires(name) or []
    except metadata.PackageNotFoundError as error:
        raise ParamsError(f"{name} is not installed here", remedy="make env EXTRAS=dev,<its extra>") from error


def has(image: Mapping[str, str], name: str, specifier: str) -> bool:
    """Whether an image has a package, in a version that is asked for."""
    from packaging.specifiers import SpecifierSet

    if name not in image:
        return False
    return not image[name] or SpecifierSet(specifier).contains(image[name], prereleases=True)


def roots(purpose: str, extras: Iterable[str]) -> list[str]:
    """Return the requirements a wheelhouse starts from."""
    if purpose == "gpu-check":
        return list(CHECKED)
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project["dependencies"] + [one for name in extras for one in project["optional-dependencies"][name]]


def fetch(packages: Mapping[str, str], out: Path, python: str) -> None:
    """Download one wheel of each, or build it where there is none and it is Python alone. Raises
    TryAgainError, with what pip said, where one is not had.
    """
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("*.whl"):
        old.unlink()
    wheels, sources = dict(packages), dict[str, str]()
    while wheels:
        said = pip("download", out, wheels, "--only-binary=:all:", "--implementation", "cp", *targets(python))
        without = re.search(r"No matching distribution found for ([\w.-]+)==", said)
        name = canonical(without[1]) if without else ""
        if said and name not in wheels:
            raise TryAgainError(said, where=out, remedy="reach a package registry, or a mirror of one (PIP_INDEX_URL)")
        if not said:
            break
        sources[name] = wheels.pop(name)
    for name, version in sources.items():
        said = pip("wheel", out, {name: version})
        if said:
            raise TryAgainError(said, where=name)
        for built in out.glob(f"{name.replace('-', '_')}-*.whl"):
            if not built.name.endswith("-any.whl"):
                raise ParamsError(f"{built.name} is built for this machine alone", remedy="build it on the other one")


def targets(python: str) -> list[str]:
    """Return pip's options for a Python and every C library that wheels are built for."""
    libraries = (*(f"manylinux_2_{minor}" for minor in GLIBCS), "manylinux2014")
    return ["--python-version", python] + [part for name in libraries for part in ("--platform", f"{name}_x86_64")]


def pip(task: str, out: Path, packages: Mapping[str, str], *options: str) -> str:
    """Run pip over packages into a folder; return the last of what it complained, nothing where all
    went well.
    """
    command = [sys.executable, "-m", "pip", task, "-q", "--disable-pip-version-check", "--no-deps"]
    command += ["-w" if task == "wheel" else "-d", str(out), *options]
    command += [f"{name}=={version}" for name, version in packages.items()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stderr.strip().splitlines() or ["pip failed"])[-1] if done.returncode else ""


def main() -> None:
    """Collect the wheels and say what they weigh; exit code 1 above the limit."""
    options = argparse.ArgumentParser(prog="python -m flows.cli.wheelhouse")
    options.add_argument("--for", dest="purpose", choices=("gpu-check", "all"), default="gpu-check")
    options.add_argument("--image", type=Path, help="list of what the machine has; without it: everything")
    options.add_argument("--extras", default="", help="of pyproject.toml, with --for all: gpu,s3")
    options.add_argument("--python", default=PYTHON)
    options.add_argument("--out", type=Path, default=Path("wheelhouse"))
    options.add_argument("--most", type=float, help="MiB that may be carried at a time")
    options.add_argument("--trl", default="", help="a version of TRL to measure PPO against, into OUT/trl")
    given = options.parse_args()
    try:
        image = listed(given.image) if given.image else {}
        wanted = roots(given.purpose, filter(None, given.extras.split(",")))
        packages = lacking(wanted, image, listed(Path("constraints.txt")), given.python)
        fetch(packages, given.out, given.python)
        if given.trl:
            fetch({"trl": given.trl}, given.out / "trl", given.python)
    except (ParamsError, TryAgainError) as error:
        raise SystemExit(f"lathe: {error}") from error
    size = sum(file.stat().st_size for file in given.out.rglob("*.whl")) / MEBIBYTE
    print(f"{len(list(given.out.rglob('*.whl')))} wheels, {size:.1f} MiB: {', '.join(packages)}")
    if given.most and size > given.most:
        raise SystemExit(f"lathe: {size:.1f} MiB, more than the {given.most:g} that may be carried")


if __name__ == "__main__":
    main()
