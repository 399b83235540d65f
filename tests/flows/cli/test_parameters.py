"""The keys of params.yaml: table, schema and page say the same, and what the stages read."""

import json
from pathlib import Path

import jsonschema
import pytest

from flows.cli import parameters
from stages.common.core import params
from stages.common.runtime.errors import ParamsError

ROOT = Path(__file__).parents[3]
WHOLE = parameters.schema()
FILES = [ROOT / "params.yaml", *sorted((ROOT / "infra/profiles").glob("*.yaml"))]


def test_schema_and_page_are_what_the_classes_say() -> None:
    """If this fails: lathe params --write."""
    assert json.loads((ROOT / parameters.SCHEMA).read_text(encoding="utf-8")) == WHOLE
    assert (ROOT / parameters.PAGE).read_text(encoding="utf-8") == parameters.page(WHOLE)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_file_of_parameters_keeps_the_schema_and_names_it(file: Path) -> None:
    document = params.plain(params.read_yaml(file))
    jsonschema.validate(document, WHOLE)
    assert list(document) == list(WHOLE["properties"])
    first = file.read_text(encoding="utf-8").splitlines()[0]
    path = first.removeprefix("# yaml-language-server: $schema=")
    assert (file.parent / path).resolve() == ROOT / parameters.SCHEMA


def test_a_wrong_value_and_a_misspelt_key_are_found_by_the_schema() -> None:
    document = params.plain(params.read_yaml(FILES[0]))
    for section, key, value in (("demo", "prompts", -1), ("run", "engine", "vlm"), ("sft", "droput", 0.1)):
        wrong = document | {section: document[section] | {key: value}}
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, WHOLE)


def test_every_key_has_a_meaning_and_kinds_are_said_in_words() -> None:
    rows = {row.key: row for section in WHOLE["properties"] for row in parameters.rows(WHOLE, section)}
    assert all(row.meaning.endswith((".", "…")) for row in rows.values())
    assert rows["run.engine"].kind == "one of local, vllm"
    assert rows["demo.held_out_share"].kind == "number >= 0 <= 1"
    assert rows["ppo.kl_target"].kind == "number > 0 or null" and rows["ppo.kl_target"].default == "null"
    assert rows["sft.training"].default == "required"


def test_the_table_is_of_one_section_or_says_which_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    parameters.main("deploy")
    said = capsys.readouterr().out
    assert "deploy.canned\n    list of string; default required\n" in said and "sft." not in said
    with pytest.raises(ParamsError, match="no section 'stf', did you mean 'sft'"):
        parameters.main("stf")


def test_a_key_is_set_and_every_other_line_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = FILES[0].read_text(encoding="utf-8")
    file = tmp_path / "params.yaml"
    file.write_text(text, encoding="utf-8")
    parameters.main(to=["promote.margin=0.01", "demo.prompts=40"])
    lines = zip(text.splitlines(), file.read_text(encoding="utf-8").splitlines(), strict=True)
    changed = [(before.split()[0], after.split()[1]) for before, after in lines if before != after]
    assert changed == [("prompts:", "40"), ("margin:", "0.01")]
    now = file.read_bytes()
    for wrong in ("demo.prompts=-1", "demo.promts=4", "promote.margin=-0.1"):
        with pytest.raises(ParamsError):
            parameters.main(to=["run.gpus=1", wrong])
        assert file.read_bytes() == now
