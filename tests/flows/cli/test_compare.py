"""Two commits side by side, from git, dvc.lock and DVC's cache alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flows.cli import compare, summary

ROOT = Path(__file__).parents[3]
STAGES = """\
stages:
  sft:
    cmd: python sft.py
    deps: [sft.py]
    params: [sft]
    outs: [reports/promote.json]
    metrics: [reports/metrics/sft.json]
    plots: [{reports/sft.csv: {x: step, y: loss}}]
"""
SFT = """
import json
from pathlib import Path
from ruamel.yaml import YAML
rate = YAML(typ="safe").load(Path("params.yaml").read_text())["sft"]["rate"]
Path("reports/metrics").mkdir(parents=True, exist_ok=True)
Path("reports/metrics/sft.json").write_text(json.dumps({"loss": rate / 2, "steps": 6}))
Path("reports/sft.csv").write_text("step,loss\\n" + "".join(f"{step},{rate * 9 / step}\\n" for step in range(1, 30)))
said = {"candidate": "sft", "decision": "promoted" if rate < 3 else "refused", "reason": f"rate | {rate}"}
Path("reports/promote.json").write_text(json.dumps(said))
"""


def at(folder: Path, *command: str) -> str:
    who = {name: "t" for name in ("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL")}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    variables = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), "DVC_NO_ANALYTICS": "1"} | who
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a commit, and another state in the working folder."""
    monkeypatch.chdir(tmp_path)
    for name, text in (("dvc.yaml", STAGES), ("sft.py", SFT), (".gitignore", "/reports/\n")):
        Path(name).write_text(text)
    at(tmp_path, "git", "init", "-q", "-b", "main", ".")
    at(tmp_path, "dvc", "init", "-q")
    for rate in (2, 4):
        Path("params.yaml").write_text(f"sft:\n  rate: {rate}\n")
        at(tmp_path, "dvc", "repro", "-q")
        if rate == 2:
            at(tmp_path, "git", "add", "-A")
            at(tmp_path, "git", "commit", "-qm", "two")
    return tmp_path


def test_figures_verdicts_params_and_curves_of_two_commits(two: Path) -> None:
    page = at(two, "python", "-m", "flows.cli.compare", "main")
    assert page.startswith("# working folder against ")
    assert "| sft | promoted | rate \\| 2 |" in page and "| sft | refused | rate \\| 4 |" in page
    assert "| sft | loss | 1 | 2 | +1 |" in page and "1 figures are the same." in page
    assert "| sft.rate | 2 | 4 |" in page
    assert "| reports/sft.csv: loss | 18 █" in page and "▁ 1.241 |" in page
    diff = json.loads(at(two, "dvc", "metrics", "diff", "--json"))
    assert diff["reports/metrics/sft.json"]["loss"] == {"new": 2.0, "old": 1.0, "diff": 1.0} | {
        key: diff["reports/metrics/sft.json"]["loss"][key] for key in ("new", "old", "diff")
    }
    at(two, "git", "add", "-A")
    at(two, "git", "commit", "-qm", "four")
    assert "All 2 figures are the same." in at(two, "python", "-m", "flows.cli.compare", "HEAD")


def test_a_commit_that_is_not_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        compare.main("mian", "", None)
    assert ended.value.code == 4


def test_a_curve_is_a_line_of_bars() -> None:
    assert summary.sparkline([8.0, 4.0, 2.0, 1.0], width=4) == "8 █▄▂▁ 1"
    assert summary.sparkline([1.0]) == "" and len(summary.sparkline([float(one) for one in range(900)])) == 40 + 6
    assert summary.numbers([{"loss": "1"}, {"loss": ""}, {"loss": "nan"}], "loss") == [1.0]
