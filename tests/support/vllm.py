"""vLLM's environment for tests, where there is one, and a model that its CPU kernels can read."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from transformers import set_seed

from stages.common.core import models
from stages.common.generation.engines import vllm_environment
from stages.common.runtime.errors import ParamsError
from tests.support.tiny import CONFIG, make_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ROOT = Path(__file__).parents[2]
WIDE = CONFIG | {"hidden_size": 64, "initializer_range": 0.3}
"""Heads of 32, the smallest that vLLM has CPU attention for; answers of such weights vary."""


def require() -> None:
    """Skip the test, with the reason, where no environment has vLLM."""
    made = ROOT / vllm_environment.FOLDER / "bin/python"
    if vllm_environment.VARIABLE not in os.environ and made.is_file():
        os.environ[vllm_environment.VARIABLE] = str(made)
    try:
        vllm_environment.version()
    except ParamsError as error:
        pytest.skip(str(error))


def wide_model(seed: int) -> "PreTrainedModel":
    set_seed(seed)
    return models.build(WIDE, len(make_tokenizer()), "test.model").eval()


def save(folder: Path, seed: int = 0) -> Path:
    models.save(wide_model(seed), make_tokenizer(), folder)
    return folder
