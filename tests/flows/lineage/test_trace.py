"""An extracted record is followed from the row of its document to the tokens that train."""

from pathlib import Path

import pytest

from flows.lineage import trace
from stages import extract
from stages.common.annotation import feedback
from stages.common.annotation.extraction_reviews import Review
from stages.common.core.records import Record, message
from stages.common.extraction import extracted
from stages.common.extraction.extracted import Extracted
from stages.common.extraction.spans import Fault, Value
from stages.common.runtime.errors import DataError
from stages.common.text.parquet_writer import JsonLines, Shards, write
from tests.support.tiny import make_tokenizer

TEXT = "Ada was born in London."


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """One document, a record of it that a person accepted, one that is put aside, and what became
    of the first.
    """
    names = ("raw", "ingested", "quarantine", "extracted", "curated", "dropped", "validated", "tokenizer")
    found = {name: tmp_path / name for name in names} | {"reviews": tmp_path / "reviews.jsonl"}
    found |= {"promotion": tmp_path / "promote.json", "evaluations": tmp_path / "evaluate"}
    monkeypatch.setattr(trace, "outs", lambda: found)
    found["raw"].mkdir()
    (found["raw"] / "lives.txt").write_text(TEXT + "\n")
    document = {"id": "lives.txt:1", "source": "lives.txt", "text": TEXT}
    write([document], found["ingested"] / "documents", "documents")
    values = [Value("city", "London", "in London", 13, 22, True)]
    one = Extracted("lives.txt:1.x1", "lives.txt", "lives.txt:1", TEXT, 0, {"city": "London"}, values, True)
    with Shards({found["extracted"] / "records": extracted.SCHEMA}) as shards:
        shards.add(found["extracted"] / "records", one.row())
    with JsonLines(found["extracted"] / "quarantine") as aside:
        fault = Fault("span_missing", "born: the document does not say '1815'", {})
        aside.add("lives.txt", extract.refusal("lives.txt:1", "lives.txt", fault))
    feedback.append(found["reviews"], Review(id=one.id, shown=one.shown, decision="accept", annotator="ada"))
    talk: Record = {"id": "lives.txt:1.x1.2", "source": "extracted/lives.txt", "tools": None}
    talk["messages"] = [message("user", "Where was Ada born?"), message("assistant", "London.")]
    for place in ("extracted/conversations", "curated/conversations/train", "validated/conversations/train"):
        write([talk], tmp_path / place, "conversations")
    for place in ("curated", "validated"):
        write([document], tmp_path / place / "documents/train", "documents")
    make_tokenizer().save_pretrained(found["tokenizer"])
    return found


def followed(identifier: str) -> tuple[list[trace.Step], str]:
    """Return the steps, and what ended them."""
    steps: list[trace.Step] = []
    try:
        for step in trace.follow(identifier):
            steps.append(step)
    except DataError as error:
        return steps, error.what
    return steps, ""


def test_a_record_s_conversation_is_followed_to_its_tokens(folders: dict[str, Path]) -> None:
    steps, end = followed("lives.txt:1.x1.2")
    assert end == "no promotion yet", "only the champion's answer is missing here"
    raw, document, record, talk, curated, validated, tokens = [step.text for step in steps]
    assert raw == TEXT and TEXT in document
    assert "city: 'London' from [13, 22) 'in London'" in record and "ada: accept" in record
    assert talk == curated == validated and "Where was Ada born?" in talk
    assert "loss" in tokens and "London" not in raw.partition("born")[0]


def test_a_document_shows_what_was_extracted_from_it_and_what_was_put_aside(folders: dict[str, Path]) -> None:
    steps, _ = followed("lives.txt:1")
    texts = [step.text for step in steps]
    assert any("'in London'" in text for text in texts)
    assert any(text == "put aside: span_missing: born: the document does not say '1815'" for text in texts)
    assert steps[-1].place == "pretrain", "the document itself goes on"


def test_a_record_that_was_never_extracted_is_none(folders: dict[str, Path]) -> None:
    assert followed("lives.txt:1.x7")[1] == "no record lives.txt:1.x7"
