"""A wrong file, a typo, a full disk: the user sees one line with place and remedy, an exit code,
and loses nothing.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from stages.common.core import models
from tests.support import preloaded
from tests.support.tiny import CONFIG, make_model, make_tokenizer, write_validated

ROOT = Path(__file__).parent.parent
EVALUATE = (
    "evaluate --candidate sft --model models/sft --prompt chat --questions data/validated/questions "
    "--documents data/validated/documents --conversations data/validated/conversations --out reports/evaluate/sft"
)
PRETRAIN = (
    "pretrain --tokenizer models/tokenizer --documents data/validated/documents --out models/pretrain --curve curve.csv"
)
INGEST = "ingest --raw data/raw --out data/ingested --quarantine data/quarantine --report {report}"
VALIDATE = "validate --curated data/curated --out data/validated --report reports/validate.json --docs reports/docs"
CURATE = (
    "curate --ingested data/ingested --out data/curated --dropped data/dropped --report reports/curate.json "
    "--tables reports/curate"
)


@dataclass(frozen=True)
class Case:
    """A command, what is broken before it, and what its one line must say."""

    command: str
    code: int
    says: tuple[str, ...]
    broken: Callable[[Path], object] = lambda folder: None


def edit(old: str, new: str) -> Callable[[Path], object]:
    def apply(folder: Path) -> None:
        file = folder / "params.yaml"
        text = file.read_text(encoding="utf-8")
        assert old in text
        file.write_text(text.replace(old, new, 1), encoding="utf-8")

    return apply


def cut(name: str) -> Callable[[Path], object]:
    def apply(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return apply


CASES = {
    "misspelt param": Case(
        EVALUATE,
        3,
        ("params.yaml:", "unknown key 'evaluate.batch_sise'", "did you mean 'batch_size'?"),
        edit("  batch_size: 64", "  batch_sise: 64"),
    ),
    "misspelt param of the library": Case(
        PRETRAIN,
        3,
        ("params.yaml", "'pretrain.training.learning_rat'", "did you mean 'learning_rate'?"),
        edit("learning_rate", "learning_rat"),
    ),
    "wrong type": Case(EVALUATE, 3, ("params.yaml:", "'evaluate.batch_size'", "'many'"), edit("64", "many")),
    "broken YAML": Case(EVALUATE, 3, ("params.yaml:", "not valid YAML"), edit("evaluate:", "evaluate: [")),
    "no params": Case(
        EVALUATE, 3, ("params.yaml", "not found", "root"), lambda folder: (folder / "params.yaml").unlink()
    ),
    "misspelt option": Case("evaluate --modle x", 3, ("--modle", "--help")),
    "missing raw file": Case(
        INGEST.format(report="r.json"), 4, ("data/raw", "no such folder", "put files in data/raw")
    ),
    "corrupt model": Case(
        EVALUATE,
        4,
        ("models/sft/model.safetensors", "not a valid safetensors file", "dvc checkout"),
        cut("models/sft/model.safetensors"),
    ),
    "corrupt config": Case(EVALUATE, 4, ("models/sft/config.json", "not valid JSON"), cut("models/sft/config.json")),
    "corrupt tokenizer": Case(EVALUATE, 4, ("models/sft", "tokenizer"), cut("models/sft/tokenizer.json")),
    "missing model": Case(
        EVALUATE, 4, ("models/sft", "dvc"), lambda folder: (folder / "models/sft/model.safetensors").unlink()
    ),
    "corrupt records": Case(
        EVALUATE,
        4,
        ("part-00000.parquet", "not a readable Parquet file", "dvc checkout"),
        cut("data/validated/questions/part-00000.parquet"),
    ),
    "less text than a block": Case(
        PRETRAIN,
        4,
        ("data/validated/documents", "less than one block", "lower pretrain.block_tokens"),
        edit("block_tokens: 16", "block_tokens: 100000"),
    ),
}


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Return a folder in which every command of the table would work."""
    write_validated(tmp_path / "data/validated")
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(tmp_path / "models/tokenizer")
    models.save(make_model(tokenizer), tokenizer, tmp_path / "models/sft")
    config = json.dumps(CONFIG)
    training = '{"num_train_epochs": 2, "per_device_train_batch_size": 4, "learning_rate": 1.0e-3}'
    splits = ", ".join(
        f"{shape}: {{validation: 0.5}}" for shape in ("documents", "conversations", "comparisons", "prompts")
    )
    (tmp_path / "params.yaml").write_text(
        f"evaluate:\n  batch_size: 64\npretrain:\n  model: {config}\n  block_tokens: 16\n  training: {training}\n"
        f"ingest: {{}}\ncurate:\n  splits: {{{splits}}}\nvalidate: {{}}\n"
        "deploy: {canned: [Hello]}\npromote: {name: x, metric: m}\n",
        encoding="utf-8",
    )
    return tmp_path


