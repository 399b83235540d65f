"""Work shared among processes: results in order, one error for all, and no waiting for one that has
ended.
"""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import accelerate.utils
import pytest

from stages.common.core.left_out import LackError
from stages.common.runtime import process, ranks
from stages.common.runtime.errors import DataError, StopRequested, TryAgainError


def doubled(mine: Iterator[int]) -> Iterator[int]:
    return (2 * one for one in mine)


def other(monkeypatch: pytest.MonkeyPatch, *sent: Any, rank: int = 0) -> list[Any]:
    """Make this process one of several, whose others have sent this; return what this one sends."""
    given: list[Any] = []

    def gather(mine: list[Any]) -> list[Any]:
        given.extend(mine)
        return [*sent[:rank], *mine, *sent[rank:]]

    monkeypatch.setenv("WORLD_SIZE", str(1 + len(sent)))
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setenv("LOCAL_RANK", str(rank))
    monkeypatch.setattr(ranks, "_joined", lambda: SimpleNamespace(process_index=rank, device="cpu"))
    monkeypatch.setattr(accelerate.utils, "gather_object", gather)
    return given


def test_one_process_does_all_and_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "_joined", lambda: pytest.fail("no other process is there"))
    assert ranks.shared(iter([1, 2, 3]), doubled) == [2, 4, 6]
    assert ranks.once(lambda: 5) == 5


def test_a_cluster_that_counts_its_jobs_has_started_no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert ranks.count() == 1
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert ranks.count() == 4


def test_each_takes_every_nth_piece_and_all_get_all(monkeypatch: pytest.MonkeyPatch) -> None:
    given = other(monkeypatch, ([20, 50], None), ([30, 60], None))
    assert ranks.shared(iter([1, 2, 3, 4, 5, 6, 7]), doubled) == [2, 20, 30, 8, 50, 60, 14]
    assert given == [([2, 8, 14], None)]
    given = other(monkeypatch, ([10], None), rank=1)
    assert ranks.shared([7], doubled) == [10]
    assert given == [([], None)]


def test_the_main_process_alone_does_what_is_done_once(monkeypatch: pytest.MonkeyPatch) -> None:
    other(monkeypatch, ("theirs", None), rank=1)
    assert ranks.once(lambda: pytest.fail("not the main process")) == "theirs"


def test_what_one_process_raises_all_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    lack = LackError("nothing there", where="x", remedy="bring some")
    other(monkeypatch, (None, lack))
    with pytest.raises(LackError, match="x: nothing there; bring some"):
        ranks.shared([1, 2], doubled)
    given = other(monkeypatch, ([2], None), rank=1)
    with pytest.raises(ZeroDivisionError):
        ranks.shared([1, 2], lambda mine: [1 // 0 for _ in mine])
    assert [str(error) for _, error in given] == ["ZeroDivisionError: integer division or modulo by zero"]


def test_a_process_that_has_ended_is_a_reason_to_try_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(_: Any) -> Any:
        raise RuntimeError("Connection closed by peer")

    other(monkeypatch, ([], None))
    monkeypatch.setattr(accelerate.utils, "gather_object", gone)
    with pytest.raises(TryAgainError, match="another process of this stage has ended"):
        ranks.shared([1], doubled)
    with pytest.raises(DataError, match="mine"):
        ranks.once(lambda: (_ for _ in ()).throw(DataError("mine")))
    monkeypatch.setattr(process, "stop_requested", lambda: True)
    with pytest.raises(StopRequested):
        ranks.shared([1], doubled)
