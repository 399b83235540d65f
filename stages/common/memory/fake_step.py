"""A training step on torch's fake tensors, which have shapes and no content: what it would hold, at
no cost.

A dispatch mode counts the bytes that are alive, forward and backward. So the figure holds for any
architecture, attention and checkpointing that transformers runs.
"""

import copy
import math
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from stages.common.core import fused_head

if TYPE_CHECKING:
    import torch

    from stages.common.memory.job import Job


READ_ROWS = 64
"""Answers that PPO reads at once without gradients."""


@contextmanager
def without_data() -> Iterator[None]:
    """Make every tensor a fake one; the random generators are left as they are."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    with torch.random.fork_rng(devices=[]), FakeTensorMode():
        yield


def models(job: "Job") -> "list[torch.nn.Module]":
    """Return the trained models with fake weights, in a `without_data` context."""
    import torch
    from torch._subclasses.fake_tensor import unset_fake_temporarily
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    kinds = [AutoModelForSequenceClassification if job.scorer else AutoModelForCausalLM]
    kinds += [AutoModelForSequenceClassification] if job.actor_critic else []
    with unset_fake_temporarily(), torch.device("meta"):  # peft cannot move fake tensors
        base = "float32" if job.bits < 32 else job.dtype if job.adapters is None else job.frozen
        made = [kind.from_config(job.config).to(dtype(base)) for kind in kinds]
        if job.checkpointing:
            for one in made:
                one.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
                one.enable_input_require_grads()
        made = [adapted(one, job.adapters).train() for one in made]
    for one in made:
        replace_content(one)
    return made


def cut(config: Any, layers: int) -> Any:
    """Return a copy of a config with fewer layers."""
    small = copy.deepcopy(config)
    small.num_hidden_layers = layers
    if getattr(small, "layer_types", None):
        small.layer_types = small.layer_types[:layers]
    return small


def dtype(name: str) -> "torch.dtype":
    """Return torch's dtype of that name."""
    import torch

    found: torch.dtype = getattr(torch, name)
    return found


def replace_content(model: Any) -> None:
    """Put fake tensors in the place of parameters and buffers, one for those that are tied."""
    known: dict[Any, Any] = {}  # by the tensor itself, which so stays alive: an id would be given again
    for module in model.modules():
        for store in (module._parameters, module._buffers):
            for name, value in store.items():
                if value is not None:
                    known[value] = store[name] = known[value] if value in known else fake(value)


def adapted(model: Any, adapters: Any) -> Any:
    """Return the model behind fresh adapters that have no content either, or as it is."""
    if adapters is None:
        return model
    from peft import get_peft_model

    own = copy.copy(adapters)
    own.task_type = "SEQ_CLS" if model.get_output_embeddings() is None else "CAUSAL_LM"
    return get_peft_model(model, own, low_cpu_mem_usage=True)


def fake(value: "torch.Tensor") -> "torch.Tensor":
    """Return a fake tensor on the CPU in the place of one on `meta`."""
    import torch

    made = torch.empty(value.shape, dtype=value.dtype)
    if isinstance(value, torch.nn.Parameter):
        return torch.nn.Parameter(made, requires_grad=value.requires_grad)
    return made


def step_peak(trained: "list[torch.nn.Module]", job: "Job", gradients: bool = True) -> int:
    """Return the most bytes that are alive beside weights and optimiser in a forward and backward
    pass; those of weights' `gradients` that are ready may be left out.
    """
    import torch

    for one in trained:
        for parameter in one.parameters():
            if parameter.requires_grad and not gradients:
                parameter.register_post_accumulate_grad_hook(forget)

    rows, tokens = job.batch * job.reads.rows, job.reads.tokens
    ids = torch.zeros(rows, tokens, dtype=torch.long)
    with alive_bytes() as alive:
        with torch.autocast("cpu", torch.bfloat16, enabled=job.bf16):  # left before the backward pass, as by Trainer
            loss = sum(part_loss(one, ids, job) for one in trained)
            if math.prod(job.blocks):
                blocks = torch.zeros(job.blocks, dtype=torch.long)
                loss += text_loss(trained[0], blocks, tiles=not fused_head.fits(trained[0], blocks.numel()))
        assert isinstance(loss, torch.Tensor)
        loss.backward()
    return alive()


