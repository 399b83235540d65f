"""What extraction teaches: half of the facts that the demo's conversations never ask about are
extracted from its documents, checked, and trained; the other half is left.

    python -m bench.extraction DEMO        (the folder of a finished demo)

The endpoint is scripted: it reads the facts of half of the subjects (one reply in 20 gives a wrong
answer, one in 20 a span that is made up), over real HTTP, and a scripted person checks every
record. Training goes on from the demo's `sft_best`, on the conversations and as many of the demo's
own. Questions of the test are left out as `curate` would.
"""

import json
import random
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Annotated, Any

import typer

from stages import extract
from stages.common.annotation import feedback
from stages.common.annotation.extraction_reviews import Review
from stages.common.core import chat, models, params, records
from stages.common.core.records import Record
from stages.common.curate.filters import contamination
from stages.common.demo import world
from stages.common.demo.world import LANGUAGES, Fact, Language
from stages.common.extraction import asking, extracted, schemas
from stages.common.generation import generator
from stages.common.text.exact_match import matches
from stages.common.text.parquet_writer import write
from tests.support.judge_server import Messages, grading

BATCH, RATE, DOCUMENTS, REPLAY = 16, 3e-4, 200, 1.0
Sentence = tuple[str, Fact, Language]


def half(here: world.World, questions: list[Record]) -> set[str]:
    """Return half of the subjects whose facts `ood-fact` asks about."""
    asked = {one["messages"][-1]["content"] for one in questions if one["group"] == "ood-fact"}
    found = {
        fact.subject
        for fact in here.facts
        for language in LANGUAGES
        for template in here.phrasings(fact.topic, language, "train")
        if world.ask(fact, language, template).text in asked
    }
    order = random.Random(3).sample(sorted(found), len(found))
    return set(order[::2])


def sentences(here: world.World, subjects: set[str], asked: set[str]) -> list[Sentence]:
    """Return every way in which the facts of these subjects that are in the test are stated."""
    facts = [fact for fact in here.facts if fact.subject in subjects and fact.key in asked]
    return [
        (world.state(fact, language, template), fact, language)
        for fact in facts
        for language in LANGUAGES
        for template in here.phrasings(fact.topic, language, "statements")
    ]


def tested(here: world.World, questions: list[Record]) -> dict[str, str]:
    """Return the key of the fact that each question of `ood-fact` asks about, by the question."""
    texts = {one["messages"][-1]["content"] for one in questions if one["group"] == "ood-fact"}
    found = {}
    for fact in here.facts:
        for language in LANGUAGES:
            for template in here.phrasings(fact.topic, language, "train"):
                item = world.ask(fact, language, template)
                if item.text in texts:
                    found[item.text] = fact.key
    return found


class Reader:
    """A model that finds stated facts, and errs."""

    def __init__(self, here: world.World, said: list[Sentence], texts: set[str]) -> None:
        self.here, self.said, self.texts = here, said, texts
        self.answers = defaultdict(list)
        self.truth: dict[tuple[str, str], str] = {}
        for _, fact, language in said:
            self.answers[fact.topic, language].append(world.reply(fact, language))

    def reply(self, messages: Messages) -> str:
        """Return the records of the passage."""
        passage = messages[-1]["content"].split("Document:\n")[1]
        dice, found = random.Random(passage), []
        for sentence, fact, language in self.said:
            if sentence not in passage:
                continue
            items = [world.ask(fact, language, one) for one in self.here.phrasings(fact.topic, language, "train")]
            item = dice.choice([one for one in items if one.text not in self.texts])
            self.truth[passage, item.text] = item.reply
            error = dice.randrange(20)
            answer = dice.choice(self.answers[fact.topic, language]) if error == 0 else item.reply
            span = f"As is known, {sentence}" if error == 1 else sentence
            found.append({"question": {"span": span, "value": item.text}, "answer": {"span": span, "value": answer}})
        return json.dumps({"records": found[:16]}, ensure_ascii=False)


