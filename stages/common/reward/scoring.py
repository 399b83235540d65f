"""A reward model's scores: one number an answer, read at its last token, the end of turn, in
training and out of it.

`reward_offset` in its config.json is the mean score of demonstrations, and is taken off every
score: the heads that transformers gives its classifiers have no bias it could be folded into. With
several heads it is a list, one for each.
"""

import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.common.core import models, precision, special_tokens
from stages.common.core.records import Record
from stages.common.generation import generator
from stages.common.pairs import preference_pairs
from stages.common.reward import batches, score_head
from stages.common.reward.batches import Row
from stages.common.runtime import ranks
from stages.common.runtime.errors import DataError, ParamsError
from stages.common.text.thoughts import without_thoughts

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

CHECKED, TOLERANCE = 4, 1e-4


def load(folder: Path, dtype: Any = None, std_penalty: float = 0.0) -> "PreTrainedModel":
    """Return the reward model in `folder`, ready to score: in `dtype`, or as `precision.frozen`
    says, its head in fp32. Of several heads the score is mean - `std_penalty` x standard deviation.

    Raises DataError when it is none, and ParamsError for a penalty on a single head.
    """
    from transformers import AutoModelForSequenceClassification

    precision.fast_products()
    place = ranks.device()
    config = models.load_config(folder)
    score_head.register(config)
    kind = AutoModelForSequenceClassification._model_mapping[type(config)]
    kind._keep_in_fp32_modules_strict = {*(kind._keep_in_fp32_modules_strict or ()), "score"}
    model = score_head.whole_head(
        models.read(AutoModelForSequenceClassification, folder, dtype=dtype or precision.frozen(folder))
    )
    heads = int(getattr(model.config, score_head.HEADS, 1))
    if model.config.num_labels != heads:
        what = f"a reward model gives one number, this one {model.config.num_labels}"
        raise DataError(what, where=folder, remedy="run `dvc repro reward`")
    if std_penalty and heads == 1:
        what = "'heads_std_penalty' has no effect: the reward model has one head"
        raise ParamsError(what, where=folder, remedy="set reward.heads above 1, or the penalty to 0")
    model.std_penalty = std_penalty
    return model.to(place).eval()


def begin(folder: Path, tokenizer: "PreTrainedTokenizerBase", heads: int = 1, **options: Any) -> "PreTrainedModel":
    """Return the language model in `folder` with a new head of one output, or of one for each of
    several heads, to be trained: on the CPU, or in parts on each process's device under ZeRO-3.

    Each head starts at N(0, 1 / (d + 1)) (Stiennon et al. 2020). transformers reads the score at
    the last token that is not padding, so the tokenizer gets another token to pad with where that
    is the end of turn. `options` are from_pretrained's.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    special_tokens.set_padding(tokenizer)
    config = models.load_config(folder)
    score_head.register(config)
    # GPT-NeoX calls its head otherwise in its file.
    parts = {"new": ("score.",), "unused": (f"{score_head.names(config)[1]}.", "embed_out.")}
    before = torch.get_rng_state()
    model = models.read(AutoModelForSequenceClassification, folder, num_labels=heads, **parts, **options)
    score_head.draw(model.get_submodule("score").weight, before)
    if heads > 1:
        setattr(model.config, score_head.HEADS, heads)
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        with torch.random.fork_rng(devices=[]):  # under ZeRO-3 the main process alone draws
            model.resize_token_embeddings(len(tokenizer))
    for part in (model.config, model.config.get_text_config()):
        part.pad_token_id = tokenizer.pad_token_id
    return score_head.whole_head(model)


def last_scores(model: Any, head: Any, inputs: "dict[str, torch.Tensor]") -> "torch.Tensor":
    """Return the scores [N], of several heads [N, K], of a batch of `batches.Collator`, in fp32;
    `head` is the model's own.
    """
    import torch

    ends = inputs["attention_mask"].sum(1) - 1
    output = model(input_ids=inputs["input_ids"], output_hidden_states=True, use_cache=False)
    return score_head.head_outputs(head, output.hidden_states[-1][torch.arange(len(ends), device=ends.device), ends])


def check(model: "PreTrainedModel", rows: Sequence[Row], pad: int, where: str) -> None:
    """Raise ParamsError, naming the parameter `where`, unless answers of a batch score as alone."""
    head, collator = model.get_submodule("score"), batches.Collator(pad)
    read = lambda some: last_scores(model, head, placed(collator(some), model))  # noqa: E731  # what is compared
    compare(model, rows, read, "beside each other", where, "set it so low that no row goes beyond its first context")


def placed(batch: "dict[str, torch.Tensor]", model: Any) -> "dict[str, torch.Tensor]":
    """Return a batch on the model's device."""
    return {name: value.to(model.device) for name, value in batch.items()}


