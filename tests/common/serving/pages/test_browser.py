"""A person at the page, in a browser: chats, stops, likes, picks a prompt, meets a new champion;
HTML stays text.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from stages.common.annotation import feedback
from stages.common.release import registry
from stages.common.serving.engine.champions import Champions
from stages.common.serving.engine.text import Text
from tests.common.serving.conftest import Registered, served
from tests.support import browser

playwright = pytest.importorskip("playwright.sync_api", reason="needs `pip install playwright`")

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.ui, pytest.mark.slow, browser.needs_chromium]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "page.jsonl"


@pytest.fixture
def page(champions: Champions, store: Path) -> Iterator["Page"]:
    """The chat, opened in a browser that may reach nothing but this machine."""
    with served(champions, store) as url, browser.opened(url) as opened:
        yield opened


def say(page: "Page", text: str) -> None:
    box = page.locator("#message textarea")
    box.fill(text)
    box.press("Enter")


def test_chat_like_and_a_new_champion(page: "Page", champions: Champions, registered: Registered, store: Path) -> None:
    expect = playwright.expect
    say(page, "What is the capital of land 3?")
    expect(page.locator("#counts")).to_contain_text("written, version 1", timeout=20_000)
    page.wait_for_function("!document.querySelector('#counts').textContent.includes(' 1 written')")
    time.sleep(1)
    browser.picture(page, "chat")
    page.get_by_label("Like", exact=True).first.click()
    end = time.monotonic() + 10
    while not store.exists():
        assert time.monotonic() < end
        time.sleep(0.1)
    (opinion,) = feedback.read(store)
    assert isinstance(opinion, feedback.Opinion) and opinion.liked and opinion.version == "1"
    assert opinion.messages[-1] == {"role": "user", "content": "What is the capital of land 3?"}
    registry.point(registered.client, registry.CHAMPION, registered.versions[1])
    assert champions.look()
    say(page, "And of land 4?")
    expect(page.locator("#counts")).to_contain_text("written, version 2", timeout=20_000)
    browser.picture(page, "swapped")
    page.reload()
    expect(page.locator("#version")).to_contain_text("Version 2 of lathe", timeout=20_000)


def test_stop_ends_the_answer(page: "Page", champions: Champions) -> None:
    engine = champions.current.engine
    hook = engine.model.register_forward_hook(lambda *_: time.sleep(0.2))
    try:
        say(page, "for ever")
        playwright.expect(page.locator("#counts")).to_contain_text("written", timeout=20_000)
        page.locator("#message .stop-button").click()
        end = time.monotonic() + 5
        while engine.load() != (0, 0):
            assert time.monotonic() < end, "the model goes on"
            time.sleep(0.05)
        browser.picture(page, "stopped")
    finally:
        hook.remove()


def test_a_prompt_of_the_library_fills_message_and_system_prompt(page: "Page") -> None:
    page.get_by_role("tab", name="Library").click()
    page.get_by_role("button", name="Translation").click()
    playwright.expect(page.locator("#message textarea")).to_have_value("Where is the station?", timeout=10_000)
    page.get_by_role("tab", name="Settings").click()
    playwright.expect(page.get_by_label("System prompt")).to_have_value(
        "You translate what you are given into Chinese, and add nothing."
    )
    browser.picture(page, "library")


def test_html_in_an_answer_runs_nothing_and_fetches_nothing(page: "Page", monkeypatch: pytest.MonkeyPatch) -> None:
    said = (
        "<img src=x onerror='window.hacked=1'><script>window.hacked=1</script><iframe srcdoc='<script>parent.hacked=1"
        "</script>'></iframe><a href='javascript:window.hacked=1'>a</a><svg onload='window.hacked=1'></svg>"
        " ![leak](http://127.0.0.1:9/leak.png) [b](javascript:window.hacked=1) end of it"
    )
    monkeypatch.setattr(Text, "take", lambda self: "")
    monkeypatch.setattr(Text, "end", lambda self: said)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    failed: list[str] = []
    page.on("requestfailed", lambda request: failed.append(request.url))
    say(page, "hello")
    playwright.expect(page.get_by_text("end of it").first).to_be_visible(timeout=20_000)
    for link in page.locator("[data-testid=bot] a").all():
        assert not (link.get_attribute("href") or "").startswith("javascript:")
    time.sleep(1)
    assert page.evaluate("window.hacked") is None
    assert page.locator("[data-testid=bot] iframe, [data-testid=bot] script").count() == 0
    reached = [url for url in asked if ":9/" in url and url not in failed]
    assert not reached, "a picture of the answer was fetched from elsewhere"
    browser.picture(page, "html")
