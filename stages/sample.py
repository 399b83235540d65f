"""K answers to every prompt from a policy, to be ranked: sampled, and the same for the same seed.

Several processes share the prompts. A sampling that was stopped goes on behind those that are
answered (checkpoints/sample), with as many processes as it is then given.

Reads a policy, data/validated/prompts and, where wanted, the questions of
data/validated/conversations. Writes data/samples/<round>, in the splits of what it reads, and a
report. Run: dvc repro sample@r1
"""

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import Field, NonNegativeInt, PositiveInt

from stages.common.core import chat, checkpoints, left_out, models, params, records
from stages.common.core.left_out import LackError
from stages.common.core.records import SPLITS, Record
from stages.common.generation import generator
from stages.common.generation.batch import Continuation
from stages.common.generation.engines import choice
from stages.common.generation.sampling import Sampling
from stages.common.ranking import samples as drawn
from stages.common.runtime import logs, process, ranks
from stages.common.runtime.progress import Progress
from stages.common.text.parquet_writer import Shards, row_count, write_json
from stages.common.tracking import session

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from stages.common.generation.engines.vllm_process import Vllm

PROMPTS_AT_ONCE = 500
SHOWN = 20
Part = tuple[int, str, list[Record]]


class Params(params.StageParams):
    """Section `sample` of params.yaml."""

    answers: Annotated[int, Field(ge=2)] = 4
    """Answers to a prompt."""
    max_new_tokens: PositiveInt = 48
    """Longest answer."""
    temperature: Annotated[float, Field(ge=0.01)] = 1.0
    """Below 1 the probable tokens become more so."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Tokens are drawn from the most probable ones that together have this probability."""
    batch_size: PositiveInt = 128
    """Answers under way at once."""
    seed: int = 1
    """Another seed, other answers."""
    from_conversations: NonNegativeInt = 0
    """Conversations in each split whose first question is asked too, for data without prompts."""


def main(
    policy: Annotated[Path, typer.Option(help="folder of the model that answers")],
    prompts: Annotated[Path, typer.Option(help="validated prompts")],
    conversations: Annotated[Path, typer.Option(help="validated conversations")],
    out: Annotated[Path, typer.Option(help="folder of the answers")],
    report: Annotated[Path, typer.Option(help="JSON report")],
) -> None:
    """Sample a policy's answers."""
    settings = params.load(Params, "sample")
    inputs = {"policy": policy, "prompts": prompts}
    if settings.from_conversations:
        inputs["conversations"] = conversations
    sections = {"sample": settings.model_dump()} | choice.section()
    parts = checkpoints.ROOT / "sample" / checkpoints.fingerprint("sample", sections, inputs)
    with session.start("sample", params=sections, inputs=inputs) as run:
        with left_out.allowed(reports=[report]):
            facts = sample(policy, prompts, conversations, out, parts, settings)
            if process.is_main_process():
                write_json(report, facts)
                run.metrics(facts)
                run.table("samples", [row for split in SPLITS for row in islice(records.read(out / split), SHOWN)])
                logs.report(headline(facts), facts)
        if process.is_main_process():
            shutil.rmtree(parts, ignore_errors=True)


