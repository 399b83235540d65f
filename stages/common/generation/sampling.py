"""The choice of the next token: penalty, temperature, top-k, top-p, and a stream of random numbers
for each answer.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from stages.common.runtime.errors import ParamsError

if TYPE_CHECKING:
    import torch

CANDIDATES = 64
STEP = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen, in transformers' order and under its names; `temperature` 0 is greedy,
    `top_k` 0 is all.

    Raises ParamsError for a value that has no meaning.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, holds, range_ in (
            # Below, logits of fp32 could overflow when divided.
            ("temperature", self.temperature == 0 or 0.01 <= self.temperature < float("inf"), "0, or 0.01 or more"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("top_k", self.top_k >= 0, "0 or more"),
            ("repetition_penalty", 0 < self.repetition_penalty < float("inf"), "above 0"),
            ("seed", -(2**63) <= self.seed < 2**63, "a number of 64 bits"),
        ):
            if not holds:
                raise ParamsError(f"{name} is {getattr(self, name)}, it must be {range_}", where="params.yaml")


def choose(
    logits: "torch.Tensor",
    sampling: Sampling,
    uniform: "torch.Tensor | None" = None,
    seen: "torch.Tensor | None" = None,
) -> "torch.Tensor":
    """Return the chosen tokens [B] for logits [B, V].

    `uniform` [B] are numbers in [0, 1) (not needed when greedy); `seen` [B, V] marks the tokens of
    prompt and answer, needed for a penalty.
    """
    if seen is not None:
        logits = penalised(logits, seen, sampling.repetition_penalty)
    if uniform is None:
        return logits.argmax(-1)
    logits = logits / sampling.temperature
    if not sampling.top_k and sampling.top_p == 1:
        return invert(logits.softmax(-1), uniform)
    return _from_nucleus(logits, sampling, uniform, sampling.top_k or CANDIDATES)


def penalised(logits: "torch.Tensor", seen: "torch.Tensor", penalty: float) -> "torch.Tensor":
    """Return logits [B, V] where each seen token's is divided by the penalty, or multiplied when
    negative.

    Keskar et al. 2019, CTRL, section 4.1, as transformers reads it.
    """
    import torch

    return torch.where(seen, torch.where(logits < 0, logits * penalty, logits / penalty), logits)


def invert(weights: "torch.Tensor", uniform: "torch.Tensor") -> "torch.Tensor":
    """Return for each row the index [B] at which its cumulated weights [B, V] first exceed
    `uniform` of their sum.

    It is what a multinomial draw does, twenty times as fast; an index of weight 0 is never drawn.
    """
    import torch

    cumulated = weights.cumsum(-1)
    total = cumulated[:, -1:]
    # Rounding must not lift the mark to the total, past every index.
    mark = torch.minimum(uniform[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
    # A row that holds a NaN has no such index: its caller refuses it, once there is an index to go
    # on with.
    return torch.searchsorted(cumulated, mark, right=True)[:, 0].clamp_(max=weights.shape[-1] - 1)


def _from_nucleus(logits: "torch.Tensor", sampling: Sampling, uniform: "torch.Tensor", count: int) -> "torch.Tensor":
    """Draw from the `count` most probable tokens, where they hold the nucleus; else from all: a
    sort is slow.
    """
    values, indices = logits.topk(min(count, logits.shape[-1]))
    norm = (values if sampling.top_k else logits).logsumexp(-1, keepdim=True)
    probabilities = (values - norm).exp()
    cumulated = probabilities.cumsum(-1)
    kept = probabilities * (cumulated - probabilities < sampling.top_p)
    chosen = indices.gather(1, invert(kept, uniform)[:, None])[:, 0]
    if not sampling.top_k and values.shape[-1] < logits.shape[-1]:
        wide = (cumulated[:, -1] < sampling.top_p).nonzero()[:, 0]
        if len(wide):
            chosen[wide] = _from_nucleus(logits[wide], sampling, uniform[wide], logits.shape[-1])
    return chosen


def earlier(prompts: Sequence[Sequence[int]]) -> list[int]:
    """Return how many of the same came before each prompt."""
    before: Counter[bytes] = Counter()
    found = []
    for prompt in prompts:
        content = _content(prompt)
        found.append(before[content])
        before[content] += 1
    return found


def keys(prompts: Sequence[Sequence[int]], seed: int, before: Sequence[int] | None = None) -> npt.NDArray[np.uint64]:
    """Return a number [N] for each prompt, from seed, tokens and how many of the same came before
    (`earlier`), not its place. `before` says the latter where these prompts are a share of more.
    """
    numbers = np.empty(len(prompts), dtype=np.uint64)
    for place, (prompt, same) in enumerate(zip(prompts, before or earlier(prompts), strict=True)):
        salt = seed.to_bytes(8, "little", signed=True) + same.to_bytes(8, "little")
        digest = hashlib.blake2b(salt + _content(prompt), digest_size=8).digest()
        numbers[place] = int.from_bytes(digest, "little")
    return numbers


def _content(prompt: Sequence[int]) -> bytes:
    return np.asarray(prompt, dtype=np.int64).tobytes()


def uniforms(
    prompt_keys: npt.NDArray[np.uint64], samples: npt.NDArray[np.uint64], count: int
) -> npt.NDArray[np.float32]:
    """Return `count` numbers in [0, 1) for each (prompt, sample) as [B, count]: the SplitMix64
    stream of each pair.
    """
    start = mixed(mixed(prompt_keys) + samples * STEP)
    bits = mixed(start[:, None] + np.arange(1, count + 1, dtype=np.uint64) * STEP)
    return (bits >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)


def mixed(number: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """SplitMix64's finaliser (Steele, Lea and Flood 2014); products wrap."""
    number = (number ^ (number >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    number = (number ^ (number >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return number ^ (number >> np.uint64(31))
