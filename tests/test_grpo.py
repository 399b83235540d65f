"""GRPO on a small world: its loss by hand, answers by group, and what is refused before any
work.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from stages import grpo
from stages.common.core import models
from stages.common.core.left_out import LackError
from stages.common.generation.sampling import Sampling
from stages.common.grpo import answers, report
from stages.common.reward import checked
from stages.common.runtime.errors import ParamsError
from tests.support.small_ppo import write_ppo
from tests.support.trainers import build_grpo

TRAINING = {"per_device_train_batch_size": 4, "num_generations": 2, "learning_rate": 0.01, "seed": 1, "beta": 0.1}
SMALL: dict[str, Any] = {"max_tokens": 128, "max_new_tokens": 6, "rewards": {"length": 1.0}, "watch_prompts": 0}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("grpo")
    write_ppo(folder)
    return folder


def build(world: Path, **training: Any) -> Any:
    return build_grpo(grpo.Params(training=TRAINING | training, **SMALL), world)


def test_the_loss_is_the_papers(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shao et al. 2024, equation 3, with the KL of equation 4, on a fixed batch with old
    log-probabilities of its own. `loss_type: grpo` has 1/G and 1/|o|; TRL weights the KL by the
    ratio unless told otherwise.
    """
    monkeypatch.chdir(tmp_path)
    made = build(world, loss_type="grpo", use_bias_correction_kl=False)
    made.current_gradient_accumulation_steps = 1
    generator = torch.Generator().manual_seed(3)
    vocabulary = made.model.config.vocab_size
    prompts = torch.randint(5, vocabulary, (4, 3), generator=generator)
    answers = torch.randint(5, vocabulary, (4, 5), generator=generator)
    mask = torch.arange(5) < torch.tensor([5, 2, 4, 1])[:, None]
    advantages = torch.tensor([0.7, -0.7, 1.2, -1.2])
    old, reference = (-4 - 0.3 * torch.rand(4, 5, generator=generator) for _ in range(2))
    batch = {
        "prompt_ids": prompts, "prompt_mask": torch.ones_like(prompts), "completion_ids": answers,
        "completion_mask": mask.long(), "advantages": advantages, "num_items_in_batch": mask.sum(),
        "old_per_token_logps": old, "ref_per_token_logps": reference,
    }  # fmt: skip
    made.model.train()  # dropout is off all the same
    found = made.compute_loss(made.model, batch)
    rows = torch.cat([prompts, answers], 1)
    plain = models.load(world / "model")
    logits = plain(rows, attention_mask=torch.cat([torch.ones_like(prompts), mask.long()], 1)).logits[:, 2:-1]
    now = logits.log_softmax(-1).gather(2, answers[..., None])[..., 0]
    ratio = (now - old).exp()
    gain = torch.minimum(ratio * advantages[:, None], ratio.clamp(0.8, 1.2) * advantages[:, None])
    kl = (reference - now).exp() - (reference - now) - 1
    expected = (((kl * 0.1 - gain) * mask).sum(1) / mask.sum(1)).mean()
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_answers_of_a_group_differ_and_are_the_same_in_any_batch(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = build(world, temperature=2.0)
    prompts = [made.train_dataset[at]["prompt"] for at in (0, 0, 1, 1)]
    together, _ = made._generate_single_turn(prompts)
    assert together[0] != together[1]
    made.decode_batch_size = 1
    assert made._generate_single_turn(prompts[2:])[0] == together[2:]
    made._step = 1
    assert made._generate_single_turn(prompts)[0] != together, "another step, other answers"
    held_out = made.held_out()
    assert [row["question"] for row in held_out] == [row["question"] for row in made.eval_dataset]
    (greedy,) = made.answers([made.eval_dataset[0]["prompt"]], Sampling())
    assert held_out[0]["length"] == len(answers.tokens(greedy))


def test_groups_stay_with_one_process(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = build(world).args
    grpo.check_groups(made)
    made.num_generations = 8  # TRL itself looks at all processes together
    with pytest.raises(ParamsError, match="4 answers of a process at a time are no whole groups of 8"):
        grpo.check_groups(made)


def test_prompts_that_no_reward_can_judge_are_counted(world: Path) -> None:
    settings = grpo.Params(training=TRAINING, **SMALL | {"rewards": {"exact": 1.0}})
    with pytest.raises(
        LackError, match=r"no prompt to answer \(20 without a reference\); bring prompts with references"
    ):
        grpo.read(settings, world / "model", world / "samples", checked.load(settings.rewards, "grpo.rewards"))


def test_skipped_it_says_so_in_all_it_writes(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("grpo: {skip: true, training: {}}\n")
    places = {name: world / name for name in ("model", "reward", "samples", "conversations")}
    grpo.main(**places, out=Path("out"), curve=Path("curve.csv"), report=Path("report.json"))
    assert json.loads(Path("report.json").read_text()) == {"left_out": "grpo.skip is true"}
    assert json.loads(Path("out/left_out.json").read_text()) == {"left_out": "grpo.skip is true"}
    assert Path("curve.csv").read_text() == f"{','.join(report.COLUMNS)}\n"


def test_a_lead_is_paired_by_prompt() -> None:
    def rows(*values: float) -> list[dict[str, Any]]:
        return [
            {"reward": one, "reward/exact": None, "reward/length": one, "length": 2, "ended": True} for one in values
        ]

    found = report.compare(rows(0.0, 1.0, 2.0), rows(1.0, 2.0, 3.0))
    assert (found["start"], found["reward"], found["lead"]) == (1.0, 2.0, [1.0, 1.0, 1.0])
    assert (found["reward/exact"], found["start/length"], found["reward/length"]) == (None, 1.0, 2.0)
