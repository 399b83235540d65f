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


WHOLE = 32
"""Bits of a weight that is not held in few."""
LIVE = 10**9
"""Weights that DeepSpeed lets be gathered at once (stage3_max_live_parameters)."""
PROCESS = GIBIBYTE
"""What an engine's process holds beside weights and cache: CUDA's context, or libraries; not
measured.
"""
BLOCK_TOKENS = 128
"""Tokens of a block of an engine's cache on a CPU; a GPU's are smaller."""
FEW, MORE = 2, 3
"""Layers of the models from which a quick estimate follows."""


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
    gathered: int = 0
    """Weights that ZeRO-3 has put together for the layers at work."""
    whole: int = 0
    """Weights of both models that ZeRO-3 puts together for PPO's rollouts."""
    engine: int = 0
    """What an engine beside the training holds all the time; the rest of one that sleeps counts as
    `cache`.
    """

    @property
    def total(self) -> int:
        """Return the peak: a rollout has no gradients and no activations of an update."""
        update = self.gradients + self.activations + self.gathered
        rollout = self.whole + max(self.cache, self.reading)
        return self.parameters + self.optimiser + self.engine + max(update, rollout)

    def shown(self) -> str:
        """Return the parts for people."""
        parts = [f"{name} {amount(value)}" for name, value in self._asdict().items() if value]
        return f"{amount(self.total)} ({', '.join(parts)})"


def amount(count: float) -> str:
    """Return bytes for people."""
    return f"{count / GIBIBYTE:.1f} GiB" if count >= GIBIBYTE else f"{count / 2**20:.0f} MiB"


def estimate(job: Job, quick: bool = False) -> Need:
    """Return what one process needs. `quick` runs the step on a few of many equal layers.

    DDP keeps a second copy of the gradients; ZeRO splits among the processes what its stage says,
    and from stage 1 on keeps a split copy of the weights. What is offloaded is not the GPU's:
    optimiser, copy and split gradients, or the weights. Where the products are in bf16, DeepSpeed
    holds weights and gradients in bf16 beside that fp32 copy. DeepSpeed's buckets are not counted.
    """
    with fake_step.without_data(), fused_head.tiles_kept():
        trained = fake_step.models(job)
        beside = engine(trained[0], job) if job.engine else 0
        whole = sum(held(one, job.bits) for one in trained)
        numbers = sum(one.numel() for model in trained for one in model.parameters())
        learnt = sum(
            parameter.numel() * parameter.element_size()
            for one in trained
            for parameter in one.parameters()
            if parameter.requires_grad
        )
        late = sum(map(last_gradient, trained))
    activations, reading = peaks(job, learnt, late, quick)
    frozen = standing(trained, job)
    gradients, optimiser = learnt, int(learnt * STATES.get(job.optimiser, 2.0))
    parameters = gathered = together = 0
    if job.processes > 1 and job.zero == 0:
        gradients *= 2
    if job.zero:
        halved = job.bf16 and job.bits == WHOLE
        whole, gradients = (2 * numbers, gradients // 2) if halved else (whole, gradients)
        if job.zero == 3:
            gathered = min(whole, LIVE * (2 if halved else 4))
            together = whole if job.actor_critic else 0
        parameters = 0 if "optimizer" in job.offload else learnt // job.processes
        whole = 0 if "param" in job.offload else whole // (job.processes if job.zero == 3 else 1)
        gradients = learnt // job.processes if job.zero >= 2 else gradients
        optimiser //= job.processes
        if "optimizer" in job.offload:
            optimiser, gradients = 0, 0 if job.zero >= 2 else gradients
    answers = cache(job.config, job.answers, job.reads.tokens, fake_step.dtype(decoded(job)).itemsize)
    if job.engine:
        answers, beside = (beside, PROCESS) if job.sleeps else (0, beside + PROCESS)
    parameters += whole + frozen
    return Need(parameters, gradients, optimiser, activations, answers, reading, gathered, together, beside)


def engine(policy: Any, job: Job) -> int:
    """Return the bytes of an engine's weights and cache: those of the policy as it answers, with an
    output matrix of its own.
    """
    size = fake_step.dtype(job.frozen).itemsize
    numbers = sum(one.numel() for name, one in policy.named_parameters() if "lora_" not in name)
    head, inputs = policy.get_output_embeddings(), policy.get_input_embeddings()
    if head is not None and head.weight is inputs.weight:
        numbers += head.weight.numel()
    return numbers * size + blocks(job.config, job.answers, job.reads.tokens, size)


def blocks(config: Any, rows: int, tokens: int, size: int) -> int:
    """Return the bytes of an engine's cache for `rows` sequences of `tokens` tokens: whole blocks,
    one of them its own.
    """
    return cache(config, 1 + rows * -(-tokens // BLOCK_TOKENS), BLOCK_TOKENS, size)


def peaks(job: Job, learnt: int, late: int, quick: bool) -> tuple[int, int]:
    """Return what a step holds beside weights, gradients of `learnt` bytes and optimiser, and what
    reading PPO's answers holds.

    `quick`: a step's peak is either at the end of its forward pass or when all gradients are there.
    The first grows by the same with each layer, so it follows from two models of few layers; of
    the gradients, those of `late` bytes stand beside it already.
    """
    layers = alike(job.config) if quick else 0
    if layers <= MORE:
        with fake_step.without_data(), fused_head.tiles_kept():
            trained = fake_step.models(job)
            peak = fake_step.step_peak(trained, job)
            reading = fake_step.read_peak(trained[0], job) if job.actor_critic and job.answers else 0
        return max(0, peak - learnt), reading
    steps, readings = [], []
    for count in (FEW, MORE):
        small = replace(job, config=fake_step.cut(job.config, count))
        with fake_step.without_data(), fused_head.tiles_kept():
            trained = fake_step.models(small)
            steps.append(fake_step.step_peak(trained, small, gradients=False))
            readings.append(fake_step.read_peak(trained[0], small) if job.actor_critic and job.answers else 0)
    first, reading = (few + (more - few) * (layers - FEW) // (MORE - FEW) for few, more in (steps, readings))
    return max(first + late - learnt, steps[0]), reading


def alike(config: Any) -> int:
    """Return the number of a model's layers, 0 where they are not all of one kind."""
    text = config.get_text_config(decoder=True)
    kinds = set(getattr(text, "layer_types", None) or [""])
    return int(text.num_hidden_layers) if len(kinds) == 1 and text is config else 0


def last_gradient(model: Any) -> int:
    """Return the bytes of the gradient that is there first and stays: that of a head of its own."""
    head = model.get_output_embeddings()
    if head is None or not head.weight.requires_grad or head.weight is model.get_input_embeddings().weight:
        return 0
    return int(head.weight.numel() * head.weight.element_size())


def decoded(job: Job) -> str:
    """Return the dtype in which answers are made: that of the weights."""
    if job.adapters is not None:
        return job.frozen
    return "bfloat16" if job.zero and job.bf16 else job.dtype


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
