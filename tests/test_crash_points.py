"""One life that dies at every named point of checkpoint, kept epoch and outs, one after the other:
the same bits.

The shortest trainer in CI, all of them with `make faults FULL=1`, there also at the second time a
point is passed.
"""

import os
import re
import signal
from pathlib import Path

import pytest

from stages.common.runtime import kill_points
from tests.support import lives, preloaded
from tests.support.counts import FULL, told

ROOT = Path(__file__).parent.parent
SEALED = ("before_manifest", "after_manifest", "before_rename", "after_rename")
POINTS = (
    *(f"checkpoint:{point}" for point in ("after_weights", "after_optimizer", *SEALED, "after_rotate")),
    *(f"epoch:{point}" for point in SEALED),
    *("publish:model", "publish:curve"),
)
NOT_PASSED = {"ppo": {"publish:curve"}}  # its curve is another, written after the same point of the model
STAGES = lives.TRAINERS if FULL else ("sft",)

pytestmark = [pytest.mark.slow, pytest.mark.fault, pytest.mark.timeout(3600)]


def test_every_point_of_the_code_is_in_the_list() -> None:
    found = set()
    for package in ("core", "training", "ppo"):
        for file in (ROOT / "stages/common" / package).glob("*.py"):
            found |= set(re.findall(r"kill_points\.point\(f?\"([\w{}:]+)\"", file.read_text(encoding="utf-8")))
    expanded = {point.replace("{kind}", kind) for point in found for kind in ("checkpoint", "epoch")}
    assert expanded == set(POINTS)


@pytest.mark.parametrize("turn", ("", "@2") if FULL else ("",))
@pytest.mark.parametrize("stage", STAGES)
def test_a_life_that_dies_at_every_point_ends_with_the_same_bits(
    tmp_path: Path, stage: str, turn: str, capsys: pytest.CaptureFixture[str]
) -> None:
    work = lives.write_world(tmp_path)
    expected = lives.whole(work, stage)
    points = [point for point in POINTS if point not in NOT_PASSED.get(stage, ())]
    points = [f"{point}{turn}" for point in points if not turn or point.startswith("checkpoint")]
    with told(capsys, f"{stage}, SIGKILL at named points{turn}") as counts:
        for point in points:
            code = preloaded.ended(lives.start(work, stage, **{kill_points.VARIABLE: point}))
            assert code == -signal.SIGKILL, f"nobody passes {point}\n{lives.said(work)}"
        assert preloaded.ended(lives.start(work, stage)) == 0, lives.said(work)
        counts["points"] = len(points)
    assert lives.bits(work, stage) == expected


def test_a_point_may_name_the_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[int] = []
    monkeypatch.setattr(os, "kill", lambda _, number: killed.append(number))
    monkeypatch.setattr(kill_points, "_passed", {})
    monkeypatch.setenv(kill_points.VARIABLE, "a:b@3")
    for _ in range(2):
        kill_points.point("a:b")
        kill_points.point("a:c")
    assert killed == []
    kill_points.point("a:b")
    assert killed == [signal.SIGKILL]
