"""A reviewer in a browser: two tiny models side by side, several messages, a vote, and then who was
who.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from stages.common.annotation import feedback
from stages.common.annotation.feedback import Vote
from stages.common.core.records import message
from stages.common.release import registry
from stages.common.release.traffic import votes
from stages.common.serving.engine.champions import Champions
from stages.common.serving.pages import compare
from tests.common.serving.conftest import Registered, served
from tests.support import browser

ASKED = "What is the <b>capital</b> of land 3? <script>window.hacked=1</script>"


@pytest.fixture
def waiting(champions: Champions, registered: Registered) -> Iterator[Champions]:
    """A server without traffic for challengers; version 2 passed the gate and waits."""
    client, (_, second) = registered.client, registered.versions
    registry.tag(client, second, {"gate": "passed"})
    registry.point(client, registry.CHALLENGER, second)
    yield champions
    registry.tag(client, registry.numbered(client, "lathe", "2"), {votes.TAG: ""})


def test_what_is_said_stays_text() -> None:
    turns = [message("user", "<b>a</b>\n&amp;"), message("assistant", ""), message("assistant", '"><script>')]
    assert compare.written(turns) == (
        '<div class="side"><p class="user">&lt;b&gt;a&lt;/b&gt;\n&amp;amp;</p><p class="assistant"><i>(no word)</i></p>'
        '<p class="assistant">&quot;&gt;&lt;script&gt;</p></div>'
    )


@pytest.mark.ui
@pytest.mark.slow
@browser.needs_chromium
def test_a_reviewer_asks_both_votes_and_is_told_who_was_who(waiting: Champions, tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs `pip install playwright`")
    expect, store, none = playwright.expect, tmp_path / "page.jsonl", tmp_path / "none"
    with (
        served(waiting, store, samples=none, extracted=none, temperature=1.0, max_new_tokens=16) as url,
        browser.opened(f"{url}/annotate", "Annotate") as page,
    ):
        sent: list[str] = []
        page.on("response", lambda reply: sent.append(reply.text()) if "/gradio_api/run" in reply.url else None)
        page.get_by_label("Your name").fill("ada")
        page.get_by_role("button", name="Begin").click()
        page.get_by_role("tab", name="Side by side").click()
        left, right, said = (page.locator(f"#side-{name}") for name in ("left", "right", "said"))
        box, ask = page.get_by_label("Message to both"), page.get_by_role("button", name="Ask both")
        best = page.get_by_role("button", name="Right is better")
        expect(best).to_be_disabled()
        ask.click()
        expect(said).to_contain_text("a message has 1 to 65,536 characters")
        for turns, text in enumerate((ASKED, "And of land 4?"), 1):
            box.fill(text)
            ask.click()
            for side in (left, right):
                expect(side.locator(".assistant")).to_have_count(turns, timeout=60_000)
            expect(best).to_be_enabled()
            expect(box).to_have_value("")
        expect(left.get_by_text(ASKED)).to_be_visible()  # as it was typed
        assert page.locator(".side :is(b, script)").count() == 0
        browser.picture(page, "side-by-side")
        shown = page.locator("body").inner_text()
        assert sent and not [text for text in [shown, *sent] if "version" in text.lower() or "challenger" in text]
        best.click()
        expect(said).to_contain_text("was version 2, the challenger")
        expect(best).to_be_disabled()
        browser.picture(page, "side-by-side-told")
        assert page.evaluate("window.hacked") is None
        told = said.inner_text()
        box.fill("Another one?")
        ask.click()
        expect(left.locator(".assistant")).to_have_count(1, timeout=60_000)
        expect(said).to_have_text("")
    (line,) = feedback.read(tmp_path / "votes.jsonl")
    assert isinstance(line, Vote)
    assert (line.annotator, line.vote, line.counted) == ("ada", "right", False)
    assert f"{line.challenger.capitalize()} was version 2, the challenger" in told
    assert [one["content"] for one in line.messages] == ["Be brief.", ASKED, "And of land 4?"]
    facts = [one.tags["weights_sha256"] for one in (waiting.current.version, registry.numbered(
        waiting.client, "lathe", "2"
    ))]  # fmt: skip
    assert [(one.version, one.weights_sha256) for one in line.sides] == list(zip(("1", "2"), facts, strict=True))
    assert all(len(one.answers) == 2 for one in line.sides)
    (tally,) = votes.of(registry.numbered(waiting.client, "lathe", "2"))
    assert (tally.won, tally.lost) == ((1, 0) if line.challenger == "right" else (0, 1))
    assert json.loads((tmp_path / "votes.jsonl").read_text())["kind"] == "vote"
