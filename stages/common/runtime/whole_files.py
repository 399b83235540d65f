"""Files and folders that are whole or not there, whoever else writes the same one, and whenever a
process ends.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def written_whole(place: Path) -> Iterator[Path]:
    """Give a path of this process's own to write a file or folder to; it stands at `place` once the
    block has ended well.
    """
    own = own_name(place)
    remove(own)
    try:
        yield own
    except BaseException:
        remove(own)
        raise
    put(own, place)


def own_name(place: Path) -> Path:
    """Return where this process writes what is to stand at `place`; hidden, and of another
    suffix.
    """
    return place.with_name(f".{place.name}.{os.getpid()}")


def put(own: Path, place: Path) -> None:
    """Move what is written whole to its place, instead of what stands there."""
    if own.is_dir():
        old = own.with_name(f"{own.name}.old")
        with suppress(FileNotFoundError):
            place.rename(old)
        own.rename(place)
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.replace(own, place)


def remove(place: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if place.is_dir():
        shutil.rmtree(place, ignore_errors=True)
    else:
        place.unlink(missing_ok=True)


def dismissed(folder: Path) -> None:
    """Remove a folder so that no process ever meets a part of it."""
    gone = own_name(folder)
    remove(gone)
    with suppress(FileNotFoundError):
        folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)
