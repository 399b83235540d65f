"""A challenger beside the champion: unseen, with a share of conversations, back, promoted, and
after a restart.
"""

import json
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from stages.common.core.records import message
from stages.common.release import promotion_history, registry
from stages.common.release.traffic import challenge, evidence, moves
from stages.common.release.traffic.evidence import KNOWN, Rules
from stages.common.serving.challenger import unseen
from stages.common.serving.challenger.contested import Contested
from stages.common.serving.engine.champions import Question
from stages.common.serving.engine.requests import pieces
from tests.common.serving.challenger.conftest import Make
from tests.common.serving.conftest import Registered, served

HALF = Rules(steps=(0.0, 0.5), step_conversations=1)


def question(number: int, turns: int = 1) -> Question:
    said = [message("user", f"What is the capital of land {number}?")]
    for _ in range(turns - 1):
        said += [message("assistant", "a"), message("user", "And then?")]
    return Question(said, 6)


def answers(champions: Contested, asked: Question) -> str:
    under_way, found = pieces(champions.ask, asked)
    assert list(found)[-1].finish in ("stop", "length")
    return under_way.champion.version.number


def until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def at_half(champions: Contested) -> None:
    """Let half of the conversations be the challenger's."""
    assert champions.trial
    moves.grown(champions.trial.counts.release.known, moves.GROW)


def lines() -> list[dict[str, Any]]:
    return promotion_history.read()


def test_in_shadow_the_champion_answers_everybody_and_both_are_compared(contested: Make, tmp_path: Path) -> None:
    champions = contested(mode="shadow")
    with served(champions, tmp_path / "page.jsonl") as url:
        for number in range(3):
            body = {"messages": question(number).messages, "max_tokens": 6}
            assert httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60).status_code == 200
        until(lambda: champions.unseen.compared == 3, "three unseen answers")
        until(lambda: champions.figures()["answers"] == 3, "three answers of the challenger")
        assert not champions.look()
        shown = httpx.get(f"{url}/metrics").text
    figures = dict(re.findall(r'lathe_challenger\{figure="(\w+)",version="2"\} (\S+)', shown))
    assert {"conversations", "unseen_compared", "unseen_dropped", "better", "guard_lost"} <= set(figures)
    assert (float(figures["conversations"]), float(figures["share"])) == (3, 0)
    held = json.loads((tmp_path / "challenger.json").read_text())
    assert (held["known"]["conversations"], held["champion"], held["challenger"]) == (3, "1", "2")
    assert lines() == []


def test_unseen_answers_wait_for_people_and_are_dropped_where_there_is_no_room(
    contested: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unseen, "WAITING_AT_MOST", 2)
    champions = contested(mode="shadow")
    assert champions.trial
    may_go_on = threading.Event()
    hook = champions.trial.challenger.engine.model.register_forward_hook(lambda *_: may_go_on.wait(60) and None)
    for number in range(8):
        assert answers(champions, question(number)) == "1"
    until(lambda: champions.unseen.dropped == 5, "one under way, two wait, five have no room")
    assert champions.unseen.compared == 0, "nobody has waited for it"
    may_go_on.set()
    until(lambda: champions.unseen.compared == 3, "the others are compared then")
    hook.remove()


def test_a_share_of_conversations_is_the_challengers_and_stays_so_after_a_restart(contested: Make) -> None:
    champions = contested(rules=HALF)
    at_half(champions)
    first = {number: answers(champions, question(number)) for number in range(16)}
    assert set(first.values()) == {"1", "2"}
    assert {number: answers(champions, question(number, 2)) for number in range(16)} == first
    champions.look()
    champions.close()
    again = contested(rules=HALF)
    assert {number: answers(again, question(number, 3)) for number in range(16)} == first
    assert again.trial
    assert again.trial.counts.release.known.conversations == 16
    again.look()
    assert again.trial.counts.release.known.conversations == 16, "what was counted is not counted again"


def test_a_question_the_challenger_has_no_room_for_is_the_champions(contested: Make) -> None:
    champions = contested(rules=HALF)
    at_half(champions)
    assert champions.trial
    theirs = next(number for number in range(99) if champions.trial.counts.takes(question(number).messages))
    champions.trial.challenger.engine.close()
    assert answers(champions, question(theirs)) == "1"


