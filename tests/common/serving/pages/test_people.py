"""People in a browser: they rank and mend answers of the chat, annotate a round to its end; both
come back as data.
"""

import itertools
import json
import re
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from flows.cli import feedback as export_command
from stages import ingest, rank
from stages.common.annotation import feedback, ranking_store
from stages.common.annotation.feedback import Demonstration, Edit, Line, Ordered
from stages.common.core import records
from stages.common.ranking import samples
from stages.common.serving.engine.champions import Champions
from stages.common.text.parquet_writer import Shards
from tests.common.serving.conftest import served
from tests.support import browser

playwright = pytest.importorskip("playwright.sync_api", reason="needs `pip install playwright`")

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.ui, pytest.mark.slow, browser.needs_chromium]
ANSWERS = ["It is <b>Paris</b>.", "Rome.", "I do not know.", "Go away."]
"""From the best to the worst."""


def until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.1)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A round of three prompts with four answers each; of one, all answers are the same."""
    folder = tmp_path / "samples/r1"
    with Shards({folder / split: samples.SCHEMA for split in ("train", "validation")}) as shards:
        for number in range(4):
            responses = ANSWERS[number % 2 :] + ANSWERS[: number % 2] if number else ["Same."] * 4
            row = {
                "id": f"prompts.jsonl:{number + 1}",
                "source": "prompts.jsonl",
                "messages": [records.message("user", f"What is the <i>capital</i> of land {number}?")],
                "reference": None,
                "category": None,
                "responses": responses,
                "cut": [False] * 4,
            }
            shards.add(folder / ("validation" if number == 3 else "train"), row)
    return tmp_path


@pytest.fixture
def url(champions: Champions, work: Path) -> Iterator[str]:
    store, folder = work / "feedback/page.jsonl", work / "annotations"
    with served(champions, store, samples=work / "samples", annotations=folder) as address:
        yield address


def said(store: Path) -> list[Line]:
    return list(feedback.read(store))


def test_answers_of_the_chat_are_ranked_by_keys_and_mended_and_come_back(
    url: str, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expect, store = playwright.expect, work / "feedback/page.jsonl"
    seeds = itertools.count(1)
    monkeypatch.setattr(secrets, "randbits", lambda bits: next(seeds))  # four known answers
    with browser.opened(url) as page:
        box = page.locator("#message textarea")
        box.fill("What is the capital of land 3?")
        box.press("Enter")
        expect(page.locator("#counts")).to_contain_text("written, version 1", timeout=60_000)
        expect(page.locator("#message .submit-button")).to_be_visible(timeout=60_000)
        page.get_by_role("button", name="Begin with the answer").click()
        better = page.get_by_label("How it should have been answered")
        expect(better).not_to_have_value("", timeout=60_000)
        better.fill("The capital of land 3 is <script>window.hacked=1</script> town 21.")
        page.get_by_role("button", name="Keep the better answer").click()
        expect(page.locator("#edit-kept")).to_contain_text("Kept", timeout=60_000)
        page.get_by_role("tab", name="Rank").click()
        page.get_by_role("button", name="Ask for four answers").click()
        expect(page.get_by_label("A", exact=True)).not_to_have_value("", timeout=60_000)
        expect(page.locator(".ranked:visible")).to_have_count(4, timeout=60_000)
        page.locator("#version").click()
        for key in "3124":
            page.keyboard.press(key)
        page.keyboard.press("a")  # and the first once more: a tie
        page.keyboard.press("2")
        browser.picture(page, "ranking-four-answers")
        page.keyboard.press("Enter")
        expect(page.locator("#ranks-kept")).to_contain_text("Kept", timeout=60_000)
        assert page.evaluate("window.hacked") is None
    edited, ranked = said(store)
    assert isinstance(edited, Edit) and isinstance(ranked, Ordered)
    assert edited.better.endswith("town 21.") and edited.response != edited.better
    assert ranked.ranks == [2, 1, 2, 4] and len(set(ranked.responses)) == 4
    assert ranked.messages == edited.messages
    monkeypatch.setattr(export_command, "version", lambda out: None)  # the project's own test has DVC
    export_command.main(work / "feedback", work / "raw/feedback")
    ingested = work / "ingested"
    ingest.ingest(work / "raw", ingested, work / "quarantine", ingest.Params())
    rows = list(records.read(ingested / "comparisons"))
    assert [row["ranks"] for row in rows] == [[1, 2], [2, 1, 2, 3]]
    assert rows[1]["responses"] == ranked.responses
    (conversation,) = records.read(ingested / "conversations")
    assert conversation["messages"][-1]["content"] == edited.better


def lines(file: Path) -> int:
    return len(file.read_text(encoding="utf-8").splitlines()) if file.exists() else 0


def annotate(page: "Page", who: str, work: Path, order: list[str]) -> None:
    """Rank all of the round in this order of answers, by keys."""
    expect, file = playwright.expect, work / "annotations/r1.jsonl"
    page.reload()
    page.get_by_label("Your name").fill(who)
    page.get_by_role("button", name="Begin").click()
    for number in range(3):
        expect(page.locator("#progress")).to_contain_text(f"by you {number}.", timeout=60_000)
        expect(page.locator(".ranked:visible")).to_have_count(4, timeout=60_000)
        if number == 1:  # keys work after a click on a button
            asked = page.get_by_label("Prompt", exact=True)
            first = asked.input_value()
            page.get_by_role("button", name="Skip", exact=True).click()
            expect(asked).not_to_have_value(first, timeout=60_000)
        for letter in "ABCD":
            shown = page.get_by_label(letter, exact=True).input_value()
            page.keyboard.press(str(order.index(shown) + 1))
        if number == 0:
            page.locator(".ranked").first.get_by_label("rude").check()
            browser.picture(page, f"annotating-{who}")
            page.locator("#progress").click()
        before = lines(file)
        page.keyboard.press("Enter")
        until(lambda: lines(file) > before)  # noqa: B023  # it is called before `before` changes
    expect(page.locator("#progress")).to_contain_text("by you 3.", timeout=60_000)
    expect(page.get_by_label("Prompt", exact=True)).to_have_value(re.compile("Nothing is left"), timeout=60_000)


def test_a_round_is_ranked_to_its_end_and_the_stage_goes_on(url: str, work: Path) -> None:
    expect, file = playwright.expect, work / "annotations/r1.jsonl"
    settings = rank.Params(annotators=["human"])
    with browser.opened(f"{url}/annotate", "Annotate") as page:
        seen = page.locator("button:visible, textarea:visible, input:visible")
        expect(seen).to_have_count(2)
        page.get_by_role("button", name="Begin").click()
        expect(page.get_by_text("type your name first")).to_be_visible(timeout=60_000)  # no name, no seat
        browser.picture(page, "annotate-door")
        expect(seen).to_have_count(2)
        annotate(page, "ada", work, ANSWERS)
        annotate(page, "bob", work, [ANSWERS[1], ANSWERS[0], *ANSWERS[2:]])
        expect(page.locator("#progress")).to_contain_text("3 of 3 prompts ranked, the round waits for 3")
        expect(page.locator("#progress")).to_contain_text("Agreement with ada: Kendall's τ 0.67")
        page.get_by_role("tab", name="Write answers").click()
        asked = page.get_by_label("Prompt to answer").input_value()
        assert asked == "What is the <i>capital</i> of land 0?", "first what has no answer worth ranking"
        page.get_by_label("Your answer").press_sequentially("Paris, I should say.")  # as a person: key by key
        browser.picture(page, "writing-an-answer")
        page.get_by_role("button", name="Save answer and next").click()
        expect(page.get_by_label("Prompt to answer")).not_to_have_value(asked, timeout=60_000)
        expect(page.locator("#progress")).to_contain_text("Answers written: 1, by you 1.")
    kept = list(ranking_store.read(file))
    assert len({tuple(line.responses) for line in kept}) > 1, "answers are shuffled"
    assert sum("rude" in marks for line in kept for marks in line.marks or []) == 2
    report = rank.rank(settings, work / "samples/r1", work / "comparisons", file, None)
    assert report["human"]["ranked"] == {"ada": 3, "bob": 3}
    assert report["human"]["marks"]["answers"] == 24 and report["human"]["marks"]["rude"] == 2
    assert report["human"]["agreement"]["ada-bob"]["value"] == pytest.approx(2 / 3, abs=1e-5)
    for split, count in (("train", 2), ("validation", 1)):
        ranked = list(records.read(work / "comparisons" / split))
        assert len(ranked) == count
        for row in ranked:  # of the first two answers each is the best of one person
            by_answer = dict(zip(row["responses"], row["ranks"], strict=True))
            assert [by_answer[answer] for answer in ANSWERS] == [1, 1, 2, 3]
    (written,) = said(work / "feedback/demonstrations.jsonl")
    assert isinstance(written, Demonstration) and written.annotator == "bob"
    assert json.loads(file.read_text().splitlines()[0])["time"].endswith("+00:00")
