"""Rollouts: what the decoder gives is what the models would say, and a checkpoint keeps all
of it.
"""

import dataclasses
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from stages import ppo
from stages.common.core import chat
from stages.common.ppo import actor_critic, rollouts
from stages.common.ppo import advantages as ppo_advantages
from stages.common.ppo.collector import Collector
from stages.common.ppo.payment import Payment
from stages.common.ppo.schedule import Schedule
from stages.common.reward import checked, scoring
from stages.common.runtime import process
from stages.common.runtime.errors import StopRequested
from stages.common.training import optimizer_state
from tests.common.reward.test_scoring import reward_model
from tests.support.tiny import make_model, make_tokenizer

PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13, 14], [20, 21], [22]]


def schedule(rank: int = 0, world: int = 1) -> Schedule:
    return Schedule(rollout=10, rollouts=1, ppo_epochs=1, batch=5, accumulation=1, rank=rank, world=world, seed=3)


def collector(unit: tuple[float, float] = (0.0, 1.0), **settings: Any) -> Collector:
    tokenizer = make_tokenizer()
    chosen = {"temperature": 0.9, "max_new_tokens": 6, "rollout_batch_size": 2, **settings}
    made = ppo.Params(training={}, **chosen)
    return Collector(
        settings=made,
        schedule=schedule(),
        tokenizer=tokenizer,
        reward=reward_model(),
        reference=make_model(tokenizer, seed=1).eval(),
        stops=[3, *range(100, 140)],
        end_of_turn=chat.end_of_turn(tokenizer),
        payment=Payment(checked.load(made.rewards, "ppo.rewards"), unit, made.reward_clip),
    )


def module() -> actor_critic.ActorCritic:
    return actor_critic.ActorCritic(make_model(make_tokenizer()), reward_model(), 0.9)


def test_kept_log_probabilities_are_those_of_a_new_reading() -> None:
    kept = collector().collect(module(), PROMPTS, 4)
    read = collector().collect(module(), PROMPTS, 4, nullcontext)
    assert kept.episodes == read.episodes
    for name, column in kept.columns.items():
        assert column.tolist() == [pytest.approx(row, abs=1e-5) for row in read.columns[name].tolist()], name
    assert len({len(answer) for answer in kept.episodes.answers}) > 1
    stops = set(collector().stops)
    assert kept.ended.tolist() == [answer[-1] in stops for answer in kept.episodes.answers]
    assert set(kept.ended.tolist()) == {True, False}


def test_answers_are_scored_with_an_end_of_turn_whatever_ended_them() -> None:
    one = collector()
    found = one.collect(module(), PROMPTS, 0)
    rows = [
        [*prompt, *(answer[:-1] if ended else answer), one.end_of_turn]
        for prompt, answer, ended in zip(*found.episodes, found.ended.tolist(), strict=True)
    ]
    assert found.scores.tolist() == pytest.approx(scoring.score_rows(one.reward, rows), abs=1e-6)


def test_targets_are_the_cores_of_the_columns() -> None:
    one = collector((0.5, 0.25), reward_clip=2.0)
    found = one.collect(module(), PROMPTS, 1)
    one.finish(found, 0.3)
    mask, kl = found.columns["mask"], found.columns["log_probs"] - found.columns["reference"]
    scores = ((found.scores - 0.5) / 0.25).clamp(-2, 2) - (~found.ended).float()
    rewards = torch.where(mask, -0.3 * kl, 0.0)
    for row, length in enumerate(mask.sum(1).tolist()):
        rewards[row, length - 1] += scores[row]
    advantages, returns = ppo_advantages.advantages(rewards, found.columns["values"], mask, 1.0, 0.95)
    assert torch.allclose(found.columns["returns"], returns, atol=1e-6)
    assert torch.allclose(found.columns["advantages"], ppo_advantages.whiten(advantages, mask), atol=1e-6)
    assert found.figures["kl"] >= 0


def test_another_rollout_of_the_same_prompts_has_other_answers() -> None:
    first, again, other = (collector().collect(module(), PROMPTS, number) for number in (0, 0, 1))
    assert first.episodes == again.episodes
    assert first.episodes.answers != other.episodes.answers


def test_a_prompt_that_comes_twice_is_answered_as_by_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    twice = [*PROMPTS, *PROMPTS, PROMPTS[0]]
    whole = collector().collect(module(), twice, 0).episodes.answers
    monkeypatch.setattr("stages.common.ppo.collector.gathered", lambda mine, _: mine)
    for rank in (0, 1):
        mine = dataclasses.replace(collector(), schedule=schedule(rank=rank, world=2))
        assert mine.collect(module(), twice, 0).episodes.answers == whole[rank::2]
    assert whole[0] != whole[10]


