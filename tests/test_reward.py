"""Reward: learns to rank, centred on demonstrations, scored at one place by training, scoring and
transformers.
"""

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from stages import reward
from stages.common.core import chat, checkpoints, models, records, special_tokens
from stages.common.finetuning import merging
from stages.common.memory import estimate, preflight
from stages.common.pairs import preference_pairs
from stages.common.reward import calibration, ranked_answers, scoring
from stages.common.reward import report as reward_report
from stages.common.runtime.errors import DataError
from stages.common.text.parquet_writer import write as write_records
from stages.common.tracking.run import Run
from stages.common.training import fit
from tests.support import trainers
from tests.support.tiny import NOTHING_TO_LEARN, comparison, conversation, make_tokenizer

TRAINING = {"max_steps": 12, "per_device_train_batch_size": 8, "learning_rate": 0.01, "warmup_steps": 2}


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(checkpoints, "ROOT", tmp_path / "checkpoints")
    return trainers.write_small(tmp_path)


def settings_of(**own: Any) -> reward.Params:
    return reward.Params(**({"training": TRAINING} | own))


def trainer_in(work: Path, **own: Any) -> Any:
    return trainers.build("reward", settings_of(**own), work)


def test_a_trained_model_ranks_held_out_answers(work: Path) -> None:
    trainer = trainer_in(work)
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < 0.3
    trainer.save_model(str(work / "out"))
    scored, _ = reward_report.score(work / "out", list(trainer.eval_dataset))
    report = reward_report.write(work / "r1.json", scored, {"train": {}}, Run(None))
    assert report["pair_accuracy"]["overall"]["value"] > 0.9
    assert report["pair_accuracy"]["overall"]["pairs"] == 30
    assert json.loads((work / "r1.json").read_text())["kendall_tau"]["value"] > 0.8
    assert report["longer_is_better"]["value"] == 0.5 + 0.5 / 30 * sum(
        (one > other) - (one < other) for row in trainer.eval_dataset for one, other in combinations(row["lengths"], 2)
    )
    assert set(report["pair_accuracy"]) == {"overall", "source/ranked.jsonl"}


def test_the_evaluated_loss_is_the_mean_over_prompts(work: Path) -> None:
    trainer = trainer_in(work, training=TRAINING | {"per_device_eval_batch_size": 5})
    evaluated = trainer.evaluate()["eval_loss"]
    losses = []
    for row in trainer.eval_dataset:
        with torch.no_grad():
            losses.append(trainer.compute_loss(trainer.model, trainer.data_collator([row])).item())
    assert evaluated == pytest.approx(sum(losses) / len(losses), abs=1e-5)


def test_training_scoring_and_transformers_read_one_number(work: Path) -> None:
    trainer = trainer_in(work, share_prompt=False)
    trainer.model.eval()
    rows = trainer.eval_dataset[0]["rows"]
    with torch.no_grad():
        batch = trainer.data_collator([trainer.eval_dataset[0]])
        masked = trainer.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, 0]
        unmasked = trainer.model(input_ids=batch["input_ids"]).logits[:, 0]
    assert unmasked.tolist() == pytest.approx(scoring.score_rows(trainer.model, rows), abs=1e-5)
    assert masked.tolist() == pytest.approx(unmasked.tolist(), abs=1e-5)


def test_demonstrations_score_zero_on_average(work: Path) -> None:
    trainer = trainer_in(work)
    trainer.save_model(str(work / "out"))
    rows = calibration.tokenise(make_tokenizer(), work / "conversations", 7, 256)
    assert len(rows) == 7
    before = scoring.score_rows(scoring.load(work / "out"), rows)
    known = reward.shift(work / "out", rows)
    after = scoring.score_rows(scoring.load(work / "out"), rows)
    assert known["mean_before_shift"] == pytest.approx(sum(before) / 7, rel=1e-4)
    assert sum(after) == pytest.approx(0.0, abs=1e-5)
    assert [one - other for one, other in zip(before, after, strict=True)] == pytest.approx([sum(before) / 7] * 7)


