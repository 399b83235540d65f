"""A trainer's state (optimiser, scheduler, random generators) as safetensors and JSON: nothing to
unpickle.
"""

import json
import random
from pathlib import Path
from typing import Any

Json = Any


def save_state(state: dict[str, Any], folder: Path, name: str) -> None:
    """Write a nest of dicts, lists, tuples, numbers, text, arrays and tensors as `name`.json +
    `name`.safetensors.
    """
    from safetensors.torch import save_file

    tensors: dict[str, Any] = {}
    document = _pack(state, tensors)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(document), encoding="utf-8")
    save_file(tensors, folder / f"{name}.safetensors")


def load_state(folder: Path, name: str) -> dict[str, Any]:
    """Return what `save_state` wrote, equal to the bit (JSON keeps every float's 17 digits)."""
    from safetensors.torch import load_file

    document = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    return _unpack(document, load_file(folder / f"{name}.safetensors"))


def random_state() -> dict[str, Any]:
    """Return the state of the random generators of Python, numpy, torch and every CUDA device."""
    import numpy
    import torch

    state: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": numpy.random.get_state(),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Restore what `random_state` returned."""
    import numpy
    import torch

    random.setstate(state["python"])
    numpy.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


def _pack(value: Any, tensors: dict[str, Any]) -> Json:
    import numpy
    import torch

    if isinstance(value, torch.Tensor):
        key = str(len(tensors))
        tensors[key] = value.detach().cpu().clone().contiguous()
        return {"tensor": key}
    if isinstance(value, numpy.ndarray):
        return {"array": value.tolist(), "dtype": str(value.dtype)}
    if isinstance(value, dict):
        return {"dict": [[_pack(key, tensors), _pack(item, tensors)] for key, item in value.items()]}
    if isinstance(value, tuple):
        return {"tuple": [_pack(item, tensors) for item in value]}
    if isinstance(value, list):
        return [_pack(item, tensors) for item in value]
    if isinstance(value, numpy.generic):
        return value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"a {type(value).__name__} has no place in a checkpoint")


def _unpack(value: Json, tensors: dict[str, Any]) -> Any:
    import numpy

    if isinstance(value, list):
        return [_unpack(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return tensors[value["tensor"]]
    if "array" in value:
        return numpy.array(value["array"], dtype=value["dtype"])
    if "tuple" in value:
        return tuple(_unpack(item, tensors) for item in value["tuple"])
    return {_unpack(key, tensors): _unpack(item, tensors) for key, item in value["dict"]}
