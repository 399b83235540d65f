"""Records as rows of tokens on disk: made once, by all processors, then mapped into memory and
never made again.

Layout: checkpoints/tokens/tokens-<key>/, sealed as a checkpoint is. The key is a hash of the
records, of the function that makes rows of them with all its arguments, of its code and of the
libraries. Whoever comes first makes the folder; other processes (ranks, another stage) wait for it
at a lock, which has no time limit.
"""

import hashlib
import json
import logging
import multiprocessing
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa
from pydantic import BaseModel

from stages.common.core import checkpoints, code_closure, records
from stages.common.core.models import file_sha256
from stages.common.runtime import locks, parent_death
from stages.common.runtime.errors import StageError

if TYPE_CHECKING:
    from datasets import Dataset

    Rows = partial[Iterator[Any]]

T = TypeVar("T")
Groups = list[tuple[Path, list[int]]]
"""Row groups of Parquet files, in order."""
FOLDER = "tokens"
"""Below the checkpoints."""
COUNTS, JOINED = "counts.json", "tokens.bin"
PART_BYTES = 32 * 2**20
"""Size of the records, as they lie in memory, that one task takes."""
PROCESS_BYTES = 4 * PART_BYTES
"""Size of the records that make a process of their own worth its start."""
BATCH_ROWS = 200
SHOWN_SECONDS = 15.0
LIBRARIES = ("transformers", "tokenizers", "pyarrow")
log = logging.getLogger("lathe")
_work: dict[str, Any] = {}


def dataset(rows: "Rows", schema: pa.Schema, folders: Sequence[Path]) -> tuple["Dataset", Counter[str]]:
    """Return what `rows` makes of the records in `folders`, in their order, mapped into memory, and
    what it counted.

    `rows` is a partial of a module's function (…, records, counts) -> iterator of rows with the
    columns of `schema`. Each record's rows are its own: the records reach the function in parts,
    several of them at once.
    """
    from datasets import Dataset, concatenate_datasets

    place = prepared(rows, schema, folders)
    counts: Counter[str] = Counter(json.loads((place / COUNTS).read_text(encoding="utf-8")))
    return concatenate_datasets([Dataset.from_file(str(file)) for file in _parts(place)]), counts


def tokens(rows: "Rows", folders: Sequence[Path]) -> Path:
    """Return the file of uint32 in which the lists of token ids that `rows` makes stand end
    to end.
    """
    return prepared(rows, None, folders) / JOINED


def prepared(rows: "Rows", schema: pa.Schema | None, folders: Sequence[Path]) -> Path:
    """Return the sealed folder of these rows; made now unless it is there, with every byte as it
    was written.
    """
    final = checkpoints.ROOT / FOLDER / f"tokens-{key(rows, schema, folders)}"
    if not _whole(final):

        def busy(holder: str) -> None:
            log.info("waiting for process %s, which tokenises the same", holder)

        with locks.waiting(final.with_name(f"{final.name}.lock"), busy):
            if not _whole(final):
                _make(rows, schema, folders, final)
    return final


def key(rows: "Rows", schema: pa.Schema | None, folders: Sequence[Path]) -> str:
    """Return 16 hex digits over all that the rows depend on."""
    digest = hashlib.sha256()
    module = rows.func.__module__
    named = {name: _described(value) for name, value in sorted(rows.keywords.items())}
    how = [module, rows.func.__qualname__, [_described(value) for value in rows.args], named, str(schema)]
    digest.update(json.dumps(how, sort_keys=True).encode())
    digest.update(code_closure.digest(module.removeprefix("stages.").replace(".", "/")).encode())
    digest.update("".join(f"{library} {version(library)}\n" for library in LIBRARIES).encode())
    for folder in folders:
        for file in records.files(folder):
            digest.update(f"{file.relative_to(folder)} {file_sha256(file)}\n".encode())
    return digest.hexdigest()[:16]


def _described(value: Any) -> Any:
    """Return what stands for an argument in the key, as JSON. Raises TypeError for one that has no
    such form.
    """
    if hasattr(value, "save_pretrained"):
        with TemporaryDirectory() as folder:
            value.save_pretrained(folder)
            return [f"{file.name} {file_sha256(file)}" for file in sorted(Path(folder).iterdir())]
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    return sorted(one.hex() for one in value) if isinstance(value, frozenset) else value


