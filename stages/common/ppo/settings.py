"""What PPO's parts are told."""

from pathlib import Path
from typing import Any, Protocol

from stages.common.reward.checked import Rewards


class Settings(Protocol):
    """What rollouts, trainer and report read of the stage's `Params`, where each has its
    docstring.
    """

    keep_checkpoints: int
    lora: dict[str, Any] | None
    max_tokens: int
    max_new_tokens: int
    temperature: float
    rollout_batch_size: int
    demonstrations: int
    rewards: Rewards
    gamma: float
    gae_lambda: float
    reward_clip: float
    end_penalty: float
    clip: float
    value_clip: float | None
    value_warmup: int
    value_weight: float
    kl_stop: float
    ptx_weight: float
    ptx_blocks: int
    average_decay: float | None

    def held_dtype(self, folder: Path | str) -> Any:
        """Return the dtype that a trained model's weights are held in."""
