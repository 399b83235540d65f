"""Pretraining on from a base: its vocabulary is the tokenizer's, and grows by what the template
added.
"""

from pathlib import Path

import pytest

from stages import pretrain
from stages import tokenizer as tokenizer_stage
from stages.common.core import chat, models
from stages.common.runtime.errors import DataError
from stages.common.text.parquet_writer import write as write_records
from stages.common.training import packed_blocks
from tests.support import bases
from tests.support.tiny import CONFIG, make_model, make_tokenizer


def params(base: Path) -> pretrain.Params:
    return pretrain.Params(base=str(base), training={})


def test_a_base_of_another_vocabulary_is_refused_before_its_documents_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    other = bases.tokenizer()
    models.save(models.build(CONFIG, 4_000, "test.model"), other, tmp_path / "base")
    with pytest.raises(DataError, match=r"vocabulary of \d+ tokens is not that of models/tokenizer .* to one model"):
        pretrain.build_trainer(params(tmp_path / "base"), make_tokenizer(), tmp_path / "no documents", "f")


def test_a_base_whose_vocabulary_is_not_known_is_refused(tmp_path: Path) -> None:
    models.build(CONFIG, 4_000, "test.model").save_pretrained(tmp_path)
    with pytest.raises(DataError, match="cannot load the tokenizer"):
        pretrain.base_model(params(tmp_path), make_tokenizer())


def test_a_longer_vocabulary_that_begins_alike_is_another(tmp_path: Path) -> None:
    short, long = (
        tokenizer_stage.train(iter(["the capital of the land is the town"] * 9), size) for size in (262, 280)
    )
    assert long.get_vocab().items() > short.get_vocab().items()
    models.save(models.build(CONFIG, len(short), "test.model"), short, tmp_path)
    with pytest.raises(DataError, match="is not that of models/tokenizer"):
        pretrain.base_model(params(tmp_path), long)


def test_equal_vocabularies_are_taken_and_nothing_grows(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    models.save(make_model(tokenizer), tokenizer, tmp_path)
    found = pretrain.base_model(params(tmp_path), make_tokenizer())
    assert found.get_input_embeddings().num_embeddings == len(tokenizer)


@pytest.mark.parametrize("multiple", [64, None])
def test_embeddings_grow_to_a_multiple_for_the_templates_tokens(tmp_path: Path, multiple: int | None) -> None:
    own = bases.tokenizer(eos=bases.EOS)
    models.save(models.build(CONFIG, len(own), "test.model"), own, tmp_path)
    tokenizer = tokenizer_stage.copied(str(tmp_path), "chatml")
    assert len(tokenizer) == len(own) + 3, "two that make turns, and one to pad with"
    settings = params(tmp_path).model_copy(update={"pad_to_multiple_of": multiple})
    found = pretrain.base_model(settings, tokenizer).get_input_embeddings().num_embeddings
    assert found == (-(-len(tokenizer) // 64) * 64 if multiple else len(tokenizer))


def test_a_document_begins_and_ends_as_the_base_has_read_documents(tmp_path: Path) -> None:
    tokenizer = tokenizer_stage.with_template(bases.tokenizer(), "chatml", [bases.EOS])
    rows = [{"id": f"t:{n}", "source": "t", "text": text} for n, text in enumerate(("hello", f"{bases.BOS}Paris"))]
    write_records(rows, tmp_path / "train", "documents")
    blocks = packed_blocks.documents(tokenizer, tmp_path / "train", 4)
    text = tokenizer.decode([int(token) for block in blocks.array for token in block])
    assert text.startswith(f"{bases.BOS}hello{bases.EOS}{bases.BOS}P")
    assert chat.end_of_document(tokenizer) == tokenizer.convert_tokens_to_ids(bases.EOS)
