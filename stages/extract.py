"""Documents -> records by a JSON schema, each value with the span it comes from -> conversations.

Asks the champion, a model of ours (under structured decoding) or an endpoint for the records of
each passage; every value must stand beside a span that the passage holds word for word, or it goes
to quarantine with its reason. People accept, edit or reject records on /annotate
(`extract.review`); accepted ones become conversations, which curate reads beside the ingested ones.

Reads data/ingested/documents and data/extraction (people's decisions, schemas of your own). Writes
--records, --conversations, --quarantine and --report. Off unless `extract.skip: false`.
Run: dvc repro extract
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from pydantic import Field, PositiveInt

from stages.common.annotation import extraction_reviews
from stages.common.annotation.extraction_reviews import FILE
from stages.common.core import left_out, params, records
from stages.common.core.params import StageParams
from stages.common.core.records import Record
from stages.common.extraction import extracted, schemas, spans
from stages.common.extraction.asking import AtEndpoint, Local
from stages.common.extraction.extracted import Extracted
from stages.common.extraction.schemas import Wanted
from stages.common.extraction.spans import Fault, Found
from stages.common.generation.engines.endpoint import EndpointParams
from stages.common.release import promoted, registry
from stages.common.runtime import logs, process
from stages.common.runtime.errors import DataError, ParamsError, TryAgainError
from stages.common.text.parquet_writer import JsonLines, Shards, write, write_json
from stages.common.tracking import lineage, mlflow_store, session
from stages.common.tracking.figures import bars

PASSAGES_AT_ONCE = 256


class Params(StageParams):
    """Section `extract` of params.yaml."""

    skip: bool = True
    """Whether to leave this stage out."""
    wanted: str | dict[str, Any] = Field(default="question_answer", alias="schema")
    """What to extract: `question_answer`, `facts` or `form`, the file of a JSON schema, or the
    schema itself.
    """
    instruction: str = ""
    """What is asked for in words, in place of the schema's own."""
    conversations: list[list[str]] = []
    """What becomes of a record, in place of the schema's own: turns of user and assistant with
    `{field}` in them.
    """
    sources: list[str] = ["*"]
    """Patterns of the sources whose documents are read."""
    passage_characters: PositiveInt = 2000
    """A longer document is read in parts of at most so many."""
    by: Literal["champion", "model", "endpoint"] = "endpoint"
    """Who extracts."""
    model: str = ""
    """Folder of `model`."""
    endpoint: EndpointParams = EndpointParams()
    """What `endpoint` asks, its retries and its prices."""
    max_new_tokens: PositiveInt = 512
    """Longest reply of a model here."""
    batch_size: PositiveInt = 16
    """Passages that a model here reads at once."""
    review: Literal["none", "sample", "all"] = "none"
    """What people decide on before the stage goes on: nothing, a share, or every record."""
    review_share: float = Field(default=0.1, gt=0, le=1)
    """Share of `sample`; with it always what a span does not say itself."""


def main(
    documents: Annotated[Path, typer.Option(help="Folder of the ingested documents.")],
    people: Annotated[Path, typer.Option(help="Folder of people's decisions and of schemas.")],
    out: Annotated[Path, typer.Option(help="Folder of the records.")],
    conversations: Annotated[Path, typer.Option(help="Folder of what becomes of the accepted ones.")],
    quarantine: Annotated[Path, typer.Option(help="Folder of what has no span, or does not fit the schema.")],
    report: Annotated[Path, typer.Option(help="JSON file of counts.")],
) -> None:
    """Ask, check, wait for people, write."""
    settings = params.load(Params, "extract")
    if settings.skip:
        return left_out.skip("extract.skip is true", [out, conversations, quarantine], {}, [report])
    wanted = schemas.load(settings.wanted, settings.instruction, settings.conversations)
    inputs = {"documents": documents, "people": people}
    with session.start("extract", params={"extract": settings.model_dump(by_alias=True)}, inputs=inputs) as run:
        lineage.check_copy(people)
        found, facts = extract(settings, wanted, documents, out, quarantine)
        kept, decided = reviewed(settings, wanted, found, people / FILE, quarantine)
        talks = list(extracted.conversations(wanted, kept))
        write(talks, conversations, "conversations")
        facts |= decided | {"accepted": len(kept), "conversations": len(talks)}
        write_json(report, facts)
        told = {name: facts[name] for name in ("documents", "records", "accepted", "conversations")}
        run.metrics(told)
        run.figure("put_aside", bars(facts["put_aside"], "values and records put aside by reason"))
        logs.report(f"{len(found):,} records extracted, {len(kept):,} accepted, {len(talks):,} conversations", told)


