"""The moves of the aliases on a real registry: rollback, approval, what is refused, and one at a
time.
"""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from stages.common.release import aliases, promotion_history, registry
from stages.common.release.comparisons import Comparison
from stages.common.release.gate import Decision
from stages.common.release.registry import Version
from stages.common.runtime.errors import DataError, TryAgainError
from stages.common.tracking import mlflow_store

if TYPE_CHECKING:
    from stages.common.tracking.mlflow_store import MlflowClient

GOOD = Comparison(
    metric="accuracy/iid", against="base", rule="beats", limit=0.0, change=None, passed=True, reason="better"
)
PASSED = Decision(passed=True, reason="better", comparisons=(GOOD,))
REFUSED = Decision(passed=False, reason="worse", comparisons=(GOOD.model_copy(update={"passed": False}),))


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("empty")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        mlflow_store.client().create_registered_model("lathe")
    return folder


@pytest.fixture
def client(empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "MlflowClient":
    shutil.copytree(empty, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return mlflow_store.client()


def judged(client: "MlflowClient", decision: Decision = PASSED, approval: Any = "auto") -> Version:
    """Register a version and release it as decided against the present champion."""
    made = client.create_model_version("lathe", "file:///nowhere", tags={"candidate": "sft"})
    version = registry.numbered(client, "lathe", str(made.version))
    aliases.release(client, version, decision, approval, "card", registry.with_alias(client, "lathe", "champion"))
    return registry.numbered(client, "lathe", version.number)


def held_by(client: "MlflowClient") -> dict[str, str]:
    found = client.get_registered_model("lathe").aliases
    return {name: str(found[name]) for name in sorted(found)}


def history() -> list[tuple[str, str, str | None, str | None]]:
    return [(line["version"], line["action"], line["from"], line["to"]) for line in promotion_history.read()]


def test_what_a_person_is_to_decide_waits_even_when_approval_is_automatic(client: "MlflowClient") -> None:
    first = judged(client, PASSED.model_copy(update={"asks_person": True}))
    assert held_by(client) == {"challenger": first.number}
    assert (first.tags["gate"], first.tags["review"], first.tags["decision"]) == ("passed", "pending", "pending")
    aliases.approve(client, "lathe", first.number, "reads well", by="ann")
    assert held_by(client)["champion"] == first.number


def test_previous_is_what_champion_was(client: "MlflowClient") -> None:
    for _ in range(3):
        judged(client)
    assert held_by(client) == {"challenger": "3", "champion": "3", "previous": "2"}
    assert history() == [("1", "promoted", None, "1"), ("2", "promoted", "1", "2"), ("3", "promoted", "2", "3")]


def test_a_rollback_brings_the_previous_back_once(client: "MlflowClient") -> None:
    judged(client)
    judged(client)
    done = aliases.rollback(client, "lathe", "it is rude", by="ann")
    assert done == "version 1 of lathe is champion again, version 2 is rolled back"
    assert held_by(client) == {"challenger": "2", "champion": "1", "previous": "2"}
    assert registry.numbered(client, "lathe", "2").tags["rolled_back"] == "it is rude (ann)"
    again = aliases.rollback(client, "lathe", "it is rude", by="ann")
    assert again == "nothing to do: version 1 is champion since version 2 was rolled back"
    assert held_by(client) == {"challenger": "2", "champion": "1", "previous": "2"}
    assert history()[2:] == [("2", "rolled back", "2", "1")]
    assert promotion_history.read()[2]["who"] == "ann"


def test_after_a_rollback_a_better_one_succeeds_and_can_be_rolled_back_too(client: "MlflowClient") -> None:
    judged(client)
    judged(client)
    aliases.rollback(client, "lathe", "rude")
    judged(client)
    assert held_by(client) == {"challenger": "3", "champion": "3", "previous": "1"}
    aliases.rollback(client, "lathe", "slow")
    assert held_by(client) == {"challenger": "3", "champion": "1", "previous": "3"}


def test_a_rollback_that_died_between_its_aliases_is_finished(client: "MlflowClient") -> None:
    judged(client)
    judged(client)
    registry.tag(client, registry.numbered(client, "lathe", "2"), {"rolled_back": "rude", "rolled_back_to": "1"})
    client.set_registered_model_alias("lathe", "champion", "1")
    aliases.rollback(client, "lathe", "rude")
    assert held_by(client) == {"challenger": "2", "champion": "1", "previous": "2"}
    assert history()[2:] == [("2", "rolled back", "2", "1")]


def test_there_must_be_something_to_go_back_to(client: "MlflowClient") -> None:
    with pytest.raises(DataError, match="'lathe' has no champion"):
        aliases.rollback(client, "lathe", "rude")
    judged(client)
    with pytest.raises(DataError, match="'lathe' has no previous"):
        aliases.rollback(client, "lathe", "rude")
    judged(client, REFUSED)
    client.set_registered_model_alias("lathe", "previous", "2")
    with pytest.raises(DataError, match="version 2 never passed the gate"):
        aliases.rollback(client, "lathe", "rude")
    assert held_by(client)["champion"] == "1"


def test_a_person_approves_what_passed_and_nothing_else(client: "MlflowClient") -> None:
    judged(client)
    judged(client, approval="manual")
    judged(client, REFUSED)
    assert held_by(client) == {"challenger": "3", "champion": "1"}
    with pytest.raises(DataError, match="version 3 did not pass the gate: worse"):
        aliases.approve(client, "lathe", "3", "I like it")
    with pytest.raises(DataError, match="'lathe' has no version '9'; there are: 1, 2, 3"):
        aliases.approve(client, "lathe", "9", "I like it")
    for _ in range(2):
        aliases.approve(client, "lathe", "2", "I like it", by="ann")
        assert held_by(client) == {"challenger": "3", "champion": "2", "previous": "1"}
    tags = registry.numbered(client, "lathe", "2").tags
    assert [tags[key] for key in ("review", "review_by", "review_reason")] == ["approved", "ann", "I like it"]
    assert history()[1:] == [("2", "pending", "1", "1"), ("3", "refused", "1", "1"), ("2", "approved", "1", "2")]


def test_the_champion_is_not_rejected_but_rolled_back(client: "MlflowClient") -> None:
    judged(client)
    with pytest.raises(DataError, match="version 1 is the champion; roll back: make rollback"):
        aliases.reject(client, "lathe", "1", "rude")


def test_a_champion_that_changed_meanwhile_is_not_replaced(client: "MlflowClient") -> None:
    first = judged(client)
    judged(client)
    made = client.create_model_version("lathe", "file:///nowhere")
    late = registry.numbered(client, "lathe", str(made.version))
    with pytest.raises(TryAgainError, match="the champion changed meanwhile: version 1 when this began, version 2 now"):
        aliases.release(client, late, PASSED, "auto", "card", first)
    assert held_by(client)["champion"] == "2"
    assert held_by(client)["previous"] == "1"


def test_a_version_is_pending_until_it_is_beaten_or_approved(client: "MlflowClient") -> None:
    judged(client)
    waiting = judged(client, approval="manual")
    assert waiting.tags["review"] == "pending"
    held = registry.with_alias(client, "lathe", "champion")
    aliases.release(client, waiting, REFUSED, "manual", "card", held)
    tags = registry.numbered(client, "lathe", "2").tags
    assert (tags["gate"], tags["review"], tags["decision"]) == ("refused", "none", "refused")


def test_settled_is_what_the_tags_say(client: "MlflowClient") -> None:
    champion = judged(client)
    assert aliases.settled(None, champion) is None
    assert aliases.settled(champion, champion) == PASSED
    assert aliases.settled(champion, None) is None
    by_hand = Version("lathe", "7", "", {})
    found = aliases.settled(by_hand, by_hand)
    assert found
    assert (found.passed, found.reason) == (True, "it was made champion by hand")


def test_to_approve_who_is_champion_writes_nothing(client: "MlflowClient") -> None:
    judged(client)
    before, tags = promotion_history.HISTORY.read_bytes(), registry.numbered(client, "lathe", "1").tags
    assert aliases.approve(client, "lathe", "1", "again") == "nothing to do: version 1 of lathe is champion already"
    assert promotion_history.HISTORY.read_bytes() == before
    assert registry.numbered(client, "lathe", "1").tags == tags


def test_to_approve_what_a_person_decided_against_asks(client: "MlflowClient") -> None:
    judged(client)
    judged(client, approval="manual")
    aliases.reject(client, "lathe", "2", "too short", by="ada")
    asked: list[str] = []

    def no(what: str) -> bool:
        asked.append(what)
        return False

    for ask in (None, no):
        with pytest.raises(
            DataError, match=r"was rejected: too short \(ada\); if you mean it: make approve VERSION=2 A"
        ):
            aliases.approve(client, "lathe", "2", "after all", ask=ask)
    assert asked == ["version 2 was rejected: too short (ada)"] and held_by(client)["champion"] == "1"
    aliases.approve(client, "lathe", "2", "after all", ask=lambda _: True)
    assert held_by(client)["champion"] == "2"
    aliases.rollback(client, "lathe", "rude", by="ada")
    with pytest.raises(DataError, match=r"version 2 was rolled back: rude \(ada\)"):
        aliases.approve(client, "lathe", "2", "after all")