@dataclass(frozen=True)
class Ended:
    """How a command ended, and all that it said."""

    returncode: int
    said: str


def call(folder: Path, command: str) -> Ended:
    """Run a stage with its slow imports done; what it says is all that a terminal would show."""
    stage, *arguments = command.split()
    (folder / "said.log").unlink(missing_ok=True)
    code = preloaded.ended(preloaded.stage(stage, arguments, folder, OMP_NUM_THREADS="1"))
    assert code is not None, "it hangs"
    return Ended(code, (folder / "said.log").read_text(encoding="utf-8"))


def called_by_a_user(folder: Path, command: str) -> Ended:
    """Run a stage as a user's shell would."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment.pop("DVC_STAGE", None)
    line = [sys.executable, "-m", *f"stages.{command}".split()]
    ran = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return Ended(ran.returncode, ran.stderr)


def the_line(result: Ended) -> str:
    """Return the one line that says what failed; there must be exactly one, and no traceback."""
    lines = [line for line in result.said.splitlines() if line.startswith("lathe: ")]
    assert len(lines) == 1, result.said
    assert "Traceback" not in result.said
    return lines[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_failure_is_one_line_with_place_and_remedy(work: Path, name: str) -> None:
    case = CASES[name]
    case.broken(work)
    before = {path: path.read_bytes() for path in (work / "data").rglob("*") if path.is_file()}
    result = (called_by_a_user if name == "misspelt param" else call)(work, case.command)
    assert result.returncode == case.code, result.said
    line = the_line(result)
    for words in (*case.says, "then continue with: ", "log: logs/"):
        assert words in line
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.slow
def test_malformed_rows_are_put_aside_by_name_and_a_critical_one_stops_at_the_door(work: Path) -> None:
    raw = work / "data/raw"
    raw.mkdir()
    good = [
        {"messages": [{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": "a"}]} for n in range(9)
    ]
    lines = [json.dumps(row) for row in good]
    (raw / "chat.jsonl").write_text("\n".join([*lines, '{"messages": [', ""]), encoding="utf-8")
    (raw / "text.txt").write_text("One sentence.\n\nAnother sentence.\n", encoding="utf-8")
    assert call(work, INGEST.format(report="reports/ingest.json")).returncode == 0
    aside = [json.loads(line) for line in (work / "data/quarantine/chat.jsonl.jsonl").read_text().splitlines()]
    assert [row["line"] for row in aside] == [10]
    assert call(work, CURATE).returncode == 0
    twice = next((work / "data/curated/conversations/train").glob("*.parquet"))
    (twice.parent.parent / "validation" / "part-00009.parquet").write_bytes(twice.read_bytes())
    result = call(work, VALIDATE)
    assert result.returncode == 4
    assert "chat.jsonl:" in the_line(result)


@pytest.mark.slow
def test_a_full_disk_says_where_and_that_the_same_command_continues(work: Path) -> None:
    (work / "data/raw").mkdir()
    (work / "data/raw/text.txt").write_text("One sentence.\n", encoding="utf-8")
    result = call(work, INGEST.format(report="/dev/full"))
    assert result.returncode == 75
    assert "no space left on the disk" in the_line(result)


@pytest.fixture
def small_disk(work: Path) -> Iterator[Path]:
    """Yield `work` with a real file system of 700 KiB as its checkpoints folder: room for one
    epoch's checkpoint.
    """
    place = work / "checkpoints"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    yield work
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.slow
def test_a_disk_that_fills_during_training_leaves_a_whole_checkpoint_to_resume_from(small_disk: Path) -> None:
    result = call(small_disk, PRETRAIN)
    assert result.returncode == 75, result.said
    assert "no room on the disk: 0.2 MiB are needed, 0.1 MiB are free" in the_line(result)
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk / "checkpoints")], check=True)
    assert call(small_disk, PRETRAIN).returncode == 0
    assert "resuming from" in (small_disk / "logs/pretrain.log").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_port_in_use_is_named_with_the_way_out(work: Path) -> None:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = called_by_a_user(work, f"deploy serve --port {port}")
    assert result.returncode == 75, result.said
    assert str(port) in the_line(result)
