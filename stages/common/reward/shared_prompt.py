"""One reading of a prompt for all its answers: they stand behind it in one row, and none sees
another.

Each answer attends to the prompt and to itself, and its positions go on where the prompt's end, so
its score is what it gets when read alone, up to rounding. The model's attention has to take a mask
[B, 1, T, T], or one for each kind of layer; `check` finds out.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from stages.common.reward import batches, score_head, scoring
from stages.common.reward.batches import Row

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

PROMPT, PADDING = 0, -1
REMEDY = "set it to false: the prompt is then read with each answer"


class Collator:
    """Makes a batch in which a prompt with its answers is one row, padded on the right with
    `pad`.
    """

    def __init__(self, pad: int, heads: int = 1) -> None:
        self.pad, self.heads = pad, heads

    def __call__(self, batch: Sequence[Row]) -> dict[str, "torch.Tensor"]:
        """Return input_ids, attention_mask, position_ids and segments [B, T], ends [N], and
        `batches.ordered`.

        `segments` is 0 in the prompt, k in answer k, -1 in the padding; `ends` are the places of
        the answers' last tokens in the batch flattened to [B x T].
        """
        import torch
        from torch.nn.utils.rnn import pad_sequence

        laid = [_lay_out(row) for row in batch]
        ids, positions, segments = ([torch.tensor(columns[at]) for columns, _ in laid] for at in range(3))
        input_ids = pad_sequence(ids, batch_first=True, padding_value=self.pad)
        longest = input_ids.shape[1]
        return {
            "input_ids": input_ids,
            "attention_mask": pad_sequence([torch.ones_like(row) for row in ids], batch_first=True),
            "position_ids": pad_sequence(positions, batch_first=True),
            "segments": pad_sequence(segments, batch_first=True, padding_value=PADDING),
            "ends": torch.tensor([number * longest + end for number, (_, ends) in enumerate(laid) for end in ends]),
            **batches.ordered(batch, self.heads),
        }


def _lay_out(row: Row) -> tuple[tuple[list[int], list[int], list[int]], list[int]]:
    start = batches.opening(row["rows"], row["lengths"])
    ids, positions, segments = list(row["rows"][0][:start]), list(range(start)), [PROMPT] * start
    ends = []
    for number, tokens in enumerate(row["rows"], 1):
        ids += tokens[start:]
        positions += range(start, len(tokens))
        segments += [number] * (len(tokens) - start)
        ends.append(len(ids) - 1)
    return (ids, positions, segments), ends


def mask(segments: "torch.Tensor", dtype: "torch.dtype") -> "torch.Tensor":
    """Return the additive mask [B, 1, T, T] of `segments` [B, T]: what stands before, in the prompt
    or the same answer.

    Padding sees the padding before it and itself: a row of nothing but minus infinity would have no
    softmax.
    """
    import torch

    reader, read = segments[:, :, None], segments[:, None, :]
    before = torch.ones(segments.shape[1], segments.shape[1], dtype=torch.bool, device=segments.device).tril()
    seen = before & ((reader == read) | ((read == PROMPT) & (reader > PROMPT)))
    return torch.zeros(seen.shape, dtype=dtype, device=segments.device).masked_fill_(~seen, torch.finfo(dtype).min)[
        :, None
    ]


def masks(segments: "torch.Tensor", positions: "torch.Tensor", config: Any, dtype: "torch.dtype") -> Any:
    """Return `mask`; where a window ends within a row, also a narrower one, by kind of layer.

    `positions` [B, T] are those of each answer read alone: a window counts them, not places in the
    row.
    """
    import torch

    from stages.common.core.sparse import pattern
    from stages.common.generation import architecture

    whole, window = mask(segments, dtype), architecture.window(config)
    distance = positions[:, :, None] - positions[:, None, :]
    if sparse := pattern.of(architecture.text(config)):
        return whole.masked_fill(~sparse.visible(distance), torch.finfo(dtype).min)
    if int(positions.max()) < window:
        return whole
    beyond = (distance >= window)[:, None]
    narrow = whole.masked_fill(beyond, torch.finfo(dtype).min)
    if getattr(architecture.text(config), "layer_types", None) is None:
        return narrow  # every layer has the window
    return {"full_attention": whole, "sliding_attention": narrow}


def scores(model: Any, head: Any, inputs: dict[str, "torch.Tensor"]) -> "torch.Tensor":
    """Return the scores [N], of several heads [N, K], of a batch of `Collator`, in fp32; `head` is
    the model's own, `model` may be wrapped.

    The classifiers of transformers pool one place a row, so their last hidden states are taken and
    scored here.
    """
    config = getattr(model, "module", model).config
    output = model(
        input_ids=inputs["input_ids"],
        attention_mask=masks(inputs["segments"], inputs["position_ids"], config, next(model.parameters()).dtype),
        position_ids=inputs["position_ids"],
        output_hidden_states=True,
        use_cache=False,
    )
    return score_head.head_outputs(head, output.hidden_states[-1].flatten(0, 1)[inputs["ends"]])


def check(model: "PreTrainedModel", rows: Sequence[Row], pad: int, where: str) -> None:
    """Raise ParamsError, naming the parameter `where`, unless the model scores answers behind one
    prompt as alone.
    """
    head, collator = model.get_submodule("score"), Collator(pad)
    read = lambda some: scores(model, head, scoring.placed(collator(some), model))  # noqa: E731  # what is compared
    scoring.compare(model, rows, read, "behind one prompt", where, REMEDY)
