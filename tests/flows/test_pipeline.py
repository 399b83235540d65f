from pathlib import Path

import pytest

from flows import pipeline
from stages.common.runtime.errors import ParamsError


@pytest.fixture
def in_repository(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(repository)
    return repository


def test_stages_come_after_their_parents_with_items_of_foreach_and_interpolated_meta(in_repository: Path) -> None:
    stages = pipeline.load()
    assert [stage.name for stage in stages] == ["raw", "upper", "count@raw", "count@upper"]
    parents = {stage.name: stage.parents for stage in stages}
    assert parents == {"raw": (), "upper": ("raw",), "count@raw": ("raw",), "count@upper": ("upper",)}
    upper = stages[1]
    assert (upper.cmd, upper.deps, upper.outs) == ("python upper.py", ("raw.txt", "upper.py"), ("upper.txt",))
    assert (upper.meta, upper.gpus) == ({"gpu": 0}, 0)


def test_a_folder_that_holds_another_stages_out_makes_that_stage_a_parent(in_repository: Path) -> None:
    (in_repository / "dvc.yaml").write_text(
        "stages:\n"
        "  ingest:\n    cmd: ls data/raw > list.txt\n    deps:\n      - data/raw\n    outs:\n      - list.txt\n"
        "  demo:\n    cmd: mkdir -p data/raw/demo\n    outs:\n      - data/raw/demo\n"
    )
    assert [(stage.name, stage.parents) for stage in pipeline.load()] == [("demo", ()), ("ingest", ("demo",))]


def test_until_keeps_a_stage_and_its_ancestors(in_repository: Path) -> None:
    stages = pipeline.load()
    assert [stage.name for stage in pipeline.until(stages, "count@raw")] == ["raw", "count@raw"]
    assert [stage.name for stage in pipeline.until(stages, "upper")] == ["raw", "upper"]
    assert pipeline.until(stages, "count") == stages


def test_until_an_unknown_stage_suggests_the_near_one(in_repository: Path) -> None:
    with pytest.raises(ParamsError, match="no stage 'uper', did you mean 'upper'"):
        pipeline.until(pipeline.load(), "uper")


def test_a_broken_dvc_yaml_is_a_params_error_that_names_it(in_repository: Path) -> None:
    (in_repository / "dvc.yaml").write_text("stages:\n  raw:\n    cmdd: x\n")
    with pytest.raises(ParamsError, match=r"dvc\.yaml.* validation failed"):
        pipeline.load()


def test_gpus_must_be_a_whole_number(in_repository: Path) -> None:
    (in_repository / "params.yaml").write_text("run:\n  gpus: two\n")
    with pytest.raises(ParamsError, match=r"meta\.gpu of stage 'upper' is 'two'"):
        _ = pipeline.load()[1].gpus


def test_the_projects_own_pipeline_is_one_chain_from_demo_to_deploy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    stages = pipeline.load()
    assert (stages[0].name, stages[-1].name) == ("demo", "deploy")
    assert pipeline.until(stages, "deploy") == stages
