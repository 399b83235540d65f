"""The stages that answer and score on a small world, as many processes as they are launched with.

python -m tests.support.shared_stages <world> <out> <stage …>    (or behind torchrun). Each process
has a folder of its own, <out>/<rank>, for all that it reads of its own and writes.
"""

import json
import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest

from stages import evaluate, rank, sample, select_sft
from stages.common.core import models, records
from stages.common.runtime import process, ranks
from stages.common.text.parquet_writer import write as write_records
from stages.common.tracking import session
from stages.common.tracking.run import Run
from tests.support import small_ppo
from tests.support.tiny import make_model, make_tokenizer

SECTIONS = {
    "sample": {"answers": 3, "max_new_tokens": 6, "batch_size": 5},
    "rank": {"annotators": ["reward", "rules"], "least_best": None},
    "select_sft": {"max_new_tokens": 6, "batch_size": 1},
    "evaluate": {"max_new_tokens": 6, "max_tokens": 64, "batch_size": 2, "shots": [0, 2]},
}
PROMPTS = [100, 101, 102, 103, 104, 105, 100, 101, 102, 106, 107]
"""Some are asked again, in another part."""


def write_world(folder: Path) -> None:
    """Write models, a round's samples, prompts, and the loss curve of two epochs of SFT."""
    small_ppo.write_ppo(folder)
    for number in (1, 2):
        models.save(make_model(make_tokenizer(), number), make_tokenizer(), folder / f"sft/epoch-{number}")
    (folder / "sft.csv").write_text("step,epoch,loss,learning_rate,eval_loss\n2,1,,,1.5\n4,2,,,1.75\n")
    for split, numbers in (("train", PROMPTS), ("validation", [120])):
        rows = [
            {"id": f"p:{at}", "source": "p", "messages": [records.message("user", f"What is land {number}?")]}
            | {"reference": None, "category": None}
            for at, number in enumerate(numbers)
        ]
        write_records(rows, folder / "prompts" / split, "prompts")


def stages(world: Path) -> dict[str, Callable[[], None]]:
    """Return each stage as a call that writes below the current folder."""
    reward, samples, talks = world / "reward", world / "samples", world / "conversations"
    texts = (world / "questions", world / "documents", talks)
    return {
        "sample": lambda: sample.main(world / "model", world / "prompts", talks, Path("drawn"), Path("drawn.json")),
        "rank": lambda: rank.main(
            samples, Path("ranked"), world / "comparisons", Path("pool"), Path("rank.json"), reward=reward
        ),
        "select_sft": lambda: select_sft.main(
            world / "sft", reward, samples, world / "sft.csv", Path("best"), Path("select.json"), Path("select.csv")
        ),
        "evaluate": lambda: evaluate.main(
            "tiny", world / "model", "chat", *texts, Path("tiny"), samples=samples, reward=reward
        ),
    }


def main(world: Path, out: Path, names: list[str]) -> None:
    """Run the stages of these names."""
    folder = out / os.environ.get("RANK", "0")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "params.yaml").write_text(json.dumps({"run": {"name": "test"}} | SECTIONS))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sample, "PROMPTS_AT_ONCE", 4)
        patch.setattr(session, "start", lambda *_, **__: nullcontext(Run(None)))
        for name in names:
            stages(world)[name]()
    ranks.once(lambda: None)  # none leaves, and with it takes the others down, before all are done


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute(), Path(sys.argv[2]).absolute(), sys.argv[3:])
    process.leave(0)
