"""Pickles and code that wait in a model, tokenizer or checkpoint folder: whatever is loaded, none
of them is run.
"""

import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from stages.common.core import checkpoints, models
from stages.common.reward import scoring
from stages.common.runtime.errors import DataError
from tests.common.reward.test_scoring import reward_model
from tests.support.tiny import make_model, make_tokenizer

CODE = "from pathlib import Path\nPath(__file__).with_name('canary').touch()\nPath({canary!r}).touch()\n"
MODULE = CODE + "from transformers import LlamaConfig as Evil, LlamaForCausalLM as EvilModel\n"

pytestmark = pytest.mark.fault


class Trap:
    """What creates the canary as soon as it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mknod, (str(self.canary),)


def pickled(*names: str) -> Callable[[Path, Path], None]:
    """Return what puts pickles beside the files that are there."""

    def lay(folder: Path, canary: Path) -> None:
        for name in names:
            (folder / name).write_bytes(pickle.dumps(Trap(canary)))

    return lay


def only_pickled_weights(folder: Path, canary: Path) -> None:
    pickled("pytorch_model.bin", "model.bin", "adapter_model.bin")(folder, canary)
    (folder / "model.safetensors").unlink()


def index_of_pickles(folder: Path, canary: Path) -> None:
    pickled("weights.bin")(folder, canary)
    names = list(models.load(folder).state_dict())
    (folder / "model.safetensors").unlink()
    for name in ("model.safetensors.index.json", "pytorch_model.bin.index.json"):
        (folder / name).write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(names, "weights.bin")}))


def pickle_called_safetensors(folder: Path, canary: Path) -> None:
    pickled("model.safetensors")(folder, canary)


def module_of_the_model(folder: Path, canary: Path) -> None:
    (folder / "modeling_evil.py").write_text(MODULE.format(canary=str(canary)))
    file = folder / "config.json"
    auto = {"AutoConfig": "modeling_evil.Evil", "AutoModelForCausalLM": "modeling_evil.EvilModel"}
    config = json.loads(file.read_text()) | {"auto_map": auto, "model_type": "evil", "trust_remote_code": True}
    file.write_text(json.dumps(config))


def module_of_the_tokenizer(folder: Path, canary: Path) -> None:
    (folder / "tokenization_evil.py").write_text(MODULE.format(canary=str(canary)))
    file = folder / "tokenizer_config.json"
    auto = {"AutoTokenizer": ["tokenization_evil.Evil", "tokenization_evil.Evil"]}
    config = json.loads(file.read_text()) | {"auto_map": auto, "tokenizer_class": "Evil", "trust_remote_code": True}
    file.write_text(json.dumps(config))


def module_of_generation(folder: Path, canary: Path) -> None:
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate/generate.py").write_text(CODE.format(canary=str(canary)) + "def generate(**_): ...\n")
    file = folder / "generation_config.json"
    known = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(known | {"custom_generate": str(folder)}))


def chat_template_with_code(folder: Path, canary: Path) -> None:
    touch = f"{{{{ cycler.__init__.__globals__.os.mknod('{canary}') }}}}"
    (folder / "chat_template.jinja").write_text(touch)


TRAPS: dict[str, Callable[[Path, Path], None]] = {
    "optimizer.pt": pickled("optimizer.pt", "scheduler.pt", "scaler.pt"),
    "training_args.bin": pickled("training_args.bin"),
    "rng_state.pth": pickled("rng_state.pth", "rng_state_0.pth"),
    "*.pkl": pickled("model.pkl", "state.pickle", "tokenizer.pkl"),
    "pytorch_model.bin": pickled("pytorch_model.bin", "adapter_model.bin"),
    "pytorch_model.bin alone": only_pickled_weights,
    "an index of pickles": index_of_pickles,
    "a pickle called model.safetensors": pickle_called_safetensors,
    "auto_map of the model": module_of_the_model,
    "auto_map of the tokenizer": module_of_the_tokenizer,
    "custom_generate": module_of_generation,
    "code in the chat template": chat_template_with_code,
}


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("given")
    tokenizer = make_tokenizer()
    models.save(make_model(tokenizer), tokenizer, folder / "model")
    models.save(reward_model(), tokenizer, folder / "reward")
    return folder


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "the canary"
    pickle.loads(pickle.dumps(Trap(path)))
    assert path.exists(), "a trap that does not spring tests nothing"
    path.unlink()
    yield path


@pytest.mark.parametrize("kind", ["model", "reward"])
@pytest.mark.parametrize("trap", TRAPS)
def test_a_trap_in_a_model_folder_is_not_sprung(
    given: Path, tmp_path: Path, canary: Path, trap: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # transformers asks whether to trust
    folder = shutil.copytree(given / kind, tmp_path / "model")
    with suppress(DataError):
        TRAPS[trap](folder, canary)
    for load in (models.load, models.load_tokenizer, scoring.load, models.weights_sha256):
        with suppress(DataError):
            loaded: Any = load(folder)
            if load is models.load_tokenizer:
                with suppress(Exception):  # a template may be refused in any way, but not obeyed
                    loaded.apply_chat_template([{"role": "user", "content": "hello"}], tokenize=False)
            if load is models.load:
                loaded.generate(max_new_tokens=1)
    assert not canary.exists()
    assert not list(folder.rglob("canary"))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "optimizer.pt", "rng_state.pth", "training_args.bin"])
def test_a_trap_in_a_checkpoint_is_not_sprung_even_under_a_forged_manifest(
    given: Path, tmp_path: Path, canary: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    trainer = small_trainer(given)
    folder = Path(trainer.args.output_dir)
    trainer.train()
    trainer.sealed()
    (checkpoint,) = checkpoints.in_order(folder)
    pickled(name)(checkpoint, canary)
    assert f"{name}: not in the manifest" in checkpoints.fault(checkpoint)
    forged = shutil.copytree(checkpoint, tmp_path / "forged")
    (forged / checkpoints.MANIFEST).unlink()
    shutil.rmtree(checkpoint)
    checkpoints.seal(forged, checkpoint)
    assert checkpoints.fault(checkpoint) == ""
    with pytest.raises(DataError, match="a pickle, which is never loaded"):
        small_trainer(given).train(resume_from_checkpoint=str(checkpoint))
    assert not canary.exists()


def small_trainer(given: Path) -> Any:
    from stages import sft
    from tests.support.tiny import write_validated

    if not Path("data").exists():
        write_validated(Path("data"))
    settings = sft.Params(training={"max_steps": 1, "per_device_train_batch_size": 2, "seed": 1})
    trainer = sft.build_trainer(settings, given / "model", Path("data/conversations"), "fingerprint")
    trainer.args.save_strategy = "steps"
    trainer.args.save_steps = 1
    return trainer