def taught(
    work: Path, documents: list[Record], reader: Reader, questions: list[Record]
) -> tuple[list[Record], dict[str, Any]]:
    """Return the conversations of what the stage extracts from the documents and a person
    accepts.
    """
    write(documents, work / "documents", "documents")
    asking.CACHE = work / "kept.sqlite"
    wanted = schemas.load("question_answer")
    with grading(reader.reply) as server:
        endpoint = {"url": server.url, "model": "scripted"}
        settings = extract.Params.model_validate({"skip": False, "review": "all", "endpoint": endpoint})
        found, facts = extract.extract(settings, wanted, work / "documents", work / "records", work / "quarantine")
    right = [reader.truth[one.passage, one.record["question"]] == one.record["answer"] for one in found]
    for one, is_right in zip(found, right, strict=True):
        decision: Any = "accept" if is_right else "reject"
        feedback.append(
            work / "reviews.jsonl", Review(id=one.id, shown=one.shown, decision=decision, annotator="scripted")
        )
    kept, _ = extract.reviewed(settings, wanted, found, work / "reviews.jsonl", work / "quarantine")
    index = contamination.Index.build(questions, contamination.Contamination())
    talks = [
        talk for talk in extracted.conversations(wanted, kept) if not contamination.find(index, "conversations", talk)
    ]
    unique = {talk["messages"][0]["content"]: talk for talk in talks}
    figures = {"records": len(found), "right": sum(right), "accepted": len(kept), "conversations": len(unique)}
    return list(unique.values()), figures | {"put_aside": facts["put_aside"]}


def train(model: Any, tokenizer: Any, talks: list[Record], steps: int) -> None:
    """Train on the conversations, loss on what the assistant says, cosine to 0."""
    import torch

    torch.manual_seed(1)
    rows = [chat.encode(tokenizer, talk["messages"], talk["tools"]) for talk in talks]
    rows = [row for row in rows if len(row.input_ids) <= 256]
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    dice, order = random.Random(1), list[int]()
    model.requires_grad_(True).train()
    for _ in range(steps):
        if len(order) < BATCH:
            order = dice.sample(range(len(rows)), len(rows))
        some = [rows[order.pop()] for _ in range(BATCH)]
        longest = max(len(row.input_ids) for row in some)
        ids = torch.tensor([row.input_ids + [0] * (longest - len(row.input_ids)) for row in some])
        mask = torch.tensor([row.assistant_mask + [0] * (longest - len(row.input_ids)) for row in some])
        loss = model(input_ids=ids, labels=ids.masked_fill(mask == 0, -100)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()


def accuracy(model: Any, tokenizer: Any, asked: dict[str, list[Record]]) -> dict[str, str]:
    """Return how many of each group's questions are answered exactly."""
    found = {}
    for name, some in asked.items():
        prompts = [chat.encode_prompt(tokenizer, one["messages"]) for one in some]
        answers = generator.generate(model, prompts, max_new_tokens=48, stop=chat.stops(tokenizer))
        texts = [str(tokenizer.decode(answer)) for answer in answers]
        right = sum(matches(text, one["reference"]) for text, one in zip(texts, some, strict=True))
        found[name] = f"{right} of {len(some)} ({100 * right / len(some):.1f} %)"
    return found


def main(
    demo: Annotated[Path, typer.Argument(help="folder of a finished demo")],
    steps: Annotated[int, typer.Option(help="steps of training, of 16 conversations each")] = 150,
) -> None:
    """Measure and print."""
    settings = params.plain(params.read_yaml(demo / "params.yaml"))["demo"]
    here = world.read(demo / "data/facts", settings["largest_addend"])
    questions = list(records.read(demo / "data/validated/questions"))
    first = half(here, questions)
    key_of = tested(here, questions)
    said = sentences(here, first, set(key_of.values()))
    documents = [
        one for one in records.read(demo / "data/ingested/documents") if any(text in one["text"] for text, _, _ in said)
    ]
    documents = random.Random(2).sample(documents, min(DOCUMENTS, len(documents)))
    subject = {fact.key: fact.subject for fact in here.facts}
    asked: dict[str, list[Record]] = {"ood-fact, extracted": [], "ood-fact, left": [], "iid": []}
    for one in questions:
        text = one["messages"][-1]["content"]
        if one["group"] == "ood-fact":
            name = "extracted" if subject[key_of[text]] in first else "left"
            asked[f"ood-fact, {name}"].append(one)
        elif one["group"] == "iid":
            asked["iid"].append(one)
    folder = demo / "models/sft_best"
    model, tokenizer = models.load_frozen(folder), models.load_tokenizer(folder)
    print("before:", accuracy(model, tokenizer, asked), flush=True)
    with tempfile.TemporaryDirectory() as work:
        talks, facts = taught(Path(work), documents, Reader(here, said, set(key_of)), questions)
    print(f"{len(documents)} documents:", facts, flush=True)
    own = list(records.read(demo / "data/validated/conversations/train"))
    replay = random.Random(4).sample(own, min(len(own), round(REPLAY * len(talks))))
    train(model, tokenizer, talks + replay, steps)
    print("after:", accuracy(model.eval(), tokenizer, asked), flush=True)


if __name__ == "__main__":
    typer.run(main)
