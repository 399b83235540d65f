"""docs/tutorial.md followed word for word, from clone to rollback, in a world below `quick`."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support import project
from tests.support.counts import FULL
from tests.support.small_world import SMALL

TEXT = (project.ROOT / "docs/tutorial.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```sh\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
PORT = 7860

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not FULL, reason="two runs of the whole pipeline: make tutorial"),
    pytest.mark.skipif(not (shutil.which("make") and shutil.which("curl")), reason="make or curl is missing"),
]


def taken() -> bool:
    """Whether somebody else serves at the port that the tutorial names."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", PORT)) == 0


def borrow_environment(venv: Path) -> None:
    """Let the tests' own environment be that of a checkout, so that make installs none."""
    venv.mkdir()
    for name in ("bin", "lib", "include"):
        (venv / name).symlink_to(Path(sys.prefix, name))
    shutil.copy(Path(sys.prefix, "pyvenv.cfg"), venv)
    (venv / ".installed-dev").touch()


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Return a checkout with the tests' environment and a smaller profile `quick`."""
    folder = project.lay(tmp_path / "clone", "params.yaml", SMALL)
    shutil.copy(folder / "params.yaml", folder / "infra/profiles/quick.yaml")
    borrow_environment(folder / ".venv")
    (folder / ".git/info/exclude").write_text("serve.log\n")
    for line in ("config user.name t", "config user.email t@example.org", "commit -qam smaller"):
        subprocess.run(["git", *line.split()], cwd=folder, check=True)
    return folder


@pytest.fixture
def shells() -> Iterator[list[int]]:
    """Collects the process groups of the blocks, and ends what still runs in them."""
    groups: list[int] = []
    yield groups
    for group in groups:
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGTERM)


def follow(block: str, folder: Path, groups: list[int]) -> str:
    """Run a block as a reader's shell would, and return what it printed."""
    own = ("DVC_", "EXTRAS", "VENV", "PYTHONPATH", "MAKE", "MFLAGS")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    command = ["bash", "-euc", block]
    with (folder.parent / "said").open("w+") as said:  # no pipe: a server would hold it open
        shell = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
        )
        groups.append(shell.pid)
        code = shell.wait()
        said.seek(0)
        text = said.read()
    assert code == 0, f"{block}\n{text}"
    return text


@pytest.mark.skipif(taken(), reason=f"port {PORT} is taken")
def test_every_command_works_in_its_order(clone: Path, shells: list[int]) -> None:
    said = {block: follow(block, clone, shells) for block in BLOCKS}
    found = {command: text for block, text in said.items() for command in block.splitlines()}
    answer = json.loads(next(text for block, text in said.items() if "chat/completions" in block))
    assert answer["choices"][0]["message"]["role"] == "assistant"
    assert "ingest" in found[".venv/bin/dvc status"]
    assert "+" in found["git diff params.yaml"] and "num_train_epochs: 8" in found["git diff params.yaml"]
    again = next(text for block, text in said.items() if block == "make demo\n")
    assert "Stage 'demo' didn't change, skipping" in again and "Running stage 'pretrain'" in again
    assert "On Tuesday at seven." in found[".venv/bin/lathe trace mine/club.jsonl:1"]
    moves = [json.loads(line) for line in (clone / ".lathe/promotions.jsonl").read_text().splitlines()]
    assert (moves[-1]["action"], moves[-1]["from"], moves[-1]["to"]) == ("rolled back", "2", "1")
