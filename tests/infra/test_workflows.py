"""The workflow files for pull requests: what GitHub and GitLab say of their form, and their own
commands in a clone as a runner has it.
"""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.flows.cli.test_compare import SFT, STAGES, at

ROOT = Path(__file__).parents[2]
GITHUB, GITLAB = ROOT / ".github/workflows/compare.yml", ROOT / ".gitlab-ci.yml"
SCHEMAS = {GITHUB: "vendor.github-workflows", GITLAB: "vendor.gitlab-ci"}


def steps() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load(GITHUB.read_text())["jobs"]["compare"]["steps"]
    return found


def scripts() -> dict[str, list[str]]:
    """The commands of each, as a shell gets them."""
    gitlab: list[str] = yaml.safe_load(GITLAB.read_text())["compare"]["script"]
    return {"github": [step["run"] for step in steps() if "run" in step], "gitlab": gitlab}


@pytest.mark.parametrize("file", SCHEMAS, ids=lambda file: file.name)
def test_the_form_is_what_its_reader_wants(file: Path, tmp_path: Path) -> None:
    def check(path: Path) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", SCHEMAS[file], str(path)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert check(file).returncode == 0, check(file).stdout
    wrong = tmp_path / file.name
    wrong.write_text(file.read_text().replace("    runs-on:", "    runs_on:").replace("  script:", "  scirpt:"))
    assert check(wrong).returncode == 1


def test_a_fork_gets_no_right_to_comment_and_nothing_of_a_branch_is_pasted_into_a_shell() -> None:
    workflow = yaml.safe_load(GITHUB.read_text())
    assert workflow["permissions"] == {"contents": "read", "pull-requests": "write"}
    assert "pull_request_target" not in GITHUB.read_text()
    assert "head.repo.full_name == github.repository" in steps()[-1]["if"]
    assert not any("${{" in script for script in scripts()["github"])
    uses = [step["uses"] for step in steps() if "uses" in step]
    assert all(re.fullmatch(r"actions/[\w-]+@v\d+", one) for one in uses)


def test_its_commands_make_the_page_in_a_runners_clone(runner: Path) -> None:
    parts = []
    for kind, branch in (
        ("github", '"origin/$GITHUB_BASE_REF"'),
        ("gitlab", "origin/$CI_MERGE_REQUEST_TARGET_BRANCH_NAME"),
    ):
        for script in scripts()[kind]:
            subprocess.run(["bash", "-n"], input=script, text=True, check=True)
        lines = "\n".join(scripts()[kind]).replace(branch, "$BASE").splitlines()
        parts.append([line for line in lines if line.startswith((".venv/bin/dvc", "make compare"))])
    assert parts[0] == parts[1] and len(parts[0]) == 3
    program = Path(sys.executable).parent
    (runner / ".venv").symlink_to(program.parent)
    (runner / "Makefile").symlink_to(ROOT / "Makefile")
    whole = "\n".join(parts[0]).replace("make compare", "make -s -o env compare")  # the environment is there
    names = {"BASE": "origin/main", "PYTHONPATH": str(ROOT), "PATH": f"{program}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-ec", whole], cwd=runner, env=os.environ | names, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    text = (runner / "compare.md").read_text()
    assert "| sft | promoted | rate \\| 2 |" in text and "| sft | refused | rate \\| 4 |" in text
    assert "| sft | loss | 1 | 2 | +1 |" in text and "reports/sft.csv: loss" in text
    assert "Not in the cache here" not in text


@pytest.fixture
def runner(tmp_path: Path) -> Path:
    """A clone of a branch with another param than main, without a cache; what both have computed is
    on a remote.
    """
    here = tmp_path / "here"
    here.mkdir()
    for name, text in (("dvc.yaml", STAGES), ("sft.py", SFT), (".gitignore", "/reports/\n")):
        (here / name).write_text(text)
    at(here, "git", "init", "-q", "-b", "main", ".")
    at(here, "dvc", "init", "-q")
    at(here, "dvc", "remote", "add", "-q", "-d", "store", str(tmp_path / "store"))
    for rate, branch in ((2, "main"), (4, "faster")):
        at(here, "git", "checkout", "-q", "-B", branch)
        (here / "params.yaml").write_text(f"sft:\n  rate: {rate}\n")
        at(here, "dvc", "repro", "-q")
        at(here, "dvc", "push", "-q")
        at(here, "git", "add", "-A")
        at(here, "git", "commit", "-qm", branch)
    at(tmp_path, "git", "clone", "-q", "--branch", "faster", str(here), "clone")
    return tmp_path / "clone"
