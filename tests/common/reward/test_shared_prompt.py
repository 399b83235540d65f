"""Answers behind one prompt: laid out, masked and scored as if each stood there alone; refused
where that fails.
"""

from pathlib import Path
from typing import Any

import pytest
import torch

from stages.common.core import models
from stages.common.reward import batches, scoring, shared_prompt
from stages.common.reward.batches import Row
from stages.common.runtime.errors import ParamsError
from tests.support import architectures
from tests.support.tiny import make_model, make_tokenizer

PAD = 9


def row(prompt: list[int], *answers: list[int]) -> Row:
    rows = [prompt + answer for answer in answers]
    lengths = [len(answer) for answer in answers]
    return {"rows": rows, "ranks": list(range(1, len(rows) + 1)), "lengths": lengths, "length": max(map(len, rows))}


def scorer(tmp_path: Path) -> tuple[Any, int]:
    tokenizer = make_tokenizer()
    models.save(make_model(tokenizer), tokenizer, tmp_path / "model")
    return scoring.begin(tmp_path / "model", tokenizer), int(tokenizer.pad_token_id or 0)


def test_the_prompt_stands_once_before_all_its_answers() -> None:
    batch = shared_prompt.Collator(PAD)([row([1, 2, 3], [4], [5, 6]), row([7], [8], [8, 4])])
    assert batch["input_ids"].tolist() == [[1, 2, 3, 4, 5, 6], [7, 8, 8, 4, PAD, PAD]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 3, 4], [0, 1, 1, 2, 0, 0]]
    assert batch["segments"].tolist() == [[0, 0, 0, 1, 2, 2], [0, 1, 2, 2, -1, -1]]
    assert batch["attention_mask"].sum().item() == 6 + 4
    assert batch["ends"].tolist() == [3, 5, 7, 9]
    assert (batch["better"].tolist(), batch["worse"].tolist()) == ([0, 2], [1, 3])


def test_a_token_that_prompt_and_answer_make_together_belongs_to_the_answer() -> None:
    merged: Row = {"rows": [[1, 2, 3, 4], [1, 2, 5]], "ranks": [1, 2], "lengths": [1, 1], "length": 4}
    assert batches.opening(merged["rows"], merged["lengths"]) == 2
    batch = shared_prompt.Collator(PAD)([merged])
    assert batch["input_ids"].tolist() == [[1, 2, 3, 4, 5]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 2]]


def test_an_answer_sees_the_prompt_and_itself_only() -> None:
    seen = shared_prompt.mask(torch.tensor([[0, 1, 2, 2, -1]]), torch.float32)[0, 0] == 0
    assert seen.int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 0, 1, 0, 0],
        [1, 0, 1, 1, 0],
        [0, 0, 0, 0, 1],
    ]


def test_the_scores_are_those_of_each_answer_alone(tmp_path: Path) -> None:
    model, pad = scorer(tmp_path)
    model.eval()
    rows = [row([20, 21, 22], [30], [31, 32, 33, 34], [30, 35]), row([25], [30, 31], [40])]
    with torch.no_grad():
        together = shared_prompt.scores(model, model.score, shared_prompt.Collator(pad)(rows))
    alone = scoring.score_rows(model, [tokens for one in rows for tokens in one["rows"]])
    assert together.tolist() == pytest.approx(alone, abs=1e-5)
    assert len(set(alone)) == 5


@pytest.mark.parametrize("name", ["mistral, sliding window", "gemma3_text"])
def test_answers_beyond_a_sliding_window_score_as_alone(name: str) -> None:
    model, rows = architectures.classifier(name), architectures.comparisons()
    assert rows[-1]["length"] > architectures.WINDOW + max(rows[-1]["lengths"])
    shared_prompt.check(model, rows[:-1], PAD, "reward.share_prompt")
    shared_prompt.check(model, rows, PAD, "reward.share_prompt")
    with torch.no_grad():
        together = shared_prompt.scores(model, model.score, shared_prompt.Collator(PAD)(rows))
    alone = [scoring.score_rows(model, [tokens])[0] for one in rows for tokens in one["rows"]]
    assert together.tolist() == pytest.approx(alone, rel=1e-4, abs=1e-4)


def test_a_row_beyond_the_first_few_is_tried_where_a_window_ends_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model, rows = architectures.classifier("mistral, sliding window"), architectures.comparisons()
    whole = lambda segments, positions, config, dtype: shared_prompt.mask(segments, dtype)  # noqa: E731  # no window
    monkeypatch.setattr(shared_prompt, "masks", whole)
    short = [row([5, 6], [7], [8, 9])] * 4
    shared_prompt.check(model, short, PAD, "reward.share_prompt")
    with pytest.raises(ParamsError, match="otherwise than alone"):
        shared_prompt.check(model, [*short, rows[-1]], PAD, "reward.share_prompt")


def test_scores_are_not_rounded_under_autocast(tmp_path: Path) -> None:
    model, pad = scorer(tmp_path)
    rows = [row([20, 21, 22], [30], [31, 32, 33, 34], [30, 35])]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = shared_prompt.scores(model.eval(), model.score, shared_prompt.Collator(pad)(rows))
        other = scoring.last_scores(model, model.score, batches.Collator(pad)(rows))
    for scores in (found, other):
        assert scores.dtype == torch.float32
        assert not torch.equal(scores, scores.bfloat16().float())


def test_a_model_that_reads_past_the_mask_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, pad = scorer(tmp_path)
    rows = [row([20, 21, 22], [30], [31, 32, 33, 34], [30, 35])]
    model.train()
    shared_prompt.check(model, rows, pad, "reward.share_prompt")
    assert model.training
    causal = lambda segments, dtype: torch.full((1, 1, 1, 1), 0.0, dtype=dtype).expand(  # noqa: E731
        len(segments), 1, segments.shape[1], segments.shape[1]
    )
    monkeypatch.setattr(shared_prompt, "mask", causal)
    with pytest.raises(ParamsError, match=r"reward\.share_prompt: .* otherwise than alone, by up to .*set it to false"):
        shared_prompt.check(model, rows, pad, "reward.share_prompt")


def test_a_model_without_places_of_its_own_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, pad = scorer(tmp_path)
    rows = [row([20, 21, 22], [30], [31])]

    def forward(input_ids: Any, use_cache: bool) -> None:
        raise AssertionError("not called")

    monkeypatch.setattr(model, "forward", forward)
    with pytest.raises(ParamsError, match=r"does not read several answers behind one prompt.*set it to false"):
        shared_prompt.check(model, rows, pad, "reward.share_prompt")
