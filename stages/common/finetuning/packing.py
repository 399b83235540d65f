"""Several conversations in one row, each as if it stood there alone: positions begin anew and none
sees another.

transformers makes the mask from the positions, for every model that leaves its mask to it; `check`
finds out.
"""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from stages.common.finetuning.conversation_dataset import NONE, Row
from stages.common.runtime.errors import ParamsError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

CHECKED, TOLERANCE = 2, 1e-4
log = logging.getLogger("lathe")


class Collator:
    """Makes a batch of rows, packed or with a single conversation each, padded on the right with
    `pad`.
    """

    def __init__(self, pad: int) -> None:
        self.pad = pad

    def __call__(self, batch: Sequence[Row]) -> dict[str, "torch.Tensor"]:
        """Return input_ids, labels and position_ids [B, T]; padding is a sequence of its own, so
        there is no mask.
        """
        import torch
        from torch.nn.utils.rnn import pad_sequence

        ids = [torch.tensor(row["input_ids"]) for row in batch]
        labels = [torch.tensor(row["labels"]) for row in batch]
        longest = max(map(len, ids))
        positions = []
        for row in batch:
            lengths = [*row.get("seq_lengths", [len(row["input_ids"])]), longest - len(row["input_ids"])]
            positions.append(torch.cat([torch.arange(length) for length in lengths]))
        return {
            "input_ids": pad_sequence(ids, batch_first=True, padding_value=self.pad),
            "labels": pad_sequence(labels, batch_first=True, padding_value=NONE),
            "position_ids": torch.stack(positions),
        }


def check(model: "PreTrainedModel", some: Sequence[Row], where: str) -> None:
    """Raise ParamsError, naming the parameter `where`, unless the model reads packed conversations
    as each alone.

    A model that ZeRO-3 has split cannot be read before training begins: that is said, and it is not
    compared.
    """
    import torch

    if any(hasattr(part, "ds_id") for part in model.parameters()):
        log.warning("%s: packed rows are not compared with single ones, because the model is split", where)
        return
    some = [*some, some[0]]  # one stands behind another, however few there are
    together: Row = {
        "input_ids": [token for row in some for token in row["input_ids"]],
        "labels": [NONE for row in some for _ in row["input_ids"]],
        "seq_lengths": [len(row["input_ids"]) for row in some],
    }
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            packed = _logits(model, together)
            alone = torch.cat([_logits(model, row) for row in some])
        difference = float((packed - alone).abs().max())
    except (TypeError, ValueError, RuntimeError, IndexError) as error:
        what = f"this model does not read several conversations in one row: {error}"
        raise ParamsError(what, where=where, remedy="set it to false") from error
    finally:
        model.train(was_training)
    rounding = max(TOLERANCE, 4 * torch.finfo(model.dtype).eps)
    if difference > rounding * max(1.0, float(alone.abs().max())):
        what = f"this model reads a conversation behind others otherwise than alone, by up to {difference:.2g}"
        raise ParamsError(what, where=where, remedy="set it to false")


def _logits(model: Any, row: Row) -> "torch.Tensor":
    batch = {name: value.to(model.device) for name, value in Collator(0)([row]).items() if name != "labels"}
    logits: torch.Tensor = model(**batch, use_cache=False).logits[0].float()
    return logits
