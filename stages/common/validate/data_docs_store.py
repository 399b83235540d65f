"""Data Docs, the same bytes each time: where they are written, and what in them is made the same.

It takes seconds to import: import it late.
"""

import datetime
import re
import shutil
from pathlib import Path
from typing import Any

from great_expectations.data_context.store import TupleFilesystemStoreBackend
from great_expectations.data_context.types.base import (
    DataContextConfig,
    InMemoryStoreBackendDefaults,
    ProgressBarsConfig,
)

EPOCH = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
TIME = re.compile(r"20\d{6}T\d{6}\.\d{6}Z")
LOCAL_EPOCH = re.compile(r"(1999-12-31|2000-01-01)[T ]\d\d:\d\d:\d\d(Z| [\w+-]+)")
NEWSLETTER = re.compile(r"\s*<footer>(?:(?!</footer>).)*newsletter.*?</footer>", re.DOTALL)
REMOTE_LOGO = re.compile(r'https://[^"]*/logo-long\.png\?d=[^"]*')


class SortedFilesystemStore(TupleFilesystemStoreBackend):
    """Lists pages by name; the library's own order is the disk's, so the index would differ between
    two machines.
    """

    def list_keys(self, prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
        """Return the keys of the pages under `prefix`."""
        return sorted(super().list_keys(prefix))


def config(docs: Path, work: Path) -> DataContextConfig:
    """Return the context that keeps results in `work` and writes its pages to `docs`."""
    kept = InMemoryStoreBackendDefaults()
    kept.stores["validation_results_store"]["store_backend"] = {
        "class_name": "TupleFilesystemStoreBackend",
        "base_directory": str(work.absolute() / "results"),
    }
    pages = {"class_name": SortedFilesystemStore.__name__, "module_name": __name__}
    pages["base_directory"] = str(docs.absolute())
    site = {"class_name": "SiteBuilder", "show_how_to_buttons": False, "store_backend": pages}
    site["site_index_builder"] = {"class_name": "DefaultSiteIndexBuilder", "show_cta_footer": False}
    return DataContextConfig(
        store_backend_defaults=kept,
        data_docs_sites={"docs": site},
        progress_bars=ProgressBarsConfig(globally=False),
        analytics_enabled=False,
    )


def write(context: Any, docs: Path) -> None:
    """Write the Data Docs, with no time, random id, remote logo or newsletter in them."""
    for old in ("expectations", "validations", "static"):
        shutil.rmtree(docs / old, ignore_errors=True)
    context.build_data_docs(site_names=["docs"])
    for page in sorted(docs.rglob("*.html")):
        local_logo = "../" * (len(page.relative_to(docs).parts) - 1) + "static/images/logo-long.png"
        page.write_text(settled(page.read_text(encoding="utf-8"), local_logo), encoding="utf-8")


def settled(page: str, logo: str) -> str:
    """Return a page of Data Docs with random ids numbered, times and time zone fixed, the logo from
    beside it, and without the panel that asks to subscribe to a newsletter.
    """
    numbers: dict[str, str] = {}
    page = NEWSLETTER.sub("", page)
    page = UUID.sub(lambda match: numbers.setdefault(match[0], f"id-{len(numbers)}"), page)
    page = TIME.sub(EPOCH.strftime("%Y%m%dT%H%M%S.%fZ"), REMOTE_LOGO.sub(logo, page))
    return LOCAL_EPOCH.sub("2000-01-01 00:00:00 UTC", page)
