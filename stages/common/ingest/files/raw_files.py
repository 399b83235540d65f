"""Raw files told apart by content and read as rows, one row in memory at a time, whatever state
they are in.
"""

import codecs
import fnmatch
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from stages.common.ingest.files import arrays, columnar, cornell, encodings, rows, tables
from stages.common.ingest.files.rows import MEBIBYTE, Kind, Row
from stages.common.ingest.files.unpack import DAMAGE, Stream, unpacked, without_suffix
from stages.common.ingest.layout_table import COLUMNS
from stages.common.runtime.errors import DataError, ParamsError

TEMPORARY = (".dvc", "tmp", "exps")
"""Below it DVC makes its temporary workspaces."""
SAMPLE_BYTES = MEBIBYTE // 4
TEXT_SUFFIXES, ROW_SUFFIXES = (".txt", ".md"), (".jsonl", ".ndjson", ".json")
ARRAY_START = re.compile(rb"\[\s*(\{|\]\s*$)")


@dataclass
class RawFile:
    """An open raw file: its kind, its encoding ("" where it is binary), its rows and how far it has
    been read.
    """

    path: Path
    kind: Kind
    encoding: str
    stream: Stream
    read: columnar.Position

    def position(self) -> int:
        """Return the bytes read from disk; compressed ones when the file is compressed."""
        return self.read()

    def rows(self) -> Iterator[Row]:
        """Yield lines without their end, elements or the rows of a table; blank lines only where
        the kind is text.
        """
        match self.kind:
            case "parquet":
                return columnar.parquet_rows(self.path, self.read)
            case "arrow":
                return columnar.arrow_rows(self.path, self.read)
            case "array" | "objects" | "wrapped":
                return arrays.elements(self.stream, self.kind != "objects", self.kind == "wrapped")
            case "cornell":
                return cornell.rows(filled(self.stream), lambda name: _beside(self.path, name))
            case "table":
                return tables.rows(filled(self.stream))
            case "pairs":
                return tables.pairs(filled(self.stream))
            case "unknown":
                return iter([Row(1, b"", "unknown format", "the whole file")])
        return lines(self.stream) if self.kind == "text" else filled(self.stream)


def find(folder: Path) -> list[Path]:
    """Return the raw files under `folder`, in order: all but dot-files, DVC's pointers, READMEs and
    what `save_to_disk` writes beside the data.
    """
    found = sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).as_posix())
    files = [path for path in found if path.is_file() and not _ignored(path.relative_to(folder))]
    arrow = {path.parent for path in files if path.suffix == ".arrow"}
    return [path for path in files if not _describes_arrow(path, arrow)]


def none_found(folder: Path) -> DataError:
    """Return the error that there is nothing to read."""
    what = "no raw files here" if folder.is_dir() else "no such folder"
    return DataError(what, where=folder, remedy="put files in data/raw or set demo.enabled: true in params.yaml")


def check_all_here(folder: Path) -> None:
    """Raise DataError in a temporary workspace of DVC (`dvc exp run --queue` or `--temp`) for raw
    files of the checkout that did not come along: those that are not under DVC.
    """
    place = folder.resolve()
    here = next((one for one in place.parents if (one / ".dvc").is_dir()), place)
    at = next((at for at in range(len(here.parts)) if here.parts[at : at + 3] == TEMPORARY), None)
    if at is None:
        return
    checkout = Path(*here.parts[:at]) / place.relative_to(here)
    names = [path.relative_to(checkout) for path in find(checkout)]
    missing = [name for name in names if not (folder / name).exists()]
    if missing:
        what = f"{len(missing)} raw files are not under DVC, so they are not in this temporary workspace: {missing[0]}"
        raise DataError(what, where=checkout, remedy="`dvc add` and commit them, or run in the checkout")


def stated_encoding(source: str, stated: Mapping[str, str]) -> str:
    """Return the encoding that `stated` (patterns of paths to encodings) gives a file, or nothing.

    Raises ParamsError when Python does not know it.
    """
    name = next((encoding for pattern, encoding in stated.items() if fnmatch.fnmatch(source, pattern)), "")
    try:
        known = codecs.lookup(name) if name else None
        if known and not known._is_text_encoding:
            raise LookupError
    except LookupError as error:
        raise ParamsError(f"unknown encoding {name!r}", where="params.yaml: ingest.encodings") from error
    return "" if known is None else known.name