def _whole(folder: Path) -> bool:
    if not folder.exists():
        return False
    if wrong := checkpoints.fault(folder):
        log.warning("tokens are not usable and are made again: %s", wrong)
    return not wrong


def _make(rows: "Rows", schema: pa.Schema | None, folders: Sequence[Path], final: Path) -> None:
    temporary = final.with_name(f".{final.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    counts = _write_parts(rows, schema, divided(folders), temporary)
    if schema is None:
        with (temporary / JOINED).open("wb") as whole:
            for part in _parts(temporary):
                with part.open("rb") as handle:
                    shutil.copyfileobj(handle, whole)
                part.unlink()
    (temporary / COUNTS).write_text(json.dumps(counts), encoding="utf-8")
    checkpoints.seal(temporary, final)


def divided(folders: Sequence[Path]) -> list[tuple[int, Groups]]:
    """Return the row groups of the records in `folders` as parts of about PART_BYTES, with the
    bytes of each.
    """
    parts: list[tuple[int, Groups]] = [(0, [])]
    for folder in folders:
        for file in records.files(folder):
            for group, size in enumerate(records.group_bytes(file)):
                if parts[-1][0] >= PART_BYTES:
                    parts.append((0, []))
                known, groups = parts[-1]
                if groups and groups[-1][0] == file:
                    groups[-1][1].append(group)
                else:
                    groups.append((file, [group]))
                parts[-1] = (known + size, groups)
    return parts


def _write_parts(rows: "Rows", schema: pa.Schema | None, parts: list[tuple[int, Groups]], folder: Path) -> Counter[str]:
    """Write each part to a file of its own and return the sum of what was counted, in the order of
    the parts.
    """
    total = sum(size for size, _ in parts)
    processes = min(os.cpu_count() or 1, len(parts), total // PROCESS_BYTES)
    jobs = [(groups, folder / f"part-{number:05d}") for number, (_, groups) in enumerate(parts)]
    if processes < 2:
        counted = [write_part(rows, schema, *job) for job in jobs]
    else:
        counted = _in_processes(processes, rows, schema, jobs)
    counts: Counter[str] = Counter()
    for part in counted:
        counts.update(part)
    return counts


def _in_processes(
    processes: int, rows: "Rows", schema: pa.Schema | None, jobs: list[tuple[Groups, Path]]
) -> list[Counter[str]]:
    """Do the jobs in processes that end with this one. Raises StageError when one was killed."""
    others = set(multiprocessing.active_children())
    context = multiprocessing.get_context("spawn")
    started = shown = time.monotonic()
    with ProcessPoolExecutor(processes, context, _begin, (rows, schema)) as pool:
        try:
            futures = [pool.submit(_job, *job) for job in jobs]
            for done, future in enumerate(as_completed(futures), 1):
                future.result()
                if time.monotonic() - shown > SHOWN_SECONDS:
                    shown = time.monotonic()
                    left = (shown - started) / done * (len(jobs) - done)
                    log.info("tokenising: %d of %d parts, %.0f s left", done, len(jobs), left)
        except BaseException as error:
            for child in set(multiprocessing.active_children()) - others:
                child.terminate()
            pool.shutdown(cancel_futures=True)
            if isinstance(error, BrokenProcessPool):
                raise StageError("a process that tokenises was killed, most likely for want of memory") from error
            raise
    return [future.result() for future in futures]


def _begin(rows: "Rows", schema: pa.Schema | None) -> None:
    parent_death.die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the stage ends its processes
    _work.update(rows=rows, schema=schema)


def _job(groups: Groups, file: Path) -> Counter[str]:
    return write_part(_work["rows"], _work["schema"], groups, file)


def write_part(rows: "Rows", schema: pa.Schema | None, groups: Groups, file: Path) -> Counter[str]:
    """Write the rows of some row groups to `file` and return what was counted."""
    import numpy

    counts: Counter[str] = Counter()
    made = rows((record for path, numbers in groups for record in records.read_file(path, numbers)), counts)
    if schema is None:
        with file.open("wb") as handle:
            for ids in made:
                numpy.asarray(ids, dtype=numpy.uint32).tofile(handle)
    else:
        with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
            for batch in batched(made, BATCH_ROWS):
                writer.write_batch(pa.RecordBatch.from_pylist(batch, schema=schema))
    return counts


def _parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("part-*"))


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield lists of up to `size` items."""
    batch: list[T] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
