"""The code that a stage can reach: every module of this project that its file imports, at any depth
of its functions, directly or through another. It is read in the source, so it does not depend on
what has been imported already.

Packages in `OBSERVERS` watch a stage and never shape what it writes; the closure stops at them.
"""

import ast
import hashlib
from functools import cache
from pathlib import Path

from stages.common.core.models import file_sha256

ROOT = Path(__file__).parents[3]
COMMON = Path("stages/common")
OBSERVERS = frozenset({"runtime", "tracking", "memory"})
"""Packages of stages/common whose code no model depends on: a change there re-runs nothing."""


def closure(stage: str, root: Path = ROOT) -> list[Path]:
    """Return the stage's file and all it imports, below `root` and in order; observers are left
    out.
    """
    start = Path(f"stages/{stage}.py")
    found, front = {start}, [start]
    while front:
        new = {path for path in imported(root / front.pop(), root) if package(path) not in OBSERVERS} - found
        found |= new
        front.extend(new)
    return sorted(found)


def packages(stage: str, root: Path = ROOT) -> list[str]:
    """Return what dvc.yaml names as the stage's code: files in stages/, its own first, and packages
    of stages/common.

    A stage has another's file in its closure where it runs that as a process of its own.
    """
    code = closure(stage, root)
    own = Path(f"stages/{stage}.py")
    files = sorted(path for path in code if path.parent == own.parent and path != own)
    return [str(path) for path in (own, *files)] + sorted(
        {f"{COMMON}/{name}" for path in code if (name := package(path))}
    )


def digest(stage: str, root: Path = ROOT) -> str:
    """Return the SHA-256 of the stage's closure: paths and contents."""
    code = closure(stage, root)
    return hashlib.sha256("".join(f"{path} {file_sha256(root / path)}\n" for path in code).encode()).hexdigest()


def package(path: Path) -> str:
    """Return the package of stages/common that a file belongs to, "" for others."""
    return path.relative_to(COMMON).parts[0] if path.is_relative_to(COMMON) else ""


@cache
def imported(file: Path, root: Path) -> frozenset[Path]:
    """Return the project's own modules that `file` names in import statements, at any depth of its
    functions.

    Packages' own files are among them where they hold anything; those of types alone count too.
    """
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    places = [Path(name.replace(".", "/")) for name in names if name.split(".")[0] == "stages"]
    files = [path for place in places for path in (place.with_suffix(".py"), place / "__init__.py")]
    return frozenset(path for path in files if (root / path).is_file() and (root / path).stat().st_size)
