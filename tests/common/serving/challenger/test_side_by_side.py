"""A reviewer with champion and challenger side by side: blind, both answers at once, one vote a
conversation, on the disk and in the registry.
"""

import asyncio
import json
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stages.common.annotation import feedback
from stages.common.annotation.feedback import Choice, Vote
from stages.common.core.records import message
from stages.common.memory import available
from stages.common.release import registry
from stages.common.release.traffic import challenge, votes
from stages.common.runtime.errors import DataError, StageError
from stages.common.serving.api.metrics import Observer
from stages.common.serving.challenger import side_by_side
from stages.common.serving.challenger.side_by_side import Asking, Desk, Talk
from stages.common.serving.engine.champions import Champions, Question
from stages.common.serving.engine.requests import ClosedError
from tests.common.serving.challenger.conftest import Make
from tests.common.serving.conftest import Registered
from tests.support.registered import NAME

ASKED = "What is the capital of land 3?"
MakeDesk = Callable[[Champions], Desk]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeDesk]:
    """Make a desk for a server's champions; what it has loaded goes at the end."""
    monkeypatch.setattr(secrets, "randbits", lambda bits: 5)  # each model says one thing to a question
    made: list[Desk] = []

    def make(champions: Champions) -> Desk:
        made.append(Desk(Observer(champions), Asking("Be brief.", 1.0, 12, tmp_path / "votes.jsonl")))
        return made[-1]

    yield make
    for one in made:
        one.both.unload()


@pytest.fixture
def off(contested: Make, registered: Registered) -> Iterator[Champions]:
    """A server with `deploy.challenger.mode: off`; version 2 has alias challenger."""
    made = Champions(NAME, rows=4, waiting=8, client=registered.client)
    yield made
    made.close()
    mark(made, **{votes.TAG: "", challenge.TAG: "", "rejected": ""})


def mark(champions: Champions, **tags: str) -> None:
    """Set tags of the challenger."""
    registry.tag(champions.client, registry.numbered(champions.client, NAME, "2"), tags)


def say(at: Desk, text: str = ASKED, conversation: str = "", who: str = "ann") -> tuple[str, Talk]:
    return asyncio.run(at.say(who, conversation, text))


def voted(at: Desk, choice: Choice, conversation: str) -> Vote:
    line = at.vote(conversation, choice)
    assert [one for one in feedback.read(at.asking.store)][-1] == line
    return line


def better(talk: Talk, wins: bool) -> Choice:
    """Return the vote for the challenger, or for the champion."""
    return ("right" if talk.challenger else "left") if wins else ("left" if talk.challenger else "right")


def test_a_vote_is_one_line_with_both_answers_and_goes_into_the_registry(
    off: Champions, desk: MakeDesk, registered: Registered
) -> None:
    at = desk(off)
    conversation, talk = say(at)
    again, talk = say(at, " And of land 4? ", conversation)
    assert again == conversation
    assert [one["content"] for one in talk.history(0)][::2] == [ASKED, "And of land 4?"]
    line = voted(at, better(talk, True), conversation)
    champion, challenger = line.sides
    assert (champion.version, challenger.version) == ("1", "2")
    assert [one.weights_sha256 for one in line.sides] == [one.tags["weights_sha256"] for one in registered.versions]
    assert (line.annotator, line.counted, line.preferred) == ("ann", False, challenger)
    assert [one["content"] for one in line.messages] == ["Be brief.", ASKED, "And of land 4?"]
    assert [len(one.answers) for one in line.sides] == [2, 2]
    assert champion.answers != challenger.answers, "they have other weights"
    with pytest.raises(DataError, match="nothing to vote on"):
        at.vote(conversation, "tie")
    with pytest.raises(DataError, match="nothing to vote on"):
        say(at, "More?", conversation)
    for choice in ("tie", "both bad", "left"):
        known, talk = say(at, who="bob")
        voted(at, better(talk, False) if choice == "left" else choice, known)
    (tally,) = votes.of(registry.numbered(registered.client, NAME, "2"))
    assert tally.model_dump() == {
        "against": "1", "won": 1, "lost": 1, "ties": 1, "both_bad": 1, "reviewers": 2, "counted": 0
    }  # fmt: skip
    card = registered.client.get_model_version(NAME, "2").description or ""
    assert card.count(f"{votes.BEGINS}1, blind: won 1, lost 1, ties 1, both bad 1, by 2 reviewers.") == 1
    assert votes.of(registry.numbered(registered.client, NAME, "1")) == []


def test_sides_are_drawn_for_each_conversation_and_each_reads_its_own_answers(off: Champions, desk: MakeDesk) -> None:
    at = desk(off)
    talks = [Talk("ann", ({}, {}), []) for _ in range(64)]
    assert 10 < sum(one.challenger for one in talks) < 54
    found: dict[int, tuple[str, str]] = {}
    while len(found) < 2:
        _, talk = say(at)
        found[talk.challenger] = talk.answers[0][0], talk.answers[1][0]
    assert found[0] == found[1][::-1], "the same two answers, the other way round"


