"""What people decide about versions, and what the gate does afterwards."""

from pathlib import Path

import pytest

from stages.common.release import aliases, promotion_history, registry, verdict
from stages.common.release.traffic import votes
from stages.common.release.traffic.votes import Cast
from stages.common.runtime.errors import DataError
from stages.common.tracking import mlflow_store, notices
from tests.support.champion import add_candidate
from tests.support.loopback import running
from tests.support.notified import Webhook
from tests.support.promotion import CARD, history, run, setting, state, tags


def test_manual_approval_leaves_the_decision_to_a_person_who_is_told_once(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting(approval="manual")
    with running(Webhook()) as told:
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


def test_votes_stand_in_the_report_the_card_and_the_page_and_decide_nothing(project: Path) -> None:
    setting(approval="manual")
    page, out = Path("reports/candidates.html"), Path("reports/report.html")
    page.write_text(f"<h1>Lathe</h1>{verdict.MARK}", encoding="utf-8")
    before = run(page=page, out=out)
    assert "votes" not in before and "Side by side" not in out.read_text(encoding="utf-8") + CARD.read_text("utf-8")
    client = mlflow_store.client()
    cast = [Cast(who, "1", "lost", False) for who in ("ann", "bob", "bob")]
    found = votes.tallies([*cast, Cast("ann", "1", "won", True)])
    votes.keep(client, registry.numbered(client, "lathe", "1"), found)
    kept = client.get_model_version("lathe", "1").description
    report = run(page=page, out=out)
    assert report == before | {"votes": [found[0].model_dump()]}, "the decision is the same"
    said = "Side by side with version 1, blind: won 1, lost 3, ties 0, both bad 0, by 2 reviewers. It wins 25.0% "
    said += "[0.6%, 80.6%] of the 4 that prefer one (exact 95 % interval; sign test p = 0.62). The gate did not use "
    said += "them; 1 of 4 were ranks in a release by traffic."
    assert said in out.read_text(encoding="utf-8")
    assert f".\n\n{said}\n\n" in CARD.read_text(encoding="utf-8")
    assert client.get_model_version("lathe", "1").description == kept == CARD.read_text(encoding="utf-8")


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
