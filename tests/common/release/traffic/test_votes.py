"""Votes on a version: counted for each that it was compared with, with exact intervals, on its
card once.
"""

import pytest

from stages.common.release.registry import Version
from stages.common.release.traffic import votes
from stages.common.release.traffic.votes import BEGINS, Cast, Outcome, Tally
from stages.common.runtime.errors import DataError

CARD = "# dpo: pending\n\n**accuracy/iid 90.0%**: it beats the base.\n\n| a | table |\n\n## The gate\n\nmore\n"


def cast(who: str, outcome: Outcome, against: str = "1", counted: bool = False) -> Cast:
    return Cast(who, against, outcome, counted)


def tally(won: int, lost: int, ties: int = 0, both_bad: int = 0, **more: int | str) -> Tally:
    fields = {"against": "1", "reviewers": 2, "counted": 0} | more
    return Tally.model_validate(fields | {"won": won, "lost": lost, "ties": ties, "both_bad": both_bad})


def version(tag: str) -> Version:
    return Version("lathe", "2", "", {votes.TAG: tag})


@pytest.mark.parametrize(
    ("won", "lost", "low", "high", "p"),
    [
        # 0.025^(1/10), and 2 / 2^10
        (10, 0, 0.6915029, 1.0, 0.001953125),
        (0, 10, 0.0, 0.3084971, 0.001953125),
        # Clopper & Pearson's tables: 7 of 10; 2 (120 + 45 + 10 + 1) / 1024
        (7, 3, 0.3475471, 0.9332605, 0.34375),
        # 1 of 2: sqrt(0.025) is 0.1581139; 1 - (1 - p)^2 = 0.025 at 0.0125791
        (1, 1, 0.0125791, 0.9874209, 1.0),
        (1, 0, 0.025, 1.0, 1.0),
    ],
)
def test_the_interval_and_the_test_are_exact(won: int, lost: int, low: float, high: float, p: float) -> None:
    assert votes.clopper_pearson(won, won + lost) == pytest.approx((low, high), abs=1e-7)
    assert tally(won, lost).p == p


def test_nothing_decided_says_nothing_of_who_is_better() -> None:
    assert votes.clopper_pearson(0, 0) == (0.0, 1.0)
    assert tally(0, 0, ties=3).p == 1.0
    assert "None of them prefers one." in str(tally(0, 0, ties=3))


def test_votes_are_counted_for_each_version_it_was_compared_with() -> None:
    found = votes.tallies(
        [
            cast("ann", "won"), cast("ann", "won", counted=True), cast("bob", "lost", counted=True),
            cast("bob", "tie"), cast("cid", "both bad"), cast("ann", "lost", "10"), cast("ann", "lost", "9"),
        ]
    )  # fmt: skip
    assert [one.against for one in found] == ["1", "9", "10"]
    assert found[0] == tally(2, 1, 1, 1, reviewers=3, counted=2)
    assert found[1] == tally(0, 1, against="9", reviewers=1)
    assert [one.votes for one in found] == [5, 1, 1]
    assert votes.tallies([]) == []


def test_what_is_said_has_every_figure_and_whether_it_was_used() -> None:
    assert str(tally(7, 3, 2, 1, counted=4)) == (
        "Side by side with version 1, blind: won 7, lost 3, ties 2, both bad 1, by 2 reviewers. It wins 70.0% "
        "[34.8%, 93.3%] of the 10 that prefer one (exact 95 % interval; sign test p = 0.34). The gate did not use "
        "them; 4 of 13 were ranks in a release by traffic."
    )
    assert "by 1 reviewer." in str(tally(1, 0, reviewers=1))


def test_a_card_says_it_once_below_the_decision_and_is_else_as_it_was() -> None:
    assert votes.on_card(CARD, []) == CARD
    first = votes.on_card(CARD, [tally(1, 0)])
    again = votes.on_card(first, [tally(7, 3), tally(0, 1, against="9")])
    assert again.count(BEGINS) == 2 and "won 1," not in again
    assert votes.on_card(again, []) == CARD
    assert again.index("it beats the base") < again.index("won 7") < again.index("| a | table |")


def test_a_tag_that_somebody_wrote_by_hand_is_an_error_and_none_is_no_votes() -> None:
    assert votes.of(None) == [] == votes.of(version(""))
    assert votes.of(version('[{"against":"1","won":1,"lost":0,"ties":0,"both_bad":0,"reviewers":1,"counted":0}]'))
    for tag in ("many", '[{"won": 1}]', '{"against": "<script>"}', "[1]"):
        with pytest.raises(DataError, match="its tag `votes` is not what the server writes"):
            votes.of(version(tag))
