"""What people decide about versions, and what the gate does afterwards."""

from pathlib import Path

import pytest

from stages.common.release import aliases, promotion_history
from stages.common.runtime.errors import DataError
from stages.common.tracking import mlflow_store, notices
from tests.support.champion import add_candidate
from tests.support.notified import Webhook, listening
from tests.support.promotion import history, run, setting, state, tags


def test_manual_approval_leaves_the_decision_to_a_person_who_is_told_once(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting(approval="manual")
    with listening(Webhook()) as told:
        monkeypatch.setenv(notices.KEY, told.url)
        report = run()
        run()
        assert [body["title"] for body in told.seen] == ["version 1 of lathe waits for a review"]
    assert report["reason"] in told.seen[0]["text"]
    assert (report["decision"], report["champion_sha256"]) == ("pending", None)
    assert state() == {"challenger": ("1", "sft"), "versions": 1}
    assert {key: tags("1")[key] for key in ("gate", "review", "decision")} == {
        "gate": "passed",
        "review": "pending",
        "decision": "pending",
    }
    aliases.approve(mlflow_store.client(), "lathe", "1", "reads well")
    assert state() == {"champion": ("1", "sft"), "challenger": ("1", "sft"), "versions": 1}
    assert (tags("1")["review"], tags("1")["review_reason"]) == ("approved", "reads well")
    assert run()["decision"] == "promoted"
    assert history() == [("sft", "pending", None, None), ("sft", "approved", None, "1")]


def test_what_was_rejected_or_rolled_back_is_not_promoted_again(project: Path) -> None:
    run()
    add_candidate(project, "sft", 1.0, seed=2)
    run()
    aliases.rollback(mlflow_store.client(), "lathe", "rude", by="ann")
    report = run()
    assert report["decision"] == "refused"
    said = "version 2 has these weights and was rolled back: rude (ann)"
    assert report["reason"] == f"{said}; remove its tag `rolled_back` to have it judged again"
    assert state()["champion"] == ("1", "sft")
    mlflow_store.client().delete_model_version_tag("lathe", "2", "rolled_back")
    assert (run()["decision"], state()["champion"], state()["previous"]) == ("promoted", ("2", "sft"), ("1", "sft"))


def test_a_rejected_version_stays_refused_until_a_person_approves_it(project: Path) -> None:
    setting(approval="manual")
    run()
    aliases.reject(mlflow_store.client(), "lathe", "1", "too short", by="bob")
    setting(approval="auto")
    report = run()
    assert (report["decision"], "champion" in state()) == ("refused", False)
    assert report["reason"].startswith("version 1 has these weights and was rejected: too short (bob)")
    assert (tags("1")["gate"], tags("1")["review"]) == ("passed", "rejected")
    client = mlflow_store.client()
    with pytest.raises(DataError, match=r"was rejected: too short \(bob\); if you mean it: .* ANYWAY=1"):
        aliases.approve(client, "lathe", "1", "read again", by="ann")
    aliases.approve(client, "lathe", "1", "read again", by="ann", ask=lambda _: True)
    assert (run()["decision"], state()["champion"]) == ("promoted", ("1", "sft"))
    assert [line["who"] for line in promotion_history.read() if line["action"] in ("rejected", "approved")] == [
        "bob",
        "ann",
    ]
