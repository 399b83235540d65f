"""A copy of this project in a folder of its own, and the commands a user would run there."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]


def lay(folder: Path, profile: str, changes: dict[str, Any]) -> Path:
    """Copy what git tracks or would track, take a profile and set keys (`sft.training.max_steps`)
    to fit a test.
    """
    command = ["git", "ls-files", "-co", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    for name in listed:
        if not name.startswith("tests/") and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    yaml = YAML()
    params = yaml.load((folder / profile).read_text(encoding="utf-8"))
    for key, value in changes.items():
        *parents, last = key.split(".")
        section = params
        for parent in parents:
            section = section[parent]
        section[last] = value
    with (folder / "params.yaml").open("w", encoding="utf-8") as handle:
        yaml.dump(params, handle)
    for line in ("git init -q", "git add -A", "git -c user.name=t -c user.email=t@example.org commit -qm start"):
        subprocess.run(line.split(), cwd=folder, check=True)
    return folder


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the environment in the project, as a user's shell would."""
    here = Path(sys.executable).parent
    environment = os.environ | {
        "PATH": f"{here}:{os.environ['PATH']}",
        "PYTHONPATH": str(folder),
        "DVC_NO_ANALYTICS": "1",
    }
    environment.pop("DVC_STAGE", None)
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def report(folder: Path, name: str) -> dict[str, Any]:
    """Return what the file `name` below the project's reports says."""
    loaded: dict[str, Any] = json.loads((folder / "reports" / name).read_text(encoding="utf-8"))
    return loaded


def seconds(folder: Path, *command: str) -> tuple[float, subprocess.CompletedProcess[str]]:
    """Run a command and return how long it took, with its result."""
    start = time.monotonic()
    result = run(folder, *command)
    return time.monotonic() - start, result
