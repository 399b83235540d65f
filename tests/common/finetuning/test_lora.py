"""Adapters over a base model of few bits: what is kept answers as what was trained, and a killed
training resumes.
"""

import copy
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from stages import sft
from stages.common.core import checkpoints, models, params, precision
from stages.common.finetuning import lora, merging
from stages.common.memory import estimate
from stages.common.runtime.errors import ParamsError
from stages.common.text.parquet_writer import write as write_records
from stages.common.tracking.run import Run
from stages.common.training import fit, kept_models
from tests.support.tiny import conversation, make_model, make_tokenizer

LORA = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"}
FOUR_BITS = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
TRAINING = {"max_steps": 6, "learning_rate": 1e-2, "per_device_train_batch_size": 2}
IDS = torch.tensor([[5, 6, 7, 8, 9, 10]])


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    tokenizer = make_tokenizer()
    models.save(make_model(tokenizer), tokenizer, tmp_path / "model")
    for split in ("train", "validation"):
        write_records([conversation(n) for n in range(1, 7)], tmp_path / "conversations" / split, "conversations")
    return tmp_path


def trainer_in(work: Path, **changed: Any) -> Any:
    settings = sft.Params(training=TRAINING, **changed)
    return sft.build_trainer(settings, work / "model", work / "conversations", "f")


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(IDS).logits
    return found


@pytest.mark.parametrize("quantization", [None, FOUR_BITS, {"load_in_8bit": True}], ids=["whole", "4 bits", "8 bits"])
def test_what_is_kept_answers_as_what_was_trained(work: Path, quantization: dict[str, Any] | None) -> None:
    trainer = trainer_in(work, lora=LORA, quantization=quantization)
    matrix = trainer.model.base_model.model.model.layers[0].mlp.up_proj.base_layer.weight
    assert matrix.element_size() * matrix.numel() * 8 == lora.bits(quantization) * 64 * 32
    start = models.load(work / "model")
    trainer.train()
    learnt = [name for name, weight in trainer.model.named_parameters() if weight.requires_grad]
    rows = [name for name in learnt if "trainable_tokens" in name]
    assert len(rows) == 1 and "embed_tokens" in rows[0], "those of the tokens that make turns; the head is tied"
    assert len(learnt) > 1 and all("lora_" in name for name in set(learnt) - set(rows))
    assert {weight.dtype for weight in trainer.model.parameters() if weight.requires_grad} == {torch.float32}
    trainer.save_model(str(work / "kept"))
    kept = models.load(work / "kept")
    trained = logits(trainer.model)
    tolerance = 1e-5 if quantization != {"load_in_8bit": True} else 2e-2  # its products round the inputs too
    assert torch.allclose(logits(kept), trained, atol=tolerance)
    assert not torch.allclose(logits(kept), logits(start), atol=3 * tolerance)
    assert {name: one.shape for name, one in kept.state_dict().items()} == {
        name: one.shape for name, one in start.state_dict().items()
    }
    assert "quantization_config" not in kept.config.to_dict()


def test_the_adapters_beside_a_kept_model_are_what_was_merged(work: Path) -> None:
    trainer = trainer_in(work, lora=LORA)
    trainer.train()
    trainer.save_model(str(work / "kept"))
    names = {file.name for file in (work / "kept/adapter").iterdir()}
    assert names == {"adapter_model.safetensors", "adapter_config.json"}
    alone = PeftModel.from_pretrained(models.load(work / "model"), work / "kept/adapter")
    assert torch.allclose(logits(alone), logits(models.load(work / "kept")), atol=1e-5)


def test_merging_holds_no_second_model_and_changes_nothing_of_the_first(work: Path) -> None:
    trainer = trainer_in(work, lora=LORA)
    trainer.train()
    model, before = trainer.model, {name: one.clone() for name, one in trainer.model.named_parameters()}
    expected = copy.deepcopy(model).merge_and_unload().state_dict()
    (work / "files").mkdir()
    whole = merging.merged(model, work / "files")
    assert all(torch.equal(value, expected[name]) for name, value in whole.state_dict().items())
    assert whole.state_dict().keys() == expected.keys()
    own = {one.data_ptr() for one in model.parameters()}
    for name, one in whole.named_parameters():
        in_file = one.untyped_storage().filename is not None
        adapted = any(part in name for part in ("_proj", "embed_tokens", "lm_head"))  # new tokens are trained too
        assert in_file == adapted and (in_file or one.data_ptr() in own), name
    assert all(torch.equal(one, before[name]) for name, one in model.named_parameters())
    trainer.save_model(str(work / "kept"))
    assert not (work / "kept" / merging.MERGING).exists()