def test_a_version_that_waits_is_loaded_for_reviewers_and_leaves_when_nobody_asks(
    off: Champions, desk: MakeDesk, registered: Registered, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = desk(off)
    pair = at.both.pair()
    assert at.both.pair().challenger is pair.challenger, "loaded once"
    at.both.unload()
    with pytest.raises(ClosedError):
        pair.challenger.ask(Question([message("user", ASKED)], 4), print)
    monkeypatch.setattr(available, "unused", lambda *_: 10)
    with pytest.raises(DataError, match=r"no room for a second model: .* must be free"):
        at.both.pair()
    mark(off, **{challenge.TAG: "sent back: slow"})
    monkeypatch.undo()
    assert at.both.pair().challenger.version.number == "2", "a release that has ended is no reason"
    mark(off, rejected="rude (bob)")
    with pytest.raises(DataError, match=r"may not be tried: it was rejected: rude \(bob\); `make challenge"):
        at.both.pair()
    mark(off, rejected="")
    registry.point(registered.client, registry.CHALLENGER, registered.versions[0])
    with pytest.raises(DataError, match=r"no version waits beside the champion.*make challenge VERSION=4"):
        say(at)
    off.backend = "http://127.0.0.1:9"
    with pytest.raises(DataError, match="a backend serves one model"):
        say(at)
    off.backend = ""
    registry.point(registered.client, registry.CHALLENGER, registered.versions[1])
    at.both.idle = 0.0
    at.both.pair()
    at.both._timer.join(60)
    assert at.both._own is None, "nobody asks any more"
    off.close()
    with pytest.raises(ClosedError):
        say(at)


def test_in_traffic_the_same_model_answers_and_a_vote_is_a_rank(contested: Make, desk: MakeDesk) -> None:
    champions = contested(mode="shadow")
    at = desk(champions)
    assert champions.trial
    assert at.both.pair().challenger is champions.trial.challenger
    conversation, talk = say(at)
    assert champions.figures()["conversations"] == champions.figures()["open"] == 0, "no traffic"
    assert voted(at, better(talk, True), conversation).counted
    known = champions.trial.counts.release.known
    assert known.better_ranked.tolist() == [1.9, 1.45, 1.225, 1.1125], "of stakes 0.9, 0.45, ..."
    conversation, talk = say(at)
    voted(at, "both bad", conversation)
    assert known.better_ranked.tolist() == [1.9, 1.45, 1.225, 1.1125], "for neither"
    conversation, talk = say(at)
    voted(at, better(talk, False), conversation)
    assert known.better_ranked.tolist() == pytest.approx([0.19, 0.7975, 0.949375, 0.98734375])
    champions.look()
    held = json.loads(champions.state.read_text())
    assert held["known"]["better_ranked"] == known.better_ranked.tolist(), "it survives a restart"
    (tally,) = votes.of(registry.numbered(champions.client, NAME, "2"))
    assert (tally.votes, tally.counted) == (3, 3)
    mark(champions, **{votes.TAG: ""})


def test_an_error_does_not_tell_whose_it_is_and_the_conversation_goes_on(off: Champions, desk: MakeDesk) -> None:
    at = desk(off)
    conversation, talk = say(at)
    challenger = at.both.pair().challenger.engine

    def broken(*_: object) -> None:
        raise RuntimeError("broken on purpose")

    for engine in (off.current.engine, challenger):
        hook = engine.model.register_forward_hook(broken)
        with pytest.raises(DataError) as caught:
            say(at, "And then?", conversation)
        hook.remove()
        assert str(caught.value) == ("one of the two gave no answer; ask another way, or begin a new conversation"), (
            "the same for both"
        )
    assert [len(one) for one in talk.answers] == [1, 1]
    for text in ("", "  ", "a" * 70_000):
        with pytest.raises(DataError, match="a message has 1 to 65,536 characters"):
            say(at, text, conversation)
    with pytest.raises(StageError, match="tokens"):
        say(at, "land 3 " * 2000, conversation)
    say(at, "And then?", conversation)
    assert [len(one) for one in talk.answers] == [2, 2]


def test_bad_votes_are_refused_and_a_full_disk_loses_none(
    off: Champions, desk: MakeDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = desk(off)
    for conversation in ("", "no such"):
        with pytest.raises(DataError, match="there is nothing to vote on"):
            at.vote(conversation, "left")
    conversation, talk = say(at)
    monkeypatch.setattr(feedback, "BYTES_AT_MOST", 10)
    with pytest.raises(DataError, match="the store of feedback is full"):
        at.vote(conversation, "tie")
    monkeypatch.undo()
    talk.is_answering = True
    with pytest.raises(DataError, match="the answers are under way"):
        at.vote(conversation, "tie")
    with pytest.raises(DataError, match="the answers are under way"):
        say(at, "And then?", conversation)
    talk.is_answering = False
    kept, talk.answers = talk.answers, (["same"], ["same"])
    with pytest.raises(DataError, match="both have said the same"):
        at.vote(conversation, "left")
    talk.answers = kept
    monkeypatch.setattr(side_by_side, "MESSAGES_AT_MOST", 1)
    with pytest.raises(DataError, match="a conversation has 1 messages at most; vote"):
        say(at, "And then?", conversation)
    talk.facts = talk.facts[::-1]
    with pytest.raises(DataError, match="other models are compared by now"):
        say(at, "And then?", conversation)
    talk.facts = talk.facts[::-1]
    with monkeypatch.context() as patch:
        patch.setattr(registry, "numbered", lambda *_: 1 / 0)
        voted(at, "tie", conversation)
    assert len(list(feedback.read(at.asking.store))) == 1, "the registry is away: the vote is kept"


def test_only_so_many_conversations_wait_for_a_vote(
    off: Champions, desk: MakeDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(side_by_side, "TALKS_AT_MOST", 1)
    at = desk(off)
    first, _ = say(at)
    second, _ = say(at)
    with pytest.raises(DataError, match="there is nothing to vote on"):
        at.vote(first, "tie")
    voted(at, "tie", second)
