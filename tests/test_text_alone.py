"""A user's documents and conversations and nothing else: every stage ends, and a person approves a
first champion.
"""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support import project
from tests.support.project import report
from tests.support.tiny import conversation

FEW = {
    "pretrain.model.hidden_size": 64,
    "pretrain.model.intermediate_size": 128,
    "pretrain.model.num_hidden_layers": 2,
    "pretrain.training.max_steps": 4,
    "tokenizer.vocab_size": 600,
    "sft.training.max_steps": 12,
    "sample.max_new_tokens": 4,
    "sample.from_conversations": 0,
    "evaluate.max_new_tokens": 4,
    "evaluate.shots": [0],
}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a project that has run the own-text profile on its own documentation and eighty
    conversations.
    """
    folder = project.lay(tmp_path_factory.mktemp("alone"), "infra/profiles/own-text.yaml", FEW)
    for shape in ("documents", "conversations"):
        (folder / "data/raw" / shape).mkdir(parents=True, exist_ok=True)
    for name in ("README.md", "docs/decisions.md", "docs/log.md"):
        shutil.copy(folder / name, folder / "data/raw/documents" / f"{Path(name).stem}.txt")
    talks = [{"messages": [turn(one) for one in conversation(number)["messages"]]} for number in range(80)]
    lines = "".join(json.dumps(talk) + "\n" for talk in talks)
    (folder / "data/raw/conversations/talk.jsonl").write_text(lines, encoding="utf-8")
    result = project.run(folder, "dvc", "repro")
    assert result.returncode == 0, result.stdout + result.stderr
    (folder / "said.txt").write_text(result.stdout + result.stderr, encoding="utf-8")
    return folder


def turn(message: dict[str, Any]) -> dict[str, str]:
    return {"role": message["role"], "content": message["content"]}


@pytest.mark.parametrize("name", ["sample/r1", "rank/r1", "reward/r1", "ppo/r1", "evaluate/dpo/metrics"])
def test_a_stage_without_its_data_says_what_it_lacks(done: Path, name: str) -> None:
    assert "no " in report(done, f"{name}.json")["left_out"]


def test_what_is_there_is_evaluated_and_epochs_are_picked_by_their_loss(done: Path) -> None:
    for name in ("pretrain", "sft_best"):
        assert report(done, f"evaluate/{name}/metrics.json")["metrics"]["perplexity/conversations"] > 1
    picked = report(done, "select_sft.json")
    losses = {name: epoch["eval_loss"] for name, epoch in picked["epochs"].items()}
    assert losses[picked["best"]] == min(losses.values())
    assert picked["by"] == "validation loss"


def test_on_few_texts_a_person_decides_about_a_first_champion(done: Path) -> None:
    promotion = report(done, "promote.json")
    assert promotion["candidate"] == "sft_best"
    assert promotion["decision"] == "pending"
    assert "fewer than 30 (promote.min_questions)" in promotion["reason"]
    assert report(done, "deploy.json")["review"] == "pending"


def test_dvc_warns_of_no_empty_file(done: Path) -> None:
    """Of folders without a file (the demo's, quarantine) it does warn, and they are."""
    said = (done / "said.txt").read_text(encoding="utf-8")
    assert re.findall(r"\S+\.\w+' is empty", said) == []


def test_an_approved_version_is_deployed(done: Path) -> None:
    approved = project.run(done, "python", "-m", "flows.release", "approve", "1", "--reason", "it answers")
    assert approved.returncode == 0, approved.stdout + approved.stderr
    again = project.run(done, "dvc", "repro", "-f", "-s", "deploy")
    assert again.returncode == 0, again.stdout + again.stderr
    assert len(report(done, "deploy.json")["answers"]) == 2
