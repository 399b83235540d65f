"""Perplexity against numbers worked by hand."""

import math

import pytest
import torch

from stages.common.core.chat import Encoded
from stages.common.evaluation import perplexity
from tests.support.tiny import TEXTS, make_model, make_tokenizer


def test_row_losses_on_two_tokens_worked_by_hand() -> None:
    # p(next=1) = 1/4 from logits (0, ln 3 | class 0 three times likelier); p(next=0) = 1/2 from
    # equal logits
    logits = torch.tensor([[[math.log(3.0), 0.0], [1.0, 1.0], [9.0, 9.0]]])
    targets = torch.tensor([[-100, 1, 0]])
    assert perplexity.row_losses(logits, targets).item() == pytest.approx(math.log(4) + math.log(2))
    assert perplexity.row_losses(logits, torch.tensor([[1, -100, 0]])).item() == pytest.approx(math.log(2))


def test_perplexity_equals_the_models_own_loss_and_padding_changes_nothing() -> None:
    tokenizer = make_tokenizer()
    model = make_model(tokenizer).eval()
    rows = [perplexity.whole(tokenizer, text) for text in TEXTS[:5]] + [Encoded([5, 6, 7], [0, 0, 0])]
    measured = perplexity.perplexity(perplexity.losses(model, rows, max_tokens=200, batch_size=4))
    assert measured is not None
    total = count = 0.0
    for row in rows[:5]:
        ids = torch.tensor([row.input_ids])
        with torch.inference_mode():
            total += model(ids, labels=ids).loss.item() * (len(row.input_ids) - 1)
        count += len(row.input_ids) - 1
    assert measured.value == pytest.approx(math.exp(total / count), rel=1e-5)
    assert measured.tokens == count
    assert measured.interval[0] < measured.value < measured.interval[1]


def test_losses_keep_the_rows_order_and_a_long_row_is_read_in_pieces() -> None:
    tokenizer = make_tokenizer()
    model = make_model(tokenizer).eval()
    rows = [perplexity.whole(tokenizer, text) for text in (TEXTS[3] * 4, TEXTS[0], TEXTS[1] * 2)]
    apart = [perplexity.losses(model, [row], max_tokens=50, batch_size=4)[0] for row in rows]
    together = perplexity.losses(model, rows, max_tokens=50, batch_size=2)
    assert [count for _, count in together] == [count for _, count in apart]
    assert [loss for loss, _ in together] == pytest.approx([loss for loss, _ in apart], rel=1e-5)
    pieces = -(-len(rows[0].input_ids) // 50)
    assert together[0][1] == len(rows[0].input_ids) - pieces


def test_no_token_to_predict_is_no_perplexity() -> None:
    assert perplexity.perplexity(perplexity.losses(make_model(make_tokenizer()), [], 8, 2)) is None
