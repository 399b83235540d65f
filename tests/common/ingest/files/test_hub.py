"""Data sets of the Hugging Face hub: pinned, streamed, and what goes wrong said in one line."""

import json
from pathlib import Path

import pytest

from stages.common.ingest.files.hub import Dataset, check, explained, open_dataset
from stages.common.runtime.errors import DataError, ParamsError, TryAgainError


def lay(folder: Path, **splits: list[dict[str, str]]) -> Path:
    folder.mkdir()
    for split, rows in splits.items():
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def test_a_folder_is_read_by_split(tmp_path: Path) -> None:
    folder = lay(tmp_path / "mine", train=[{"text": "a"}, {"text": "b"}], test=[{"text": "c"}])
    for split, texts in (("train", ["a", "b"]), ("test", ["c"])):
        rows = list(open_dataset(Dataset(name=str(folder), split=split)).rows())
        assert [(row.line, row.value) for row in rows] == [(n, {"text": text}) for n, text in enumerate(texts, 1)]


def test_a_source_names_what_is_unusual_and_no_place_of_this_machine(tmp_path: Path) -> None:
    folder = lay(tmp_path / "mine", train=[])
    assert Dataset(name=str(folder)).source == "hf/mine"
    assert Dataset(name="owner/name", split="test", config="zh", revision="0a1b").source == "hf/owner/name/zh/test"


def test_a_data_set_on_the_hub_is_pinned_and_named_once(tmp_path: Path) -> None:
    check([Dataset(name="a/b", revision="0a1b"), Dataset(name="a/b", split="test", revision="0a1b")])
    with pytest.raises(ParamsError, match=r"params\.yaml: 'ingest\.datasets': a/b has no revision.*pin it: revision:"):
        check([Dataset(name="a/b")])
    with pytest.raises(ParamsError, match=r"hf/a/b is named twice"):
        check([Dataset(name="a/b", revision="1"), Dataset(name="a/b", revision="2")])
    check([Dataset(name=str(lay(tmp_path / "mine", train=[])))])


@pytest.mark.parametrize("change", [{"split": "nowhere"}, {"config": "nothing"}])
def test_what_is_not_there_is_named(change: dict[str, str], tmp_path: Path) -> None:
    folder = lay(tmp_path / "mine", train=[{"text": "a"}])
    with pytest.raises(
        DataError, match=r"ingest\.datasets: .*mine: ValueError: .*see name, config, split and revision"
    ):
        list(open_dataset(Dataset.model_validate({"name": str(folder)} | change)).rows())


def test_an_empty_folder_is_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="mine"):
        open_dataset(Dataset(name=str(lay(tmp_path / "mine"))))


def test_a_hub_that_does_not_answer_means_try_again() -> None:
    with (
        pytest.raises(TryAgainError, match=r"ingest\.datasets: a/b: cannot be reached: ConnectionError: no route"),
        explained("a/b"),
    ):
        raise ConnectionError("no route\nand more")


def test_code_of_a_data_set_is_not_run(tmp_path: Path) -> None:
    folder = lay(tmp_path / "mine")
    (folder / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(DataError):
        open_dataset(Dataset(name=str(folder)))
    assert not (tmp_path / "ran").exists()
