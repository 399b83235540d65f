from pathlib import Path

import pytest

from flows import pipeline
from stages.common.runtime.errors import ParamsError

ROOT = Path(__file__).parents[2]


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


def test_a_stages_own_limits_are_read_from_its_meta(in_repository: Path) -> None:
    text = (in_repository / "dvc.yaml").read_text()
    (in_repository / "dvc.yaml").write_text(text.replace("gpu: ${run.gpus}", "{retries: 5, hours: 1.5}", 1))
    raw, upper, *_ = pipeline.load()
    assert (raw.retries, raw.hours, upper.retries, upper.hours) == (pipeline.RETRIES, None, 5, 1.5)
    (in_repository / "dvc.yaml").write_text(text.replace("gpu: ${run.gpus}", "{retries: -1, hours: 0}", 1))
    wrong = pipeline.load()[1]
    with pytest.raises(ParamsError, match=r"meta\.retries of stage 'upper' is -1"):
        _ = wrong.retries
    with pytest.raises(ParamsError, match=r"meta\.hours of stage 'upper' is 0"):
        _ = wrong.hours


def test_a_param_is_set_in_the_file_and_every_other_line_stays(in_repository: Path) -> None:
    file = in_repository / "params.yaml"
    before = (ROOT / "params.yaml").read_text()
    file.write_text(before)
    pipeline.override(["sft.training.learning_rate=3e-4", "dpo.training.loss_type=[sigmoid]", "+sft.training.optim=x"])
    changed = [line for line in file.read_text().splitlines() if line not in before.splitlines()]
    assert [line.strip() for line in changed] == ["learning_rate: 3e-4", "optim: x", "loss_type: [sigmoid]"]
    gone = [line for line in before.splitlines() if line not in file.read_text().splitlines()]
    assert len(gone) <= 2
    pipeline.override(["~sft.training.optim"])
    assert "optim: x" not in file.read_text()
    before = file.read_text()
    for wrong, says in [
        (["sft.max_tokens=1", "sft.trainig.x=1"], "no key 'sft.trainig.x' in params.yaml, did you mean 'training'"),
        (["run.gpus=[1"], r"set: 'run.gpus=\[1': the value is no YAML"),
    ]:
        with pytest.raises(ParamsError, match=says):
            pipeline.override(wrong)
        assert file.read_text() == before


def test_the_projects_own_pipeline_is_one_chain_from_demo_to_deploy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    stages = pipeline.load()
    assert (stages[0].name, stages[-1].name) == ("demo", "deploy")
    assert pipeline.until(stages, "deploy") == stages