def sample(
    policy: Path, prompts: Path, conversations: Path, out: Path, parts: Path, settings: Params
) -> dict[str, int]:
    """Write the answers to each split's prompts, then to its conversations' questions; return
    counts for the report.

    Every PROMPTS_AT_ONCE prompts are a part, which one process answers and the main one keeps in
    `parts` until all are answered: one that is there is taken. Raises LackError when there is no
    prompt, or none has room for an answer in the model's context.
    """
    model, tokenizer = choice.load(policy, settings.batch_size), models.load_tokenizer(policy)
    questions = {split: drawn.first_questions(conversations / split, settings.from_conversations) for split in SPLITS}
    total = row_count(prompts) + sum(map(len, questions.values()))
    progress = Progress(settings.answers * total // ranks.count())
    order = {number: split for number, split, _ in cut(prompts, questions)}
    missing = set(ranks.once(lambda: [number for number in order if not drawn.has_part(parts, number)]))

    def made(mine: Iterator[Part]) -> Iterator[tuple[list[Record], dict[str, int]]]:
        return (answered(model, tokenizer, some, settings, progress) for _, _, some in mine)

    unanswered = (part for part in cut(prompts, questions) if part[0] in missing)
    while some := list(islice(unanswered, ranks.count())):
        for (number, _, _), part in zip(some, ranks.shared(some, made), strict=True):
            if process.is_main_process():
                drawn.keep_part(parts, number, *part, drawn.SCHEMA)
    counts = ranks.once(lambda: joined(parts, order, out))
    counts["too_long"] = total - sum(counts[split] for split in SPLITS)
    if counts["too_long"]:
        what = "%s prompts are left out: they leave no room for an answer in the model's context of %s tokens"
        logs.log.warning(what, f"{counts['too_long']:,}", generator.context(model))
    if not counts["answers"]:
        what = f"no prompt to answer; {counts['too_long']:,} are too long for the model"
        raise LackError(what, where=prompts, remedy="bring prompts, or set sample.from_conversations")
    return dict(counts)


def cut(prompts: Path, questions: Mapping[str, list[Record]]) -> Iterator[Part]:
    """Yield the parts of all prompts and questions: number from 1 on, split, prompts."""
    number = 0
    for split in SPLITS:
        rows = chain(records.read(prompts / split), questions[split])
        while some := list(islice(rows, PROMPTS_AT_ONCE)):
            number += 1
            yield number, split, some


def joined(parts: Path, order: Mapping[int, str], out: Path) -> Counter[str]:
    """Write the rows of all parts, in order, to their splits; return their counts."""
    counts = Counter(dict.fromkeys((*SPLITS, "too_long", "answers", "tokens", "cut", "different", "comparable"), 0))
    with Shards({out / split: drawn.SCHEMA for split in SPLITS}) as shards:
        for number, split in order.items():
            found, added = drawn.read_part(parts, number)
            for row in found:
                shards.add(out / split, row)
            counts.update({split: len(found)} | added)
    return counts


def answered(
    model: "PreTrainedModel | Vllm",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[Record],
    settings: Params,
    progress: Progress,
) -> tuple[list[Record], dict[str, int]]:
    """Return the prompts that leave room for an answer in the model's context, with their answers,
    and counts.
    """
    limit = generator.context(model)
    encoded = [(prompt, chat.encode_prompt(tokenizer, prompt["messages"])) for prompt in prompts]
    fitting = [(prompt, tokens) for prompt, tokens in encoded if not limit or len(tokens) < limit]
    answers = generator.decode(
        model,
        [tokens for _, tokens in fitting],
        max_new_tokens=settings.max_new_tokens,
        stop=chat.stops(tokenizer),
        sampling=Sampling(settings.temperature, settings.top_p, seed=settings.seed),
        samples=settings.answers,
        batch_size=settings.batch_size,
        progress=progress,
    )
    counts: Counter[str] = Counter()
    rows = []
    for (prompt, _), some in zip(fitting, answers, strict=True):
        rows.append(as_sample(prompt, tokenizer, some))
        counts.update(tally(rows[-1], some))
    return rows, dict(counts)


def as_sample(prompt: Record, tokenizer: "PreTrainedTokenizerBase", answers: Sequence[Continuation]) -> Record:
    """Return the prompt with its answers as text, equal ones as often as drawn (`samples.read`
    merges them).
    """
    texts = [str(tokenizer.decode(one.tokens, skip_special_tokens=True)) for one in answers]
    return prompt | {"responses": texts, "cut": [one.stop is None for one in answers]}


def tally(row: Record, answers: Sequence[Continuation]) -> dict[str, int]:
    """Return what one prompt adds to the report's counts."""
    different = len(set(row["responses"]))
    return {
        "answers": len(answers),
        "tokens": sum(len(one.tokens) for one in answers),
        "cut": sum(row["cut"]),
        "different": different,
        "comparable": int(different > 1),
    }


def headline(facts: Mapping[str, int]) -> str:
    """Return the one figure the closing table shows."""
    prompts = sum(facts[split] for split in SPLITS)
    return (
        f"{facts['answers']:,} answers; {facts['comparable']:,} of {prompts:,} prompts have two different ones or more"
    )


if __name__ == "__main__":
    process.run("sample", main)
