"""`make gpu-check`, as far as it can be seen without a GPU: what it counts, how it ends, what it
imports.
"""

import contextlib
import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from bench.gpu import sizes
from bench.gpu.__main__ import ROW, SECONDS, Check, put, row, shown
from flows.cli import wheelhouse
from stages.common.runtime.errors import ParamsError
from tests.support import gpu_page

ROOT = Path(__file__).parents[1]
IMAGE = ROOT / "infra/images/torch-cuda13.txt"


def test_the_operations_of_a_token_are_counted() -> None:
    weights = 494_032_768  # Qwen2.5-0.5B's, its tied head once
    assert sizes.flops(sizes.QWEN, weights, 2048) == 6 * weights + 6 * 24 * 896 * 2048
    assert sizes.mfu("NVIDIA H100 80GB HBM3", 494.5e12) == pytest.approx(0.5)
    assert sizes.mfu("CPU (x86_64)", 1e12) is None


def test_the_shape_is_that_of_the_model_and_its_steps_are_equally_long() -> None:
    from flows.plans import memory_plan

    shape = memory_plan.shapes()["Qwen/Qwen2.5-0.5B"]
    assert {key: shape[key] for key in sizes.QWEN} | {"max_position_embeddings": 8448} == sizes.QWEN
    for one in sizes.ON.values():
        assert all(one.step_tokens % tokens == 0 for tokens in one.lengths) and one.warm < one.steps


def test_all_parts_together_are_over_in_eight_minutes() -> None:
    """The tests come last: they get what is left, and at least two minutes."""
    assert list(SECONDS)[-1] == "tests"
    assert sum(SECONDS.values()) - SECONDS["tests"] <= 480 - 30


def test_a_part_that_outlasts_its_time_is_ended_and_what_it_said_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SECONDS, "decode", 0.4)
    check = Check("cpu", 60.0, tmp_path)
    said = ROW + json.dumps(row("decode, 8 rows", 5))
    lines, why = check.run("decode", ["-c", f"import time; print({said!r}, flush=True); time.sleep(60)"])
    assert lines == [said] and why == "ended after 2 s"
    assert check.run("decode", ["-c", "raise SystemExit('no kernel')"]) == (["no kernel"], "failed: no kernel")
    check.ends = check.began
    assert check.run("decode", ["-c", ""]) == ([], "no time was left")


def test_the_data_file_keeps_one_run_of_each_device(tmp_path: Path) -> None:
    file = tmp_path / "docs/gpu.json"
    for device, seconds in (("NVIDIA H100", 1), ("CPU", 2), ("NVIDIA H100", 3)):
        put(file, {"device": device, "seconds": seconds, "rows": []})
    known = json.loads(file.read_text())
    assert {name: run["seconds"] for name, run in known.items()} == {"NVIDIA H100": 3, "CPU": 2}
    assert shown(row("sft: speed", 26_000, "tokens/s", "494 M")).endswith("26,000 tokens/s  (494 M)")


def test_the_page_shows_the_data_file() -> None:
    assert gpu_page.measured_table() in gpu_page.PAGE.read_text(encoding="utf-8"), gpu_page.HOW


@pytest.mark.slow
def test_it_runs_with_nothing_but_the_image_and_the_wheelhouse(tmp_path: Path) -> None:
    """Imports see only those distributions: links to them lie in a folder of their own."""
    image = wheelhouse.listed(IMAGE)
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    there = set(wheelhouse.lacking(wheelhouse.CHECKED, image, {}, python))
    for name in image:  # an image has what its own packages need
        with contextlib.suppress(ParamsError):
            there |= set(wheelhouse.lacking([name], {}, {}, python))
    site = tmp_path / "site-packages"  # dill takes what lies elsewhere for its caller's own
    site.mkdir()
    for found in metadata.distributions():
        if wheelhouse.canonical(found.metadata["Name"]) in there:
            for name in {file.parts[0] for file in found.files or []} - {"..", "__pycache__"}:
                if not (site / name).exists():
                    (site / name).symlink_to(Path(str(found.locate_file(name))))
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    environment |= {"PYTHONPATH": f"{site}:{ROOT}", "CUDA_VISIBLE_DEVICES": "", "PYTHONDONTWRITEBYTECODE": "1"}
    code = "import bench.gpu.life, bench.ppo, tests.support.trainers; from bench.gpu import measure; measure.main()"
    command = [sys.executable, "-S", "-c", code, "train", "cpu", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [json.loads(line.removeprefix(ROW)) for line in done.stdout.splitlines() if line.startswith(ROW)]
    assert len(rows) == 12 and {one["unit"] for one in rows} == {"tokens/s", "", "GiB"}
