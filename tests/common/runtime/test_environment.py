"""What every process that we start finds in its environment."""

import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stages.common.runtime import environment

ROOT = Path(__file__).parents[3]


def test_loopback_goes_through_no_proxy_and_what_was_given_stays() -> None:
    found = environment.complete({"NO_PROXY": "intranet.example, localhost", "USER": "one"})
    assert found["NO_PROXY"] == "intranet.example,localhost,127.0.0.1,::1"
    assert found["no_proxy"] == "127.0.0.1,localhost,::1"
    assert environment.complete({"NO_PROXY": "*", "no_proxy": "*"})["NO_PROXY"] == "*"


def test_who_has_no_name_is_called_by_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)

    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert environment.complete({})["USER"] == str(os.getuid())


def test_a_stage_runs_under_a_number_that_no_user_has(tmp_path: Path) -> None:
    """As in a container that is started with --user."""
    other = ["unshare", "-U", "--map-user=12345", "--map-group=12345"]
    if not shutil.which("unshare") or subprocess.run([*other, "true"], capture_output=True).returncode:
        pytest.skip("user namespaces are not allowed here")
    (tmp_path / "stage.py").write_text(
        "import getpass\nfrom stages.common.runtime import process\n"
        "def main() -> None:\n    print(getpass.getuser())\nprocess.run('stage', main)\n"
    )
    tmp_path.chmod(0o777)
    variables = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": "/nonexistent"}
    done = subprocess.run(
        [*other, sys.executable, "stage.py"], cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout) == (0, "12345\n"), done.stderr


def test_in_an_experiments_copy_the_checkout_is_the_one_it_was_made_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "my project" / environment.EXPERIMENTS / "tmpab12"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    assert environment.checkout() == tmp_path / "my project"
    monkeypatch.chdir(tmp_path)
    assert environment.checkout() == Path()
