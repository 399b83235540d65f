"""How many models a piece of code holds at a time."""

import weakref
from typing import Any

import pytest

from stages.common.core import models


def counted(monkeypatch: pytest.MonkeyPatch, *known: Any) -> list[int]:
    """Return a list that gains, at each `models.read`, how many of the models that are `known` or
    were read before are still held.
    """
    alive, counts, read = [weakref.ref(one) for one in known], [], models.read

    def counting(*given: Any, **named: Any) -> Any:
        counts.append(sum(one() is not None for one in alive))
        made = read(*given, **named)
        alive.append(weakref.ref(made))
        return made

    monkeypatch.setattr(models, "read", counting)
    return counts
