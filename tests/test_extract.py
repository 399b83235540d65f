"""The stage `extract`: planted facts through an endpoint that errs, quarantine, people, and what
curate gets.
"""

import json
import random
import re
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from stages import curate, extract
from stages.common.annotation import extraction_reviews, feedback
from stages.common.annotation.extraction_reviews import Review
from stages.common.core import left_out, records
from stages.common.extraction import asking, extracted, schemas
from stages.common.extraction.extracted import Extracted
from stages.common.runtime.errors import DataError, ParamsError, TryAgainError
from stages.common.text.parquet_writer import write
from stages.common.tracking import session
from stages.common.tracking.run import Run
from tests.support.judge_server import JudgeServer, grading
from tests.support.planted_lives import FEW, KNOWN, PEOPLE, SCHEMA, accuracy, reply


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The documents of all people, and a folder to work in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(session, "start", lambda *_, **__: nullcontext(Run(None)))
    rows = []
    for at, text in enumerate(KNOWN):
        source = "few/lives.txt" if at < FEW else "lives.txt"
        rows.append({"id": f"{source}:{at + 1}", "source": source, "text": text})
    rows.append({"id": "other.txt:1", "source": "other.txt", "text": "Not asked for."})
    write(rows, tmp_path / "documents", "documents")
    return tmp_path


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    with grading(reply) as serves:
        yield serves


def settings(url: str, **changes: Any) -> dict[str, Any]:
    endpoint = {"url": url, "model": "reader", "attempts": 3, "completion_price": 2.0, "prompt_price": 1.0}
    return {"skip": False, "schema": SCHEMA, "sources": ["few*"], "endpoint": endpoint} | changes


def run(section: dict[str, Any]) -> dict[str, Any]:
    """Run the stage and return its report."""
    Path("params.yaml").write_text(json.dumps({"run": {"name": "test"}, "extract": section}))
    out, talks, quarantine = (Path(name) for name in ("out", "conversations", "quarantine"))
    extract.main(Path("documents"), Path("people"), out, talks, quarantine, Path("extract.json"))
    report: dict[str, Any] = json.loads(Path("extract.json").read_text())
    return report


def quarantined() -> list[dict[str, Any]]:
    return [json.loads(line) for file in Path("quarantine").rglob("*.jsonl") for line in file.open(encoding="utf-8")]


def decide(who: str, choose: Callable[[Extracted], dict[str, Any]]) -> None:
    """Let a person decide on all that they are shown, in the order in which they are shown it."""
    found, file = extracted.read(Path("out")), Path("people") / extraction_reviews.FILE
    by_id, mine = {one.id: one for one in found}, dict[str, Review]()
    while id := extraction_reviews.next_to_review(found, {who: mine}, who, ()):
        one = by_id[id]
        mine[id] = Review(id=id, shown=one.shown, annotator=who, **choose(one))
        feedback.append(file, mine[id])


def truthful(one: Extracted) -> dict[str, Any]:
    truth = KNOWN[one.passage]
    if one.record == truth.record:
        return {"decision": "accept"}
    if one.record["city"] != truth.city:  # the wrong sentence: not worth mending
        return {"decision": "reject"}
    better = json.loads(one.shown)
    better["born"]["value"] = truth.born
    return {"decision": "edit", "edited": json.dumps(better)}


def test_planted_facts_are_found_and_people_take_out_what_is_wrong(work: Path, server: JudgeServer) -> None:
    every = settings(server.url, sources=["*lives*"])
    report = run(every)
    before = accuracy([one.record for one in extracted.read(Path("out"))])
    kinds = [random.Random(one.name).randrange(20) for one in KNOWN.values()]
    assert report["put_aside"] == {"not_json": kinds.count(4), "span_missing": 2 * kinds.count(1)}
    assert report["said_by_span"] == report["records"] - kinds.count(2)
    assert 0.8 < before[0] < 0.93 and 0.65 < before[1] < 0.85
    assert len({row["reason"] for row in quarantined()}) == 2
    with pytest.raises(TryAgainError, match=f"reviewed 0 of {report['records']} records"):
        run(every | {"review": "all"})

    def careless(seed: int) -> Callable[[Extracted], dict[str, Any]]:
        """Decide rightly but for one record in 20: then accept what is wrong, reject what is
        right.
        """
        dice = random.Random(seed)

        def choose(one: Extracted) -> dict[str, Any]:
            right = truthful(one)
            errs = {"decision": "reject" if right["decision"] == "accept" else "accept"}
            return errs if dice.random() < 0.05 else right

        return choose

    decide("ada", careless(1))
    alone = run(every | {"review": "all"})
    one_person = accuracy([row["record"] for row in accepted()])
    decide("bob", careless(2))
    report = run(every | {"review": "all"})
    after = accuracy([row["record"] for row in accepted()])
    assert one_person[0] >= 0.99 and after[0] >= 0.99 and after[1] >= before[1] - 0.1
    assert len(server.seen) == PEOPLE, "what was said once is asked no second time"
    assert report["asked"]["cost"] == alone["asked"]["cost"] == pytest.approx(PEOPLE * (100 + 2) / 1e6)
    assert report["review"]["agreement"]["ada-bob"]["records"] == report["records"]
    assert 0.85 < report["review"]["agreement"]["ada-bob"]["value"] < 0.95
    assert {"rejected", "people_disagree"} <= {row["reason"] for row in quarantined()}
    assert report["conversations"] == 2 * report["accepted"]
    print(f"\nprecision, recall: before {before}, one person {one_person}, two {after}")


