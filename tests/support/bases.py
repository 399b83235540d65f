"""Tokenizers of bases as on the hub: special tokens of their own, BOS before every text, their own
templates.
"""

from collections.abc import Sequence
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TEXT = "hello world, the capital of France is Paris. assistant user system\n"
HEADERS = ("<|start_header_id|>", "<|end_header_id|>")
BOS, EOS, END_OF_TURN = "<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"


def template(name: str) -> str:
    """Return a model's own chat template, as TRL keeps it."""
    return files("trl").joinpath(f"chat_templates/{name}.jinja").read_text(encoding="utf-8")


def tokenizer(
    special: Sequence[str] = (END_OF_TURN, *HEADERS), template: str | None = None, eos: str = EOS
) -> "PreTrainedTokenizerBase":
    """Return a byte-level BPE like Llama 3's: BOS before every text, no token to pad with."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    reserved = list(dict.fromkeys([BOS, EOS, eos, *special]))
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=reserved, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator([TEXT], trainer)
    made.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, 0)])
    found = PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token=BOS, eos_token=eos, extra_special_tokens=reserved[2:]
    )
    found.chat_template = template
    return found
