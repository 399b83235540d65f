"""Code deps of dvc.yaml: the exact modules each stage imports, found in the source.

`python -m flows.code_deps` writes them into dvc.yaml; a test holds them equal. Observers (stages/common/__init__.py)
are left out: what only watches a stage must not retrain it.
"""

import ast
from pathlib import Path
from typing import Annotated, Any

import typer

from stages.common import OBSERVERS


def imported(file: Path, root: Path) -> set[Path]:
    """Return the project's own modules that `file` names in import statements, at any depth of its functions."""
    found: set[Path] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        found |= {path for name in names if (path := root / f"{name.replace('.', '/')}.py").is_file()}
    return found


def closure(stage: str, root: Path) -> list[str]:
    """Return the stage's file and every module it imports, directly or through another, observers left out."""
    start = root / "stages" / f"{stage}.py"
    found, front = {start}, [start]
    while front:
        new = {path for path in imported(front.pop(), root) if path.stem not in OBSERVERS} - found
        found |= new
        front.extend(new)
    return sorted(str(path.relative_to(root)) for path in found)


def entry(stage: dict[str, Any]) -> dict[str, Any]:
    """Return the mapping that has cmd and deps: the stage itself, or the `do` of a foreach."""
    return stage.get("do", stage)


def declared(stage: dict[str, Any]) -> list[str]:
    """Return the Python files among a stage's deps."""
    return sorted(str(dep) for dep in entry(stage).get("deps", []) if str(dep).endswith(".py"))


def main(file: Annotated[Path, typer.Argument(help="the pipeline")] = Path("dvc.yaml")) -> None:
    """Write each stage's code deps into dvc.yaml, leaving all else as it is."""
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    document = yaml.load(file.read_text(encoding="utf-8"))
    for name, stage in document["stages"].items():
        block = entry(stage)
        data = [dep for dep in block.get("deps", []) if not str(dep).endswith(".py")]
        deps = block.setdefault("deps", [])
        deps[:] = [*closure(name, file.resolve().parent), *data]
    with file.open("w", encoding="utf-8") as handle:
        yaml.dump(document, handle)


if __name__ == "__main__":
    typer.run(main)
