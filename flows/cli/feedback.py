"""What people said on the pages, as raw data under DVC: the next `dvc repro` reads it through
ingest and curate.

Reads every store of feedback/, writes data/raw/feedback/{comparisons,conversations,labelled}.jsonl
and its pointer data/raw/feedback.dvc. The same stores give the same bytes. Command: python -m
flows.cli.feedback
"""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from stages.common.annotation import feedback, feedback_export
from stages.common.annotation.feedback import Line
from stages.common.annotation.feedback_export import Exported
from stages.common.core.records import Record
from stages.common.runtime.errors import DataError, StageError

STORES, OUT = Path("feedback"), Path("data/raw/feedback")
KINDS = {"ranking": "rankings", "edit": "edited answers", "opinion": "likes and dislikes", "demonstration": "written"}
KINDS |= {"vote": "votes"}


def lines(stores: Path, broken: list[str]) -> Iterator[Line]:
    """Yield what every store says, in the order of their names; lines that say nothing go to
    `broken` with a reason.

    Raises DataError when there is no store.
    """
    files = sorted(stores.glob("*.jsonl"))
    if not files:
        raise DataError("nobody has said anything yet", where=stores, remedy="make serve, then like, rank or edit")
    for file in files:
        for number, line in feedback.entries(file):
            if isinstance(line, str):
                broken.append(f"{file}:{number}: {line}")
            else:
                yield line


def write(exported: Exported, out: Path) -> bool:
    """Write the files and return whether one has changed; a folder that is not there is made only
    for records.
    """
    shapes: dict[str, Sequence[Record]] = {
        "comparisons": exported.comparisons,
        "conversations": exported.conversations,
        "labelled": exported.labelled,
    }
    changed = False
    for shape, records in shapes.items():
        file = out / f"{shape}.jsonl"
        data = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in records).encode()
        if data != (file.read_bytes() if file.exists() else b""):
            out.mkdir(parents=True, exist_ok=True)
            temporary = file.with_name(f".{file.name}.writing")
            temporary.write_bytes(data)
            os.replace(temporary, file)
            changed = True
    return changed


def version(out: Path) -> None:
    """Let DVC store the folder and write its pointer. Raises DataError with what DVC says."""
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", "add", "--quiet", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        what = (done.stderr.strip() or done.stdout.strip() or "without a word").splitlines()[-1]
        raise DataError(f"dvc add failed: {what}", where=out, remedy="the files are written; `dvc add` them")


def summary(exported: Exported, broken: Sequence[str], out: Path) -> str:
    """Return what was exported and what was left out, with the reasons."""
    made = f"{len(exported.comparisons):,} comparisons, {len(exported.conversations):,} conversations"
    made += f" and {len(exported.labelled):,} labelled answers"
    given = ", ".join(f"{exported.taken[kind]:,} {name}" for kind, name in KINDS.items() if exported.taken[kind])
    said = [f"{made} in {out}, from {given or 'nothing'}"]
    left_out = Counter(exported.left_out) + Counter({"broken lines": len(broken)})
    said += [f"  no pair   {count:,}  {reason}" for reason, count in sorted(exported.no_pair.items())]
    said += [f"  left out  {count:,}  {reason}" for reason, count in sorted(left_out.items())]
    return "\n".join([*said, *(f"  broken    {line}" for line in broken)])


def main(
    stores: Annotated[Path, typer.Option(help="folder of the stores")] = STORES,
    out: Annotated[Path, typer.Option(help="folder of the raw records")] = OUT,
) -> None:
    """Export the feedback and put it under DVC."""
    try:
        broken: list[str] = []
        exported = feedback_export.export(lines(stores, broken))
        changed = write(exported, out)
        print(f"lathe: {summary(exported, broken, out)}")
        if not out.exists():
            return
        version(out)
    except StageError as error:
        print(f"lathe: {error}", file=sys.stderr, flush=True)
        raise SystemExit(error.code) from error
    print(f"lathe: {'changed' if changed else 'as it was'}; keep it: git add {out}.dvc; use it: dvc repro")


if __name__ == "__main__":
    typer.run(main)
