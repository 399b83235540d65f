"""The hardware files: accelerate and DeepSpeed accept them, and they hold nothing but hardware."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "infra/accelerate"
YAMLS = sorted(FOLDER.glob("*.yaml"))
JSONS = sorted(FOLDER.glob("*.json"))
HARDWARE = {
    "distributed_type", "num_machines", "num_processes", "machine_rank", "main_process_port", "mixed_precision",
    "use_cpu", "deepspeed_config",
}  # fmt: skip
TRAINERS = {
    "train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping",
}  # fmt: skip
STAGES = {"zero1": 1, "zero2": 2, "zero3": 3, "zero3-offload": 3, "zeropp": 3}
PROBE = """
import os
line = f"rank {os.environ.get('RANK', '0')} of {os.environ.get('WORLD_SIZE', '1')}\\n"
os.write(1, line.encode())
"""
"""One write a line: the launcher unbuffers print, whose pieces then mix with another rank's."""


def keys(path: Path) -> set[str]:
    from stages.common.core import params

    return set(params.plain(params.read_yaml(path)))


def zero(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text()))


def test_every_kind_is_there() -> None:
    zero = set(STAGES)
    assert {path.stem for path in YAMLS} == {"cpu", "ddp2", "gpu", "ddp", *zero}
    assert {path.stem for path in JSONS} == zero


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.stem)
def test_accelerate_reads_it_and_it_holds_hardware_only(path: Path) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(path))
    assert config.num_processes >= 1
    assert keys(path) <= HARDWARE
    if config.deepspeed_config:
        assert (ROOT / config.deepspeed_config["deepspeed_config_file"]).is_file()
        # accelerate refuses to start when both say it; the trainer's own bf16 decides
        assert "mixed_precision" not in keys(path)


@pytest.mark.parametrize("path", JSONS, ids=lambda path: path.stem)
def test_a_zero_file_leaves_every_hyper_parameter_to_the_trainer(path: Path) -> None:
    config = zero(path)
    assert config["zero_optimization"]["stage"] == STAGES[path.stem]
    assert {key: config[key] for key in TRAINERS} == dict.fromkeys(TRAINERS, "auto")
    assert not {"optimizer", "scheduler"} & set(config)


@pytest.mark.parametrize("path", JSONS, ids=lambda path: path.stem)
def test_deepspeed_knows_every_key(path: Path) -> None:
    pytest.importorskip("deepspeed", reason="the extra gpu is not installed")
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    settings = {key: value for key, value in zero(path)["zero_optimization"].items() if value != "auto"}
    parsed = DeepSpeedZeroConfig(**settings)  # it refuses an unknown key
    assert parsed.stage == settings["stage"]
    # What a CPU cannot carry is no more than parsed: offloading needs pinned memory, ZeRO++ its
    # CUDA kernels.
    assert (parsed.offload_optimizer is not None) is (path.stem == "zero3-offload")
    assert (parsed.zero_hpz_partition_size, parsed.zero_quantized_weights, parsed.zero_quantized_gradients) == (
        (8, True, True) if path.stem == "zeropp" else (1, False, False)
    )


@pytest.mark.parametrize(("name", "ranks"), [("cpu", ["rank 0 of 1"]), ("ddp2", ["rank 0 of 2", "rank 1 of 2"])])
def test_launching_starts_that_many_processes(name: str, ranks: list[str], tmp_path: Path) -> None:
    (tmp_path / "probe.py").write_text(PROBE)
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(FOLDER / f"{name}.yaml")]
    done = subprocess.run([*launch, "-m", "probe"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split("\n")[:-1]) == ranks
