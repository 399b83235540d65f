"""People check extracted records: in a browser by keys, with spans marked; edits keep theirs."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from stages.common.annotation import extraction_reviews
from stages.common.core import params
from stages.common.extraction import extracted
from stages.common.extraction.extracted import Extracted
from stages.common.extraction.spans import Value
from stages.common.runtime.errors import DataError
from stages.common.serving.engine.champions import Champions
from stages.common.serving.pages import check_records
from stages.common.serving.pages.check_records import Desk
from stages.common.text.parquet_writer import Shards
from tests.common.serving.conftest import served
from tests.support import browser

if TYPE_CHECKING:
    from playwright.sync_api import Page

PASSAGE = "<b>Ada</b> & co. were born in London. Bob was born in Rome."
CITY = "born in London"


def record(number: int) -> Extracted:
    start = PASSAGE.index(CITY)
    values = [Value("question", "Where?", "Ada", 3, 6, True), Value("answer", "London", CITY, start, start + 14, True)]
    plain = {"question": "Where?", "answer": "London"}
    return Extracted(f"t:{number}.x1", "t", f"t:{number}", PASSAGE, 0, plain, values, to_review=True)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """Four records that wait for people."""
    with Shards({tmp_path / "records": extracted.SCHEMA}) as shards:
        for number in range(4):
            shards.add(tmp_path / "records", record(number).row())
    return Desk(tmp_path / "records", tmp_path / "reviews.jsonl")


def said(desk: Desk) -> list[tuple[str, str]]:
    return [(line.annotator, line.decision) for line in extraction_reviews.read(desk.store)]


def edited(one: Extracted, **answer: Any) -> str:
    changed = json.loads(one.shown)
    changed["answer"] |= answer
    return json.dumps(changed)


def test_spans_are_marked_and_what_a_document_says_is_no_markup() -> None:
    one = record(0)
    shown = check_records.marked(PASSAGE, [*one.values, Value("more", "<i>", "London. Bob", 31, 42, False)])
    assert '&lt;b&gt;<mark title="question">Ada</mark>&lt;/b&gt; &amp; co.' in shown
    assert "<b>Ada" not in shown and "&lt;i&gt; <i>(its span does not say this)</i>" in shown
    assert 'title="answer, more"' in shown, "spans may lie over each other"


def test_a_person_goes_through_all_and_back(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(params, "read_yaml", lambda _: {"extract": {"skip": False}})
    with pytest.raises(DataError, match="type your name first"):
        desk.decide(None, "accept")
    with pytest.raises(DataError, match="a name has"):
        desk.sit("<script>")
    seat = desk.sit("ada")
    first = seat.id
    seat = desk.decide(seat, "accept")
    one = desk.record(seat)
    assert one
    with pytest.raises(DataError, match="does not say 'born in Oslo'"):
        desk.decide(seat, "edit", edited(one, span="born in Oslo", value="Oslo"))
    with pytest.raises(DataError, match="no JSON"):
        desk.decide(seat, "edit", "{")
    seat = desk.decide(seat, "edit", edited(one, span="born in Rome", value="Rome"))
    put_off = seat.id
    seat = desk.decide(desk.skip(seat), "reject")
    assert seat.id == put_off
    seat = desk.decide(seat, "accept")
    assert desk.record(seat) is None and "**4 of 4** records checked; by you 4." in desk.progress(seat)
    assert desk.back(seat).id == put_off
    bob = desk.sit("bob")
    while bob.id:
        bob = desk.decide(bob, "accept" if bob.id == first else "reject")
    assert "Agreement ada-bob: 50 %" in desk.progress(bob)
    with pytest.raises(DataError, match="no extracted records wait"):
        Desk(desk.records / "none", desk.store).sit("ada")


@pytest.mark.ui
@pytest.mark.slow
@browser.needs_chromium
def test_records_are_checked_by_keys_in_a_browser(champions: Champions, desk: Desk) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs `pip install playwright`")
    expect = playwright.expect
    places: dict[str, Any] = {"extracted": desk.records, "reviews": desk.store, "samples": desk.records / "none"}
    with (
        served(champions, desk.store.parent / "page.jsonl", **places) as url,
        browser.opened(f"{url}/annotate", "Annotate") as page,
    ):
        page.get_by_label("Your name").fill("ada")
        page.get_by_role("button", name="Begin").click()
        page.get_by_role("tab", name=check_records.TAB).click()
        expect(page.locator("#passage mark")).to_have_count(2, timeout=60_000)
        expect(page.locator("#passage mark").first).to_have_text("Ada")
        browser.picture(page, "checking-a-record")
        for count, key in enumerate("ar", 1):
            page.locator("#passage").click()
            page.keyboard.press(key)
            expect(page.locator("#record-progress")).to_contain_text(f"by you {count}.", timeout=60_000)
        _edit(page, "Rome", "born in Rome")
        expect(page.locator("#record-progress")).to_contain_text("by you 3.", timeout=60_000)
        _edit(page, "Oslo", "born in Oslo")
        expect(page.locator("#record-problem")).to_contain_text("does not say", timeout=60_000)
        page.locator("#passage").click()
        page.keyboard.press("a")
        expect(page.locator("#passage")).to_contain_text("Nothing is left", timeout=60_000)
    assert said(desk) == [("ada", one) for one in ("accept", "reject", "edit", "accept")]


def _edit(page: "Page", value: str, span: str) -> None:
    box = page.get_by_label("Record with its spans")
    changed = json.loads(box.input_value())
    changed["answer"] = {"span": span, "value": value}
    box.fill(json.dumps(changed))
    page.get_by_role("button", name="Save the edit").click()
