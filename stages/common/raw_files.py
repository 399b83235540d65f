"""Raw files told apart by content and read as rows, one row in memory at a time, whatever state they are in."""

import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from stages.common.errors import DataError

Stream = io.BufferedReader | gzip.GzipFile
Kind = Literal["text", "rows", "array", "unknown"]

HEAD_BYTES = 65_536
MEBIBYTE = 1 << 20
ROW_BYTES = 64 * MEBIBYTE
TEXT_SUFFIXES, ROW_SUFFIXES = (".txt", ".md"), (".jsonl", ".ndjson", ".json")
BOM, WIDE_BOMS, GZIP = b"\xef\xbb\xbf", (b"\xff\xfe", b"\xfe\xff"), b"\x1f\x8b"
DAMAGE = (EOFError, zlib.error, gzip.BadGzipFile)
ARRAY_START = re.compile(rb"\[\s*(\{|\]\s*$)")
NEXT_ELEMENT = re.compile(r"\}\s*,(?=\s*\{)")
ELEMENT_GAP = re.compile(r"[\s,]*")


class Row(NamedTuple):
    """The bytes of one raw row, the 1-based line it starts on, and why it cannot be read (empty when it can)."""

    line: int
    data: bytes
    fault: str = ""


@dataclass
class RawFile:
    """An open raw file: its kind, its rows, and how many bytes of it have been read from disk."""

    path: Path
    kind: Kind
    stream: Stream
    disk: io.BufferedReader

    def position(self) -> int:
        """Return the bytes read from disk; compressed ones when the file is compressed."""
        return self.disk.tell()

    def rows(self) -> Iterator[Row]:
        """Yield lines without their end, or the elements of an array; blank lines only where the kind is text."""
        if self.kind == "array":
            return elements(self.path, self.stream)
        read = lines(self.stream)
        return read if self.kind == "text" else (row for row in read if row.fault or row.data.strip())


def find(folder: Path) -> list[Path]:
    """Return the raw files under `folder`, in order: all but dot-files, DVC's pointers and READMEs.

    Raises DataError when there are none.
    """
    found = sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).as_posix())
    chosen = [path for path in found if path.is_file() and not _ignored(path.relative_to(folder))]
    if not chosen:
        what = "no raw files here" if folder.is_dir() else "no such folder"
        raise DataError(what, where=folder, remedy="put files in data/raw or set demo.enabled: true in params.yaml")
    return chosen


@contextmanager
def open_raw(path: Path) -> Iterator[RawFile]:
    """Open `path`, unpacked and without its byte order mark, at its first row."""
    with path.open("rb") as disk:
        packed = disk.read(len(GZIP)) == GZIP
        disk.seek(0)
        stream = gzip.GzipFile(fileobj=disk) if packed else disk
        try:
            head = stream.read1(HEAD_BYTES)
        except DAMAGE:
            head = b""  # reading the rows will say so
        stream.seek(len(BOM) if head.startswith(BOM) else 0)
        yield RawFile(path, sniff(head, path.name.removesuffix(".gz")), stream, disk)


def sniff(head: bytes, name: str) -> Kind:
    """Return what the first bytes of a file say it is; the name decides only when they do not."""
    text = head.removeprefix(BOM).lstrip()
    if ARRAY_START.match(text):
        return "array"
    first, whole, _ = text.partition(b"\n")
    if first.startswith(b"{") and (not whole or _is_object(first) or not name.endswith(TEXT_SUFFIXES)):
        return "rows"
    if name.endswith(ROW_SUFFIXES):
        return "array" if name.endswith(".json") and text.startswith(b"[") else "rows"
    binary = head.startswith(WIDE_BOMS) or head.count(0) * 10 > len(head)
    return "text" if not head or (name.endswith(TEXT_SUFFIXES) and not binary) else "unknown"


def lines(stream: Stream) -> Iterator[Row]:
    """Yield every line; a line over ROW_BYTES is cut and a damaged archive ends with a row that says so."""
    number = 0
    while True:
        number += 1
        try:
            data = stream.readline(ROW_BYTES)
            if len(data) == ROW_BYTES and not data.endswith(b"\n"):
                _skip_line(stream)
                yield Row(number, data, "row too large")
                continue
        except DAMAGE:
            yield Row(number, b"", "damaged archive")
            return
        if not data:
            return
        yield Row(number, data.rstrip(b"\r\n"))


def elements(path: Path, stream: Stream) -> Iterator[Row]:
    """Yield the elements of a JSON array; after a malformed one reading goes on at the next that looks like an object.

    Raises DataError when the array is over ROW_BYTES: an array has to be read whole.
    """
    try:
        data = stream.read(ROW_BYTES + 1)
    except DAMAGE:
        yield Row(1, b"", "damaged archive")
        return
    if len(data) > ROW_BYTES:
        what = f"a JSON array over {ROW_BYTES // MEBIBYTE} MiB"
        raise DataError(what, where=path, remedy="write one row a line (JSONL), which is read as a stream")
    text = data.decode("utf-8", "surrogateescape")
    decoder, line, counted = json.JSONDecoder(), 1, 0
    position = text.index("[") + 1
    while True:
        gap = ELEMENT_GAP.match(text, position)
        position = gap.end() if gap else position
        if position == len(text) or (text[position] == "]" and not text[position + 1 :].strip()):
            return
        line, counted = line + text.count("\n", counted, position), position
        end = _element_end(decoder, text, position)
        yield Row(line, text[position:end].encode("utf-8", "surrogateescape"))
        position = end


def _element_end(decoder: json.JSONDecoder, text: str, start: int) -> int:
    try:
        return decoder.raw_decode(text, start)[1]
    except (ValueError, RecursionError):
        following = NEXT_ELEMENT.search(text, start)
        return following.start() + 1 if following else len(text)


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _skip_line(stream: Stream) -> None:
    while (data := stream.readline(io.DEFAULT_BUFFER_SIZE)) and not data.endswith(b"\n"):
        pass


def _ignored(path: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.parts)
    return hidden or path.suffix == ".dvc" or path.name.upper().startswith("README")
