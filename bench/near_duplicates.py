"""Near duplicates end to end, read to write: these steps against datatrove's own MinHash blocks, on
the same documents.

Writes about 200 words of random text a document (words as frequent as in a natural language), of
which 5 % are exact copies, 10 % near copies (one word in twenty replaced, lost or doubled,
anywhere) and 10 % share half their text with another and must stay. Both sides read and write
Parquet in the same tasks with the same workers and take shingles of three words. datatrove runs as
it comes (its reader, writer and LocalPipelineExecutor) with a tokenizer that only splits at spaces,
once with its own 14 bands of 8 (threshold 0.72), once with our bands. These steps run as in
`curate`, at threshold 0.7.

    python -m bench.near_duplicates                                  # speed, recall, false removals
    python -m bench.near_duplicates --memory 5000,50000,500000       # peak memory of these steps
"""

import itertools
import random
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, NamedTuple

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import typer

from stages.common.core.records import SCHEMAS
from stages.common.curate import steps
from stages.common.curate.dedup import duplicate_steps
from stages.common.curate.dedup.duplicates import NearDuplicates
from stages.common.curate.executors import Executor

WORDS, VOCABULARY, EDITED_SHARE, DOCUMENTS_PER_FILE, WAITING = 200, 40_000, 0.05, 5_000, 10_000
KINDS, WEIGHTS = ("original", "exact", "near", "half"), (75, 5, 10, 10)
NEAR = NearDuplicates(threshold=0.7)


class Outcome(NamedTuple):
    per_second: float
    recall: float
    exact: float
    false_removals: int


