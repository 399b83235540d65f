"""The three pages that people judge a model by, of a checkout in which a champion was made; their
pictures are README's.

Command: make pictures, after make demo
"""

import io
import os
import re
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
WIDTH, COLOURS, MOST = 1300, (64, 32, 16), 60 * 1024
START_SECONDS = 600
TALK = ("What is the capital of Portugal?", "中国的首都是哪里？", "What is the capital of Gondor?")

pytestmark = [
    pytest.mark.ui,
    pytest.mark.slow,
    browser.needs_chromium,
    pytest.mark.skipif(not (ROOT / "mlflow.db").is_file(), reason="no champion was made in this checkout: make demo"),
]


def keep(page: "Page", name: str, height: int) -> None:
    """Keep the upper part of the page, in as many colours as fit, where pictures are asked for."""
    page.set_viewport_size({"width": WIDTH, "height": height})
    seen = page.screenshot()
    if not PICTURES:
        return
    from PIL import Image

    for colours in COLOURS:
        small = io.BytesIO()
        Image.open(io.BytesIO(seen)).convert("RGB").quantize(colours).save(small, "PNG", optimize=True)
        if small.tell() <= MOST:
            break
    assert small.tell() <= MOST, f"{name}: {small.tell()} bytes"
    (ROOT / PICTURES).mkdir(parents=True, exist_ok=True)
    (ROOT / PICTURES / f"{name}.png").write_bytes(small.getvalue())


@contextmanager
def serving(feedback: Path) -> Iterator[str]:
    """Serve the checkout's champion as `make serve` does, and give the address."""
    port = free_port()
    command = [sys.executable, "-m", "flows.cli.lathe", "serve", "--port", str(port)]
    with feedback.open("w") as said:
        process = subprocess.Popen(command, cwd=ROOT, stdout=said, stderr=said)
    try:
        wait_for(lambda: process.poll() is not None or answers(f"http://127.0.0.1:{port}/readyz"), START_SECONDS)
        assert process.poll() is None, feedback.read_text()
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)


def test_the_chat_answers_one_question_after_the_other(tmp_path: Path) -> None:
    with serving(tmp_path / "serve.log") as url, browser.opened(url) as page:
        for count, text in enumerate(TALK, 1):
            page.locator("#message textarea").fill(text)
            page.locator("#message textarea").press("Enter")
            playwright.expect(page.get_by_test_id("bot")).to_have_count(count)
            playwright.expect(page.get_by_test_id("bot").last).to_have_text(re.compile(r"\S"))
            playwright.expect(page.locator("#message .stop-button")).to_be_hidden()
            playwright.expect(page.locator("#message .submit-button")).to_be_visible()
        keep(page, "chat", 700)


def test_the_report_opens_with_the_decision() -> None:
    with browser.opened((ROOT / "reports/report.html").as_uri(), ready="iid") as page:
        playwright.expect(page.locator("h1").first).to_be_visible()
        keep(page, "report", 700)


def test_mlflow_shows_the_version_with_its_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    monkeypatch.chdir(tmp_path)
    port, store = free_port(), f"sqlite:///{ROOT / 'mlflow.db'}"
    (name,) = (model.name for model in MlflowClient(store).search_registered_models())
    number = MlflowClient(store).get_model_version_by_alias(name, "champion").version
    address = f"http://127.0.0.1:{port}/#/models/{name}/versions/{number}?workflowType=machine_learning"
    with (
        server(port, "--backend-store-uri", store, "--artifacts-destination", str(ROOT / "mlartifacts")),
        browser.opened(address, "champion") as page,
    ):
        playwright.expect(page.get_by_text(f"Version {number}").first).to_be_visible()
        page.locator('[data-component-id="mlflow.assistant.chat_panel.close"]').click()
        playwright.expect(page.get_by_test_id("source-model-link")).to_be_visible()
        keep(page, "version", 760)
