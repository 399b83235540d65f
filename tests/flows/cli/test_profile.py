"""A profile taken as params.yaml."""

from pathlib import Path

import pytest

from flows.cli import profile
from stages.common.runtime.errors import ParamsError


def test_a_profile_shows_the_difference_and_keeps_what_was_there(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    monkeypatch.chdir(tmp_path)
    profile.FOLDER.mkdir(parents=True)
    (profile.FOLDER / "own.yaml").write_text("run: 2\n")
    Path("params.yaml").write_text("run: 1\n")
    profile.main("own")
    assert "-run: 1\n+run: 2\n" in capsys.readouterr().out
    assert Path("params.yaml").read_text() == "run: 2\n" and profile.BEFORE.read_text() == "run: 1\n"
    profile.main("own")
    assert "is that profile already" in caplog.text
    assert profile.BEFORE.read_text() == "run: 1\n"
    with pytest.raises(ParamsError, match=r"no profile 'onw', did you mean 'own'\?; there are: own; lathe profile"):
        profile.main("onw")
