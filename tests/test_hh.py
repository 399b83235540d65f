"""Comparisons that people made of real answers, from the raw file to a reward model: every row is
accounted for.

Whether so small a model, after 200 steps, ranks such answers better than chance is measured here,
not required.
"""

import csv
import math
import shutil
from contextlib import nullcontext
from pathlib import Path

import pytest

from stages import curate, ingest, pretrain, reward, validate
from stages import tokenizer as tokenizer_stage
from stages.common.core import models, records
from stages.common.runtime import logs
from stages.common.text.parquet_writer import write as write_records
from stages.common.tracking import session
from stages.common.tracking.run import Run
from tests.support.project import report
from tests.support.real_data import REAL

HH = REAL / "hh_rlhf/harmless_base_test.jsonl.gz"
STEPS = 200
PARAMS = f"""
run: {{name: hh}}
ingest: {{document_characters: 1000}}
curate:
  splits:
    documents: {{validation: 0.05}}
    conversations: {{validation: 0.05}}
    comparisons: {{validation: 0.2}}
    prompts: {{validation: 0.05}}
validate: {{}}
pretrain:
  model:
    model_type: llama
    hidden_size: 64
    intermediate_size: 172
    num_hidden_layers: 2
    num_attention_heads: 2
    max_position_embeddings: 256
    tie_word_embeddings: true
    initializer_range: 0.06
  training: {{max_steps: 40, per_device_train_batch_size: 8, learning_rate: 4.0e-3, warmup_steps: 10, seed: 1}}
reward:
  max_tokens: 256
  demonstrations: 200
  training:
    max_steps: {STEPS}
    per_device_train_batch_size: 4
    train_sampling_strategy: group_by_length
    learning_rate: 5.0e-4
    lr_scheduler_type: cosine
    warmup_steps: 20
    seed: 1
"""

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not HH.is_file(), reason=f"no {HH} (set LATHE_SHARED_DATA)")]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder where the file has gone through ingest, curate and validate, and a reward
    model has learnt.
    """
    folder = tmp_path_factory.mktemp("hh")
    (folder / "data/raw").mkdir(parents=True)
    shutil.copy(HH, folder / "data/raw")
    (folder / "params.yaml").write_text(PARAMS)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(session, "start", lambda *_, **__: nullcontext(Run(None)))
        raw, ingested, curated, validated = (Path("data", name) for name in ("raw", "ingested", "curated", "validated"))
        reports = Path("reports")
        ingest.main(raw, ingested, Path("data/quarantine"), reports / "ingest.json")
        curate.main(ingested, curated, Path("data/dropped"), reports / "curate.json", reports / "curate")
        validate.main(curated, validated, reports / "validate.json", reports / "data_docs")
        base = policy(validated / "comparisons")
        given = [validated / "comparisons"]
        reward.main(base, given, Path("talk"), Path("reward"), reports / "reward.csv", reports / "reward.json")
    return folder


def policy(comparisons: Path) -> Path:
    """Train a tokenizer and a small base model on the preferred answers that are not held out, as
    conversations.
    """
    rows = list(records.read(comparisons / "train"))
    talks = [[*row["prompt"], records.message("assistant", row["responses"][row["ranks"].index(1)])] for row in rows]
    texts = ("\n".join(turn["content"] for turn in talk) for talk in talks)
    tokenizer = tokenizer_stage.with_template(tokenizer_stage.train(texts, 2048), "chatml")
    tokenizer.save_pretrained("tokenizer")
    for split, part in (("train", talks[40:]), ("validation", talks[:40])):
        known = [{"id": f"hh:{number}", "source": "hh", "messages": talk} for number, talk in enumerate(part, 1)]
        write_records(known, Path("talk", split), "conversations")
        shown = [row | {"text": tokenizer.apply_chat_template(row["messages"], tokenize=False)} for row in known]
        write_records(shown, Path("shown", split), "documents")
    pretrain.main(Path("tokenizer"), Path("shown"), Path("base"), Path("reports/pretrain.csv"))
    return Path("base")


def test_every_row_of_the_file_is_learnt_from_held_out_or_left_out_with_a_reason(work: Path) -> None:
    file, comparisons = report(work, "ingest.json")["files"][HH.name], report(work, "curate.json")["comparisons"]
    assert file["rows"] == file["kept"] + sum(file["quarantined"].values()) > 2_000
    assert file["kept"] == comparisons["rows"] == comparisons["kept"] + sum(comparisons["dropped"].values())
    assert comparisons["kept"] > 0.9 * file["rows"]
    found = report(work, "reward.json")
    for split, count in comparisons["splits"].items():
        assert found["counts"][split]["comparisons"] == count
        assert sum(1 for _ in records.read(work / "data/validated/comparisons" / split)) == count
    left_out = {name: number for name, number in found["counts"]["validation"].items() if name.startswith("with")}
    held_out = found["pair_accuracy"]["overall"]
    assert held_out["prompts"] + sum(left_out.values()) == comparisons["splits"]["validation"]
    assert held_out["pairs"] == held_out["prompts"] > 200  # one pair a prompt


def test_accuracy_is_reported_with_its_interval_and_the_bias_to_length(work: Path) -> None:
    found = report(work, "reward.json")
    accuracy = found["pair_accuracy"]["overall"]
    assert 0 < accuracy["low"] < accuracy["value"] < accuracy["high"] < 1
    assert accuracy["high"] - accuracy["low"] < 0.2
    assert all(-1 <= value <= 1 for value in found["length_correlation"].values())
    (said,) = logs.key_figure
    shorter = 1 - found["longer_is_better"]["value"]
    print(f"{said}; the shorter answer: {shorter:.1%}; correlation with length: {found['length_correlation']}")
    assert said.startswith(f"pair accuracy {accuracy['value']:.1%} [{accuracy['low']:.1%}, {accuracy['high']:.1%}]")


def test_the_loss_of_every_step_is_a_number(work: Path) -> None:
    with (work / "reports/reward.csv").open(encoding="utf-8") as handle:
        losses = [float(row["loss"]) for row in csv.DictReader(handle) if row["loss"]]
    assert len(losses) == STEPS
    assert all(map(math.isfinite, losses))
    assert models.weights_sha256(work / "reward") != models.weights_sha256(work / "base")
