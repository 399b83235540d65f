"""Follow one record through every step: the raw row, what each stage made of it, its tokens, the
champion's answer.

Command: python -m flows.lineage.trace demo/conversations_openai.jsonl:12
"""

import itertools
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows import pipeline
from stages.common.annotation import extraction_reviews
from stages.common.core import chat, models, records
from stages.common.extraction import extracted
from stages.common.generation.generator import generate
from stages.common.ingest.files import hub, raw_files
from stages.common.runtime.errors import DataError, StageError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MAX_NEW_TOKENS = 64
EXTRACTED = re.compile(r"\.x\d+(\.\d+)?(?=#|$)")
"""What the id of an extracted record adds to that of its document; its second conversation ends in
`.2`.
"""
CONVERSATION = re.compile(r"(\.x\d+)(\.\d+)?(#\d+)?$")


@dataclass(frozen=True)
class Step:
    """Where the record was met, and what it was there."""

    place: str
    text: str


def follow(identifier: str) -> Iterator[Step]:
    """Yield every step of one record, in the pipeline's order. Raises DataError when no stage knows
    it.
    """
    folders = outs()
    yield Step(f"{folders['raw']}/{identifier}", raw_row(folders["raw"], identifier))
    record, shape, met = None, "", False
    for stage in ("ingested", "extracted", "curated", "validated"):
        if stage == "extracted":
            steps = list(extractions(identifier, folders))
            yield from steps
            met = met or bool(steps)
            continue
        found = find(folders[stage], identifier)
        if found:
            file, record, met = *found, True
            shape = file.relative_to(folders[stage]).parts[0]
            yield Step(str(file), as_json(record))
            continue
        if stage == "ingested" and EXTRACTED.search(identifier):
            source = find(folders[stage], EXTRACTED.sub("", identifier))
            if source:
                yield Step(str(source[0]), as_json(source[1]))
                continue
        yield from refusals(identifier, folders)
        if not met and not list(refusals(identifier, folders)):
            raise DataError(
                f"no record {identifier}", where=folders[stage], remedy="see data/ingested for ids that exist"
            )
        return
    if record is not None:
        yield from as_tokens(shape, record, folders["tokenizer"])
        yield from answers(shape, record, identifier, folders)


def outs() -> dict[str, Path]:
    """Return the folders of the pipeline's outs by what they hold, as dvc.yaml names them."""
    by_stage = {stage.name: [Path(out) for out in stage.outs] for stage in pipeline.load()}
    return {
        "raw": by_stage["demo"][0].parent,
        "ingested": by_stage["ingest"][0].parent,
        "quarantine": next(out for out in by_stage["ingest"] if out.name == "quarantine"),
        "extracted": by_stage["extract"][0].parent,
        "reviews": by_stage["extract"][0].parents[1] / "extraction" / extraction_reviews.FILE,
        "curated": by_stage["curate"][0].parent,
        "dropped": next(out for out in by_stage["curate"] if out.name == "dropped"),
        "validated": by_stage["validate"][0].parent,
        "tokenizer": by_stage["tokenizer"][0],
        "promotion": next(out for out in by_stage["promote"] if out.suffix == ".json"),
        "evaluations": by_stage["evaluate@pretrain"][0].parent.parent,
    }


def extractions(identifier: str, folders: dict[str, Path]) -> Iterator[Step]:
    """Yield the records that were extracted from a document of this id, or the one of this id, each
    with its spans and what people said of it; then the conversation that it became.
    """
    name = CONVERSATION.sub(r"\1", identifier)
    folder = folders["extracted"] / "records"
    rows = extracted.read(folder) if any(folder.glob("*.parquet")) else []
    found = [one for one in rows if name in (one.id, one.document)]
    said = extraction_reviews.by_record(extraction_reviews.given(folders["reviews"], found))
    for one in found:
        spans = [f"  {each.path}: {each.value!r} from [{each.start}, {each.end}) {each.span!r}" for each in one.values]
        people = [f"  {review.annotator}: {review.decision}" for review in said.get(one.id, [])]
        yield Step(f"{folder} {one.id}", "\n".join([json.dumps(one.record), *spans, *people]))
    for file in sorted((folders["extracted"] / "quarantine").rglob("*.jsonl")):
        with file.open(encoding="utf-8") as handle:
            for row in map(json.loads, handle):
                if row["id"] == name:
                    yield Step(str(file), f"put aside: {row['reason']}: {row['detail']}")
    talk = find(folders["extracted"] / "conversations", identifier)
    if talk:
        yield Step(str(talk[0]), as_json(talk[1]))


def raw_row(raw: Path, identifier: str) -> str:
    """Return the raw line a record starts on. Raises DataError naming file or line."""
    name, number = place(identifier)
    path = raw / name
    if name.startswith(hub.PREFIX) and not path.is_file():
        return f"row {number} of a Hugging Face data set (ingest.datasets)"
    if not number.isdigit() or not path.is_file():
        what = f"'{identifier}' is not `<file under {raw}>:<line>`, or there is no such file"
        raise DataError(what, where=path, remedy="ids stand in data/ingested, for example demo/questions.jsonl:3")
    with raw_files.open_raw(path) as opened:
        for row in opened.rows():
            if row.line >= int(number):
                return row.text()
    raise DataError(f"the file ends before line {number}", where=path)


