"""An estimate from a few of many equal layers lies near that of all."""

from typing import Any

import pytest

from stages.common.memory import estimate
from tests.common.memory.test_estimate import config, job

QUICK: dict[str, dict[str, Any]] = {
    "a head of its own": {"batch": 4, "bf16": True, "checkpointing": True},
    "ppo": {"batch": 4, "bf16": True, "actor_critic": True, "answers": 16},
}


@pytest.mark.parametrize("name", QUICK)
def test_a_few_of_many_equal_layers_tell_the_whole(name: str) -> None:
    shape = {"num_hidden_layers": 12, "tie_word_embeddings": name == "ppo"}
    one = job(tokens=256, vocab_size=24_576, config=shape, **QUICK[name])
    whole, few = (estimate.estimate(one, quick) for quick in (False, True))
    assert few[:3] == whole[:3] and few.cache == whole.cache and few.reading == whole.reading
    print(f"{name}: {few.total / whole.total:.3f}")
    assert 0.95 < few.total / whole.total < 1.15


def test_layers_of_several_kinds_are_all_run() -> None:
    mixed = config(model_type="qwen3", layer_types=["sliding_attention", "full_attention"] * 2)
    assert (estimate.alike(config()), estimate.alike(mixed)) == (4, 0)
    few = estimate.cut(config(model_type="qwen3", num_hidden_layers=9), 2)
    assert few.num_hidden_layers == len(few.layer_types) == 2
