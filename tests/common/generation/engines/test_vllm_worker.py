"""vLLM itself, in its own environment: the local decoder's answers, new weights, and its death."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import torch

from stages.common.generation import generator
from stages.common.generation.engines.mirrored_policy import MirroredPolicy
from stages.common.generation.engines.vllm_process import Vllm
from stages.common.generation.sampling import Sampling
from stages.common.runtime.errors import EXIT_AGAIN, DataError, TryAgainError
from stages.common.runtime.progress import Progress
from tests.support import vllm

if TYPE_CHECKING:
    from transformers import PreTrainedModel

pytestmark = pytest.mark.slow
LONG = [9, 10, 11] * 45
"""Longer than a block of vLLM's cache, so that it is kept for the next call."""
PROMPTS = [[5, 6, 7, 8], LONG, [4], [9, 10, 11] * 20]
CLOSE = 1e-4
"""Nats between two log-probabilities in fp32, summed in another order."""


@pytest.fixture(scope="module")
def policy() -> "PreTrainedModel":
    return vllm.wide_model(0)


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MirroredPolicy]:
    vllm.require()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("vllm"))
        found = MirroredPolicy(Path("mirror"), rows=8, most_tokens=256)
        yield found
        found.close()
        assert not Path("mirror").exists()


def same(engine: Vllm, model: "PreTrainedModel", **asked: Any) -> None:
    """Check greedy answers of both sides: the same tokens and stops, log-probabilities alike."""
    how: dict[str, Any] = {"max_new_tokens": 20, "stop": [3, 79], "log_probabilities": True} | asked
    for (theirs,), (ours,) in zip(
        generator.decode(engine, PROMPTS, **how), generator.decode(model, PROMPTS, **how), strict=True
    ):
        assert (theirs.tokens, theirs.stop) == (ours.tokens, ours.stop)
        assert theirs.log_probabilities == pytest.approx(ours.log_probabilities, abs=CLOSE)


def test_greedy_answers_are_the_local_decoder_s(mirror: MirroredPolicy, policy: "PreTrainedModel") -> None:
    engine = mirror.of(policy)
    assert not engine.sleeps  # on a CPU vLLM has no sleep mode, and its memory stays taken
    mirror.rest()
    same(engine, policy)
    assert any(one.stop for (one,) in generator.decode(engine, PROMPTS, max_new_tokens=20, stop=[3, 79]))
    same(engine, policy, sampling=Sampling(repetition_penalty=1.3), log_probabilities=False)
    same(engine, policy, max_new_tokens=500)  # up to the model's context
    said = generator.generate(engine, PROMPTS, max_new_tokens=5, stop=[])
    assert said == generator.generate(policy, PROMPTS, max_new_tokens=5, stop=[])


def test_the_weights_of_now_answer_and_what_was_read_before_is_forgotten(
    mirror: MirroredPolicy, policy: "PreTrainedModel"
) -> None:
    for model in (policy, vllm.wide_model(1), policy):
        same(mirror.of(model), model)
    changed = vllm.wide_model(1)
    changed.load_state_dict(policy.state_dict())
    with torch.no_grad():
        changed.model.embed_tokens.weight[20:40] *= 1.5
    same(mirror.of(changed), changed)


def test_samples_depend_on_prompt_seed_and_number(mirror: MirroredPolicy, policy: "PreTrainedModel") -> None:
    engine = mirror.of(policy)

    def drawn(prompts: list[list[int]], seed: int = 1) -> dict[tuple[int, ...], list[list[int]]]:
        how = Sampling(temperature=1.3, top_p=0.95, seed=seed)
        found = generator.decode(engine, prompts, max_new_tokens=12, stop=[3], sampling=how, samples=3)
        return {tuple(prompt): [one.tokens for one in some] for prompt, some in zip(prompts, found, strict=True)}

    once = drawn(PROMPTS)
    assert once == drawn(PROMPTS) == drawn(PROMPTS[::-1])
    assert all(len({tuple(tokens) for tokens in some}) == 3 for some in once.values())
    assert drawn(PROMPTS, seed=2) != once
    assert len(drawn([[*LONG, number] for number in range(40)])) == 40  # more than one step reads


def test_log_probabilities_of_samples_are_at_the_temperature(mirror: MirroredPolicy, policy: "PreTrainedModel") -> None:
    how = {"sampling": Sampling(temperature=1.7, seed=3), "max_new_tokens": 12, "stop": [3]}
    (one,) = generator.decode(mirror.of(policy), PROMPTS[:1], log_probabilities=True, **how)[0]  # type: ignore[arg-type]
    answer = one.tokens + ([] if one.stop is None else [one.stop])
    with torch.no_grad():
        logits = policy(torch.tensor([PROMPTS[0] + answer])).logits[0, len(PROMPTS[0]) - 1 : -1]
    expected = (logits / 1.7).log_softmax(-1).gather(1, torch.tensor(answer)[:, None])[:, 0]
    assert one.log_probabilities == pytest.approx(expected.tolist(), abs=CLOSE)


def test_nobody_beyond_this_machine_can_reach_the_engine(mirror: MirroredPolicy, policy: "PreTrainedModel") -> None:
    listening = [
        one.laddr.ip for one in psutil.Process(mirror.of(policy).worker.pid).net_connections() if one.status == "LISTEN"
    ]
    assert set(listening) <= {"127.0.0.1", "::1"}


def test_logits_that_are_not_numbers_are_refused_and_a_new_engine_starts(
    mirror: MirroredPolicy, policy: "PreTrainedModel"
) -> None:
    broken = vllm.wide_model(0)
    broken.model.norm.weight.data[0] = torch.nan
    with pytest.raises(DataError, match="logits are not numbers"):
        generator.generate(mirror.of(broken), PROMPTS, max_new_tokens=4, stop=[])
    mirror.close()
    same(mirror.of(policy), policy)


def test_a_killed_engine_ends_as_try_again(mirror: MirroredPolicy, policy: "PreTrainedModel") -> None:
    class Killing(Progress):
        def row(self, done: int) -> None:
            psutil.Process(engine.worker.pid).kill()

    engine = mirror.of(policy)
    with pytest.raises(TryAgainError, match=r"vllm\.log: the vLLM engine died \(signal 9\); run it again") as caught:
        # Answers of unlike length: the first is heard while others are under way.
        prompts = [[5, 6, number] for number in range(60)]
        generator.decode(engine, prompts, max_new_tokens=100, stop=[21], progress=Killing(60))
    assert caught.value.code == EXIT_AGAIN
    with pytest.raises(TryAgainError):
        mirror.of(policy)
    mirror.close()
