"""Who decodes: the model in this process, or vLLM over the same folder (`run.engine` of
params.yaml).
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.common.core import models, params, precision
from stages.common.generation import generator
from stages.common.generation.engines import vllm_environment
from stages.common.generation.engines.vllm_process import Vllm
from stages.common.runtime.errors import ParamsError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ENGINES = ("local", "vllm")


def chosen() -> str:
    """Return `run.engine`, `local` where params.yaml says nothing. Raises ParamsError for another
    name than those of ENGINES.
    """
    section = params.plain(params.read_yaml(params.PARAMS_FILE)).get("run") if params.PARAMS_FILE.is_file() else {}
    name = (section or {}).get("engine", ENGINES[0])
    if name not in ENGINES:
        near = params.suggestion(str(name), list(ENGINES))
        raise ParamsError(f"'run.engine': {name!r} is none of {', '.join(ENGINES)}{near}", where=params.PARAMS_FILE)
    return str(name)


def section() -> dict[str, dict[str, Any]]:
    """Return the engine and its version as a section of params: what it makes is known by it too.

    Raises ParamsError where vLLM is chosen and is not there.
    """
    name = chosen()
    return {"run": {"engine": name} | ({"vllm": vllm_environment.version()} if name == "vllm" else {})}


def load(folder: Path, rows: int) -> "PreTrainedModel | Vllm":
    """Return what `generator.decode` is given for the model in `folder`: that model, or vLLM's
    engine with `rows` answers at once, which ends when nothing refers to it.
    """
    if chosen() == "local":
        return models.load_frozen(folder)
    models.check(folder)
    dtype = str(precision.frozen(folder)).removeprefix("torch.")
    return Vllm(folder, generator.context_of(models.load_config(folder)), rows=rows, dtype=dtype)


def readable(answering: "PreTrainedModel | Vllm", folder: Path) -> "PreTrainedModel":
    """Return the model in `folder` in this process: the one that answered, or a new one in an
    engine's place, which ends first.
    """
    if not isinstance(answering, Vllm):
        return answering
    answering.close()
    return models.load_frozen(folder)
