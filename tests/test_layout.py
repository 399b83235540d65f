"""The house: layers that import downwards only, no circles, no crowd of small files, no file beyond
a sitting.
"""

import ast
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import networkx

ROOT = Path(__file__).parent.parent
SHORT, LONG = 60, 250


def modules() -> dict[str, Path]:
    """Return the project's modules by dotted name; a package by its own."""
    found = {}
    for top in ("stages", "flows"):
        for path in sorted((ROOT / top).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(path: Path) -> set[str]:
    """Return the project's modules that a file names in import statements."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else node.module for name in names}
    return found & set(MODULES)


GRAPH = networkx.DiGraph([(name, other) for name, path in MODULES.items() for other in imports(path) if other != name])


def package(module: str) -> str:
    """Return the package of stages/common or flows that a module lies in, else its top."""
    parts = module.split(".")
    return parts[2] if parts[:2] == ["stages", "common"] and len(parts) > 3 else parts[0]


def test_no_module_imports_one_that_imports_it() -> None:
    assert [sorted(circle) for circle in networkx.strongly_connected_components(GRAPH) if len(circle) > 1] == []


def test_no_two_packages_import_each_other() -> None:
    between = networkx.DiGraph([(package(one), package(other)) for one, other in GRAPH.edges])
    between.remove_edges_from(networkx.selfloop_edges(between))
    assert [sorted(circle) for circle in networkx.strongly_connected_components(between) if len(circle) > 1] == []


def test_what_stages_share_imports_no_stage_and_no_flow() -> None:
    shared = [(one, other) for one, other in GRAPH.edges if one.startswith("stages.common")]
    assert [pair for pair in shared if not pair[1].startswith("stages.common")] == []


def test_layers_import_downwards_only() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_a_short_module_has_more_than_one_importer() -> None:
    lonely = [
        name
        for name, path in MODULES.items()
        if path.name != "__init__.py"
        and len(path.read_text(encoding="utf-8").splitlines()) < SHORT
        and name in GRAPH
        and GRAPH.in_degree(name) == 1
    ]
    assert lonely == [], "merge it into its importer"


def test_no_file_is_longer_than_a_sitting() -> None:
    files = [path for top in ("stages", "flows", "tests", "bench") for path in (ROOT / top).rglob("*.py")]
    long = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert {name: lines for name, lines in long.items() if lines > LONG} == {}


def test_a_folder_of_code_holds_no_crowd() -> None:
    counts: dict[Path, int] = defaultdict(int)
    for path in MODULES.values():
        if path.name != "__init__.py" and path.parent != ROOT / "stages":
            counts[path.parent.relative_to(ROOT)] += 1
    assert {str(folder): count for folder, count in counts.items() if count > 12} == {}


def test_every_file_of_code_that_a_text_names_is_there() -> None:
    code = [path for top in ("stages", "flows", "bench") for path in (ROOT / top).rglob("*.py")]
    there = ["/" + path.relative_to(ROOT).as_posix() for path in [*code, *(ROOT / "tests").rglob("*.py")]]
    named = [
        (text.relative_to(ROOT).as_posix(), name)
        for text in [*code, *ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
        for name in re.findall(r"`([a-z_/]+\.py)`", text.read_text(encoding="utf-8"))
    ]
    assert len(named) > 20
    wrong = [one for one in named if one[1] != "stages/x.py" and not any(file.endswith("/" + one[1]) for file in there)]
    assert wrong == []
