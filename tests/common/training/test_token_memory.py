"""A preparation's memory does not grow with its data."""

from pathlib import Path

import pytest

from tests.support import token_peak

FEW = 1_500


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["sft", "reward", "dpo"])
def test_ten_times_the_records_take_the_same_memory(tmp_path: Path, stage: str) -> None:
    few, rows = token_peak.measured(stage, FEW, tmp_path / "few")
    assert rows == FEW
    many, rows = token_peak.measured(stage, 10 * FEW, tmp_path / "many")
    assert rows == 10 * FEW
    assert many < 1.2 * few, (few, many)
