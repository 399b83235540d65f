"""Models that a training keeps: one an epoch, whole and hashed, copied to the stage's outs with the
loss curve.
"""

import math
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.common.core import checkpoints, precision
from stages.common.core.models import weights_sha256
from stages.common.runtime import disk_space, kill_points, logs, process
from stages.common.runtime.errors import DataError

if TYPE_CHECKING:
    import torch

    from stages.common.tracking.run import Run

KEPT = "kept"
CURVE = "step,epoch,loss,learning_rate,eval_loss"
"""Columns of a loss curve."""
JUDGED = ("rewards/accuracies", "rewards/margins")
"""What a trainer of preferences measures besides."""


def kept_epochs(folder: Path) -> list[Path]:
    """Return the kept epochs' model folders, in order. Raises DataError when one is not as it was
    written.
    """
    return [whole(epoch, folder) for epoch in sorted((folder / KEPT).glob("epoch-*"), key=checkpoints.step)]


def whole(kept: Path, folder: Path) -> Path:
    """Return a kept model's folder in a training's `folder`. Raises DataError when it is not as it
    was written.
    """
    wrong = checkpoints.fault(kept)
    if wrong:
        raise DataError(f"kept model not usable: {wrong}", remedy=f"train anew: rm -r {folder}")
    return kept


def keep_epoch(trainer: Any, run: "Run", stage: str, metrics: dict[str, float]) -> None:
    """Keep the model at an epoch's end for the stage's outs, in its base's dtype, and log it as a
    LoggedModel.
    """
    final = Path(trainer.args.output_dir) / KEPT / f"epoch-{math.ceil(trainer.state.epoch)}"
    keep(trainer, final)
    if trainer.args.should_save:
        run.checkpoint(f"{stage}-{final.name}", final, trainer.state.global_step, metrics, weights_sha256(final))
    trainer.accelerator.wait_for_everyone()


def keep(trainer: Any, final: Path) -> None:
    """Keep the model as it is now in the folder `final`, whole and hashed, in its base's dtype."""
    temporary = Path(trainer.args.output_dir) / ".kept-writing"
    process.restart_grace()
    dtype = stored_dtype(trainer.model)
    room = disk_space.made(temporary, disk_space.size(final.with_name("epoch-1")) * 4 // dtype.itemsize)
    with room if trainer.args.should_save else nullcontext():
        trainer.save_model(str(temporary))
        process.restart_grace()
        if trainer.args.should_save:
            precision.write_rounded(temporary, dtype)
            final.parent.mkdir(exist_ok=True)
            checkpoints.seal(temporary, final)


def keep_step(trainer: Any) -> None:
    """Keep the model of this step, and no other of a step."""
    final = Path(trainer.args.output_dir) / KEPT / f"step-{trainer.state.global_step:06d}"
    keep(trainer, final)
    if trainer.args.should_save:
        for old in final.parent.glob("step-*"):
            if old != final:
                shutil.rmtree(old)
    trainer.accelerator.wait_for_everyone()


def stored_dtype(model: Any) -> "torch.dtype":
    """Return the dtype that the weights had where a model (of PPO's two, the policy) was read from;
    fp32 for a new one.

    Training is in fp32 and so are checkpoints; what is handed on is as large as what was given.
    """
    import torch

    found: torch.dtype = getattr(getattr(model, "policy", model), "stored_dtype", torch.float32)
    return found


def publish(trainer: Any, folders: dict[str, Path], out: Path, curve: Path, run: "Run", stage: str) -> None:
    """Copy kept model folders to the outs (`folders`: name under `out` -> kept folder), with curve
    and figure.
    """
    history = trainer.state.log_history
    if trainer.args.should_save:
        for name, kept in folders.items():
            copy_model(kept, out / name)
        write_curve(history, curve)
        kill_points.point("publish:curve")
        run.figure("loss", curve_figure(history, stage))
    held_out = [row for row in history if "eval_loss" in row]
    told = {f"eval_{name}": held_out[-1].get(f"eval_{name}") for name in ("loss", *JUDGED)}
    told["eval_loss_best"] = min(row["eval_loss"] for row in held_out)
    told["loss"] = next((row["loss"] for row in reversed(history) if "loss" in row), None)
    steps = trainer.state.global_step
    logs.report(f"validation loss {told['eval_loss']:.3f} after {steps} steps", told | {"steps": steps})


def copy_model(kept: Path, out: Path) -> None:
    """Copy a kept model folder, without its manifest. Raises TryAgainError when there is no room
    for it.
    """
    disk_space.check(out, disk_space.size(kept))
    shutil.copytree(kept, out, dirs_exist_ok=True, ignore=shutil.ignore_patterns(checkpoints.MANIFEST))
    kill_points.point("publish:model")


def write_curve(history: list[dict[str, float]], path: Path) -> None:
    """Write the loss of every step and the validation loss of every epoch as CSV, for `dvc
    plots`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [CURVE]
    for row in history:
        if "loss" in row:
            rows.append(f"{row['step']},{row['epoch']:.6g},{row['loss']:.6g},{row['learning_rate']:.6g},")
        elif "eval_loss" in row:
            rows.append(f"{row['step']},{row['epoch']:.6g},,,{row['eval_loss']:.6g}")
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")


def curve_figure(history: list[dict[str, float]], title: str) -> Any:
    """Return the loss curve as a matplotlib figure."""
    from matplotlib.figure import Figure

    plot = Figure(figsize=(7, 4))
    axes = plot.subplots()
    for key, style in (("loss", "-"), ("eval_loss", "o-")):
        points = [(row["step"], row[key]) for row in history if key in row]
        if points:
            axes.plot(*zip(*points, strict=True), style, label=key, linewidth=1)
    axes.set(xlabel="step", ylabel="nats per token", title=title)
    axes.legend()
    return plot
