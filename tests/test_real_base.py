"""A real instruct model: its template and system prompt are kept, its loss on text is low, its
answers end.
"""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from stages import tokenizer as tokenizer_stage
from stages.common.core import chat, models, records
from stages.common.evaluation import perplexity, question_prompts
from stages.common.generation import generator
from stages.common.reward import scoring
from tests.support import smollm2
from tests.support.real_data import REAL, needs_real_data

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

pytestmark = pytest.mark.slow
ENGLISH = (
    "The river rises in the hills north of the town and flows south through a wide valley before it reaches the sea. "
    "For most of the year it is shallow enough to walk across, but in spring, when the snow melts, it can rise by more "
    "than two metres in a single day. The people who live beside it have built their houses on stone walls, and every "
    "child in the village learns to swim before learning to read. In summer the banks are covered with flowers, and "
    "visitors come from the city to fish, to walk along the water and to eat in the small restaurants under the trees."
)


@cache
def tokenizer() -> "PreTrainedTokenizerBase":
    return tokenizer_stage.copied(str(smollm2.folder()), None)


@cache
def model() -> "PreTrainedModel":
    return models.load(smollm2.folder()).eval()


def nats_per_token(text: str) -> float:
    ((nats, tokens),) = perplexity.losses(model(), [perplexity.whole(tokenizer(), text)], 1_024, 1)
    return nats / tokens


def test_the_models_template_and_its_system_prompt_stay(tmp_path: Path) -> None:
    own = models.load_tokenizer(smollm2.folder())
    tokenizer().save_pretrained(tmp_path)
    saved = models.load_tokenizer(tmp_path)
    assert saved.chat_template == own.chat_template
    assert saved.get_vocab() == own.get_vocab()
    asked = [records.message("user", "Hi"), records.message("assistant", "Hello.")]
    encoded = chat.encode(saved, asked)
    assert saved.decode(encoded.input_ids) == (
        f"<|im_start|>system\n{smollm2.SYSTEM}<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\nHello.<|im_end|>"
    )
    said = [token for token, mask in zip(encoded.input_ids, encoded.assistant_mask, strict=True) if mask]
    assert saved.decode(said) == "Hello.<|im_end|>"
    assert "Be brief." in saved.decode(chat.encode_prompt(saved, [records.message("system", "Be brief."), asked[0]]))


def test_its_loss_on_english_text_is_that_of_a_trained_model() -> None:
    assert nats_per_token(ENGLISH) < 3.6


@needs_real_data
def test_its_loss_on_an_encyclopedia_is_that_of_a_trained_model() -> None:
    assert nats_per_token((REAL / "wikitext2/valid.txt").read_text(encoding="utf-8")[:3_000]) < 3.6


def test_it_names_the_capital_and_ends() -> None:
    question = {"messages": [records.message("user", "What is the capital of France?")]}
    prompt = question_prompts.turns(tokenizer(), question, [])
    ((answer,),) = generator.decode(model(), [prompt], max_new_tokens=48, stop=chat.stops(tokenizer()))
    assert "Paris" in tokenizer().decode(answer.tokens)
    assert answer.stop == chat.end_of_turn(tokenizer())


def test_a_reward_model_begins_from_it_and_pads_with_no_end_of_turn() -> None:
    own = models.load_tokenizer(smollm2.folder())
    assert own.pad_token_id == chat.end_of_turn(own)
    begun = scoring.begin(smollm2.folder(), own)
    assert begun.config.pad_token_id == own.pad_token_id != chat.end_of_turn(own)
    assert begun.get_input_embeddings().num_embeddings == len(own)
