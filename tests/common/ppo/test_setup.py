"""What PPO's trainer is made of: the same for the same seed, whatever was drawn before; a reference
in the dtype it is compared in.
"""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from stages import ppo
from stages.common.core import precision
from stages.common.ppo import setup
from tests.support.small_ppo import trainer_in, write_ppo


def test_fresh_adapters_come_from_the_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_ppo(tmp_path)
    drawn = []
    for state in (1, 2):
        torch.manual_seed(state)
        trainer = trainer_in(tmp_path, lora={"r": 2, "target_modules": ["q_proj", "v_proj"]})
        drawn.append([value.clone() for name, value in trainer.model.named_parameters() if "lora_A" in name])
    assert drawn[0] and all(torch.equal(one, other) for one, other in zip(*drawn, strict=True))


@pytest.mark.parametrize(
    ("bf16", "fp16", "deepspeed", "dtype"),
    [
        (False, False, False, torch.float32),
        (False, False, True, torch.float32),
        (True, False, True, torch.bfloat16),  # the engine casts the policy's weights
        (False, True, True, torch.float16),
        (True, False, False, torch.float16),  # as the file is: autocast takes its products in 16 bits either way
    ],
)
def test_the_reference_is_held_in_the_dtype_it_is_compared_in(
    bf16: bool, fp16: bool, deepspeed: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "frozen", lambda _: torch.float16)  # what a GPU makes of a file in fp16
    arguments = SimpleNamespace(bf16=bf16, fp16=fp16, deepspeed_plugin=object() if deepspeed else None)
    assert setup.compared_dtype(ppo.Params(training={}), Path("model"), arguments) == dtype
