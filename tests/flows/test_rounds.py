"""A round more: two lines in dvc.yaml and no other, and its stages stand behind the old ones."""

from pathlib import Path
from typing import Any

import pytest

from flows import pipeline, rounds
from flows.repro import StageFailed
from stages.common.core import params
from stages.common.runtime import errors
from stages.common.runtime.errors import ParamsError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.yaml").write_text((ROOT / "dvc.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    return tmp_path


def test_a_round_is_two_lines_more_and_nothing_else(here: Path) -> None:
    before = (here / "dvc.yaml").read_text(encoding="utf-8").splitlines()
    assert [rounds.write(), rounds.write()] == ["r2", "r3"]
    after = (here / "dvc.yaml").read_text(encoding="utf-8").splitlines()
    assert [line for line in after if line not in before] == [
        "      r2: {policy: models/ppo/r1, earlier: data/pools/r1, start: models/ppo/r1}",
        "      r3: {policy: models/ppo/r2, earlier: data/pools/r2, start: models/ppo/r2}",
        "      ppo_r2: {model: models/ppo/r2, prompt: chat, before: ppo_r1}",
        "      ppo_r3: {model: models/ppo/r3, prompt: chat, before: ppo_r2}",
    ]
    assert [line for line in after if line in before] == before


def test_the_new_rounds_stages_stand_behind_the_old_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import subprocess
    import sys

    monkeypatch.chdir(tmp_path)
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, cwd=tmp_path, check=True)
    for name in ("dvc.yaml", "params.yaml"):
        (tmp_path / name).write_text((ROOT / name).read_text(encoding="utf-8"), encoding="utf-8")
    rounds.write()
    found = {stage.name: stage for stage in pipeline.load()}
    assert "ppo@r1" in found["sample@r2"].parents
    assert {"sample@r2", "rank@r1"} <= set(found["rank@r2"].parents)
    assert {"rank@r2", "sft"} <= set(found["reward@r2"].parents)
    assert {"reward@r2", "ppo@r1", "sample@r2"} <= set(found["ppo@r2"].parents)
    assert "ppo@r2" in found["evaluate@ppo_r2"].parents
    assert {"evaluate@ppo_r2", "ppo@r2"} <= set(found["report"].parents)
    assert {"ppo@r2", "report"} <= set(found["promote"].parents)
    first = {stage.name for stage in pipeline.until(list(found.values()), "evaluate@ppo_r1")}
    assert not [name for name in first if name.endswith("r2")]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("stages: {}\n", "no list of rounds"),
        ("vars:\n  - rounds:\n      r1: {}\nstages: {}\n", "no list of candidates"),
        ("vars:\n  - rounds:\n      one: {}\n  - candidates:\n      a: {}\nstages: {}\n", "rounds are one, not r1"),
    ],
)
def test_a_pipeline_without_the_lists_is_refused(here: Path, text: str, match: str) -> None:
    (here / "dvc.yaml").write_text(text)
    with pytest.raises(ParamsError, match=match):
        rounds.write()
    assert (here / "dvc.yaml").read_text() == text


def test_it_pauses_as_often_as_ranks_are_missing_and_for_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    codes, paused = [errors.EXIT_AGAIN, errors.EXIT_AGAIN], []

    def within(until: str) -> list[Any]:
        assert until == "rank@r2"
        if codes:
            raise StageFailed("people have ranked 3 of 9", codes.pop())
        return []

    import logging

    monkeypatch.setattr(rounds, "within", within)
    monkeypatch.setattr(rounds, "get_run_logger", lambda: logging.getLogger("test"))
    monkeypatch.setattr(rounds, "pause_flow_run", lambda timeout: paused.append(timeout))
    rounds.wait_for_people("r2")
    assert len(paused) == 2
    codes.append(errors.EXIT_DATA)
    with pytest.raises(StageFailed):
        rounds.wait_for_people("r2")
    assert len(paused) == 2


def test_who_ranks_is_what_params_say_first(here: Path) -> None:
    assert Path("params.yaml") == params.PARAMS_FILE
    (here / "params.yaml").write_text("rank:\n  annotators: [human, rules]\n")
    assert rounds.first_annotator() == "human"
