"""Take a profile as params.yaml: show what changes, and keep the file that was there.

Command: python -m flows.cli.profile own-text
"""

import difflib
from pathlib import Path
from typing import Annotated

import typer

from stages.common.core import params
from stages.common.core.params import PARAMS_FILE
from stages.common.runtime import logs, process
from stages.common.runtime.errors import ParamsError

FOLDER = Path("infra/profiles")
BEFORE = Path(".lathe/params.before.yaml")


def main(name: Annotated[str, typer.Argument(help="a file of infra/profiles, without .yaml")]) -> None:
    """Take a profile."""
    file = FOLDER / f"{name}.yaml"
    known = sorted(one.stem for one in FOLDER.glob("*.yaml"))
    if name not in known:
        what = f"no profile '{name}'{params.suggestion(name, known)}; there are: {', '.join(known)}"
        raise ParamsError(what, where=FOLDER, remedy="lathe profile own-text")
    old, new = (one.read_text(encoding="utf-8") if one.is_file() else "" for one in (PARAMS_FILE, file))
    if old == new:
        logs.report(f"{PARAMS_FILE} is that profile already")
        return
    print("\n".join(difflib.unified_diff(old.splitlines(), new.splitlines(), str(PARAMS_FILE), str(file), lineterm="")))
    if old:
        BEFORE.parent.mkdir(exist_ok=True)
        BEFORE.write_text(old, encoding="utf-8")
    PARAMS_FILE.write_text(new, encoding="utf-8")
    logs.report(f"{PARAMS_FILE} replaced; the one before: {BEFORE}")


if __name__ == "__main__":
    process.run("profile", main, again="lathe profile …")
