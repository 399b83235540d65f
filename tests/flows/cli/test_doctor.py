"""`make doctor`: what is wrong is found, with what mends it."""

import http.server
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.cli import doctor
from flows.plans import memory_plan, question_plan
from stages.common.core import params
from stages.common.memory import available, estimate
from stages.common.runtime.errors import ParamsError
from tests.support import printed, project

ROOT = Path(__file__).parents[3]


@pytest.fixture
def document(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(ROOT)
    return dict(params.plain(params.read_yaml(ROOT / "infra/profiles/demo.yaml")))


@pytest.mark.slow
def test_the_command_prints_nothing_of_a_library() -> None:
    done = project.run(ROOT, sys.executable, "-m", "flows.cli.lathe", "doctor")
    assert "ok   params.yaml" in done.stdout and " memory sft " in done.stdout
    assert (printed.foreign(done.stdout), done.stderr) == ([], "")


def test_the_demo_fits_into_four_gibibytes(document: dict[str, Any]) -> None:
    plans = {plan.stage: plan for plan in memory_plan.plans(document)}
    assert tuple(plans) == tuple(stage for stage in memory_plan.TRAINERS if not document[stage].get("skip"))
    assert all(plan.need.total < 4 * estimate.GIBIBYTE for plan in plans.values())
    assert plans["ppo"].need.parameters == pytest.approx(4 * plans["sft"].need.parameters, rel=0.1)  # four models
    assert plans["ppo"].need.cache > 0 and plans["reward"].job.reads.scored == 0


def test_too_little_memory_is_a_failure_that_names_the_line(
    document: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_plan, "TRAINERS", ("sft",))
    monkeypatch.setattr(available, "system_free", lambda: memory_plan.LIBRARIES + 300 * 2**20)
    monkeypatch.setattr(params, "read_yaml", lambda _: document)
    found = next(one for one in doctor.memories() if one.name == "memory sft")
    assert found.state == "fail" and "at most 550 MiB" in found.what
    assert found.mend == "set sft.training.per_device_train_batch_size: 7 in params.yaml"


@pytest.mark.parametrize(
    ("launcher", "processes", "zero"),
    [
        ("python", 1, 0),
        ("accelerate launch --config_file infra/accelerate/ddp2.yaml", 2, 0),
        ("accelerate launch --config_file infra/accelerate/zero3.yaml --num_processes 8", 8, 3),
    ],
)
def test_the_launcher_says_processes_and_zero_stage(
    launcher: str, processes: int, zero: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    assert memory_plan.launch(launcher)[:2] == (processes, zero)


def test_the_launcher_says_what_is_offloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    started = memory_plan.launch("accelerate launch --config_file infra/accelerate/zero3-offload.yaml")
    assert (started.zero, started.offload) == (3, frozenset({"optimizer", "param"}))


def test_defaults_are_the_libraries_own(tmp_path: Path) -> None:
    from transformers import TrainingArguments
    from trl import DPOConfig, SFTConfig

    for stage, cls in (("pretrain", TrainingArguments), ("sft", SFTConfig), ("dpo", DPOConfig)):
        given = cls(output_dir=str(tmp_path), use_cpu=True, bf16=False)
        assert given.gradient_checkpointing is (stage in memory_plan.CHECKPOINTING)
        assert (given.per_device_train_batch_size, given.optim.value) == (8, "adamw_torch_fused")


def test_a_base_model_that_is_not_here_is_named(document: dict[str, Any]) -> None:
    document["pretrain"] |= {"base": "/nowhere/model"}
    with pytest.raises(ParamsError, match="no model to estimate"):
        memory_plan.config(document)


def test_another_version_is_a_warning_and_a_missing_package_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, tested = tmp_path / "pyproject.toml", tmp_path / "constraints.txt"
    monkeypatch.setattr(doctor, "PROJECT", project)
    monkeypatch.setattr(doctor, "CONSTRAINTS", tested)
    tested.write_text("numpy==0.1\nnot-there==1\n")
    project.write_text('[project]\ndependencies = ["numpy>=0.1"]\n')
    [other] = doctor.versions()
    assert other.state == "warn" and "numpy" in other.what and "(tested: 0.1)" in other.what
    project.write_text('[project]\ndependencies = ["numpy", "not-there"]\n')
    [missing] = doctor.versions()
    assert (missing.state, missing.what, missing.mend) == ("fail", "missing: not-there", "make clean env")


def test_a_candidate_that_is_skipped_takes_no_share_of_the_gates_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    shared: list[int] = []

    def plans(_: object, candidates: int) -> Iterator[question_plan.Planned]:
        shared.append(candidates)
        return iter(())

    monkeypatch.setattr(question_plan, "plans", plans)
    assert list(doctor.questions()) == []
    wanted = params.plain(params.read_yaml(Path("params.yaml")))
    assert wanted["kto"]["skip"] and wanted["grpo"]["skip"]
    assert shared == [4], "sft_best, dpo, orpo and ppo_r1"


@pytest.fixture
def stranger() -> Iterator[int]:
    """A port where something answers that is none of our services."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as given:
        threading.Thread(target=given.serve_forever, daemon=True).start()
        yield given.server_port
        given.shutdown()


def test_a_port_that_is_taken_is_named_with_the_variable_to_set(
    stranger: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_PORT", str(stranger))
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    found = next(one for one in doctor.ports() if one.name == "port mlflow")
    assert found.state == "warn" and str(stranger) in found.what and found.mend == "export MLFLOW_PORT=<port>"


def test_a_folder_without_git_or_a_store_that_is_away_fails_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setattr(doctor, "CHECKS", (doctor.parameters, doctor.tracking, doctor.versioning))
    with pytest.raises(SystemExit) as ended:
        doctor.main()
    said = capsys.readouterr().out
    assert ended.value.code == 1
    assert "fail parameters       params.yaml: file not found" in said
    assert "fail tracking         http://127.0.0.1:1: the MLflow store fails" in said
    assert "fail git              no commit here" in said and "-> git init" in said