def test_a_model_split_among_processes_is_kept_from_gathered_weights(work: Path) -> None:
    trainer = trainer_in(work, lora=LORA)
    trainer.train()
    trainer.save_model(str(work / "kept"))
    model = trainer.model
    weights = {name: one.detach().clone() for name, one in model.named_parameters(remove_duplicate=False)}
    for one in model.parameters():
        one.data = torch.empty(0)  # what ZeRO-3 leaves in each process
    merging.save(model, work / "split", weights)
    for file in ("model.safetensors", f"{merging.ADAPTER}/adapter_model.safetensors"):
        assert (work / "split" / file).read_bytes() == (work / "kept" / file).read_bytes()
    assert all(one.numel() == 0 for one in model.parameters()), "training goes on as it was"


def test_a_base_below_adapters_is_held_in_16_bits_and_adapters_in_fp32(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models.save(models.load(work / "model").to(torch.bfloat16), make_tokenizer(), work / "model")
    monkeypatch.setattr(precision, "frozen", precision.stored)  # as on a GPU
    settings = sft.Params(training=TRAINING, lora=LORA)
    trainer = trainer_in(work, lora=LORA)
    dtypes = {(one.requires_grad, one.dtype) for one in trainer.model.parameters()}
    assert dtypes == {(False, torch.bfloat16), (True, torch.float32)}
    *_, kept = fit.fit(trainer, settings, Run(None), "sft")
    assert precision.stored(kept) == torch.bfloat16
    assert torch.allclose(logits(models.load(kept, torch.bfloat16)), logits(trainer.model), atol=0.1)


def test_a_training_of_four_bits_resumes_to_the_same_bits(work: Path) -> None:
    settings = sft.Params(training=TRAINING, lora=LORA, quantization=FOUR_BITS)
    whole = trainer_in(work, lora=LORA, quantization=FOUR_BITS)
    *_, kept = fit.fit(whole, settings, Run(None), "sft")
    expected = models.weights_sha256(kept)
    folder = Path(whole.args.output_dir)
    newest = checkpoints.newest(folder)
    assert newest is not None
    shutil.rmtree(newest)
    shutil.rmtree(folder / kept_models.KEPT / kept.name)
    assert checkpoints.newest(folder) is not None, "there is one to resume from"
    *_, again = fit.fit(trainer_in(work, lora=LORA, quantization=FOUR_BITS), settings, Run(None), "sft")
    assert models.weights_sha256(again) == expected


def test_few_bits_without_adapters_and_unknown_keys_are_refused(work: Path) -> None:
    (work / "params.yaml").write_text("sft: {training: {}, quantization: {load_in_4bit: true}}")
    with pytest.raises(ParamsError, match="cannot be trained themselves: set lora too"):
        params.load(sft.Params, "sft")
    with pytest.raises(ParamsError, match=r"unknown key 'sft\.quantization\.load_in_4bits', did you mean"):
        trainer_in(work, lora=LORA, quantization={"load_in_4bits": True})


def test_without_the_library_the_error_says_what_to_install(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ParamsError, match=r"'sft\.quantization' needs bitsandbytes.*EXTRAS=dev,qlora"):
        lora.base(work / "model", sft.Params(training={}, lora=LORA, quantization=FOUR_BITS), "sft")


def test_the_estimate_counts_four_bits_a_weight(work: Path) -> None:
    model = models.load(work / "model")
    matrices = [one.weight for one in model.modules() if type(one) is torch.nn.Linear]
    head = model.get_output_embeddings().weight
    frozen = sum(one.numel() for one in matrices if one is not head)
    for one in model.parameters():
        one.requires_grad_(False)
    assert estimate.held(model, 32) - estimate.held(model, 4) == pytest.approx(frozen * 3.5)
