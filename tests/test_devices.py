"""Each process puts its models on its own device: that is chosen before any model is read."""

import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState, PartialState
from transformers.integrations import deepspeed

from stages import ppo, sft
from stages.common.core import checkpoints, models
from stages.common.finetuning import lora
from stages.common.ppo import setup as ppo_setup
from stages.common.reward import scoring
from stages.common.runtime import ranks
from tests.support import small_ppo, trainers


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    trainers.write_world(folder)
    return folder


@pytest.mark.parametrize("stage", trainers.STAGES)
def test_a_trainer_knows_its_device_before_it_reads_a_model(
    stage: str, world: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    chosen: list[bool] = []

    def watched(made: Any) -> Any:
        def call(*given: Any, **named: Any) -> Any:
            chosen.append(bool(PartialState._shared_state))
            return made(*given, **named)

        return call

    monkeypatch.setattr(checkpoints, "ROOT", tmp_path)
    for name in ("read", "build"):
        monkeypatch.setattr(models, name, watched(getattr(models, name)))
    AcceleratorState._reset_state(reset_partial_state=True)
    trainers.trainer(stage, world)
    assert chosen and all(chosen)


def test_a_process_puts_what_it_reads_on_its_own_gpu(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    placed: list[Any] = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(ranks, "_joined", lambda: type("State", (), {"device": torch.device("cuda:1")}))

    def to(model: torch.nn.Module, place: Any) -> torch.nn.Module:
        placed.append(place)
        return model

    monkeypatch.setattr(torch.nn.Module, "to", to)
    models.load_frozen(world / "model")
    scoring.load(world / "reward")
    assert placed == ["cuda:1", "cuda:1"]


class ZeRO3:
    """What transformers asks whether to split a model while it is read."""

    def is_zero3(self) -> bool:
        return True


def test_under_zero3_what_is_trained_is_read_in_parts_and_what_is_not_whole(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zero3 = ZeRO3()
    read: list[tuple[str, bool]] = []
    whole = models.read

    def watched(cls: Any, folder: Path, **options: Any) -> Any:
        read.append((Path(folder).name, bool(deepspeed.is_deepspeed_zero3_enabled())))
        with models.unsplit():  # here is no DeepSpeed to split it
            return whole(cls, folder, **options)

    monkeypatch.setattr(models, "read", watched)
    monkeypatch.setattr(deepspeed, "_hf_deepspeed_config_weak_ref", weakref.ref(zero3))
    lora.base(world / "model", sft.Params(training={}), "sft")
    settings = ppo.Params(training={}, **small_ppo.SMALL)
    _, scorer = ppo_setup.load(settings, world / "model", world / "reward")
    scoring.begin(world / "model", models.load_tokenizer(world / "model"))
    plain = SimpleNamespace(bf16=False, fp16=False, deepspeed_plugin=None, device="cpu")
    reference = ppo_setup.load_reference(settings, world / "model", plain)
    assert reference is not None and scorer is not None
    ppo_s = [("model", True), ("reward", False), ("reward", True)]  # policy, reward model and value model
    assert read == [("model", True), *ppo_s, ("model", True), ("model", False)]  # sft's, …, reward's, PPO's reference


def test_processes_without_gpus_meet_over_gloo(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[dict[str, Any]] = []

    class State:
        """accelerate's, not yet set up."""

        _shared_state: dict[str, Any] = {}
        device = "cpu"

        def __init__(self, **named: Any) -> None:
            given.append(named)

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr("accelerate.PartialState", State)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert ranks.device() == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # then accelerate takes nccl, and DeepSpeed's way
    ranks.device()
    assert [{**one, "timeout": None} for one in given if one] == [
        {"cpu": True, "backend": "gloo", "timeout": None},
        {"timeout": None},
    ]
