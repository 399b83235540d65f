"""Stages that lack their data: they stop and say what to do, or are left out, and what they write
then says why.

The one key is `validate.lacking` in params.yaml: `stop` or `leave_out`. A folder that a left-out
stage should have filled holds `left_out.json`, a table only its header, a report the reason.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from stages.common.core import params
from stages.common.runtime import logs, process
from stages.common.runtime.errors import DataError, ParamsError

FILE = "left_out.json"
KEY = "left_out"
CHOICES = ("stop", "leave_out")


class LackError(DataError):
    """There is no data of a kind that this stage needs; `validate.lacking` says whether it may be
    left out.
    """


def may() -> bool:
    """Whether params.yaml lets a stage be left out. Raises ParamsError for what is none of
    CHOICES.
    """
    section = params.plain(params.read_yaml(params.PARAMS_FILE).get("validate")) or {}
    chosen = section.get("lacking", CHOICES[0])
    if chosen not in CHOICES:
        raise ParamsError(
            f"'validate.lacking' is {chosen!r}, not one of {', '.join(CHOICES)}", where=params.PARAMS_FILE
        )
    return bool(chosen == "leave_out")


@contextmanager
def allowed(
    *, folders: Sequence[Path] = (), tables: Mapping[Path, str] | None = None, reports: Sequence[Path] = ()
) -> Iterator[None]:
    """Where the body raises LackError and params.yaml allows it, write in its stead why; else
    raise, with the key.

    `tables` are CSV files by the header that they then have.
    """
    try:
        yield
    except LackError as error:
        if not may():
            remedy = f"{error.remedy}, or leave such stages out (validate.lacking: leave_out)"
            raise DataError(error.what, where=error.where, remedy=remedy) from error
        why = f"{error.where}: {error.what}" if error.where else error.what
        logs.log.warning("left out: %s; %s", why, error.remedy)
        if process.is_main_process():
            write(why, folders, tables or {}, reports)
            logs.report(f"left out: {why}")


def skip(why: str, folders: Sequence[Path], tables: Mapping[Path, str], reports: Sequence[Path]) -> None:
    """Leave out a stage that params.yaml says is not wanted, as one that lacks its data is."""
    if process.is_main_process():
        write(why, folders, tables, reports)
        logs.report(f"left out: {why}")


def write(why: str, folders: Sequence[Path], tables: Mapping[Path, str], reports: Sequence[Path]) -> None:
    """Write what stands for the outs of a stage that is left out."""
    text = json.dumps({KEY: why}, indent=1, ensure_ascii=False) + "\n"
    contents = {folder / FILE: text for folder in folders} | dict.fromkeys(reports, text)
    for path, content in (contents | {path: f"{header}\n" for path, header in (tables).items()}).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")


def reason(folder: Path) -> str:
    """Return why the stage that should have filled `folder` was left out, or "" when it was not."""
    file = folder / FILE
    if not file.exists():
        return ""
    try:
        return str(json.loads(file.read_text(encoding="utf-8"))[KEY])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"not readable: {error}", where=file, remedy="run `dvc checkout`") from error


def need(folder: Path, what: str) -> None:
    """Raise LackError when `folder`, which should hold `what`, was left out."""
    if why := reason(folder):
        raise LackError(f"{what} was left out ({why})", where=folder, remedy="bring what it lacked")
