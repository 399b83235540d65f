"""Trainers on several machines through a scheduler that is played by shell scripts: what Slurm
would start on two machines is started on this one.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows.cli import slurm
from flows.plans import memory_plan
from stages.common.runtime.errors import ParamsError

ROOT = Path(__file__).parents[3]
SBATCH = """#!/bin/bash
# --parsable --wait FILE: the number at once, then the job itself
echo "4711;cluster"
exec >"$PLAYED/log" 2>&1
env SLURM_JOB_ID=4711 SLURM_JOB_NODELIST=node[1-2] bash "${@: -1}"
"""
SRUN = """#!/bin/bash
# every task in the background, its process noted for scancel; the first bad exit code is the job's
# and, with --kill-on-bad-exit, the end of the others
while [[ "$1" == --* ]]; do [[ "$1" == --ntasks=* ]] && tasks="${1#*=}"; shift; done
for rank in $(seq 0 $((tasks - 1))); do
  SLURM_NODEID=$rank "$@" & pids[$rank]=$!; echo $! >>"$PLAYED/tasks"
done
bad=0
for _ in "${pids[@]}"; do
  wait -n || { code=$?; ((bad)) || bad=$code; kill -KILL "${pids[@]}" 2>/dev/null; }
done
exit $bad
"""
SCONTROL = "#!/bin/bash\necho 127.0.0.1\necho 127.0.0.2\n"
SCANCEL = '#!/bin/bash\necho "$@" >"$PLAYED/cancelled"\nkill -TERM $(cat "$PLAYED/tasks")\n'
PROBE = """
import os, sys
line = " ".join(os.environ[name] for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE")) + " " + " ".join(sys.argv[1:])
os.write(1, f"rank {line}\\n".encode())
sys.exit(int(sys.argv[1]) if os.environ["RANK"] == "1" else 0)
"""
WAITING = """
import signal, sys, time, pathlib, os
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
pathlib.Path(os.environ["PLAYED"], "running").touch()
time.sleep(60)
"""
LAUNCHER = [
    "--config_file",
    str(ROOT / "infra/accelerate/ddp2.yaml"),
    "--num_machines",
    "2",
    "--num_processes",
    "2",
]


@pytest.fixture
def played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, text in {"sbatch": SBATCH, "srun": SRUN, "scontrol": SCONTROL, "scancel": SCANCEL}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "options.yaml").write_text('partition: "a b"\nexclusive: true\ngpus-per-node: false\n')
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PLAYED": str(tmp_path), "CUDA_VISIBLE_DEVICES": ""}
    environment |= {slurm.VARIABLE: str(tmp_path / "options.yaml"), "PYTHONPATH": f"{ROOT}:{tmp_path}"}
    for name, value in (environment | {"OMP_NUM_THREADS": "1", "DVC_STAGE": "sft"}).items():
        monkeypatch.setenv(name, value)
    return tmp_path


def start(*words: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "flows.cli.slurm", *words]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def test_two_machines_are_one_world_and_a_bad_exit_code_is_the_jobs(played: Path) -> None:
    (played / "probe.py").write_text(PROBE)
    job = start(*LAUNCHER, "-m", "probe", "7", "it's one word")
    _, said = job.communicate(timeout=120)
    log = (played / "log").read_text()
    ranks = sorted(line for line in log.splitlines() if line.startswith("rank "))
    assert ranks == ["rank 0 0 2 7 it's one word", "rank 1 0 2 7 it's one word"], log
    assert job.returncode == 1, "accelerate's own for a rank that failed"
    assert "Slurm job 4711, logs/slurm/sft.sbatch" in said
    options = [line for line in (played / "logs/slurm/sft.sbatch").read_text().splitlines() if "#SBATCH" in line]
    assert options == [
        "#SBATCH --job-name=lathe-sft",
        "#SBATCH --nodes=2",
        "#SBATCH --ntasks-per-node=1",
        "#SBATCH --output=logs/slurm/%x-%j.out",
        "#SBATCH --partition=a b",
        "#SBATCH --exclusive",
    ]


def test_asked_to_stop_it_has_the_tasks_stopped_and_waits_for_them(played: Path) -> None:
    (played / "accelerate/commands").mkdir(parents=True)  # a task that is itself what accelerate would start
    for name in ("accelerate/__init__.py", "accelerate/commands/__init__.py"):
        (played / name).touch()
    (played / "accelerate/commands/launch.py").write_text(WAITING)
    job = start(*LAUNCHER, "-m", "anything")
    end = time.monotonic() + 60
    while not (played / "running").exists():
        assert time.monotonic() < end and job.poll() is None
        time.sleep(0.05)
    job.send_signal(signal.SIGTERM)
    assert job.wait(timeout=30) == 143
    assert (played / "cancelled").read_text() == "--signal=TERM 4711\n"


def test_deepspeed_is_told_to_leave_the_machines_to_slurm() -> None:
    words = ["--config_file", str(ROOT / "infra/accelerate/zero3.yaml"), "--num_machines", "4"]
    words += ["--num_processes", "32", "-m", "stages.sft", "--out", "models/sft"]
    made = slurm.script(words, {}, Path("/shared/a tree"))
    assert "--deepspeed_multinode_launcher standard --config_file" in made
    assert "#SBATCH --gpus-per-node=8\n" in made and "cd '/shared/a tree'\n" in made
    assert made.endswith("--num_processes 32 -m stages.sft --out models/sft\n")
    assert memory_plan.launch("python -m flows.cli.slurm " + " ".join(words[:6]))[:2] == (32, 3)


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (LAUNCHER, "nothing to start"),
        ([*LAUNCHER[:4], "-m", "stages.sft"], "--num_processes is missing"),
        ([*LAUNCHER, "--machine_rank", "0", "-m", "stages.sft"], "--machine_rank is Slurm's to say"),
        ([*LAUNCHER[:5], "3", "-m", "stages.sft"], "3 processes on 2 machines are not as many on each"),
    ],
)
def test_what_cannot_be_started_is_refused(words: list[str], what: str) -> None:
    with pytest.raises(ParamsError, match=what):
        slurm.script(words, {}, Path())


def test_without_slurm_the_error_says_where_it_belongs(played: Path) -> None:
    (played / "sbatch").unlink()
    done = start(*LAUNCHER, "-m", "stages.sft")
    assert "sbatch is not here: is this a login node" in done.communicate(timeout=60)[1]
    assert done.returncode == 3
