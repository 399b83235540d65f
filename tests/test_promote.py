"""Promotion against a real registry: what becomes champion, what is refused, and what a killed promotion leaves."""

import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stages import promote
from stages.common import promotions, registry, release, store
from stages.common.errors import DataError, TryAgainError
from tests.champion import add_candidate, write_project_with_store


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project before its first promotion, with an empty store, made once and copied for each test."""
    return write_project_with_store(tmp_path_factory.mktemp("template"))


@pytest.fixture
def project(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


CARD = Path("reports/model_card.md")


def run(**options: Path) -> dict[str, Any]:
    report = Path("reports/promote.json")
    promote.main(Path("reports/evaluate"), Path("models"), report, CARD, **options)
    return dict(json.loads(report.read_text(encoding="utf-8")))


def state() -> dict[str, Any]:
    """Return the aliases, each with its candidate, and how many versions there are."""
    client = store.client()
    found = {alias: registry.with_alias(client, "lathe", alias) for alias in ("champion", "previous", "challenger")}
    aliases = {alias: (version.number, version.tags["candidate"]) for alias, version in found.items() if version}
    return aliases | {"versions": len(client.search_model_versions("name = 'lathe'"))}


def history() -> list[tuple[str, str, str | None, str | None]]:
    return [(line["candidate"], line["action"], line["from"], line["to"]) for line in promotions.read()]


def tags(number: str) -> dict[str, str]:
    return registry.numbered(store.client(), "lathe", number).tags


def setting(**values: object) -> None:
    """Set keys of section promote."""
    lines = "".join(f"  {name}: {json.dumps(value)}\n" for name, value in values.items())
    kept = [
        line
        for line in Path("params.yaml").read_text(encoding="utf-8").splitlines(keepends=True)
        if not line.strip().startswith(tuple(f"{name}:" for name in values))
    ]
    Path("params.yaml").write_text("".join(kept).replace("promote:\n", f"promote:\n{lines}"), encoding="utf-8")


GAIN = "accuracy/iid 0.9 beats the base's 0.2: +0.7 [+0.61, +0.78] on 100; there was no champion"


def test_the_better_candidate_becomes_champion_once(project: Path) -> None:
    report = run()
    assert (report["decision"], report["reason"]) == ("promoted", GAIN)
    assert (report["candidate"], report["value"], report["interval"]) == ("sft", 0.9, [0.825634, 0.944771])
    assert report["champion_sha256"] == report["weights_sha256"]
    bytes_before = Path("reports/promote.json").read_bytes(), CARD.read_bytes()
    run()
    assert (Path("reports/promote.json").read_bytes(), CARD.read_bytes()) == bytes_before
    assert state() == {"champion": ("1", "sft"), "challenger": ("1", "sft"), "versions": 1}
    assert history() == [("sft", "promoted", None, "1")]


def test_a_version_carries_its_card_and_tags(project: Path) -> None:
    report = run()
    version = store.client().get_model_version("lathe", "1")
    assert version.description == CARD.read_text(encoding="utf-8")
    for said in (
        "# sft: accuracy/iid 0.9 (95 % interval 0.8256 to 0.9448)",
        f"**promoted**: {GAIN}.",
        "| beats accuracy/iid | base | 0.2 | 0.9 | 0.7 [0.61, 0.78] | 0 | 100 | holds |",
        "| accuracy/iid | 0.2 [0.1334, 0.2888] | 0.9 [0.8256, 0.9448] |",
        "There was no champion to compare with.",
        f"- Weights SHA-256 `{report['weights_sha256']}` in `models/sft`",
    ):
        assert said in version.description, said
    expected = {
        "weights_sha256": report["weights_sha256"],
        "metric": "accuracy/iid",
        "value": "0.9",
        "questions_sha256": "questions of t1",
        "gate": "passed",
        "review": "auto",
        "decision": "promoted",
        "candidate": "sft",
        "reason": GAIN,
    }
    assert expected.items() <= version.tags.items()
    client = store.client()
    found = client.search_model_versions("tags.gate = 'passed' and tags.review = 'auto'")
    assert [str(one.version) for one in found] == ["1"]


def test_the_card_says_which_parameters_differ_from_the_champions(project: Path) -> None:
    run()
    add_candidate(project, "sft", 1.0, seed=2)
    Path("params.yaml").write_text(Path("params.yaml").read_text().replace("max_new_tokens: 16", "max_new_tokens: 32"))
    run()
    assert "| deploy.max_new_tokens | 16 | 32 |" in CARD.read_text(encoding="utf-8")
    before = CARD.read_bytes()
    run()
    assert CARD.read_bytes() == before, "the champion's card keeps whom it was compared with"


def test_a_long_description_says_where_the_whole_card_is(project: Path) -> None:
    setting(guards={"base": {"accuracy/iid": 1.0}})
    for number in range(40):
        add_candidate(project, f"candidate-with-a-long-name-{number}", 0.5, seed=0)
    run()
    card, said = CARD.read_text(encoding="utf-8"), store.client().get_model_version("lathe", "1").description or ""
    assert len(card) > len(said) > 4000
    assert said.endswith("The whole card is among the files of the run `promote`.")
    assert card.startswith(said.rsplit("\n\n", 1)[0])


def test_only_weights_settings_and_templates_go_into_the_registry(project: Path) -> None:
    for name in ("training_args.bin", "optimizer.pt", "state.pkl", "model.pth", "readme.md"):
        (project / "models/sft" / name).write_bytes(b"\x80\x04.")
    run()
    _, folder = registry.champion(store.client(), "lathe")
    assert sorted(file.name for file in folder.rglob("*")) == [
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "lineage.json",
        "manifest.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]


def test_a_better_one_succeeds_and_one_that_is_not_surely_better_is_refused(project: Path) -> None:
    first = run()
    add_candidate(project, "sft", 1.0, seed=2)
    second = run()
    gain = "accuracy/iid 1 beats the champion's 0.9: +0.1 [+0.04, +0.16] on 100"
    assert second["reason"] == f"accuracy/iid 1 beats the base's 0.2: +0.8 [+0.72, +0.88] on 100; {gain}"
    assert state() == {"champion": ("2", "sft"), "previous": ("1", "sft"), "challenger": ("2", "sft"), "versions": 2}
    add_candidate(project, "sft", 0.99, seed=3)
    third = run()
    assert (third["decision"], third["champion_sha256"]) == ("refused", second["weights_sha256"])
    assert third["reason"].startswith("accuracy/iid 0.99 does not surely beat the champion's 1: -0.01 [-0.03, +0]")
    assert state() == {"champion": ("2", "sft"), "previous": ("1", "sft"), "challenger": ("3", "sft"), "versions": 3}
    run()
    refused = ("sft", "refused", "2", "2")
    assert history() == [("sft", "promoted", None, "1"), ("sft", "promoted", "1", "2"), refused]
    assert len({report["weights_sha256"] for report in (first, second, third)}) == 3


def test_a_champion_among_the_candidates_is_compared_as_that_candidate(project: Path) -> None:
    run()
    add_candidate(project, "dpo", 1.0, seed=2, test="t2")
    for name, accuracy, seed in (("sft", 0.9, 1), ("pretrain", 0.2, 0)):
        add_candidate(project, name, accuracy, seed, test="t2")
    assert (run()["decision"], state()["champion"]) == ("promoted", ("2", "dpo"))


def test_a_champion_of_another_test_holds_candidates_back_until_it_is_measured(project: Path) -> None:
    run()
    for name, accuracy, seed in (("sft", 1.0, 2), ("pretrain", 0.2, 0)):
        add_candidate(project, name, accuracy, seed, test="t2")
    with pytest.raises(DataError, match="version 1 has no evaluation on the present test here") as caught:
        run()
    assert "name --questions, --documents and --conversations" in str(caught.value)
    assert state()["champion"] == ("1", "sft")


def test_a_registry_without_a_record_of_parameters_still_compares(project: Path) -> None:
    run()
    _, folder = registry.champion(store.client(), "lathe")
    (folder / "lineage.json").unlink()
    add_candidate(project, "sft", 1.0, seed=2)
    assert run()["decision"] == "promoted"
    assert "There was no champion to compare with." in CARD.read_text(encoding="utf-8")


def test_manual_approval_leaves_the_decision_to_a_person(project: Path) -> None:
    setting(approval="manual")
    report = run()
    assert (report["decision"], report["champion_sha256"]) == ("pending", None)
    assert state() == {"challenger": ("1", "sft"), "versions": 1}
    assert {key: tags("1")[key] for key in ("gate", "review", "decision")} == {
        "gate": "passed",
        "review": "pending",
        "decision": "pending",
    }
    run()
    release.approve(store.client(), "lathe", "1", "reads well")
    assert state() == {"champion": ("1", "sft"), "challenger": ("1", "sft"), "versions": 1}
    assert (tags("1")["review"], tags("1")["review_reason"]) == ("approved", "reads well")
    assert run()["decision"] == "promoted"
    assert history() == [("sft", "pending", None, None), ("sft", "approved", None, "1")]


def test_what_was_rejected_or_rolled_back_is_not_promoted_again(project: Path) -> None:
    run()
    add_candidate(project, "sft", 1.0, seed=2)
    run()
    release.rollback(store.client(), "lathe", "rude", by="ann")
    report = run()
    assert report["decision"] == "refused"
    said = "version 2 has these weights and was rolled back: rude (ann)"
    assert report["reason"] == f"{said}; remove its tag `rolled_back` to have it judged again"
    assert state()["champion"] == ("1", "sft")
    store.client().delete_model_version_tag("lathe", "2", "rolled_back")
    assert (run()["decision"], state()["champion"], state()["previous"]) == ("promoted", ("2", "sft"), ("1", "sft"))


def test_a_rejected_version_stays_refused_until_a_person_approves_it(project: Path) -> None:
    setting(approval="manual")
    run()
    release.reject(store.client(), "lathe", "1", "too short", by="bob")
    setting(approval="auto")
    report = run()
    assert (report["decision"], "champion" in state()) == ("refused", False)
    assert report["reason"].startswith("version 1 has these weights and was rejected: too short (bob)")
    assert (tags("1")["gate"], tags("1")["review"]) == ("passed", "rejected")
    release.approve(store.client(), "lathe", "1", "read again", by="ann")
    assert (run()["decision"], state()["champion"]) == ("promoted", ("1", "sft"))
    assert [line["who"] for line in promotions.read() if line["action"] in ("rejected", "approved")] == ["bob", "ann"]


def test_without_a_champion_a_refusal_leaves_none(project: Path) -> None:
    add_candidate(project, "sft", 0.1, seed=1)
    report = run()
    assert (report["decision"], report["champion_sha256"]) == ("refused", None)
    assert "champion" not in state()
    with pytest.raises(DataError, match="'lathe' has no champion"):
        registry.champion(store.client(), "lathe")


def test_weights_other_than_the_evaluated_ones_are_not_promoted(project: Path) -> None:
    shutil.copyfile("models/pretrain/model.safetensors", "models/sft/model.safetensors")
    with pytest.raises(DataError, match="not the weights that were evaluated") as caught:
        run()
    assert "dvc repro -f evaluate@sft" in str(caught.value)
    assert state() == {"versions": 0}


def test_a_registry_that_is_away_fails_promotion(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{probe.getsockname()[1]}")
    with pytest.raises(TryAgainError, match="the MLflow store fails") as caught:
        run()
    assert "start the store, or set MLFLOW_TRACKING_URI" in str(caught.value)
    assert not Path("reports/promote.json").exists()


def change_weights(folder: Path) -> None:
    with (folder / "model.safetensors").open("r+b") as handle:
        handle.seek(-1, 2)
        handle.write(b"\x01")


def add_pickle(folder: Path) -> None:
    (folder / "extra.bin").write_bytes(b"\x80\x04.")


def add_pickle_with_manifest(folder: Path) -> None:
    from stages.common.models import file_sha256

    add_pickle(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"extra.bin": file_sha256(folder / "extra.bin")}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (change_weights, "model.safetensors: content differs from the manifest"),
        (lambda folder: (folder / "config.json").unlink(), "config.json: missing"),
        (add_pickle, "extra.bin: not in the manifest"),
        (add_pickle_with_manifest, "not the manifest it was registered with"),
        (lambda folder: (folder / "manifest.json").unlink(), "manifest.json"),
    ],
)
def test_files_that_changed_in_the_store_are_not_loaded(
    project: Path, change: Callable[[Path], Any], message: str
) -> None:
    run()
    _, folder = registry.champion(store.client(), "lathe")
    change(folder)
    with pytest.raises(DataError, match=message):
        registry.champion(store.client(), "lathe")


@pytest.mark.parametrize("source", ["s3://strange/bucket", "file:///etc", "models:/lathe/1", "foreign experiment"])
def test_a_version_from_elsewhere_is_not_loaded(project: Path, source: str) -> None:
    run()
    client = store.client()
    if source == "foreign experiment":
        experiment = client.create_experiment("foreign", artifact_location=str(project / "foreign"))
        source = f"models:/{client.create_logged_model(experiment, 'planted').model_id}"
    planted = client.create_model_version("lathe", source)
    client.set_registered_model_alias("lathe", "champion", planted.version)
    with pytest.raises(DataError, match=r"not a model of this registry|outside this project's artifacts"):
        registry.champion(client, "lathe")
