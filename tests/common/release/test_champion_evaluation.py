"""The champion on the present test: measured anew for real when it was measured on another one, and
only then.
"""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from stages import evaluate, promote
from stages.common.core import models, records
from stages.common.release import champion_evaluation, registry
from stages.common.runtime import logs
from stages.common.runtime.errors import DataError
from stages.common.text.parquet_writer import write as write_records
from stages.common.tracking import mlflow_store
from tests.support.tiny import make_model, make_tokenizer, write_validated

PARAMS = """
run: {name: world}
evaluate: {max_new_tokens: 6, max_tokens: 64, batch_size: 4, shots: [0]}
promote: {name: lathe, metric: perplexity/conversations, min_questions: 5, against: null}
"""
TEST = champion_evaluation.Test(evaluate.__name__)
DATA = {name: Path("data") / name for name in ("questions", "documents", "conversations")}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose version 1 is champion, measured on the test as it was then."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "params.yaml").write_text(PARAMS)
    write_validated(tmp_path / "data")
    for seed, name in enumerate(("pretrain", "sft")):
        models.save(make_model(make_tokenizer(), seed), make_tokenizer(), tmp_path / "models" / name)
    measure("pretrain", "sft")
    run()
    mlflow_store.client().set_registered_model_alias("lathe", "champion", "1")
    return tmp_path


def measure(*names: str) -> None:
    for name in names:
        out = Path("reports/evaluate") / name
        read = DATA["questions"], DATA["documents"], DATA["conversations"]
        evaluate.main(name, Path("models") / name, "chat", *read, out)


def run(**test: Path) -> dict[str, Any]:
    promote.main(Path("reports/evaluate"), Path("models"), Path("reports/promote.json"), **test)
    return dict(json.loads(Path("reports/promote.json").read_text(encoding="utf-8")))


def test_a_champion_of_another_test_takes_the_present_one_once(project: Path) -> None:
    champion = registry.with_alias(mlflow_store.client(), "lathe", "champion")
    assert champion
    models.save(make_model(make_tokenizer(), 7), make_tokenizer(), project / "models/sft")
    rows = list(records.read(DATA["questions"]))
    rows[0]["messages"] = [records.message("user", "What is asked now?")]
    write_records(rows, DATA["questions"], "questions")
    measure("pretrain", "sft")
    launcher = project / "launcher.sh"
    launcher.write_text(f'echo "$*" > launched; exec {sys.executable} "$@"\n')
    (project / "params.yaml").write_text(PARAMS.replace("name: world", f"name: world, launcher: sh {launcher}"))

    with pytest.raises(DataError, match="version 1 has no evaluation on the present test here"):
        run()
    report = run(**DATA)
    assert (project / "launched").read_text().startswith("-m stages.evaluate --candidate champion --model ")
    against = {one["against"]: one["change"] for one in report["comparisons"]}
    kept = json.loads((TEST.kept(champion.tags["weights_sha256"]) / "metrics.json").read_text())
    present = json.loads(Path("reports/evaluate/sft/metrics.json").read_text())
    assert (kept["candidate"], kept["test_sha256"]) == ("champion", present["test_sha256"])
    assert against["champion"]["count"] == against["base"]["count"] == 10
    assert against["champion"]["before"] == kept["metrics"]["perplexity/conversations"]
    assert against["champion"]["after"] == present["metrics"]["perplexity/conversations"]

    log = Path("logs/evaluate@champion.log")
    assert log.exists()
    log.unlink()
    assert run(**DATA) == report
    assert not log.exists(), "it is measured once"


def test_a_test_other_than_the_candidates_is_refused(project: Path) -> None:
    models.save(make_model(make_tokenizer(), 7), make_tokenizer(), project / "models/sft")
    measure("pretrain", "sft")
    rows = list(records.read(DATA["questions"]))[1:]
    write_records(rows, DATA["questions"], "questions")
    for kept in champion_evaluation.KEPT.glob("*/*/metrics.json"):
        kept.unlink()
    with pytest.raises(DataError, match=r"the present test is [0-9a-f]{16}, the candidates were given [0-9a-f]{16}"):
        run(**DATA)


@pytest.mark.parametrize(
    ("launcher", "words"),
    [
        ("python", [sys.executable]),
        ("accelerate launch --config_file 'a b.yaml'", ["accelerate", "launch", "--config_file", "a b.yaml"]),
        ("OMP_NUM_THREADS=1 torchrun", ["env", "OMP_NUM_THREADS=1", "torchrun"]),
    ],
)
def test_the_launcher_s_words_start_the_evaluation(
    launcher: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(json.dumps({"run": {"name": "world", "launcher": launcher}}))
    assert champion_evaluation._launcher() == words


def test_a_stage_s_own_exit_code_goes_before_its_launcher_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    facts = logs.execution("evaluate@champion")
    assert champion_evaluation._exit_code("evaluate@champion", 0.0, 1) == 1
    facts.parent.mkdir(parents=True)
    facts.write_text(json.dumps({"exit_code": 75}))
    assert champion_evaluation._exit_code("evaluate@champion", 0.0, 1) == 75
    assert champion_evaluation._exit_code("evaluate@champion", facts.stat().st_mtime + 1, 1) == 1, "of another time"


def test_a_champion_that_cannot_be_measured_is_said_with_its_log(project: Path) -> None:
    models.save(make_model(make_tokenizer(), 7), make_tokenizer(), project / "models/sft")
    measure("pretrain", "sft")
    for kept in champion_evaluation.KEPT.glob("*/*/metrics.json"):
        kept.unlink()
    (Path("data/documents/validation")).rename("data/documents/gone")
    with pytest.raises(DataError, match=r"logs/evaluate@champion.log: the champion could not be evaluated"):
        run(**DATA)