def place(identifier: str) -> tuple[str, str]:
    """Return file and line of a record; several of one line are told apart by `.2`, `.3`, …, copies
    by `#2`.
    """
    name, _, number = identifier.rpartition(":")
    return name, number.partition("#")[0].partition(".")[0]


def find(folder: Path, identifier: str) -> tuple[Path, records.Record] | None:
    """Return the file and the record of that id under `folder`, or None; only files that may hold
    it are read whole.
    """
    import pyarrow.parquet as pq

    for file in sorted(folder.rglob("*.parquet")):
        rows = pq.read_table(file, filters=[("id", "=", identifier)]).to_pylist()
        if rows:
            return file, rows[0]
    return None


def refusals(identifier: str, folders: dict[str, Path]) -> Iterator[Step]:
    """Yield where the row was put aside, with the reason."""
    name, number = place(identifier)
    for file in sorted(itertools.chain(folders["quarantine"].rglob("*.jsonl"), folders["dropped"].rglob("*.jsonl"))):
        with file.open(encoding="utf-8") as handle:
            for line in handle:
                row = json.loads(line)
                if row.get("id") == identifier or (row.get("file"), str(row.get("line"))) == (name, number):
                    yield Step(str(file), f"put aside: {row['reason']}")


def as_tokens(shape: str, record: records.Record, folder: Path) -> Iterator[Step]:
    """Yield the record as the trainer sees it: a table of position, id, token and whether it
    carries loss.
    """
    tokenizer = models.load_tokenizer(folder)
    if shape == "conversations":
        encoded = chat.encode(tokenizer, record["messages"], record["tools"])
        yield Step("sft", table(tokenizer, encoded))
    elif shape == "documents":
        ids = [*chat.encode_texts(tokenizer, [record["text"]])[0], chat.end_of_document(tokenizer)]
        yield Step("pretrain", table(tokenizer, chat.Encoded(ids, [1] * len(ids))))


def table(tokenizer: "PreTrainedTokenizerBase", encoded: chat.Encoded) -> str:
    """Return one line a token; `*` marks those the loss is taken on. A token that is part of a
    character shows as �.
    """
    lines = ["position     id  loss  token"]
    for position, (token, mask) in enumerate(zip(encoded.input_ids, encoded.assistant_mask, strict=True)):
        text = json.dumps(tokenizer.decode([token]), ensure_ascii=False)
        lines.append(f"{position:>8} {token:>6}  {'*' if mask else ' ':^4}  {text}")
    return "\n".join(lines)


def answers(shape: str, record: records.Record, identifier: str, folders: dict[str, Path]) -> Iterator[Step]:
    """Yield the answers the evaluations recorded (questions), or the champion's own answer now (all
    with turns).
    """
    for file in sorted(folders["evaluations"].glob("*/answers.jsonl")) if shape == "questions" else []:
        with file.open(encoding="utf-8") as handle:
            for row in map(json.loads, filter(str.strip, handle)):
                if row["id"] == identifier:
                    verdict = "right" if row["correct"] else "wrong"
                    yield Step(str(file), f"{row['answer']}\n({verdict}; reference: {row['reference']})")
    turns = record.get("messages") or record.get("prompt")
    if turns:
        if turns[-1]["role"] == "assistant":
            turns = turns[:-1]
        yield Step("champion", champion_answer(turns, record.get("tools"), folders["promotion"]))


def champion_answer(turns: list[records.Record], tools: str | None, promotion: Path) -> str:
    """Return the greedy answer of the model that the promotion report names. Raises DataError
    without a report.
    """
    if not promotion.exists():
        raise DataError("no promotion yet", where=promotion, remedy="run `dvc repro promote`")
    folder = Path(json.loads(promotion.read_text(encoding="utf-8"))["model"])
    tokenizer, model = models.load_tokenizer(folder), models.load_frozen(folder)
    prompt = chat.encode_prompt(tokenizer, turns, tools)
    tokens = generate(model, [prompt], max_new_tokens=MAX_NEW_TOKENS, stop=chat.stops(tokenizer))[0]
    return str(tokenizer.decode(tokens))


def as_json(record: records.Record) -> str:
    """Return a record for reading: one field a line, empty ones left out."""

    def pruned(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: pruned(item) for key, item in value.items() if item is not None}
        return [pruned(item) for item in value] if isinstance(value, list) else value

    return "\n".join(f"{key}: {json.dumps(item, ensure_ascii=False)}" for key, item in pruned(record).items())


def main(arguments: list[str]) -> int:
    """Print the steps; return the exit code."""
    try:
        if len(arguments) != 1:
            raise DataError("one record id is wanted", remedy="make trace ID=demo/conversations_openai.jsonl:12")
        for number, step in enumerate(follow(arguments[0]), start=1):
            print(f"\n{number}. {step.place}\n{step.text}")
    except StageError as error:
        print(f"lathe: trace: {error}", file=sys.stderr)
        return error.code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
