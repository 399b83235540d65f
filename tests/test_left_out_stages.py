"""Conversations and documents alone: each stage that lacks its data is left out, and those behind
it go on.
"""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from stages import dpo, evaluate, kto, orpo, ppo, rank, report, reward, sample, select_sft
from stages.common.core import left_out, models, params
from stages.common.runtime.errors import DataError
from stages.common.text.parquet_writer import write as write_records
from stages.common.tracking import session
from stages.common.tracking.run import Run
from tests.support.tiny import make_model, make_tokenizer, write_validated

TRAINING = "{training: {max_steps: 1, per_device_train_batch_size: 2}}"
PARAMS = f"""
run: {{name: test}}
validate: {{lacking: leave_out}}
sample: {{answers: 2, max_new_tokens: 2, from_conversations: 0}}
rank: {{annotators: [rules]}}
reward: {TRAINING}
select_sft: {{max_new_tokens: 2}}
ppo: {TRAINING}
dpo: {TRAINING}
orpo: {TRAINING}
kto: {TRAINING}
evaluate: {{max_new_tokens: 2, max_tokens: 64, shots: [0]}}
report: {{}}
"""


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(session, "start", lambda *_, **__: nullcontext(Run(None)))
    (tmp_path / "params.yaml").write_text(PARAMS)
    validated = tmp_path / "data"
    write_validated(validated)
    for file in [*(validated / "comparisons").rglob("*.parquet"), *(validated / "questions").glob("*.parquet")]:
        file.unlink()
    for split in ("train", "validation"):
        write_records([], validated / "labelled" / split, "labelled")
        write_records([], validated / "comparisons" / split, "comparisons")
        write_records([], validated / "prompts" / split, "prompts")
    write_records([], validated / "questions", "questions")
    for name in ("sft/epoch-1", "sft/last"):
        models.save(make_model(make_tokenizer()), make_tokenizer(), tmp_path / name)
    (tmp_path / "sft.csv").write_text("step,epoch,loss,learning_rate,eval_loss\n1,1,2.5,0.1,\n1,1,,,1.75\n")
    return validated


def lacks(file: str) -> str:
    found: dict[str, Any] = json.loads(Path(file).read_text(encoding="utf-8"))
    return str(found["left_out"])


def test_each_is_left_out_with_its_reason_and_the_others_are_evaluated(data: Path) -> None:
    sft, talks = Path("sft"), data / "conversations"
    drawn, ranked, pool, scorer = Path("samples"), Path("ranked"), Path("pool"), Path("reward")
    sample.main(sft / "last", data / "prompts", talks, drawn, Path("sample.json"))
    assert "no prompt to answer" in lacks("sample.json")
    rank.main(drawn, ranked, data / "comparisons", pool, Path("rank.json"))
    assert "no prompt to rank" in lacks("rank.json")
    reward.main(sft / "last", [pool], talks, scorer, Path("curves/reward.csv"), Path("reward.json"))
    assert lacks("reward.json") == left_out.reason(scorer) and "no comparison to learn from" in left_out.reason(scorer)
    select_sft.main(sft, scorer, drawn, Path("sft.csv"), Path("best"), Path("best.json"), Path("best.csv"))
    assert models.weights_sha256(Path("best")) == models.weights_sha256(sft / "epoch-1")
    texts = data / "documents"
    ppo.main(Path("best"), scorer, drawn, talks, texts, Path("ppo"), Path("rounds/r1.csv"), Path("ppo.json"))
    assert "the reward model was left out" in lacks("ppo.json")
    for name, stage in (("dpo", dpo), ("orpo", orpo)):
        stage.main(Path("best"), [data / "comparisons", ranked], Path(name), Path(f"curves/{name}.csv"))
        assert "no pair to learn from" in left_out.reason(Path(name))
    kto.main(Path("best"), data / "labelled", [ranked], Path("kto"), Path("curves/kto.csv"))
    assert "no answer to learn from" in left_out.reason(Path("kto"))
    for name in ("best", "dpo", "orpo", "ppo", "kto"):
        asked = data / "questions", texts, talks
        evaluate.main(name, Path(name), "chat", *asked, Path("evaluate") / name, samples=drawn, reward=scorer)
    report.main(
        Path("evaluate"),
        "best",
        [Path("sft.csv"), *sorted(Path("curves").glob("*.csv"))],
        Path("report.html"),
        Path("report.json"),
        Path("rounds"),
        Path("best.csv"),
    )
    assert json.loads(Path("report.json").read_text())["wins"] == {}
    assert "Loss curves" in Path("report.html").read_text(encoding="utf-8")
    assert [path for path in Path("evaluate").rglob("*.*") if not path.stat().st_size] == []  # DVC warns of those


def test_where_it_is_not_allowed_a_stage_stops_and_names_the_key(data: Path) -> None:
    params.PARAMS_FILE.write_text(PARAMS.replace("leave_out", "stop"))
    with pytest.raises(DataError, match=r"no prompt to answer.*bring prompts.*validate\.lacking: leave_out"):
        sample.main(Path("sft/last"), data / "prompts", data / "conversations", Path("samples"), Path("sample.json"))
    with pytest.raises(DataError, match=r"no pair to learn from.*validate\.lacking: leave_out"):
        dpo.main(Path("sft/last"), [data / "comparisons"], Path("dpo"), Path("dpo.csv"))
