"""The three pages that people judge a model by, of a checkout in which a champion was made; their
pictures are README's.

Command: LATHE_PICTURES=docs/images python -m pytest tests/test_demo_pages.py
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from flows.local.services import answers
from tests.support import browser
from tests.support.mlflow_server import free_port, server, wait_for

if TYPE_CHECKING:
    from playwright.sync_api import Page

playwright = pytest.importorskip("playwright.sync_api", reason="needs `pip install playwright`")

ROOT = Path(__file__).parents[1]
PICTURES = os.environ.get("LATHE_PICTURES")
WIDTH, COLOURS = 1100, 64
VERSION = "#/models/lathe/versions/1?workflowType=machine_learning"
TALK = ("What is the capital of Portugal?", "中国的首都是哪里？", "What is 12 + 30?")

pytestmark = [
    pytest.mark.ui,
    pytest.mark.slow,
    browser.needs_chromium,
    pytest.mark.skipif(not (ROOT / "mlflow.db").is_file(), reason="no champion was made in this checkout: make demo"),
]


def keep(page: "Page", name: str, height: int) -> None:
    """Keep the upper part of the page as a small picture, where one is asked for."""
    if not PICTURES:
        return
    from PIL import Image

    file = ROOT / PICTURES / f"{name}.png"
    page.set_viewport_size({"width": WIDTH, "height": height})
    page.screenshot(path=file)
    Image.open(file).convert("RGB").quantize(COLOURS).save(file, optimize=True)


@contextmanager
def serving() -> Iterator[str]:
    """Serve the checkout's champion, and give the address."""
    port = free_port()
    command = [sys.executable, "-m", "stages.deploy", "serve", "--port", str(port)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        wait_for(lambda: answers(f"http://127.0.0.1:{port}/readyz"), 120)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)


def test_the_chat_answers_one_question_after_the_other() -> None:
    with serving() as url, browser.opened(url) as page:
        for count, text in enumerate(TALK, 1):
            page.locator("#message textarea").fill(text)
            page.locator("#message textarea").press("Enter")
            playwright.expect(page.get_by_test_id("bot")).to_have_count(count)
            playwright.expect(page.locator("#message .submit-button")).to_be_visible()
            playwright.expect(page.get_by_test_id("bot").last).not_to_have_text("")
        keep(page, "chat", 640)


def test_the_report_opens_with_the_decision() -> None:
    with browser.opened((ROOT / "reports/report.html").as_uri(), ready="iid") as page:
        playwright.expect(page.locator("h1").first).to_be_visible()
        keep(page, "report", 760)


def test_mlflow_shows_the_version_with_its_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    port, store = free_port(), f"sqlite:///{ROOT / 'mlflow.db'}"
    with (
        server(port, "--backend-store-uri", store, "--artifacts-destination", str(ROOT / "mlartifacts")),
        browser.opened(f"http://127.0.0.1:{port}/{VERSION}", "champion") as page,
    ):
        playwright.expect(page.get_by_role("heading").filter(has_text="lathe").first).to_be_visible()
        keep(page, "version", 760)
