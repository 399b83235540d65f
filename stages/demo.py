"""Writes the embedded demo world: a small bilingual set of facts as raw data, with faults planted
and counted.

Reads data/facts (tables and phrasings); writes data/raw/demo in the raw formats people have, and a
report that lists every planted fault by row id. `enabled: false` leaves the folder empty, for those
who bring their own text.

    python -m stages.demo --facts data/facts --out data/raw/demo --report reports/demo.json
"""

import json
import random
from pathlib import Path
from typing import Annotated

import typer
from pydantic import NonNegativeInt, PositiveInt

from stages.common.core import params
from stages.common.core.params import StageParams
from stages.common.demo import checks, conversations, documents, faults, groups, rows, world
from stages.common.demo.groups import Groups
from stages.common.demo.rows import CRAWL, FILES, Files, Row
from stages.common.demo.sizes import Conversations, Documents, Faults, Questions, Share
from stages.common.demo.world import LANGUAGES, Item, World
from stages.common.runtime import logs, process
from stages.common.runtime.errors import ParamsError
from stages.common.tracking import session

ARTICLE_SHARE = 0.6
TESTS = ("iid", "ood_phrasing", "ood_fact", "honesty", "harmless", "general")


class Params(StageParams):
    """The section `demo`."""

    enabled: bool = True
    """False: write no data; put your own files into data/raw."""
    seed: int = 1
    """Decides everything that is drawn."""
    largest_addend: PositiveInt = 9
    """Sums go up to this number plus itself."""
    facts_per_topic: PositiveInt | None = None
    """Facts of a topic at most, evenly from its table; null: all."""
    held_out_share: Share = 0.12
    """Share of the facts that stand in documents but are never asked in training."""
    documents: Documents = Documents()
    conversations: Conversations = Conversations()
    comparisons: NonNegativeInt = 3000
    """Questions with four ranked answers."""
    tie_share: Share = 0.15
    """Share of the comparisons in which two answers rank the same."""
    checks: NonNegativeInt = 3500
    """Further comparisons: right answers with wrong ones of their kind, and with replies that miss
    the question.
    """
    wrong_answers: PositiveInt = 3
    """Wrong answers in each of these that is about a fact."""
    prompts: NonNegativeInt = 2600
    """Questions with a reference, for training by preference and reward; none stands in a
    conversation.
    """
    new_phrasing_share: Share = 0.6
    """Share of the prompts about facts in phrasings that neither the conversations nor the test
    questions have.
    """
    questions: Questions = Questions()
    faults: Faults = Faults()


def build(here: World, p: Params) -> Files:
    """Return the rows of every file, planted faults included; equal params give equal rows. The
    documents are the same however many conversations, comparisons and prompts there are.
    """
    rng = random.Random(p.seed)
    names = groups.invent(here, rng)
    held = groups.hold_out(here, p.held_out_share, rng)
    sizes = p.questions.model_dump() | {"made_up": p.conversations.made_up}
    facts = groups.facts(here, held, p.conversations.phrasings_per_fact, sizes, rng)
    behaviour = groups.behaviour(here, names, sizes, rng)
    test = {name: (facts | behaviour)[name] for name in TESTS}
    files: Files = {name: [] for name in FILES}
    add_documents(files, here, p, names, facts, rng)
    leaks = rng.sample(test["iid"] + test["ood_phrasing"], 2 * p.faults.leaks)
    add_conversations(files, here, p, facts, behaviour, leaks[::2], rng)
    add_ranked(files, here, p, facts, behaviour, rng)
    files["questions.jsonl"] = [
        conversations.question(item, name.replace("_", "-")) for name in TESTS for item in test[name]
    ]
    for name, written in files.items():
        faults.drawer(p.seed, "order", name).shuffle(written)
    faults.plant(files, here.texts, p.faults.model_dump(), leaks[1::2], p.seed)
    checks.add(files, here, p.checks, p.wrong_answers, facts, behaviour, random.Random(p.seed))
    return files