def extract(
    settings: Params, wanted: Wanted, documents: Path, out: Path, quarantine: Path
) -> tuple[list[Extracted], dict[str, Any]]:
    """Ask for the records of every passage, write them and what is put aside; return the records
    and the counts.
    """
    counts, aside = Counter[str](), Counter[str]()
    rows: list[Extracted] = []
    with asked(settings, wanted) as who, JsonLines(quarantine) as refusals:
        parts = passages(settings, documents, counts)
        while some := list(islice(parts, PASSAGES_AT_ONCE)):
            for (document, offset, text), said in zip(some, who.answers([part[2] for part in some]), strict=True):
                too_long = Fault("too_long", "passage and reply have no room in the model's context", text)
                made = spans.read(said.text, text, wanted, said.is_cut) if said.fits else [too_long]
                for one in made:
                    if isinstance(one, Fault):
                        aside[one.reason] += 1
                        refusals.add(document["source"], refusal(document["id"], document["source"], one))
                    else:
                        rows.append(row(document, offset, text, one, counts, settings))
        cost = who.summary()
    with Shards({out: extracted.SCHEMA}) as shards:
        for each in rows:
            shards.add(out, each.row())
    sure = sum(all(value.is_in_span for value in each.values) for each in rows)
    facts = {"documents": counts["documents"], "passages": counts["passages"], "records": len(rows)}
    return rows, facts | {"said_by_span": sure, "put_aside": dict(sorted(aside.items())), "asked": cost}


def row(document: Record, offset: int, text: str, one: Found, counts: Counter[str], settings: Params) -> Extracted:
    """Return a record with its id: the document's, and its number there."""
    counts[document["id"]] += 1
    name = f"{document['id']}.x{counts[document['id']]}"
    made = Extracted(name, document["source"], document["id"], text, offset, one.record, one.values)
    doubtful = not all(value.is_in_span for value in one.values)
    sampled = settings.review == "sample" and (doubtful or extracted.is_sampled(made, settings.review_share))
    return replace(made, to_review=settings.review == "all" or sampled)


def passages(settings: Params, documents: Path, counts: Counter[str]) -> Iterator[tuple[Record, int, str]]:
    """Yield the passages of the documents that are asked for. Raises DataError when there are
    none.
    """
    for document in records.read(documents):
        if any(fnmatchcase(document["source"], pattern) for pattern in settings.sources):
            counts["documents"] += 1
            for offset, text in extracted.passages(document["text"], settings.passage_characters):
                counts["passages"] += 1
                yield document, offset, text
    if not counts["documents"]:
        what = f"no document of {', '.join(settings.sources)}"
        raise DataError(what, where=documents, remedy="see extract.sources in params.yaml")


def asked(settings: Params, wanted: Wanted) -> AtEndpoint | Local:
    """Return who is asked. Raises ParamsError for a model without a folder, DataError without a
    champion.
    """
    if settings.by == "endpoint":
        return AtEndpoint(settings.endpoint, wanted)
    if settings.by == "champion":
        folder = registry.champion(mlflow_store.client(), promoted.registered_name())[1]
    elif settings.model:
        folder = Path(settings.model)
    else:
        raise ParamsError("'extract.model' is missing", where=params.PARAMS_FILE, remedy="name the model's folder")
    return Local(folder, wanted, settings.max_new_tokens, settings.batch_size)


def reviewed(
    settings: Params, wanted: Wanted, found: Sequence[Extracted], file: Path, quarantine: Path
) -> tuple[list[Extracted], dict[str, Any]]:
    """Return the accepted records, and what people said. Raises TryAgainError, with how many are
    missing, until every record that is to be reviewed has been.
    """
    if settings.review == "none":
        return list(found), {}
    said = extraction_reviews.given(file, found)
    by_record = extraction_reviews.by_record(said)
    due = [one for one in found if one.to_review]
    missing = sum(one.id not in by_record for one in due)
    if missing:
        what = f"people have reviewed {len(due) - missing} of {len(due)} records, {missing} more are needed"
        raise TryAgainError(what, where=file, remedy="review them on /annotate (make serve), or lower extract.review")
    kept, aside = [], Counter[str]()
    for one in found:
        agreed = extraction_reviews.agreed(one, by_record[one.id], wanted) if one.id in by_record else None
        if agreed and agreed.fault:
            aside[agreed.fault.reason] += 1
            place = quarantine / f"{one.source}.jsonl"
            place.parent.mkdir(parents=True, exist_ok=True)
            with place.open("a", encoding="utf-8") as handle:
                handle.write(json.dumps(refusal(one.id, one.source, agreed.fault), ensure_ascii=False) + "\n")
        else:
            kept.append(agreed.record if agreed and agreed.record else one)
    review = {"due": len(due), "put_aside": dict(sorted(aside.items()))} | extraction_reviews.counts(said)
    return kept, {"review": review}


def refusal(name: str, source: str, fault: Fault) -> Record:
    """Return the quarantine's line about a value or a record."""
    return {"id": name, "source": source, "reason": fault.reason, "detail": fault.detail, "raw": fault.raw}


if __name__ == "__main__":
    process.run("extract", main)
