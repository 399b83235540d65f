"""What `make`, `pip` and CI are told agrees with the code."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DEPENDENCIES = {canonicalize_name(Requirement(text).name): Requirement(text) for text in PROJECT["dependencies"]}
CONSTRAINTS = {
    canonicalize_name(name): Version(version)
    for name, _, version in (line.partition("==") for line in (ROOT / "constraints.txt").read_text().splitlines())
    if version
}
NOT_IMPORTED = {
    "xxhash": "datatrove's, and capped here",
    "sqlalchemy": "MLflow's and Prefect's, and capped here",
}
# Imported only where asked for, or installed.
EXTRAS = {"ray", "lm_eval", "deepspeed", "flash_attn", "vllm", "gguf", "model_signing", "cryptography"}
TARGETS = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


def make(*arguments: str, folder: Path = ROOT, path: str = os.environ["PATH"]) -> "subprocess.CompletedProcess[str]":
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")} | {"PATH": path}
    program = shutil.which("make")
    assert program, "make is missing"
    return subprocess.run(
        [program, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=60
    )


def imported() -> dict[str, set[str]]:
    """What flows/ and stages/ import, at any depth of their functions, with the distributions that
    bring it.
    """
    modules = set()
    for file in [*(ROOT / "flows").rglob("*.py"), *(ROOT / "stages").rglob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                modules |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules.add(node.module.partition(".")[0])
    known = metadata.packages_distributions()
    own = {*sys.stdlib_module_names, *EXTRAS, "flows", "stages"}
    return {module: {canonicalize_name(name) for name in known[module]} for module in modules - own}


def test_what_is_imported_is_declared_and_what_is_declared_is_imported() -> None:
    found = imported()
    assert [module for module, brings in found.items() if not brings & set(DEPENDENCIES)] == []
    brought = set().union(*found.values())
    assert set(DEPENDENCIES) - brought == set(NOT_IMPORTED)


def test_every_direct_dependency_has_one_tested_version_within_its_range() -> None:
    extras = [Requirement(text) for group in PROJECT["optional-dependencies"].values() for text in group]
    for requirement in [*DEPENDENCIES.values(), *extras]:
        version = CONSTRAINTS[canonicalize_name(requirement.name)]
        assert version in requirement.specifier, f"{requirement}: constraints.txt has {version}"


def test_every_cap_says_why() -> None:
    for line in (ROOT / "pyproject.toml").read_text().splitlines():
        if re.search(r'^\s*"[\w\[\]-]+.*<\d', line):
            assert "  # " in line, f"no reason: {line}"


def test_this_environment_is_the_tested_one() -> None:
    for name in DEPENDENCIES:
        assert Version(metadata.version(name).partition("+")[0]) == CONSTRAINTS[name], name


def test_make_help_lists_every_target() -> None:
    listed = re.findall(r"^  ([a-z-]+) ", make().stdout, flags=re.MULTILINE)
    assert sorted(listed) == sorted(set(TARGETS) - {"preflight"})


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_is_phony_and_is_understood(target: str) -> None:
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert phony and target in phony[1].split()
    assert make("-n", target, "ID=x", "PROFILE=own-text").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["env", "PYTHON=/nowhere/python"], "lathe: no Python 3.11 or newer as /nowhere/python; install one"),
        (["env"], "is no git checkout, which DVC needs; clone it"),
    ],
)
def test_what_is_missing_is_said_in_one_line(arguments: list[str], line: str, tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    done = make(*arguments, folder=tmp_path)
    assert done.returncode != 0
    said = [text for text in done.stderr.splitlines() if not text.startswith("make")]
    assert len(said) == 1 and line in said[0]


def test_a_missing_git_is_named(tmp_path: Path) -> None:
    for name in ("sh", "bash", "make", "sed", "awk", "python3.11", "python3", "dirname", "head", "cut", "tr"):
        found = shutil.which(name)
        if found:
            (tmp_path / name).symlink_to(found)
    shutil.copy(ROOT / "Makefile", tmp_path)
    interpreter = f"PYTHON={Path(sys.executable).resolve()}"
    done = make("preflight", interpreter, folder=tmp_path, path=str(tmp_path))
    assert done.returncode != 0 and "lathe: git is missing; install it" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), True),
        (("TORCH=cuda",), False),
        (("NVIDIA=/proc/driver/nvidia",), False),
        (("PIP_ARGS=--no-index",), False),
    ],
)
def test_without_a_gpu_the_smaller_torch_is_one_command(arguments: tuple[str, ...], said: bool, tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    for name in ("Makefile", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    done = make("preflight", f"PYTHON={sys.executable}", *(arguments or ("NVIDIA=",)), folder=tmp_path)
    assert (done.returncode, "make clean env TORCH=cpu" in done.stdout) == (0, said), done.stderr


def test_the_smaller_torch_is_the_tested_version_and_nothing_else_changes() -> None:
    """Without TORCH the commands are those that a lock of constraints.txt would run."""
    cpu = ("TORCH=cpu", "TORCH_CPU_INDEX=file:///w")
    plain, small = (make("-n", "-B", "env", *given).stdout.splitlines() for given in ((), cpu))
    (changed,) = (line for line in small if " install " in line and line not in plain)
    version = CONSTRAINTS[canonicalize_name("torch")]
    taken = f"--extra-index-url file:///w torch=={version}+cpu"
    assert f" {taken} numpy" in changed and changed.replace(taken, "torch") in plain
    assert f"constraints.txt torch=={version}+cpu numpy" in make("-n", "-B", "env", "TORCH=cpu").stdout
    assert make("preflight", "TORCH=rocm").stderr.startswith("lathe: TORCH is cpu or cuda, not rocm\n")


def test_make_env_can_do_without_extras() -> None:
    assert make("-n", "-B", "env", "EXTRAS=").stdout.count(" -e '.'\n") == 1


def test_ci_makes_a_new_environment_and_calls_make_test() -> None:
    script = ROOT / ".ci/run"
    assert os.access(script, os.X_OK)
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
    lines = script.read_text().splitlines()
    assert lines[-2:] == ["make clean", "make test"]


def test_hooks_call_make_and_download_nothing() -> None:
    from stages.common.core import params

    repos = params.plain(params.read_yaml(ROOT / ".pre-commit-config.yaml"))["repos"]
    assert [repo["repo"] for repo in repos] == ["local"]
    for hook in repos[0]["hooks"]:
        assert hook["language"] == "system"
        assert hook["entry"].removeprefix("make ") in TARGETS
