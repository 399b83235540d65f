"""A checkout: one flow at a time works in it, and a remote carries what was computed elsewhere."""

import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from stages.common.runtime import locks
from tests.flows.conftest import environment
from tests.flows.test_train import Flow, last_artifact


def test_until_runs_a_stage_and_its_ancestors_once_the_flow_before_it_has_ended(repository: Path, flow: Flow) -> None:
    """And a proxy that is dead, as people have them in their environment, does not matter."""
    proxy = dict.fromkeys(["HTTP_PROXY", "http_proxy", "ALL_PROXY"], "http://127.0.0.1:9")
    lock = repository / ".lathe/locks/flow.lock"
    with ThreadPoolExecutor() as pool:
        with locks.exclusive(lock):
            later = pool.submit(lambda: flow("--until", "count@raw", "--set", "run.gpus=0", **proxy))
            deadline = time.monotonic() + 120
            while not list(repository.glob(".lathe/flows/*.lock")):
                assert time.monotonic() < deadline and not later.done(), later.result().stderr
                time.sleep(0.2)
            assert not (repository / "raw.txt").exists()
        done = later.result()
    assert done.returncode == 0, done.stderr
    assert f"another flow works in this checkout (process {os.getpid()}); waiting" in done.stderr
    assert (repository / "count_raw.txt").exists() and not (repository / "upper.txt").exists()
    assert list(repository.glob(".lathe/flows/*.lock")) == []


def test_a_value_that_no_stage_takes_is_refused_and_the_file_stays(repository: Path, flow: Flow) -> None:
    before = (repository / "params.yaml").read_bytes()
    done = flow("--until", "count@raw", "--set", "run.gpus=-1")
    assert done.returncode == 3 and "'run.gpus': Input should be greater than or equal to 0 (got -1)" in done.stderr
    assert (repository / "params.yaml").read_bytes() == before and not (repository / "raw.txt").exists()


def test_a_clone_that_shares_the_remote_alone_goes_on(
    repository: Path, flow: Flow, prefect_url: str, tmp_path: Path
) -> None:
    remote = [sys.executable, "-m", "dvc", "remote", "add", "-q", "-d", "store", str(tmp_path / "store")]
    subprocess.run(remote, cwd=repository, check=True, env=environment(prefect_url))
    bare = shutil.copytree(repository, tmp_path / "bare")
    first = flow("--until", "count@upper")
    assert first.returncode == 0 and "not pushed" not in first.stderr, first.stderr
    command = [sys.executable, "-m", "flows.train", "--until", "upper"]

    def there() -> dict[str, str]:
        done = subprocess.run(command, cwd=bare, env=environment(prefect_url), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return {name: state for name, state in last_artifact(prefect_url, "summary").items() if name != "stage"}

    assert there() == {"raw": "ran", "upper": "restored"}, "DVC keeps no run of a stage without deps"
    assert (bare / "upper.txt").read_text() == "A\nB\n" and not (bare / "logs/upper.json").exists()
    shutil.copy(repository / "dvc.lock", bare)
    for name in ("raw.txt", "upper.txt", ".dvc/cache"):
        shutil.rmtree(bare / name) if (bare / name).is_dir() else (bare / name).unlink()
    assert there() == {"raw": "restored", "upper": "restored"}
