"""Many architectures, tiny and random: each works as transformers does, falls back or is refused;
docs tell which.
"""

from pathlib import Path

import pytest

from tests.support import architecture_table
from tests.support.architecture_table import COLUMNS
from tests.support.architectures import MADE

QUICK = {
    "llama": "decoding",
    "mistral, sliding window": "shared prompt",
    "llama, dynamic RoPE": "reading rows",
    "granite": "reward head",
    "qwen3_next": "decoding",
}


def written() -> list[str]:
    """Return the lines of the table in the docs."""
    text = architecture_table.DOCUMENT.read_text(encoding="utf-8")
    return text.split(architecture_table.BEGIN)[1].split(architecture_table.END)[0].splitlines(keepends=True)


def test_the_docs_have_a_line_for_every_architecture() -> None:
    assert [line.split("|")[1].strip() for line in written()[2:]] == list(MADE)
    assert written()[:2] == architecture_table.head()


@pytest.mark.parametrize(("name", "column"), QUICK.items())
def test_a_few_cells_of_the_table(name: str, column: str) -> None:
    cells = dict(zip(COLUMNS, written()[2 + list(MADE).index(name)].split("|")[2:-1], strict=True))
    assert cells[column].strip() == architecture_table.cell(name, column)


@pytest.mark.slow
@pytest.mark.parametrize("name", MADE)
def test_the_table_in_the_docs_is_the_one_made_here(name: str, tmp_path: Path) -> None:
    remedy = "write it anew: python -m tests.support.architecture_table"
    assert written()[2 + list(MADE).index(name)] == architecture_table.line(name), remedy
