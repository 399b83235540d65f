"""Everything that only a GPU can prove, in minutes and offline: the tests marked `gpu`, speed and
memory of training and decoding, PPO against TRL 1.12, determinism, a kill and a resume.

    python -m bench.gpu --device cuda --data docs/gpu.json

Each part runs in a process of its own and is ended when its time is over, the whole after
`--seconds`; what a part had measured by then stays. It prints one table and puts it into the data
file, under the device's name. On a CPU (`--device cpu`) sizes are tiny: that shows that it runs.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parents[2]
ROW = "ROW "
SECONDS = {"facts": 40, "train": 110, "decode": 60, "ppo": 110, "determinism": 70, "resume": 60, "tests": 170}
"""Of each part at most, in the order of their worth; on a CPU that others share, five times."""
Row = dict[str, Any]


class Check:
    """One run of all parts."""

    def __init__(self, device: str, seconds: float, folder: Path) -> None:
        self.device, self.folder = device, folder
        self.began = time.monotonic()
        self.ends = self.began + seconds
        self.environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        if device == "cpu":
            self.environment |= {"CUDA_VISIBLE_DEVICES": ""}

    def run(self, part: str, command: list[str], **environment: str) -> tuple[list[str], str]:
        """Run a command as part; return what it printed, and why it has not ended well."""
        left = min(SECONDS[part] * (5 if self.device == "cpu" else 1), self.ends - time.monotonic())
        if left <= 0:
            return [], "no time was left"
        said = self.folder / f"{part}.log"
        with said.open("w", encoding="utf-8") as log:
            process = subprocess.Popen(
                [sys.executable, *command],
                cwd=ROOT,
                env=self.environment | environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                code, why = process.wait(left), ""
            except subprocess.TimeoutExpired:
                code, why = 0, f"ended after {left:.0f} s"
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        lines = said.read_text(encoding="utf-8", errors="replace").splitlines()
        return lines, why or (f"failed: {lines[-1] if lines else ''}" if code else "")

    def measure(self, part: str, **environment: str) -> Iterator[Row]:
        """Yield the rows of a part that holds a model, and one more where it has not ended well."""
        command = ["-m", "bench.gpu.measure", part, self.device, str(self.folder)]
        lines, why = self.run(part, command, **environment)
        yield from (json.loads(line.removeprefix(ROW)) for line in lines if line.startswith(ROW))
        if why:
            yield row(part, why)

    def tests(self) -> Iterator[Row]:
        """Yield how the tests marked `gpu` went."""
        command = ["-m", "pytest", "-m", "gpu", "tests/test_gpu.py", "-q", "-rs", "-p", "no:cacheprovider"]
        lines, why = self.run("tests", command)
        yield row("tests marked gpu", why or lines[-1].strip("= "))

    def resume(self) -> Iterator[Row]:
        """Yield whether a training that is killed and goes on ends with the bits of one that was
        never stopped.
        """
        from bench.gpu import killed

        yield row("kill -9 and resume", killed.compared(self))


def row(name: str, value: float | str, unit: str = "", note: str = "") -> Row:
    """Return a row of the table."""
    return {"name": name, "value": value, "unit": unit, "note": note}


def parts(check: Check, chosen: list[str]) -> Iterator[tuple[str, Iterator[Row]]]:
    """Yield the parts by name."""
    for part in chosen:
        if part in ("tests", "resume"):
            yield part, getattr(check, part)()
        else:
            # cuBLAS is deterministic only with such a workspace, and reads it when it starts
            more = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"} if part == "determinism" else {}
            yield part, check.measure(part, **more)


def shown(found: Row) -> str:
    """Return a row for people."""
    value = f"{found['value']:,}" if isinstance(found["value"], (int, float)) else found["value"]
    return f"{found['name']:<36}{value} {found['unit']}" + (f"  ({found['note']})" if found["note"] else "")


def put(file: Path, record: dict[str, Any]) -> None:
    """Write a run into the data file, in place of the one of the same device."""
    known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    known[record["device"]] = record
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def main() -> None:
    """Run the parts, print the table and write it."""
    options = argparse.ArgumentParser(prog="python -m bench.gpu")
    options.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    options.add_argument("--data", type=Path, default=ROOT / "docs/gpu.json")
    options.add_argument("--seconds", type=float, help="of the whole; 480 on a GPU")
    options.add_argument("--parts", default=",".join(list(SECONDS)[1:]))
    options.add_argument("--trl", default="", help="TRL 1.12: its interpreter, or a folder of packages for this one")
    options.add_argument("--logs", type=Path, help="folder that gets what each part printed")
    given = options.parse_args()
    seconds = given.seconds or (480 if given.device == "cuda" else 2400)
    with TemporaryDirectory() as place:
        folder = given.logs.absolute() if given.logs else Path(place)
        folder.mkdir(parents=True, exist_ok=True)
        if given.trl:
            (folder / "peer").write_text(str(Path(given.trl).absolute()), encoding="utf-8")
        check = Check(given.device, seconds, Path(place) if not given.logs else folder)
        about = next(iter(check.measure("facts")), {})
        if "device" not in about:
            raise SystemExit(f"lathe: gpu-check cannot start: {about.get('value')}")
        found: list[Row] = []
        for part, rows in parts(check, given.parts.split(",")):
            start = time.monotonic()
            for one in rows:
                found.append(one | {"part": part})
                print(shown(one), flush=True)
            print(f"{'':<36}{part}: {time.monotonic() - start:.0f} s", flush=True)
        spent = round(time.monotonic() - check.began)
        day = datetime.now(UTC).date().isoformat()
        put(given.data, about | {"date": day, "seconds": spent, "rows": found})
        print(f"{about['device']}: {spent} s in all; written to {given.data}")


if __name__ == "__main__":
    main()