def test_a_challenger_that_fails_goes_back_at_once_with_its_evidence(contested: Make, registered: Registered) -> None:
    champions = contested(rules=HALF)
    at_half(champions)
    assert champions.trial
    counts = champions.trial.counts
    for _ in range(KNOWN):
        counts.answered(False, False, False, None)
    theirs = next(number for number in range(99) if counts.takes(question(number).messages))

    def broken(*_: object) -> None:
        raise RuntimeError("broken on purpose")

    champions.trial.challenger.engine.model.register_forward_hook(broken)
    failed = 0
    while not counts.stopped:
        with pytest.raises(RuntimeError, match="on purpose"):
            answers(champions, question(theirs))
        failed += 1
        until(lambda: counts.release.known.answers == failed, "it is counted")  # noqa: B023
    assert failed <= 10
    assert answers(champions, question(theirs)) == "1", "before anything is written"
    champions.look()
    assert champions.trial is None
    assert champions.current.version.number == "1"
    (line,) = lines()
    assert (line["action"], line["version"], line["from"], line["to"], line["who"]) == (
        "sent back",
        "2",
        "1",
        "1",
        "traffic",
    )
    assert "guard 'failed'" in str(line["reason"])
    assert line["evidence"]["guard_failed"] > 200
    assert registry.numbered(registered.client, "lathe", "2").tags[challenge.TAG].startswith("sent back")
    champions.look()
    assert champions.trial is None, "it is not tried again"


def win(champions: Contested) -> None:
    """Show that the challenger is better: compared, and to people."""
    assert champions.trial
    known = champions.trial.counts.release.known
    for at in range(200):
        evidence.over(known, champions.rules, 1.0 if at % 2 else 0.0, at % 2 == 1, 0.5, (2.0, 2))


@pytest.mark.parametrize("approval", ["auto", "manual"])
def test_one_that_won_becomes_champion_or_waits_for_a_person(
    contested: Make, registered: Registered, approval: str
) -> None:
    champions = contested(approval=approval)
    win(champions)
    champions.look()
    assert champions.trial is None
    version = registry.numbered(registered.client, "lathe", "2")
    assert version.tags[challenge.TAG].startswith("won: better")
    won = lines()[0]
    assert won["action"] == "won"
    assert won["evidence"]["better"] >= 100
    if approval == "auto":
        assert champions.current.version.number == "2"
        assert [line["action"] for line in lines()] == ["won", "approved"]
    else:
        assert champions.current.version.number == "1"
        assert version.tags["review"] == "pending"


def test_a_share_that_grows_is_a_line_of_the_history(contested: Make) -> None:
    champions = contested(rules=HALF)
    assert champions.trial
    known = champions.trial.counts.release.known
    while moves.next_move(known, HALF) != moves.GROW:
        evidence.over(known, HALF, 0.5, False, 0.0, (1.0, 2))
    champions.look()
    (line,) = lines()
    assert (line["action"], line["to"]) == ("challenges", "1")
    assert "it answers 50% from now on" in str(line["reason"])
    assert champions.figures()["share"] == 0.5


def test_only_a_version_that_passed_the_gate_may_be_tried(contested: Make, registered: Registered) -> None:
    client, second = registered.client, registered.versions[1]
    registry.tag(client, second, {"gate": "refused"})
    assert contested().trial is None
    with pytest.raises(Exception, match="did not pass the gate"):
        challenge.challenge(client, "lathe", "2")
    registry.tag(client, second, {"gate": "passed", challenge.TAG: "sent back: slow"})
    assert contested().trial is None
    assert challenge.challenge(client, "lathe", "2") == "version 2 of lathe challenges version 1"
    assert contested().challenger == "2"
    with pytest.raises(Exception, match="version 1 is the champion"):
        challenge.challenge(client, "lathe", "1")


@pytest.mark.slow
def test_fifty_users_at_once_lose_no_request_while_the_share_grows_and_it_goes_back(
    contested: Make, tmp_path: Path
) -> None:
    champions = contested(rules=HALF)
    at_half(champions)
    failures, by_version = list[str](), dict[str, int]()

    def chat(user: int, url: str) -> None:
        with httpx.Client(timeout=120) as client:
            for turns in (1, 2, 3):
                body = {"messages": question(user, turns).messages, "max_tokens": 6}
                reply = client.post(f"{url}/v1/chat/completions", json=body)
                if reply.status_code != 200:
                    failures.append(reply.text)
                    continue
                version = reply.json()["system_fingerprint"].split("-")[1]
                by_version[version] = by_version.get(version, 0) + 1

    with served(champions, tmp_path / "page.jsonl") as url:
        thread = champions.follow(0.05)
        users = [threading.Thread(target=chat, args=(user, url)) for user in range(50)]
        for user in users:
            user.start()
        until(lambda: by_version.get("2", 0) > 5, "the challenger answers")
        assert champions.trial
        champions.trial.counts.release.known.guards[0] = 1e6
        for user in users:
            user.join()
        until(lambda: champions.trial is None, "it goes back")
        assert failures == []
        assert sum(by_version.values()) == 150
        assert by_version["1"] > 0
        champions.close()
        thread.join(10)
