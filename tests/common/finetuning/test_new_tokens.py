"""Adapters over a base to which the chat template added tokens: it learns to end its turn, or the
run is refused.
"""

from pathlib import Path
from typing import Any

import pytest
import torch

from stages import pretrain, sft
from stages import tokenizer as tokenizer_stage
from stages.common.core import chat, models, special_tokens
from stages.common.finetuning import lora
from stages.common.runtime.errors import ParamsError
from stages.common.text.parquet_writer import write as write_records
from tests.support import bases
from tests.support.tiny import CONFIG, conversation, make_model, make_tokenizer

LORA = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"}
TRAINING = {"max_steps": 60, "learning_rate": 2e-2, "per_device_train_batch_size": 4, "seed": 1}


def trainer_on(work: Path, tied: bool, **adapters: Any) -> Any:
    """Return SFT on a base whose vocabulary has no ChatML tokens."""
    own = bases.tokenizer()
    base = models.build(CONFIG | {"tie_word_embeddings": tied}, len(own), "test.model")
    models.save(base, own, work / "base")
    tokenizer = tokenizer_stage.copied(str(work / "base"), "chatml")
    grown = pretrain.base_model(pretrain.Params(base=str(work / "base"), training={}), tokenizer)
    assert grown.get_input_embeddings().num_embeddings % 64 == 0, "padded to a multiple"
    models.save(grown, tokenizer, work / "model")
    for split in ("train", "validation"):
        write_records([conversation(n) for n in range(1, 5)], work / "conversations" / split, "conversations")
    settings = sft.Params(training=TRAINING, lora=LORA | adapters)
    return sft.build_trainer(settings, work / "model", work / "conversations", "f")


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_a_base_without_the_templates_tokens_learns_to_end_its_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tied: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    trainer = trainer_on(tmp_path, tied)
    trainer.train()
    trainer.save_model("kept")
    kept, tokenizer = models.load(Path("kept")).eval(), models.load_tokenizer(Path("kept"))
    rows = [chat.encode(tokenizer, conversation(n)["messages"]).input_ids for n in range(1, 5)]
    end = chat.end_of_turn(tokenizer)
    assert all(row[-1] == end for row in rows)
    with torch.no_grad():
        ends = [kept(torch.tensor([row[:-1]])).logits[0, -1].softmax(-1)[end].item() for row in rows]
        trained = trainer.model.eval()(torch.tensor([rows[0]])).logits
        assert torch.allclose(kept(torch.tensor([rows[0]])).logits, trained, atol=1e-4)
    assert min(ends) > 0.9, "with frozen rows it is 0.003"


def test_a_run_that_would_leave_them_untrained_is_refused(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    model, new = make_model(tokenizer), special_tokens.untrained(tokenizer)
    assert tokenizer.convert_ids_to_tokens(new) == [chat.START_OF_TURN, chat.END_OF_TURN]

    def adapters(**given: Any) -> Any:
        return lora.with_new_tokens(lora.config(LORA | given, "sft.lora"), model, new, "sft.lora")

    assert adapters().trainable_token_indices == {"embed_tokens": new, "lm_head": new}
    assert adapters(modules_to_save=["embed_tokens"]).trainable_token_indices is None
    with pytest.raises(ParamsError, match=r"'sft\.lora' leaves new tokens .* untrained in embed_tokens: \[1, 2\]"):
        adapters(trainable_token_indices=[new[0]])
    with pytest.raises(ParamsError, match="untrained in embed_tokens"):
        adapters(modules_to_save=["lm_head"])
    assert lora.with_new_tokens(None, model, new, "sft.lora") is None
