"""A policy in training, decoded by vLLM: before each rollout its weights are written as a folder of
safetensors, and the engine reads them.
"""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.common.core import models, precision
from stages.common.generation import generator
from stages.common.generation.engines.vllm_process import Vllm
from stages.common.runtime import process

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

MIRROR = ".rollout"
"""Folder beside a training's checkpoints that the weights are written to."""
HEAD = "head.safetensors"
WHOLE, BODY = "model.safetensors", "body.safetensors"
INDEX = "model.safetensors.index.json"


class MirroredPolicy:
    """vLLM's engine with the weights that a policy has now; it sleeps while the policy is trained.

    `folder` gets the weights; all processes of a training read them from there, each with an engine
    of its own. `rows` answers are under way at once, of at most `most_tokens` with their prompt.
    """

    def __init__(self, folder: Path, *, rows: int, most_tokens: int, world: int = 1) -> None:
        self.folder, self.rows, self.most_tokens, self.world = folder, rows, most_tokens, world
        self.engine: Vllm | None = None

    def of(self, policy: "PreTrainedModel") -> Vllm:
        """Return the engine, which answers as `policy`; started when first asked for.

        Raises as `Vllm`, and TryAgainError when the engine died.
        """
        import torch

        dtype = decoding_dtype(policy)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # what this process has freed is the engine's then
        if process.is_main_process():
            write(policy, self.folder, dtype)
        if self.world > 1:
            from accelerate import PartialState

            PartialState().wait_for_everyone()
        if self.engine is None:
            kind = str(dtype).removeprefix("torch.")
            context = generator.context(policy)
            most = min(self.most_tokens, context or self.most_tokens)
            self.engine = Vllm(self.folder, context, rows=self.rows, dtype=kind, most_tokens=most, sleeps=True)
        else:
            self.engine.load(self.folder)
        return self.engine

    def rest(self) -> None:
        """Let the engine's memory go until `of` is called again."""
        if self.engine is not None:
            self.engine.sleep()

    def close(self) -> None:
        """End the engine and remove the weights."""
        if self.engine is not None:
            self.engine.close()
        self.engine = None
        if process.is_main_process():
            shutil.rmtree(self.folder, ignore_errors=True)


def decoding_dtype(policy: "PreTrainedModel") -> "torch.dtype":
    """Return what the engine holds the policy in: on a GPU 16 bits, else fp32."""
    import torch

    if not torch.cuda.is_available():
        return torch.float32
    return policy.dtype if policy.dtype.itemsize == 2 else torch.bfloat16


def write(policy: "PreTrainedModel", folder: Path, dtype: "torch.dtype") -> None:
    """Write the policy's weights and config in `dtype`, with an output matrix of its own.

    vLLM 0.32 keeps a packed copy of the output matrix on a CPU. Where that is tied to the input's,
    reading weights anew leaves the copy as it was: answers are then of neither policy.
    """
    from safetensors import safe_open
    from safetensors.torch import save_file

    shutil.rmtree(folder, ignore_errors=True)
    weights = precision.rounded(policy.state_dict(), dtype)
    policy.save_pretrained(folder, state_dict=models.tied_once(policy, weights))
    config = folder / "config.json"
    _change(config, dtype=str(dtype).removeprefix("torch."))
    head = next((name for name, one in policy.named_modules() if one is policy.get_output_embeddings()), "")
    if not policy.config.get_text_config(decoder=True).tie_word_embeddings or not head:
        return
    name = f"{head}.weight"
    save_file({name: weights[name].detach().cpu().clone()}, folder / HEAD, metadata={"format": "pt"})
    _change(config, tie_word_embeddings=False)
    if (folder / WHOLE).is_file():
        (folder / WHOLE).rename(folder / BODY)  # a file of that name would go before the index
    files: dict[str, str] = {}
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="pt") as handle:
            files |= dict.fromkeys(handle.keys(), file.name)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": files}), encoding="utf-8")


def _change(file: Path, **changed: Any) -> None:
    known = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(known | changed, indent=2, sort_keys=True) + "\n", encoding="utf-8")
