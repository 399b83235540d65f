"""A small PPO for tests: models, prompts and texts on disk, and the stage's trainer over them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stages import ppo
from stages.common.core import models
from stages.common.ranking.samples import SCHEMA
from stages.common.tracking.run import Run
from stages.common.training import fit as training
from tests.common.reward.test_scoring import reward_model
from tests.support.tiny import conversation, make_model, make_tokenizer, write_validated

TRAINING = {"num_train_epochs": 1, "per_device_train_batch_size": 4, "learning_rate": 0.003, "seed": 1}
SMALL: dict[str, Any] = {
    "max_tokens": 128,
    "max_new_tokens": 6,
    "rollout_episodes": 8,
    "rollouts_per_epoch": 2,
    "value_clip": 0.2,
    "value_warmup": 0,
    "demonstrations": 10,
    "watch_prompts": 0,
}


def write_ppo(folder: Path) -> None:
    """Write a policy, a reward model, samples, conversations and documents."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    write_validated(folder)
    tokenizer = make_tokenizer()
    models.save(make_model(tokenizer), tokenizer, folder / "model")
    models.save(reward_model(), tokenizer, folder / "reward")
    for split, numbers in (("train", range(100, 120)), ("validation", range(120, 126))):
        rows = [
            {"id": f"p:{n}", "source": "p", "messages": conversation(n)["messages"][:1], "reference": None}
            | {"category": None, "responses": ["a", "b"], "cut": [False, False]}
            for n in numbers
        ]
        (folder / "samples" / split).mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), folder / "samples" / split / "part-00000.parquet")


def build(settings: ppo.Params, world: Path, prompts: Mapping[str, Sequence[list[int]]] | None = None) -> Any:
    """Return the stage's trainer over what `write_ppo` wrote, or over other prompts."""
    prompts = prompts or ppo.read(settings, world / "model", world / "samples")
    places = {name: world / name for name in ("model", "reward", "conversations", "documents")}
    return ppo.build_trainer(settings, prompts, Run(None), "test", **places)


def trainer_in(work: Path, prompts: Mapping[str, Sequence[list[int]]] | None = None, **settings: Any) -> Any:
    chosen = ppo.Params(**({"training": TRAINING | settings.pop("training", {})} | SMALL | settings))
    return build(chosen, work, prompts)


def fit(trainer: Any) -> list[Path]:
    return training.fit(trainer, trainer.setup.settings, trainer.setup.run, "ppo")
