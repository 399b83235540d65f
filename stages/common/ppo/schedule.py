"""When PPO reads what: rollouts, minibatches and optimiser steps, and the prompts and blocks that
are next.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from stages.common.runtime.errors import ParamsError

if TYPE_CHECKING:
    import torch


class Minibatch(NamedTuple):
    """One process's share of a minibatch: which rows of which rollout."""

    rollout: int
    rows: list[int]
    step: list[int]
    """Rows of the whole optimiser step, over all processes."""
    number: int
    """Counts shares from the start of training."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """What is read when. Sizes count episodes over all processes; `batch` those of one process and
    one backward.

    Raises ParamsError where minibatches of one optimiser step would straddle two rollouts.
    """

    rollout: int
    rollouts: int
    """Rollouts of an epoch."""
    ppo_epochs: int
    batch: int
    accumulation: int
    rank: int
    world: int
    seed: int

    def __post_init__(self) -> None:
        if self.rollout % self.step:
            what = f"a rollout of {self.rollout} episodes is not a whole number of optimiser steps of {self.step}"
            raise ParamsError(what, where="ppo.rollout_episodes", remedy=f"make it a multiple of {self.step}")

    def __len__(self) -> int:
        """Return the places of an epoch."""
        return self.rollouts * self.ppo_epochs * self.rollout

    def __getitem__(self, place: int) -> int:
        """Return the place itself: the Trainer hands a process the places of its share of a
        minibatch.
        """
        return place

    @property
    def step(self) -> int:
        """Episodes of an optimiser step."""
        return self.batch * self.world * self.accumulation

    @property
    def updates(self) -> int:
        """Optimiser steps of an epoch."""
        return len(self) // self.step

    def minibatch(self, epoch: int, place: int) -> Minibatch:
        """Return the share that starts at `place`, the first of this process's places.

        All processes agree on the order of rows, which is drawn anew in every PPO epoch.
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
        return Minibatch(number, order[start : start + self.batch], together, count)


def turns(seed: int, *, start: int, count: int, among: int) -> list[int]:
    """Return `count` of `among` indices from place `start` of an endless sequence of random passes
    over all of them.
    """
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
