"""The estimate of a training's memory lies near what a process is seen to take, and what does not
fit is refused.
"""

import ctypes
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from stages.common.memory import available, estimate, preflight
from stages.common.memory.job import Job, Reads
from stages.common.runtime.errors import OutOfMemoryError
from tests.support.small_ppo import fit, trainer_in, write_ppo

ROOT = Path(__file__).parents[3]
LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 688,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
}
MEASURED: dict[str, dict[str, Any]] = {
    "plain": {"batch": 8, "tokens": 256},
    "checkpointing": {"batch": 16, "tokens": 256, "checkpointing": True},
    "large vocabulary": {"batch": 2, "tokens": 256, "vocab_size": 24_576},
}
FACTOR = 1.1
"""How far the estimate may be from what is measured, either way."""
M_MMAP_THRESHOLD = -3


def config(**changes: Any) -> Any:
    from transformers import AutoConfig

    return AutoConfig.for_model(**{"vocab_size": 3072} | LLAMA | changes)


def job(batch: int, tokens: int, vocab_size: int = 3072, config: dict[str, Any] | None = None, **more: Any) -> Job:
    settings = globals()["config"](vocab_size=vocab_size, **(config or {}))
    return Job(settings, Reads(1, tokens, tokens), batch, **more)


def peak_growth(case: dict[str, Any]) -> int:
    """Return the bytes by which this process grows at its highest in two steps of the case, from
    before the model.
    """
    from transformers import AutoModelForCausalLM, set_seed

    torch.set_num_threads(1)
    # Blocks above 1 MiB go back to the system when freed: glibc otherwise keeps them, up to as much
    # again.
    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 2**20)
    one = job(**case)
    tiny = AutoModelForCausalLM.from_config(config(hidden_size=64, num_hidden_layers=1, vocab_size=64))
    train(tiny, torch.zeros(1, 8, dtype=torch.long), one.checkpointing)  # what the libraries keep for themselves
    status = Path("/proc/self/status")
    Path("/proc/self/clear_refs").write_text("5")  # the highest so far starts anew
    before = resident(status, "VmRSS")
    set_seed(1)
    model = AutoModelForCausalLM.from_config(one.config)
    train(model, torch.randint(3000, (one.batch, one.reads.tokens)), one.checkpointing)
    return resident(status, "VmHWM") - before


def train(model: Any, ids: torch.Tensor, checkpointing: bool) -> None:
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    for _ in range(2):
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def resident(status: Path, name: str) -> int:
    line = next(line for line in status.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="peak memory cannot be read here")
@pytest.mark.parametrize("name", MEASURED)
def test_the_estimate_is_near_what_a_process_takes(name: str) -> None:
    code = f"from tests.common.memory.test_estimate import *; print(peak_growth(MEASURED[{name!r}]))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    measured, estimated = int(done.stdout.split()[-1]), estimate.estimate(job(**MEASURED[name])).total
    sizes = f"estimated {estimate.amount(estimated)}, measured {estimate.amount(measured)}"
    print(f"{name}: {sizes}, {estimated / measured:.2f}")
    assert 1 / FACTOR < estimated / measured < FACTOR


def test_the_dry_run_changes_no_random_state_and_makes_no_tensor() -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    need = estimate.estimate(job(4, 64, config={"hidden_size": 8192, "num_attention_heads": 64}))
    assert torch.equal(before, torch.get_rng_state())
    assert need.parameters > 2 * 2**30


def test_the_dry_run_leaves_the_tiles_of_the_training_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tiles round otherwise, and no checkpoint's fingerprint covers this package."""
    from trl.kernels import chunked_logprob

    monkeypatch.setattr(chunked_logprob, "TOKEN_CHUNK_SIZE", 4096)
    estimate.estimate(job(1, 64, vocab_size=151_936, fused=True))
    assert chunked_logprob.TOKEN_CHUNK_SIZE == 4096


def test_ties_count_once_and_adapters_alone_have_gradients() -> None:
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(config())
    whole = estimate.estimate(job(1, 16))
    assert whole.parameters == sum(4 * one.numel() for one in model.parameters()) == whole.gradients
    assert whole.optimiser == 2 * whole.parameters
    few = estimate.estimate(job(1, 16, adapters=LoraConfig(r=8, target_modules=["q_proj"], task_type="CAUSAL_LM")))
    assert few.gradients == 4 * 4 * 8 * (256 + 256) and few.parameters == whole.parameters + few.gradients


def test_adapters_of_ppos_two_models_are_counted() -> None:
    from peft import LoraConfig

    adapters = LoraConfig(r=8, target_modules=["q_proj"], task_type="CAUSAL_LM")
    both = estimate.estimate(job(1, 16, adapters=adapters, actor_critic=True))
    alone = estimate.estimate(job(1, 16, adapters=adapters))
    # the value model's adapters, and its head, which peft trains whole
    assert both.gradients > 2 * alone.gradients and adapters.task_type == "CAUSAL_LM"


