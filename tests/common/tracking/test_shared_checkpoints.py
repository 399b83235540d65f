"""Checkpoints that travel by DVC's remote: whole, newest first, and never in a training's way."""

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stages.common.core import checkpoints
from stages.common.runtime import process
from stages.common.runtime.errors import ParamsError
from stages.common.tracking import checkpoint_remote, shared_checkpoints
from tests.support import object_storage

BUCKET, TRAINING = "lathe", Path("checkpoints/sft/0123456789abcdef")
PARAMS = "run:\n  name: test\n  checkpoints: remote\n"


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in object_storage.KEYS.items():
            patch.setenv(name, value)
        with object_storage.serving(BUCKET) as address:
            yield address


@pytest.fixture
def remote(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    """What DVC's configuration says of the default remote: S3, or a folder."""
    head = ["remote = store", "['remote \"store\"']"]
    if request.param == "s3":
        return [*head, f"url = s3://{BUCKET}/a b", f"endpointurl = {request.getfixturevalue('s3')}"]
    return [*head, f"url = {tmp_path}/文 store"]


FOLDER = pytest.mark.parametrize("remote", ["folder"], indirect=True)
BOTH = pytest.mark.parametrize("remote", ["s3", "folder"], indirect=True)


def clone(folder: Path, remote: list[str]) -> Path:
    """Make a checkout with a remote, and be in it."""
    (folder / ".dvc").mkdir(parents=True)
    (folder / ".dvc/config").write_text("\n".join(["[core]", "no_scm = true", *remote]))
    (folder / "params.yaml").write_text(PARAMS)
    return folder


def seal(step: int, weights: str) -> Path:
    """Write a training as it stands at a step: a checkpoint, what it keeps, and what need not
    travel.
    """
    for place, text in ((f"checkpoint-{step}", weights), (f"kept/epoch-{step}", f"model {step}")):
        aside = TRAINING / f".{step}-writing"
        (aside / "deep").mkdir(parents=True)
        (aside / "deep/weights").write_text(text)
        (aside / "config").write_text("the same in all")
        (TRAINING / place).parent.mkdir(exist_ok=True)
        checkpoints.seal(aside, TRAINING / place)
    for name in ("lock", "reference-train.arrow", "watched.json"):
        (TRAINING / name).write_text(name)
    return TRAINING / f"checkpoint-{step}"


def sent(sender: shared_checkpoints.Sender) -> None:
    deadline = time.monotonic() + 60
    while not sender._is_free():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def files(folder: Path) -> dict[str, str]:
    found = (path for path in (folder / TRAINING).rglob("*") if path.is_file() and not path.name.startswith("."))
    return {str(path.relative_to(folder / TRAINING)): path.read_text() for path in found}


def wanted(folder: Path, *steps: int) -> dict[str, str]:
    left_out = ("lock", "reference-train.arrow")
    return {
        name: text
        for name, text in files(folder).items()
        if name not in left_out and (not name.startswith("checkpoint-") or name.startswith(f"checkpoint-{steps[0]}/"))
    }


@BOTH
def test_another_clone_has_the_newest_with_what_a_resume_needs(
    remote: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one, other = clone(tmp_path / "one", remote), clone(tmp_path / "other", remote)
    monkeypatch.chdir(one)
    sender = shared_checkpoints.sender(TRAINING)
    assert sender is not None
    for step in (5, 10, 15, 20):
        sender.sealed(seal(step, f"weights {step}"))
        if step != 10:  # 15 is sealed while 10 is on its way
            sent(sender)
    assert not list(TRAINING.glob(".sending-*"))
    monkeypatch.chdir(other)
    caplog.set_level(logging.INFO, "lathe")
    shared_checkpoints.fetch(TRAINING)
    assert files(other) == wanted(one, 20) and "watched.json" in files(other)
    assert checkpoints.newest(TRAINING) == TRAINING / "checkpoint-20"
    assert not checkpoints.fault(TRAINING / "kept/epoch-5")
    assert "checkpoint of step 20 came from the remote 'store'" in caplog.messages
    before = (TRAINING / "checkpoint-20").stat().st_mtime_ns
    shared_checkpoints.fetch(TRAINING)
    assert (TRAINING / "checkpoint-20").stat().st_mtime_ns == before, "what is here is not fetched again"
    there = checkpoint_remote.Remote(TRAINING)
    assert there.steps() == [10, 20], "of the lists the newest two stay"
    lists = [checkpoint_remote._list(there, step, TRAINING / ".aside") for step in (10, 20)]
    named = {sha for one in lists for sha in one.values()}
    assert {name[6:] for name in there.names if name.startswith("files/")} == named


@FOLDER
def test_what_was_damaged_there_is_named_and_the_one_before_is_taken(
    remote: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = clone(tmp_path / "one", remote), clone(tmp_path / "other", remote)
    monkeypatch.chdir(one)
    for step in (5, 10):
        newest = seal(step, f"weights {step}")
        links = TRAINING / f"{checkpoint_remote.SENDING}{step}"
        for name in shared_checkpoints._needed(TRAINING, newest):
            (links / name).parent.mkdir(parents=True, exist_ok=True)
            os.link(TRAINING / name, links / name)
        checkpoint_remote.send(links)
    (place,) = Path(tmp_path / "文 store/checkpoints").rglob("10.json")
    listed = json.loads(place.read_text())
    (place.parent / "files" / listed["checkpoint-10/deep/weights"]).write_text("weights 11")
    monkeypatch.chdir(other)
    checkpoint_remote.take(TRAINING)
    said = capsys.readouterr().out
    assert "checkpoint 10 of the remote 'store' is not usable: checkpoint-10/deep/weights: content differs" in said
    assert files(other)["checkpoint-5/deep/weights"] == "weights 5" and "checkpoint-10/config" not in files(other)
    place.write_text(json.dumps({"../../stolen": listed["watched.json"]}))
    place.rename(place.with_name("11.json"))
    checkpoint_remote.take(TRAINING)
    assert "../../stolen: no name of a file of a training" in capsys.readouterr().out
    assert not (other / "checkpoints/sft/stolen").exists() and not (other / "checkpoints/stolen").exists()


@FOLDER
def test_a_remote_that_is_away_is_a_warning_and_none_at_all_an_error(
    remote: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(clone(tmp_path / "one", remote))
    Path(".dvc/config").write_text("[core]\nno_scm = true\nremote = store\n['remote \"store\"']\nurl = gone://x/y\n")
    shared_checkpoints.fetch(TRAINING)
    sender = shared_checkpoints.Sender(TRAINING)
    sender.sealed(seal(5, "weights"))
    sent(sender)
    first, second = caplog.messages
    assert "no checkpoint from the remote, going on with what is here" in first
    assert "checkpoint not sent to the remote, the next one will be" in second
    assert not checkpoints.fault(TRAINING / "checkpoint-5")
    monkeypatch.chdir(clone(tmp_path / "other", []))
    with pytest.raises(ParamsError, match="DVC has no default remote"):
        shared_checkpoints.fetch(TRAINING)
    Path("params.yaml").write_text("run:\n  checkpoints: bucket\n")
    with pytest.raises(ParamsError, match=r"'run\.checkpoints' is 'bucket', neither local nor remote"):
        shared_checkpoints.fetch(TRAINING)
    Path("params.yaml").write_text("run:\n  name: test\n")
    shared_checkpoints.fetch(TRAINING)
    assert shared_checkpoints.sender(TRAINING) is None


@FOLDER
def test_who_is_asked_to_stop_waits_for_the_last_and_no_longer_than_the_grace(
    remote: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(clone(tmp_path / "one", remote))
    monkeypatch.setattr(process, "stop_requested", lambda: True)
    sender = shared_checkpoints.Sender(TRAINING)
    for step in (5, 10):  # the second is sealed while the first is on its way
        sender.sealed(seal(step, "weights"))
    sender.finish()
    assert checkpoint_remote.Remote(TRAINING).steps() == [5, 10] and not caplog.messages
    monkeypatch.setattr(process, "grace_seconds", lambda: 0.1)
    stuck = [sys.executable, "-c", "import time; time.sleep(60)"]
    monkeypatch.setattr(shared_checkpoints, "_command", lambda *_: stuck)
    sender.sealed(seal(15, "weights"))
    sender.finish()
    assert caplog.messages == ["the last checkpoint is not in the remote yet; it stays here"]
    assert sender.child is not None
    sender.child.kill()
    sender.child.wait()


@FOLDER
def test_of_two_processes_one_fetches_and_the_other_waits_for_it(
    remote: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(clone(tmp_path / "one", remote))
    for name, value in (("RANK", "1"), ("LOCAL_RANK", "1"), ("WORLD_SIZE", "2"), ("LOCAL_WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    other = threading.Thread(target=shared_checkpoints.fetch, args=(TRAINING,))
    other.start()
    time.sleep(0.2)
    assert other.is_alive()
    environment = os.environ | {"RANK": "0", "LOCAL_RANK": "0"}
    # The launcher is the parent of both: here that of this process stands in for it.
    starts = f"import os, pathlib; os.getppid = lambda: {os.getppid()}; from {shared_checkpoints.__package__} "
    starts += f"import shared_checkpoints; shared_checkpoints.fetch(pathlib.Path('{TRAINING}'))"
    subprocess.run([sys.executable, "-c", starts], check=True, env=environment, timeout=120)
    other.join(30)
    assert not other.is_alive()
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(ParamsError, match="several machines"):
        shared_checkpoints.fetch(TRAINING)
