"""Dockerfile, compose file, Procfile and deployments, checked as far as that goes without a
container engine.
"""

import inspect
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from flows.local import supervisor
from stages.common.core import params

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
YAMLLINT = "{extends: default, rules: {line-length: {max: 130}, document-start: disable, comments: disable}}"
COMPOSE: dict[str, Any] = params.plain(params.read_yaml(ROOT / "infra/compose.yaml"))
SERVICES: dict[str, Any] = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
PROCFILE = dict(line.split(": ", 1) for line in (ROOT / "infra/Procfile").read_text().splitlines())
DEPLOYMENTS: list[dict[str, Any]] = params.plain(params.read_yaml(ROOT / "infra/prefect.yaml"))["deployments"]


def commands() -> list[tuple[str, str]]:
    """Every command that a container or a service of the Procfile starts, with where it stands."""
    found = [(f"Procfile-{name}", command) for name, command in PROCFILE.items()]
    for name, service in SERVICES.items():
        if "command" in service:
            shell = re.fullmatch(r'bash -ec "(.*)"', service["command"])
            parts = shell[1].split(";") if shell else [service["command"]]
            found += [(f"compose-{name}-{number}", part.strip()) for number, part in enumerate(parts)]
    last = re.findall(r"^CMD (\[.*\])$", DOCKERFILE, flags=re.MULTILINE)[-1]
    return [*found, ("Dockerfile", " ".join(re.findall(r'"([^"]+)"', last)))]


@cache
def usage(command: tuple[str, ...]) -> str:
    """What a command says of itself; `python` and the console scripts are those of this
    environment.
    """
    program = [sys.executable] if command[0] == "python" else [str(BIN / command[0])]
    done = subprocess.run([*program, *command[1:], "--help"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{' '.join(command)} --help: {done.stderr}"
    return done.stdout


def split(command: str) -> tuple[tuple[str, ...], list[str]]:
    """The program with its subcommands, and the options."""
    words = shlex.split(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", command))
    words = [word for word in words if word != "--no-prompt"]  # prefect's own, before every subcommand
    first = next((number for number, word in enumerate(words) if word.startswith("--")), len(words))
    name = tuple(word for word in words[:first] if word != "lathe")  # the work pool
    return name, [word for word in words[first:] if word.startswith("--")]


@pytest.mark.parametrize(("where", "command"), commands(), ids=[where for where, _ in commands()])
def test_a_command_exists_and_knows_its_options(where: str, command: str) -> None:
    name, options = split(command)
    if name == ("python", "-m", "flows.local.server"):  # takes no options, --help neither: it becomes the server
        assert not options and (ROOT / "flows/local/server.py").is_file()
        return
    text = usage(name)
    for option in options:
        assert re.search(rf"{option}\b", text), f"{' '.join(name)} has no {option}"


def test_hadolint_finds_nothing() -> None:
    done = subprocess.run([BIN / "hadolint", "Dockerfile"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")


def test_yamllint_finds_nothing() -> None:
    files = [
        *(ROOT / "infra").rglob("*.yaml"),
        ROOT / "dvc.yaml",
        ROOT / "params.yaml",
        ROOT / ".pre-commit-config.yaml",
        ROOT / ".gitlab-ci.yml",
        *(ROOT / ".github/workflows").glob("*.yml"),
    ]
    lint = [sys.executable, "-m", "yamllint", "-d", YAMLLINT, *map(str, files)]
    done = subprocess.run(lint, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout


def test_every_file_the_image_copies_is_committed_and_not_kept_from_docker() -> None:
    copied = [
        source
        for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, flags=re.MULTILINE)
        for source in line.split()[:-1]
        if not source.startswith("--")
    ]
    assert len(copied) > 8
    committed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for source in copied:
        assert any(file == source or file.startswith(f"{source}/") for file in committed), f"COPY {source}: not in git"
        assert source in allowed, f"COPY {source}: .dockerignore keeps it out"
    assert allowed == set(copied)


def test_the_image_is_pinned_and_runs_as_nobody_in_particular() -> None:
    assert re.search(r"^ARG PYTHON_IMAGE=python:\d+\.\d+\.\d+-slim-\w+$", DOCKERFILE, flags=re.MULTILINE)
    assert re.findall(r"^USER (.*)$", DOCKERFILE, flags=re.MULTILINE) == ["10001"]
    assert "PIP_NO_CACHE_DIR=1" in DOCKERFILE and "\nHEALTHCHECK " in DOCKERFILE
    for service in SERVICES.values():
        assert re.search(r":(\d+\.\d+-\w+|\$\{LATHE_TAG:-latest\})$", service["image"])


def test_compose_publishes_on_loopback_alone() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(published) == 3
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_compose_takes_its_secrets_from_the_environment_and_insists_on_them() -> None:
    text = (ROOT / "infra/compose.yaml").read_text()
    for secret in ("POSTGRES_PASSWORD", "PREFECT_AUTH_STRING"):
        uses = re.findall(rf"\$\{{{secret}([^}}]*)\}}", text)
        assert uses and all(use.startswith(":?") for use in uses)
    assert not re.search(r"(?i)(password|secret|token|auth_string): *[\"']?\w", text)


def test_compose_services_say_how_they_are_and_wait_for_what_they_need() -> None:
    assert set(SERVICES) == {"postgres", "mlflow", "prefect", "deployments", "worker", "chat"}
    for name, service in SERVICES.items():
        health = service["healthcheck"]
        assert ("test" in health) == (name != "deployments")
        for needed, how in service.get("depends_on", {}).items():
            done = "service_completed_successfully" if needed == "deployments" else "service_healthy"
            assert how == {"condition": done}
        for volume in service.get("volumes", []):
            assert volume.split(":")[0] in {"..", *COMPOSE["volumes"]}


def test_the_procfile_has_the_services_of_compose() -> None:
    services = supervisor.read(ROOT / "infra/Procfile", list(PROCFILE))
    assert {service.name: service.command for service in services} == PROCFILE
    assert set(PROCFILE) == set(SERVICES) - {"postgres", "deployments"}
    assert "127.0.0.1" in PROCFILE["mlflow"] and "0.0.0.0" not in "".join(PROCFILE.values())


def test_deployments_are_of_our_flows_on_our_pool_and_leave_schedules_to_the_page() -> None:
    from flows import release, rounds, train
    from flows.local import deployments

    flows: dict[str, Any] = {
        "flows/train.py:train": train.train.fn,
        "flows/rounds.py:rounds": rounds.rounds.fn,
        "flows/release.py:wait_for_review": release.wait_for_review.fn,
        "flows/release.py:release": release.release.fn,
    }
    assert {deployment["name"] for deployment in DEPLOYMENTS} == {
        *("train", "train-gpu", "nightly", "curate-only", "round", "review", "release"),
    }
    for deployment in DEPLOYMENTS:
        flow = flows[deployment["entrypoint"]]
        assert set(deployment["parameters"]) <= set(inspect.signature(flow).parameters)
        gpu = deployment["name"] == "train-gpu"
        pool = {"name": "{{ $LATHE_GPU_POOL }}", "job_variables": {"gpus": 1}} if gpu else {"name": deployments.POOL}
        assert deployment["work_pool"] == pool
        assert "schedules" not in deployment