def add_documents(files: Files, here: World, p: Params, names: groups.Names, facts: Groups, rng: random.Random) -> None:
    """Add prose, quiz lists and marked questions with answers."""
    size = p.documents
    for language in LANGUAGES:
        fables = [name for parts in names[language].values() for name in parts[0][: size.fables // 4]]
        prose = [
            *documents.paragraphs(here, language, size.paragraph_rounds, rng),
            *documents.profiles(here, language, size.profile_rounds, rng),
            *documents.fables(here, language, fables, rng),
        ]
        for text in prose:
            files["articles.jsonl" if rng.random() < ARTICLE_SHARE else f"prose_{language}.txt"].append(Row(text))
    articles = files["articles.jsonl"]
    if size.crawl > len(articles):
        what = f"asked for {size.crawl} paragraphs in the crawl, there are only {len(articles)} articles"
        raise ParamsError(what, where=params.PARAMS_FILE, remedy="lower demo.documents.crawl")
    files[CRAWL] = [articles.pop(rng.randrange(len(articles))) for _ in range(size.crawl)]
    asked = sorted(facts["train"] + facts["spare"], key=lambda item: item.text)
    _, exercised = conversations.sums(faults.drawer(p.seed, "sums"))
    articles += [Row(text) for text in documents.exercises(here, exercised, size.exercises, rng)]
    articles += [Row(text) for text in documents.manuals(here, size.manuals, rng)]
    files["quiz.txt"] += [Row(text) for text in documents.quiz(asked, size.quiz_lists, rng)]
    articles += [Row(text) for text in documents.few_shot(here, asked, size.few_shot_lists, rng)]


def add_conversations(
    files: Files, here: World, p: Params, facts: Groups, behaviour: Groups, leaks: list[Item], rng: random.Random
) -> None:
    """Add conversations of every kind, half of them as ShareGPT, half as OpenAI messages."""
    size, trained = p.conversations, rng.sample(facts["train"], len(facts["train"]))
    in_turn, others = trained[: p.faults.styled_answers], trained[p.faults.styled_answers :]
    asked_sums, _ = conversations.sums(faults.drawer(p.seed, "sums"))
    written, plain = conversations.by_writer(others, size.manners, size.manner_share, rng)
    asked = list({item.fact.key: item.fact for item in trained if item.fact}.values())
    rows = [
        *conversations.single_turns(plain + behaviour["train"]),
        *conversations.styled_turns(here, conversations.in_turn(in_turn) + written, rng),
        *conversations.multi_turns(here, trained, asked, size.multi_turn, rng),
        *conversations.instructed(here, trained, size.system, rng),
        *conversations.calculations(here, asked_sums[: size.tools], rng),
        *conversations.leaked(leaks),
        *conversations.with_pii(here, trained, p.faults.pii, rng),
    ]
    for index, row in enumerate(conversations.distinct(rng.sample(rows, len(rows)))):
        name, convert = (
            ("conversations_sharegpt.jsonl", conversations.as_sharegpt),
            ("conversations_openai.jsonl", conversations.as_openai),
        )[index % 2]
        files[name].append(convert(row))


def add_ranked(files: Files, here: World, p: Params, facts: Groups, behaviour: Groups, rng: random.Random) -> None:
    """Add comparisons, on trained and spare questions, and prompts, on spare ones and in phrasings
    of their own.
    """
    pools = {name: (facts[name], behaviour[name]) for name in ("train", "spare")}
    both = [known + other for known, other in zip(*pools.values(), strict=True)]
    for item in groups.mixed(both[0], both[1], p.comparisons, rng):
        files["comparisons.jsonl"].append(conversations.comparison(here, item, p.tie_share, rng))
    for item in groups.prompts(pools["spare"], facts["phrased"], p.prompts, p.new_phrasing_share, rng):
        files["prompts.jsonl"].append(conversations.prompt(item))


def summary(p: Params, files: Files, planted: dict[str, list[dict[str, str]]]) -> dict[str, object]:
    """Return the report: rows by file, planted faults by kind, and the id of every planted row."""
    return {
        "enabled": p.enabled,
        "seed": p.seed,
        "rows": {name: len(rows) for name, rows in files.items()},
        "planted": {fault: len(rows) for fault, rows in planted.items()},
        "planted_rows": planted,
    }


def main(
    facts: Annotated[Path, typer.Option(help="Folder of the fact tables and phrasings.")],
    out: Annotated[Path, typer.Option(help="Folder for the raw files.")],
    report: Annotated[Path, typer.Option(help="Where the planted faults are listed.")],
) -> None:
    """Write the demo world."""
    p = params.load(Params, "demo")
    with session.start("demo", params={"demo": p.model_dump()}, inputs={"facts": facts}) as run:
        files = build(world.read(facts, p.largest_addend, p.facts_per_topic), p) if p.enabled else {}
        planted = rows.write(files, rows.empty(out))
        found = summary(p, files, planted)
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        run.metrics({f"rows/{name}": len(rows) for name, rows in files.items()})
        run.metrics({f"planted/{fault}": len(rows) for fault, rows in planted.items()})
        logs.report(f"{sum(map(len, files.values())):,} rows, {sum(map(len, planted.values()))} of them planted faults")


if __name__ == "__main__":
    process.run("demo", main)
