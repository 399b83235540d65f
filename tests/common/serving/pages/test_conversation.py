"""The conversation in a browser: after an error it works on, it outlives a reload, and one's own
message can be asked anew.
"""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from stages.common.serving import app as serving
from stages.common.serving import guards
from stages.common.serving.engine.champions import Champions
from stages.common.serving.pages.inputs import Page as Offer
from tests.common.serving.conftest import served
from tests.support import browser

playwright = pytest.importorskip("playwright.sync_api", reason="needs `pip install playwright`")

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.ui, pytest.mark.slow, browser.needs_chromium]
SECONDS = 60_000


@pytest.fixture
def page(champions: Champions, tmp_path: Path) -> Iterator["Page"]:
    with served(champions, tmp_path / "page.jsonl") as url, browser.opened(url) as opened:
        yield opened


def say(page: "Page", text: str) -> None:
    box = page.locator("#message textarea")
    box.fill(text)
    box.press("Enter")
    playwright.expect(page.get_by_test_id("user").last).to_have_text(text.strip(), timeout=SECONDS)


def asked(page: "Page") -> list[str]:
    return [one.strip() for one in page.get_by_test_id("user").all_inner_texts()]


def answered(page: "Page") -> None:
    """Wait until the browser keeps an answer to the last message, and another can be sent."""
    asked_last = page.get_by_test_id("user").last.inner_text().strip()
    page.wait_for_function(
        """text => {
            const [newest] = JSON.parse(localStorage["lathe.conversations"] ?? "[]");
            const turns = newest?.turns ?? [], asked = turns.findLast((one) => one.role === "user");
            return turns.at(-1)?.role === "assistant" && asked?.content[0].text === text;
        }""",
        arg=asked_last,
        polling=100,
        timeout=SECONDS,
    )
    ready(page)


def ready(page: "Page") -> None:
    """Wait until a message can be sent."""
    playwright.expect(page.locator("#message .submit-button")).to_be_visible(timeout=SECONDS)
    playwright.expect(page.locator("#message .stop-button")).to_have_count(0)


def refused(page: "Page", text: str, why: str) -> None:
    """Expect the error as text of the conversation, the message in the box, and a page that is as
    it was.
    """
    expect = playwright.expect
    expect(page.get_by_test_id("bot").last).to_contain_text(f"Not answered: {why}", timeout=SECONDS)
    answered(page)
    expect(page.locator("#message textarea")).to_have_value(text)
    expect(page.locator("#message textarea")).to_be_editable()
    expect(page.locator("#turns .error, .toast-wrap .error")).to_have_count(0)


def test_after_an_error_the_page_works_on(page: "Page", champions: Champions, monkeypatch: pytest.MonkeyPatch) -> None:
    say(page, "first")
    answered(page)
    say(page, "long " * 1000)
    refused(page, ("long " * 1000).strip(), "the message has")
    browser.picture(page, "too-long")
    with monkeypatch.context() as patch:
        patch.setattr(guards, "is_here", lambda _: False)  # this machine alone has no rate
        patch.setattr(guards.Limiter, "wait", lambda *_: 6.5)
        say(page, "too often")
        refused(page, "too often", "too many requests; try again in 7 seconds")
        browser.picture(page, "too-often")
    engine = champions.current.engine
    hook = engine.model.register_forward_pre_hook(lambda *_: 1 / 0)
    say(page, "into the void")
    refused(page, "into the void", "the server failed; its log says why")
    hook.remove()
    page.context.set_offline(True)
    say(page, "nobody there")
    refused(page, "nobody there", "the server cannot be reached")
    page.context.set_offline(False)
    page.locator("#message textarea").press("Enter")
    playwright.expect(page.get_by_text("Not answered")).to_have_count(0, timeout=SECONDS)
    answered(page)
    assert asked(page) == ["first", "nobody there"], "what was refused is no part of the conversation"
    assert page.locator("#message textarea").input_value() == ""
    slow = engine.model.register_forward_hook(lambda *_: time.sleep(0.2))
    say(page, "for ever")
    playwright.expect(page.locator("#counts")).to_contain_text("written", timeout=SECONDS)
    page.locator("#message .stop-button").click()
    ready(page)
    slow.remove()
    browser.picture(page, "after-errors")


@contextmanager
def at_port(port: int, champions: Champions, store: Path) -> Iterator[Any]:
    """Serve at a port; the connections are cut at the end."""
    app = serving.build(champions, Offer("", 0.0, 64, ("Hello?",), store), list(serving.LOOPBACK))
    server = serving.server(app, champions)
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    until(lambda: server.started)
    try:
        yield server
    finally:
        server.should_exit = server.force_exit = True
        thread.join(20)
        listener.close()


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.05)


