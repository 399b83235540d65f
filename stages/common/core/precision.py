"""In which dtype weights are: on disk, and in models that only answer or score."""

import json
import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

HALVES = {"BF16": "bfloat16", "F16": "float16"}
WHOLE_HEADS = ("score.",)
"""Weights that stay fp32 on disk: two answers' scores differ by less than bf16 can tell."""


def stored(folder: Path | str) -> "torch.dtype":
    """Return the dtype most weights of the model in `folder` have; of a name in the hub's cache,
    its config's.
    """
    import torch
    from safetensors import safe_open

    sizes: Counter[str] = Counter()
    for file in Path(folder).glob("*.safetensors"):
        with safe_open(file, framework="pt") as handle:
            for name in handle.keys():  # noqa: SIM118  # no dict
                part = handle.get_slice(name)
                sizes[part.get_dtype()] += math.prod(part.get_shape())
    if not sizes and not Path(folder).is_dir():
        from transformers import AutoConfig

        return AutoConfig.from_pretrained(folder, trust_remote_code=False).dtype or torch.float32
    most = max(sizes, key=lambda kind: sizes[kind], default="F32")
    found: torch.dtype = getattr(torch, HALVES.get(most, "float32"))
    return found


def frozen(folder: Path | str) -> "torch.dtype":
    """Return the dtype in which a model that only answers or scores is held: on a GPU 16 bits, else
    fp32.
    """
    import torch

    if not torch.cuda.is_available():
        return torch.float32  # a processor without bf16 products is eight times slower at them
    found = stored(folder)
    return found if found.itemsize == 2 else torch.bfloat16


def fast_products() -> None:
    """Let a GPU take products of fp32 numbers in TF32, which has their range and ten bits."""
    import torch

    if torch.cuda.is_available():
        torch.set_float32_matmul_precision("high")


def rounded(weights: "dict[str, torch.Tensor]", dtype: "torch.dtype") -> "dict[str, torch.Tensor]":
    """Return weights by name in `dtype`; those of a head that gives one number stay as they are."""
    return {
        name: value if not value.is_floating_point() or name.startswith(WHOLE_HEADS) else value.to(dtype)
        for name, value in weights.items()
    }


def write_rounded(folder: Path, dtype: "torch.dtype") -> None:
    """Write the model in `folder` anew in `dtype`, one file after the other; it stays as it is
    where it has that.
    """
    if stored(folder) == dtype:
        return
    from safetensors import safe_open
    from safetensors.torch import save_file

    total = 0
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as handle:
            metadata = handle.metadata()
            weights: dict[str, Any] = {}
            for name in handle.keys():  # noqa: SIM118  # no dict
                weights |= rounded({name: handle.get_tensor(name)}, dtype)
        save_file(weights, temporary := file.with_suffix(".rounded"), metadata=metadata)
        temporary.replace(file)
        total += sum(value.nbytes for value in weights.values())
    _change(folder / "config.json", dtype=str(dtype).removeprefix("torch."))
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        known = json.loads(index.read_text(encoding="utf-8"))["metadata"]
        _change(index, metadata=known | {"total_size": total})


def _change(file: Path, **changed: Any) -> None:
    known = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(known | changed, indent=2, sort_keys=True) + "\n", encoding="utf-8")
