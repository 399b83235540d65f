"""The most memory that a stage's preparation of generated data takes, in a process of its own.

python -m tests.support.token_peak <sft | reward | dpo> <records> <folder>
It prints the MiB at the peak and the rows.
"""

import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from stages import reward
from stages.common.core import checkpoints, records
from stages.common.finetuning import conversation_dataset
from stages.common.pairs import pair_dataset, preference_pairs
from stages.common.text.parquet_writer import write as write_records
from tests.support.tiny import comparison, conversation, make_tokenizer

WORDS = 60
"""Words of an answer: with the question and the template, about 200 tokens."""


def talks(numbers: range) -> Iterator[records.Record]:
    """Yield conversations of about 200 tokens, each number's its own."""
    for number in numbers:
        yield conversation(number, " ".join(f"town {(number + at) % 97}" for at in range(WORDS // 2)))


def ranked(numbers: range) -> Iterator[records.Record]:
    """Yield comparisons of two answers, about 200 tokens each with the prompt."""
    for number, talk in zip(numbers, talks(numbers), strict=True):
        answer = talk["messages"][1]["content"]
        yield comparison(number, [f"{answer} yes", f"{answer} no"], [1, 2])


def main(stage: str, count: int, folder: Path) -> None:
    """Write data of `count` records, prepare it as `stage` does, and print what that took."""
    checkpoints.ROOT = folder / "checkpoints"
    data, tokenizer = folder / "data", make_tokenizer()
    make = talks if stage == "sft" else ranked
    shape: records.Shape = "conversations" if stage == "sft" else "comparisons"
    write_records(make(range(count)), data / "train", shape)
    write_records(make(range(count, count + count // 100)), data / "validation", shape)
    if stage == "sft":
        made = len(conversation_dataset.tokenise(tokenizer, data / "train", 512))
    elif stage == "reward":
        made = len(reward.read(reward.Params(training={}, max_tokens=512), tokenizer, [data]).train)
    else:
        made = len(pair_dataset.both_splits(tokenizer, [data], preference_pairs.PairParams(max_tokens=512))[0])
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, made)


def measured(stage: str, count: int, folder: Path) -> tuple[int, int]:
    """Return the peak in MiB and the rows of a preparation in a process of its own."""
    command = [sys.executable, "-m", "tests.support.token_peak", stage, str(count), str(folder)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return int(said[-2]), int(said[-1])


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
