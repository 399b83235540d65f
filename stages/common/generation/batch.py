"""The batch of answers under way: prompts come in when rows are free, each step gives every row a
token, rows leave.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from stages.common.generation.engines.structured import Constraint, choose
from stages.common.generation.sampling import Sampling, keys, uniforms
from stages.common.runtime.errors import DataError
from stages.common.runtime.logs import log
from stages.common.runtime.progress import Progress

if TYPE_CHECKING:
    import numpy.typing as npt
    import torch
    from transformers import PreTrainedModel

# Reading a few prompts costs nearly a step of the whole batch, an empty row only its share of one.
REFILL_SHARE = 8


@dataclass(frozen=True)
class Continuation:
    """One answer: its tokens, and the stop token that ended it (None: cut by max_new_tokens or the
    model's context).
    """

    tokens: list[int]
    stop: int | None
    log_probabilities: list[float] = field(default_factory=list)
    """Of each token and then of the stop token, where there is one: log softmax(logits /
    temperature), before penalty, top-k and top-p (temperature 1 when greedy). Empty unless asked
    for.
    """


@dataclass(frozen=True)
class Order:
    """What is asked for: see `generator.decode`. `context` is the most tokens a prompt and its
    answer may have.
    """

    prompts: Sequence[Sequence[int]]
    context: int | None
    max_new_tokens: int
    stop: Sequence[int]
    sampling: Sampling
    samples: int
    log_probabilities: bool
    before: Sequence[int] | None = None
    constraint: Constraint | None = None

    def keys(self) -> "npt.NDArray[np.uint64]":
        """Return the number of each prompt that its random numbers come from."""
        return keys(self.prompts, self.sampling.seed, self.before)


class Batch:
    """The answers under way, one row each; `rows` holds what is known of them, tensors whose first
    axis is the row.
    """

    def __init__(self, model: "PreTrainedModel", order: Order, batch_size: int, progress: Progress) -> None:
        import torch

        from stages.common.generation import kv_cache

        self.model, self.order, self.batch_size, self.progress = model, order, batch_size, progress
        self.stop = torch.tensor(list(order.stop), dtype=torch.long, device=model.device)
        self.keys = order.keys()
        self.tokens = kv_cache.most_tokens(model)
        self.size = self.longest = 0
        self.rows: dict[str, torch.Tensor] = {}
        self.answers: dict[int, Continuation] = {}
        self.ends: dict[int, int] = {}
        """How many tokens the row of each answer under way has at most."""
        # The longest first: rows of like length share a step, and if memory is short it shows at
        # once.
        by_length = sorted(range(len(order.prompts)), key=lambda index: -len(order.prompts[index]))
        # Prompt, first sample, number of samples.
        self.queue = deque(
            (index, first, min(batch_size, order.samples - first))
            for index in by_length
            for first in range(0, order.samples, batch_size)
        )
        rows = self._room(by_length[0]) if by_length else batch_size
        self.cache = kv_cache.for_model(model, rows)
        if rows < batch_size:
            what = "memory has room for the keys and values of %s tokens: %s rows at first, not %s"
            log.info(what, f"{self.tokens:,}", rows, batch_size)

    def _end(self, index: int) -> int:
        end = len(self.order.prompts[index]) + self.order.max_new_tokens
        return min(end, self.order.context or end)

    def _room(self, index: int) -> int:
        """Return how many rows there may be when this prompt is among them."""
        from stages.common.generation import kv_cache

        longest = max(self._end(index), *self.ends.values(), 0)
        return kv_cache.rows_within(self.tokens, longest, self.batch_size)

    def wants_prompts(self) -> bool:
        """Whether it is time to read prompts: enough rows are free for it to pay, or all are."""
        if not self.queue or not self.size:
            return bool(self.queue)
        index, _, count = self.queue[0]
        room = self._room(index)
        return self.cache.refills and room - self.size >= max(room // REFILL_SHARE, count)

    def _next(self) -> list[tuple[int, int, int]]:
        """Take from the queue what there are free rows for; of more samples than rows, some."""
        taken: list[tuple[int, int, int]] = []
        held = self.size
        while self.queue:
            index, first, count = self.queue[0]
            free = self._room(index) - held
            if count > free and held:
                break
            if count > free:
                self.queue[0] = (index, first + free, count - free)
                count = free
            else:
                self.queue.popleft()
            taken.append((index, first, count))
            held += count
            answers = range(index * self.order.samples + first, index * self.order.samples + first + count)
            self.ends |= dict.fromkeys(answers, self._end(index))
        return taken

    def admit(self) -> None:
        """Read as many prompts as there are free rows for."""
        import torch

        taken = self._next()
        # The last token of a prompt is left to the next step: it gives the logits of the answer's
        # first token.
        prefixes = [self.order.prompts[index][:-1] for index, _, _ in taken]
        self.longest = max(self.longest, *(len(prefix) for prefix in prefixes))
        self.cache.admit(prefixes, [count for _, _, count in taken], self.longest)
        new = self._new_rows([(index, n) for index, first, count in taken for n in range(first, first + count)])
        self.rows = {name: torch.cat([self.rows[name], new[name]]) for name in new} if self.size else new
        self.size = len(self.rows["answer"])

    def _new_rows(self, pairs: Sequence[tuple[int, int]]) -> "dict[str, torch.Tensor]":
        import torch

        order = self.order
        prompts = [order.prompts[index] for index, _ in pairs]
        lengths = torch.tensor([len(prompt) for prompt in prompts])
        limits = torch.full_like(lengths, order.max_new_tokens)
        rows = {
            "answer": torch.tensor([index * order.samples + sample for index, sample in pairs]),
            "token": torch.tensor([prompt[-1] for prompt in prompts]),
            "position": lengths - 1,
            "count": torch.zeros_like(lengths),
            "limit": limits.minimum(order.context - lengths) if order.context else limits,
            "tokens": torch.zeros(len(pairs), order.max_new_tokens, dtype=torch.long),
        }
        if order.log_probabilities:
            rows["log_probabilities"] = torch.zeros(len(pairs), order.max_new_tokens)
        if order.sampling.temperature:
            indices, numbers = np.array(pairs, dtype=np.uint64).T
            rows["uniform"] = torch.from_numpy(uniforms(self.keys[indices], numbers, order.max_new_tokens))
        if order.sampling.repetition_penalty != 1:
            vocabulary = self.model.get_output_embeddings().weight.shape[0]
            rows["seen"] = torch.zeros(len(pairs), vocabulary, dtype=torch.bool)
            for seen, prompt in zip(rows["seen"], prompts, strict=True):
                seen[list(prompt)] = True
        return {name: value.to(self.model.device) for name, value in rows.items()}

    def step(self) -> None:
        """Give every row its next token; rows that end leave with their answers."""
        import torch

        rows, order = self.rows, self.order
        logits = self.cache.step(rows["token"], rows["position"], self.longest).float()
        place = rows["count"][:, None]
        uniform = rows["uniform"].gather(1, place)[:, 0] if "uniform" in rows else None
        rows["token"] = token = choose(
            logits, order.sampling, uniform, rows.get("seen"), order.constraint, rows["answer"]
        )
        rows["tokens"].scatter_(1, place, token[:, None])
        if "seen" in rows:
            rows["seen"].scatter_(1, token[:, None], True)
        if "log_probabilities" in rows:
            found = (logits / (order.sampling.temperature or 1)).log_softmax(-1).gather(1, token[:, None])
            rows["log_probabilities"].scatter_(1, place, found)
        rows["position"] += 1
        rows["count"] += 1
        is_stop = torch.isin(token, self.stop)
        is_over = is_stop | (rows["count"] >= rows["limit"])
        broken = ~logits.amax(-1).isfinite()
        # One reading of the device a step.
        any_broken, any_over, self.longest = torch.stack((broken.any(), is_over.any(), rows["position"].max())).tolist()
        if any_broken:
            row = self.rows["answer"][broken][0], self.rows["count"][broken][0]
            refuse(self.model, int(row[0]) // self.order.samples, int(row[1]))
        if any_over:
            self._leave(is_over, is_stop)

    def _leave(self, is_over: "torch.Tensor", is_stop: "torch.Tensor") -> None:
        """File the answers that are over and close the gaps they leave."""
        rows = {name: self.rows[name][is_over] for name in ("answer", "tokens", "count")}
        scores = self.rows["log_probabilities"][is_over].tolist() if self.order.log_probabilities else None
        stopped = is_stop[is_over].tolist()
        table = zip(rows["answer"].tolist(), rows["tokens"].tolist(), rows["count"].tolist(), stopped, strict=True)
        for number, (answer, tokens, count, at_stop) in enumerate(table):
            self.answers[answer] = Continuation(
                tokens[: count - at_stop],
                tokens[count - 1] if at_stop else None,
                scores[number][:count] if scores else [],
            )
            del self.ends[answer]
            self.progress.row(self.progress.rows + 1)
        order = survivors(is_over)
        self.size = len(order)
        self.cache.keep(order)
        self.rows = {name: value[order] for name, value in self.rows.items()}
        self.longest = int(self.rows["position"].max()) if self.size else 0


def refuse(model: "PreTrainedModel", prompt: int, token: int) -> NoReturn:
    """Raise DataError for logits that are not numbers, at so many tokens of a prompt's answer."""
    raise DataError(
        f"the model's logits are not numbers, at token {token} of prompt {prompt}'s answer",
        where=model.name_or_path or type(model).__name__,
        remedy="its training diverged or the file is damaged: use an earlier checkpoint",
    )


def survivors(is_over: "torch.Tensor") -> "torch.Tensor":
    """Return the rows [B'] that go on, those behind the new end B' in the places of the ones that
    leave [B].
    """
    import torch

    alive = (~is_over).nonzero()[:, 0]
    order = torch.arange(len(alive), device=is_over.device)
    order[is_over[: len(alive)]] = alive[alive >= len(alive)]
    return order
