"""On an NVIDIA GPU: every trainer takes the steps it takes on a CPU, and how much of the card
pretraining uses.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bench.gpu import sizes
from stages.common.core import fused_head, models
from stages.common.generation import attention, packed_forward
from stages.common.memory import estimate
from stages.common.memory.job import Job, Reads
from tests.support.trainers import STAGES, write_world

ROOT = Path(__file__).parent.parent
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU, or a torch without CUDA"),
]
FP32_TOLERANCE = 2e-3
"""Losses of six steps in fp32: the GPU sums in another order, and Adam's first steps are the signs
of gradients.
"""
VOCABULARY, BATCH, TOKENS, STEPS = 151_936, 8, 1024, 12


def losses(world: Path, out: Path, device: str) -> dict[str, list[float]]:
    """Train every stage on a device, in fp32; return the losses of its steps."""
    out.mkdir()
    places = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"PYTHONPATH": places, "LATHE_TEST_FP32": "1"}
    environment |= {} if device == "cuda" else {"CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "tests.support.trainers", str(world), str(out), *STAGES]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-6000:]
    return {stage: json.loads((out / f"{stage}.json").read_text())["losses"] for stage in STAGES}


def test_every_trainer_takes_the_same_steps_as_on_a_cpu(tmp_path: Path) -> None:
    write_world(tmp_path)
    cpu, gpu = (losses(tmp_path, tmp_path / device, device) for device in ("cpu", "cuda"))
    deterministic = [stage for stage in STAGES if stage != "ppo"]  # its answers are drawn from sums that differ
    for stage in deterministic:
        assert gpu[stage] == pytest.approx(cpu[stage], abs=FP32_TOLERANCE), stage
    assert len(gpu["ppo"]) == len(cpu["ppo"])


def test_pretraining_of_half_a_billion_weights_prints_its_share_of_the_peak() -> None:
    name = torch.cuda.get_device_name()
    model = fused_head.add(models.build(sizes.QWEN, VOCABULARY, "test").cuda().train())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    ids = torch.randint(VOCABULARY, (BATCH, TOKENS), device="cuda")
    torch.cuda.reset_peak_memory_stats()
    for step in range(STEPS):
        if step == 2:
            torch.cuda.synchronize()
            start = time.monotonic()
        with torch.autocast("cuda", torch.bfloat16):
            loss = model(input_ids=ids, labels=ids, fused_lm_head=True).loss  # as the stage does
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    torch.cuda.synchronize()
    speed = (STEPS - 2) * ids.numel() / (time.monotonic() - start)
    weights = sum(value.numel() for value in model.parameters())
    done = speed * sizes.flops(sizes.QWEN, weights, TOKENS)
    share = sizes.mfu(name, done)
    used = f", MFU {share:.0%}" if share else f", no data sheet for its peak ({done / 1e12:.0f} TFLOP/s)"
    job = Job(model.config, Reads(1, TOKENS, TOKENS), BATCH, bf16=True)
    estimated, measured = estimate.estimate(job).total, torch.cuda.max_memory_allocated()
    memory = f"memory {estimate.amount(measured)}, estimated {estimate.amount(estimated)}"
    print(f"{name}: {speed:,.0f} tokens/s{used}; {memory}")
    assert speed > 0 and torch.isfinite(loss)
    assert 0.7 < estimated / measured < 1.4


def test_a_trainer_without_a_word_about_it_trains_in_bf16(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.support.trainers import trainer

    monkeypatch.chdir(tmp_path)
    write_world(tmp_path)
    made: Any = trainer("sft", tmp_path)[1]
    assert made.args.bf16 and made.args.device.type == "cuda"


def test_packed_rows_are_read_by_their_lengths_as_group_by_group(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = [(3, 40), (1, 7), (5, 100)]
    tokens = sum(rows * length for rows, length in blocks)
    made = [torch.randn(1, heads, tokens, 64, device="cuda", dtype=torch.bfloat16) for heads in (8, 2, 2)]
    if not attention.is_varlen(made[0]):
        pytest.skip("no flash-attn for this GPU")
    module = SimpleNamespace(num_key_value_groups=4, is_causal=True)
    found = []
    for by_length in (True, False):
        monkeypatch.setattr(attention, "is_varlen", lambda _, chosen=by_length: chosen)
        states = query, key, value = [one.clone().requires_grad_() for one in made]
        read, _ = packed_forward._attend(module, query, key, value, None, blocks, scaling=0.125)
        read.float().square().sum().backward()
        found.append([read.float(), *(one.grad.float() for one in states if one.grad is not None)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=3e-2, rtol=3e-2)
