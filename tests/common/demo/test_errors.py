"""A demo world that cannot be is an error that says why."""

import shutil
from pathlib import Path

import pytest

from stages import demo
from stages.common.core import params
from stages.common.demo import sizes, world
from stages.common.runtime.errors import DataError, ParamsError
from tests.support.reading import FACTS


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("countries.csv", None, "file not found"),
        ("names.json", "{", "malformed"),
        ("elements.csv", "name_en,name_zh,number\ngold,金,79\n", "no column 'symbol'"),
    ],
)
def test_a_damaged_fact_table_is_named(tmp_path: Path, file: str, text: str | None, message: str) -> None:
    folder = tmp_path / "facts"
    shutil.copytree(FACTS, folder)
    if text is None:
        (folder / file).unlink()
    else:
        (folder / file).write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message) as caught:
        world.read(folder, 10)
    assert str(folder / file) in str(caught.value)


def test_more_questions_than_the_facts_allow_is_an_error() -> None:
    with pytest.raises(DataError, match="asked for 9999"):
        demo.build(world.read(FACTS, 10), demo.Params(questions=sizes.Questions(iid=9999)))


def test_more_prompts_than_are_spare_is_an_error() -> None:
    with pytest.raises(DataError, match=r"prompts in trained phrasings, .* raise demo\.new_phrasing_share"):
        demo.build(world.read(FACTS, 9), demo.Params(prompts=3000, new_phrasing_share=0.0))


def test_more_crawl_than_prose_is_an_error() -> None:
    with pytest.raises(ParamsError, match=r"asked for 9999 .* lower demo\.documents\.crawl"):
        demo.build(world.read(FACTS, 10), demo.Params(documents=sizes.Documents(crawl=9999)))


def test_a_misspelt_size_names_the_right_one(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("demo:\n  faults:\n    spma: 3\n", encoding="utf-8")
    with pytest.raises(ParamsError, match="did you mean 'spam'"):
        params.load(demo.Params, "demo", tmp_path / "params.yaml")
