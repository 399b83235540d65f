"""Stages that answer and score, on two processes of this machine: what one process writes, byte for
byte, and whoever was killed goes on with as many as there are then.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from stages.common.runtime import kill_points
from tests.support import shared_stages

ROOT = Path(__file__).parent.parent
TORCHRUN = ("-m", "torch.distributed.run", "--nproc_per_node", "2")
STAGES = ("sample", "rank", "select_sft", "evaluate")


def launch(world: Path, out: Path, *stages: str, **more: str) -> int:
    command = [sys.executable, *TORCHRUN, "-m", "tests.support.shared_stages", str(world), str(out), *stages]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""} | more
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0 or more, done.stderr[-6000:]
    return done.returncode


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    shared_stages.write_world(folder / "world")
    alone(folder / "world", folder / "one", *STAGES)
    return folder


def alone(world: Path, out: Path, *stages: str) -> None:
    """Run stages in this process, with the one thread that each of two processes has."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        shared_stages.main(world, out, list(stages))
    finally:
        torch.set_num_threads(threads)


def written(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(files)}


@pytest.mark.slow
def test_two_processes_write_the_bytes_of_one_and_the_main_one_all_of_them(world: Path) -> None:
    launch(world / "world", world / "two", *STAGES)
    one, two = written(world / "one/0"), written(world / "two/0")
    assert {"drawn.json", "rank.json", "select.json", "best/model.safetensors", "tiny/metrics.json"} < set(one)
    assert [name for name in one | two if one.get(name) != two.get(name)] == []
    assert list(written(world / "two/1")) == ["params.yaml"]


@pytest.mark.slow
@pytest.mark.fault
def test_two_processes_killed_in_their_second_round_go_on_as_one(world: Path) -> None:
    killed = {kill_points.VARIABLE: "part:before_rename@3"}
    assert launch(world / "world", world / "killed", "sample", **killed) != 0
    (parts,) = (world / "killed/0/checkpoints/sample").iterdir()
    assert sorted(part.name for part in parts.glob("part-*")) == ["part-1", "part-2"]
    kept = (parts / "part-2/manifest.json").stat().st_mtime_ns
    os.link(parts / "part-2/manifest.json", world / "kept")
    alone(world / "world", world / "killed", "sample")
    assert (world / "kept").stat().st_mtime_ns == kept
    one, killed_one = written(world / "one/0"), written(world / "killed/0")
    assert [name for name in killed_one if one[name] != killed_one[name]] == []
    assert "drawn/train/part-00000.parquet" in killed_one
