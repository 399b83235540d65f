"""datatrove's own MinHash blocks, read to write, as `near_duplicates.py` compares them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from datatrove.data import Document
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.readers import ParquetReader
from datatrove.pipeline.writers import ParquetWriter
from datatrove.utils.text import TextNormConfig
from datatrove.utils.word_tokenizers import WordTokenizer


class Spaces(WordTokenizer):
    """Splits at spaces: datatrove's default needs spaCy, and any other is slower."""

    def word_tokenize(self, text: str) -> list[str]:
        return text.split()

    def sent_tokenize(self, text: str) -> list[str]:
        return [text]

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        return [(0, len(text))]


def as_row(_: ParquetWriter, document: Document) -> dict[str, Any]:
    return {"id": document.id, "text": document.text}


def stock(data: Path, work: Path, workers: int, words: int, bands: int, rows: int) -> None:
    """Digits stay digits: datatrove's default makes texts that differ in their numbers alike."""
    digits = TextNormConfig(norm_numbers=False)
    settings = MinhashConfig(n_grams=words, num_buckets=bands, hashes_per_bucket=rows, norm_config=digits)
    tasks, keys, pairs, clusters = (len(list(data.iterdir())), *(str(work / name) for name in ("keys", "pairs", "cl")))
    read, write_out = ParquetReader(str(data), read_metadata=False), ParquetWriter(str(work / "out"), adapter=as_row)
    pipelines: list[tuple[list[PipelineStep], int]] = [
        ([read, MinhashDedupSignature(keys, settings, language=Spaces())], tasks),
        ([MinhashDedupBuckets(keys, pairs, config=settings)], settings.num_buckets),
        ([MinhashDedupCluster(pairs, clusters, config=settings)], 1),
        ([read, MinhashDedupFilter(clusters), write_out], tasks),
    ]
    for number, (pipeline, size) in enumerate(pipelines, 1):
        logs = str(work / str(number))
        with quiet():
            LocalPipelineExecutor(pipeline, tasks=size, workers=min(workers, size), logging_dir=logs).run()


@contextmanager
def quiet() -> Iterator[None]:
    """Inside, standard error goes nowhere, that of new processes too: each task would print its
    statistics there.
    """
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