def documents(count: int, rng: random.Random) -> Iterator[tuple[str, str]]:
    """Yield (id, text); an id says what was planted: `near-12-7` is document 12, made from document
    7 and no other.
    """
    vocabulary = ["".join(rng.choices("etaoinshrdlu", k=rng.randint(2, 9))) for _ in range(VOCABULARY)]
    frequencies = list(itertools.accumulate(1 / (rank + 3) for rank in range(VOCABULARY)))
    originals: list[tuple[int, list[str]]] = []
    for index in range(count):
        kind = rng.choices(KINDS, WEIGHTS)[0] if len(originals) > 10 else "original"
        if kind == "original":
            words = rng.choices(vocabulary, cum_weights=frequencies, k=rng.randint(WORDS * 3 // 4, WORDS * 5 // 4))
            originals.append((index, words))
            yield f"original-{index}", " ".join(words)
            continue
        source, words = originals.pop(rng.randrange(len(originals)))
        if kind == "near":
            words = edited(words, vocabulary, rng)
        if kind == "half":
            words = words[: len(words) // 2] + rng.choices(vocabulary, cum_weights=frequencies, k=len(words) // 2)
        yield f"{kind}-{index}-{source}", " ".join(words)
        del originals[:-WAITING]


def edited(words: list[str], vocabulary: list[str], rng: random.Random) -> list[str]:
    parts = [[word] for word in words]
    for place in rng.sample(range(len(words)), round(EDITED_SHARE * len(words))):
        parts[place] = rng.choice(([rng.choice(vocabulary)], [], parts[place] * 2))
    return [word for part in parts for word in part]


def write(count: int, folder: Path) -> None:
    made = documents(count, random.Random(1))
    for number in itertools.count():
        part = list(itertools.islice(made, DOCUMENTS_PER_FILE))
        if not part:
            return
        folder.mkdir(exist_ok=True)
        rows = [{"id": name, "source": "bench", "text": text, "language": "en", "score": 0.5} for name, text in part]
        table = pa.Table.from_pylist(rows, pa.schema([*SCHEMAS["documents"], *steps.MEASURED]))
        pq.write_table(table, folder / f"{number:05d}.parquet")


def ours(data: Path, work: Path, workers: int) -> None:
    keys, pairs, clusters, settings = (work / name for name in ("keys", "pairs", "clusters", "executor.yaml"))
    work.mkdir()
    settings.write_text(f"executor: local\nworkers: {workers}\n", encoding="utf-8")
    found = steps.slices(data)
    read, write_out = steps.Read("documents", found), steps.Write("documents", work / "out")
    with Executor(settings) as executor:
        executor.run([read, duplicate_steps.WriteKeys("documents", keys, NEAR)], len(found), work / "1")
        find = duplicate_steps.FindPairs("documents", keys, pairs, NEAR.threshold)
        executor.run([find], duplicate_steps.partitions(keys), work / "2")
        executor.run([duplicate_steps.Cluster(keys, pairs, clusters)], 1, work / "3")
        executor.run([read, duplicate_steps.RemoveDuplicates(clusters, None), write_out], len(found), work / "4")


def ids(folder: Path) -> set[str]:
    return {name for file in folder.iterdir() for name in pq.read_table(file, columns=["id"])["id"].to_pylist()}


def judge(before: set[str], after: set[str], seconds: float) -> Outcome:
    """A planted pair is caught when one of the two is left; whatever else is missing is a false
    removal.
    """
    caught = {"exact": [0, 0], "near": [0, 0]}
    gone = before - after
    for name in before:
        kind, *_, source = name.split("-")
        if kind in caught:
            pair = {name, f"original-{source}"}
            caught[kind][len(pair & gone) == 1] += 1
            gone -= {min(pair & gone)} if pair & gone else set()
    shares = {kind: yes / max(1, yes + no) for kind, (no, yes) in caught.items()}
    return Outcome(len(before) / seconds, shares["near"], shares["exact"], len(gone))


def watched(work: Callable[[], None]) -> tuple[float, float]:
    """Run `work`; return seconds, and the largest memory (resident, MiB) of this process and its
    descendants.
    """
    peak, done = 0.0, threading.Event()

    def look() -> None:
        nonlocal peak
        me = psutil.Process()
        while not done.wait(0.05):
            total = 0
            for process in [me, *me.children(recursive=True)]:
                try:
                    total += process.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            peak = max(peak, total / 2**20)

    thread = threading.Thread(target=look)
    thread.start()
    started = time.monotonic()
    try:
        work()
    finally:
        seconds = time.monotonic() - started
        done.set()
        thread.join()
    return seconds, peak


def compare(count: int, workers: int, rounds: int) -> None:
    from bench.stock_minhash import stock

    sides: dict[str, Callable[[Path, Path, int], None]] = {
        "datatrove, 14 bands of 8": partial(stock, words=NEAR.words, bands=14, rows=8),
        f"datatrove, {NEAR.bands} bands of {NEAR.rows}": partial(
            stock, words=NEAR.words, bands=NEAR.bands, rows=NEAR.rows
        ),
        f"curate, {NEAR.bands} bands of {NEAR.rows}": ours,
    }
    found: dict[str, list[Outcome]] = {name: [] for name in sides}
    with TemporaryDirectory() as place:
        data = Path(place) / "data"
        write(count, data)
        before = ids(data)
        for number, (name, side) in itertools.product(range(rounds), sides.items()):
            work = Path(place) / f"{name}-{number}"
            seconds, _ = watched(partial(side, data, work, workers))
            found[name].append(outcome := judge(before, ids(work / "out"), seconds))
            print(f"{name:<28}{outcome.per_second:>12,.0f} documents/s", flush=True)
    print(f"\n{count:,} documents of about {WORDS} words, {workers} workers; documents/s: median of {rounds} rounds\n")
    print(
        f"{'':<28}{'documents/s':>12}{'near found':>12}{'exact found':>13}{'false removals':>16}  curate is faster by"
    )
    *_, mine = found.values()
    for name, outcomes in found.items():
        speed = statistics.median(one.per_second for one in outcomes)
        ratios = [own.per_second / one.per_second for own, one in zip(mine, outcomes, strict=True)]
        last = outcomes[-1]
        line = f"{name:<28}{speed:>12,.0f}{last.recall:>12.4f}{last.exact:>13.4f}{last.false_removals:>16}"
        print(line + "  " + ", ".join(f"{ratio:.1f}" for ratio in ratios))


def measure(counts: list[int], workers: int) -> None:
    print(f"{'documents':>12}{'documents/s':>14}{'peak MiB':>10}")
    for count in counts:
        with TemporaryDirectory() as place:
            data = Path(place) / "data"
            write(count, data)
            seconds, peak = watched(partial(ours, data, Path(place) / "work", workers))
            print(f"{count:>12,}{count / seconds:>14,.0f}{peak:>10,.0f}", flush=True)


def main(
    count: Annotated[int, typer.Option(help="Documents.")] = 50_000,
    workers: Annotated[int, typer.Option(help="Processes.")] = 2,
    rounds: Annotated[int, typer.Option(help="Times each side runs, in turns.")] = 2,
    memory: Annotated[str, typer.Option(help="Numbers of documents, by commas: measure memory instead.")] = "",
) -> None:
    """Compare, or measure memory."""
    if memory:
        measure([int(one) for one in memory.split(",")], workers)
    else:
        compare(count, workers, rounds)


if __name__ == "__main__":
    typer.run(main)
