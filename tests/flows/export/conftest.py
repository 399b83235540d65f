"""One registered version for the package, and its project copied for each test that changes it."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from flows.export import __main__ as export
from flows.export import plain
from stages.common.core import models
from tests.support import exported, tiny


@pytest.fixture(scope="package")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        tokenizer = tiny.make_tokenizer()
        torch.manual_seed(1)
        model = models.build(tiny.CONFIG | {"tie_word_embeddings": False}, len(tokenizer), "test.model")
        exported.project(folder, tokenizer, model)
    return folder


@pytest.fixture
def project(made: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The project as the working folder; what a test exports, logs or changes of the reports is
    undone.
    """
    monkeypatch.chdir(made)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("LATHE_SIGNING_KEY", raising=False)
    answers = made / "reports/evaluate/sft/answers.jsonl"
    kept = answers.read_text(encoding="utf-8")
    yield made
    shutil.rmtree(made / "exports", ignore_errors=True)
    answers.write_text(kept, encoding="utf-8")


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports are loaded in this process: a new one takes seconds, and one test has it."""
    monkeypatch.setattr(plain, "apart", plain.found)


@pytest.fixture
def run(project: Path) -> Callable[..., Path]:
    """Export version 1 as the command does; return the folder."""

    def call(form: str = "hf", ask: int = 4, *, force: bool = False, key: Path | None = None) -> Path:
        validated = Path("data/validated")
        talks, test = validated / "conversations/validation", validated / "questions"
        export.main("1", form, ask, Path("exports"), force, key, test, talks)
        return Path("exports") / f"lathe-1-{form}"

    return call
