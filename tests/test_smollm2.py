"""A real model through every stage: SmolLM2-135M-Instruct with real files, weights and adapters
trained for a few steps, to a version in the registry and a chat.
"""

import csv
import gzip
import json
import math
from itertools import islice
from pathlib import Path

import pytest

from stages.common.core import chat, models, records
from stages.common.generation import generator
from tests.support import project, smollm2
from tests.support.project import report
from tests.support.real_data import REAL, needs_real_data

PROFILE = "infra/profiles/smollm2-135m.yaml"
FILES = {
    "documents": ("wikitext2/valid.txt", 400, 10_000),
    "conversations": ("medicalgpt/medical_sft_1K_format.jsonl", 120, 450),
    "comparisons": ("hh_rlhf/harmless_base_test.jsonl.gz", 40, 600),
}
"""By shape: the file, how many of its lines are taken, and the bytes of the longest."""
CAPITALS = {
    "France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Germany": "Berlin", "Japan": "Tokyo", "China": "Beijing",
    "Egypt": "Cairo", "Russia": "Moscow", "Greece": "Athens", "Portugal": "Lisbon", "Austria": "Vienna",
    "Norway": "Oslo",
}  # fmt: skip
FEW = {
    "curate.splits.conversations.validation": 0.4,
    "pretrain.training.max_steps": 3,
    "sft.max_tokens": 256,
    "sft.training.max_steps": 4,
    "sft.training.per_device_train_batch_size": 2,
    "sample.answers": 2,
    "sample.max_new_tokens": 16,
    "sample.from_conversations": 12,
    "reward.max_tokens": 256,
    "reward.training.max_steps": 3,
    "reward.training.per_device_train_batch_size": 2,
    "select_sft.max_new_tokens": 16,
    "ppo.max_tokens": 192,
    "ppo.max_new_tokens": 16,
    "ppo.rollout_episodes": 8,
    "ppo.rollouts_per_epoch": 2,
    "ppo.training.num_train_epochs": 1,
    "dpo.max_tokens": 256,
    "dpo.training.max_steps": 2,
    "dpo.training.per_device_train_batch_size": 2,
    "orpo.max_tokens": 256,
    "orpo.training.max_steps": 2,
    "orpo.training.per_device_train_batch_size": 2,
    "evaluate.grader": {"capitals": "contains"},
    "evaluate.max_new_tokens": 24,
    "evaluate.shots": [0],
    "evaluate.max_tokens": 256,
}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400), needs_real_data]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a project that has run the profile, with fewer steps, on the first lines of real
    files.
    """
    base = str(smollm2.folder())
    changes = FEW | {"pretrain.base": base, "tokenizer.base": base}
    folder = project.lay(tmp_path_factory.mktemp("smollm2"), PROFILE, changes)
    for shape, (name, count, longest) in FILES.items():
        (folder / "data/raw" / shape).mkdir(parents=True, exist_ok=True)
        with (gzip.open if name.endswith(".gz") else open)(REAL / name, "rb") as lines:
            first = b"".join(islice((line for line in lines if len(line) <= longest), count))
        (folder / "data/raw" / shape / Path(name).name.removesuffix(".gz")).write_bytes(first)
    asked = [
        {"question": f"What is the capital of {land}?", "answer": town, "group": "capitals"}
        for land, town in CAPITALS.items()
    ]
    (folder / "data/raw/questions").mkdir(parents=True, exist_ok=True)
    (folder / "data/raw/questions/capitals.jsonl").write_text("".join(json.dumps(one) + "\n" for one in asked))
    result = project.run(folder, "dvc", "repro")
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


def test_its_first_loss_on_english_text_is_that_of_a_trained_model(done: Path) -> None:
    with (done / "reports/pretrain.csv").open(encoding="utf-8") as handle:
        first = float(next(csv.DictReader(handle))["loss"])
    assert first < 3.6  # nats per token
    assert math.log(report(done, "evaluate/pretrain/metrics.json")["metrics"]["perplexity/documents"]) < 3.6


def test_it_knows_what_it_knew(done: Path) -> None:
    for name in ("sft_best", "dpo", "orpo", "ppo_r1"):
        assert report(done, f"evaluate/{name}/metrics.json")["metrics"]["accuracy/capitals"] > 0.6, name


def test_every_stage_trained(done: Path) -> None:
    weights = {
        name: report(done, f"evaluate/{name}/metrics.json")["weights_sha256"]
        for name in ("pretrain", "sft_best", "dpo", "orpo", "ppo_r1")
    }
    assert len(set(weights.values())) == len(weights)
    assert (done / "models/dpo/adapter").is_dir() and (done / "models/ppo/r1/adapter").is_dir()


@pytest.mark.parametrize("model", ["models/sft_best", "models/dpo", "models/orpo", "models/ppo/r1"])
def test_its_template_stays_and_its_answers_end(done: Path, model: str) -> None:
    own, tokenizer = models.load_tokenizer(smollm2.folder()), models.load_tokenizer(done / model)
    assert tokenizer.chat_template == own.chat_template
    prompt = chat.encode_prompt(tokenizer, [records.message("user", "What is the capital of France?")])
    assert smollm2.SYSTEM in tokenizer.decode(prompt)
    ((answer,),) = generator.decode(
        models.load(done / model).eval(), [prompt], max_new_tokens=48, stop=chat.stops(tokenizer)
    )
    assert "Paris" in tokenizer.decode(answer.tokens)
    assert answer.stop == chat.end_of_turn(tokenizer)


def test_it_is_in_the_registry_and_answers_in_a_chat(done: Path) -> None:
    promotion, deployed = report(done, "promote.json"), report(done, "deploy.json")
    assert promotion["decision"] == "promoted"
    assert deployed["weights_sha256"] == promotion["champion_sha256"]
    assert "Paris" in deployed["answers"][1]["answer"]
