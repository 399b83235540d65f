"""A training as the memory estimate sees it: its model, what an example is, how it is trained and
on how many.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

FUSED = frozenset({"dpo", "grpo", "kto"})
"""Trainers of TRL whose head goes over the vocabulary in pieces."""


class Reads(NamedTuple):
    """What one example of a batch is."""

    rows: int
    """Sequences of an example: two of a pair."""
    tokens: int
    """Tokens of the longest sequence."""
    scored: int
    """Positions of a sequence whose logits over the vocabulary are held at once; 0: the head gives
    one number.
    """


@dataclass(frozen=True)
class Job:
    """A training as the estimate sees it."""

    config: Any
    """transformers' config of the model."""
    reads: Reads
    batch: int
    """Examples of one backward pass of one process."""
    checkpointing: bool = False
    optimiser: str = "adamw_torch_fused"
    bf16: bool = False
    """Whether the products are taken in bf16 under autocast; `dtype` is what the weights are held
    in.
    """
    dtype: str = "float32"
    """Of trained weights and their optimiser's state."""
    frozen: str = "float32"
    """Of models that only answer or score, and of what stays as it is below adapters."""
    fused: bool = False
    """Whether the head goes over all logits in tiles, however few they are."""
    offload: frozenset[str] = frozenset()
    """What DeepSpeed keeps in the machine's memory instead of a GPU's: `optimizer`, `param`."""
    adapters: Any = None
    """peft's LoraConfig, or None where all weights are trained."""
    bits: int = 32
    """Of a weight in the matrices below adapters."""
    scorer: bool = False
    """Whether the head gives a score."""
    actor_critic: bool = False
    """Whether it is PPO's: a scorer is trained beside the model, and a reference and a reward model
    are held.
    """
    blocks: tuple[int, int] = (0, 0)
    """Blocks of text beside a batch of PPO's, and the tokens of each."""
    answers: int = 0
    """Answers made at once."""
    engine: bool = False
    """Whether an engine in a process of its own makes the answers, beside the training."""
    sleeps: bool = False
    """Whether the engine lets go of its weights and cache while the model is trained."""
    processes: int = 1
    zero: int = 0
    """DeepSpeed's ZeRO stage; 0 with several processes is DDP."""


def blocks(section: Mapping[str, Any]) -> tuple[int, int]:
    """Return the blocks of text that PPO reads beside a batch, and the tokens of each."""
    if not section.get("ptx_weight"):
        return 0, 0
    return int(section.get("ptx_blocks", 4)), int(section.get("ptx_block_tokens", 256))


def reads(stage: str, section: Mapping[str, Any], answers: int) -> Reads:
    """Return what an example of `stage` is at most, from its section of params.yaml and the
    `answers` to a prompt.
    """
    longest = int(section.get("max_tokens", section.get("block_tokens", 256)))
    if stage == "reward":
        return Reads(1, longest * answers, 0) if section.get("share_prompt", True) else Reads(answers, longest, 0)
    if stage == "ppo":
        return Reads(1, longest, int(section.get("max_new_tokens", 48)))
    if stage in FUSED:
        return Reads(2 if stage == "dpo" else 1, longest, 1)
    return Reads(2 if stage == "orpo" else 1, longest, longest)