@contextmanager
def open_raw(path: Path, encoding: str = "") -> Iterator[RawFile]:
    """Open `path`, unpacked, as UTF-8 and without its byte order mark, at its first row; "" finds
    the encoding out.
    """
    with path.open("rb") as disk:
        table = columnar.sniff(disk.read(8), path.name)
        if table:
            yield RawFile(path, table, "", disk, columnar.Position(path.stat().st_size))
            return
        sample = _sample(path, encodings.UTF_8)
        found = encoding or encodings.detect(sample, whole=len(sample) < SAMPLE_BYTES)
        head = sample if found == encodings.UTF_8 else _sample(path, found)
        kind = sniff(head, without_suffix(path.name))
        stream = encodings.as_utf_8(unpacked(disk), found)
        yield RawFile(path, kind, "" if kind == "unknown" else found, stream, columnar.Position(disk=disk))


def sniff(head: bytes, name: str) -> Kind:
    """Return what the first bytes of a file say it is; the name decides only when they do not."""
    text = head.lstrip()
    if ARRAY_START.match(text):
        return "array"
    first, whole, rest = text.partition(b"\n")
    if name.endswith(".json") and _is_wrapped(text) and not (rest.strip() and _is_object(first)):
        return "wrapped"
    if cornell.MARK in first:
        return "cornell"
    if first.startswith(b"{") and (not whole or _is_object(first) or not name.endswith(TEXT_SUFFIXES)):
        several = whole and name.endswith(".json") and not _is_object(first)
        return "objects" if several and _opens(text) else "rows"
    if name.endswith(ROW_SUFFIXES):
        return "array" if name.endswith(".json") and text.startswith(b"[") else "rows"
    if head.count(0) * 10 > len(head):
        return "unknown"
    return tables.sniff(text, name) or ("text" if not head or name.endswith(TEXT_SUFFIXES) else "unknown")


def lines(stream: Stream) -> Iterator[Row]:
    """Yield every line; a line over ROW_BYTES is cut and a damaged archive ends with a row that
    says so.
    """
    number, most = 0, rows.ROW_BYTES
    while True:
        number += 1
        try:
            data = stream.readline(most)
            if len(data) == most and not data.endswith(b"\n"):
                _skip_line(stream)
                yield Row(number, data, "row too large")
                continue
        except DAMAGE:
            yield Row(number, b"", "damaged archive")
            return
        if not data:
            return
        yield Row(number, data.rstrip(b"\r\n"))


def filled(stream: Stream) -> Iterator[Row]:
    """Yield every line that is not blank."""
    return (row for row in lines(stream) if row.fault or row.data.strip())


def _sample(path: Path, encoding: str) -> bytes:
    """Return the first bytes of a file, unpacked and as UTF-8; what is damaged, reading the rows
    will say.
    """
    sample = bytearray()
    with path.open("rb") as disk:
        stream = encodings.as_utf_8(unpacked(disk), encoding)
        try:
            while len(sample) < SAMPLE_BYTES and (data := stream.read1(SAMPLE_BYTES - len(sample))):
                sample += data
        except DAMAGE:
            pass
    return bytes(sample)


def _is_wrapped(text: bytes) -> bool:
    """Whether a file is one object around a list of rows, under a name that is no column of a
    row's.
    """
    found = arrays.WRAPPED.match(text[:10_000].decode("utf-8", "replace"))
    return found is not None and (found[1] == "data" or found[1] not in COLUMNS)


def _beside(path: Path, name: str) -> Iterator[Row] | None:
    """Return the lines of the file of that name in the same folder, or None."""
    other = path.with_name(name)
    if not other.is_file():
        return None

    def opened() -> Iterator[Row]:
        with open_raw(other) as file:
            yield from filled(file.stream)

    return opened()


def _opens(text: bytes) -> bool:
    """Whether a value starts that is written over several lines: its first line is right as far as
    it goes.
    """
    first = text.partition(b"\n")[0].decode("utf-8", "replace")
    try:
        json.loads(first)
    except json.JSONDecodeError as error:
        return error.pos >= len(first.rstrip())
    except (ValueError, RecursionError):
        pass
    return False


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _skip_line(stream: Stream) -> None:
    while (data := stream.readline(MEBIBYTE)) and not data.endswith(b"\n"):
        pass


def _ignored(path: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.parts)
    return hidden or path.suffix == ".dvc" or path.name.upper().startswith("README")


def _describes_arrow(path: Path, arrow: set[Path]) -> bool:
    """Whether a file is one of those that `datasets` writes beside the Arrow files of `arrow`."""
    beside = path.name in ("dataset_info.json", "state.json") and path.parent in arrow
    return beside or (path.name == "dataset_dict.json" and any(folder.parent == path.parent for folder in arrow))
