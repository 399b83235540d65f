"""Promotion against a real registry: what becomes champion, and what is refused."""

import shutil
import socket
from pathlib import Path

import pytest

from stages.common.evaluation import results
from stages.common.release import registry
from stages.common.runtime.errors import DataError, TryAgainError
from stages.common.tracking import mlflow_store
from tests.support.champion import add_candidate
from tests.support.promotion import CARD, history, run, setting, state

GAIN = (
    "accuracy/iid 90.0% beats the base's 20.0%: +70.0 points [+60.4, +78.1] on 100, 70 better and 0 worse; "
    "there was no champion"
)


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
    version = mlflow_store.client().get_model_version("lathe", "1")
    assert version.description == CARD.read_text(encoding="utf-8")
    for said in (
        f"# sft: promoted\n\n**accuracy/iid 90.0% [82.6%, 94.5%]**: {GAIN}.",
        "| beats accuracy/iid | base | 20.0% | 90.0% | +70.0 points [+60.4, +78.1] | +0.0 points | 100 | holds |",
        "| accuracy/iid | 20.0% [13.3%, 28.9%] | 90.0% [82.6%, 94.5%] |",
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
    client = mlflow_store.client()
    found = client.search_model_versions("tags.gate = 'passed' and tags.review = 'auto'")
    assert [str(one.version) for one in found] == ["1"]


def test_the_review_page_opens_with_the_decision(project: Path) -> None:
    page, out = Path("reports/candidates.html"), Path("reports/report.html")
    page.write_text("<body><h1>Lathe: review</h1>\n<!-- the decision -->\n<p>the rest</p></body>")
    report = run(page=page, out=out)
    text = out.read_text(encoding="utf-8")
    assert text.index("<h2>sft: promoted</h2>") < text.index(GAIN.replace("'", "&#39;")) < text.index("the rest")
    assert report["judged"] == {"sft": {"passed": True, "reason": GAIN}}
    client = mlflow_store.client()
    (made,) = client.search_runs([mlflow_store.experiment_id(client, "world")], "attributes.run_name = 'promote'")
    assert {one.path for one in client.list_artifacts(made.info.run_id)} >= {"report.html", "model_card.md"}


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
    card, said = (
        CARD.read_text(encoding="utf-8"),
        mlflow_store.client().get_model_version("lathe", "1").description or "",
    )
    assert len(card) > len(said) > 4000
    assert said.endswith("The whole card is among the files of the run `promote`.")
    assert card.startswith(said.rsplit("\n\n", 1)[0])


def test_a_better_one_succeeds_and_one_that_is_not_surely_better_is_refused(project: Path) -> None:
    first = run()
    add_candidate(project, "sft", 1.0, seed=2)
    second = run()
    gain = "accuracy/iid 100.0% beats the champion's 90.0%: +10.0 points [+5.5, +17.4] on 100, 10 better and 0 worse"
    assert (
        second["reason"]
        == "accuracy/iid 100.0% beats the base's 20.0%: +80.0 points [+71.1, +86.7] on 100, 80 better and 0 worse; "
        + gain
    )
    assert state() == {"champion": ("2", "sft"), "previous": ("1", "sft"), "challenger": ("2", "sft"), "versions": 2}
    add_candidate(project, "sft", 0.99, seed=3)
    third = run()
    assert (third["decision"], third["champion_sha256"]) == ("refused", second["weights_sha256"])
    assert third["reason"].startswith(
        "accuracy/iid 99.0% does not surely beat the champion's 100.0%: -1.0 points [-5.4, +2.7]"
    )
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
    _, folder = registry.champion(mlflow_store.client(), "lathe")
    (folder / "lineage.json").unlink()
    add_candidate(project, "sft", 1.0, seed=2)
    assert run()["decision"] == "promoted"
    assert "There was no champion to compare with." in CARD.read_text(encoding="utf-8")


def test_without_a_champion_a_refusal_leaves_none(project: Path) -> None:
    add_candidate(project, "sft", 0.1, seed=1)
    report = run()
    assert (report["decision"], report["champion_sha256"]) == ("refused", None)
    assert "champion" not in state()
    with pytest.raises(DataError, match="'lathe' has no champion"):
        registry.champion(mlflow_store.client(), "lathe")


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


def test_the_first_champion_must_beat_who_stands_in(project: Path) -> None:
    """A candidate that is as good as SFT leaves the place to SFT, says why, and does so again."""
    add_candidate(project, "dpo", 0.91, seed=2)
    setting(against="sft")
    report = run()
    assert (report["candidate"], report["decision"]) == ("sft", "promoted")
    why = report["passed_over"]["dpo"]
    assert why.startswith("accuracy/iid 91.0% does not surely beat sft's 90.0%: +1.0 points [")
    assert f"- dpo refused: {why}\n" in CARD.read_text(encoding="utf-8")
    again = run()
    assert (again["candidate"], again["decision"]) == ("sft", "promoted")
    assert state() == {"champion": ("1", "sft"), "challenger": ("1", "sft"), "versions": 1}
    assert history() == [("sft", "promoted", None, "1")]


def test_who_stands_in_is_a_candidate_or_was_left_out(project: Path) -> None:
    setting(against="stf")
    with pytest.raises(DataError, match=r"promote.against is 'stf', which was not evaluated; evaluated are: pretrain"):
        run()
    results.write_left_out("stf", "no conversations", project / "reports/evaluate/stf")
    assert run()["decision"] == "promoted"
