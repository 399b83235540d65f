"""Format `gguf`: one file for llama.cpp and what is built on it, the weights as they are stored.

It is written for architectures and tokenizers that transformers reads back to the same model, so
that both checks hold for it; all else is refused by name. Layout: gguf's specification, and
llama.cpp's converter for the order of rotary weights and the kinds of tokens.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.export import hf
from flows.export.plain import Found
from flows.export.source import Source
from flows.export.template import Adapted
from stages.common.core import chat, models
from stages.common.core.special_tokens import special_tokens
from stages.common.runtime.errors import DataError, ParamsError
from stages.common.runtime.logs import log

if TYPE_CHECKING:
    import torch
    from gguf import GGUFWriter

FILE = "model.gguf"
MARKS = False
"""Llama.cpp does not know a template's marks of what the assistant says."""
ARCHITECTURES = ("llama", "qwen2")
INSTEAD = "export hf"
WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPLITS = {WORDS + r"\p{N}" + REST: "qwen2", WORDS + r"\p{N}{1,3}" + REST: "llama-bpe"}
"""How text is cut before merges, by llama.cpp's name (`tokenizer.ggml.pre`); GPT-2's is `gpt-2`."""
SAME = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "vocab_size",
)
CLOSE = 1e-6
"""How far a number of the config may be from what was written: GGUF has fp32 alone."""


def check(source: Source) -> None:
    """Raise ParamsError without the package, DataError for a model or a tokenizer that the format
    cannot carry.
    """
    try:
        import gguf  # noqa: F401  # only where it is asked for
    except ModuleNotFoundError as error:
        remedy = "pip install -c constraints.txt -e '.[export]'"
        raise ParamsError(f"--format gguf needs a package that is missing: {error.name}", remedy=remedy) from error
    config = models.load_config(source.folder)
    for reason in (*beyond(config), *beyond_tokenizer(json.loads(source.tokenizer.backend_tokenizer.to_str()))):
        raise DataError(f"gguf cannot carry it: {reason}", where=source.title, remedy=INSTEAD)


def beyond(config: Any) -> Iterator[str]:
    """Yield what of a model's config the format, or what reads it back, does not know."""
    if config.model_type not in ARCHITECTURES:
        yield f"a {config.model_type} model; written are {', '.join(ARCHITECTURES)}"
        return
    rope = config.rope_parameters or {}
    if rope.get("rope_type", "default") != "default":
        yield f"its rotary positions are scaled ({rope['rope_type']}), which transformers does not read back"
    if config.model_type == "llama" and (config.attention_bias or config.mlp_bias):
        yield "its layers have biases (attention_bias, mlp_bias)"
    if getattr(config, "use_sliding_window", False):
        yield "it has a sliding window"
    if config.hidden_act != "silu":
        yield f"its activation is {config.hidden_act}, the format's is silu"


def beyond_tokenizer(described: dict[str, Any]) -> Iterator[str]:
    """Yield what of a tokenizer (tokenizer.json) the format has no name for."""
    if described["model"]["type"] != "BPE" or described["model"].get("byte_fallback"):
        yield f"its tokenizer is {described['model']['type']}, no byte-level BPE"
    elif pre_tokenizer(described) is None:
        kinds = [str(one["type"]) for one in _steps(described["pre_tokenizer"])]
        known = ", ".join(sorted({*SPLITS.values(), "gpt-2"}))
        yield f"its tokenizer cuts text by {' + '.join(kinds)}, which has no name there; those that have: {known}"
    if (described.get("normalizer") or {}).get("type") not in (None, "NFC"):
        yield f"its tokenizer normalises text ({described['normalizer']['type']})"


def pre_tokenizer(described: dict[str, Any]) -> str | None:
    """Return llama.cpp's name for how a tokenizer cuts text, None where it has none."""
    steps = _steps(described["pre_tokenizer"])
    if [one["type"] for one in steps] == ["ByteLevel"] and steps[0]["use_regex"] and not steps[0]["add_prefix_space"]:
        return "gpt-2"
    if (
        [one["type"] for one in steps] != ["Split", "ByteLevel"]
        or steps[1]["use_regex"]
        or steps[1]["add_prefix_space"]
    ):
        return None
    if steps[0]["behavior"] != "Isolated" or steps[0]["invert"]:
        return None
    return SPLITS.get(steps[0]["pattern"].get("Regex", ""))


def _steps(described: dict[str, Any] | None) -> list[dict[str, Any]]:
    if described is None:
        return []
    return list(described["pretokenizers"]) if described["type"] == "Sequence" else [described]


def write(source: Source, template: Adapted, folder: Path) -> str:
    """Write the file into `folder` and return its name."""
    import gguf

    config = models.load_config(source.folder)
    (folder / FILE).unlink(missing_ok=True)
    writer = gguf.GGUFWriter(folder / FILE, config.model_type, use_temp_file=True)
    try:
        write_config(writer, source, config)
        write_tokenizer(writer, source, config.vocab_size, template.text)
        write_weights(writer, source, config)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()
    hf.write_generation_config(source, folder)
    return FILE


