"""Static: stage file, params section and dvc.yaml entry agree, and nobody reads what is not
theirs.
"""

import importlib
import re
from pathlib import Path
from typing import Any

import pytest

from stages.common.core import code_closure, params

ROOT = Path(__file__).parent.parent
DVC: dict[str, Any] = params.plain(params.read_yaml(ROOT / "dvc.yaml"))["stages"]
PARAMS = params.plain(params.read_yaml(ROOT / "params.yaml"))
PROFILES = [ROOT / "params.yaml", *sorted((ROOT / "infra/profiles").glob("*.yaml"))]
STAGES = sorted(file.stem for file in (ROOT / "stages").glob("*.py") if file.stem != "__init__")
RAW = ("data/raw", "data/ingested", "data/extracted", "data/quarantine", "data/dropped")


def entry(stage: dict[str, Any]) -> dict[str, Any]:
    """Return the mapping that has cmd and deps: the stage itself, or the `do` of a foreach."""
    return dict(stage.get("do", stage))


def paths(block: dict[str, Any], *keys: str) -> list[str]:
    """Return the plain paths under deps, outs, metrics or plots of one entry."""
    items = [item for key in keys for item in block.get(key, [])]
    return [next(iter(item)) if isinstance(item, dict) else item for item in items]


def test_every_stage_has_a_file_a_section_and_an_entry() -> None:
    assert sorted(DVC) == STAGES
    assert sorted(set(PARAMS) - {"run"}) == STAGES


@pytest.mark.parametrize("name", STAGES)
def test_an_entry_runs_the_module_and_depends_on_the_section_of_its_name(name: str) -> None:
    block = entry(DVC[name])
    assert f"-m stages.{name} " in block["cmd"]
    own, *of_others = block["params"]
    assert own == name
    for key in of_others:  # a whole section belongs to one stage; another may read single keys of it
        section, _, inner = str(key).partition(".")
        assert section in {"run", *STAGES} - {name} and inner in params.read_yaml(ROOT / "params.yaml")[section], key


@pytest.mark.parametrize("profile", PROFILES, ids=lambda path: path.stem)
def test_params_accept_every_profile(profile: Path) -> None:
    assert sorted(set(params.read_yaml(profile)) - {"run"}) == STAGES
    for name in STAGES:
        params.load(importlib.import_module(f"stages.{name}").Params, name, profile)


@pytest.mark.parametrize("name", STAGES)
def test_every_path_of_a_command_is_a_dep_or_an_out(name: str) -> None:
    block = entry(DVC[name])
    known = paths(block, "deps", "outs", "metrics", "plots")
    for path in re.findall(r"--[\w-]+ (\S*(?:/|\$\{item\.model)\S*)", block["cmd"]):
        related = [
            other for other in known if path == other or path.startswith(f"{other}/") or other.startswith(f"{path}/")
        ]
        assert related, f"{path} of {name} is neither dep nor out"


@pytest.mark.parametrize("name", STAGES)
def test_the_packages_of_an_entry_are_those_its_stage_reaches(name: str) -> None:
    declared = [dep for dep in paths(entry(DVC[name]), "deps") if re.match(r"stages/(common/|\w+\.py)", dep)]
    assert declared == code_closure.packages(name), f"the code among the deps of '{name}' in dvc.yaml"


@pytest.mark.parametrize("name", sorted(set(STAGES) - {"demo", "deploy"}))
def test_the_figures_that_people_compare_are_a_file_of_the_stage_that_nobody_reads(name: str) -> None:
    block = entry(DVC[name])
    file = f"reports/metrics/{name}/${{key}}.json" if "do" in DVC[name] else f"reports/metrics/{name}.json"
    assert block["metrics"] == [file] and f"--metrics {file}" in block["cmd"]
    assert not [dep for other in DVC.values() for dep in paths(entry(other), "deps") if file.startswith(f"{dep}/")]


def test_every_out_is_in_the_cache_so_that_another_machine_can_go_on() -> None:
    items = [
        item for stage in DVC.values() for key in ("outs", "metrics", "plots") for item in entry(stage).get(key, [])
    ]
    assert [item for item in items if isinstance(item, dict) and "cache" in next(iter(item.values()))] == []


def test_dvc_yaml_can_be_read_in_one_sitting() -> None:
    assert len((ROOT / "dvc.yaml").read_text(encoding="utf-8").splitlines()) <= 300


def test_only_demo_ingest_extract_and_curate_see_data_that_was_not_validated() -> None:
    for name in set(STAGES) - {"demo", "ingest", "extract", "curate", "validate"}:
        for path in paths(entry(DVC[name]), "deps"):
            assert not path.startswith((*RAW, "data/curated")), f"{name} reads {path}"


def test_only_evaluate_and_promote_read_the_test_questions() -> None:
    """Promote has a champion asked that was measured on another test."""
    readers = {name for name in STAGES for path in paths(entry(DVC[name]), "deps") if "questions" in path}
    assert readers == {"curate", "validate", "evaluate", "promote"}


@pytest.mark.parametrize(
    ("library", "home"),
    [
        ("mlflow", {"stages/common/tracking/mlflow_sender.py", "stages/common/tracking/mlflow_store.py"}),
        ("prefect", {"flows", "flows/local"}),
        ("dvc", {"flows/pipeline.py", "stages/common/tracking/checkpoint_remote.py"}),
        ("gradio", {"stages/common/serving/pages"}),
    ],
)
def test_a_library_is_imported_only_in_its_home(library: str, home: set[str]) -> None:
    pattern = re.compile(rf"^\s*(?:import {library}\b|from {library}[\s.])", re.MULTILINE)
    only_types = re.compile(r"^if TYPE_CHECKING:\n(?:    .*\n|\n)*", re.MULTILINE)
    for file in [*(ROOT / "stages").rglob("*.py"), *(ROOT / "flows").rglob("*.py")]:
        if pattern.search(only_types.sub("", file.read_text(encoding="utf-8"))):
            place = file.relative_to(ROOT)
            assert str(place) in home or str(place.parent) in home, f"{place} imports {library}"


def test_the_demo_profile_is_params_yaml_as_committed() -> None:
    assert params.plain(params.read_yaml(ROOT / "infra/profiles/demo.yaml")) == PARAMS


def test_the_profile_instructgpt_is_the_demo_but_for_dropout_and_epochs_of_sft() -> None:
    found = params.plain(params.read_yaml(ROOT / "infra/profiles/instructgpt.yaml"))
    assert found["sft"]["training"]["lr_scheduler_type"] == "cosine"
    assert (found["sft"].pop("dropout"), found["sft"]["training"].pop("num_train_epochs")) == (0.2, 16)
    found["sft"]["dropout"] = PARAMS["sft"]["dropout"]
    found["sft"]["training"]["num_train_epochs"] = PARAMS["sft"]["training"]["num_train_epochs"]
    assert found == PARAMS


@pytest.mark.parametrize("profile", PROFILES, ids=lambda file: file.stem)
def test_a_prompt_held_out_in_one_shape_is_held_out_in_the_other(profile: Path) -> None:
    splits = params.plain(params.read_yaml(profile))["curate"]["splits"]
    assert splits["comparisons"]["validation"] == splits["prompts"]["validation"]  # DPO and ORPO are judged on these
