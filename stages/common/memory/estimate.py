"""How much memory a training will take: weights, gradients, optimiser, and what a step without data
holds.
"""

from dataclasses import replace
from typing import Any, NamedTuple

from stages.common.core import fused_head
from stages.common.memory import fake_step
from stages.common.memory.job import Job

GIBIBYTE = 2**30
SPARE = 0.95
"""Share of the free memory that is planned with: allocators keep some of it in pieces too small to
use.
"""
STATES = {"sgd": 0.0, "adafactor": 0.0, "adamw_8bit": 0.5, "adamw_bnb_8bit": 0.5, "paged_adamw_8bit": 0.5}
"""Optimiser state in bytes a byte of trained fp32 weights, where it is not AdamW's two."""


class Need(NamedTuple):
    """Bytes a process needs at its peak."""

    parameters: int
    gradients: int
    optimiser: int
    activations: int
    cache: int
    """Keys and values of answers in the making (PPO's rollouts); they and the activations are not
    held together.
    """

    reading: int = 0
    """What reading PPO's answers without gradients holds; not together with the others either."""

    @property
    def total(self) -> int:
        """Return the peak: a rollout has no gradients and no activations of an update."""
        return self.parameters + self.optimiser + max(self.gradients + self.activations, self.cache, self.reading)

    def shown(self) -> str:
        """Return the parts for people."""
        parts = [f"{name} {amount(value)}" for name, value in self._asdict().items() if value]
        return f"{amount(self.total)} ({', '.join(parts)})"


def amount(count: float) -> str:
    """Return bytes for people."""
    return f"{count / GIBIBYTE:.1f} GiB" if count >= GIBIBYTE else f"{count / 2**20:.0f} MiB"


def estimate(job: Job) -> Need:
    """Return what one process needs.

    DDP keeps a second copy of the gradients; ZeRO splits among the processes what its stage says,
    and from stage 1 on keeps a split copy of the weights. What is offloaded is not the GPU's:
    optimiser, copy and split gradients, or the weights. DeepSpeed's own buffers are not counted.
    """
    with fake_step.without_data(), fused_head.tiles_kept():
        trained = fake_step.models(job)
        sizes = [held(one, job.bits) for one in trained]
        learnt = sum(
            parameter.numel() * parameter.element_size()
            for one in trained
            for parameter in one.parameters()
            if parameter.requires_grad
        )
        peak = fake_step.step_peak(trained, job)
        reading = fake_step.read_peak(trained[0], job) if job.actor_critic and job.answers else 0
    frozen, width = standing(trained, job), fake_step.dtype(job.dtype).itemsize
    parameters, gradients, optimiser = sum(sizes), learnt, int(learnt * STATES.get(job.optimiser, 2.0))
    activations = max(0, peak - gradients)
    if job.processes > 1 and job.zero == 0:
        gradients *= 2
    if job.zero:
        kept = 0 if "optimizer" in job.offload else learnt // job.processes
        parameters = 0 if "param" in job.offload else parameters // (job.processes if job.zero == 3 else 1)
        parameters += kept
        gradients //= job.processes if job.zero >= 2 else 1
        optimiser //= job.processes
        if "optimizer" in job.offload:
            optimiser, gradients = 0, 0 if job.zero >= 2 else gradients
    answers = cache(job.config, job.answers, job.reads.tokens, width)
    return Need(parameters + frozen, gradients, optimiser, activations, answers, reading)


def standing(trained: list[Any], job: Job) -> int:
    """Return the bytes of what PPO holds beside the trained: the reward model, and a reference
    without adapters.
    """
    if not job.actor_critic:
        return 0
    sizes = [
        sum(one.numel() for name, one in model.named_parameters() if "lora_" not in name and "to_save" not in name)
        for model in trained
    ]
    return int((sum(sizes) if job.adapters is None else sizes[-1]) * fake_step.dtype(job.frozen).itemsize)


def held(model: Any, bits: int) -> int:
    """Return the bytes of a model's weights; those of frozen matrices, the head aside, take `bits`
    each.
    """
    import torch

    whole = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    if bits == 32:
        return whole
    matrices = [one.weight for one in model.modules() if type(one) is torch.nn.Linear]
    head = model.get_output_embeddings()
    frozen = [one for one in matrices if not one.requires_grad and (head is None or one is not head.weight)]
    return int(whole - sum(one.numel() * one.element_size() for one in frozen) * (1 - bits / 32))


def cache(config: Any, rows: int, tokens: int, size: int = 4) -> int:
    """Return the bytes of keys and values, `size` bytes each number, of `rows` sequences of
    `tokens` tokens.
    """
    text = config.get_text_config(decoder=True)
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return int(2 * text.num_hidden_layers * heads * width * size * rows * tokens)


def remedy(job: Job, free: float, stage: str) -> str:
    """Return the line of params.yaml that makes the training fit into `free` bytes."""
    batch = largest(job, free)
    if batch:
        return f"set {stage}.training.per_device_train_batch_size: {batch}"
    if not job.checkpointing and estimate(replace(job, checkpointing=True, batch=1)).total <= free * SPARE:
        return f"set {stage}.training.gradient_checkpointing: true"
    return f"not even one example fits: shorten {stage}.max_tokens, train adapters ({stage}.lora), or take more memory"


def largest(job: Job, free: float) -> int:
    """Return the largest batch below the job's that fits into `free` bytes, 0 for none; PPO's has
    to divide its own.
    """
    low, high = 0, job.batch
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if estimate(replace(job, batch=middle)).total <= free * SPARE else (low, middle)
    while job.actor_critic and low and job.batch % low:
        low -= 1
    return low
