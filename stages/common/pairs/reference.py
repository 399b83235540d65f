"""TRL's trainers that stay near a reference, over tokens of our own, which it reads once, before
the first step.
"""

from pathlib import Path
from typing import Any

from stages.common.training.resumable import TrainerBase


class ReadOnce(TrainerBase):
    """Mixin before TRL's DPOTrainer or KTOTrainer, over answers that our own template has
    rendered.
    """

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset

    def _precompute_ref_logps(self, dataset: Any, name: str, batch_size: int) -> Any:
        """Hand round what the reference reads by a file all processes find; TRL's folder is each
        one's own.
        """
        file = Path(self.args.output_dir) / f"reference-{name}.arrow"
        if self.args.should_save:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.unlink(missing_ok=True)
        self.accelerator.wait_for_everyone()
        dataset._get_cache_file_path = lambda _: str(file)
        return super()._precompute_ref_logps(dataset, name, batch_size)
