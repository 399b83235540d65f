"""A reward model's scores: one number an answer, read at its last token, the end of turn, in training and out of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stages.common import models, preferences
from stages.common.errors import DataError
from stages.common.records import Record

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load(folder: Path) -> "PreTrainedModel":
    """Return the reward model in `folder`, in fp32, ready to score. Raises DataError when it is none."""
    import torch
    from transformers import AutoModelForSequenceClassification
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    models.check(folder)
    try:
        model = AutoModelForSequenceClassification.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(f"cannot load the reward model: {error}", where=folder, remedy=models.REMEDY) from error
    if model.config.num_labels != 1:
        what = f"a reward model gives one number, this one {model.config.num_labels}"
        raise DataError(what, where=folder, remedy="run `dvc repro reward`")
    return model.to(models.device()).eval()


def score(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[Sequence[Record]],
    answers: Sequence[str],
    batch_size: int = 64,
) -> list[float]:
    """Return the reward of each answer to its prompt (messages), in the order given; the same in any batch.

    Raises DataError for a score that is not a number, or a prompt with its answer beyond the model's context.
    """
    encoded = [preferences.encode(tokenizer, prompt, text) for prompt, text in zip(prompts, answers, strict=True)]
    rows = [prompt + answer for prompt, answer in encoded]
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
    """Return the scores of whole token sequences, each at its last token. Raises DataError for a NaN."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    tensors = [torch.tensor(row) for row in rows]
    ids = pad_sequence(tensors, batch_first=True).to(model.device)
    mask = pad_sequence([torch.ones_like(row) for row in tensors], batch_first=True).to(model.device)
    head = model.get_submodule("score")
    with torch.inference_mode():
        hidden = model.base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        values = head(hidden[torch.arange(len(rows)), mask.sum(dim=1) - 1])[:, 0]
    if not bool(torch.isfinite(values).all()):
        raise DataError("the reward model gives a score that is not a number", remedy="run `dvc repro -f reward`")
    return [float(value) for value in values]
