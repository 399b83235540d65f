import json
import os
import sys
import time
from pathlib import Path

import pytest

from flows import repro

OWN = "lathe: sft failed (5): out of memory; then continue with: dvc repro sft  (log: logs/sft.log)"
DVCS = "ERROR: failed to reproduce 'sft': failed to run: python -m stages.sft, exited with 137"


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("said", "line", "code"),
    [
        (f"step 3\n{OWN}\n{DVCS}\n", OWN, 137),
        (f"step 3\n{DVCS}\n", f"lathe: sft failed: {DVCS}", 137),
        ("Segmentation fault\n", "lathe: sft failed: Segmentation fault", 1),
        ("", "lathe: sft failed: without a word", 1),
        (
            "ERROR: failed to reproduce 'sft': '/p/raw' is busy, it is being blocked by:\n  (PID 7): dvc repro upper\n",
            "lathe: sft failed (75): another DVC works on what this stage needs: failed to reproduce 'sft': '/p/raw' "
            "is busy, it is being blocked by; then continue with: dvc repro sft",
            75,
        ),
    ],
)
def test_a_failure_is_the_stages_line_or_dvcs_or_the_last(said: str, line: str, code: int) -> None:
    failed = repro.failure("sft", said, 1, time.time())
    assert (str(failed), failed.code) == (line, code)


def test_the_code_a_stage_wrote_down_counts_when_it_is_of_this_attempt() -> None:
    facts = Path("logs/sft.json")
    facts.parent.mkdir()
    facts.write_text(json.dumps({"exit_code": 75}))
    launcher = DVCS.replace("137", "1")
    assert repro.failure("sft", launcher, 255, time.time() - 10).code == 75
    os.utime(facts, (0, 0))
    assert repro.failure("sft", launcher, 255, time.time() - 10).code == 1


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ("Stage 'sft' didn't change, skipping\nData and pipelines are up to date.\n", "cached"),
        ("Stage 'sft' is cached - skipping run, checking out outputs\n", "restored"),
        ("Running stage 'sft':\n> python -m stages.sft\n", "ran"),
    ],
)
def test_the_state_is_what_dvc_says(said: str, state: str) -> None:
    assert repro.state(said) == state


def test_a_stage_is_told_the_flow_it_belongs_to_and_finds_this_interpreter_first() -> None:
    told = repro.stage_environment("flow-1")
    assert told["LATHE_FLOW_RUN_ID"] == "flow-1"
    assert told["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)


def test_of_progress_lines_one_of_a_kind_is_told_and_dvcs_hints_never() -> None:
    told: list[str] = []
    follow = repro.thinned(told.append)
    steps = [f"sft: step {step}/900, loss {9 / step:.4f}, 4,324 tokens/s, ETA 0:0{step}" for step in range(1, 9)]
    for line in [*steps, "sft: epoch 1 kept", "Use `dvc push` to send", "rank: 50 rows, 3 %, 9 rows/s, 5 s left"]:
        follow(line)
    assert told == [steps[0], "sft: epoch 1 kept", "rank: 50 rows, 3 %, 9 rows/s, 5 s left"]
