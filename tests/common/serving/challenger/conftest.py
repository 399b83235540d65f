"""A champion with a challenger beside it, both tiny, in a registry of their own."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stages.common.release import promotion_history, registry
from stages.common.release.traffic import challenge
from stages.common.serving.challenger.contested import Contested
from tests.common.serving.conftest import Registered
from tests.support.registered import NAME

Make = Callable[..., Contested]


@pytest.fixture
def contested(registered: Registered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Make a server's champions: version 1, and version 2 as challenger. A conversation is over
    when it is looked at.
    """
    client = registered.client
    first, second = (registry.numbered(client, NAME, one.number) for one in registered.versions)
    monkeypatch.setattr(promotion_history, "HISTORY", tmp_path / "promotions.jsonl")
    registry.tag(client, first, {"gate": "passed"})
    registry.tag(client, second, {"gate": "passed", challenge.TAG: "", "review": "", "rolled_back": ""})
    registry.point(client, registry.CHAMPION, first)
    registry.point(client, registry.CHALLENGER, second)
    made: list[Contested] = []

    def make(**more: Any) -> Contested:
        fields: dict[str, Any] = {
            "mode": "canary",
            "idle": 0.0,
            "state": tmp_path / "challenger.json",
        } | more
        made.append(Contested(NAME, rows=8, waiting=64, client=client, **fields))
        return made[-1]

    yield make
    for one in made:
        one.close()
    registry.point(client, registry.CHAMPION, first)
    registry.point(client, registry.CHALLENGER, first)
