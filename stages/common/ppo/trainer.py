"""PPO (Schulman et al. 2017; Ouyang et al. 2022, section 3.5) as a transformers Trainer: one step,
one minibatch.

The data set is a schedule: places in rollouts, each read `ppo_epochs` times in minibatches. A
rollout is made when the first of its minibatches is due. So batches, optimiser, schedule, clipping,
accumulation, processes and checkpoints are the Trainer's, and a resume needs of PPO's own only the
rollout, the KL controller and the value model.
"""

import math
import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from stages.common.finetuning import merging
from stages.common.monitor.watch import Answers, Watched
from stages.common.ppo import advantages, checkpointing
from stages.common.ppo import losses as ppo_losses
from stages.common.ppo.kl import kl_k3
from stages.common.ppo.schedule import places, turns
from stages.common.ppo.setup import Setup
from stages.common.runtime import process
from stages.common.runtime.errors import StopRequested

if TYPE_CHECKING:
    import torch
    from transformers import TrainerState

    from stages.common.ppo.rollouts import Rollout

TABLE_ROWS = 50
WATCHED = -2
"""Number of the rollouts of looks."""


class Updates(Watched, checkpointing.Saved):
    """Mixin before a `transformers.Trainer` whose model is an `ActorCritic`."""

    noted: Sequence[dict[str, float]] = ()
    pending: Mapping[str, float] = MappingProxyType({})
    headline: tuple[str, ...] = ("reward", "kl")
    watched: "Rollout | None" = None
    """What the last look saw."""
    seconds: Mapping[str, float] = MappingProxyType({})
    """Spent since the last rollout's first step was logged, by kind of work."""

    def __init__(self, setup: Setup, **named: Any) -> None:
        data = {"train_dataset": setup.schedule, "eval_dataset": setup.schedule, "data_collator": places}
        super().__init__(setup, **data, **named)

    def is_over(self, reached: "TrainerState") -> bool:
        """Whether a state is that of a training at its end, or one whose KL went beyond the
        limit.
        """
        far = any(row.get("kl_k1", 0.0) > self.setup.settings.kl_stop for row in reached.log_history)
        return far or super().is_over(reached)

    def _get_train_sampler(self, *_: Any) -> Any:
        from torch.utils.data import SequentialSampler

        return SequentialSampler(self.setup.schedule)

    def count_tokens(self, inputs: dict[str, Any]) -> int:
        """Return the answer tokens of a minibatch of mean length."""
        return int(self.rollout.lengths().float().mean() * len(inputs["place"])) if self.rollout else 0

    def training_step(self, model: Any, inputs: dict[str, Any], *rest: Any, **named: Any) -> Any:
        """Train on a minibatch, on the clock."""
        began, elsewhere = time.monotonic(), sum(self.seconds.values())
        loss = super().training_step(model, inputs, *rest, **named)
        spent = time.monotonic() - began - (sum(self.seconds.values()) - elsewhere)
        self.seconds = {**self.seconds, "update": self.seconds.get("update", 0.0) + spent}
        return loss

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return policy loss + value_weight * value loss + ptx_weight * language-model loss of a
        minibatch.
        """
        settings, schedule = self.setup.settings, self.setup.schedule
        epoch = self.state.global_step // schedule.updates
        number, rows, together, count = schedule.minibatch(epoch, int(inputs["place"][0]))
        rollout = self.rollout if self.rollout and self.rollout.number == number else self.next_rollout(number)
        old, advantages, old_values, returns = (
            column.to(self.args.device)
            for column in rollout.tokens(rows, "log_probs", "advantages", "values", "returns")
        )
        episodes = ([rollout.episodes.prompts[row] for row in rows], [rollout.episodes.answers[row] for row in rows])
        read, ptx = model(*episodes, self._blocks(count))
        weights = None
        if "sampled" in rollout.columns:
            weights = ppo_losses.importance(old, rollout.tokens(rows, "sampled")[0].to(old.device))
        policy, clipped = ppo_losses.policy_loss(read.log_probs, old, advantages, settings.clip, weights)
        value, value_clipped = ppo_losses.value_loss(read.values, old_values, returns, settings.value_clip or math.inf)
        # A token weighs the same in every share of an optimiser step, however many tokens the
        # shares have.
        share = len(old) / int(rollout.lengths()[together].sum()) * schedule.world * schedule.accumulation
        learns = float(number >= settings.value_warmup)
        loss = share * (learns * policy + settings.value_weight * value)
        self.note(
            policy_loss=policy,
            value_loss=value,
            clip_fraction=clipped,
            value_clip_fraction=value_clipped,
            entropy=read.entropy.mean(),
            update_kl=kl_k3(old, read.log_probs).mean(),
            **({} if ptx is None else {"ptx_loss": ptx}),
        )
        return loss if ptx is None else loss + learns * settings.ptx_weight * ptx

    def next_rollout(self, number: int) -> "Rollout":
        """Make rollout `number`; on a request to stop, save what there is and leave. A KL beyond
        the limit ends all.
        """
        schedule, prompts, controller = self.setup.schedule, self.setup.prompts, self.setup.controller
        size = schedule.rollout
        chosen = turns(schedule.seed, start=number * size, count=size, among=len(prompts))
        try:
            if self.watch and number % self.watch.settings.watch_every == 0:
                self.look(self._interval())
            rollout = self._collect([prompts[index] for index in chosen], number)
        except StopRequested:
            self._save_checkpoint(self.model, None)
            raise
        self.setup.collector.finish(rollout, controller.coefficient)
        rollout.figures["kl_coefficient"] = controller.coefficient
        controller.update(rollout.figures["kl_k1"], size)
        self.rollout = rollout
        self.pending = dict(rollout.figures)
        self.seconds = {**self.seconds, **rollout.seconds}
        if rollout.figures["kl_k1"] > self.setup.settings.kl_stop:
            self.control.should_training_stop = True
        return rollout

    def _collect(self, prompts: Sequence[list[int]], number: int) -> "Rollout":
        """Answer prompts; where the trained forward runs under autocast, log-probabilities are read
        under it too.
        """
        autocast = self.accelerator.autocast if self.args.bf16 or self.args.fp16 else None
        with merging.whole(self) as models:
            return self.setup.collector.collect(models, prompts, number, autocast)

    def _interval(self) -> int:
        """Return the optimiser steps between two looks."""
        schedule = self.setup.schedule
        every = self.watch.settings.watch_every if self.watch else 1
        return every * schedule.updates // schedule.rollouts

    def watched_answers(self) -> Answers:
        """Return what the policy answers to the watched prompts, as in training, and is paid for
        it.
        """
        collector, settings = self.setup.collector, self.setup.settings
        count = settings.watch_prompts
        rollout = self._collect(self.setup.held_out[:count], WATCHED)
        self.watched = rollout
        paid = advantages.end_penalty(
            collector.payment.total(rollout.scores, rollout.paid), rollout.ended, settings.end_penalty
        )
        return Answers(
            [str(self.processing_class.decode(one, skip_special_tokens=True)) for one in rollout.episodes.answers],
            [not ended for ended in rollout.ended.tolist()],
            paid.tolist(),
            [list(one) for one in rollout.episodes.answers],
            rollout.columns["log_probs"].sum(1).tolist(),
        )

    def drift(self, start: Answers) -> float:
        """Return KL of the policy of the last look to its reference, in nats a sequence."""
        return self.watched.figures["kl"] if self.watched else 0.0

    def _blocks(self, count: int) -> "torch.Tensor | None":
        """Return the pretraining blocks [m, L] read beside minibatch share `count`, or None without
        ptx.
        """
        import torch

        blocks = self.setup.blocks
        if blocks is None:
            return None
        size = self.setup.settings.ptx_blocks
        chosen = turns(self.setup.schedule.seed + 1, start=count * size, count=size, among=len(blocks))
        return torch.stack([blocks[index]["input_ids"] for index in chosen]).to(self.args.device)

    def note(self, **figures: "torch.Tensor") -> None:
        """Remember a minibatch's figures until the step is logged."""
        self.noted = [*self.noted, {name: float(value.detach()) for name, value in figures.items()}]

    def log(self, logs: dict[str, float], *rest: Any, **named: Any) -> None:
        """Log the step with what was noted of its minibatches and, at a rollout's first step, of
        the rollout.
        """
        if "loss" in logs:
            noted, self.noted = self.noted, ()
            logs |= {name: sum(one[name] for one in noted) / len(noted) for name in (noted[0] if noted else {})}
            logs |= self.pending
            if self.rollout and self.pending:
                tokens = int(self.rollout.lengths().sum())
                speeds = {f"answer_tokens_per_second/{name}": tokens / took for name, took in self.seconds.items()}
                took = {f"seconds/{name}": took for name, took in self.seconds.items()}
                self.setup.run.metrics(took | speeds, self.state.global_step)
                self.seconds = {}
            self.pending = {}
        super().log(logs, *rest, **named)

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Answer the held-out prompts as in training, always with the same random numbers; log
        figures and a table.
        """
        if self.state.global_step >= self.state.max_steps:
            self.look(self._interval())
        rollout = self._collect(self.setup.held_out, -1)
        metrics = {f"eval_{name}": value for name, value in rollout.figures.items()}
        self.log(metrics)
        if process.is_main_process():
            self.setup.run.table(f"answers-{self.state.global_step:06d}", self.table(rollout))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def table(self, rollout: "Rollout") -> list[dict[str, Any]]:
        """Return prompts, answers and scores to be looked at."""
        decode = self.processing_class.decode
        rows = zip(rollout.episodes.prompts, rollout.episodes.answers, rollout.scores.tolist(), strict=True)
        return [
            {"prompt": decode(prompt), "answer": decode(answer), "reward": round(score, 4)}
            for prompt, answer, score in list(rows)[:TABLE_ROWS]
        ]