def forget(parameter: Any) -> None:
    """Drop a gradient that is ready."""
    parameter.grad = None


def read_peak(policy: "torch.nn.Module", job: "Job") -> int:
    """Return the most bytes alive while answers are read without gradients, READ_ROWS at once."""
    import torch

    whole: Any = policy
    inner: Any = whole.get_base_model() if hasattr(whole, "get_base_model") else whole
    ids = torch.zeros(min(READ_ROWS, job.answers), job.reads.tokens, dtype=torch.long)
    with ExitStack() as stack:
        alive = stack.enter_context(alive_bytes())
        stack.enter_context(torch.no_grad())
        if job.bf16:
            stack.enter_context(torch.autocast("cpu", torch.bfloat16))
        hidden = inner.base_model(input_ids=ids, use_cache=False).last_hidden_state.flatten(0, 1)
        most = min(len(ids) * job.reads.scored, fused_head.at_once(inner))
        mean_loss(inner.get_output_embeddings()(hidden[:most]))
    return alive()


def part_loss(model: Any, ids: "torch.Tensor", job: "Job") -> "torch.Tensor":
    """Return a loss of the same cost in memory as the trainer's."""
    import torch
    from torch.utils.checkpoint import checkpoint

    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    if inner.get_output_embeddings() is None:
        mask = torch.zeros(len(ids), 1, ids.shape[1], ids.shape[1]) if job.scorer else None
        states = inner.base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        scores: torch.Tensor = inner.score(states).float().mean()
        return scores
    places = torch.arange(job.reads.scored)
    if not job.fused and fused_head.fits(inner, len(ids) * job.reads.scored):
        logits = model(input_ids=ids, use_cache=False, logits_to_keep=places).logits
        return mean_loss(logits.flatten(0, 1))
    if job.actor_critic:
        hidden = inner.base_model(input_ids=ids, use_cache=False).last_hidden_state[:, places].flatten(0, 1)
        head, size = inner.get_output_embeddings(), fused_head.at_once(inner)
        parts = [
            checkpoint(lambda part: mean_loss(head(part)), part, use_reentrant=False) for part in hidden.split(size)
        ]
        return torch.stack(parts).mean()
    return text_loss(model, ids, tiles=True)


def text_loss(model: Any, ids: "torch.Tensor", tiles: bool) -> "torch.Tensor":
    """Return the loss at every position of `ids` [B, T], the head in tiles or not."""
    if not tiles:
        return mean_loss(model(input_ids=ids, use_cache=False).logits.flatten(0, 1))
    with fused_head.added(model.get_base_model() if hasattr(model, "get_base_model") else model):
        found: torch.Tensor = model(input_ids=ids, labels=ids, fused_lm_head=True).loss
    return found


def mean_loss(logits: "torch.Tensor") -> "torch.Tensor":
    """Return the cross-entropy of logits [n, V]."""
    import torch

    return torch.nn.functional.cross_entropy(logits.float(), torch.zeros(len(logits), dtype=torch.long))


@contextmanager
def alive_bytes() -> "Iterator[Callable[[], int]]":
    """Count the bytes of all tensors made inside; gives what returns their highest sum so far."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_iter

    class Count(TorchDispatchMode):
        now, most = 0, 0

        def __init__(self) -> None:
            super().__init__()
            self.known: weakref.WeakSet[Any] = weakref.WeakSet()

        def gone(self, size: int) -> None:
            self.now -= size

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = function(*args, **(kwargs or {}))
            inputs = {id(one.untyped_storage()) for one in tree_iter(args) if isinstance(one, torch.Tensor)}
            for one in tree_iter(result):
                if not isinstance(one, torch.Tensor):
                    continue
                storage = one.untyped_storage()
                if storage not in self.known and id(storage) not in inputs:
                    self.known.add(storage)
                    self.now += storage.nbytes()
                    self.most = max(self.most, self.now)
                    weakref.finalize(storage, self.gone, storage.nbytes())
            return result

    with Count() as count:
        yield lambda: count.most
