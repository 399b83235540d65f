"""Stages whose answers vLLM decodes: sampling goes on behind a killed engine, SFT's epochs and a
candidate are asked, PPO's rollouts come from the weights in training.
"""

import json
from pathlib import Path
from typing import Any

import psutil
import pytest

from stages import grpo, ppo, sample, select_sft
from stages.common.core import chat, models, records
from stages.common.evaluation import generate_answers
from stages.common.generation import generator
from stages.common.generation.engines import choice, vllm_process
from stages.common.ppo import report as ppo_report
from stages.common.runtime.errors import TryAgainError
from tests.support import vllm
from tests.support.small_ppo import build, fit, trainer_in, write_ppo
from tests.support.tiny import make_tokenizer
from tests.support.trainers import build_grpo

pytestmark = pytest.mark.slow
PARAMS = """
run: {name: test, engine: vllm}
sample: {answers: 3, max_new_tokens: 24, batch_size: 16}
select_sft: {max_new_tokens: 6, batch_size: 8}
"""
CLOSE = 1e-4


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    vllm.require()
    monkeypatch.chdir(tmp_path)
    write_ppo(tmp_path)
    vllm.save(tmp_path / "model")
    (tmp_path / "params.yaml").write_text(PARAMS)
    return tmp_path


def draw(work: Path, out: str) -> dict[str, Any]:
    prompts, talks = work / "samples", work / "conversations"
    sample.main(work / "model", prompts, talks, work / out, work / f"{out}.json")
    return json.loads((work / f"{out}.json").read_text())


def test_a_sampling_whose_engine_is_killed_goes_on_to_the_same_bytes(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample, "PROMPTS_AT_ONCE", 8)
    whole, heard = draw(work, "whole"), []
    hear = vllm_process.Vllm._hear

    def killing(engine: vllm_process.Vllm) -> dict[str, Any]:
        heard.append(1)
        if len(heard) == 1 + 24 + 2:  # its greeting, a part, and two answers of the next
            psutil.Process(engine.worker.pid).kill()
        return hear(engine)

    monkeypatch.setattr(vllm_process.Vllm, "_hear", killing)
    with pytest.raises(TryAgainError, match="the vLLM engine died"):
        draw(work, "resumed")
    (parts,) = (work / "checkpoints/sample").iterdir()
    assert [part.name for part in parts.iterdir()] == ["part-1"]
    assert draw(work, "resumed") == whole and whole["answers"] == 3 * 26 and whole["comparable"] > 20
    for split in records.SPLITS:
        for file in (work / "whole" / split).iterdir():
            assert (work / "resumed" / split / file.name).read_bytes() == file.read_bytes()


def test_epochs_and_candidates_answer_as_they_do_here(work: Path) -> None:
    prompts = [row["messages"] for row in records.read(work / "samples/validation")]
    settings = select_sft.Params(max_new_tokens=6, batch_size=8)
    (said,) = select_sft.reply(work / "model", [prompts], settings)
    model, tokenizer = models.load(work / "model").eval(), make_tokenizer()
    asked = [chat.encode_prompt(tokenizer, prompt) for prompt in prompts]
    stops = chat.stops(tokenizer)
    expected = generator.generate(model, asked, max_new_tokens=6, stop=stops)
    assert said == [tokenizer.decode(tokens, skip_special_tokens=True) for tokens in expected]
    candidate = generate_answers.Candidate(choice.load(work / "model", 8), tokenizer, "chat", 6, 8)
    questions = list(records.read(work / "questions"))
    given = generate_answers.ask(candidate, questions)
    again = generate_answers.ask(generate_answers.Candidate(model, tokenizer, "chat", 6, 8), questions)
    assert given == again and len(given) == 4
    process = candidate.policy.worker
    read = choice.readable(candidate.policy, work / "model")
    assert process.poll() is not None and not isinstance(read, vllm_process.Vllm)


@pytest.mark.parametrize("lora", [None, {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"}])
def test_rollouts_come_from_the_weights_in_training(work: Path, lora: dict[str, Any] | None) -> None:
    trainer = trainer_in(work, lora=lora, temperature=0.8)
    kept = fit(trainer)
    history = trainer.state.log_history
    found = [(kind, row) for kind in ("", "eval_") for row in history if f"{kind}mismatch_mean" in row]
    assert [kind for kind, _ in found] == ["", "", "eval_"]
    for kind, row in found:
        assert 0 < row[f"{kind}mismatch_mean"] <= row[f"{kind}mismatch_most"] < CLOSE
        assert row[f"{kind}mismatch_truncated"] == 0
    moved = [row["kl"] for row in history if "kl" in row]
    assert moved[0] < CLOSE < moved[-1]
    work_folder = Path(trainer.args.output_dir)
    mirror = trainer.setup.collector.mirror
    assert mirror is not None and mirror.folder.is_dir()
    paths = {"out": work / "out", "curve": work / "c.csv", "report": work / "r.json"}
    ppo_report.publish(trainer, kept, start=work / "model", reward=work / "reward", **paths)
    assert mirror.engine is None and not (work_folder / ".rollout").exists()
    assert json.loads((work / "r.json").read_text())["prompts"] == 6


def test_a_killed_engine_ends_a_training_as_try_again(work: Path) -> None:
    settings = ppo.Params(
        training={"per_device_train_batch_size": 4}, max_tokens=128, max_new_tokens=6, watch_prompts=0
    )
    trainer = build(settings, work)
    collector = trainer.setup.collector
    prompts = trainer.setup.prompts[:4]
    collector.collect(trainer.model, prompts, 0)
    psutil.Process(collector.mirror.engine.worker.pid).kill()
    with pytest.raises(TryAgainError, match="the vLLM engine died"):
        collector.collect(trainer.model, prompts, 1)


def test_groups_of_answers_come_from_the_weights_in_training(work: Path) -> None:
    """TRL's meter of the distance between the engine and the training says so after every step."""
    training = {"per_device_train_batch_size": 4, "num_generations": 2, "learning_rate": 0.003, "max_steps": 3}
    settings = grpo.Params(
        training=training, max_tokens=128, max_new_tokens=6, watch_prompts=0, rewards={"length": 1.0}
    )
    made = build_grpo(settings, work)
    made.train()
    far = [row["sampling/sampling_logp_difference/max"] for row in made.state.log_history if "loss" in row]
    assert len(far) == 3 and max(far) < CLOSE
    assert {row["sampling/importance_sampling_ratio/max"] == pytest.approx(1, abs=CLOSE)
            for row in made.state.log_history if "loss" in row} == {True}  # fmt: skip
    moved = [row["grad_norm"] for row in made.state.log_history if "loss" in row]
    assert min(moved) > 0
    made.mirror.close()
