"""What a promotion's report says to those who deploy."""

from pathlib import Path

import pytest

from stages.common.release import promoted
from stages.common.release.promoted import Promotion
from stages.common.runtime.errors import DataError, ParamsError


def test_the_name_to_serve_comes_from_the_promotion_s_params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    params = Path("params.yaml")
    params.write_text("promote: {name: lathe}\n")
    assert promoted.registered_name() == "lathe"
    params.write_text("deploy:\n  canned: [hello]\n")
    with pytest.raises(ParamsError, match=r"missing key 'promote\.name'"):
        promoted.registered_name()


def test_other_weights_than_the_report_s_are_refused_by_both_their_hashes() -> None:
    said = Promotion(name="lathe", champion_sha256="a" * 64, decision="promoted", weights_sha256="a" * 64, reason="")
    said.check("a" * 64, Path("promote.json"))
    with pytest.raises(DataError, match=r"a{12} here and b{12} in the registry"):
        said.check("b" * 64, Path("promote.json"))
