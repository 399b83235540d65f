"""What every trainer is told: its keys in params.yaml, and the library's config made of them and of
the hardware.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from stages.common.core import checkpoints, params, precision
from stages.common.core.params import StageParams
from stages.common.runtime.logs import log
from stages.common.training import data_order, ineffective_keys

if TYPE_CHECKING:
    import torch

WHOLE = 32
"""Bits of a weight as it is trained."""
# Set by the stage itself for every trainer. Loss is logged at each step, because a mean over
# several steps would differ after a resume; TRL and transformers write training_args.bin (a pickle)
# and cards, which `Resumable` leaves out.
OWN: dict[str, Any] = {
    "save_strategy": "no",
    "eval_strategy": "epoch",
    "logging_steps": 1,
    "logging_nan_inf_filter": False,
    "report_to": "none",
    "disable_tqdm": True,
}


class FitParams(StageParams):
    """Keys every trainer stage has beside `training`, which belongs to the library's config
    class.
    """

    training: dict[str, Any]
    """The training library's own config, under its own names."""
    checkpoint_minutes: float = 5.0
    """Minutes between checkpoints; more where one takes long to write. One is also written at each
    epoch's end and on SIGTERM.
    """
    keep_checkpoints: int = 2
    """Newest checkpoints kept for resuming."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """In which trained weights and their optimiser's state are held; products are taken in bf16 on
    a GPU either way.
    """

    def adapters(self, section: str) -> Any:
        """Return peft's LoraConfig of the stage whose params these are; None where all weights are
        trained.
        """
        del section
        return None

    def held_dtype(self, folder: Path | str) -> "torch.dtype":
        """Return the dtype that the weights of the model in `folder` have in the training."""
        import torch

        del folder
        found: torch.dtype = getattr(torch, self.dtype)
        return found

    def weight_bits(self) -> int:
        """Return how many bits a weight of the base model's matrices takes."""
        return WHOLE


def config(cls: type, settings: FitParams, stage: str, fingerprint: str, **own: Any) -> Any:
    """Return the library's config from params.yaml, this stage's own keys and the hardware's.

    Hardware is not a parameter: fp32 without a GPU (bf16 is eight times slower there), bf16 with
    one unless `training` says otherwise, and TF32; gloo between CPU processes. Models are read
    after this: the process then knows its device. Raises ParamsError for a key `cls` does not have,
    and for one without effect in this stage.
    """
    import torch

    ineffective_keys.check(stage, settings.training)
    gpu = torch.cuda.is_available()
    precision.fast_products()
    hardware: dict[str, Any] = {"use_cpu": not gpu}
    if "bf16" not in settings.training and "fp16" not in settings.training:
        hardware["bf16"] = gpu
    if not gpu and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        hardware["ddp_backend"] = "gloo"
    folder = checkpoints.ROOT / stage / fingerprint
    training = data_order.as_before(settings.training, cls, folder)
    arguments = params.library_config(
        cls, training, f"{stage}.training", output_dir=str(folder), **OWN, **hardware, **own
    )
    # Here accelerate chooses the process's device: a model read before would go to the first GPU.
    log.debug("device of this process: %s", arguments.device)
    return arguments
