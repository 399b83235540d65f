"""What is collected for a machine without a registry is what it lacks, and no more."""

from pathlib import Path

import pytest

from flows.cli import wheelhouse
from stages.common.runtime.errors import ParamsError, TryAgainError

ROOT = Path(__file__).parents[3]
IMAGE = wheelhouse.listed(ROOT / "infra/images/torch-cuda13.txt")
TESTED = wheelhouse.listed(ROOT / "constraints.txt")


def test_little_is_lacking_on_an_image_with_torch() -> None:
    found = wheelhouse.lacking(wheelhouse.CHECKED, IMAGE, TESTED)
    assert set(found) == {
        "annotated-types", "datasets", "dill", "multiprocess", "orjson", "pydantic", "pydantic-core", "ruamel-yaml",
        "trl", "typing-extensions", "typing-inspection",
    }  # fmt: skip
    assert found["trl"] == TESTED["trl"]


def test_what_the_image_has_too_old_is_collected_and_torch_never() -> None:
    old = IMAGE | {"psutil": "1.0", "torch": "1.0"}
    found = wheelhouse.lacking(["psutil>=7", "torch>=2.13"], old, TESTED)
    assert found == {"psutil": TESTED["psutil"]}


def test_without_an_image_everything_is_collected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert "dvc-s3>=3.3" in wheelhouse.roots("all", ["s3"])
    found = wheelhouse.lacking(wheelhouse.roots("all", []), {}, TESTED)
    assert {"torch", "mlflow", "sympy"} <= set(found) and len(found) > 200
    assert all(TESTED.get(name, version) == version for name, version in found.items())


def test_what_another_python_needs_is_told_by_its_markers(monkeypatch: pytest.MonkeyPatch) -> None:
    here = {"one": ("1", ["two; python_version >= '3.12'", "three; extra == 'more'"]), "two": ("2", [])}
    monkeypatch.setattr(wheelhouse, "installed", here.__getitem__)
    assert wheelhouse.lacking(["one"], {}, {}, "3.11") == {"one": "1"}
    assert wheelhouse.lacking(["one"], {}, {}, "3.12") == {"one": "1", "two": "2"}


def test_a_package_that_is_not_installed_is_named() -> None:
    with pytest.raises(ParamsError, match="not-there is not installed here"):
        wheelhouse.lacking(["not-there"], {}, TESTED)


@pytest.mark.parametrize("tag", ["py3-none-any", "cp311-cp311-linux_x86_64"])
def test_what_has_no_wheel_is_built_when_it_is_python_alone(
    tag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def pip(task: str, out: Path, packages: dict[str, str], *_: str) -> str:
        asked.append((task, dict(packages)))
        if task == "download" and "old-one" in packages:
            return "ERROR: No matching distribution found for old.one==2"
        for name in packages:
            (out / f"{name.replace('-', '_')}-2-{tag}.whl").touch()
        return ""

    monkeypatch.setattr(wheelhouse, "pip", pip)
    packages = {"new": "2", "old-one": "2"}
    if tag.endswith("any"):
        wheelhouse.fetch(packages, tmp_path / "out", "3.12")
    else:
        with pytest.raises(ParamsError, match=r"old_one-2-.* is built for this machine alone"):
            wheelhouse.fetch(packages, tmp_path / "out", "3.12")
    assert asked == [("download", packages), ("download", {"new": "2"}), ("wheel", {"old-one": "2"})]


def test_a_registry_out_of_reach_is_another_time_s_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheelhouse, "pip", lambda *_: "ERROR: no route to host")
    with pytest.raises(TryAgainError, match="no route to host"):
        wheelhouse.fetch({"new": "2"}, tmp_path, "3.12")


def test_a_list_is_read_as_pip_writes_it(tmp_path: Path) -> None:
    (tmp_path / "image.txt").write_text("# mine\ntorch==2.11.0+cu130\nPyYAML\nruamel.yaml==0.19.1  # new\n")
    assert wheelhouse.listed(tmp_path / "image.txt") == {"torch": "2.11.0", "pyyaml": "", "ruamel-yaml": "0.19.1"}
