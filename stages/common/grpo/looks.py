"""How GRPO's policy is watched: sampled answers to held-out prompts as in training, between two
steps.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from stages.common.finetuning import merging
from stages.common.generation.sampling import Sampling
from stages.common.grpo import answers
from stages.common.monitor.watch import Answers, Watched

if TYPE_CHECKING:
    import torch

    from stages.common.generation.engines.mirrored_policy import MirroredPolicy
    from stages.common.grpo.scored import Scored

READ_ROWS = 32
"""Rows read at once."""


class Looks(Watched):
    """Mixin before TRL's GRPOTrainer; a look comes before a step's first batch."""

    if TYPE_CHECKING:
        temperature: float
        top_p: float
        max_completion_length: int
        decode_batch_size: int
        eval_dataset: Any
        scored: Scored
        mirror: MirroredPolicy | None
        stops: Sequence[int]
        _step: int

    def training_step(self, model: Any, inputs: dict[str, Any], *rest: Any, **named: Any) -> Any:
        """Train on a batch; look at the policy before, when it is due."""
        every = self.watch.settings.watch_every if self.watch else 0
        if every and self.state.global_step % every == 0 and self._step % self.args.gradient_accumulation_steps == 0:
            self.look_now()
        return super().training_step(model, inputs, *rest, **named)

    def look_now(self) -> None:
        """Look at the policy of this step."""
        if self.watch is not None:
            self.look(self.watch.settings.watch_every)

    def watched_answers(self) -> Answers:
        """Return what the policy answers to the watched prompts, with the random numbers of every
        look.
        """
        asked = [dict(one) for one in self.eval_dataset.select(range(len(self.watch.asked) if self.watch else 0))]
        sampling = Sampling(temperature=self.temperature, top_p=self.top_p, seed=-1 - self.args.seed)
        prompts, most, size = [one["prompt"] for one in asked], self.max_completion_length, self.decode_batch_size
        with merging.whole(self) as policy:
            answering = merging.answering(policy, self.mirror)
            found = answers.shared(answering, prompts, most, self.stops, sampling, size, log_probabilities=True)
        ids = [answers.tokens(one) for one in found]
        rows = answers.answered(self.processing_class, asked, ids, self.stops, self.scored)
        return Answers(
            [row["answer"] for row in rows],
            [not row["ended"] for row in rows],
            [row["reward"] for row in rows],
            ids,
            [sum(one.log_probabilities) for one in found],
        )

    def drift(self, start: Answers) -> float:
        """Return the mean of log p - log p of now over the start's answers, sampled from p: KL of
        the start's policy to that of now, in nats a sequence. The start's policy is not held.
        """
        prompts = [self.eval_dataset[at]["prompt"] for at in range(len(start.tokens))]
        with merging.whole(self) as policy:
            now = log_probabilities(policy, prompts, start.tokens, self.temperature)
        return sum(was - one for was, one in zip(start.log_probs, now, strict=True)) / len(now)


def log_probabilities(
    policy: Any, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], temperature: float
) -> list[float]:
    """Return log p of each whole answer to its prompt, in nats."""
    import torch

    rows = [[*prompt, *answer] for prompt, answer in zip(prompts, answers, strict=True)]
    order = sorted(range(len(rows)), key=lambda at: len(rows[at]))
    found = [0.0] * len(rows)
    training = policy.training
    policy.eval()
    with torch.no_grad():
        for start in range(0, len(order), READ_ROWS):
            some = order[start : start + READ_ROWS]
            values = _read(policy, [rows[at] for at in some], [len(answers[at]) for at in some], temperature)
            for at, value in zip(some, values.tolist(), strict=True):
                found[at] = value
    policy.train(training)
    return found


def _read(policy: Any, rows: list[list[int]], counts: list[int], temperature: float) -> "torch.Tensor":
    """Return log p [n] of the last `counts` tokens of each row, read together, padded on the
    right.
    """
    import torch
    from torch.nn.utils.rnn import pad_sequence

    device = next(policy.parameters()).device
    ids = pad_sequence([torch.tensor(row) for row in rows], batch_first=True).to(device)
    lengths = torch.tensor([len(row) for row in rows], device=device)[:, None]
    places = torch.arange(ids.shape[1], device=device)[None]
    logits = policy(input_ids=ids, attention_mask=(places < lengths).long(), use_cache=False).logits[:, :-1].float()
    read = (logits / temperature).log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]
    counted = (places < lengths) & (places >= lengths - torch.tensor(counts, device=device)[:, None])
    return read.masked_fill(~counted[:, 1:], 0.0).sum(1)
