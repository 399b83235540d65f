"""Rank: every annotator, the order of annotators, and what becomes of prompts that cannot be
ranked.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from stages import rank
from stages.common.core import models, records
from stages.common.ranking import samples
from stages.common.ranking.llm_judge import JudgeParams
from stages.common.reward import scoring
from stages.common.runtime import logs
from stages.common.runtime.errors import DataError, ParamsError, TryAgainError
from stages.common.text.parquet_writer import Shards
from stages.common.text.parquet_writer import write as write_records
from tests.support.judge_server import serving
from tests.support.tiny import comparison, make_model, make_tokenizer


def drawn(number: int, responses: list[str], reference: str | None = "Paris.") -> records.Record:
    return {
        "id": f"prompts.jsonl:{number}",
        "source": "prompts.jsonl",
        "messages": [records.message("user", f"What is the capital of France, {number}?")],
        "reference": reference,
        "category": "capital/en",
        "responses": responses,
        "cut": [False] * len(responses),
    }


TRAIN = [
    drawn(1, ["Rome.", "Paris.", "Rome.", "It is Paris."]),
    drawn(2, ["Paris.", "Paris.", "Paris.", "Paris."]),
    drawn(3, ["Rome.", "Oslo."]),
]
HELD_OUT = [drawn(4, ["...", "Paris."])]


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "samples"
    with Shards({folder / "train": samples.SCHEMA, folder / "validation": samples.SCHEMA}) as shards:
        for row in TRAIN:
            shards.add(folder / "train", row)
        shards.add(folder / "validation", HELD_OUT[0])
    return tmp_path


def run(work: Path, human: Path | None = None, reward: Path | None = None, **section: Any) -> dict[str, Any]:
    return rank.rank(rank.Params(**section), work / "samples", work / "out", human, reward)


def ranked(work: Path, split: str) -> list[tuple[list[str], list[int]]]:
    return [(row["responses"], row["ranks"]) for row in records.read(work / "out" / split)]


def test_rules_rank_in_the_splits_of_the_samples_equal_answers_once(work: Path) -> None:
    report = run(work)
    assert ranked(work, "train") == [(["Rome.", "Paris.", "It is Paris."], [3, 1, 2]), (["Rome.", "Oslo."], [1, 1])]
    assert ranked(work, "validation") == [(["...", "Paris."], [2, 1])]
    counts = {"train": 2, "validation": 1, "all_tied": 1, "one_answer": 1, "not_ranked": 0, "none_good": 0}
    assert report["comparisons"] == counts
    assert report["rules"] == {"answers": 7, "indicators": {"around": 1, "empty": 1, "right": 2, "wrong": 3}}
    row = next(records.read(work / "out/train"))
    assert (row["annotator"], row["categories"], row["source"]) == ("rules", ["capital/en"], "prompts.jsonl")


def test_samples_without_a_good_answer_can_be_left_out(work: Path) -> None:
    counts = run(work, least_best=3)["comparisons"]
    assert counts == {"train": 1, "validation": 1, "all_tied": 0, "one_answer": 1, "not_ranked": 0, "none_good": 1}
    with pytest.raises(DataError, match="3 with two different answers, none of them a good one"):
        run(work, least_best=5)


def test_the_stage_writes_its_report_and_says_its_figure(work: Path) -> None:
    (work / "params.yaml").write_text("run: {name: test}\nrank: {weights: {rong: 9.0}}\n")
    with pytest.raises(ParamsError, match=r"rank\.weights\.rong"):
        rank.main(work / "samples", work / "out", work / "given", work / "pool", work / "r1.json")
    (work / "params.yaml").write_text("run: {name: test}\nrank: {annotators: [rules]}\n")
    rank.main(work / "samples", work / "out", work / "given", work / "pool", work / "r1.json")
    assert json.loads((work / "r1.json").read_text())["comparisons"]["train"] == 2
    assert logs.key_figure == ["3 comparisons ranked by rules"]


def test_the_pool_holds_the_earlier_comparisons_and_these(work: Path) -> None:
    earlier = [comparison(number, ["a", "b"], [1, 2]) for number in (70, 71)]
    write_records(earlier[:1], work / "given/train", "comparisons")
    write_records(earlier[1:], work / "given/validation", "comparisons")
    run(work)
    rank.join([work / "given", work / "out"], work / "pool")
    for split, ids in (("train", ["ranked.jsonl:71"]), ("validation", ["ranked.jsonl:72"])):
        own = [row["id"] for row in records.read(work / "out" / split)]
        assert [row["id"] for row in records.read(work / "pool" / split)] == ids + own


def test_weights_of_params_count(work: Path) -> None:
    run(work, weights={"wrong": 9.0})
    assert ranked(work, "train")[0] == (["Rome.", "Paris.", "It is Paris."], [1, 2, 3])


def test_the_first_annotator_ranks_and_the_others_are_compared(work: Path) -> None:
    with serving(lambda a, b: "A" if len(a) < len(b) else "B") as server:
        judge = JudgeParams(url=server.url, model="judge", attempts=1)
        report = run(work, annotators=["judge", "rules"], judge=judge)
    assert ranked(work, "validation") == [(["...", "Paris."], [1, 2])]
    assert ranked(work, "train")[0][1] == [1, 2, 3]
    agreed = report["agreement"]["judge-rules"]
    assert agreed["prompts"] == 2  # on one prompt the rules tie all answers
    assert agreed["value"] == pytest.approx((-1 / 3 - 1) / 2, abs=1e-5)
    assert report["judge"]["requests"] == 10


def test_people_who_have_not_finished_are_waited_for(work: Path) -> None:
    file = work / "rankings.jsonl"
    annotators = ["human", "rules"]
    with pytest.raises(TryAgainError, match="people have ranked 0 of 3 samples, 3 more are needed") as caught:
        run(work, annotators=annotators, human=file)
    assert caught.value.code == 75
    lines = [
        {
            "id": row["id"],
            "responses": row["responses"],
            "ranks": [2, 1, 2, 1][: len(row["responses"])],
            "annotator": "ann",
        }
        for row in (TRAIN[0], HELD_OUT[0])
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(TryAgainError, match="1 more are needed"):
        run(work, annotators=annotators, human=file)
    report = run(work, annotators=annotators, human_share=0.6, human=file)
    assert report["comparisons"]["not_ranked"] == 1
    assert ranked(work, "train") == [(["Rome.", "Paris.", "It is Paris."], [2, 1, 1])]
    assert report["human"]["ranked"] == {"ann": 2}
    assert report["agreement"]["human-rules"]["prompts"] == 2


def test_a_reward_model_ranks_by_its_scores(work: Path) -> None:
    tokenizer = make_tokenizer()
    models.save(make_model(tokenizer), tokenizer, work / "policy")
    scorer = scoring.begin(work / "policy", tokenizer)
    models.save(scorer, tokenizer, work / "reward")
    run(work, annotators=["reward"], reward=work / "reward")
    (responses, ranks), *_ = ranked(work, "train")
    scores = scoring.score(scorer.eval(), tokenizer, [TRAIN[0]["messages"]] * 3, responses)
    assert ranks == [sorted(scores, reverse=True).index(score) + 1 for score in scores]


def test_a_reward_model_that_scores_nan_ranks_nothing(work: Path) -> None:
    tokenizer = make_tokenizer()
    models.save(make_model(tokenizer), tokenizer, work / "policy")
    scorer = scoring.begin(work / "policy", tokenizer)
    scorer.get_submodule("score").weight.data.fill_(float("nan"))
    models.save(scorer, tokenizer, work / "reward")
    with pytest.raises(DataError, match="a score that is not a number"):
        run(work, annotators=["reward"], reward=work / "reward")
    assert not (work / "out").exists()


def test_an_annotator_without_its_path_is_refused(work: Path) -> None:
    with pytest.raises(ParamsError, match="annotator 'human' needs --human"):
        run(work, annotators=["human"])
    with pytest.raises(ParamsError, match="annotator 'reward' needs --reward"):
        run(work, annotators=["rules", "reward"])


def test_no_two_different_answers_is_an_error(work: Path) -> None:
    with Shards({work / "samples" / split: samples.SCHEMA for split in records.SPLITS}) as shards:
        shards.add(work / "samples/train", TRAIN[1])
    with pytest.raises(DataError, match="0 with two different answers"):
        run(work)