def accepted() -> list[dict[str, Any]]:
    """Return the records that became conversations, read from what these say."""
    found: dict[str, dict[str, Any]] = {}
    for talk in records.read(Path("conversations")):
        asked, said = (turn["content"] for turn in talk["messages"])
        name = str(re.findall(r"was (.*) born", asked)[0])
        one = found.setdefault(name, {"name": name})
        one |= {"born": int(said[3:-1])} if asked.startswith("When") else {"city": said[:-1]}
    return [{"record": one} for one in found.values()]


def test_a_sample_holds_what_its_span_does_not_say_and_a_share_of_the_rest(work: Path, server: JudgeServer) -> None:
    section = settings(server.url, sources=["*lives*"], review="sample", review_share=0.1)
    with pytest.raises(TryAgainError):
        run(section)
    found = extracted.read(Path("out"))
    doubtful = [one for one in found if not all(value.is_in_span for value in one.values)]
    due = [one for one in found if one.to_review]
    assert doubtful and all(one.to_review for one in doubtful)
    assert 0.05 < (len(due) - len(doubtful)) / (len(found) - len(doubtful)) < 0.16
    decide("ada", truthful)
    report = run(section)
    assert report["review"]["due"] == len(due)
    assert report["accepted"] == len(found) - report["review"]["put_aside"].get("rejected", 0)


def test_a_busy_endpoint_is_asked_again_and_a_lost_one_goes_on_where_it_was(work: Path, server: JudgeServer) -> None:
    few = settings(server.url)
    few["endpoint"] |= {"workers": 1, "attempts": 2}
    server.failures = [(500, {})] * 2 + [(503, {"Retry-After": "0"})]
    with pytest.raises(TryAgainError, match="the endpoint does not answer"):
        server.failures = [(500, {"Retry-After": "0"})] * 2
        run(few)
    report = run(few)
    assert report["asked"]["requests"] == FEW
    body = server.seen[-1]
    assert body["response_format"]["type"] == "json_schema"
    assert body["response_format"]["json_schema"]["strict"] is True
    assert body["response_format"]["json_schema"]["schema"] == schemas.load(SCHEMA).reply


def test_without_templates_a_passage_and_its_records_are_a_conversation(work: Path, server: JudgeServer) -> None:
    plain = {key: value for key, value in SCHEMA.items() if key != "x-lathe"}
    run(settings(server.url, schema=plain, instruction="Who was born where and when?"))
    talk = next(iter(records.read(Path("conversations"))))
    asked, said = (turn["content"] for turn in talk["messages"])
    text = asked.removeprefix("Who was born where and when?\n\n")
    assert json.loads(said)["name"] == KNOWN[text].name
    assert talk["source"] == "extracted/few/lives.txt" and talk["id"].startswith("few/lives.txt:")


def test_left_out_it_writes_why_and_curate_reads_nothing_more(work: Path) -> None:
    report = run({"skip": True})
    assert report == {left_out.KEY: "extract.skip is true"}
    assert curate.sources(Path("ingested"), Path("conversations"))["conversations"] == (Path("ingested/conversations"),)
    assert left_out.reason(Path("out")) == left_out.reason(Path("quarantine")) == "extract.skip is true"


def test_what_is_missing_is_named(work: Path, server: JudgeServer) -> None:
    with pytest.raises(DataError, match="no document of nobody"):
        run(settings(server.url, sources=["nobody*"]))
    with pytest.raises(ParamsError, match=r"extract\.model"):
        run(settings(server.url, by="model"))
    with pytest.raises(ParamsError, match=r"extract\.endpoint\.model"):
        run(settings(server.url, endpoint={}))
    with pytest.raises(ParamsError, match=r"unknown key 'extract\.reviews'"):
        run(settings(server.url, reviews="all"))


def test_accepted_records_go_through_curate_beside_the_ingested_ones(work: Path, server: JudgeServer) -> None:
    report = run(settings(server.url))
    for shape in curate.ORDER:
        write([], work / "ingested" / shape, shape)
    talk: records.Record = {"id": "t:1", "source": "t", "tools": None}
    talk |= {"messages": [records.message("user", "Which way?"), records.message("assistant", "To the left, I think.")]}
    write([talk], work / "ingested/conversations", "conversations")
    options = curate.Params.model_validate(
        {"splits": {shape: {"validation": 0.0} for shape in curate.ORDER if shape not in ("questions", "labelled")}}
    )
    counts, summary = curate.counted(work / "ingested", work / "work", options, work / "conversations")
    kept = list(records.read(work / "work/out/conversations"))
    assert counts and summary["conversations"]["kept"] == len(kept)
    assert {row["source"] for row in kept} == {"t", "extracted/few/lives.txt"}
    assert len(kept) > 0.8 * report["conversations"]
    ids = {row["id"] for row in records.read(work / "conversations")}
    assert {row["id"] for row in kept} <= ids | {"t:1"}


def test_long_documents_are_read_in_passages_that_end_where_text_does() -> None:
    text = "One sentence here. " * 30 + "\n\n" + "另一句话在这里。" * 40
    parts = list(extracted.passages(text, 200))
    assert "".join(part for _, part in parts) == text
    assert all(len(part) <= 200 and text[start : start + len(part)] == part for start, part in parts)
    assert all(part.rstrip().endswith((".", "。")) for _, part in parts)
    assert asking.question(schemas.load("facts"), "X")[-1]["content"].endswith("Document:\nX")
