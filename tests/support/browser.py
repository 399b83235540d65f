"""The system's Chromium at one of our pages, and pictures of what it shows."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

CHROMIUM = os.environ.get("LATHE_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
SCREENSHOTS = Path(os.environ.get("LATHE_SCREENSHOTS", "tests/artifacts")).absolute()
WAIT = 120_000
"""Milliseconds: a machine that others use too may be slow."""
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: install it, or name it in LATHE_CHROMIUM")


@contextmanager
def opened(url: str, ready: str = "Settings", before: str = "") -> Iterator["Page"]:
    """Open `url` in a browser that may reach nothing but this machine, and wait until it shows the
    text `ready`. `before` is a function of JavaScript that runs before the page's own.
    """
    from playwright.sync_api import expect, sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                "--no-sandbox",
                "--disable-background-networking",
                "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            ],
        )
        page = browser.new_page(viewport={"width": 1200, "height": 1000})
        page.set_default_timeout(WAIT)
        expect.set_options(timeout=WAIT)
        if before:
            page.add_init_script(f"({before})()")
        page.goto(url)
        expect(page.get_by_text(ready).first).to_be_visible(timeout=120_000)
        yield page
        browser.close()


def picture(page: "Page", name: str) -> None:
    """Keep what the page shows."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)