def test_a_demonstration_ends_with_its_last_answer(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    asked = conversation(1)
    asked["messages"].append(records.message("user", "And of land 2?"))
    rows = [asked, conversation(2, "long " * 200), conversation(3) | {"messages": [records.message("user", "Hello?")]}]
    write_records(rows, tmp_path / "train", "conversations")
    (tokens,) = calibration.tokenise(tokenizer, tmp_path, 1000, 256)
    assert tokens == chat.encode(tokenizer, conversation(1)["messages"]).input_ids
    with pytest.raises(DataError, match="no answer within 5 tokens"):
        calibration.tokenise(tokenizer, tmp_path, 1000, 5)


def test_what_cannot_be_learnt_from_is_left_out_counted_and_reported(work: Path) -> None:
    odd = [row for rows in NOTHING_TO_LEARN.values() for row in rows]
    good = [comparison(n, ["town 1.", "...", "long " * 300], [1, 2, 3]) for n in range(70, 74)]
    write_records([*odd, *good], work / "comparisons/train", "comparisons")
    data = reward.read(settings_of(), make_tokenizer(), [work / "comparisons"])
    assert len(data.train) == len(good)
    assert [len(row["rows"]) for row in data.train] == [2] * len(good)
    assert data.counts["train"] == {
        "comparisons": len(odd) + len(good),
        "without two ranks": 2,
        "with a single answer": 1,
        "without two ranks that fit": 1,
        "answers too long": 2 + len(good),
    }


@pytest.mark.parametrize("shared", [True, False])
def test_the_loss_and_its_gradient_are_the_average_over_expanded_pairs(work: Path, shared: bool) -> None:
    trainer = trainer_in(work, max_tokens=200, share_prompt=shared)
    trainer.model.double().eval()  # no dropout: both sides read the same answers
    answers = ["town 7.", "It is town 7, as far as I know.", "...", "land 3 " * 8]
    rows = [comparison(100 + n, answers, ranks) for n, ranks in enumerate(([2, 1, 4, 3], [1, 2, 3, 4], [4, 3, 2, 1]))]
    pairs = [
        comparison(200, [row["responses"][better], row["responses"][worse]], [1, 2]) | {"prompt": row["prompt"]}
        for row in rows
        for better, worse in preference_pairs.pairs(row["ranks"], "all")
    ]
    assert len(pairs) == 18
    found = []
    for split, given in (("kwise", rows), ("pairwise", pairs)):
        write_records(given, work / split / "train", "comparisons")
        made, _ = ranked_answers.tokenise(make_tokenizer(), [work / split], "train", 200)
        batch = trainer.data_collator(made)
        rows_read = {("kwise", False): 12, ("pairwise", False): 36, ("kwise", True): 3, ("pairwise", True): 18}
        assert len(batch["input_ids"]) == rows_read[split, shared]
        trainer.model.zero_grad()
        loss = trainer.compute_loss(trainer.model, batch)
        loss.backward()
        found.append((loss.item(), {name: part.grad.clone() for name, part in trainer.model.named_parameters()}))
    (kwise, gradients), (pairwise, expected) = found
    assert kwise == pytest.approx(pairwise, abs=1e-6)
    assert max(float(gradient.abs().max()) for gradient in expected.values()) > 0.01
    for name, gradient in gradients.items():
        assert torch.allclose(gradient, expected[name], atol=1e-6, rtol=0), name


ADAPTERS = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"}


@pytest.mark.parametrize("shared", [True, False])
def test_adapters_and_the_head_alone_learn_and_what_is_kept_scores_as_what_was_trained(
    work: Path, shared: bool
) -> None:
    settings = settings_of(lora=ADAPTERS, share_prompt=shared)
    trainer = trainers.build("reward", settings, work)
    learnt = [name for name, weight in trainer.model.named_parameters() if weight.requires_grad]
    assert learnt and all("lora_" in name or "score.modules_to_save" in name for name in learnt)
    *_, kept = fit.fit(trainer, settings, Run(None), "reward")
    assert trainer.evaluate()["eval_loss"] < 0.6  # log 2 where nothing was learnt
    rows = [tokens for row in trainer.eval_dataset for tokens in row["rows"]]
    trained = scoring.score_rows(merging.merged(trainer.model, work).eval(), rows)
    assert scoring.score_rows(scoring.load(kept), rows) == pytest.approx(trained, abs=1e-5)
    assert {file.name for file in (kept / "adapter").iterdir()} == {"adapter_model.safetensors", "adapter_config.json"}
    whole = load_file(kept / "model.safetensors")
    assert not [name for name in whole if "lora" in name or "modules_to_save" in name]
    start = load_file(work / "model/model.safetensors")
    assert not torch.equal(whole["model.layers.0.mlp.up_proj.weight"], start["model.layers.0.mlp.up_proj.weight"])


def test_a_reward_model_of_a_bf16_base_has_that_dtype_and_a_whole_head(work: Path) -> None:
    models.save(models.load(work / "model").to(torch.bfloat16), make_tokenizer(), work / "model")
    settings = settings_of(training=TRAINING | {"max_steps": 1})
    *_, kept = fit.fit(trainers.build("reward", settings, work), settings, Run(None), "reward")
    dtypes = {name: value.dtype for name, value in load_file(kept / "model.safetensors").items()}
    assert dtypes.pop("score.weight") == torch.float32
    assert set(dtypes.values()) == {torch.bfloat16}


def test_the_estimate_knows_adapters_of_a_reward_model(work: Path) -> None:
    needs = [
        estimate.estimate(preflight.of_trainer(trainer_in(work, **own), settings_of(**own), "reward"))
        for own in ({}, {"lora": ADAPTERS})
    ]
    trained = [one.requires_grad * one.nbytes for one in trainer_in(work, lora=ADAPTERS).model.parameters()]
    assert needs[1].gradients == sum(trained) < needs[0].gradients / 2
    assert needs[1].optimiser == 2 * needs[1].gradients


def test_a_validation_loss_that_is_no_number_keeps_no_model(work: Path) -> None:
    trainer = trainer_in(work, training=TRAINING | {"max_steps": 1, "learning_rate": float("inf"), "warmup_steps": 0})
    with pytest.raises(DataError, match="the validation loss is nan at step 1"):
        fit.fit(trainer, settings_of(), Run(None), "reward")
    assert not list(work.rglob("epoch-*"))
    assert not list(work.rglob("checkpoint-*"))


def test_a_model_that_scores_nan_is_no_report(work: Path) -> None:
    trainer = trainer_in(work)
    trainer.model.get_submodule("score").weight.data.fill_(float("nan"))
    trainer.save_model(str(work / "out"))
    with pytest.raises(DataError, match="not a number"):
        reward_report.score(work / "out", list(trainer.eval_dataset))


def test_padding_is_never_the_end_of_turn(work: Path) -> None:
    tokenizer = make_tokenizer()
    tokenizer.pad_token = chat.END_OF_TURN
    model = scoring.begin(work / "model", tokenizer)
    assert tokenizer.pad_token == special_tokens.NEW_PADDING
    assert model.config.pad_token_id == tokenizer.pad_token_id == len(tokenizer) - 1
    assert model.get_input_embeddings().num_embeddings == len(tokenizer)