def test_a_server_that_ends_within_an_answer_and_begins_anew_loses_nothing(
    champions: Champions, tmp_path: Path
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    first = at_port(port, champions, tmp_path / "page.jsonl")
    first.__enter__()
    with browser.opened(f"http://127.0.0.1:{port}") as page:
        say(page, "first")
        answered(page)
        slow = champions.current.engine.model.register_forward_hook(lambda *_: time.sleep(0.2))
        say(page, "second")
        playwright.expect(page.get_by_test_id("bot")).to_have_count(2, timeout=SECONDS)
        first.__exit__(None, None, None)
        refused(page, "second", "the server cannot be reached")
        slow.remove()
        with at_port(port, champions, tmp_path / "page.jsonl"):
            page.locator("#message textarea").press("Enter")
            playwright.expect(page.get_by_text("Not answered")).to_have_count(0, timeout=SECONDS)
            answered(page)
            assert asked(page) == ["first", "second"]


def test_conversations_outlive_a_reload_and_a_message_is_edited(page: "Page") -> None:
    expect = playwright.expect
    say(page, "one")
    answered(page)
    say(page, "two")
    answered(page)
    page.get_by_role("button", name="Edit").last.click()
    page.locator("#turns textarea").fill("three")
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_test_id("user").last).to_have_text("three", timeout=SECONDS)
    answered(page)
    assert asked(page) == ["one", "three"]
    page.locator("#message textarea").fill("half a mess")
    page.reload()
    expect(page.get_by_test_id("user")).to_have_text(["one", "three"], timeout=SECONDS)
    expect(page.get_by_test_id("bot")).to_have_count(2)
    expect(page.locator("#message textarea")).to_have_value("half a mess")
    page.get_by_role("button", name="New chat").click()
    expect(page.get_by_test_id("user")).to_have_count(0)
    page.locator("#turns .example").first.click()
    expect(page.get_by_test_id("user")).to_have_text(["Hello?"], timeout=SECONDS)
    answered(page)
    entries = page.locator("#conversations label")
    expect(entries).to_have_text(["Hello?", "one"])
    browser.picture(page, "conversations")
    entries.last.click()
    expect(page.get_by_test_id("user")).to_have_text(["one", "three"])
    page.get_by_role("button", name="Delete this chat").click()
    expect(entries).to_have_text(["Hello?"])
    assert {one.get_attribute("title") for one in page.locator("#turns button[title]").all()} <= {
        *("Copy message", "Edit", "Retry", "Like", "Dislike", "Clear")
    }


LATE_CLOSE = """() => {
    const plain = window.fetch.bind(window);
    let joins = 0, release = () => {};
    window.fetch = async (input, options) => {
        const response = await plain(input, options), path = new URL(input.url ?? input, location.href).pathname;
        if (path.endsWith("/queue/join") && ++joins > 1) setTimeout(() => release(), 500);
        if (!path.endsWith("/queue/data") || joins > 1) return response;
        const held = new TransformStream({
            async transform(chunk, control) {
                const text = new TextDecoder().decode(chunk), at = text.lastIndexOf("data:", text.indexOf("close_str"));
                const parts = text.includes("close_stream") ? [text.slice(0, at), text.slice(at)] : [text];
                control.enqueue(new TextEncoder().encode(parts[0]));
                if (parts.length > 1) await new Promise((go) => { release = go; });
                if (parts.length > 1) control.enqueue(new TextEncoder().encode(parts[1]));
            },
        });
        return new Response(response.body.pipeThrough(held), {headers: response.headers});
    };
}"""
"""Below chat.js: the end of the first stream comes only after the second message has joined it."""


def test_a_message_that_joins_a_stream_the_server_has_closed_is_answered(champions: Champions, tmp_path: Path) -> None:
    with served(champions, tmp_path / "page.jsonl") as url, browser.opened(url, before=LATE_CLOSE) as page:
        for text in ("first", "second"):
            say(page, text)
            answered(page)
        playwright.expect(page.get_by_text("Not answered")).to_have_count(0)


def test_the_chat_has_the_height_of_the_screen(page: "Page") -> None:
    for width, height in ((1200, 800), (390, 780)):
        page.set_viewport_size({"width": width, "height": height})
        page.reload()
        box = page.locator("#message")
        playwright.expect(box).to_be_visible(timeout=SECONDS)
        page.wait_for_function("document.querySelector('#panel')?.classList.contains('open') === (innerWidth >= 1100)")
        playwright.expect(page.locator("#turns")).to_be_in_viewport()
        page.wait_for_function("document.documentElement.scrollHeight <= innerHeight")
        found = box.bounding_box()
        assert found and height - 100 < found["y"] + found["height"] <= height
        middle = page.locator("#middle").bounding_box()
        assert middle and middle["width"] >= min(width, 500) - 2
        browser.picture(page, f"screen-{width}")
