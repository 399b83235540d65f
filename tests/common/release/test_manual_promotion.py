"""A champion made in MLflow's page: what the history and the tags say of it afterwards."""

import logging
from typing import TYPE_CHECKING

import pytest

from stages.common.release import aliases, manual_promotion, promotion_history, registry
from stages.common.runtime import logs
from tests.common.release.test_aliases import REFUSED, client, empty, held_by, history, judged

if TYPE_CHECKING:
    from stages.common.tracking.mlflow_store import MlflowClient

__all__ = ["client", "empty"]  # fixtures


def test_an_alias_moved_in_mlflow_is_an_approval(client: "MlflowClient") -> None:
    judged(client)
    judged(client, approval="manual")
    assert manual_promotion.notice(client, "lathe") is None
    client.set_registered_model_alias("lathe", "champion", "2")
    found = manual_promotion.notice(client, "lathe")
    assert found
    assert found.number == "2"
    assert held_by(client) == {"challenger": "2", "champion": "2", "previous": "1"}
    tags = registry.numbered(client, "lathe", "2").tags
    assert [tags[key] for key in ("review", "review_by", "decision")] == ["approved", "MLflow's page", "promoted"]
    assert history()[2:] == [("2", "moved by hand", "1", "2")]
    assert manual_promotion.notice(client, "lathe") is None
    assert len(history()) == 3


def test_the_first_champion_may_be_made_by_hand(client: "MlflowClient") -> None:
    judged(client, approval="manual")
    client.set_registered_model_alias("lathe", "champion", "1")
    assert manual_promotion.notice(client, "lathe")
    assert registry.numbered(client, "lathe", "1").tags["review"] == "approved"
    assert held_by(client) == {"challenger": "1", "champion": "1"}
    assert history() == [("1", "pending", None, None), ("1", "moved by hand", None, "1")]


def test_a_champion_that_did_not_pass_is_warned_of(
    client: "MlflowClient", monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(logs.log, "propagate", True)
    judged(client)
    judged(client, REFUSED)
    client.set_registered_model_alias("lathe", "champion", "2")
    with caplog.at_level(logging.WARNING):
        assert manual_promotion.notice(client, "lathe")
    assert "version 2 is champion by hand without having passed the gate: worse" in caplog.text
    assert registry.numbered(client, "lathe", "2").tags["gate"] == "refused"


def test_going_back_by_hand_is_recorded_too(client: "MlflowClient") -> None:
    judged(client)
    judged(client)
    client.set_registered_model_alias("lathe", "champion", "1")
    assert manual_promotion.notice(client, "lathe")
    assert held_by(client) == {"challenger": "2", "champion": "1", "previous": "2"}
    assert history()[2:] == [("1", "moved by hand", "2", "1")]


def test_a_checkout_without_a_history_records_nothing(client: "MlflowClient") -> None:
    judged(client)
    promotion_history.HISTORY.unlink()
    assert manual_promotion.notice(client, "lathe") is None
    assert not promotion_history.HISTORY.exists()


def test_a_move_of_ours_that_died_is_not_taken_for_one_by_hand(client: "MlflowClient") -> None:
    judged(client)
    made = judged(client)
    lines = promotion_history.HISTORY.read_text().splitlines(keepends=True)
    promotion_history.HISTORY.write_text(lines[0])
    registry.tag(client, made, {"decision": "pending"})
    assert manual_promotion.notice(client, "lathe") is None
    promotion_history.HISTORY.write_text("".join(lines))
    registry.tag(client, registry.numbered(client, "lathe", "2"), {"decision": "promoted"})
    registry.tag(client, made, {"rolled_back": "rude", "rolled_back_to": "1"})
    client.set_registered_model_alias("lathe", "champion", "1")
    assert manual_promotion.notice(client, "lathe") is None
    aliases.rollback(client, "lathe", "rude")
    assert history()[2:] == [("2", "rolled back", "2", "1")]


def test_a_server_writes_down_what_was_moved_by_hand_and_nothing_else(client: "MlflowClient") -> None:
    judged(client)
    judged(client)
    assert manual_promotion.note(client, "lathe") is None
    client.set_registered_model_alias("lathe", "champion", "1")
    assert manual_promotion.note(client, "lathe")
    client.set_registered_model_alias("lathe", "champion", "2")
    assert manual_promotion.note(client, "lathe"), "back to one that a command once promoted"
    assert history()[2:] == [("1", "moved by hand", "2", "1"), ("2", "moved by hand", "1", "2")]
    here = promotion_history.HISTORY.read_bytes()
    judged(client)
    promotion_history.HISTORY.write_bytes(here)  # as where another machine has promoted it
    assert manual_promotion.note(client, "lathe") is None
    assert len(history()) == 4


def test_a_rollback_on_another_machine_is_none_by_hand(client: "MlflowClient") -> None:
    judged(client)
    judged(client)
    here = promotion_history.HISTORY.read_bytes()
    aliases.rollback(client, "lathe", "it is rude")
    promotion_history.HISTORY.write_bytes(here)
    assert manual_promotion.note(client, "lathe") is None
    promotion_history.HISTORY.unlink()
    assert manual_promotion.note(client, "lathe") is None
    assert not promotion_history.HISTORY.exists()
