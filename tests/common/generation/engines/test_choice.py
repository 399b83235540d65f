"""The engine that params.yaml names is the one that decodes, and is part of what its answers are
known by.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from stages import evaluate
from stages.common.core import models, records
from stages.common.generation.engines import choice, vllm_environment
from stages.common.runtime.errors import ParamsError
from stages.common.text.parquet_writer import write as write_records
from tests.support.tiny import TEXTS, conversation
from tests.support.vllm import save


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def choose(work: Path, engine: str) -> None:
    (work / "params.yaml").write_text(f"run: {{name: test, engine: {engine}}}\n")


def test_the_local_decoder_answers_where_nothing_else_is_said(work: Path) -> None:
    assert choice.chosen() == "local"
    (work / "params.yaml").write_text("run: {name: test}\n")
    assert choice.section() == {"run": {"engine": "local"}}
    choose(work, "local")
    model: Any = choice.load(save(work / "model"), 4)
    assert type(model) is type(models.load(work / "model")) and not any(one.requires_grad for one in model.parameters())
    assert choice.readable(model, work / "model") is model


def test_an_unknown_engine_is_refused(work: Path) -> None:
    choose(work, "vlm")
    with pytest.raises(ParamsError, match=r"'run.engine': 'vlm' is none of local, vllm, did you mean 'vllm'"):
        choice.chosen()


def test_engine_and_version_are_part_of_what_an_evaluation_is_known_by(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_records([{"id": "t:1", "source": "t", "text": TEXTS[0]}], work / "documents/validation", "documents")
    write_records([conversation(1)], work / "conversations/validation", "conversations")
    asked: list[records.Record] = [{"id": "q", "messages": conversation(2)["messages"], "reference": "x"}]

    def known() -> str:
        settings = evaluate.Params()
        return evaluate.test_sha256(asked, work / "documents", work / "conversations", settings, None)

    def section(version: str) -> str:
        monkeypatch.setattr(vllm_environment, "version", lambda: version)
        return json.dumps(choice.section())

    found = [known()]
    choose(work, "local")
    assert known() == found[0]
    choose(work, "vllm")
    assert section("vllm 0.32.0") == '{"run": {"engine": "vllm", "vllm": "vllm 0.32.0"}}'
    found.append(known())
    section("vllm 0.33.0")
    assert len({*found, known()}) == 3
