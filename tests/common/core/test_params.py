"""params.yaml is read as DVC reads it, and every mistake is named with its line."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from stages.common.core import params
from stages.common.core.params import StageParams
from stages.common.runtime.errors import EXIT_PARAMS, ParamsError


class Model(StageParams):
    layers: int


class Params(StageParams):
    rate: float = 0.1
    model: Model
    names: list[str] = []
    training: dict[str, Any] = {}


@dataclass
class Config:
    learning_rate: float = 1.0
    output_dir: str = ""
    warmup_steps: int = 0

    def __post_init__(self) -> None:
        if self.warmup_steps < 0:
            raise ValueError("warmup_steps must not be negative")


def file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "params.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_section_becomes_typed_and_frozen(tmp_path: Path) -> None:
    path = file(
        tmp_path, "x:\n  rate: 1e-5  # a number to DVC, text to PyYAML\n  model: {layers: 2}\n  names: [a, 文]\n"
    )
    found = params.load(Params, "x", path)
    assert found == Params(rate=1e-5, model=Model(layers=2), names=["a", "文"])
    assert type(found.rate) is float and type(found.names) is list
    with pytest.raises(ValueError, match="frozen"):
        found.rate = 2.0


def test_an_empty_section_is_all_defaults(tmp_path: Path) -> None:
    class Empty(StageParams):
        rate: float = 0.1

    assert params.load(Empty, "x", file(tmp_path, "x:\n")) == Empty()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x:\n  model:\n    layers: 2\n  rat: 1\n", r"params\.yaml:4: unknown key 'x\.rat', did you mean 'rate'\?"),
        (
            "x:\n  model: {layers: 2, layer: 2}\n",
            r"params\.yaml:2: unknown key 'x\.model\.layer', did you mean 'layers'",
        ),
        ("x:\n  model:\n    zzz: 2\n    layers: 2\n", r"params\.yaml:3: unknown key 'x\.model\.zzz'$"),
        ("x:\n  rate: 1\n", r"params\.yaml:1: missing key 'x\.model'"),
        ("x:\n  rate: fast\n  model: {layers: 2}\n", r"params\.yaml:2: 'x\.rate': .*valid number.*'fast'"),
        ("x:\n  model: {layers: '2'}\n", r"params\.yaml:2: 'x\.model\.layers': .*valid integer"),
        ("y:\n  rate: 1\n", r"params\.yaml: no section 'x'"),
        ("xs:\n  rate: 1\n", r"no section 'x', did you mean 'xs'\?"),
        ("x: [1\n", r"params\.yaml:\d: not valid YAML"),
        ("- x\n", "not a mapping of sections"),
        ("", "not a mapping of sections"),
    ],
)
def test_a_mistake_is_named_with_its_line(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ParamsError) as mistake:
        params.load(Params, "x", file(tmp_path, text))
    assert mistake.value.code == EXIT_PARAMS
    mistake.match(message)


def test_a_missing_file_says_where_to_stand(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="file not found; run from the project's root"):
        params.load(Params, "x", tmp_path / "params.yaml")


def test_a_library_s_own_keys_reach_its_config() -> None:
    assert params.library_config(Config, {"learning_rate": 2.0}, "x.training", output_dir="a") == Config(2.0, "a")


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"learning_rat": 1}, r"unknown key 'x\.training\.learning_rat', did you mean 'learning_rate'\?"),
        ({"output_dir": "b"}, r"'x\.training\.output_dir' is set by the stage itself; remove it"),
        ({"warmup_steps": -1}, r"x\.training: warmup_steps must not be negative"),
    ],
)
def test_a_library_key_that_is_wrong_is_a_params_error(mapping: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        params.library_config(Config, mapping, "x.training", output_dir="a")
