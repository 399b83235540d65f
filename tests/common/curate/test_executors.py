"""The same pipeline on this machine, on Ray and through a Slurm job script; a killed run
goes on.
"""

import os
import stat
import sys
from pathlib import Path

import pytest
from datatrove.data import DocumentsPipeline
from datatrove.pipeline.base import PipelineStep

from stages.common.curate.executors import Executor
from stages.common.runtime.errors import DataError, ParamsError, StageError

ROOT = Path(__file__).parents[3]
TASKS = 5


class Square(PipelineStep):
    """Writes the square of its rank, and a line a run; fails at `bad`."""

    type, name = "TEST", "square"

    def __init__(self, folder: Path, bad: int = -1) -> None:
        super().__init__()
        self.folder, self.bad = folder, bad

    def run(self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        if rank == self.bad:
            raise DataError("a bad row", where=f"raw.txt:{rank}")
        with (self.folder / f"{rank}.txt").open("a") as handle:
            handle.write(f"{rank**2}\n")
        yield from ()


def settings(folder: Path, text: str) -> Path:
    file = folder / "executor.yaml"
    file.write_text(text)
    return file


def squares(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in sorted(folder.glob("*.txt"))}


EXPECTED = {f"{rank}.txt": f"{rank**2}\n" for rank in range(TASKS)}


@pytest.mark.parametrize("workers", [1, 2])
def test_local_tasks_run_once_however_many_workers_there_are(tmp_path: Path, workers: int) -> None:
    with Executor(settings(tmp_path, f"executor: local\nworkers: {workers}\n")) as executor:
        for _ in range(2):
            executor.run([Square(tmp_path)], TASKS, tmp_path / "work")
    assert squares(tmp_path) == EXPECTED


def test_a_line_of_progress_comes_with_every_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr("stages.common.curate.executors.log.info", lambda line, *said: lines.append(line % said))
    with Executor(settings(tmp_path, "executor: local\nworkers: 1\n")) as executor:
        executor.run([Square(tmp_path)], TASKS, tmp_path / "work")
    assert [line.split(",")[0] for line in lines] == [f"work: {done} of 5 tasks" for done in range(1, 6)]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_task_that_fails_says_its_own_error_and_the_next_run_does_what_is_left(
    tmp_path: Path, workers: int, capfd: pytest.CaptureFixture[str]
) -> None:
    file = settings(tmp_path, f"executor: local\nworkers: {workers}\n")
    with Executor(file) as executor, pytest.raises(DataError, match="a bad row") as caught:
        executor.run([Square(tmp_path, bad=2)], TASKS, tmp_path / "work")
    assert caught.value.where == "raw.txt:2"
    assert "Traceback" not in capfd.readouterr().err
    with Executor(file) as executor:
        executor.run([Square(tmp_path)], TASKS, tmp_path / "work")
    assert {name: text.splitlines()[0] for name, text in squares(tmp_path).items()} == {
        name: text.strip() for name, text in EXPECTED.items()
    }
    assert (tmp_path / "0.txt").read_text() == "0\n"


def test_an_unknown_executor_is_named(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="'spark' is none of local, ray, slurm"):
        Executor(settings(tmp_path, "executor: spark\n"))


def test_the_shipped_files_are_known_kinds() -> None:
    kinds = {file.stem: Executor(file).kind for file in (ROOT / "infra/datatrove").glob("*.yaml")}
    assert kinds == {"local": "local", "ray": "ray", "slurm": "slurm"}


SBATCH = """#!/bin/sh
# What a Slurm controller would do with the script, one array task after the other.
for last in "$@"; do script=$last; done
cp "$script" {folder}/script.slurm
grep -q '^#SBATCH --wait$' "$script" || exit 3
grep -q '^#SBATCH --dependency' "$script" && {{ echo "Submitted batch job 2"; exit 0; }}
count=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$script")
for task in $(seq 0 "$count"); do
    SLURM_ARRAY_TASK_ID=$task SLURM_NODELIST=localhost bash "$script" >>{folder}/slurm.log 2>&1 || exit 1
done
echo "Submitted batch job 1"
"""


@pytest.fixture
def controller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an `sbatch` that runs the job script here, an `srun` that runs its command, and
    `scontrol`.
    """
    folder = tmp_path / "bin"
    folder.mkdir()
    commands = {
        "sbatch": SBATCH.format(folder=tmp_path),
        "srun": '#!/bin/sh\nshift 3\nexec "$@"\n',
        "scontrol": "#!/bin/sh\necho localhost\n",
    }
    for name, text in commands.items():
        (folder / name).write_text(text)
        (folder / name).chmod(stat.S_IRWXU)
    path = os.pathsep.join([str(folder), str(Path(sys.executable).parent), os.environ["PATH"]])
    monkeypatch.setenv("PATH", path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path


@pytest.mark.slow
def test_the_generated_slurm_job_does_the_same(controller: Path) -> None:
    with Executor(ROOT / "infra/datatrove/slurm.yaml") as executor:
        executor.run([Square(controller)], TASKS, controller / "work")
    assert squares(controller) == EXPECTED
    script = (controller / "work/launch_script.slurm").read_text()
    for line in ("--array=0-4", "--time=04:00:00", "--partition=cpu", "--mem-per-cpu=4G", "--wait", "--job-name=work"):
        assert f"#SBATCH {line}\n" in script


def test_without_slurm_the_error_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with Executor(ROOT / "infra/datatrove/slurm.yaml") as executor, pytest.raises(StageError, match="no sbatch here"):
        executor.run([Square(tmp_path)], TASKS, tmp_path / "work")


@pytest.mark.slow
def test_a_ray_cluster_of_two_workers_does_the_same(tmp_path: Path) -> None:
    ray = pytest.importorskip("ray", reason="the extra ray is not installed")
    ray.init(
        num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": str(ROOT)}}
    )
    try:
        file = settings(tmp_path, "executor: ray\nmem_per_cpu_gb: 0.25\n")
        with Executor(file) as executor:
            executor.run([Square(tmp_path)], TASKS, tmp_path / "work")
        assert squares(tmp_path) == EXPECTED
        with Executor(file) as executor, pytest.raises(StageError, match=r"1 tasks did not end well \(2\)"):
            executor.run([Square(tmp_path, bad=2)], TASKS, tmp_path / "again")
    finally:
        ray.shutdown()
