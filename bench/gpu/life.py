"""One life of a small SFT, which may be killed: trained to the end, or on from its newest
checkpoint.

    python -m bench.gpu.life FOLDER STEPS

FOLDER gets data and model when it has none; the last line is the SHA-256 of the kept weights.
"""

import os
import sys
from pathlib import Path


def main() -> None:
    """Train on."""
    from stages import sft
    from stages.common.core import checkpoints, models
    from stages.common.tracking.run import Run
    from stages.common.training import fit
    from tests.support import trainers

    folder, steps = Path(sys.argv[1]).absolute(), int(sys.argv[2])
    if not (folder / "model").exists():
        trainers.write_small(folder)
    os.chdir(folder)
    checkpoints.ROOT = folder / "checkpoints"
    training = {"max_steps": steps, "per_device_train_batch_size": 4, "learning_rate": 1e-3, "seed": 1}
    settings = sft.Params(checkpoint_minutes=0.0001, training=training)
    trainer = sft.build_trainer(settings, folder / "model", folder / "conversations", "gpu-check")
    kept = fit.fit(trainer, settings, Run(None), "sft")
    print(models.weights_sha256(kept[-1]), flush=True)


if __name__ == "__main__":
    main()
