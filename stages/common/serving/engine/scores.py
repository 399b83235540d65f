"""Log-probabilities of the tokens of answers and prompts: log softmax of the logits as the model
gives them, before temperature, penalty and grammar.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from stages.common.core import fused_head

if TYPE_CHECKING:
    import torch


class Score(NamedTuple):
    """A token and its log-probability (None: the first of a prompt, before which nothing stands),
    and the most probable at its place with theirs, best first.
    """

    token: int
    logprob: float | None
    top: tuple[tuple[int, float], ...] = ()
    ends: bool = False
    """Whether it ended the answer; it is then no part of its text."""


def of_tokens(logits: "torch.Tensor", tokens: "torch.Tensor", most: int) -> list[Score]:
    """Return the scores of the tokens [B] that were chosen by logits [B, V], with `most`
    alternatives each.
    """
    known = logits.float().log_softmax(-1)
    chosen = known.gather(1, tokens[:, None])[:, 0].tolist()
    values, places = known.topk(min(most, known.shape[-1]))
    tops = [tuple(zip(*one, strict=True)) for one in zip(places.tolist(), values.tolist(), strict=True)]
    return [Score(*one) for one in zip(tokens.tolist(), chosen, tops, strict=True)]


def of_prompt(model: Any, prompt: Sequence[int], most: int) -> tuple[list[Score], "torch.Tensor"]:
    """Return the scores of a prompt's tokens, and the logits [1, V] of what would follow.

    A vocabulary is large: where the logits of all places are too many to be held at once, the model
    reads the prompt again for each share of them.
    """
    import torch

    from stages.common.generation import architecture

    tokens = torch.tensor([list(prompt)], device=model.device)
    size = fused_head.at_once(model)
    found, last = [Score(prompt[0], None)], torch.empty(0)
    for start in range(0, len(prompt), size):
        architecture.forget_length(model)
        places = torch.arange(start, min(start + size, len(prompt)), device=model.device)
        short = {"logits_to_keep": places} if size < len(prompt) else {}
        logits = model(input_ids=tokens, use_cache=False, **short).logits[0]
        following = tokens[0, start + 1 : start + 1 + len(places)]
        found += of_tokens(logits[: len(following)], following, most)
        last = logits[-1:]
    return found, last.float()


def certain(scores: Sequence[Score], shown: str, decode: Callable[[list[int]], str]) -> list[Score]:
    """Return the scores of those first tokens that hold all of the text that is `shown`: behind it
    stands a stop string.
    """
    kept: list[Score] = []
    for score in scores:
        if len(decode([one.token for one in kept])) >= len(shown):
            break
        kept.append(score)
    return kept
