"""What a record shares with others: its id, its content, its prompt; by parts of the data that fit
in memory.

Every file's keys are written sorted by part, and a part is read from all files. Records that share
a key share a part.
"""

import itertools
import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from stages.common.core.records import TURNS, Record, Shape, answers
from stages.common.text import content_hash, normalisation
from stages.common.validate.features import escaped

if TYPE_CHECKING:
    from pandas import DataFrame, Series

RECORDS_PER_PART = 50_000
COPY = re.compile(r"(?P<original>.+:\d+(?:\.x?\d+)*)#(?P<copy>[2-9]|[1-9]\d+)")
DIGEST = pa.binary(16)
IDS = pa.schema(
    [
        ("id", pa.string()),
        ("original", pa.string()),
        ("copy", pa.int64()),
        ("shape", pa.string()),
        ("split", pa.string()),
        ("content", DIGEST),
    ]
)
CONTENTS = pa.schema(
    [
        ("id", pa.string()),
        ("copy", pa.int64()),
        ("shape", pa.string()),
        ("split", pa.string()),
        ("content", DIGEST),
        ("prompt", DIGEST),
        ("question", DIGEST),
    ]
)
FACTS_OF_IDS = ("id", "same_id", "strayed_copy")
FACTS_OF_CONTENTS = ("id", "same_content", "other_split", "other_stage", "other_answer", "other_label")


def parts(records: int) -> int:
    """Return into how many parts the keys of so many records are sorted."""
    return records // RECORDS_PER_PART + 1


def copy_of(name: str) -> tuple[str, int]:
    """Return the id of a record's original and which copy it is: the mixture names the second one
    `<id>#2`.
    """
    found = COPY.fullmatch(name)
    return (found["original"], int(found["copy"])) if found else (name, 1)


def keys(shape: Shape, split: str, record: Record) -> Record:
    """Return all that the two sorts of keys hold of a record without nulls."""
    original, copy = copy_of(record["id"] or "")
    return {
        "id": record["id"],
        "original": original,
        "copy": copy,
        "shape": shape,
        "split": split,
        "content": content_hash.identity(shape, record),
        "prompt": content_hash.split_digest(shape, record),
        "question": question(shape, record),
    }


def question(shape: Shape, record: Record) -> bytes | None:
    """Return the digest, as it reads, of all that stands before the last answer of a conversation,
    or before the label of an answer; None without one and of the other shapes.
    """
    if shape not in ("conversations", "labelled"):
        return None
    turns = record[TURNS[shape]]
    if shape == "conversations":
        if len(turns) < 2 or turns[-1]["role"] != "assistant":
            return None
        turns = turns[:-1]
    before = [(turn["role"], normalisation.key(turn["content"]), turn["tool_calls"]) for turn in turns]
    told = [normalisation.key(answer) for answer in answers(shape, record)]
    return content_hash.digest([before, record["tools"], *told])


def write(folder: Path, number: int, count: int, rows: Sequence[Record]) -> None:
    """Write the keys of file `number`, sorted into `count` parts."""
    by_id = np.array([zlib.crc32(row["original"].encode()) for row in rows], np.uint64)
    by_prompt = np.frombuffer(b"".join(row["prompt"][:8] for row in rows), "<u8")
    for name, schema, hashes in (("ids", IDS, by_id), ("contents", CONTENTS, by_prompt)):
        table = pa.Table.from_pylist(list(rows), schema=schema)
        _write(folder / name / f"{number:06d}.arrow", table, hashes % np.uint64(count), count)


def read(folder: Path, name: str, part: int) -> "DataFrame":
    """Return one part of the `ids` or the `contents` of all files, in the files' order."""
    batches = []
    for file in sorted((folder / name).glob("*.arrow")):
        with pa.memory_map(str(file)) as source, pa.ipc.open_file(source) as reader:
            batches.append(reader.get_batch(part))
    return pa.Table.from_batches(batches).to_pandas()


def facts_of_ids(frame: "DataFrame") -> "DataFrame":
    """Return for each record of a part of the ids where its id stood before, and what is wrong with
    a copy.

    A copy has an original of the same content in the same split.
    """
    named = frame["id"].notna()
    first = frame.groupby(["shape", "id"], sort=False)["split"].transform("first")
    frame["same_id"] = first.where(named & frame.duplicated(["shape", "id"]))
    originals = frame[named & (frame["copy"] == 1)].drop_duplicates(["shape", "original"])
    joined = frame.merge(originals, "left", ["shape", "original"], suffixes=("", "_first"))
    frame["strayed_copy"] = None
    for problem, where in (
        ("another split", joined["split"] != joined["split_first"]),
        ("another content", joined["content"] != joined["content_first"]),
        ("no original", joined["content_first"].isna()),
    ):
        frame.loc[where.to_numpy() & (frame["copy"] > 1).to_numpy(), "strayed_copy"] = problem
    return _shown(frame, FACTS_OF_IDS)


def facts_of_contents(frame: "DataFrame", before: Mapping[Shape, Sequence[str]]) -> "DataFrame":
    """Return for each record of a part of the contents the first other one with which it shares
    what it should not.

    `before` names for each shape those whose prompts it may not repeat. Copies of the mixture are
    meant to be the same.
    """
    original = frame["copy"] == 1
    once = frame[original]
    frame["same_content"] = _first(once, ["shape", "split", "content"], "id").where(
        once.duplicated(["shape", "split", "content"])
    )
    split = _first(frame, ["shape", "prompt"], "split")
    frame["other_split"] = _first(frame, ["shape", "prompt"], "id").where(split != frame["split"])
    for shape, name in (("conversations", "other_answer"), ("labelled", "other_label")):
        asked = once[(once["shape"] == shape) & once["question"].notna()]
        answer = _first(asked, ["question"], "content")
        frame[name] = _first(asked, ["question"], "id").where(answer != asked["content"])
    frame["other_stage"] = None
    for shape, others in before.items():
        for other in others:
            taken = frame[frame["shape"] == other].drop_duplicates("prompt").set_index("prompt")["id"]
            mine = frame["shape"] == shape
            frame.loc[mine & frame["other_stage"].isna(), "other_stage"] = frame["prompt"].map(taken)
    return _shown(frame, FACTS_OF_CONTENTS)


def _first(frame: "DataFrame", by: list[str], column: str) -> "Series":
    return frame.groupby(by, sort=False)[column].transform("first")


def plain(frame: "DataFrame") -> "DataFrame":
    """Return the frame in Python's own values, None for what is missing."""
    return frame.astype(object).where(frame.notna(), None)


def _shown(frame: "DataFrame", columns: Sequence[str]) -> "DataFrame":
    """Return the columns as Data Docs may show them."""
    return plain(frame[list(columns)].map(escaped, na_action="ignore"))


def _write(file: Path, table: pa.Table, part: "np.ndarray[Any, Any]", count: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    order = np.argsort(part, kind="stable")
    table = table.take(pa.array(order)).combine_chunks()
    edges = np.searchsorted(part[order], np.arange(count + 1)).tolist()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, table.schema, options=options) as writer:
        for first, last in itertools.pairwise(edges):
            batches = table.slice(first, last - first).to_batches()
            writer.write_batch(batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema))
