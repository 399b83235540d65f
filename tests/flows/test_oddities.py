"""What people's machines are like, one oddity beside the other in one flow; each alone with
`make faults FULL=1`. docs/operate.md lists them.
"""

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from flows import checkout
from tests.flows.conftest import UPPER, environment
from tests.flows.test_train import run_names
from tests.support.counts import FULL

NOBODY = 65534
UNWRITABLE = "/proc"
"""Nobody, and not root either, can write there."""


@dataclass
class World:
    """A checkout, and how a flow is started in it."""

    folder: Path
    place: Path
    variables: dict[str, str] = field(default_factory=dict)
    umask: int = 0o022

    def git(self, *arguments: str) -> None:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "protocol.file.allow=always"]
        subprocess.run(["git", *identity, *arguments], cwd=self.folder, check=True, capture_output=True)


def path_with_spaces_and_chinese(world: World) -> None:
    target = world.place / "my files" / "中文 文件夹"
    target.parent.mkdir()
    world.folder = world.folder.rename(target)


def lang_c(world: World) -> None:
    world.variables |= {"LANG": "C", "LC_ALL": "C"}


def dead_proxy(world: World) -> None:
    world.variables |= dict.fromkeys(["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"], "http://127.0.0.1:9")


def home_without_write_access(world: World) -> None:
    world.variables |= {"HOME": UNWRITABLE, "XDG_CACHE_HOME": "", "XDG_CONFIG_HOME": ""}


def umask_077(world: World) -> None:
    world.umask = 0o077


def shallow_clone(world: World) -> None:
    target = world.place / "shallow"
    world.git("commit", "--quiet", "--allow-empty", "-m", "later")
    world.git("clone", "--quiet", "--depth", "1", f"file://{world.folder}", str(target))
    world.folder = target


def worktree(world: World) -> None:
    target = world.place / "tree"
    world.git("worktree", "add", "--quiet", "-b", "beside", str(target))
    world.folder = target


def detached_head(world: World) -> None:
    world.git("checkout", "--quiet", "--detach")


def stale_rwlock(world: World) -> None:
    """The number of the killed DVC is another process's by now: this one's, which began later."""
    holder = {"pid": os.getpid(), "cmd": "dvc repro --single-item raw"}
    file = world.folder / checkout.IN_USE
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps({"write": {str(world.folder / "raw.txt"): holder}, "read": {}}))
    os.utime(file, (0, 0))


def cache_on_another_file_system(world: World) -> None:
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == world.folder.stat().st_dev:
        pytest.skip("there is no other file system")
    cache = other / f"lathe-{os.getpid()}"
    world.variables["OTHER_CACHE"] = str(cache)
    (world.folder / ".dvc/config.local").write_text(f"[cache]\ndir = {cache}\n")


def another_time_zone(world: World) -> None:
    world.variables["TZ"] = "Asia/Kathmandu"


ODD: list[Callable[[World], None]] = [
    *(shallow_clone, worktree, detached_head, path_with_spaces_and_chinese, lang_c, dead_proxy),
    *(home_without_write_access, umask_077, stale_rwlock, cache_on_another_file_system, another_time_zone),
]
CHINESE = UPPER.replace('"2 lines"', '"2 lines, 两行"')


def committed(template: Path, place: Path) -> World:
    world = World(shutil.copytree(template, place / "repository"), place)
    (world.folder / "upper.py").write_text(CHINESE, encoding="utf-8")
    world.git("add", "--all")
    world.git("commit", "--quiet", "-m", "start")
    return world


def flow(world: World, url: str, python: str = sys.executable, **more: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [python, "-m", "flows.train"],
        cwd=world.folder,
        env=environment(url, **world.variables, **more),
        capture_output=True,
        encoding="utf-8",
        timeout=600,
        preexec_fn=lambda: os.umask(world.umask) and None,
    )


