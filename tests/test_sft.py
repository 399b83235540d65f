"""SFT: the loss is TRL's and transformers' number, on assistant tokens only, whatever the
padding.
"""

from pathlib import Path

import pytest
import torch

from stages import sft
from stages.common.finetuning import label_positions
from stages.common.runtime.errors import DataError
from stages.common.text.parquet_writer import write as write_records
from tests.support.tiny import conversation, make_model, make_tokenizer


def test_a_batch_without_labels_has_a_loss_of_zero_and_a_gradient() -> None:
    keep, targets = label_positions.labelled_positions(torch.full((2, 3), -100))
    logits = torch.randn(2, len(keep), 9, requires_grad=True)
    loss = sft.token_loss(logits, targets, None)
    loss.backward()
    assert loss.item() == 0.0


def test_the_loss_and_its_gradient_equal_transformers_own() -> None:
    tokenizer = make_tokenizer()
    model = make_model(tokenizer).eval()
    torch.manual_seed(3)
    ids = torch.randint(5, len(tokenizer), (3, 20))
    answers = torch.where(torch.rand(3, 20) < 0.3, ids, -100)
    expected = model(input_ids=ids, labels=answers).loss
    expected_gradient = torch.autograd.grad(expected, model.get_input_embeddings().weight)[0]
    keep, targets = label_positions.labelled_positions(answers)
    loss = sft.token_loss(model(input_ids=ids, logits_to_keep=keep).logits, targets, None)
    gradient = torch.autograd.grad(loss, model.get_input_embeddings().weight)[0]
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    assert torch.allclose(gradient, expected_gradient, atol=1e-6)


def test_tokenise_labels_the_answer_and_leaves_out_what_is_too_long(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    write_records([conversation(1), conversation(2, "long " * 200)], tmp_path, "conversations")
    data = sft.tokenise(tokenizer, tmp_path, 120)
    assert len(data) == 1
    learnt = [token for token in data[0]["labels"] if token != -100]
    assert tokenizer.decode(learnt) == "town 7.<|im_end|>"


def test_only_too_long_conversations_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    write_records([conversation(1)], tmp_path, "conversations")
    with pytest.raises(DataError, match=r"raise sft\.max_tokens"):
        sft.tokenise(make_tokenizer(), tmp_path, 5)
