"""What params.yaml says of a challenger."""

from typing import Any

import pytest
from pydantic import ValidationError

from stages import deploy
from stages.common.release.traffic import evidence
from stages.common.runtime.errors import ParamsError
from stages.common.serving.challenger.contested import Contested
from tests.common.serving.challenger.conftest import Make


def settings(**more: Any) -> deploy.Params:
    return deploy.Params(canned=["a"], answers_at_once=1, **more)


def test_a_challenger_is_followed_where_params_say_so_and_not_beside_a_backend(contested: Make) -> None:
    plain = deploy.following("lathe", settings())
    tried = deploy.following("lathe", settings(challenger={"mode": "canary", "compared": 0.5}))
    assert [isinstance(one, Contested) for one in (plain, tried)] == [False, True]
    assert isinstance(tried, Contested)
    assert (tried.mode, tried.approval, tried.compared, tried.challenger) == ("canary", "manual", 0.5, "2")
    assert all(one.close() for one in (plain, tried))
    with pytest.raises(ParamsError, match="a challenger needs the weights here"):
        deploy.following("lathe", settings(challenger={"mode": "shadow"}), "http://127.0.0.1:1/v1")


def test_a_share_of_compared_questions_is_a_share() -> None:
    with pytest.raises(ValidationError):
        settings(challenger={"compared": 1.5})
    assert not evidence.rules(0.0).compares
    assert sum(evidence.rules(0.0).weights) == pytest.approx(1.0)
