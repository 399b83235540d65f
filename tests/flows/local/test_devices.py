import threading
import time
from pathlib import Path

import pytest

from flows.local import devices
from stages.common.runtime.errors import TryAgainError


@pytest.fixture(autouse=True)
def own_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(devices, "LOOK_SECONDS", 0.01)


def test_two_holders_never_share_a_device() -> None:
    cancel = threading.Event()
    with devices.held(1, ["3", "5", "7"], cancel) as first, devices.held(2, ["3", "5", "7"], cancel) as second:
        assert (first, second) == (["3"], ["5", "7"])
    with devices.held(1, ["3"], cancel) as again:
        assert again == ["3"]


def test_a_holder_waits_for_enough_devices_and_takes_them_when_they_are_free() -> None:
    cancel, got = threading.Event(), []

    def wait() -> None:
        with devices.held(2, ["0", "1"], cancel) as taken:
            got.extend(taken)

    waiting = threading.Thread(target=wait)
    with devices.held(1, ["0", "1"], cancel):
        waiting.start()
        time.sleep(0.1)
        assert got == []
    waiting.join(timeout=5)
    assert got == ["0", "1"]


def test_cancelling_ends_the_wait() -> None:
    cancel = threading.Event()
    with devices.held(1, ["0"], cancel):
        cancel.set()
        with pytest.raises(TryAgainError, match="cancelled"), devices.held(1, ["0"], cancel):
            pass


def test_no_device_is_asked_for_without_need() -> None:
    with devices.held(0, [], threading.Event()) as taken:
        assert taken == []


def test_visible_devices_are_those_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    assert devices.visible() == ["4", "6"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert devices.visible() == []
