"""A real registry in a folder, and versions of a tiny model in it."""

from pathlib import Path
from typing import TYPE_CHECKING

from stages.common.core import models
from stages.common.release import registry
from stages.common.release.registry import Version
from tests.support.tiny import make_model, make_tokenizer

if TYPE_CHECKING:
    from stages.common.tracking.mlflow_store import MlflowClient

NAME = "lathe"


def add_version(client: "MlflowClient", folder: Path, seed: int) -> Version:
    """Register a tiny model with random weights from `seed`."""
    tokenizer = make_tokenizer()
    models.save(make_model(tokenizer, seed), tokenizer, folder / f"seed-{seed}")
    tags = {
        "weights_sha256": models.weights_sha256(folder / f"seed-{seed}"),
        "candidate": f"seed-{seed}",
        "metric": "accuracy/iid",
        "value": "0.5",
    }
    return registry.register(client, NAME, folder / f"seed-{seed}", tags, "{}")
