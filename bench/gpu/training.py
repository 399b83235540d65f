"""The stages' own trainers over random tokens, and how long their steps take."""

import random
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

from bench.gpu.sizes import Sizes


def synchronise(device: str) -> None:
    """Wait until the GPU has done what it was given."""
    import torch

    if device == "cuda":
        torch.cuda.synchronize()


def written_model(sizes: Sizes, device: str, folder: Path) -> Path:
    """Write a model of random weights in bf16 with a tokenizer, once; return its folder."""
    import torch
    from transformers import set_seed

    from stages import tokenizer as tokenizer_stage
    from stages.common.core import models

    out = folder / "model"
    if not out.exists():
        set_seed(1)
        tokenizer = tokenizer_stage.with_template(tokenizer_stage.train(iter(["a b c"]), 300), "chatml")
        with torch.device(device):
            model = models.build(sizes.model, sizes.vocabulary, "gpu-check")
        models.save(model.to(torch.bfloat16), tokenizer, out)
    return out


class Rows:
    """Examples of random tokens, all of one length and with a label."""

    def __init__(self, count: int, tokens: int, vocabulary: int) -> None:
        dice = random.Random(1)
        self.tokens = [[dice.randrange(300, vocabulary) for _ in range(tokens)] for _ in range(count)]

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.tokens)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return {input_ids, labels}."""
        import torch

        ids = torch.tensor(self.tokens[index])
        return {"input_ids": ids, "labels": ids.clone()}


def trainer(stage: str, sizes: Sizes, tokens: int, steps: int, model: Path) -> Any:
    """Return the stage's own trainer over random tokens; nothing is evaluated or saved."""
    from transformers import PrinterCallback

    from stages import pretrain, sft
    from stages.common.core import models
    from stages.common.finetuning import conversation_dataset
    from stages.common.training import packed_blocks

    batch = sizes.step_tokens // tokens
    rows = Rows(batch * steps, tokens, sizes.vocabulary)
    training: dict[str, Any] = {"max_steps": steps, "per_device_train_batch_size": batch, "learning_rate": 1e-5}
    training |= {"gradient_checkpointing": False, "seed": 1}
    if stage == "pretrain":
        settings = pretrain.Params(base=str(model), block_tokens=tokens, training=training)
        with patch.object(packed_blocks, "documents", lambda *_: rows):
            made = pretrain.build_trainer(settings, models.load_tokenizer(model), model, "gpu-check")
    else:
        from datasets import Dataset

        talks = Dataset.from_list([{key: value.tolist() for key, value in rows[at].items()} for at in range(len(rows))])
        tuning = sft.Params(max_tokens=tokens, training=training)
        with patch.object(conversation_dataset, "tokenise", lambda *_, **__: talks):
            made = sft.build_trainer(tuning, model, model, "gpu-check")
    made.args.eval_strategy = made.args.save_strategy = "no"
    made.remove_callback(PrinterCallback)
    return made


def trained(made: Any, device: str, warm: int) -> float:
    """Train; return the seconds of a step, the first ones left out."""
    from transformers import TrainerCallback

    ends: list[float] = []

    class Clock(TrainerCallback):
        """Notes when each step has ended."""

        def on_step_end(self, *_: Any, **__: Any) -> None:
            synchronise(device)
            ends.append(time.monotonic())

    made.add_callback(Clock())
    made.train()
    return (ends[-1] - ends[warm - 1]) / (len(ends) - warm)
