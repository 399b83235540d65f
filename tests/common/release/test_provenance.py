"""The record of a version, and its model card: from dvc.lock, the reports of the data stages and
two params.yaml.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from stages.common.release import gate, model_card, provenance, verdict
from stages.common.release.gate import Choice, Incumbent, Rules
from stages.common.release.model_card import Card
from stages.common.tracking import lineage, mlflow_store
from tests.support.evaluations import answers, evaluated, losses

LOCK = """\
schema: '2.0'
stages:
  demo:
    cmd: python -m stages.demo
    outs:
    - {path: data/raw/demo, md5: d0.dir}
  ingest:
    cmd: python -m stages.ingest
    deps:
    - {path: data/raw, md5: d1.dir}
    - {path: stages/ingest.py, md5: c1}
    outs:
    - {path: data/ingested/documents, md5: d2.dir}
  other:
    cmd: python -m stages.other
    deps:
    - {path: models/sft, md5: m9.dir}
    outs:
    - {path: models/other, md5: m8.dir}
  sft:
    cmd: python -m stages.sft
    deps:
    - {path: data/ingested/documents, md5: d2.dir}
    outs:
    - {path: models/sft, md5: m1.dir}
"""
CURATION = {"documents": {"rows": 120, "kept": 100, "dropped": {"spam": 20}, "splits": {"train": 90, "validation": 10}}}
VALIDATION: dict[str, Any] = {
    "documents": {"expect_a": {"success": True, "severity": "critical", "unexpected": 0}},
    "sources": {"expect_b(share)": {"success": False, "severity": "warning", "unexpected": 3}},
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name, text in {
        "dvc.lock": LOCK,
        "params.yaml": "run: {name: world}\nsft:\n  epochs: 2\n",
        "curate.json": json.dumps(CURATION),
        "validate.json": json.dumps(VALIDATION),
    }.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def record(model: str = "models/sft/last") -> dict[str, Any]:
    return provenance.record(mlflow_store.client(), Path(model), Path("curate.json"), Path("validate.json"))


def test_a_record_follows_a_model_back_to_the_raw_data(project: Path) -> None:
    found = record()
    assert (found["stage"], list(found["stages"])) == ("sft", ["sft", "ingest", "demo"])
    assert found["stages"]["ingest"]["deps"] == {"data/raw": "d1.dir", "stages/ingest.py": "c1"}
    assert found["data"] == {"data/ingested/documents": "d2.dir", "data/raw": "d1.dir"}
    assert found["counts"]["documents"] == {"rows": 120, "kept": 100, "splits": {"train": 90, "validation": 10}}
    failed = {"sources: expect_b(share)": {"severity": "warning", "unexpected": 3}}
    assert found["validation"] == {"expectations": 2, "failed": failed}
    assert (found["git_commit"], found["patch"]) == (lineage.UNKNOWN, "")
    assert json.loads(json.dumps(found)) == found


def test_a_model_that_no_stage_wrote_has_no_ancestors(project: Path) -> None:
    assert record("models/strange")["stages"] == {}
    (project / "dvc.lock").unlink()
    assert record()["stage"] == ""


def test_ancestors_are_linked_to_their_newest_finished_run_of_this_state(project: Path) -> None:
    client = mlflow_store.client()
    experiment = client.create_experiment("world")
    runs = {}
    for number, (name, dag, status) in enumerate(
        [
            ("sft", lineage.dag(), "FINISHED"),
            ("sft", "another", "FINISHED"),
            ("sft", lineage.dag(), "FAILED"),
            ("ingest", "another", "FINISHED"),
        ]
    ):
        run = client.create_run(experiment, 1000 + number, {"dag": dag}, name).info.run_id
        client.set_terminated(run, status)
        runs[number] = run
    assert record()["runs"] == {"sft": runs[0], "ingest": runs[3]}


def test_a_patch_that_is_too_large_is_none_and_not_nothing(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lineage, "difference", lambda: "x" * (provenance.PATCH_BYTES + 1))
    assert provenance.patch() is None


def test_parameters_that_differ_are_named_with_both_values() -> None:
    before = {"sft": {"epochs": 1, "rate": 0.1, "gone": True}}
    after = {"sft": {"epochs": 2, "rate": 0.1}, "dpo": {"beta": 0.1}}
    assert provenance.changed(before, after) == [
        ("sft.epochs", "1", "2"),
        ("sft.gone", "True", "none"),
        ("dpo.beta", "none", "0.1"),
    ]


def test_the_card_says_all_that_a_reviewer_needs(project: Path) -> None:
    base, champion = evaluated("pretrain", answers(20, 100), losses(2.0)), evaluated("old", answers(70, 100))
    best = evaluated("sft", answers(90, 100) | answers(20, 40, "ood"), losses(4.0))
    decision = gate.decide(
        best, base, Incumbent("champion", champion), Rules(guards=gate.Guards(champion={"perplexity/documents": 0.1}))
    )
    before = {"params": {"run": {"name": "world"}, "sft": {"epochs": 1, "note": "a|b\nc"}}}
    chosen = Choice(best, decision, {}, {best.candidate: decision})
    told = verdict.of([base, best], chosen, "refused", "accuracy/iid", None)
    text = model_card.write(Card([base, best], chosen, told, record(), before))
    for said in (
        "# sft: refused\n\n**accuracy/iid 90.0% [82.6%, 94.5%]**: perplexity/documents cannot be compared with",
        "| beats accuracy/iid | champion | 70.0% | 90.0% | +20.0 points [+13.3, +28.9] | +0.0 points | 100 |",
        "| guard perplexity/documents | champion | | | not comparable | x1.1 | 0 | **broken** |",
        "| perplexity/documents | 2 [2, 2] | 4 [4, 4] |",
        "- Few questions, so a wide interval: accuracy/ood (40).",
        "- Expectation not met (warning): sources: expect_b(share), 3 records.",
        "| documents | 120 | 100 | 90 | 10 |",
        "- `data/raw` d1.dir",
        "| sft.epochs | 1 | 2 |",
        "| sft.note | a\\|b c | none |",
        "`dvc repro sft`.",
        "demo, ingest, sft",
    ):
        assert said in text, said
