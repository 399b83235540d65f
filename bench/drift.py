"""What the watch on drift costs: two servers side by side, one with it and one without, under 8
users in turn.

Tokens a second depend on what else the machine does, processor seconds a thousand tokens hardly;
both are told, as medians of the turns' ratios (with / without).

    python -m bench.drift
    python -m bench.drift --seconds 60
"""

import asyncio
import json
import os
import re
import statistics
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, NamedTuple

import httpx
import psutil
import typer

from bench.serve import PARAMS, question, register, serving, under
from stages.common.release import registry
from stages.common.runtime import libraries
from stages.common.text.parquet_writer import write as write_records
from stages.common.tracking import mlflow_store

USERS, TURNS = 8, 6
WITHOUT = "max_new_tokens: 64, drift: {window: 0}"


class Turn(NamedTuple):
    per_second: float
    processor: float
    """Seconds a thousand tokens, of the server's process."""


def turn(url: str, process: psutil.Process, seconds: float) -> Turn:
    """Return what the users of one server saw."""
    before = sum(process.cpu_times()[:2])
    load = asyncio.run(under(url, USERS, seconds))
    assert not load.errors, load.errors[:3]
    return Turn(load.tokens / load.seconds, 1000 * (sum(process.cpu_times()[:2]) - before) / load.tokens)


def process_at(url: str) -> psutil.Process:
    """Return this process's child that listens there."""
    port = int(url.rpartition(":")[2])
    children = psutil.Process().children()
    return next(one for one in children if any(at.laddr.port == port for at in one.net_connections()))


def write_data(folder: Path, weights_sha256: str) -> None:
    """Write what the reference is made from."""
    rows = [
        {"id": f"p:{n}", "source": "p", "messages": question(n), "reference": None, "category": None}
        for n in range(500)
    ]
    write_records(rows, folder / "data/validated/prompts/train", "prompts")
    evaluation = folder / "reports/evaluate/bench"
    evaluation.mkdir(parents=True)
    (evaluation / "metrics.json").write_text(json.dumps({"weights_sha256": weights_sha256}), encoding="utf-8")
    lines = [json.dumps({"answer": question(n)[0]["content"]}) for n in range(500)]
    (evaluation / "answers.jsonl").write_text("\n".join(lines), encoding="utf-8")


def main(seconds: Annotated[float, typer.Option(help="of one turn", min=1)] = 15.0) -> None:
    """Print the two ratios, and what was dropped."""
    libraries.quiet()
    with TemporaryDirectory() as kept:
        folder = Path(kept)
        for name, params in (("with", PARAMS), ("without", PARAMS.replace("max_new_tokens: 64", WITHOUT))):
            (folder / name).mkdir()
            (folder / name / "params.yaml").write_text(params, encoding="utf-8")
            os.chdir(folder / name)
            client = mlflow_store.client()
            version = register(folder / name, client, 1)
            registry.point(client, registry.CHAMPION, version)
            write_data(folder / name, version.tags["weights_sha256"])
        with serving(folder / "with") as one, serving(folder / "without") as other:
            watched, alone = process_at(one), process_at(other)
            while "lathe_drift_records{" not in httpx.get(f"{one}/metrics").text:  # until all is loaded
                turn(one, watched, 2), turn(other, alone, 2)
            found = [(turn(one, watched, seconds), turn(other, alone, seconds)) for _ in range(TURNS)]
            told = httpx.get(f"{one}/metrics").text
    for name in Turn._fields:
        ratios = [getattr(a, name) / getattr(b, name) for a, b in found]
        print(f"{name:<12} {statistics.median(ratios):.3f}  ({min(ratios):.3f} to {max(ratios):.3f})")
    print(*re.findall(r"^lathe_drift_(?:dropped|records).+", told, flags=re.MULTILINE), sep="\n")


if __name__ == "__main__":
    typer.run(main)