def test_a_checkpoint_keeps_a_rollout_to_the_bit(tmp_path: Path) -> None:
    one = collector()
    found = one.collect(module(), PROMPTS, 7)
    one.finish(found, 0.1)
    optimizer_state.save_state({"rollout": found.state()}, tmp_path, "ppo")
    back = rollouts.Rollout.restore(optimizer_state.load_state(tmp_path, "ppo")["rollout"])
    assert (back.number, back.episodes, back.figures) == (7, found.episodes, found.figures)
    assert all(torch.equal(column, back.columns[name]) for name, column in found.columns.items())
    assert torch.equal(back.scores, found.scores)
    assert torch.equal(back.ended, found.ended)


def test_a_request_to_stop_ends_a_rollout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "stop_requested", lambda: True)
    with pytest.raises(StopRequested):
        collector().collect(module(), PROMPTS, 0)


@pytest.mark.parametrize(
    ("tokens", "n", "share"),
    [
        ([], 3, 0.0),
        ([1, 1], 3, 0.0),
        ([1, 2, 3, 4], 3, 0.0),
        ([1, 1, 1, 1, 1], 3, 2 / 3),  # three trigrams, two of which were there before
        ([1, 2, 1, 2, 1], 2, 0.5),  # 12, 21, 12, 21
        ([5, 6, 5], 1, 1 / 3),
    ],
)
def test_repetition_by_hand(tokens: list[int], n: int, share: float) -> None:
    assert rollouts.repetition(tokens, n) == pytest.approx(share)


def test_rewards_that_can_be_checked_are_paid_beside_the_models_and_each_is_logged() -> None:
    both = collector((0.5, 0.25), rewards={"model": 0.5, "length": -1.0}, reward_clip=100.0)
    asked = [checked.Prompt(tokens, checked.Asked("?")) for tokens in PROMPTS]
    rollout, alone = both.collect(module(), asked, 4), collector((0.5, 0.25)).collect(module(), PROMPTS, 4)
    assert rollout.scores.tolist() == alone.scores.tolist()
    assert {type(one) for one in rollout.episodes.prompts} == {list}, "DeepSpeed makes what a model is given anew"
    lengths = rollout.paid["length"]
    total = both.payment.total(rollout.scores, rollout.paid)
    assert total.tolist() == pytest.approx(((rollout.scores - 0.5) / 0.25 * 0.5 - lengths).tolist())
    assert rollout.figures["reward"] == pytest.approx(float(total.mean()))
    assert rollout.figures["reward/length"] == pytest.approx(float(lengths.mean()))
    assert rollout.figures["reward/model"] == alone.figures["reward"]
    checks = collector(rewards={"exact": 1.0, "length": -1.0})
    nothing = {"exact": torch.tensor([float("nan"), 1.0]), "length": torch.tensor([2.0, 3.0])}
    assert checks.payment.total(torch.zeros(2), nothing).tolist() == [-2.0, -2.0]


def test_an_engine_rests_when_it_has_answered() -> None:
    done: list[str] = []

    def of(policy: Any) -> Any:
        done.append("of")
        return policy

    mirror: Any = SimpleNamespace(of=of, rest=lambda: done.append("rest"))
    some = dataclasses.replace(collector(), mirror=mirror)
    some.collect(module(), PROMPTS, 4)
    assert done == ["of", "rest"]


def test_how_far_the_decoder_is_from_what_is_trained_by_hand() -> None:
    trained, sampled = torch.tensor([0.5, 0.2, 0.3]).log(), torch.tensor([0.25, 0.25, 0.3]).log()
    found = rollouts.mismatch(trained, sampled)
    # ln 2, ln 1.25 and 0; ratios 2, 0.8 and 1, of which the first is cut; their k3 are
    # 2 - 1 - ln 2, 0.8 - 1 - ln 0.8 and 0
    assert found["mismatch_mean"] == pytest.approx((0.693147 + 0.223144) / 3, abs=1e-6)
    assert found["mismatch_most"] == pytest.approx(0.693147, abs=1e-6)
    assert found["mismatch_truncated"] == pytest.approx(1 / 3)
    assert found["mismatch_kl"] == pytest.approx((0.306853 + 0.023144) / 3, abs=1e-6)
