"""What preparing data of real size takes: the peak in MiB at a tenth of the records and at all.

200,000 conversations of about 200 tokens through SFT's preparation, 100,000 comparisons of two
answers through reward's and DPO's.
Run: python -m bench.token_memory [--share 0.1]
"""

import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from tests.support import token_peak

FULL = {"sft": 200_000, "reward": 100_000, "dpo": 100_000}


def main(share: Annotated[float, typer.Option(help="share of the full counts")] = 1.0) -> None:
    """Print a row a stage."""
    print("| stage | records | peak, MiB | records | peak, MiB | ratio | seconds |")
    print("|---|---|---|---|---|---|---|")
    for stage, full in FULL.items():
        many = int(full * share)
        with tempfile.TemporaryDirectory() as folder:
            low, _ = token_peak.measured(stage, many // 10, Path(folder, "few"))
            started = time.monotonic()
            high, rows = token_peak.measured(stage, many, Path(folder, "many"))
        seconds = time.monotonic() - started
        print(
            f"| {stage} | {many // 10:,} | {low} | {rows:,} | {high} | {high / low:.2f} | {seconds:.0f} |", flush=True
        )


if __name__ == "__main__":
    typer.run(main)
