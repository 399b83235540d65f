"""PPO (Schulman et al. 2017; Ouyang et al. 2022, section 3.5) as a transformers Trainer: one step, one minibatch.

The data set is a schedule: places in rollouts, each read `ppo_epochs` times in minibatches. A rollout is made when the
first of its minibatches is due. So batches, optimiser, schedule, clipping, accumulation, processes and checkpoints are
the Trainer's, and a resume needs of PPO's own only the rollout, the KL controller and the value model.
"""

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.common.ppo import losses as ppo_core
from stages.common.runtime import process
from stages.common.runtime.errors import ParamsError, StopRequested

if TYPE_CHECKING:
    import torch

    from stages.common.ppo.rollouts import Rollout

TABLE_ROWS = 50
log = logging.getLogger("lathe")


@dataclass(frozen=True)
class Schedule:
    """What is read when. Sizes count episodes over all processes; `batch` those of one process and one backward."""

    rollout: int
    rollouts: int
    """Rollouts of an epoch."""
    ppo_epochs: int
    batch: int
    accumulation: int
    rank: int
    world: int
    seed: int

    def check(self) -> "Schedule":
        """Return self. Raises ParamsError where minibatches of one optimiser step would straddle two rollouts."""
        step = self.batch * self.world * self.accumulation
        if self.rollout % step:
            what = f"a rollout of {self.rollout} episodes is not a whole number of optimiser steps of {step}"
            raise ParamsError(what, where="ppo.rollout_episodes", remedy=f"make it a multiple of {step}")
        return self

    def __len__(self) -> int:
        """Return the places of an epoch."""
        return self.rollouts * self.ppo_epochs * self.rollout

    def __getitem__(self, place: int) -> int:
        """Return the place itself: the Trainer hands a process the places of its share of a minibatch."""
        return place

    def minibatch(self, epoch: int, place: int) -> tuple[int, list[int], list[int], int]:
        """Return the rollout's number, this process's rows of it, the optimiser step's rows, and a number of its own.

        `place` is the first one of this process's share. All processes agree on the order of rows, which is drawn anew
        in every PPO epoch; the last number counts shares from the start of training.
        """
        shares, parts = place // self.batch, self.rollout // (self.batch * self.world)
        step = shares // self.world
        number, within = divmod(step, self.ppo_epochs * parts)
        number += epoch * self.rollouts
        ppo_epoch, part = divmod(within, parts)
        order = np.random.default_rng([self.seed, number, ppo_epoch]).permutation(self.rollout).tolist()
        wide = self.batch * self.world
        start, first = part * wide + self.rank * self.batch, part - part % self.accumulation
        count = (number * self.ppo_epochs * parts + within) * self.world + self.rank
        together = order[first * wide : (first + self.accumulation) * wide]
        return number, order[start : start + self.batch], together, count


def turns(seed: int, start: int, count: int, among: int) -> list[int]:
    """Return `count` of `among` indices from place `start` of an endless sequence of random passes over all of them."""
    found: list[int] = []
    while len(found) < count:
        passed, place = divmod(start + len(found), among)
        order = np.random.default_rng([seed, passed]).permutation(among)
        found += order[place : place + count - len(found)].tolist()
    return found


def places(batch: Sequence[int]) -> "dict[str, torch.Tensor]":
    """Return a minibatch: where in the schedule it stands."""
    import torch

    return {"place": torch.tensor(batch)}


