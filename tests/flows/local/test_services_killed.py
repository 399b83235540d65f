"""`make up` from cold to all healthy; each service that is killed comes back alone, while the
others answer.
"""

import os
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from tests.flows.conftest import ROOT, free_port
from tests.flows.local.test_services import checkout  # noqa: F401
from tests.flows.test_train import still_running
from tests.support import champion, promotion
from tests.support.counts import FULL
from tests.support.machines import Machine, until

NAMES = ("mlflow", "prefect", "chat")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.fault,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not FULL, reason="every service twice: make faults FULL=1"),
]


@pytest.fixture
def on(checkout: Path) -> Machine:  # noqa: F811
    """A checkout with a champion to chat with."""
    ours = (checkout / "params.yaml").read_text()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(checkout)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        champion.write_project(checkout)
        assert promotion.run()["champion_sha256"]
    (checkout / "params.yaml").write_text(ours.replace("  name: lathe ", "  name: world ", 1))
    ports = {name: str(free_port()) for name in ("MLFLOW_PORT", "CHAT_PORT")}
    return Machine(checkout, f"http://127.0.0.1:{free_port()}/api", {**ports, "PYTHONPATH": str(ROOT)})


def is_new(on: Machine, name: str, before: int) -> bool:
    return on.service(name) != before


def test_from_cold_to_all_healthy_and_each_that_is_killed_comes_back_alone(
    on: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    told = []
    try:
        began = time.monotonic()
        on.call("lathe", "up")
        assert on.is_well(*NAMES), on.logs()
        told.append(f"cold to all healthy: {time.monotonic() - began:.0f} s")
        for victim in (*NAMES, "worker"):
            before = {name: on.service(name) for name in (*NAMES, "worker")}
            others = {name: pid for name, pid in before.items() if name != victim}
            killed = time.monotonic()
            os.kill(on.service(victim), signal.SIGKILL)
            assert on.is_well(*(name for name in NAMES if name != victim)), on.logs()
            until(partial(is_new, on, victim, before[victim]), 60, on.logs)
            again = time.monotonic() - killed
            until(lambda: on.is_well(*NAMES), 300, on.logs)
            assert {name: on.service(name) for name in others} == others, on.logs()
            told.append(
                f"{victim}: started again after {again:.1f} s, all well after {time.monotonic() - killed:.0f} s"
            )
        on.call("lathe", "down")
        assert still_running(on.folder) == []
        began = time.monotonic()
        on.call("lathe", "up")
        assert on.is_well(*NAMES)
        told.append(f"down and up again: {time.monotonic() - began:.0f} s")
    finally:
        on.call("lathe", "down")
        with capsys.disabled():
            print("\n" + "\n".join(told), flush=True)
    assert still_running(on.folder) == []
