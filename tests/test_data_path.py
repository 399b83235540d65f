"""The three commands of dvc.yaml that lead from raw files to the door, run as DVC runs them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stages.common.core import left_out, params, records
from stages.common.runtime.errors import EXIT_DATA, EXIT_PARAMS
from stages.common.text.parquet_writer import write as write_records

ROOT = Path(__file__).parent.parent
COMMANDS = params.plain(params.read_yaml(ROOT / "dvc.yaml"))["stages"]
SECTIONS = """
ingest:
  document_characters: 200
curate:
  splits:
    documents: {validation: 0.1}
    conversations: {validation: 0.1}
    comparisons: {validation: 0.1}
    prompts: {validation: 0.1}
validate: {}
"""
OUTS = ("data/ingested", "data/quarantine", "data/curated", "data/dropped", "data/validated", "reports")

pytestmark = pytest.mark.slow


def run(stage: str, folder: Path) -> subprocess.CompletedProcess[str]:
    words = COMMANDS[stage]["cmd"].split()
    assert words[0] == "python"
    store = f"sqlite:///{folder.parent}/mlflow.db"  # shared: a new database costs many seconds
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MLFLOW_TRACKING_URI": store}
    return subprocess.run(
        [sys.executable, *words[1:]], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )


def lay(folder: Path) -> Path:
    raw = folder / "data/raw"
    raw.mkdir(parents=True)
    (folder / "params.yaml").write_text(SECTIONS)
    left_out.write("extract.skip is true", [folder / "data/extracted/conversations"], {}, [])
    turn = '{{"conversations": [{{"from": "human", "value": "Ask {0}?"}}, {{"from": "gpt", "value": "Say {0}."}}]}}\n'
    (raw / "chat.jsonl").write_text("".join(turn.format(row % 40) for row in range(50)) + "{broken\n")
    (raw / "book.txt").write_text("\n\n".join(f"Chapter {n}\n\n" + f"Sentence {n} is here. " * 8 for n in range(30)))
    question = {"messages": [{"role": "user", "content": "Ask 7?"}], "reference": "r", "group": "iid"}
    (raw / "test.json").write_text(json.dumps([question]))
    return folder


def written(folder: Path) -> dict[str, bytes]:
    files = [file for out in OUTS for file in (folder / out).rglob("*") if file.is_file()]
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def test_two_folders_give_the_same_bytes_and_the_door_names_what_it_stops(tmp_path: Path) -> None:
    folders = [lay(tmp_path / name) for name in ("one", "another")]
    for folder in folders:
        for stage in ("ingest", "curate", "validate"):
            done = run(stage, folder)
            assert done.returncode == 0, done.stderr
    one, another = (written(folder) for folder in folders)
    assert one == another
    assert not [name for name, data in one.items() if str(tmp_path).encode() in data]
    report = json.loads(one["reports/curate.json"])
    assert report["conversations"]["dropped"] == {"duplicate": 9, "leaked_question": 2}
    assert "data/validated/conversations/train/part-00000.parquet" in one

    for folder in folders:
        rows = records.read(folder / "data/curated/conversations/train")
        write_records(rows, folder / "data/curated/conversations/validation", "conversations")
        stopped = run("validate", folder)
        assert stopped.returncode == EXIT_DATA
    line = stopped.stderr.strip().splitlines()[-1]
    assert line.startswith("lathe: validate failed (4): chat.jsonl:") and "suite ids: expect_ids_to_stand_once" in line
    assert not list((folders[0] / "data/validated").rglob("*.parquet"))
    assert json.loads((folders[0] / "reports/validate.json").read_text())["ids"]
    assert (folders[0] / "reports/data_docs/index.html").exists()
    assert written(folders[0]) == written(folders[1])


def test_a_misspelt_key_and_an_empty_raw_folder_are_one_clear_line(tmp_path: Path) -> None:
    folder = lay(tmp_path / "one")
    (folder / "params.yaml").write_text(SECTIONS.replace("document_characters", "document_character"))
    done = run("ingest", folder)
    assert (done.returncode, len(done.stderr.splitlines())) == (EXIT_PARAMS, 1)
    assert "params.yaml:3: unknown key 'ingest.document_character', did you mean 'document_characters'?" in done.stderr
    (folder / "params.yaml").write_text(SECTIONS)
    for file in (folder / "data/raw").iterdir():
        file.unlink()
    done = run("ingest", folder)
    assert (done.returncode, len(done.stderr.splitlines())) == (EXIT_DATA, 1)
    assert "data/raw: no raw files here; put files in data/raw or set demo.enabled: true" in done.stderr
