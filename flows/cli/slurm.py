"""A trainer on several machines of a Slurm cluster: in place of `accelerate launch` in
`run.launcher`, with the same options.

It writes a batch script to logs/slurm, hands it to `sbatch` and waits: one task a machine, each of
which starts `accelerate launch` with its machine rank. Asked to stop, it has the tasks stopped,
which save, and waits for them. Options of sbatch lie in infra/slurm/sbatch.yaml, or the file that
LATHE_SLURM names.

Command: python -m flows.cli.slurm --config_file infra/accelerate/zero3.yaml --num_machines 2
--num_processes 16 -m stages.sft …
"""

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.common.core import params
from stages.common.runtime import errors, parent_death
from stages.common.runtime.errors import ParamsError

VARIABLE = "LATHE_SLURM"
DEFAULT = Path("infra/slurm/sbatch.yaml")
FOLDER = Path("logs/slurm")
OURS = ("--num_machines", "--num_processes", "--config_file")
SET_HERE = ("--machine_rank", "--main_process_ip", "--main_process_port", "--deepspeed_multinode_launcher")
SCRIPT = """\
#!/bin/bash
{options}
# One task a machine; Slurm tells each its number. The first machine's address is the meeting point.
set -eu
export MAIN_ADDRESS="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"
export MAIN_PORT="$((20000 + SLURM_JOB_ID % 20000))"
cd {folder}
srun --nodes={machines} --ntasks={machines} --ntasks-per-node=1 --kill-on-bad-exit=1 \\
  bash -c 'exec "$0" -m accelerate.commands.launch --machine_rank "$SLURM_NODEID" \\
    --main_process_ip "$MAIN_ADDRESS" --main_process_port "$MAIN_PORT" "$@"' \\
  {words}
"""


def split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the options of accelerate, and what it starts, from `-m` on. Raises ParamsError for
    options that say where a machine stands: Slurm does.
    """
    if "-m" not in words:
        raise ParamsError("nothing to start: no -m stages.…", where="run.launcher")
    at = list(words).index("-m")
    launch, command = list(words[:at]), list(words[at:])
    for name in OURS:
        if name not in launch:
            raise ParamsError(f"{name} is missing", where="run.launcher", remedy=f"say {name}, as to accelerate launch")
    for name in SET_HERE:
        if name in launch:
            raise ParamsError(f"{name} is Slurm's to say", where="run.launcher", remedy="leave it out")
    return launch, command


def script(words: Sequence[str], sbatch: Mapping[str, Any], folder: Path) -> str:
    """Return the batch script that runs in `folder` what `words` say; `sbatch` are options of it by
    name.

    Raises ParamsError where the processes cannot be shared out evenly.
    """
    launch, command = split(words)
    machines, processes = (int(launch[launch.index(name) + 1]) for name in OURS[:2])
    if processes % machines:
        what = f"{processes} processes on {machines} machines are not as many on each"
        raise ParamsError(what, where="run.launcher", remedy="make --num_processes a multiple of --num_machines")
    file = Path(launch[launch.index("--config_file") + 1])
    kind = params.plain(params.read_yaml(file)).get("distributed_type")
    multinode = ["--deepspeed_multinode_launcher", "standard"] if kind == "DEEPSPEED" else []
    name = os.environ.get("DVC_STAGE", command[1])
    given = {"job-name": f"lathe-{name}", "nodes": machines, "ntasks-per-node": 1, **sbatch}
    given.setdefault("gpus-per-node", processes // machines)
    said = {key: "" if value is True else f"={value}" for key, value in given.items() if value is not False}
    return SCRIPT.format(
        options="\n".join(f"#SBATCH --{key}{value}" for key, value in said.items()),
        folder=shlex.quote(str(folder)),
        machines=machines,
        words=shlex.join([sys.executable, *multinode, *launch, *command]),
    )


def run(words: Sequence[str]) -> int:
    """Hand the script to Slurm and return the job's exit code when it has ended."""
    file = Path(os.environ.get(VARIABLE, DEFAULT))
    options = params.plain(params.read_yaml(file)) or {}
    written = FOLDER / f"{os.environ.get('DVC_STAGE', 'stage')}.sbatch"
    written.parent.mkdir(parents=True, exist_ok=True)
    written.write_text(script(words, {"output": f"{FOLDER}/%x-%j.out", **options}, Path.cwd()), encoding="utf-8")
    with subprocess.Popen(["sbatch", "--parsable", "--wait", str(written)], stdout=subprocess.PIPE, text=True) as job:
        assert job.stdout is not None
        number = job.stdout.readline().strip().partition(";")[0]

        def stop(*_: object) -> None:
            subprocess.run(["scancel", "--signal=TERM", number], check=False)  # the tasks, not the script

        for one in (signal.SIGTERM, signal.SIGINT):
            signal.signal(one, stop)
        parent_death.die_with_parent()
        print(f"lathe: Slurm job {number or '?'}, {written}, log {FOLDER}/*-{number}.out", file=sys.stderr, flush=True)
        return job.wait()


def main() -> int:
    """Run what the command line says; a wrong one is a line and exit code 3."""
    try:
        return run(sys.argv[1:])
    except errors.StageError as error:
        print(f"lathe: {error}", file=sys.stderr)
        return error.code
    except FileNotFoundError as error:
        print(f"lathe: {error.filename} is not here: is this a login node of a Slurm cluster?", file=sys.stderr)
        return errors.EXIT_PARAMS


if __name__ == "__main__":
    sys.exit(main())
