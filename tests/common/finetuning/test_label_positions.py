"""Which positions are scored."""

import torch

from stages.common.finetuning import label_positions


def test_labelled_positions_worked_by_hand() -> None:
    given = torch.tensor([[-100, -100, 7, 8, -100], [-100, 5, -100, -100, -100]])
    keep, targets = label_positions.labelled_positions(given)
    assert keep.tolist() == [0, 1, 2]
    assert targets.tolist() == [[-100, 7, 8], [5, -100, -100]]
