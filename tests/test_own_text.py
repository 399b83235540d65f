"""A user's own files in data/raw: real documents and conversations to a champion, every row
accounted for.
"""

import csv
import shutil
from pathlib import Path

import pytest

from tests.support import project
from tests.support.project import report
from tests.support.real_data import REAL, needs_real_data

FILES = (
    "wikitext2/valid.txt",
    "medicalgpt/en_article_tail500.txt",
    "medicalgpt/fever.txt",
    "medicalgpt/medical_sft_1K_format.jsonl",
    "medicalgpt/sharegpt_zh_1K_format.jsonl.gz",
    "medicalgpt/glaive_toolcall_zh_demo.jsonl",
)
FEWER_STEPS = {
    "pretrain.training.max_steps": 40,
    "sft.training.max_steps": 40,
    "pretrain.model.hidden_size": 128,
    "sample.from_conversations": 60,
    "reward.training.max_steps": 5,
    "ppo.rollouts_per_epoch": 2,
    "ppo.training.num_train_epochs": 1,
    "dpo.training.max_steps": 5,
    "orpo.training.max_steps": 5,
}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800), needs_real_data]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a project that has run the own-text profile, with fewer steps, on real files."""
    folder = project.lay(tmp_path_factory.mktemp("own"), "infra/profiles/own-text.yaml", FEWER_STEPS)
    for name in FILES:
        shape = "conversations" if ".jsonl" in name else "documents"
        (folder / "data/raw" / shape).mkdir(parents=True, exist_ok=True)
        shutil.copy(REAL / name, folder / "data/raw" / shape)
    result = project.run(folder, "dvc", "repro")
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


def test_it_ends_with_a_champion(done: Path) -> None:
    promotion = report(done, "promote.json")
    evaluated = {
        name: report(done, f"evaluate/{name}/metrics.json")["metrics"]["perplexity/conversations"]
        for name in ("pretrain", "sft_best", "dpo", "orpo", "ppo_r1")
    }
    assert evaluated[promotion["candidate"]] < evaluated["pretrain"]
    if promotion["candidate"] == "sft_best":
        assert set(promotion["passed_over"]) == {"dpo", "orpo", "ppo_r1"}
    else:
        assert evaluated[promotion["candidate"]] < evaluated["sft_best"] and promotion["passed_over"] == {}
    assert promotion["decision"] == "promoted"


@pytest.mark.parametrize("stage", ["pretrain", "sft"])
def test_the_loss_falls(done: Path, stage: str) -> None:
    with (done / f"reports/{stage}.csv").open(encoding="utf-8") as handle:
        losses = [float(row["loss"]) for row in csv.DictReader(handle) if row["loss"]]
    assert sum(losses[-5:]) / 5 < sum(losses[:5]) / 5 - 0.3  # nats per token


def test_every_raw_row_is_kept_dropped_or_quarantined(done: Path) -> None:
    ingested, curated = report(done, "ingest.json"), report(done, "curate.json")
    assert len(ingested["files"]) == len(FILES)
    for counts in ingested["files"].values():
        assert counts["rows"] == counts["kept"] + sum(counts["quarantined"].values())
    for shape, counts in curated.items():
        assert counts["rows"] == counts["kept"] + sum(counts["dropped"].values())
        assert counts["rows"] == ingested["total"]["records"].get(shape, 0)
    aside = [line for file in (done / "data/quarantine").rglob("*.jsonl") for line in file.read_text().splitlines()]
    assert len(aside) == sum(ingested["total"]["quarantined"].values())
    dropped = [line for file in (done / "data/dropped").rglob("*.jsonl") for line in file.read_text().splitlines()]
    assert len(dropped) == sum(sum(counts["dropped"].values()) for counts in curated.values())