class Updates:
    """Mixin before `training.Resumable` and a Trainer whose model is an `ActorCritic`; the stage sets what is named."""

    settings: Any
    schedule: Schedule
    collector: Any
    controller: ppo_core.FixedKL
    prompts: list[list[int]]
    held_out: list[list[int]]
    blocks: Any
    run: Any
    rollout: "Rollout | None" = None
    noted: Sequence[dict[str, float]] = ()
    pending: Mapping[str, float] = MappingProxyType({})
    headline: tuple[str, ...] = ("reward", "kl")
    seconds: dict[str, float] = {}
    """Spent since the last rollout's first step was logged, by kind of work."""

    def is_over(self: Any, reached: Any) -> bool:
        """Whether a `TrainerState` is that of a training at its end, or one whose KL went beyond the limit."""
        far = any(row.get("kl_k1", 0.0) > self.settings.kl_stop for row in reached.log_history)
        return far or super().is_over(reached)  # type: ignore[misc]  # mixin

    def _get_train_sampler(self: Any, *_: Any) -> Any:
        from torch.utils.data import SequentialSampler

        return SequentialSampler(self.schedule)

    def count_tokens(self: Any, inputs: dict[str, Any]) -> int:
        """Return the answer tokens of a minibatch of mean length."""
        return int(self.rollout.lengths().float().mean() * len(inputs["place"])) if self.rollout else 0

    def training_step(self: Any, model: Any, inputs: dict[str, Any], *rest: Any, **named: Any) -> Any:
        """Train on a minibatch, on the clock."""
        began, elsewhere = time.monotonic(), sum(self.seconds.values())
        loss = super().training_step(model, inputs, *rest, **named)  # type: ignore[misc]  # mixin
        spent = time.monotonic() - began - (sum(self.seconds.values()) - elsewhere)
        self.seconds = {**self.seconds, "update": self.seconds.get("update", 0.0) + spent}
        return loss

    def compute_loss(
        self: Any, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return policy loss + value_weight * value loss + ptx_weight * language-model loss of a minibatch."""
        epoch = self.state.global_step // self.updates_per_epoch()
        number, rows, together, count = self.schedule.minibatch(epoch, int(inputs["place"][0]))
        if self.rollout is None or self.rollout.number != number:
            self.next_rollout(model, number)
        rollout, settings = self.rollout, self.settings
        old, advantages, old_values, returns = (
            column.to(self.args.device)
            for column in rollout.tokens(rows, "log_probs", "advantages", "values", "returns")
        )
        episodes = ([rollout.episodes.prompts[row] for row in rows], [rollout.episodes.answers[row] for row in rows])
        read, ptx = model(*episodes, self._blocks(count))
        policy, clipped = ppo_core.policy_loss(read.log_probs, old, advantages, settings.clip)
        value, value_clipped = ppo_core.value_loss(read.values, old_values, returns, settings.value_clip or math.inf)
        # A token weighs the same in every share of an optimiser step, however many tokens the shares have.
        share = len(old) / int(rollout.lengths()[together].sum()) * self.schedule.world * self.schedule.accumulation
        learns = float(number >= settings.value_warmup)
        loss = share * (learns * policy + settings.value_weight * value)
        self.note(
            policy_loss=policy,
            value_loss=value,
            clip_fraction=clipped,
            value_clip_fraction=value_clipped,
            entropy=read.entropy.mean(),
            update_kl=ppo_core.kl_k3(old, read.log_probs).mean(),
            **({} if ptx is None else {"ptx_loss": ptx}),
        )
        return loss if ptx is None else loss + learns * settings.ptx_weight * ptx

    def updates_per_epoch(self: Any) -> int:
        """Return the optimiser steps of an epoch."""
        step = self.schedule.batch * self.schedule.world * self.schedule.accumulation
        return int(len(self.schedule) // step)

    def next_rollout(self: Any, model: Any, number: int) -> None:
        """Make rollout `number`; on a request to stop, save what there is and leave. A KL beyond the limit ends all."""
        size = self.schedule.rollout
        chosen = turns(self.schedule.seed, number * size, size, len(self.prompts))
        try:
            with self.whole(model) as models:
                rollout = self.collector.collect(models, [self.prompts[index] for index in chosen], number)
        except StopRequested:
            self._save_checkpoint(self.model, None)
            raise
        self.collector.finish(rollout, self.controller.coefficient)
        rollout.figures["kl_coefficient"] = self.controller.coefficient
        self.controller.update(rollout.figures["kl_k1"], size)
        self.rollout = rollout
        self.pending = dict(rollout.figures)
        self.seconds = {**self.seconds, **rollout.seconds}
        if rollout.figures["kl_k1"] > self.settings.kl_stop:
            self.control.should_training_stop = True

    def whole(self: Any, model: Any) -> Any:
        """Return a context with the models themselves, their weights gathered where they are split among processes."""
        from contextlib import nullcontext

        if self.is_deepspeed_enabled and self.accelerator.deepspeed_plugin.zero_stage == 3:
            from trl.models.utils import unwrap_model_for_generation

            return unwrap_model_for_generation(self.model_wrapped, self.accelerator)
        return nullcontext(self.accelerator.unwrap_model(model))

    def _blocks(self: Any, count: int) -> "torch.Tensor | None":
        """Return the pretraining blocks [m, L] read beside minibatch share `count`, or None without ptx."""
        import torch

        if self.blocks is None:
            return None
        size = self.settings.ptx_blocks
        chosen = turns(self.schedule.seed + 1, count * size, size, len(self.blocks))
        return torch.stack([self.blocks[index]["input_ids"] for index in chosen]).to(self.args.device)

    def note(self: Any, **figures: "torch.Tensor") -> None:
        """Remember a minibatch's figures until the step is logged."""
        self.noted = [*self.noted, {name: float(value.detach()) for name, value in figures.items()}]

    def log(self: Any, logs: dict[str, float], *rest: Any, **named: Any) -> None:
        """Log the step with what was noted of its minibatches and, at a rollout's first step, of the rollout."""
        if "loss" in logs:
            noted, self.noted = self.noted, ()
            logs |= {name: sum(one[name] for one in noted) / len(noted) for name in (noted[0] if noted else {})}
            logs |= self.pending
            if self.run is not None and self.pending:
                tokens = int(self.rollout.lengths().sum())
                speeds = {f"answer_tokens_per_second/{name}": tokens / took for name, took in self.seconds.items()}
                self.run.metrics(
                    {f"seconds/{name}": took for name, took in self.seconds.items()} | speeds, self.state.global_step
                )
                self.seconds = {}
            self.pending = {}
        super().log(logs, *rest, **named)  # type: ignore[misc]  # mixin

    def evaluate(self: Any, *_: Any, **__: Any) -> dict[str, float]:
        """Answer the held-out prompts as in training, always with the same random numbers; log figures and a table."""
        with self.whole(self.model_wrapped) as models:
            rollout = self.collector.collect(models, self.held_out, -1)
        metrics = {f"eval_{name}": value for name, value in rollout.figures.items()}
        self.log(metrics)
        if self.run is not None and process.is_main_process():
            self.run.table(f"answers-{self.state.global_step:06d}", self.table(rollout))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def table(self: Any, rollout: "Rollout") -> list[dict[str, Any]]:
        """Return prompts, answers and scores to be looked at."""
        decode = self.processing_class.decode
        rows = zip(rollout.episodes.prompts, rollout.episodes.answers, rollout.scores.tolist(), strict=True)
        return [
            {"prompt": decode(prompt), "answer": decode(answer), "reward": round(score, 4)}
            for prompt, answer, score in list(rows)[:TABLE_ROWS]
        ]
