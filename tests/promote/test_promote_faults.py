"""Promotions killed by SIGKILL after each of their writes, and two at once, against a real
registry.

Default: one life is killed at every point in turn, and one at a point in the middle alone.
LATHE_FAULT_ROUNDS=20 (`make faults FULL=1`) kills at each point alone, twenty times.
"""

import json
import os
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from stages import evaluate, promote
from stages.common.evaluation import results
from stages.common.release import aliases, champion_evaluation, promotion_history, registry
from stages.common.runtime import kill_points
from stages.common.tracking import mlflow_store
from tests.support import preloaded
from tests.support.champion import add_candidate
from tests.support.counts import FULL

ROUNDS = int(os.environ.get("LATHE_FAULT_ROUNDS", "1"))
FILES = ("config.json", "model.safetensors", "lineage.json", "tokenizer.json", "manifest.json")
FIRST = (
    "model",
    *(f"file-{name}" for name in FILES),
    *("ready", "name", "version", "described"),
    *("tag-gate", "tag-reason", "tag-comparisons", "tag-review"),
    *("alias-challenger", "alias-champion", "history", "tag-decision", "report", "card"),
)
SECOND = ("version", "tag-champion_before", "alias-challenger", "alias-previous", "alias-champion", "history", "report")
ROLLBACK = ("tag-rolled_back", "tag-rolled_back_to", "alias-champion", "history", "alias-previous")

pytestmark = [pytest.mark.fault, pytest.mark.slow, pytest.mark.timeout(1200 * ROUNDS)]


