"""PPO's schedule: every episode once in every PPO epoch, the same minibatches on one process and on
two.
"""

from collections import Counter

import pytest

from stages.common.ppo.schedule import Schedule, turns
from stages.common.runtime.errors import ParamsError


def schedule(batch: int = 2, accumulation: int = 1, rank: int = 0, world: int = 1) -> Schedule:
    sizes = {"rollout": 8, "rollouts": 3, "ppo_epochs": 2, "batch": batch, "accumulation": accumulation}
    return Schedule(**sizes, rank=rank, world=world, seed=5)


def shares(one: Schedule, epoch: int = 0) -> list[tuple[int, list[int], list[int], int]]:
    """Return what a process reads in an epoch: accelerate hands out batches in turns."""
    starts = range(one.rank * one.batch, len(one), one.batch * one.world)
    return [one.minibatch(epoch, start) for start in starts]


def test_every_episode_is_read_once_in_every_ppo_epoch() -> None:
    read = shares(schedule())
    assert [number for number, *_ in read] == [0] * 8 + [1] * 8 + [2] * 8
    for rollout in range(3):
        for ppo_epoch in range(2):
            rows = [row for _, some, *_ in read[rollout * 8 + ppo_epoch * 4 :][:4] for row in some]
            assert sorted(rows) == list(range(8))
    assert [number for number, *_ in shares(schedule(), epoch=2)] == [6] * 8 + [7] * 8 + [8] * 8
    assert [count for *_, count in read] == list(range(24))
    orders = [tuple(row for _, some, *_ in read[start : start + 4] for row in some) for start in range(0, 24, 4)]
    assert len(set(orders)) == 6


def test_two_processes_share_the_minibatches_of_one() -> None:
    whole = shares(schedule(batch=4))
    halves = [shares(schedule(batch=2, rank=rank, world=2)) for rank in range(2)]
    for one, first, second in zip(whole, *halves, strict=True):
        assert one[0] == first[0] == second[0]
        assert one[1] == first[1] + second[1]
        assert one[2] == first[2] == second[2] == one[1]
    assert sorted(count for half in halves for *_, count in half) == list(range(24))


def test_accumulated_shares_make_the_optimiser_step_of_one() -> None:
    whole, parts = shares(schedule(batch=4)), shares(schedule(batch=2, accumulation=2))
    for number, one in enumerate(whole):
        first, second = parts[2 * number : 2 * number + 2]
        assert one[1] == first[1] + second[1]
        assert first[2] == second[2] == one[1]


def test_a_step_that_straddles_two_rollouts_is_refused() -> None:
    assert (schedule().step, schedule().updates) == (2, 24)
    with pytest.raises(ParamsError, match="8 episodes is not a whole number of optimiser steps of 6") as caught:
        schedule(batch=3, world=2)
    assert "multiple of 6" in str(caught.value.remedy)


def test_prompts_come_in_random_passes_over_all_of_them() -> None:
    one = turns(3, start=0, count=25, among=10)
    assert one == turns(3, start=0, count=7, among=10) + turns(3, start=7, count=18, among=10)
    assert Counter(one[:20]) == dict.fromkeys(range(10), 2)
    assert sorted(one[:10]) == sorted(one[10:20]) == list(range(10))
    assert one[:10] != one[10:20]
    assert one[:10] != turns(4, start=0, count=10, among=10)
