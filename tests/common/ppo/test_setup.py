"""What PPO's trainer is made of is the same for the same seed, whatever was drawn before."""

from pathlib import Path

import pytest
import torch

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