@pytest.mark.slow
@pytest.mark.fault
@pytest.mark.parametrize("odd", [ODD, *([one] for one in ODD if FULL)], ids=lambda some: some[0].__name__)
def test_a_flow_runs_all_the_same(
    odd: list[Callable[[World], None]], repository_template: Path, prefect_url: str, tmp_path: Path
) -> None:
    world = committed(repository_template, tmp_path)
    for one in odd:
        one(world)
    try:
        done = flow(world, prefect_url)
        assert done.returncode == 0, done.stderr
        assert "两行" in done.stdout and "Traceback" not in done.stderr
        assert (world.folder / "upper.txt").read_text() == "A\nB\n"
        again = flow(world, prefect_url)
        assert again.returncode == 0 and "upper  cached" in again.stdout, again.stdout + again.stderr
        world.git("status")
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=world.folder, capture_output=True, text=True).stdout
        assert run_names(prefect_url)[0] == f"everything at {head[:7]}"
        if umask_077 in odd:
            written = [path for path in (world.folder / "logs").rglob("*") if path.is_file()]
            assert written and not any(path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO) for path in written)
        if stale_rwlock in odd:
            assert "removed .dvc/tmp/rwlock: what it lists as at work has ended" in done.stderr
        if cache_on_another_file_system in odd:
            assert list(Path(world.variables["OTHER_CACHE"]).rglob("files/md5/*/*"))
    finally:
        if cache := world.variables.get("OTHER_CACHE"):
            shutil.rmtree(cache, ignore_errors=True)


def test_a_list_of_paths_in_use_stays_while_one_of_them_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    checkout.IN_USE.parent.mkdir(parents=True)
    told: list[str] = []
    alive, gone = {"pid": os.getpid(), "cmd": "dvc"}, {"pid": 2**22 + 1, "cmd": "dvc"}
    checkout.forget_the_dead(told.append)
    for text in (json.dumps({"write": {"a": gone}, "read": {"b": [gone, alive]}}), "{}", '{"write": {"a"'):
        checkout.IN_USE.write_text(text)
        checkout.forget_the_dead(told.append)
        assert checkout.IN_USE.read_text() == text and not told
    os.utime(checkout.IN_USE, (0, 0))  # torn, and nobody is writing it any more
    checkout.forget_the_dead(told.append)
    assert len(told) == 1 and not checkout.IN_USE.exists()
    checkout.IN_USE.write_text(json.dumps({"write": {"a": gone}}))
    checkout.forget_the_dead(told.append)
    assert len(told) == 2 and not checkout.IN_USE.exists()


def as_nobody() -> list[str]:
    """Return what a command begins with that another user runs: one who may read all there is,
    because the interpreter may be in a home of ours, and write nothing of it.
    """
    may_read = ["--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"]
    start = ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups", *may_read]
    if not shutil.which("setpriv") or subprocess.run([*start, "true"], capture_output=True, check=False).returncode:
        pytest.skip("nobody here may become another user (setpriv, as root)")
    return start


def test_a_second_user_has_a_flow_of_their_own(repository_template: Path, prefect_url: str, tmp_path: Path) -> None:
    """On the same machine and Prefect server, after the first one's."""
    command, world = [*as_nobody(), sys.executable, "-m", "flows.train"], committed(repository_template, tmp_path)
    refused = subprocess.run(
        command, cwd=world.folder, env=environment(prefect_url, HOME=str(tmp_path)), capture_output=True, text=True
    )
    assert refused.returncode == 3 and "Traceback" not in refused.stderr, refused.stderr
    assert "this checkout cannot be written: Permission denied; work in a clone of your own" in refused.stderr
    for path in [tmp_path, *tmp_path.rglob("*")]:
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    done = subprocess.run(
        command, cwd=world.folder, env=environment(prefect_url, HOME=str(tmp_path)), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (world.folder / "upper.txt").stat().st_uid == NOBODY


@pytest.mark.parametrize(("cron", "zone"), [("0 2 * * *", "Europe/Berlin"), ("30 2 * * *", "America/New_York")])
def test_a_nightly_schedule_runs_once_a_night_when_clocks_change(cron: str, zone: str) -> None:
    import anyio
    from prefect.server.schemas.schedules import CronSchedule

    for change in ("2027-03-12", "2027-03-26", "2027-10-29", "2027-11-05"):  # there and here, spring and autumn
        start = datetime.fromisoformat(change).replace(tzinfo=ZoneInfo(zone))
        found = anyio.run(CronSchedule(cron=cron, timezone=zone).get_dates, 4, start)
        days = [one.astimezone(ZoneInfo(zone)).date() for one in found]
        assert days == [start.date() + timedelta(days=number) for number in range(4)], found