def write_config(writer: "GGUFWriter", source: Source, config: Any) -> None:
    """Write the model's sizes."""
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_name(source.title)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(float((config.rope_parameters or {}).get("rope_theta", 10_000.0)))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)


def write_tokenizer(writer: "GGUFWriter", source: Source, size: int, template: str) -> None:
    """Write vocabulary, merges, special tokens and the chat template."""
    import gguf

    tokenizer = source.tokenizer
    described = json.loads(tokenizer.backend_tokenizer.to_str())
    added, special = tokenizer.added_tokens_decoder, set(special_tokens(tokenizer))
    names = {number: name for name, number in tokenizer.get_vocab().items()}
    kinds = []
    for number in range(size):
        if number in added:
            kind = gguf.TokenType.CONTROL if names[number] in special else gguf.TokenType.USER_DEFINED
        else:
            kind = gguf.TokenType.NORMAL if number in names else gguf.TokenType.UNUSED
        kinds.append(kind)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(str(pre_tokenizer(described)))
    writer.add_token_list([names.get(number, f"[PAD{number}]") for number in range(size)])
    writer.add_token_types(kinds)
    writer.add_token_merges(
        [pair if isinstance(pair, str) else " ".join(pair) for pair in described["model"]["merges"]]
    )
    writer.add_eos_token_id(source.stops()[0])
    writer.add_eot_token_id(chat.end_of_turn(tokenizer))
    writer.add_pad_token_id(int(tokenizer.pad_token_id))
    if tokenizer.bos_token_id is not None:
        writer.add_bos_token_id(int(tokenizer.bos_token_id))
    opens = tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
    writer.add_add_bos_token(bool(opens))
    writer.add_chat_template(template)


def write_weights(writer: "GGUFWriter", source: Source, config: Any) -> None:
    """Write every tensor in the type it is stored in; vectors in fp32, as readers want them."""
    import gguf
    import torch

    kinds = {
        torch.float32: (gguf.GGMLQuantizationType.F32, gguf.LlamaFileType.ALL_F32),
        torch.float16: (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
        torch.bfloat16: (gguf.GGMLQuantizationType.BF16, gguf.LlamaFileType.MOSTLY_BF16),
    }
    names = gguf.get_tensor_name_map(
        {"llama": gguf.MODEL_ARCH.LLAMA, "qwen2": gguf.MODEL_ARCH.QWEN2}[config.model_type], config.num_hidden_layers
    )
    most = gguf.LlamaFileType.ALL_F32
    for number, (name, value) in enumerate(tensors(source.folder), start=1):
        place = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if place is None or value.dtype not in kinds:
            what = f"tensor {name} ({value.dtype}) has no place in the format"
            raise DataError(what, where=source.title, remedy=INSTEAD)
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        kind, file = kinds[value.dtype] if value.ndim > 1 else kinds[torch.float32]
        most = file if value.ndim > 1 else most
        numbers = rotated(name, value, config).float().numpy()
        writer.add_tensor(place, gguf.quants.quantize(numbers, kind), raw_dtype=kind)
        if number % 100 == 0:
            log.info("%s tensors written", number)
    writer.add_file_type(most)


def rotated(name: str, value: "torch.Tensor", config: Any) -> "torch.Tensor":
    """Return a weight with the rows of its queries or keys in the order of llama.cpp's rotary
    positions for Llama: pairs side by side, where transformers has halves.
    """
    heads = {"q_proj.weight": config.num_attention_heads, "k_proj.weight": config.num_key_value_heads}
    count = heads.get(".".join(name.split(".")[-2:]))
    if config.model_type != "llama" or count is None:
        return value
    shape = (count, 2, value.shape[0] // count // 2, *value.shape[1:])
    return value.reshape(shape).swapaxes(1, 2).reshape(value.shape).contiguous()


def tensors(folder: Path) -> Iterator[tuple[str, "torch.Tensor"]]:
    """Yield the tensors of a model's files, one in memory at a time."""
    from safetensors import safe_open

    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as handle:
            for name in handle.keys():  # noqa: SIM118  # no dict
                yield name, handle.get_tensor(name)


def compare(source: Source, found: Found) -> None:
    """Raise DataError where transformers reads another model from the file than is registered: a
    tensor, a size, the base of the rotary positions.
    """
    for name, value in tensors(source.folder):
        meant = hashlib.sha256(value.float().contiguous().numpy().tobytes()).hexdigest()
        if found["weights"].get(name) != meant:
            raise DataError(f"tensor {name} is read back otherwise", where=source.title, remedy=INSTEAD)
    config = models.load_config(source.folder).to_dict()
    theirs = found["config"]
    wrong = [name for name in SAME if theirs.get(name) != config.get(name)]
    near = {"rms_norm_eps": (theirs["rms_norm_eps"], config["rms_norm_eps"])}
    near["rope_theta"] = tuple((one.get("rope_parameters") or {}).get("rope_theta", 1e4) for one in (theirs, config))
    wrong += [name for name, (one, other) in near.items() if abs(one - other) > CLOSE * max(abs(one), abs(other))]
    if wrong:
        raise DataError(f"{', '.join(wrong)} is read back otherwise", where=source.title, remedy=INSTEAD)