def alone(points: tuple[str, ...]) -> tuple[str, ...]:
    """Return the points that a life of their own is killed at."""
    return points if FULL or ROUNDS > 1 else (points[len(points) // 2],)


@pytest.fixture(scope="module")
def processes() -> Any:
    """Children that start with the slow imports done."""
    return preloaded.context()


def child(folder: str, action: str, environment: dict[str, str]) -> None:
    """What a process does: a promotion or a rollback in `folder`."""
    os.chdir(folder)
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    os.environ.update(environment)
    if action == "promote":
        report, card = Path("reports/promote.json"), Path("reports/model_card.md")
        promote.main(Path("reports/evaluate"), Path("models"), report, card)
    else:
        aliases.rollback(mlflow_store.client(), "lathe", "it is rude", by="ann")


def act(processes: Any, folder: Path, action: str, **environment: str) -> Any:
    process = processes.Process(target=child, args=(str(folder), action, environment))
    process.start()
    return process


def ended(process: Any) -> int:
    process.join(300)
    assert process.exitcode is not None, "it hangs"
    return int(process.exitcode)


def killed(processes: Any, folder: Path, action: str, point: str) -> None:
    process = act(processes, folder, action, **{kill_points.VARIABLE: f"promote:{point}"})
    assert ended(process) == -signal.SIGKILL, f"nobody passes the point {point}"


def facts() -> dict[str, Any]:
    """Return aliases and versions; check that champion never is on a version that did not pass the
    gate.
    """
    client = mlflow_store.client()
    found = {alias: registry.with_alias(client, "lathe", alias) for alias in ("champion", "previous", "challenger")}
    for alias in ("champion", "previous"):
        version = found[alias]
        assert version is None or version.tags.get("gate") == "passed", f"{alias} is on a version that did not pass"
    return {alias: version.number for alias, version in found.items() if version} | {
        "versions": len(registry.versions(client, "lathe"))
    }


def history() -> list[tuple[str, str, str | None, str | None]]:
    return [(line["version"], line["action"], line["from"], line["to"]) for line in promotion_history.read()]


def test_every_write_of_the_code_is_a_point_that_is_tested() -> None:
    root, points = Path(promote.__file__).parent, set()
    for file in (
        "promote.py",
        "common/release/aliases.py",
        "common/release/registry.py",
        "common/release/artifacts.py",
    ):
        points |= set(
            re.findall(r"kill_points\.point\(f?\"promote:([\w-]+)", (root / file).read_text(encoding="utf-8"))
        )
    tested = {re.sub(r"^(file|tag|alias)-.*", r"\1-", point) for point in (*FIRST, *SECOND, *ROLLBACK)}
    assert points == tested


@pytest.mark.parametrize("turn", range(ROUNDS))
@pytest.mark.parametrize("point", alone(FIRST))
def test_a_first_promotion_killed_after_a_write_is_completed_by_the_next(
    processes: Any, project: Path, point: str, turn: int
) -> None:
    killed(processes, project, "promote", point)
    facts()
    for _ in range(2):
        assert ended(act(processes, project, "promote")) == 0
        assert facts() == {"champion": "1", "challenger": "1", "versions": 1}
        assert history() == [("1", "promoted", None, "1")]
    registry.champion(mlflow_store.client(), "lathe")
    assert json.loads(Path("reports/promote.json").read_text())["decision"] == "promoted"


def test_a_first_promotion_killed_at_every_write_in_turn_is_completed(processes: Any, project: Path) -> None:
    for point in FIRST:
        killed(processes, project, "promote", point)
        facts()
    assert ended(act(processes, project, "promote")) == 0
    assert facts() == {"champion": "1", "challenger": "1", "versions": 1}
    assert history() == [("1", "promoted", None, "1")]


@pytest.fixture(scope="module")
def promoted(processes: Any, template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a champion and a better candidate."""
    folder = shutil.copytree(template, tmp_path_factory.mktemp("promoted"), dirs_exist_ok=True)
    assert ended(act(processes, folder, "promote")) == 0
    add_candidate(folder, "sft", 1.0, seed=2)
    return folder


@pytest.fixture
def succession(promoted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it for this test."""
    shutil.copytree(promoted, tmp_path, dirs_exist_ok=True)
    move(tmp_path, promoted)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


@pytest.mark.parametrize("turn", range(ROUNDS))
@pytest.mark.parametrize("point", alone(SECOND))
def test_a_succession_killed_after_a_write_is_completed_by_the_next(
    processes: Any, succession: Path, point: str, turn: int
) -> None:
    killed(processes, succession, "promote", point)
    assert facts()["champion"] in ("1", "2")
    for _ in range(2):
        assert ended(act(processes, succession, "promote")) == 0
        assert facts() == {"champion": "2", "challenger": "2", "previous": "1", "versions": 2}
        assert history() == [("1", "promoted", None, "1"), ("2", "promoted", "1", "2")]


def test_a_succession_and_its_rollback_killed_at_every_write_in_turn_are_completed(
    processes: Any, succession: Path
) -> None:
    for point in SECOND:
        killed(processes, succession, "promote", point)
        assert facts()["champion"] in ("1", "2")
    assert ended(act(processes, succession, "promote")) == 0
    assert facts() == {"champion": "2", "challenger": "2", "previous": "1", "versions": 2}
    for point in ROLLBACK:
        killed(processes, succession, "rollback", point)
        assert facts()["champion"] in ("1", "2")
    assert ended(act(processes, succession, "rollback")) == 0
    assert facts() == {"champion": "1", "challenger": "2", "previous": "2", "versions": 2}
    assert history() == [("1", "promoted", None, "1"), ("2", "promoted", "1", "2"), ("2", "rolled back", "2", "1")]


@pytest.mark.parametrize("turn", range(ROUNDS))
@pytest.mark.parametrize("point", alone(ROLLBACK))
def test_a_rollback_killed_after_a_write_is_completed_by_the_next(
    processes: Any, succession: Path, point: str, turn: int
) -> None:
    assert ended(act(processes, succession, "promote")) == 0
    killed(processes, succession, "rollback", point)
    assert facts()["champion"] in ("1", "2")
    for _ in range(2):
        assert ended(act(processes, succession, "rollback")) == 0
        assert facts() == {"champion": "1", "challenger": "2", "previous": "2", "versions": 2}
        assert history()[2:] == [("2", "rolled back", "2", "1")]


@pytest.mark.parametrize("turn", range(ROUNDS))
def test_of_two_promotions_at_once_from_two_checkouts_one_wins(
    processes: Any, template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, turn: int
) -> None:
    """Both candidates beat the base and are as good as each other: the second to decide meets the
    first as champion.
    """
    checkouts = [shutil.copytree(template, tmp_path / name) for name in ("one", "two")]
    for seed, folder in enumerate(checkouts):
        add_candidate(folder, "sft", 0.9, seed=10 + seed)
    for folder, other in (checkouts, checkouts[::-1]):  # each knows how the other's candidate did on this test
        evaluation = other / "reports/evaluate/sft"
        kept = champion_evaluation.Test(evaluate.__name__).kept(results.one(evaluation).weights_sha256)
        shutil.copytree(evaluation, folder / kept)
    shared = {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/one/mlflow.db"}
    started = [act(processes, folder, "promote", **shared) for folder in checkouts]
    assert [ended(process) for process in started] == [0, 0]
    monkeypatch.chdir(tmp_path / "one")
    decisions = [json.loads((folder / "reports/promote.json").read_text())["decision"] for folder in checkouts]
    assert sorted(decisions) == ["promoted", "refused"]
    assert facts() == {"champion": "1", "challenger": "2", "versions": 2}


def move(folder: Path, template: Path) -> None:
    """Make a copied store's absolute paths its own."""
    import sqlite3

    with sqlite3.connect(folder / "mlflow.db") as database:
        for table, column in (("experiments", "artifact_location"), ("logged_models", "artifact_location")):
            database.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (str(template), str(folder)))
