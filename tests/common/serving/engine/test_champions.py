"""A new champion takes over without a question lost; one that cannot be loaded leaves the old one
answering.
"""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stages.common.core.records import message
from stages.common.generation.sampling import Sampling
from stages.common.release import aliases, promotion_history, registry
from stages.common.release.registry import SOURCE, Version
from stages.common.runtime import logs
from stages.common.runtime.errors import DataError
from stages.common.serving.engine.champions import AGAIN_AFTER_POLLS, Champions, Question
from stages.common.serving.engine.requests import ClosedError, pieces
from tests.common.serving.conftest import Registered
from tests.support.registered import NAME, add_version


def question(number: int, tokens: int = 12) -> Question:
    return Question([message("user", f"What is the capital of land {number}?")], tokens, Sampling(1.0, seed=number))


def answer(champions: Champions, asked: Question) -> tuple[str, str]:
    under_way, found = pieces(champions.ask, asked)
    return "".join(piece.text for piece in found), under_way.champion.version.number


@pytest.fixture
def slowly(champions: Champions) -> Iterator[Champions]:
    hook = champions.current.engine.model.register_forward_hook(lambda *_: time.sleep(0.01))
    yield champions
    hook.remove()


def test_a_new_champion_answers_what_comes_and_the_old_one_ends_what_it_has(
    slowly: Champions, registered: Registered
) -> None:
    champions, (first, second) = slowly, registered.versions
    asked, found = pieces(champions.ask, question(1, 60))
    next(found)
    old = champions.current.engine
    assert not champions.look(), "the alias has not moved"
    registry.point(registered.client, registry.CHAMPION, second)
    assert champions.look()
    assert old.load() == (0, 1)
    assert answer(champions, question(2))[1] == second.number
    rest = list(found)
    assert asked.champion.version.number == first.number
    assert rest[-1].finish in ("length", "stop")
    assert old.join(5)
    with pytest.raises(ClosedError):
        old.submit(asked.ticket.request, print)


def test_swaps_under_load_drop_nothing(champions: Champions, registered: Registered) -> None:
    ended, failures, by_version = threading.Event(), list[str](), dict[str, int]()

    def ask_on(user: int) -> None:
        count = 0
        while not ended.is_set():
            count += 1
            try:
                under_way, found = pieces(champions.ask, question(user * 1000 + count))
                *_, last = found
                assert last.finish in ("length", "stop")
                number = under_way.champion.version.number
                by_version[number] = by_version.get(number, 0) + 1
            except Exception as error:
                failures.append(repr(error))

    users = [threading.Thread(target=ask_on, args=(user,)) for user in range(6)]
    thread = champions.follow(0.05)
    for user in users:
        user.start()
    for swap in range(1, 5):
        registry.point(registered.client, registry.CHAMPION, registered.versions[swap % 2])
        end = time.monotonic() + 20
        while champions.swaps < swap:
            assert time.monotonic() < end
            time.sleep(0.02)
    ended.set()
    for user in users:
        user.join(20)
    assert champions.close(10)
    thread.join(5)
    assert not failures
    assert set(by_version) == {"1", "2"}
    with pytest.raises(ClosedError):
        champions.ask(question(1), print)


def test_a_champion_with_damaged_files_leaves_the_old_one_answering(
    champions: Champions, registered: Registered, tmp_path: Path
) -> None:
    bad = add_version(registered.client, tmp_path, 9)
    folder = registry.fetch(registered.client, bad)
    (folder / "config.json").write_text("{}")
    loads = []
    load = champions.load

    def counted(version: Version) -> object:
        loads.append(version.number)
        return load(version)

    champions.load = counted  # type: ignore[method-assign, assignment]  # counts
    registry.point(registered.client, registry.CHAMPION, bad)
    for _ in range(AGAIN_AFTER_POLLS):
        assert not champions.look()
    assert loads == [bad.number], "it is not read again and again"
    assert answer(champions, question(3))[1] == "1"
    registry.point(registered.client, registry.CHAMPION, registered.versions[1])
    assert champions.look()
    assert answer(champions, question(3))[1] == "2"


@pytest.mark.parametrize("source", ["s3://elsewhere/model", "/etc", "models:/lathe/1"])
def test_a_champion_from_elsewhere_is_not_loaded(champions: Champions, registered: Registered, source: str) -> None:
    assert not SOURCE.fullmatch(source)
    made = registered.client.create_model_version(NAME, source if "://" in source else f"file://{source}")
    registered.client.set_registered_model_alias(NAME, registry.CHAMPION, made.version)
    assert not champions.look()
    assert answer(champions, question(3))[1] == "1"


def test_an_alias_that_is_gone_changes_nothing(champions: Champions, registered: Registered) -> None:
    registered.client.delete_registered_model_alias(NAME, registry.CHAMPION)
    assert not champions.look()
    assert answer(champions, question(3))[1] == "1"
    with pytest.raises(DataError, match="'lathe' has no champion") as nobody:
        Champions(NAME, client=registered.client)
    assert nobody.value.remedy == "run `dvc repro -f promote`"
    waits = registry.numbered(registered.client, NAME, "2")
    registry.tag(registered.client, waits, {"review": "pending"})
    registry.point(registered.client, registry.CHALLENGER, waits)
    with pytest.raises(DataError, match="'lathe' has no champion") as undecided:
        Champions(NAME, client=registered.client)
    assert undecided.value.remedy == "version 2 waits for a person: make review, or make approve VERSION=2"
    registry.tag(registered.client, waits, {"review": ""})
    registered.client.delete_registered_model_alias(NAME, registry.CHALLENGER)


def test_a_move_by_hand_is_written_down_and_a_vanished_version_is_warned_of(
    champions: Champions,
    registered: Registered,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(logs.log, "propagate", True)
    first, second = registered.versions
    history = tmp_path / "promotions.jsonl"
    monkeypatch.setattr(promotion_history, "HISTORY", history)
    promotion_history.append(aliases.line(first, "promoted", "better", "", first.number))
    third = add_version(registered.client, tmp_path, 7)
    registry.point(registered.client, registry.CHAMPION, third)
    assert champions.look()
    told = promotion_history.last(NAME, third.number)
    assert (told["action"], told["from"], told["to"]) == ("moved by hand", "1", third.number)
    assert f"version {third.number} is champion by hand without having passed the gate" in caplog.text
    registered.client.delete_model_version(NAME, third.number)
    assert not champions.look() and not champions.look()
    assert caplog.text.count(f"version {third.number} was deleted from the registry") == 1
    registry.tag(registered.client, second, {"rolled_back": "rude (ada)"})
    registry.point(registered.client, registry.CHAMPION, second)
    assert champions.look()
    assert "version 2 is champion though it was rolled back: rude (ada)" in caplog.text
    registry.tag(registered.client, registry.numbered(registered.client, NAME, "2"), {"rolled_back": ""})
