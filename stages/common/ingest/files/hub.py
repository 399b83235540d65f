"""Hugging Face data sets as rows, streamed, through the same parsers as raw files; no code of
theirs is run.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.common.core.params import PARAMS_FILE, StageParams
from stages.common.ingest.files.rows import Kind, Row
from stages.common.runtime.errors import DataError, ParamsError, TryAgainError

SECTION = "ingest.datasets"
PREFIX = "hf/"


class Dataset(StageParams):
    """One entry of `ingest.datasets`."""

    name: str
    """`owner/name` on the hub, or a local folder of data files."""
    split: str = "train"
    """The split to read."""
    config: str | None = None
    """The configuration, for data sets that have several."""
    revision: str | None = None
    """The commit to read; a data set on the hub needs one, or tomorrow's rows would be others."""

    @property
    def is_local(self) -> bool:
        """Whether it is a folder here."""
        return Path(self.name).is_dir()

    @property
    def source(self) -> str:
        """Return `hf/<name>`, with configuration and split where they are not the usual ones; never
        a path of here.
        """
        name = Path(self.name).resolve().name if self.is_local else self.name
        split = "" if self.split == "train" else self.split
        return PREFIX + "/".join(part for part in (name, self.config, split) if part)


@dataclass
class HubRows:
    """An open data set: its rows, numbered from 1; how much of it is left nobody knows."""

    stream: Any
    name: str
    kind: Kind = "dataset"
    encoding: str = ""

    def rows(self) -> Iterator[Row]:
        """Yield the rows. Raises DataError or TryAgainError when the data set cannot be read on."""
        with explained(self.name):
            for number, value in enumerate(self.stream, 1):
                yield Row(number, b"", value=value)

    def position(self) -> int:
        """Return 0: a data set's size in bytes is not known."""
        return 0


def check(datasets: list[Dataset]) -> None:
    """Raise ParamsError for a data set whose rows could be others tomorrow, and for one named
    twice.
    """
    for place, dataset in enumerate(datasets):
        if not dataset.is_local and not dataset.revision:
            what = f"'{SECTION}': {dataset.name} has no revision, and is no folder here"
            raise ParamsError(what, where=PARAMS_FILE, remedy="pin it: revision: <commit of the data set's repository>")
        if dataset.source in [other.source for other in datasets[:place]]:
            raise ParamsError(f"'{SECTION}': {dataset.source} is named twice", where=PARAMS_FILE)


def open_dataset(dataset: Dataset) -> HubRows:
    """Return the data set, streamed. Raises DataError when there is none, TryAgainError when it
    cannot be reached.
    """
    from datasets import load_dataset

    with explained(dataset.name):
        stream = load_dataset(
            dataset.name, dataset.config, split=dataset.split, revision=dataset.revision, streaming=True
        )
        return HubRows(stream, dataset.name)


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Turn what the libraries raise into one line that names the data set."""
    import httpx
    from datasets.exceptions import DatasetsError

    try:
        yield
    except (ConnectionError, TimeoutError, httpx.HTTPError) as error:
        raise TryAgainError(f"cannot be reached: {_line(error)}", where=f"{SECTION}: {name}") from error
    except (DatasetsError, OSError, ValueError, RuntimeError) as error:
        raise DataError(
            _line(error), where=f"{SECTION}: {name}", remedy="see name, config, split and revision"
        ) from error


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:300]
