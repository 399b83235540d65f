"""A tokenizer trained here, or copied from a base with what the base's configs say."""

from pathlib import Path

import pytest

from stages import tokenizer as tokenizer_stage
from stages.common.core import chat, models, params, special_tokens, templates
from stages.common.runtime.errors import DataError, ParamsError
from tests.support import bases
from tests.support.tiny import make_tokenizer


def write_base(folder: Path, ends: list[str], template: str | None) -> None:
    from transformers import GenerationConfig

    tokenizer = bases.tokenizer(template=template)
    tokenizer.save_pretrained(folder)
    GenerationConfig(eos_token_id=tokenizer.convert_tokens_to_ids(ends)).save_pretrained(folder)


def test_all_ends_of_a_bases_generation_config_end_its_answers(tmp_path: Path) -> None:
    write_base(tmp_path / "base", [bases.EOS, bases.END_OF_TURN, bases.HEADERS[0]], bases.template("llama3_1"))
    tokenizer_stage.copied(str(tmp_path / "base"), None).save_pretrained(tmp_path / "out")
    found = models.load_tokenizer(tmp_path / "out")
    assert found.convert_ids_to_tokens(chat.stops(found)) == [bases.END_OF_TURN, bases.EOS, bases.HEADERS[0]]
    assert found.chat_template == bases.template("llama3_1")
    assert special_tokens.untrained(found) == []
    assert chat.brought_template(found)


def test_a_base_without_a_template_gets_chatml(tmp_path: Path) -> None:
    write_base(tmp_path, [bases.EOS], None)
    found = tokenizer_stage.copied(str(tmp_path), None)
    assert found.chat_template == templates.read("chatml")
    assert not chat.brought_template(found)
    assert found.convert_ids_to_tokens(chat.stops(found)) == [chat.END_OF_TURN, bases.EOS]


def test_a_folder_with_a_tokenizer_alone_is_a_base_too(tmp_path: Path) -> None:
    bases.tokenizer().save_pretrained(tmp_path)
    found = tokenizer_stage.copied(str(tmp_path), "chatml")
    assert found.convert_ids_to_tokens(chat.stops(found)) == [chat.END_OF_TURN, bases.EOS]


def test_a_base_that_cannot_be_fetched_says_how_to_bring_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match=r"nobody/no-such-model: cannot load the tokenizer: .*; connect to the hub"):
        tokenizer_stage.copied("nobody/no-such-model", None)


def test_a_trained_tokenizer_carries_nothing_of_a_base() -> None:
    tokenizer = make_tokenizer()
    assert chat.OF_BASE not in tokenizer.init_kwargs and not chat.brought_template(tokenizer)
    assert tokenizer.all_special_tokens == [chat.END_OF_TURN, chat.END_OF_DOCUMENT]
    assert [tokenizer.convert_tokens_to_ids(token) for token in chat.SPECIAL_TOKENS] == [0, 1, 2]
    assert tokenizer.pad_token == chat.END_OF_DOCUMENT


def test_a_trained_tokenizer_has_no_template_to_keep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("tokenizer: {chat_template: keep}")
    with pytest.raises(ParamsError, match="no chat template to keep: set base too"):
        params.load(tokenizer_stage.Params, "tokenizer")
