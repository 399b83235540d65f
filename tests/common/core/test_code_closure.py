"""What a stage can reach is read in the source, and stops at what only watches."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stages.common.core import checkpoints, code_closure

ROOT = code_closure.ROOT


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "stages", tmp_path / "stages", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def edited(root: Path, file: str) -> Path:
    """Change a line of code in a copy of the project, and let the next look read it anew."""
    path = root / file
    path.write_text(path.read_text(encoding="utf-8") + "\nCHANGED = True\n", encoding="utf-8")
    code_closure.imported.cache_clear()
    return root


def test_ppo_is_known_by_its_rollouts_though_they_are_imported_late(copied: Path) -> None:
    first = checkpoints.fingerprint("ppo", {}, {}, copied)
    assert first != checkpoints.fingerprint("ppo", {}, {}, edited(copied, "stages/common/ppo/rollouts.py"))


@pytest.mark.parametrize(
    ("stage", "file"),
    [
        ("sample", "stages/common/generation/kv_cache.py"),
        ("reward", "stages/common/generation/packed_forward.py"),
        ("curate", "stages/common/curate/pipelines.py"),
        ("validate", "stages/common/validate/steps.py"),
        ("promote", "stages/evaluate.py"),
        ("promote", "stages/common/evaluation/metrics.py"),
    ],
)
def test_late_imports_and_stages_that_are_run_count(copied: Path, stage: str, file: str) -> None:
    first = checkpoints.fingerprint(stage, {}, {}, copied)
    assert first != checkpoints.fingerprint(stage, {}, {}, edited(copied, file))


@pytest.mark.parametrize("package", sorted(code_closure.OBSERVERS))
def test_an_edit_of_an_observer_changes_no_fingerprint(copied: Path, package: str) -> None:
    stages = [path.stem for path in (copied / "stages").glob("*.py") if path.stem != "__init__"]
    first = {stage: checkpoints.fingerprint(stage, {}, {}, copied) for stage in stages}
    for file in sorted((copied / code_closure.COMMON / package).glob("*.py")):
        edited(copied, str(file.relative_to(copied)))
    assert first == {stage: checkpoints.fingerprint(stage, {}, {}, copied) for stage in stages}


def test_an_observer_is_known_by_its_folder_not_by_its_name(copied: Path) -> None:
    """`validate/progress.py` would be code of validate, whatever `runtime/progress.py` is."""
    (copied / "stages/common/validate/progress.py").write_text("STEP = 1\n", encoding="utf-8")
    steps = copied / "stages/common/validate/steps.py"
    text = steps.read_text(encoding="utf-8")
    steps.write_text(text + "\nfrom stages.common.validate import progress\n", encoding="utf-8")
    code_closure.imported.cache_clear()
    first = checkpoints.fingerprint("validate", {}, {}, copied)
    assert first != checkpoints.fingerprint("validate", {}, {}, edited(copied, "stages/common/validate/progress.py"))


def test_a_fingerprint_is_the_same_whatever_was_imported_before() -> None:
    code = "from stages.common.core.checkpoints import fingerprint; print(fingerprint('ppo', {}, {}))"
    more = "import stages.common.ppo.rollouts, stages.common.generation.kv_cache; "
    said = [
        subprocess.run([sys.executable, "-c", one], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for one in (code, more + code)
    ]
    assert said[0] == said[1] and len(said[0].strip()) == 16
