"""The prose of the project is read side by side with code: lines stay within 100 characters."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CHARACTERS = 100
FILES = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
ONE_LINK = re.compile(r"(?:[-*] )?(?:\[[^\]]*\](?:\([^)]*\)|: ?\S+)|<?https?://\S+>?)[.,;]?")


def prose(text: str) -> Iterator[tuple[int, str]]:
    """Yield number and text of the lines outside code blocks that are no table row and not one
    link.
    """
    fenced = False
    for number, line in enumerate(text.splitlines(), start=1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced and not line.startswith("|") and not ONE_LINK.fullmatch(line.strip()):
            yield number, line


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_lines_of_prose_are_short(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert [number for number, line in prose(text) if len(line) > CHARACTERS] == []


def test_tables_code_and_links_may_be_longer_and_prose_around_them_may_not() -> None:
    long = "x" * CHARACTERS
    text = f"{long}\n| {long} |\n```\n{long}y\n```\n[a](https://{long})\na [b](https://{long})\n{long}y\n"
    assert [number for number, line in prose(text) if len(line) > CHARACTERS] == [7, 8]
