"""The README cannot rot, nor can docs/operate.md: their commands exist, the tree is the tree, its
length is bounded.
"""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = TEXT + (ROOT / "docs/operate.md").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def blocks() -> list[str]:
    """Return what stands between fences."""
    return re.findall(r"^```\w*\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def tree() -> list[str]:
    """Return the paths of the annotated tree."""
    text = next(block for block in blocks() if "dvc.yaml  " in block and "stages/" in block)
    found, folder = [], ""
    for line in text.splitlines():
        name = line.split()[0]
        nested = line.startswith("  ") and not line.startswith("   ")
        if not line.startswith(" "):
            folder = name if name.endswith("/") else ""
            found.append(name)
        elif nested:
            found.append(folder + name)
    return found


def test_it_is_short_enough_to_read() -> None:
    assert len(TEXT.splitlines()) <= 150


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\bmake ([a-z][a-z-]*)", COMMANDS))))
def test_every_make_command_exists(target: str) -> None:
    assert target in TARGETS


@pytest.mark.parametrize("variable", sorted(set(re.findall(r"\bmake [a-z-]+ ([A-Z_]+)=", COMMANDS))))
def test_every_variable_given_to_make_is_read_by_it(variable: str) -> None:
    assert f"$({variable})" in (ROOT / "Makefile").read_text(encoding="utf-8")


@pytest.mark.parametrize("module", sorted(set(re.findall(r"python -m ((?:flows|stages)[\w.]+\w)", COMMANDS))))
def test_every_module_that_is_run_exists(module: str) -> None:
    assert (ROOT / module.replace(".", "/")).with_suffix(".py").is_file()


@pytest.mark.parametrize("path", tree())
def test_every_path_of_the_tree_exists(path: str) -> None:
    assert (ROOT / path).exists()


def test_the_tree_names_every_folder_and_the_fixed_top_level() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    folders = {path.split("/")[0] for path in tracked if "/" in path and not path.startswith(".")}
    assert folders <= {path.split("/")[0] for path in tree()}


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:stages|flows|infra|docs|data)/[\w./-]+\w)`", TEXT))))
def test_every_file_it_names_exists_or_is_made_by_a_stage(path: str) -> None:
    made = (ROOT / "dvc.yaml").read_text(encoding="utf-8")
    assert (ROOT / path).exists() or path.split("<")[0].rstrip("/") in made or path == "stages/x.py"


@pytest.mark.parametrize("name", ["chat", "report", "version"])
def test_its_pictures_are_there_are_small_and_say_what_they_show(name: str) -> None:
    """`make pictures` makes them from the real pages."""
    file = ROOT / f"docs/images/{name}.png"
    head = file.read_bytes()[:26]
    assert head.startswith(b"\x89PNG") and file.stat().st_size <= 60 * 1024
    width, height = int.from_bytes(head[16:20]), int.from_bytes(head[20:24])
    assert width >= 1000 and height >= 500 and head[25] == 3, "an indexed palette"
    assert f"[{name}]: docs/images/{name}.png" in TEXT and re.search(rf"!\[[^]]{{20,}}\]\[{name}\]", TEXT)


def test_the_launcher_it_shows_names_a_file_there_is() -> None:
    for name in re.findall(r"infra/accelerate/[\w-]+\.yaml", TEXT):
        assert (ROOT / name).is_file()
