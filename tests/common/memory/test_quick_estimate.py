"""An estimate from a few of many equal layers lies near that of all."""

from typing import Any

import pytest

from stages.common.memory import estimate, fake_step
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
    few = fake_step.cut(config(model_type="qwen3", num_hidden_layers=9), 2)
    assert few.num_hidden_layers == len(few.layer_types) == 2


def test_an_engine_beside_the_training_is_counted_and_one_that_sleeps_only_while_it_answers() -> None:
    case: dict[str, Any] = {"batch": 1, "tokens": 64, "actor_critic": True, "answers": 8}
    local = estimate.estimate(job(**case))
    awake, asleep = (estimate.estimate(job(**case, engine=True, sleeps=sleeps)) for sleeps in (False, True))
    weights = local.gradients - 256  # policy and value model have as many, but for the value's head
    policy, head = weights // 2, 3072 * 256 * 4
    keys_and_values = (1 + 8) * 128 * 2 * 4 * 256 * 4  # blocks, tokens, both, layers, width, fp32
    size = policy + head + keys_and_values
    assert abs(awake.engine - (estimate.PROCESS + size)) < 4096 and awake.cache == 0
    assert asleep.engine == estimate.PROCESS and asleep.cache == awake.engine - estimate.PROCESS
    assert awake.total == local._replace(cache=0).total + awake.engine
    assert local.total + estimate.PROCESS <= asleep.total < awake.total
    halved = estimate.estimate(job(**case, engine=True, sleeps=True, frozen="bfloat16"))
    assert 2 * halved.cache == asleep.cache
