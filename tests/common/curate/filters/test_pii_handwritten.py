"""Lines written by hand, with personal data and with what only looks like it."""

from collections import Counter
from pathlib import Path

import pytest

from stages.common.curate.filters.pii import scrub


def test_handwritten_lines(capsys: pytest.CaptureFixture[str]) -> None:
    file = Path(__file__).with_name("handwritten_pii.txt")
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line[:2] in ("+ ", "- ")]
    found = Counter((line[0], bool(scrub(line[2:].replace("\\n", "\n"))[1])) for line in lines)
    recall = found["+", True] / (found["+", True] + found["+", False])
    precision = found["+", True] / (found["+", True] + found["-", True])
    with capsys.disabled():
        print(f"\n{len(lines)} handwritten lines: recall {recall:.3f}, precision {precision:.3f}", end=" ")
    assert len(lines) >= 200
    assert recall >= 0.95 and precision >= 0.95
