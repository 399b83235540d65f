"""Archives by their bytes, whole or damaged."""

import gzip
import io
from pathlib import Path

import pyarrow as pa
import pytest

from stages.common.ingest.files.raw_files import open_raw
from stages.common.ingest.files.unpack import unpacked, without_suffix

TEXT = b"".join(b'{"text": "%d"}\n' % number**5 for number in range(30_000))


def zstd(data: bytes) -> bytes:
    packed: bytes = pa.compress(data, "zstd", asbytes=True)
    return packed


@pytest.mark.parametrize("pack", [gzip.compress, zstd, bytes, lambda data: zstd(data[:999]) + zstd(data[999:])])
def test_an_archive_is_known_by_its_bytes(pack: "type[bytes]", tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(pack(TEXT))
    with (tmp_path / "a").open("rb") as disk:
        assert unpacked(disk).read() == TEXT


@pytest.mark.parametrize(
    ("pack", "damage"),
    [(gzip.compress, "cut"), (gzip.compress, "changed"), (zstd, "cut")],  # zstd's checksum is optional
)
def test_a_damaged_archive_gives_what_it_can_and_says_what_is_missing(
    pack: "type[bytes]", damage: str, tmp_path: Path
) -> None:
    packed = bytearray(pack(TEXT))
    if damage == "cut":
        del packed[-3000:]
    else:
        packed[len(packed) // 2] ^= 0xFF
    (tmp_path / "a.jsonl").write_bytes(packed)
    with open_raw(tmp_path / "a.jsonl") as file:
        found = list(file.rows())
    assert found[-1].fault == "damaged archive"
    assert len(found) > 1


def test_an_error_of_the_disk_is_not_a_damaged_archive() -> None:
    class Broken(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: object) -> int:
            raise OSError(5, "Input/output error")

    from stages.common.ingest.files.unpack import ZstdFile

    with pytest.raises(OSError, match="Input/output error"):
        io.BufferedReader(ZstdFile(io.BufferedReader(Broken()))).read()


def test_the_name_inside() -> None:
    assert [without_suffix(name) for name in ("a.jsonl.gz", "a.txt.zst", "a.json.zstd", "a.csv", "gz")] == [
        "a.jsonl",
        "a.txt",
        "a.json",
        "a.csv",
        "gz",
    ]
