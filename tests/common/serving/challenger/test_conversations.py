"""What is counted of conversations, and whose they are."""

import json
import threading
from pathlib import Path

from stages.common.core.records import message
from stages.common.release.traffic import challenge, moves
from stages.common.release.traffic.challenge import Challenge
from stages.common.release.traffic.evidence import GUARDS, KNOWN, Rules
from stages.common.serving.challenger.conversations import Conversations, beginning
from stages.common.serving.pages import improve
from stages.common.serving.pages.answered import Answered

HALF = Rules(steps=(0.5,))


def asked(number: int, *more: str) -> list[dict[str, object]]:
    said = [message("system", "Be brief."), message("user", f"What is the capital of land {number}?")]
    return said + [message("user" if at % 2 else "assistant", text) for at, text in enumerate(more)]


def counts(canary: bool = True, idle: float = 0.0) -> Conversations:
    return Conversations(Challenge("lathe", "1", "2", "salt"), HALF, canary, idle)


def whose(known: Conversations, takes: bool) -> int:
    """Return a conversation of one of the two."""
    return next(number for number in range(99) if known.takes(asked(number)) == takes)


def test_what_people_show_counts_once_a_conversation_and_for_who_answered() -> None:
    known = counts()
    theirs, ours = whose(known, True), whose(known, False)
    for number, sign in ((theirs, "edit"), (theirs, "dislike"), (ours, "like"), (1000, "dislike")):
        known.told(asked(number, "a", "b"), sign)  # type: ignore[arg-type]
    complaint = known.release.known.faults[GUARDS.index("complaint")]
    assert complaint.tolist() == [0, 0], "of the champion"
    before = len(known.release.arms)
    assert known.close_idle()
    total, count = known.release.known.outcomes.tolist()
    assert (total, count) == (0.0 + 1.0 + 0.5 * (before - 2), before)
    assert not known.close_idle(), "nothing is new"


def test_at_most_four_compared_answers_of_a_conversation_count() -> None:
    known = counts(idle=3600.0)
    known.takes(asked(1))
    for _ in range(9):
        known.unseen(asked(1), True, False, False, 1.0)
    known.idle = 0.0
    known.close_idle()
    four = known.release.known.better_compared.tolist()
    assert four == [1.9, 1.45, 1.225, 1.1125]
    assert known.release.known.answers == 9


def test_in_shadow_nobody_is_the_challengers_also_after_a_canary() -> None:
    known = counts(canary=False)
    assert not any(known.takes(asked(number)) for number in range(20))
    assert known.figures()["share"] == 0


def test_a_slow_challenger_is_measured_by_the_champions_pace() -> None:
    known = counts()
    for _ in range(KNOWN + 20):
        known.answered(False, False, False, 0.010)
    for _ in range(30):
        known.answered(True, False, False, 0.019)
    assert not known.stopped
    while not known.stopped and known.release.known.answers < 100:
        known.answered(True, False, False, 0.030)
    assert known.stopped
    assert "guard 'slow'" in moves.reason(known.release.known, HALF, "back")
    assert not any(known.takes(asked(number)) for number in range(20)), "nobody is left with it"


def test_a_slow_challenger_is_found_before_anybody_waits_for_it() -> None:
    known = counts(canary=False)
    for _ in range(KNOWN + 1):  # the first has nothing to be compared with
        known.answered(False, False, False, 0.010)
    while not known.stopped and known.release.known.answers < 100:
        known.unseen(asked(1), True, False, False, 0.0, 0.030)
    assert "guard 'slow'" in moves.reason(known.release.known, HALF, "back")
    assert known.stopped


def test_a_state_that_is_torn_begins_anew_and_a_whole_one_goes_on(tmp_path: Path) -> None:
    place, known = tmp_path / "challenger.json", counts()
    theirs = whose(known, True)
    known.close_idle()
    known.save(place)
    again = challenge.resumed(place, "lathe", "1", "2")
    assert (again.salt, again.arms) == ("salt", known.release.arms)
    assert Conversations(again, HALF, True).takes(asked(theirs, "a", "b"))
    assert challenge.resumed(place, "lathe", "1", "3").salt != "salt"
    ended = json.loads(place.read_text()) | {"ended": "back"}
    place.write_text(json.dumps(ended))
    assert challenge.resumed(place, "lathe", "1", "2").known.conversations == 0
    place.write_text(place.read_text()[:100])
    assert challenge.resumed(place, "lathe", "1", "2").known.conversations == 0


def test_many_threads_count_everything() -> None:
    known = counts()

    def work(user: int) -> None:
        for number in range(20):
            known.takes(asked(1000 * user + number))
            known.answered(False, False, False, None)

    users = [threading.Thread(target=work, args=(user,)) for user in range(8)]
    for user in users:
        user.start()
    for user in users:
        user.join()
    known.close_idle()
    assert known.release.known.conversations == 160
    assert known.release.known.faults[0].tolist() == [0, 160]


def test_what_people_do_on_the_page_reaches_whoever_compares(tmp_path: Path) -> None:
    heard = list[tuple[str, str]]()
    page = Answered(lambda messages, sign: heard.append((beginning(messages), sign)))
    facts, store = {"model": "lathe", "version": "2", "weights_sha256": "f" * 64}, tmp_path / "page.jsonl"
    turns = [*asked(1)[1:], message("assistant", "Tarsk.")]
    page.note(asked(1), "Tarsk.", facts)
    for liked in ("Like", "Dislike", ""):
        assert improve.opinion(store, page, turns, 1, liked, "visit")
    improve.edit(store, page, turns, "It is Tarsk.", "visit")
    page.note(asked(1), "Torsk.", facts)
    assert [sign for _, sign in heard] == ["like", "dislike", "edit", "regeneration"]
    assert {conversation for conversation, _ in heard} == {beginning(asked(1))}


def test_what_could_not_be_compared_is_an_answer_and_no_tie() -> None:
    known = counts()
    known.takes(asked(1))
    for difference in (None, 1.0, None):
        known.unseen(asked(1), True, False, False, difference)
    known.unseen(asked(1), False, False, False, None)
    assert known.release.known.answers == 3
    one = known._open[beginning(asked(1))]
    assert (one.compared, one.count) == (1.0, 1)
