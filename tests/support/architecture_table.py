"""What Lathe can do with each of many architectures, tried with tiny random models, and the table
of it in the docs.

Write the table anew: python -m tests.support.architecture_table
"""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.support.architectures import MADE, build, comparisons, row, scorer

DOCUMENT = Path(__file__).parents[2] / "docs/models.md"
BEGIN, END = "<!-- table: begin -->\n", "<!-- table: end -->\n"


def decode(name: str, work: Path) -> str:
    """Return how answers are decoded, which must be `generate`'s of each prompt alone; some go
    beyond the window.
    """
    from stages.common.generation import generator, kv_cache, transformers_generate
    from stages.common.generation.batch import Order
    from tests.support.decoders import alone

    model, stop = build(name), list(range(200, 320))
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
        places: list[int] = []
        start = 0
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


def reward_head(name: str, work: Path) -> str:
    """Return whose head scores; in a batch, as trained, and loaded again it must score as each
    answer alone.
    """
    import torch

    from stages.common.reward import batches, scoring

    model, rows = scorer(name, work), comparisons()
    try:
        scoring.check(model, rows, 1, "reward.max_tokens")
    except Exception as error:
        return refused(error)
    alone = [scoring.head_tokens(model, [answer])[0][0] for one in rows for answer in one["rows"]]
    with torch.no_grad():
        trained = scoring.last_scores(model, model.score, batches.Collator(1)(rows)).tolist()
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
    from tests.support.small_ppo import fit, trainer_in, write_ppo
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
    weights = {name: one for name, one in trainer.model.named_parameters() if "vision" not in name}
    before = {name: one.detach().clone() for name, one in weights.items()}
    fit(trainer)
    first = trainer.state.log_history[0]
    assert trainer.state.global_step == 2 and first["clip_fraction"] == 0 and first["update_kl"] < 1e-6, first
    assert abs(first["kl_k1"]) < 1e-2, first
    changed = [not torch.equal(before[name], one.cpu()) for name, one in weights.items()]
    assert sum(changed) > len(changed) / 2
    return "yes"


def lora(name: str, work: Path) -> str:
    """Return whether adapters alone learn to end an answer, merged and loaded again, or are
    refused.
    """
    import torch

    from stages.common.core import chat, models
    from stages.common.finetuning import lora as adapters
    from stages.common.finetuning import merging
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
    merging.save(model.eval(), work / "lora")
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
    from stages.common.runtime.errors import ParamsError

    if not isinstance(error, ParamsError):
        raise error
    return f"refused, by `{error.where}`"


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
    from stages.common.core import checkpoints

    with tempfile.TemporaryDirectory() as work:
        before, root = os.getcwd(), checkpoints.ROOT
        os.chdir(work)
        try:
            return COLUMNS[column](name, Path(work))
        finally:
            os.chdir(before)
            checkpoints.ROOT = root


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
