"""params.yaml, read as DVC reads it, into frozen models that refuse an unknown key."""

import difflib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import MarkedYAMLError

from stages.common.runtime.errors import ParamsError

PARAMS_FILE = Path("params.yaml")


class StageParams(BaseModel):
    """Base of every stage's `Params`: frozen, typed, closed, documented by attribute docstrings."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


P = TypeVar("P", bound=StageParams)


def read_yaml(path: Path) -> CommentedMap:
    """Return the YAML mapping in `path`, with ruamel.yaml, DVC's own parser (`1e-5` is a number).

    Raises ParamsError with file and line when it is missing, no mapping, or malformed.
    """
    try:
        yaml = YAML()
        yaml.preserve_quotes = True  # `"off"` without them is a boolean for readers of YAML 1.1
        document = yaml.load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ParamsError("file not found", where=path, remedy="run from the project's root") from error
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise ParamsError(f"not valid YAML: {error.problem}", where=f"{path}:{line}") from error
    if not isinstance(document, CommentedMap):
        raise ParamsError("not a mapping of sections", where=path)
    return document


def plain(value: Any) -> Any:
    """Return `value` without ruamel's wrapper types."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return value


def load(cls: type[P], section: str, path: Path = PARAMS_FILE) -> P:
    """Return `section` of `path` as `cls`.

    Raises ParamsError naming file, line and key, with "did you mean" for a misspelt one.
    """
    document = read_yaml(path)
    if section not in document:
        raise ParamsError(f"no section '{section}'{suggestion(section, list(document))}", where=path)
    try:
        return cls.model_validate(plain(document[section]) or {})
    except ValidationError as error:
        raise _explain(error, cls, section, document[section], path) from error


def suggestion(word: str, known: list[str]) -> str:
    """Return ", did you mean 'x'?" for the known word nearest to `word`, or nothing."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f", did you mean '{near[0]}'?" if near else ""


def library_config(cls: type, mapping: dict[str, Any], section: str, **own: Any) -> Any:
    """Return the library's config `cls(**mapping, **own)`; an unknown key is a ParamsError, not a
    TypeError.
    """
    import dataclasses

    known = [field.name for field in dataclasses.fields(cls) if field.init]
    for key in mapping:
        if key not in known:
            what = f"unknown key '{section}.{key}'{suggestion(key, known)} ({cls.__name__} has no such field)"
            raise ParamsError(what, where=PARAMS_FILE)
        if key in own:
            raise ParamsError(f"'{section}.{key}' is set by the stage itself", where=PARAMS_FILE, remedy="remove it")
    try:
        return cls(**mapping, **own)
    except (TypeError, ValueError) as error:
        raise ParamsError(f"{section}: {error}", where=PARAMS_FILE) from error


def _explain(error: ValidationError, cls: type[StageParams], section: str, node: Any, path: Path) -> ParamsError:
    first = min(
        error.errors(), key=lambda one: one["type"] != "extra_forbidden"
    )  # a misspelt key is also a missing one
    keys = [str(part) for part in first["loc"]]
    name = ".".join([section, *keys])
    line = _line(node, keys)
    if first["type"] == "extra_forbidden":
        what = f"unknown key '{name}'{suggestion(keys[-1], _fields(cls, keys[:-1]))}"
    elif first["type"] == "missing":
        what = f"missing key '{name}'"
    else:
        what = f"'{name}': {first['msg']} (got {first['input']!r})"
    return ParamsError(what, where=f"{path}:{line}" if line else path)


def _fields(cls: type[BaseModel], keys: list[str]) -> list[str]:
    for key in keys:
        annotation = cls.model_fields[key].annotation if key in cls.model_fields else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        cls = annotation
    return list(cls.model_fields)


def _line(node: Any, keys: list[str]) -> int:
    line = node.lc.line if isinstance(node, CommentedMap) else 0
    for key in keys:
        if not isinstance(node, CommentedMap) or key not in node:
            break
        line, node = node.lc.key(key)[0] + 1, node[key]
    return int(line)
