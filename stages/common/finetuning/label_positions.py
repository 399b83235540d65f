"""Where a batch has labels: the only positions whose logits a loss needs."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def labelled_positions(labels: "torch.Tensor") -> tuple["torch.Tensor", "torch.Tensor"]:
    """Return the positions [K] whose next token is a label in some row, and those next tokens as
    targets [B, K].

    `labels` is [B, T] with -100 where there is no loss. At least one position is returned.
    """
    shifted = labels[:, 1:]
    keep = (shifted != -100).any(dim=0).nonzero().squeeze(1)
    if not len(keep):
        keep = keep.new_zeros(1)
    return keep, shifted[:, keep]
