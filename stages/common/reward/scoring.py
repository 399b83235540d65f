"""A reward model's scores: one number an answer, read at its last token, the end of turn, in
training and out of it.

`reward_offset` in its config.json is the mean score of demonstrations, and is taken off every
score: the heads that transformers gives its classifiers have no bias it could be folded into.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stages.common.core import chat, models
from stages.common.core.records import Record
from stages.common.pairs import preference_pairs
from stages.common.runtime.errors import DataError
from stages.common.text.thoughts import without_thoughts

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load(folder: Path) -> "PreTrainedModel":
    """Return the reward model in `folder`, in fp32, ready to score. Raises DataError when it is
    none.
    """
    from transformers import AutoModelForSequenceClassification

    model = models.read(AutoModelForSequenceClassification, folder)
    if model.config.num_labels != 1:
        what = f"a reward model gives one number, this one {model.config.num_labels}"
        raise DataError(what, where=folder, remedy="run `dvc repro reward`")
    return model.to(models.device()).eval()


def begin(folder: Path, tokenizer: "PreTrainedTokenizerBase") -> "PreTrainedModel":
    """Return the language model in `folder` with a new head of one output, on the CPU in fp32, to
    be trained.

    The head starts at N(0, 1 / (d + 1)) (Stiennon et al. 2020). transformers reads the score at the
    last token that is not padding, so padding must not be the end of turn: DataError.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    if tokenizer.pad_token_id in (None, chat.end_of_turn(tokenizer)):
        what = f"padding is {tokenizer.pad_token}, scores are read at {chat.END_OF_TURN}"
        raise DataError(what, where=folder, remedy="run `dvc repro -f tokenizer`")
    heads = {"new": ("score.",), "unused": ("lm_head.",)}
    with models.unsplit():  # the head is drawn, and scores are compared, before the training begins
        model = models.read(AutoModelForSequenceClassification, folder, num_labels=1, **heads)
    model.config.pad_token_id = tokenizer.pad_token_id
    head = model.get_submodule("score").weight
    torch.nn.init.normal_(head, std=(head.shape[1] + 1) ** -0.5)
    return model


def score(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[Sequence[Record]],
    answers: Sequence[str],
    batch_size: int = 64,
) -> list[float]:
    """Return the reward of what each answer to its prompt (messages) says, in the order given; the
    same in any batch.

    Raises DataError for a score that is not a number, or a prompt with its answer beyond the
    model's context.
    """
    encoded = [
        preference_pairs.encode(tokenizer, prompt, without_thoughts(text))
        for prompt, text in zip(prompts, answers, strict=True)
    ]
    return score_rows(model, [prompt + answer for prompt, answer in encoded], batch_size)


def score_rows(model: "PreTrainedModel", rows: Sequence[Sequence[int]], batch_size: int = 64) -> list[float]:
    """Return the scores of whole token sequences, in the order given; rows of like length are read
    together.

    Raises DataError for a score that is not a number, or a row beyond the model's context.
    """
    limit = getattr(model.config, "max_position_embeddings", None)
    longest = max((len(row) for row in rows), default=0)
    if limit and longest > limit:
        raise DataError(f"an answer with its prompt has {longest} tokens, the reward model reads {limit}")
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    scores = [0.0] * len(rows)
    for start in range(0, len(order), batch_size):
        indices = order[start : start + batch_size]
        for index, value in zip(indices, score_tokens(model, [rows[index] for index in indices]), strict=True):
            scores[index] = value
    return scores


def score_tokens(model: "PreTrainedModel", rows: Sequence[Sequence[int]]) -> list[float]:
    """Return the scores of whole token sequences, each at its last token. Raises DataError for a
    NaN.
    """
    import torch

    from stages.common.generation import packed_forward

    groups = packed_forward.groups(model, [len(row) for row in rows])
    order, ends, start = [row for group in groups for row in group], [], 0
    for group in groups:
        width = max(len(rows[row]) for row in group)
        ends += [start + at * width + len(rows[row]) - 1 for at, row in enumerate(group)]
        start += width * len(group)
    with torch.inference_mode():
        hidden = packed_forward.read(model, rows, groups, ends)
        found = model.get_submodule("score")(hidden)[:, 0]
        values = torch.empty_like(found)
        values[order] = found
    if not bool(torch.isfinite(values).all()):
        raise DataError("the reward model gives a score that is not a number", remedy="run `dvc repro -f reward`")
    return [float(value) - float(getattr(model.config, "reward_offset", 0.0)) for value in values]
