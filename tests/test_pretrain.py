"""Pretraining: a base model that is good as it is goes on untouched, a trained one in the dtype it
came in.
"""

import csv
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from stages import pretrain, tokenizer
from stages.common.core import models, params
from stages.common.report import training_charts
from stages.common.runtime.errors import ParamsError
from stages.common.text.parquet_writer import write as write_records
from stages.common.tracking import session
from stages.common.tracking.run import Run
from stages.common.training import fit
from tests.support.tiny import make_model, make_tokenizer, write_validated


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with a bf16 base model, its tokenizer, and no document."""

    @contextmanager
    def untracked(*_: Any, **__: Any) -> Iterator[Run]:
        yield Run(None)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(session, "start", untracked)
    own = make_tokenizer()
    models.save(make_model(own).to(torch.bfloat16), own, tmp_path / "base")
    own.save_pretrained(tmp_path / "tokenizer")
    for split in ("train", "validation"):
        write_records([], tmp_path / "documents" / split, "documents")
    return tmp_path


def run(work: Path, section: str) -> dict[str, torch.Tensor]:
    """Run the stage on params of `section`; return the weights of what it writes."""
    (work / "params.yaml").write_text(f"run: {{name: test}}\npretrain: {section}\n")
    pretrain.main(work / "tokenizer", work / "documents", work / "out", work / "reports/pretrain.csv")
    return dict(load_file(work / "out/model.safetensors"))


@pytest.mark.parametrize(
    "section",
    ["{base: base, skip: true, training: {}}", "{base: base, training: {num_train_epochs: 0, bf16: false}}"],
    ids=["skip", "no epoch"],
)
def test_a_base_is_handed_on_as_it_is_without_documents(work: Path, section: str) -> None:
    given, found = load_file(work / "base/model.safetensors"), run(work, section)
    assert {name: value.dtype for name, value in found.items()} == dict.fromkeys(given, torch.bfloat16)
    assert all(torch.equal(value, found[name]) for name, value in given.items())
    assert models.load_tokenizer(work / "out").get_vocab() == models.load_tokenizer(work / "tokenizer").get_vocab()
    with (work / "reports/pretrain.csv").open() as handle:
        assert list(csv.DictReader(handle)) == []
    assert (
        training_charts.curve(work / "reports/pretrain.csv", {"training": "red", "validation": "blue"}) == ""
    )  # no chart


def test_embeddings_grow_with_the_tokenizer_and_two_runs_write_the_same(work: Path) -> None:
    grown = make_tokenizer()
    grown.add_tokens(["<new>"])
    grown.save_pretrained(work / "tokenizer")
    given = load_file(work / "base/model.safetensors")
    section = "{base: base, skip: true, training: {}}"
    one, two = run(work, section), run(work, section)
    (name,) = [name for name in given if "embed_tokens" in name]
    assert len(one[name]) % 64 == 0 and len(one[name]) >= len(grown) > len(given[name])
    assert torch.equal(one[name][: len(given[name])], given[name]) and torch.equal(one[name], two[name])


@pytest.mark.parametrize("section", ["{skip: true, training: {}}", "{training: {num_train_epochs: 0}}"])
def test_without_a_base_there_is_nothing_to_hand_on(work: Path, section: str) -> None:
    with pytest.raises(ParamsError, match="set base too"):
        run(work, section)


def test_steps_count_before_epochs() -> None:
    assert not pretrain.Params(training={"num_train_epochs": 0, "max_steps": 5}).skipped
    assert not pretrain.Params(training={}).skipped


def test_the_tokenizer_of_a_base_needs_no_documents(work: Path) -> None:
    (work / "params.yaml").write_text("run: {name: test}\ntokenizer: {base: base, chat_template: chatml}\n")
    tokenizer.main(work / "documents", work / "copied")
    assert models.load_tokenizer(work / "copied").get_vocab() == models.load_tokenizer(work / "base").get_vocab()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_what_is_trained_in_fp32_is_kept_in_the_dtype_of_its_base(work: Path, dtype: torch.dtype) -> None:
    write_validated(work)
    own = make_tokenizer()
    models.save(make_model(own).to(dtype), own, work / "base")
    training = {"max_steps": 2, "per_device_train_batch_size": 2, "bf16": False}
    settings = pretrain.Params(base="base", block_tokens=32, training=training)
    trainer = pretrain.build_trainer(settings, own, work / "documents", "f")
    assert {value.dtype for value in trainer.model.parameters()} == {torch.float32}
    kept = fit.fit(trainer, settings, Run(None), "pretrain")[-1]
    whole: Callable[[Path], dict[str, torch.Tensor]] = lambda folder: load_file(folder / "model.safetensors")  # noqa: E731
    newest = Path(trainer.args.output_dir) / "checkpoint-2"
    assert {value.dtype for value in whole(newest).values()} == {torch.float32}
    assert {name: value.dtype for name, value in whole(kept).items()} == dict.fromkeys(whole(newest), dtype)
    assert all(torch.equal(value.to(dtype), whole(kept)[name]) for name, value in whole(newest).items())
    assert json.loads((kept / "config.json").read_text())["dtype"] == str(dtype).removeprefix("torch.")
    assert models.load(kept).stored_dtype == dtype


def test_weights_may_be_trained_in_bf16(work: Path) -> None:
    write_validated(work)
    training = {"max_steps": 1, "per_device_train_batch_size": 2, "bf16": False}
    settings = pretrain.Params(base="base", block_tokens=32, training=training, dtype="bfloat16")
    trainer = pretrain.build_trainer(settings, make_tokenizer(), work / "documents", "f")
    kept = fit.fit(trainer, settings, Run(None), "pretrain")[-1]
    assert {value.dtype for value in trainer.model.parameters()} == {torch.bfloat16}
    assert {value.dtype for value in load_file(kept / "model.safetensors").values()} == {torch.bfloat16}


def test_params_that_hand_on_are_read_from_the_file(work: Path) -> None:
    (work / "params.yaml").write_text("pretrain: {base: base, skip: true, training: {}}")
    assert params.load(pretrain.Params, "pretrain").skipped
