"""The checkpoints of a training in DVC's default remote; shared_checkpoints.py starts this as a
process of its own.

Layout there: checkpoints/<stage>/<fingerprint>/<step>.json names the files that a resume at that
step needs, with their SHA-256; files/<sha256> are these. A list is written last, and who fetches
hashes every byte before the first is used.

Command: python -m stages.common.tracking.checkpoint_remote send|fetch FOLDER
"""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from stages.common.core import checkpoints
from stages.common.core.models import file_sha256
from stages.common.runtime.errors import ParamsError, StageError

MODULE = "stages.common.tracking.checkpoint_remote"
KEPT_THERE = 2
"""Lists that stay in the remote for each training."""
ANSWER_SECONDS = 60
"""For how long the remote may say nothing to the first question."""
SENDING = ".sending-"
"""Folders of hard links to what is on its way: the training may remove its own meanwhile."""
Hashes = dict[str, str]


def _hashes(folder: Path) -> Hashes:
    """Return name -> SHA-256 of the files in `folder`, from manifests where there are some."""
    known: Hashes = {}
    for manifest in folder.rglob(checkpoints.MANIFEST):
        inside = manifest.parent.relative_to(folder)
        sealed = json.loads(manifest.read_text(encoding="utf-8"))
        known |= {str(inside / name): sha for name, sha in sealed.items() if name != checkpoints.PLACE}
    names = [str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()]
    return {name: known.get(name) or file_sha256(folder / name) for name in names}


class Remote:
    """The place of one training in DVC's default remote. Raises ParamsError when there is none."""

    def __init__(self, training: Path) -> None:
        from dvc.repo import Repo

        with Repo() as repo:
            name = repo.config["core"].get("remote")
            if not name:
                raise ParamsError("'run.checkpoints' is remote, and DVC has no default remote")
            remote = repo.cloud.get_remote(name)
        self.name, self.files = name, remote.fs
        self.top = self.files.join(remote.path, checkpoints.ROOT.name, *training.parts[-2:])
        self.names: set[str] = set()
        with suppress(FileNotFoundError):
            self.names = {"/".join(self.files.relparts(path, self.top)) for path in self.files.find(self.top)}

    def steps(self) -> list[int]:
        """Return the steps that have a list, the newest last."""
        lists = [name.removesuffix(".json") for name in self.names if name.endswith(".json")]
        return sorted(int(name) for name in lists if name.isdecimal())

    def get(self, name: str, to: Path) -> None:
        """Bring a file here."""
        to.parent.mkdir(parents=True, exist_ok=True)
        self.files.get_file(self.files.join(self.top, *name.split("/")), str(to))

    def put(self, file: Path, name: str) -> None:
        """Bring a file there, unless it is there in its whole length."""
        place = self.files.join(self.top, *name.split("/"))
        if name not in self.names or self.files.size(place) != file.stat().st_size:
            self.files.makedirs(self.files.parent(place))
            self.files.put_file(str(file), place)
            self.names.add(name)

    def remove(self, names: list[str]) -> None:
        """Remove files there."""
        for name in names:
            with suppress(FileNotFoundError):
                self.files.rm(self.files.join(self.top, *name.split("/")))


def send(links: Path) -> None:
    """Send a folder of links and remove it; of the lists there only the newest stay, with what they
    name.
    """
    try:
        remote, hashes = Remote(links.parent), _hashes(links)
        step = int(links.name.removeprefix(SENDING))
        for name, sha in hashes.items():
            remote.put(links / name, f"files/{sha}")
        (written := links / "list").write_text(json.dumps(hashes, indent=1, sort_keys=True), encoding="utf-8")
        remote.names.discard(f"{step}.json")
        remote.put(written, f"{step}.json")
        stay = sorted({*remote.steps(), step})[-KEPT_THERE:]
        named = {sha for one in stay for sha in _list(remote, one, links).values()}
        old = [f"{one}.json" for one in remote.steps() if one not in stay]
        remote.remove(old + [name for name in remote.names if name[:6] == "files/" and name[6:] not in named])
    finally:
        shutil.rmtree(links, ignore_errors=True)


def take(folder: Path) -> None:
    """Bring the newest checkpoint there into `folder`, unless one here is as new; one whose bytes
    are not as listed is passed over.
    """
    signal.alarm(ANSWER_SECONDS)
    remote = Remote(folder)
    signal.alarm(0)
    here = max(map(checkpoints.step, checkpoints.in_order(folder)), default=-1)
    aside = folder / ".fetching"
    for step in reversed([step for step in remote.steps() if step > here]):
        shutil.rmtree(aside, ignore_errors=True)
        try:
            hashes = _list(remote, step, aside)
            for name, sha in hashes.items():
                remote.get(f"files/{sha}", aside / name)
                if file_sha256(aside / name) != sha:
                    raise FileNotFoundError(f"{name}: content differs from the list")
        except (OSError, ValueError) as error:
            print(f"checkpoint {step} of the remote '{remote.name}' is not usable: {error}")
            continue
        _settle(aside, folder)
        print(f"checkpoint of step {step} came from the remote '{remote.name}'")
        break
    shutil.rmtree(aside, ignore_errors=True)


def _list(remote: Remote, step: int, aside: Path) -> Hashes:
    """Return a list of the remote. Raises ValueError for a name that leads out of the folder."""
    remote.get(f"{step}.json", aside / "list")
    found: Hashes = json.loads((aside / "list").read_text(encoding="utf-8"))
    (aside / "list").unlink()
    if wrong := [name for name in found if Path(name).is_absolute() or ".." in Path(name).parts]:
        raise ValueError(f"{wrong[0]}: no name of a file of a training")
    return found


def _settle(aside: Path, folder: Path) -> None:
    """Move what was fetched to its place, the checkpoint last; what is there already stays."""
    whole = [path.parent for path in aside.rglob(checkpoints.MANIFEST)]
    loose = [path for path in aside.iterdir() if path.is_file()]
    for path in [*loose, *sorted(whole, key=lambda path: path.parent == aside)]:
        place = folder / path.relative_to(aside)
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            path.rename(place)


def main(what: str, folder: Path) -> int:
    """Send or fetch; a training that is asked to stop says by itself how long it waits for us."""
    for number in (signal.SIGTERM, signal.SIGINT) if what == "send" else ():
        signal.signal(number, signal.SIG_IGN)
    os.nice(5)
    calls: dict[str, Callable[[Path], None]] = {"send": send, "fetch": take}
    try:
        calls[what](folder)
    except StageError as error:
        print(error, file=sys.stderr)
        return error.code
    except Exception as error:  # the boundary: a remote may fail in any way, and training goes on
        print(f"{type(error).__name__}: {error}".splitlines()[0], file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1], Path(sys.argv[2])))
