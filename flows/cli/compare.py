"""Two commits side by side as one Markdown page: what people compare, the gate's verdict, changed
params and stages, and the curves. For a pull request, or for oneself before a commit.

It reads git, dvc.lock and DVC's cache, runs nothing and asks no server.
Command: python -m flows.cli.compare main [--now HEAD] [--out compare.md]; `make compare BASE=main`
"""

import csv
import io
import json
import math
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated

import typer
from ruamel.yaml import YAML

from flows import pipeline
from flows.cli import summary
from flows.local.work_tree import git
from stages.common.core import params
from stages.common.release import provenance
from stages.common.runtime.errors import DataError, StageError

METRICS, VERDICT = "reports/metrics/", "reports/promote.json"
LOCK = "dvc.lock"


@dataclass(frozen=True)
class Side:
    """One of the two: a commit, or the working folder (no commit)."""

    commit: str
    cache: Path

    @property
    def name(self) -> str:
        """Return what the page calls it."""
        return git("rev-parse", "--short", self.commit) if self.commit else "working folder"

    def text(self, path: str) -> str:
        """Return a file that git knows, empty where it is not there."""
        if not self.commit:
            return Path(path).read_text(encoding="utf-8") if Path(path).exists() else ""
        done = subprocess.run(["git", "show", f"{self.commit}:{path}"], capture_output=True, text=True, check=False)
        return done.stdout if done.returncode == 0 else ""

    @cached_property
    def outs(self) -> dict[str, tuple[str, str]]:
        """Every out in dvc.lock: its stage and its hash."""
        lock = YAML(typ="safe").load(self.text(LOCK)) or {}
        return {
            out["path"]: (name, str(out.get("md5", "")))
            for name, stage in (lock.get("stages") or {}).items()
            for out in stage.get("outs", [])
        }

    def out(self, path: str) -> str | None:
        """Return a stage's file; None where dvc.lock or the cache has it not."""
        _, md5 = self.outs.get(path, ("", ""))
        file = self.cache / "files/md5" / md5[:2] / md5[2:]
        return file.read_text(encoding="utf-8") if md5 and file.is_file() else None

    def figures(self) -> dict[tuple[str, str], float]:
        """Return what people compare, by stage and name."""
        found: dict[tuple[str, str], float] = {}
        for path, (stage, _) in self.outs.items():
            if path.startswith(METRICS) and (text := self.out(path)):
                found |= {(stage, name): float(value) for name, value in json.loads(text).items()}
        return found


def page(base: Side, now: Side) -> str:
    """Return the whole page."""
    parts = [
        f"# {now.name} against {base.name}",
        verdicts(base, now),
        "## Figures\n\n" + figures(base, now),
        "## Params\n\n" + changed_params(base, now),
        "## Stages whose outs differ\n\n" + (", ".join(differing(base, now)) or "none"),
        "## Curves\n\n" + curves(base, now),
    ]
    absent = sorted({stage for side in (base, now) for path, (stage, _) in side.outs.items() if _lacks(side, path)})
    if absent:
        parts.append(f"Not in the cache here (`dvc fetch` at that commit): {', '.join(absent)}")
    return "\n\n".join(parts) + "\n"


def verdicts(base: Side, now: Side) -> str:
    """Return what the gate said at either side."""
    rows = ["| | candidate | gate | why |", "|---|---|---|---|"]
    for side in (base, now):
        said = json.loads(side.out(VERDICT) or "{}")
        told = [str(said.get(key, "")) for key in ("candidate", "decision", "reason")]
        rows.append(f"| {side.name} | " + " | ".join(map(summary.cell, told)) + " |")
    return "\n".join(rows)


def figures(base: Side, now: Side) -> str:
    """Return the figures that differ, those of one side alone too."""
    before, after = base.figures(), now.figures()
    keys = [key for key in dict.fromkeys([*after, *before]) if before.get(key) != after.get(key)]
    rows = ["| stage | figure | before | now | change |", "|---|---|---|---|---|"]
    for stage, name in keys:
        old, new = before.get((stage, name)), after.get((stage, name))
        change = "" if old is None or new is None else f"{new - old:+,.4g}"
        rows.append(f"| {stage} | {name} | {_number(old)} | {_number(new)} | {change} |")
    same = len({*before, *after}) - len(keys)
    return "\n".join([*rows, "", f"{same} figures are the same."]) if keys else f"All {same} figures are the same."


def changed_params(base: Side, now: Side) -> str:
    """Return the keys of params.yaml that differ."""
    before, after = (YAML(typ="safe").load(side.text(str(params.PARAMS_FILE))) or {} for side in (base, now))
    rows = [
        f"| {key} | {summary.cell(old)} | {summary.cell(new)} |" for key, old, new in provenance.changed(before, after)
    ]
    return "\n".join(["| key | before | now |", "|---|---|---|", *rows]) if rows else "the same"


def differing(base: Side, now: Side) -> list[str]:
    """Return the stages of which an out is not the same, in the pipeline's order."""
    paths = dict.fromkeys([*now.outs, *base.outs])
    found = {(now.outs.get(path) or base.outs[path])[0] for path in paths if _md5(now, path) != _md5(base, path)}
    return [
        name for name in dict.fromkeys(stage for stage, _ in [*now.outs.values(), *base.outs.values()]) if name in found
    ]


def curves(base: Side, now: Side) -> str:
    """Return the plots with numbers over steps, of those that differ both sides."""
    rows = ["| curve | before | now |", "|---|---|---|"]
    for path, column in _columns():
        if _md5(base, path) != _md5(now, path):
            lines = [summary.sparkline(_values(side.out(path), column)) for side in (base, now)]
            if any(lines):
                rows.append(f"| {path}: {column} | {lines[0]} | {lines[1]} |")
    return "\n".join(rows) if len(rows) > 2 else "none differs"


def _columns() -> Iterator[tuple[str, str]]:
    for stage in pipeline.load():
        yield from stage.curves.items()


def _values(text: str | None, column: str) -> Sequence[float]:
    return summary.numbers(csv.DictReader(io.StringIO(text or "")), column)


def _lacks(side: Side, path: str) -> bool:
    return path.startswith((METRICS, VERDICT)) and side.out(path) is None


def _md5(side: Side, path: str) -> str:
    return side.outs.get(path, ("", ""))[1]


def _number(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else f"{value:,.6g}"


def cache() -> Path:
    """Return the folder of DVC's cache."""
    done = subprocess.run([sys.executable, "-m", "dvc", "cache", "dir"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise DataError("this is no DVC repository", where=Path.cwd())
    return Path(done.stdout.strip())


def main(
    base: Annotated[str, typer.Argument(help="commit or branch to compare with")] = "main",
    now: Annotated[str, typer.Option(help="the other commit; the working folder when left out")] = "",
    out: Annotated[Path | None, typer.Option(help="file for the page; the terminal when left out")] = None,
) -> None:
    """Write the page."""
    try:
        git("rev-parse", "--verify", "--quiet", f"{base}^{{commit}}")
        place = cache()
        text = page(Side(base, place), Side(now, place))
    except StageError as error:
        print(f"lathe: compare failed ({error.code}): {error}", file=sys.stderr)
        raise SystemExit(error.code) from error
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")
        print(f"lathe: {out}")
    else:
        print(text, end="")


if __name__ == "__main__":
    typer.run(main)