def test_processes_share_what_the_zero_stage_splits() -> None:
    alone, *zero = (
        estimate.estimate(job(1, 16, processes=count, zero=stage)) for count, stage in [(1, 0), (2, 1), (2, 2), (2, 3)]
    )
    size = alone.parameters
    assert [(one.parameters, one.gradients, one.optimiser) for one in zero] == [
        (size + size // 2, size, size),
        (size + size // 2, size // 2, size),
        (size, size // 2, size),
    ]
    assert estimate.estimate(job(1, 16, processes=2)).gradients == 2 * size  # DDP's buckets


def test_deepspeed_holds_weights_in_sixteen_bits_beside_its_split_copy() -> None:
    size = estimate.estimate(job(1, 16)).parameters  # in fp32
    two, three = (estimate.estimate(job(1, 16, bf16=True, processes=2, zero=stage)) for stage in (2, 3))
    assert (two.parameters, two.gradients, two.optimiser) == (size // 2 + size // 2, size // 2, size)
    assert (three.parameters, three.gradients, three.optimiser) == (size // 4 + size // 2, size // 2, size)
    assert (two.gathered, three.gathered, three.whole) == (0, size // 2, 0)
    ppo = estimate.estimate(job(1, 16, bf16=True, processes=2, zero=3, actor_critic=True, answers=4))
    assert ppo.whole == ppo.gathered > three.gathered  # both models, for the rollouts
    assert ppo._replace(whole=2**40).total > 2**40


def test_what_is_offloaded_is_not_the_gpus() -> None:
    whole = estimate.estimate(job(1, 16, processes=2, zero=3))
    states = estimate.estimate(job(1, 16, processes=2, zero=3, offload=frozenset({"optimizer"})))
    every = estimate.estimate(job(1, 16, processes=2, zero=3, offload=frozenset({"optimizer", "param"})))
    assert (states.parameters, states.gradients, states.optimiser) == (whole.parameters // 2, 0, 0)
    assert (every.parameters, every.gradients, every.optimiser) == (0, 0, 0)
    assert every.activations == whole.activations > 0
    config = {"stage": 3, "offload_optimizer": {"device": "cpu"}, "offload_param": {"device": "none"}}
    assert preflight.offload(config) == {"optimizer"} and preflight.offload({"stage": 2}) == frozenset()


def test_frozen_models_and_trained_weights_count_in_their_dtypes() -> None:
    whole = estimate.estimate(job(1, 16, actor_critic=True))
    on_gpu = estimate.estimate(job(1, 16, actor_critic=True, frozen="bfloat16"))
    assert whole.parameters == 2 * whole.gradients
    assert on_gpu.parameters == whole.gradients + whole.gradients // 2
    halves = estimate.estimate(job(1, 16, dtype="bfloat16", answers=4))
    fp32 = estimate.estimate(job(1, 16, answers=4))
    assert [2 * one for one in halves[:3]] == list(fp32[:3]) and 2 * halves.cache == fp32.cache


@pytest.mark.parametrize("more", [{}, {"actor_critic": True}, {"fused": True}], ids=["sft", "ppo", "dpo"])
def test_logits_of_a_large_vocabulary_are_not_all_held(more: dict[str, Any]) -> None:
    rows, tokens, vocabulary = 8, 2048, 151_936
    small = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 64}
    need = estimate.estimate(job(rows, tokens, vocabulary, config=small, **more))
    logits = 4 * rows * tokens * vocabulary
    assert 2**28 < need.activations < logits / 2  # with their softmax and its gradient: 3 times


def test_ppos_readings_and_blocks_of_text_are_counted() -> None:
    few, many = (estimate.estimate(job(1, 64, actor_critic=True, answers=answers)) for answers in (8, 64))
    assert many.reading > 4 * few.reading > 0 and few.activations == many.activations
    with_text = estimate.estimate(job(1, 64, actor_critic=True, answers=8, blocks=(4, 64)))
    assert with_text.activations > 3 * few.activations / 2
    assert many._replace(gradients=0, activations=0, cache=0).total == many.parameters + many.optimiser + many.reading


def test_keys_and_values_of_grouped_heads_are_counted() -> None:
    grouped = config(num_attention_heads=4, num_key_value_heads=2)
    assert estimate.cache(grouped, 128, 256) == 2 * 4 * 2 * 64 * 4 * 128 * 256  # k and v, layers, heads, width, fp32


def test_the_batch_that_is_named_fits_and_the_next_does_not() -> None:
    asked = job(64, 128)
    free = estimate.estimate(job(11, 128)).total / estimate.SPARE + 1
    assert estimate.remedy(asked, free, "sft") == "set sft.training.per_device_train_batch_size: 11"
    assert estimate.estimate(job(12, 128)).total > free * estimate.SPARE
    long: dict[str, Any] = {"tokens": 512, "vocab_size": 512}
    single = estimate.estimate(job(1, **long, checkpointing=True)).total / estimate.SPARE + 1
    assert estimate.remedy(job(64, **long), single, "sft") == "set sft.training.gradient_checkpointing: true"
    assert "not even one example fits" in estimate.remedy(asked, 2**20, "sft")


def test_the_container_s_limit_counts_without_the_page_cache(tmp_path: Path) -> None:
    assert available.limit(tmp_path) is None
    (tmp_path / "memory.max").write_text("max\n")
    assert available.limit(tmp_path) is None
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("900\n")
    (tmp_path / "memory.stat").write_text("anon 500\ninactive_file 300\n")
    assert (available.limit(tmp_path), available.used(tmp_path)) == (1000, 600)


def test_a_training_that_does_not_fit_is_refused_before_its_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    write_ppo(tmp_path)
    trainer = trainer_in(tmp_path)
    monkeypatch.setattr(available, "system_free", lambda: 2**18)
    with pytest.raises(OutOfMemoryError, match=r"needs .* of memory") as refused:
        fit(trainer)
    assert refused.value.code == 5 and "LATHE_MEMORY_CHECK=off" in str(refused.value)
    assert trainer.state.global_step == 0
    monkeypatch.setenv("LATHE_MEMORY_CHECK", "off")
    caplog.set_level("INFO", logger="lathe")
    preflight.check(trainer, trainer.setup.settings, "ppo")
    assert "going on, because LATHE_MEMORY_CHECK=off" in caplog.text
