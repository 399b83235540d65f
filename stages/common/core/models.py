"""Models and tokenizers in and out: safetensors only, no remote code, a corrupt file named."""

import hashlib
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.common.core import precision
from stages.common.runtime import ranks
from stages.common.runtime.errors import DataError, ParamsError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

FLOATS = ("F", "BF")
PICKLES = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"})
BEYOND = 4
"""A config of so many times a folder's parameters is of another model; a new head adds less."""
REMEDY = "restore it with `dvc checkout`, or make it anew with `dvc repro -f`"
FETCH = "connect to the hub, or fetch it once (hf download NAME --local-dir base) and name that folder in params.yaml"


def build(config: dict[str, Any], vocab_size: int, section: str) -> "PreTrainedModel":
    """Return a causal language model with random weights from `config`, by transformers' key names.

    Raises ParamsError for a model type or a combination of sizes that transformers refuses.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        settings = AutoConfig.for_model(**config, vocab_size=vocab_size)
        unknown = sorted(set(config) - set(settings.to_dict()) - {"model_type"})
        if unknown:
            raise ParamsError(f"unknown key '{section}.{unknown[0]}' for a {config['model_type']} model")
        with unsplit():
            return AutoModelForCausalLM.from_config(settings)
    except (KeyError, ValueError, TypeError) as error:
        raise ParamsError(f"{section}: {error}", where="params.yaml") from error


@contextmanager
def unsplit() -> Iterator[None]:
    """Let models be made whole in every process, with the random weights that one process draws:
    under ZeRO-3 transformers would split them while they are made.
    """
    from transformers.integrations import deepspeed

    held = deepspeed._hf_deepspeed_config_weak_ref  # the only place where transformers keeps it
    deepspeed.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        deepspeed._hf_deepspeed_config_weak_ref = held


def load(folder: Path | str, dtype: Any = None) -> "PreTrainedModel":
    """Return the language model in `folder`, or of that name in the hub's cache, on the CPU."""
    from transformers import AutoModelForCausalLM

    return read(AutoModelForCausalLM, folder, dtype=dtype)


def load_frozen(folder: Path | str) -> "PreTrainedModel":
    """Return the language model in `folder` as one that only answers, on the device for that."""
    precision.fast_products()
    place = ranks.device()
    return load(folder, precision.frozen(folder)).to(place).requires_grad_(False)


def read(
    cls: Any, folder: Path | str, *, new: tuple[str, ...] = (), unused: tuple[str, ...] = (), **options: Any
) -> "PreTrainedModel":
    """Return what the Auto class `cls` makes of `folder`, in fp32 or in `dtype`.

    Tensors that only the model has (`new`) or only the files have (`unused`) are named by their
    beginnings; any other raises DataError. What the files are in is the attribute `stored_dtype`.
    """
    import torch
    from transformers.utils import logging as transformers_logging

    from stages.common.core.sparse import attention, pattern

    attention.register()
    transformers_logging.disable_progress_bar()
    if Path(folder).is_dir():
        shapes = check(Path(folder))
    spoken = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # what it would warn of is an error here
    try:
        if Path(folder).is_dir():
            _compare(cls, Path(folder), shapes)
        model, loaded = cls.from_pretrained(
            folder,
            dtype=options.pop("dtype", None) or torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            **options,
        )
    except DataError:
        raise
    except Exception as error:  # a config that is JSON but no config raises KeyError, TypeError, validation errors, …
        raise _unreadable("model", folder, error) from error
    finally:
        transformers_logging.set_verbosity(spoken)
    for kind, allowed, what in (("missing_keys", new, "missing"), ("unexpected_keys", unused, "not the model's")):
        wrong = sorted(name for name in loaded[kind] if not name.startswith(allowed))
        if wrong:
            raise DataError(f"{len(wrong)} tensors are {what}, {wrong[0]} for one", where=folder, remedy=REMEDY)
    model.stored_dtype = precision.stored(folder)
    pattern.keep(model.config)
    return model


def load_config(folder: Path) -> "PretrainedConfig":
    """Return the config in `folder`. Raises DataError naming it."""
    from transformers import AutoConfig

    from stages.common.core.sparse import attention

    attention.register()
    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # a config that is JSON but no config raises KeyError, TypeError, validation errors, …
        raise _unreadable("config", folder, error) from error


