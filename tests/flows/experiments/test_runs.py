"""The command of experiments in a small repository: runs are kept, the page tells what came of
them.
"""

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from flows.experiments import __main__ as command
from flows.experiments import page, plan, runs
from flows.local import work_tree
from stages.common.runtime.errors import DataError, ParamsError

SOURCE = """
import json
from flows.experiments.plan import Arm, Contrast, Experiment

def measure(folder):
    lines = (folder / "out.txt").read_text().splitlines()
    return {"steps": {str(at): float(line) for at, line in enumerate(lines)}}

EXPERIMENT = Experiment(
    claim="More steps give more.", source="nobody", arms={"few": Arm(), "many": Arm({"sft.steps": 9})},
    until=("sft",), measure=measure, seeds=(1, 2), seeded=("sft.seed",), curves=("steps",), curve_axis="line",
    tests=(Contrast("many against few", ("many", "steps"), ("few", "steps"), margin=0.5),),
)
"""


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """A repository with one experiment; a run of the pipeline writes four lines, made from
    params.yaml.
    """
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments/a_steps.py").write_text(SOURCE)
    (tmp_path / "infra/profiles").mkdir(parents=True)
    (tmp_path / runs.BASE).write_text("sft: {steps: 1, seed: 0, size: 2}  # all\n")
    (tmp_path / "params.yaml").write_text("sft: {steps: 1, seed: 0, size: 100}\n")
    (tmp_path / ".gitignore").write_text("/.lathe/\n/docs/\n")
    commit("first")
    calls: list[tuple[str, ...]] = []

    def repro(tree: Path, stages: Sequence[str]) -> None:
        found = YAML(typ="safe").load((tree / "params.yaml").read_text())["sft"]
        lines = [found["steps"] + 0.1 * found["seed"] + at for at in range(2 * found["size"])]
        (tree / "out.txt").write_text("".join(f"{line}\n" for line in lines))
        calls.append((*stages, str(found["steps"]), str(found["seed"])))

    monkeypatch.setattr(work_tree, "repro", repro)
    return calls


def commit(message: str) -> None:
    for line in ("init -q", "add -A", f"-c user.name=t -c user.email=t@example.org commit -qm {message}"):
        subprocess.run(["git", *line.split()], check=True)


def test_each_arm_runs_with_each_seed_once_and_the_page_has_the_verdict(ran: list[tuple[str, ...]]) -> None:
    command.main(["a_steps"])
    assert ran == [("sft", "1", "1"), ("sft", "1", "2"), ("sft", "9", "1"), ("sft", "9", "2")]
    command.main(None)
    assert len(ran) == 4
    text = page.PAGE.read_text(encoding="utf-8")
    assert "| [a_steps](#a-steps) | More steps give more. | holds |" in text
    assert "| many against few (> 0.5) | +8 | [+8, +8] | +8 +8 | 4 | holds |" in text
    assert "many against few" in (page.PLOTS / "a_steps.svg").read_text(encoding="utf-8")


def test_a_stopped_call_goes_on_and_another_commit_runs_anew(ran: list[tuple[str, ...]]) -> None:
    command.main(["a_steps"])
    runs.Run("a_steps", "many", 1).file.unlink()
    assert command.known("a_steps").results == []
    command.main(["a_steps"])
    assert ran[4:] == [("sft", "9", "1")]
    runs.BASE.write_text("sft: {steps: 3, seed: 0, size: 2}\n")
    with pytest.raises(DataError, match=r"quick\.yaml: it is changed and not committed; git commit"):
        command.main(["a_steps"])
    commit("second")
    command.main(["a_steps"])
    assert ran[5:7] == [("sft", "3", "1"), ("sft", "3", "2")]


def test_a_wrong_name_and_a_wrong_key_are_named(ran: list[tuple[str, ...]]) -> None:
    with pytest.raises(ParamsError, match="no experiment 'b'; there are: a_steps"):
        command.main(["b"])
    document = YAML().load("sft: {steps: 1}")
    with pytest.raises(ParamsError, match=r"no section 'dpo' for the key 'dpo\.steps'"):
        runs.assign(document, "dpo.steps", 1)


def test_every_experiment_of_the_project_can_be_read() -> None:
    for name in plan.names():
        assert plan.load(name).claim.endswith(".")
