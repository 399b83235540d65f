"""Which models were given a record, by hashes of a lock file and a cache written by hand."""

import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows import pipeline
from flows.lineage import versions
from flows.lineage.versions import UNKNOWN, Cache, Read

RECORD = "talk.jsonl:7"


def store(cache: Path, content: bytes, suffix: str = "") -> str:
    found = hashlib.md5(content).hexdigest() + suffix
    file = cache / "files/md5" / found[:2] / found[2:]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return found


def folder(cache: Path, files: dict[str, list[str]]) -> str:
    """Store Parquet files with these ids as a folder; return its hash."""
    entries = []
    for name, ids in files.items():
        pq.write_table(pa.table({"id": ids}), cache / "one.parquet")
        entries.append({"md5": store(cache, (cache / "one.parquet").read_bytes()), "relpath": name})
    return store(cache, json.dumps(entries).encode(), ".dir")


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """A checkout: pretrain read documents, sft conversations with the record, dpo other pairs."""
    monkeypatch.chdir(tmp_path)
    cache = tmp_path / "cache"
    cache.mkdir()
    talks = folder(cache, {"train/a.parquet": ["x:1", RECORD], "validation/a.parquet": ["y:1"]})
    texts, pairs = folder(cache, {"train/a.parquet": ["book:1"]}), folder(cache, {"train/a.parquet": ["z:1"]})
    stages = {
        "validate": ([], [("data/validated/conversations", talks), ("data/validated/documents", texts)]),
        "pretrain": ([("data/validated/documents", texts)], [("models/pretrain", "1.dir")]),
        "sft": ([("data/validated/conversations", talks), ("models/pretrain", "1.dir")], [("models/sft", "2.dir")]),
        "dpo": ([("data/pairs", pairs), ("models/sft", "2.dir")], [("models/dpo", "3.dir")]),
        "evaluate@dpo": ([("data/questions", "4.dir"), ("models/dpo", "3.dir")], []),
    }
    written = {
        name: {
            "cmd": name,
            "deps": [{"path": path, "md5": value} for path, value in deps],
            "outs": [{"path": path, "md5": value} for path, value in outs],
        }
        for name, (deps, outs) in stages.items()
    }
    Path("dvc.lock").write_text(json.dumps({"stages": written}), encoding="utf-8")
    monkeypatch.setattr(pipeline, "cache", lambda: cache)
    old = {"sft": {"deps": {"data/validated/conversations": talks}, "outs": {"models/sft": "9.dir"}}}
    monkeypatch.setattr(versions, "registered", lambda: iter([("version 1 (sft)", old), ("version 2 (dpo)", {})]))
    versions.main(RECORD)
    return capsys.readouterr().out


def test_a_model_names_the_ancestors_that_were_given_the_record(lock: str) -> None:
    """The base was not, and no version without a stage that was; an evaluation whose data the cache
    lacks is unknown.
    """
    line = "    sft            data/validated/conversations/train/a.parquet\n"
    assert lock == (
        f"version 1 (sft)\n{line}models/sft\n{line}models/dpo\n{line}"
        f"evaluate@dpo\n    evaluate@dpo   {UNKNOWN}: DVC's cache has it no longer; dvc fetch\n"
    )


def test_a_record_that_nobody_has_is_said_so(lock: str, capsys: pytest.CaptureFixture[str]) -> None:
    del lock
    cache = Cache(Path("cache"), "nobody:1")
    stages = {
        "sft": {"deps": {"data/x": folder(Path("cache"), {"train/a.parquet": ["a:1"]})}, "outs": {"models/x": ""}}
    }
    assert versions.reads(stages, cache) == []
    assert versions.reads(stages, Cache(Path("cache"), "a:1")) == [Read("sft", "data/x/train/a.parquet")]
