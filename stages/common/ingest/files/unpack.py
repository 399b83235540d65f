"""Compressed files, known by their first bytes, as streams."""

import gzip
import io
import zlib
from typing import BinaryIO

GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
SUFFIXES = (".gz", ".zst", ".zstd")
DAMAGE = (EOFError, zlib.error, gzip.BadGzipFile)
"""What reading a damaged archive raises."""
BUFFER_BYTES = 1 << 16

Stream = io.BufferedReader | gzip.GzipFile


class ZstdFile(io.RawIOBase):
    """A Zstandard file as a stream; Arrow notices where one is cut off."""

    def __init__(self, disk: BinaryIO) -> None:
        import pyarrow as pa

        self.unpacked = pa.CompressedInputStream(disk, "zstd")

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # typeshed has a private buffer type
        """Fill `buffer`. Raises EOFError where the archive is damaged."""
        try:
            return int(self.unpacked.readinto(buffer))
        except OSError as error:
            if error.errno is None:  # Arrow's own; the disk's have a number
                raise EOFError(str(error)) from error
            raise


def unpacked(disk: io.BufferedReader) -> Stream:
    """Return the stream inside a gzip or Zstandard file, or the file itself, from its start."""
    disk.seek(0)
    head = disk.read(len(ZSTD))
    disk.seek(0)
    if head.startswith(GZIP):
        return gzip.GzipFile(fileobj=disk)
    return io.BufferedReader(ZstdFile(disk), BUFFER_BYTES) if head == ZSTD else disk


def without_suffix(name: str) -> str:
    """Return a file's name without the suffix of its archive."""
    return next((name.removesuffix(suffix) for suffix in SUFFIXES if name.endswith(suffix)), name)