def compare(
    model: "PreTrainedModel",
    rows: Sequence[Row],
    read: "Callable[[Sequence[Row]], torch.Tensor]",
    how: str,
    where: str,
    remedy: str,
) -> None:
    """Raise ParamsError unless `read` scores the answers of rows as `score_rows` does later.

    Tried are a few, and the longest where it goes beyond a window, or the length RoPE is turned by.
    """
    import torch

    from stages.common.generation import architecture, packed_forward

    some, longest = list(rows[:CHECKED]), max(rows, key=lambda row: int(row["length"]))
    if longest["length"] > min(architecture.window(model.config), architecture.rope_limit(model.config)):
        some.append(longest)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), packed_forward.whole_in_turn(model):
            together = read(some)
            together = together.mean(1) if together.dim() == 2 else together
            alone = together.new_tensor(score_rows(model, [tokens for row in some for tokens in row["rows"]]))
    except (TypeError, ValueError, RuntimeError, IndexError, KeyError, AttributeError) as error:
        raise ParamsError(
            f"this model does not read several answers {how}: {error}", where=where, remedy=remedy
        ) from error
    finally:
        model.train(was_training)
    difference = float((together - alone).abs().max())
    rounding = max(TOLERANCE, 4 * torch.finfo(model.dtype).eps)
    if not difference <= rounding * max(1.0, float(alone.abs().max())):
        what = f"this model scores answers {how} otherwise than alone, by up to {difference:.2g}"
        raise ParamsError(what, where=where, remedy=remedy)


def score(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[Sequence[Record]],
    answers: Sequence[str],
    batch_size: int = 64,
) -> list[float]:
    """Return the reward of what each answer to its prompt (messages) says, in the order given; the
    same in any batch. The processes of a stage share the batches.

    Raises DataError for a score that is not a number, or a prompt with its answer beyond the
    model's context.
    """
    encoded = [
        preference_pairs.encode(tokenizer, prompt, without_thoughts(text))
        for prompt, text in zip(prompts, answers, strict=True)
    ]
    return score_rows(model, [prompt + answer for prompt, answer in encoded], batch_size, shared=True)


def said(tokenizer: "PreTrainedTokenizerBase", answer: Sequence[int]) -> list[int]:
    """Return the tokens of an answer without its thoughts, which are scored; of one without any, as
    they are.
    """
    text = str(tokenizer.decode(answer, skip_special_tokens=True))
    spoken = without_thoughts(text)
    return list(answer) if spoken == text else list(tokenizer(spoken, add_special_tokens=False)["input_ids"])


def score_rows(
    model: "PreTrainedModel", rows: Sequence[Sequence[int]], batch_size: int = 64, *, shared: bool = False
) -> list[float]:
    """Return the scores of whole token sequences as `head_rows` does, of several heads what `load`
    makes of them.
    """
    penalty = float(getattr(model, "std_penalty", 0.0))
    return [united(one, penalty) for one in head_rows(model, rows, batch_size, shared=shared)]


def united(scores: Sequence[float], penalty: float) -> float:
    """Return the mean of several heads' scores less `penalty` times their standard deviation (over
    n - 1; Coste et al. 2024, section 3.2, with the deviation for the variance); of one, itself.
    """
    if len(scores) == 1:
        return scores[0]
    return statistics.fmean(scores) - (penalty * statistics.stdev(scores) if penalty else 0.0)


def head_rows(
    model: "PreTrainedModel", rows: Sequence[Sequence[int]], batch_size: int = 64, *, shared: bool = False
) -> list[list[float]]:
    """Return the scores of whole token sequences, one of each head, in the order given; rows of
    like length are read together. Where they are the same rows in all processes, these may read a
    batch each (`shared`).

    Raises DataError for a score that is not a number, or a row beyond the model's context.
    """
    limit = generator.context(model)
    longest = max((len(row) for row in rows), default=0)
    if limit and longest > limit:
        raise DataError(f"an answer with its prompt has {longest} tokens, the reward model reads {limit}")
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]

    def read(mine: Iterable[list[int]]) -> list[list[list[float]]]:
        return [head_tokens(model, [rows[index] for index in indices]) for indices in mine]

    scores: list[list[float]] = [[]] * len(rows)
    for indices, values in zip(batches, ranks.shared(batches, read) if shared else read(batches), strict=True):
        for index, value in zip(indices, values, strict=True):
            scores[index] = value
    return scores


def head_tokens(model: "PreTrainedModel", rows: Sequence[Sequence[int]]) -> list[list[float]]:
    """Return the scores of whole token sequences, each at its last token, one of each head. Raises
    DataError for a NaN.
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
        found = score_head.head_outputs(model.get_submodule("score"), hidden)
        values = torch.empty_like(found)
        values[order] = found
    if not bool(torch.isfinite(values).all()):
        raise DataError("the reward model gives a score that is not a number", remedy="run `dvc repro -f reward`")
    known = score_head.offsets(model.config)
    return [
        [value - offset for value, offset in zip(row, known, strict=True)]
        for row in values.reshape(len(rows), -1).tolist()
    ]