def load_tokenizer(folder: Path | str) -> "PreTrainedTokenizerBase":
    """Return the tokenizer in `folder`. Raises DataError naming it."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # the Rust tokenizer raises bare Exception for a corrupt tokenizer.json
        raise _unreadable("tokenizer", folder, error) from error


def save(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", folder: Path) -> None:
    """Write a complete model folder: configs, safetensors, tokenizer with its chat template."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def tied_once(model: "PreTrainedModel", weights: dict[str, Any]) -> dict[str, Any]:
    """Return weights without the second name of a tied one, as `save_pretrained` writes them.

    What DeepSpeed gathers are copies, by which ties are no longer seen.
    """
    every = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    first = {name for name, _ in model.named_parameters()}
    return {name: value for name, value in weights.items() if name in first or name not in every}


def check_context(config: "PretrainedConfig", max_tokens: int, key: str) -> None:
    """Raise ParamsError when sequences of `max_tokens`, set under `key` in params.yaml, are beyond
    what a model reads.

    A model with rotary positions would go on without a word, at positions it has never seen.
    """
    context = getattr(config.get_text_config(decoder=True), "max_position_embeddings", None)
    if context and max_tokens > context:
        raise ParamsError(f"'{key}' is {max_tokens}, but the model reads {context}", where="params.yaml")


def check(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return name -> shape of every tensor, after a look at its bytes range and type, and at the
    config.

    Raises DataError naming the file that is wrong.
    """
    from safetensors import SafetensorError, safe_open

    weights = sorted(folder.glob("*.safetensors"))
    for file in (folder / "config.json", *(weights or [folder / "model.safetensors"])):
        if not file.is_file():
            raise DataError("file not found", where=file, remedy=REMEDY)
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"not valid JSON: {error}", where=folder / "config.json", remedy=REMEDY) from error
    shapes: dict[str, tuple[int, ...]] = {}
    for file in weights:
        try:
            with safe_open(file, framework="pt") as handle:
                slices = {name: handle.get_slice(name) for name in handle.keys()}  # noqa: SIM118  # no dict
                types = {name: one.get_dtype() for name, one in slices.items()}
                shapes |= {name: tuple(one.get_shape()) for name, one in slices.items()}
        except (SafetensorError, OSError) as error:
            raise DataError(f"not a valid safetensors file: {error}", where=file, remedy=REMEDY) from error
        for name, kind in types.items():
            if not kind.startswith(FLOATS):
                raise DataError(f"{name} is of type {kind}, no weight", where=file, remedy=REMEDY)
    layers = config.get("num_hidden_layers", 0) if isinstance(config, dict) else None
    if not isinstance(layers, int) or layers > len(shapes):  # built before it is compared with the files: for ever
        what = f"no config of these {len(shapes)} tensors (num_hidden_layers: {layers})"
        raise DataError(what, where=folder / "config.json", remedy=REMEDY)
    return shapes


def _compare(cls: Any, folder: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """Raise DataError when the config is of another model than the tensors, before memory is taken
    for that one.
    """
    import torch
    from transformers import AutoConfig

    with torch.device("meta"), unsplit():
        planned = cls.from_config(AutoConfig.from_pretrained(folder, trust_remote_code=False))
    for name, value in planned.state_dict().items():
        if name in shapes and shapes[name] != tuple(value.shape):
            what = f"{name} is {shapes[name]}, by the config {tuple(value.shape)}"
            raise DataError(what, where=folder / "config.json", remedy=REMEDY)
    wanted, held = sum(one.numel() for one in planned.parameters()), sum(map(math.prod, shapes.values()))
    if wanted > BEYOND * held:
        what = f"a config of {wanted:,} parameters, but the tensors have {held:,}"
        raise DataError(what, where=folder / "config.json", remedy=REMEDY)


def refuse_pickles(folder: Path) -> None:
    """Raise DataError when a folder from which a library reads what it finds holds a pickle."""
    for file in sorted(folder.rglob("*")):
        if file.suffix in PICKLES:
            raise DataError("a pickle, which is never loaded", where=file, remedy="remove it, if you trust the rest")


def weights_sha256(folder: Path) -> str:
    """Return the SHA-256 over the folder's safetensors files, in name order: a model's identity."""
    digest = hashlib.sha256()
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise DataError("no *.safetensors here", where=folder, remedy=REMEDY)
    for file in weights:
        digest.update(file.name.encode() + bytes.fromhex(file_sha256(file)))
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, read in blocks."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _unreadable(what: str, folder: Path | str, error: Exception) -> DataError:
    first = (str(error).splitlines() or [type(error).__name__])[0]
    named = isinstance(folder, str) and not Path(folder).exists()
    return DataError(f"cannot load the {what}: {first}", where=folder, remedy=FETCH if named else REMEDY)
