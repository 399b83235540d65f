"""What a promotion's report says to those who deploy: which weights are to answer, and whether a
person must decide.
"""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ValidationError

from stages.common.core import params
from stages.common.release import registry
from stages.common.runtime.errors import DataError, ParamsError
from stages.common.tracking import mlflow_store


class Promotion(BaseModel):
    """What deploy needs of the promotion's report."""

    name: str
    champion_sha256: str | None
    """Weights of the champion after the decision; None when there is none."""
    decision: Literal["promoted", "pending", "refused"]
    weights_sha256: str
    """Weights that were decided about."""
    reason: str

    @property
    def deployed_sha256(self) -> str | None:
        """Weights that are to answer: the champion's, or where there is none those that wait, once
        approved.
        """
        return self.champion_sha256 or (self.weights_sha256 if self.decision == "pending" else None)

    def check(self, held: str, report: Path) -> None:
        """Raise DataError when the registry's champion has other weights than the `report` says."""
        if held != self.deployed_sha256:
            here = str(self.deployed_sha256)[:12]
            what = f"the champion's weights are {here} here and {held[:12]} in the registry"
            raise DataError(what, where=report, remedy="run `dvc repro -f promote`")


def read(path: Path) -> Promotion:
    """Return the promotion's report. Raises DataError when it is missing, malformed, or nothing is
    to be deployed.
    """
    try:
        promoted = Promotion.model_validate_json(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValidationError) as error:
        what = f"not a promotion's report ({str(error).splitlines()[0]})"
        raise DataError(what, where=path, remedy="run `dvc repro -f promote`") from error
    if promoted.deployed_sha256 is None:
        raise DataError(f"there is no champion: {promoted.reason}", where=path, remedy="train a better candidate")
    return promoted


def registered_name() -> str:
    """Return `promote.name` of params.yaml. Raises ParamsError."""
    name = (params.read_yaml(params.PARAMS_FILE).get("promote") or {}).get("name")
    if not name:
        raise ParamsError("missing key 'promote.name'", where=params.PARAMS_FILE)
    return str(name)


def waiting(promoted: Promotion) -> str:
    """Return the number of the version that waits for a person where there is no champion yet, else
    "".
    """
    if promoted.champion_sha256 is not None:
        return ""
    client = mlflow_store.client()
    if registry.with_alias(client, promoted.name, registry.CHAMPION):
        return ""
    found = registry.with_weights(client, promoted.name, promoted.weights_sha256)
    return found.number if found else ""
