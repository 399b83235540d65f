"""Log-probabilities and values at answer tokens alone are those of the whole models."""

import pytest
import torch

from stages.common.core import models
from stages.common.ppo import actor_critic
from stages.common.ppo.actor_critic import Episodes
from stages.common.reward import scoring
from stages.common.runtime.errors import DataError, ParamsError
from tests.common.reward.test_scoring import reward_model
from tests.support import architectures
from tests.support.tiny import make_model, make_tokenizer

EPISODES = Episodes(
    [[5, 6, 7], [8], [9, 10, 11, 12, 13, 14], *([n] * (n % 3 + 1) for n in range(20, 40))],
    [[50, 51], [52, 53, 54, 55, 56], [57], *([60 + n] * (n % 7 + 1) for n in range(20))],
)


def test_log_probabilities_are_those_of_each_episode_alone() -> None:
    policy = make_model(make_tokenizer()).eval()
    expected = []
    with torch.no_grad():
        for prompt, answer in zip(*EPISODES, strict=True):
            logits = policy(torch.tensor([[*prompt, *answer]])).logits[0] / 0.7
            expected += [logits[len(prompt) - 1 + at].log_softmax(-1)[token].item() for at, token in enumerate(answer)]
        found = actor_critic.log_probabilities(policy, EPISODES, 0.7)
    assert found.tolist() == pytest.approx(expected, abs=1e-5)


def test_a_value_is_the_centred_score_of_the_text_before_the_token() -> None:
    critic = reward_model()
    critic.config.reward_offset = 0.25
    expected = []
    for prompt, answer in zip(*EPISODES, strict=True):
        read = scoring.head_tokens(critic, [[*prompt, *answer[:at]] for at in range(len(answer))])
        expected += [value for (value,) in read]
    with torch.no_grad():
        found = actor_critic.values(critic, EPISODES)
    assert found.tolist() == pytest.approx(expected, abs=1e-5)


def test_the_trained_module_reads_both_models_in_the_order_of_the_episodes_without_dropout() -> None:
    policy, critic = make_model(make_tokenizer()), reward_model()
    module = actor_critic.ActorCritic(policy, critic, 0.7).train()
    read, ptx = module(*EPISODES)
    assert ptx is None
    with torch.no_grad():
        assert read.log_probs.tolist() == pytest.approx(
            actor_critic.log_probabilities(policy.eval(), EPISODES, 0.7).tolist(), abs=1e-5
        )
        assert read.values.tolist() == pytest.approx(actor_critic.values(critic.eval(), EPISODES).tolist(), abs=1e-5)
    assert len(read.entropy) == sum(map(len, EPISODES.answers))
    blocks = torch.arange(40).view(2, 20)
    _, ptx = module(*EPISODES, blocks)
    assert ptx.item() == pytest.approx(policy(input_ids=blocks, labels=blocks).loss.item(), abs=1e-6)


def test_values_and_log_probabilities_are_not_rounded_under_autocast() -> None:
    policy, critic = make_model(make_tokenizer()), reward_model()
    module = actor_critic.ActorCritic(policy, critic, 1.0)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        read, _ = module(*EPISODES)
    for found in read:
        assert found.dtype == torch.float32
        assert not torch.equal(found, found.bfloat16().float())


@pytest.mark.parametrize("name", ["granite", "cohere2", "gemma2", "falcon_h1"])
def test_scaled_and_capped_logits_are_those_of_the_model(name: str) -> None:
    model = architectures.build(name)
    model.config.final_logit_softcapping = 2.0 if name == "gemma2" else None
    actor_critic.check_head(model)
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        expected = model(ids).logits[0, :-1].log_softmax(-1)[range(3), [6, 7, 8]]
        found = actor_critic.log_probabilities(model, Episodes([[5]], [[6, 7, 8]]), 1.0)
    assert found.tolist() == pytest.approx(expected.tolist(), abs=1e-4)


def test_a_model_that_does_more_behind_its_head_is_refused() -> None:
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = models.build({"model_type": "llama", **shape}, 100, "test")
    actor_critic.check_head(model)
    head = model.lm_head
    model.lm_head = torch.nn.Sequential(head, torch.nn.Softplus())
    model.set_output_embeddings = model.get_output_embeddings = lambda *_: head
    with pytest.raises(DataError, match="a llama model changes its logits behind the head"):
        actor_critic.check_head(model)


def test_rows_that_rope_turns_by_their_length_are_refused() -> None:
    config = architectures.build("phi3, LongRoPE").config
    actor_critic.check_positions(config, 16, "ppo.max_tokens")
    with pytest.raises(ParamsError, match=r"ppo\.max_tokens: it is 17, but beyond 16 .*set it to at most 16"):
        actor_critic.check_positions(config, 17, "ppo.max_tokens")
