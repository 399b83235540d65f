"""The documentation: a site that builds strictly, pages that are found, links that lead on."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(page.name for page in DOCS.glob("*.md"))
OUTSIDE = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    """A dead link or anchor is one."""
    command = [sys.executable, "-m", "mkdocs", "build", "-q", "-f", "infra/mkdocs.yml", "-d", str(tmp_path / "site")]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "site/index.html").is_file()


@pytest.mark.parametrize("page", PAGES)
def test_every_page_is_in_the_index_and_in_the_menu(page: str) -> None:
    assert page == "index.md" or f"({page})" in (DOCS / "index.md").read_text(encoding="utf-8")
    assert re.search(rf"\b{re.escape(page)}\b", (ROOT / "infra/mkdocs.yml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("file", OUTSIDE, ids=lambda file: file.name)
def test_links_of_pages_outside_the_site_lead_somewhere(file: Path) -> None:
    links = re.findall(r"\]\((?!https?://)([^)#]+)", file.read_text(encoding="utf-8"))
    assert [link for link in links if not (file.parent / link).exists()] == []


def test_every_benchmark_is_on_its_page_and_every_one_there_exists() -> None:
    runs = {file.stem for file in (ROOT / "bench").glob("*.py") if '__name__ == "__main__"' in file.read_text("utf-8")}
    named = set(re.findall(r"python -m bench\.(\w+)", (DOCS / "benchmarks.md").read_text(encoding="utf-8")))
    assert runs == named


def test_the_sections_of_the_log_that_benchmarks_name_are_there() -> None:
    sections = re.findall(r"^## (.+)$", (DOCS / "log.md").read_text(encoding="utf-8"), re.MULTILINE)
    rows = re.findall(r"^\| `.*\| (\S.*?) +\|$", (DOCS / "benchmarks.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert rows and all(any(section.startswith(row) for section in sections) for row in rows)
