"""What Lathe can do with each of many architectures, tried with tiny random models, and the table
of it in the docs.

Write the table anew: python -m tests.support.architectures
"""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.decoders import NARROW, SHAPE

if TYPE_CHECKING:
    from transformers import PreTrainedModel

DOCUMENT = Path(__file__).parents[2] / "docs/models.md"
BEGIN, END = "<!-- table: begin -->\n", "<!-- table: end -->\n"
WINDOW = 8
LONG = {"max_position_embeddings": 256}
SLIDING = SHAPE | LONG | {"sliding_window": WINDOW}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
LINEAR = {"linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
TURNED = {"rope_theta": 10000.0}
FACTORS = {"short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [2.0, 3.0, 4.0, 5.0]}
LONGROPE = TURNED | FACTORS | {"rope_type": "longrope", "original_max_position_embeddings": 16}
DYNAMIC = TURNED | {"rope_type": "dynamic", "factor": 4.0}
VISION = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
IMAGES = {"mm_tokens_per_image": 4, "image_token_index": 319, "boi_token_index": 318, "eoi_token_index": 317}
MADE: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", SHAPE | LONG),
    "llama, dynamic RoPE": ("llama", SHAPE | {"max_position_embeddings": 128, "rope_parameters": DYNAMIC}),
    "qwen2": ("qwen2", SHAPE | LONG),
    "qwen3": ("qwen3", SHAPE | LONG),
    "qwen3_moe": ("qwen3_moe", SHAPE | LONG | EXPERTS),
    "mistral, sliding window": ("mistral", SLIDING),
    "gemma2": ("gemma2", SLIDING),
    "gemma3_text": ("gemma3_text", SLIDING | {"layer_types": ["sliding_attention", "full_attention"]}),
    "gemma3, with a vision model": ("gemma3", {}),
    "phi3": ("phi3", SHAPE | LONG | {"num_key_value_heads": 4, "pad_token_id": 0}),
    "phi3, LongRoPE": ("phi3", {}),
    "olmo3": ("olmo3", SLIDING | {"layer_types": ["sliding_attention", "full_attention"]}),
    "granite": ("granite", SHAPE | LONG | {"logits_scaling": 2.0, "residual_multiplier": 0.5}),
    "cohere2": ("cohere2", SLIDING | {"layer_types": ["sliding_attention", "full_attention"]}),
    "gpt2": ("gpt2", NARROW | LONG),
    "gpt_neox": ("gpt_neox", NARROW | LONG | {"intermediate_size": 48}),
    "falcon_h1": ("falcon_h1", SHAPE | LONG | {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8}),
    "qwen3_next": ("qwen3_next", SHAPE | LONG | EXPERTS | LINEAR | {"shared_expert_intermediate_size": 16}),
}
MADE["gemma3, with a vision model"] = (
    "gemma3",
    {
        "text_config": MADE["gemma3_text"][1] | {"vocab_size": 320, "bos_token_id": None, "eos_token_id": None},
        "vision_config": VISION | {"image_size": 28, "patch_size": 14},
        **IMAGES,
    },
)
MADE["phi3, LongRoPE"] = (
    "phi3",
    MADE["phi3"][1] | {"original_max_position_embeddings": 16, "rope_parameters": LONGROPE},
)
MADE["falcon_h1"][1].update({"mamba_d_state": 8, "lm_head_multiplier": 0.7})
MADE["qwen3_next"][1].update({"layer_types": ["linear_attention", "full_attention"]})


def build(name: str) -> "PreTrainedModel":
    """Return the model in evaluation mode, its weights so large that no two logits are nearly
    equal.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    model_type, settings = MADE[name]
    tokens = {"bos_token_id": None, "eos_token_id": None, "tie_word_embeddings": False}
    vocabulary = {} if "text_config" in settings else {"vocab_size": 320}
    config = AutoConfig.for_model(model_type, **(tokens | vocabulary | settings))
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    for weight in model.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.3)
    return model


def row(length: int) -> list[int]:
    """Return so many tokens, others for another length."""
    import torch

    return torch.randint(1, 300, (length,), generator=torch.Generator().manual_seed(length)).tolist()


def decode(name: str, work: Path) -> str:
    """Return how answers are decoded, which must be `generate`'s of each prompt alone; some go
    beyond the window.
    """
    from stages.common.generation import generator, kv_cache, transformers_generate
    from stages.common.generation.batch import Order
    from tests.support.decoders import alone

    model, stop = build(name), list(range(300, 320))
    prompts = [row(length) for length in (1, 3, 3, 7, 12, 20)]
    found = generator.generate(model, prompts, max_new_tokens=10, stop=stop, batch_size=4)
    assert found == [alone(model, prompt, stop, max_new_tokens=10) for prompt in prompts]
    assert len({len(answer) for answer in found}) > 1
    order = Order(prompts, None, 10, stop, generator.GREEDY, 1, False)
    if transformers_generate.needed(model, order):
        return "`generate`, prompts of one length together"
    return "a row is refilled" if isinstance(kv_cache.for_model(model, 1), kv_cache.Slots) else "in batches"


def packed(name: str, work: Path) -> str:
    """Return how rows are read, which must be as each alone; some are longer than the window, or
    than RoPE's length.
    """
    import torch

    from stages.common.generation import architecture, packed_forward

    model = build(name)
    is_packed = packed_forward.enable(model)
    longest = 150 if "RoPE" in name else 40
    rows = [row(length) for length in (3, 9, 9, 14, longest)]
    groups = packed_forward.groups(model, [len(one) for one in rows])
    for some in (rows[:2], rows):
        groups = packed_forward.groups(model, [len(one) for one in some])
        places, start = [], 0
        for group in groups:
            width = max(len(some[at]) for at in group)
            for at in group:
                places += range(start, start + len(some[at]))
                start += width
        with torch.no_grad():
            found = packed_forward.read(model, some, groups, places)
            expected = []
            for at in (at for group in groups for at in group):
                body = architecture.body(build(name))  # dynamic RoPE remembers what it has read
                expected.append(body(input_ids=torch.tensor([some[at]]), use_cache=False).last_hidden_state[0])
        torch.testing.assert_close(found, torch.cat(expected), rtol=1e-4, atol=1e-4)
    return "in one call" if is_packed else "one call a length"


def comparisons() -> list[dict[str, Any]]:
    """Return comparisons as rows of tokens, the last of them longer than the window."""
    made = []
    for prompt, answers in ((4, (2, 3, 1)), (3, (1, 2)), (20, (15, 11, 13))):
        rows = [row(prompt) + row(100 + answer)[:answer] for answer in answers]
        ranks = list(range(1, len(rows) + 1))
        made.append({"rows": rows, "ranks": ranks, "lengths": list(answers), "length": max(map(len, rows))})
    return made


def scorer(name: str, work: Path) -> Any:
    """Return a reward model over the base model, as a training begins with it."""
    from stages.common.core import models
    from stages.common.reward import scoring
    from tests.support.tiny import make_tokenizer

    tokenizer = make_tokenizer()
    models.save(build(name), tokenizer, work / "model")
    return scoring.begin(work / "model", tokenizer)


def classifier(name: str) -> Any:
    """Return a classifier of that kind with large random weights, in evaluation mode;
    padding is 9.
    """
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    from stages.common.reward import scoring

    model_type, settings = MADE[name]
    config = AutoConfig.for_model(model_type, **({"vocab_size": 320, "num_labels": 1} | settings | {"pad_token_id": 9}))
    scoring.register(config)
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    for weight in model.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.3)
    return model


def reward_head(name: str, work: Path) -> str:
    """Return whose head scores; in a batch, as trained, and loaded again it must score as each
    answer alone.
    """
    import torch

    from stages.common.reward import dataset, scoring

    model, rows = scorer(name, work), comparisons()
    try:
        scoring.check(model, rows, 1, "reward.max_tokens")
    except Exception as error:
        return refused(error)
    alone = [scoring.score_tokens(model, [answer])[0] for one in rows for answer in one["rows"]]
    with torch.no_grad():
        trained = scoring.last_scores(model, model.score, dataset.Collator(1)(rows)).tolist()
    model.save_pretrained(work / "reward")
    later = scoring.score_rows(scoring.load(work / "reward"), [answer for one in rows for answer in one["rows"]])
    for found in (trained, later):
        assert all(abs(one - two) < 1e-4 * max(1, abs(two)) for one, two in zip(found, alone, strict=True))
    return "transformers'" if type(model).__module__.startswith("transformers.") else "ours"


def shared_prompt(name: str, work: Path) -> str:
    """Return whether answers are scored behind one prompt as alone, rows beyond the window among
    them, or refused.
    """
    from stages.common.reward import shared_prompt

    try:
        shared_prompt.check(scorer(name, work), comparisons(), 1, "reward.share_prompt")
    except Exception as error:
        return refused(error)
    return "yes"


def ppo(name: str, work: Path) -> str:
    """Return whether two steps of PPO change policy and value model, from a ratio of 1 on, or are
    refused.
    """
    import torch

    from stages.common.core import checkpoints, models
    from stages.common.reward import scoring
    from stages.common.training import fit
    from tests.support.small_ppo import trainer_in, write_ppo
    from tests.support.tiny import make_tokenizer

    checkpoints.ROOT = work / "checkpoints"
    write_ppo(work)
    tokenizer = make_tokenizer()
    models.save(build(name), tokenizer, work / "model")
    models.save(scoring.begin(work / "model", tokenizer), tokenizer, work / "reward")
    try:
        trainer = trainer_in(work, training={"max_steps": 2}, kl_stop=1e6)
    except Exception as error:
        return refused(error)
    before = [weight.detach().clone() for weight in trainer.model.parameters()]
    fit.fit(trainer, trainer.settings, trainer.run, "ppo")
    first = trainer.state.log_history[0]
    assert trainer.state.global_step == 2 and first["clip_fraction"] == 0 and first["update_kl"] < 1e-6, first
    assert abs(first["kl_k1"]) < 1e-2, first
    changed = [not torch.equal(one, two.cpu()) for one, two in zip(before, trainer.model.parameters(), strict=True)]
    assert sum(changed) > len(changed) / 2
    return "yes"


def lora(name: str, work: Path) -> str:
    """Return whether adapters alone learn to end an answer, merged and loaded again, or are
    refused.
    """
    import torch

    from stages.common.core import chat, models
    from stages.common.finetuning import lora as adapters
    from stages.common.generation import generator
    from tests.support.tiny import conversation, make_tokenizer

    tokenizer, base = make_tokenizer(), build(name)
    talks = [conversation(number, "town.")["messages"] for number in (1, 2)]
    rows = [chat.encode(tokenizer, talk).input_ids for talk in talks]
    prompts = [chat.encode_prompt(tokenizer, talk[:1]) for talk in talks]
    try:
        model = adapters.wrap(base, adapters.config({"r": 8, "target_modules": "all-linear"}, "sft.lora"))
    except Exception as error:
        return refused(error)
    learnt = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=0.02)
    for _ in range(40):
        for tokens, prompt in zip(rows, prompts, strict=True):
            ids = torch.tensor([tokens])
            labels = ids.clone()
            labels[:, : len(prompt)] = -100
            model(input_ids=ids, labels=labels, use_cache=False).loss.backward()
        learnt.step()
        learnt.zero_grad()
    adapters.save(model.eval(), work / "lora")
    stops = chat.stops(tokenizer)
    answers = generator.decode(models.load(work / "lora"), prompts, max_new_tokens=12, stop=stops)
    assert [tokenizer.decode(one.tokens) for (one,) in answers] == ["town."] * 2
    assert all(one.stop == chat.end_of_turn(tokenizer) for (one,) in answers)
    return "yes"


def save_and_load(name: str, work: Path) -> str:
    """Return whether a model written and read is the same."""
    import torch

    from stages.common.core import models
    from tests.support.tiny import make_tokenizer

    model, ids = build(name), torch.tensor([row(30)])
    models.save(model, make_tokenizer(), work / "model")
    with torch.no_grad():
        assert torch.equal(models.load(work / "model").eval()(ids).logits, model(ids).logits)
    return "yes"


def refused(error: Exception) -> str:
    """Return by what parameter or stage a model is refused; any other error is one."""
    from stages.common.runtime.errors import DataError, ParamsError

    if not isinstance(error, DataError | ParamsError):
        raise error
    return f"refused: {' '.join(str(error).split())[:60]}"


COLUMNS: dict[str, Callable[[str, Path], str]] = {
    "decoding": decode,
    "reading rows": packed,
    "reward head": reward_head,
    "shared prompt": shared_prompt,
    "two PPO steps": ppo,
    "LoRA ends its answers": lora,
    "save and load": save_and_load,
}


def cell(name: str, column: str) -> str:
    """Return what a model does, tried in a folder of its own."""
    with tempfile.TemporaryDirectory() as work:
        before = os.getcwd()
        os.chdir(work)
        try:
            return COLUMNS[column](name, Path(work))
        finally:
            os.chdir(before)


def line(name: str) -> str:
    """Return a model's line of the table."""
    return f"| {name} | {' | '.join(cell(name, column) for column in COLUMNS)} |\n"


def head() -> list[str]:
    """Return the two lines above the models'."""
    return [f"| model | {' | '.join(COLUMNS)} |\n", "|---" * (len(COLUMNS) + 1) + "|\n"]


def write(document: Path) -> None:
    """Put the table between the two marks of a document."""
    before, rest = document.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    table = "".join([*head(), *map(line, MADE)])
    document.write_text(before + BEGIN + table + END + after, encoding="utf-8")


if __name__ == "__main__":
    write(DOCUMENT)
