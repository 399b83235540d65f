"""Where vLLM lives, what its process is told and what memory it takes."""

import sys
from pathlib import Path

import pytest

from stages.common.generation.engines import vllm_environment
from stages.common.runtime.errors import ParamsError
from tests.support.vllm import save


def test_the_engine_is_no_part_of_the_launcher_and_has_its_process_s_gpu() -> None:
    launched = {"PATH": "/bin", "RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_PORT": "29500"}
    launched |= {"TORCHELASTIC_RUN_ID": "x", "ACCELERATE_USE_DEEPSPEED": "true", "OMP_NUM_THREADS": "2"}
    told = vllm_environment.engine_variables(launched)
    assert {name: told[name] for name in told.keys() - vllm_environment.SETTINGS.keys()} == {
        "PATH": "/bin",
        "OMP_NUM_THREADS": "2",
        "CUDA_VISIBLE_DEVICES": "1",
    }
    shown = vllm_environment.engine_variables({"LOCAL_RANK": "1", "CUDA_VISIBLE_DEVICES": "4,6"})
    assert shown["CUDA_VISIBLE_DEVICES"] == "6"
    assert vllm_environment.engine_variables({"CUDA_VISIBLE_DEVICES": "4,6"})["CUDA_VISIBLE_DEVICES"] == "4,6"
    assert told["VLLM_ALLOW_INSECURE_SERIALIZATION"] == "0"


def test_the_bytes_of_keys_and_values_by_hand(tmp_path: Path) -> None:
    folder = save(tmp_path)
    # 2 layers of 2 heads of 32, keys and values: 256 numbers a token; 100 tokens are a block of
    # 128, and 3 rows and vLLM's own are 4
    assert vllm_environment.cache_bytes(folder, "float32", 3, 100) == 4 * 128 * 256 * 4
    assert vllm_environment.cache_bytes(folder, "bfloat16", 3, 129) == 7 * 128 * 256 * 2


def test_a_missing_environment_is_said_with_what_makes_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LATHE_VLLM_PYTHON", raising=False)
    with pytest.raises(ParamsError, match=r"\.venv-vllm/bin/python: no such file.*make vllm"):
        vllm_environment.python()
    monkeypatch.setenv("LATHE_VLLM_PYTHON", sys.executable)
    vllm_environment.version.cache_clear()
    with pytest.raises(ParamsError, match="it has no vLLM"):
        vllm_environment.version()
