"""SFT: the loss is TRL's and transformers' number, on assistant tokens only, whatever the
padding.
"""

import pytest
import torch

from stages import sft
from stages.common.finetuning import label_positions
from tests.support.tiny import make_model, make_tokenizer


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
