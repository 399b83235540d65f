"""Every kind of fault planted in the demo world, against what curation did with it: precision and
recall.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from stages import demo, ingest
from stages.common.core import params, records
from stages.common.core.records import Record
from stages.common.curate.executors import Executor
from stages.common.demo import rows as demo_rows
from stages.common.demo import world
from stages.curate import Params, curate, publish

ROOT = Path(__file__).parent.parent
TARGET = 0.95
JUNK = ("spam", "gibberish", "boilerplate")
PLACEHOLDERS = ("[MAIL]", "[PHONE]", "[ID]", "[CARD]", "[IBAN]", "[IP]", "[KEY]")

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Curated:
    """The planted rows by kind, what was dropped by id, and what was kept."""

    planted: dict[str, list[dict[str, str]]]
    dropped: dict[str, str]
    kept: list[Record]

    def ids(self, *kinds: str) -> set[str]:
        return {row["id"] for kind in kinds for row in self.planted[kind]}

    def because(self, *reasons: str) -> set[str]:
        return {name for name, reason in self.dropped.items() if reason in reasons}


@pytest.fixture(scope="module")
def curated(tmp_path_factory: pytest.TempPathFactory) -> Curated:
    """The demo of params.yaml, through ingest and curate."""
    folder = tmp_path_factory.mktemp("planted")
    settings = params.load(demo.Params, "demo", ROOT / "params.yaml")
    files = demo.build(world.read(ROOT / "data/facts", settings.largest_addend), settings)
    (folder / "raw/demo").mkdir(parents=True)
    planted = demo_rows.write(files, folder / "raw/demo")
    reading = params.load(ingest.Params, "ingest", ROOT / "params.yaml")
    ingest.ingest(folder / "raw", folder / "ingested", folder / "quarantine", reading)
    with Executor() as executor:
        curate(folder / "ingested", folder / "work", params.load(Params, "curate", ROOT / "params.yaml"), executor)
    publish(folder / "work", folder / "out", folder / "dropped")
    lines = (line for file in (folder / "dropped").rglob("*.jsonl") for line in file.open(encoding="utf-8"))
    dropped = {row["id"]: row["reason"] for row in map(json.loads, lines)}
    kept = [record for shape in records.SHAPES for record in records.read(folder / "out" / shape)]
    return Curated(planted, dropped, kept)


def shown(kind: str, right: int, found: int, caught: int, planted: int) -> None:
    """Print the figures and hold them to the target."""
    precision, recall = right / max(found, 1), caught / max(planted, 1)
    print(f"{kind:<20} planted {planted:>4}  caught {caught:>4}  recall {recall:.3f}  precision {precision:.3f}")
    assert planted and recall >= TARGET and precision >= TARGET, f"{kind}: {caught}/{planted}, {right}/{found}"


def families(planted: Iterable[Mapping[str, str]]) -> list[set[str]]:
    """Originals with all their copies, exact and near."""
    found: list[set[str]] = []
    for row in planted:
        own = {row["id"], row["of"]}
        related = [family for family in found if family & own]
        found = [family for family in found if not family & own] + [own.union(*related)]
    return found


@pytest.mark.parametrize(("kind", "reason"), [("exact_duplicate", "duplicate"), ("near_duplicate", "near_duplicate")])
def test_of_copies_one_stays(curated: Curated, kind: str, reason: str) -> None:
    copies = curated.planted["exact_duplicate"] + curated.planted["near_duplicate"]
    whole = {name for family in families(copies) for name in family if len(family - set(curated.dropped)) == 1}
    caught = sum(1 for row in curated.planted[kind] if row["id"] in whole)
    found = curated.because(reason)
    planted = {name for row in copies for name in (row["id"], row["of"])}
    equal_once_scrubbed = found & curated.ids("pii_document", "pii_conversation")
    print(f"{kind}: {len(equal_once_scrubbed)} more are the same once their personal data is replaced")
    found -= equal_once_scrubbed
    shown(kind, len(found & planted), len(found), caught, len(curated.planted[kind]))


@pytest.mark.parametrize("kind", ["spam", "gibberish"])
def test_junk_is_dropped_as_what_it_is(curated: Curated, kind: str) -> None:
    planted, found = curated.ids(kind), curated.because(kind)
    shown(kind, len(found & planted), len(found), len(planted & set(curated.dropped)), len(planted))


def test_what_is_dropped_for_its_quality_is_junk(curated: Curated) -> None:
    low = curated.because("low_quality", "boilerplate", "repetitive", "too_short", *JUNK)
    junk = curated.ids(*JUNK)
    shown("junk in all", len(low & junk), len(low), len(junk & set(curated.dropped)), len(junk))


@pytest.mark.parametrize("kind", ["pii_document", "pii_conversation"])
def test_personal_data_is_replaced_and_nothing_else(curated: Curated, kind: str) -> None:
    texts = {record["id"]: json.dumps(record, ensure_ascii=False) for record in curated.kept}
    rows = [row for row in curated.planted[kind] if row["id"] in texts]
    caught = sum(1 for row in rows if row["value"] not in texts[row["id"]])
    scrubbed = {name for name, text in texts.items() if any(mark in text for mark in PLACEHOLDERS)}
    planted = curated.ids("pii_document", "pii_conversation")
    shown(kind, len(scrubbed & planted), len(scrubbed), caught, len(rows))


@pytest.mark.parametrize("kind", ["leaked_document", "leaked_conversation"])
def test_leaked_test_questions_are_dropped(curated: Curated, kind: str) -> None:
    planted, found = curated.ids(kind), curated.because("leaked_question")
    everything = curated.ids("leaked_document", "leaked_conversation")
    shown(kind, len(found & everything), len(found), len(planted & found), len(planted))


def test_nothing_else_is_lost(curated: Curated) -> None:
    planted = {row["id"] for rows in curated.planted.values() for row in rows}
    planted |= {row["of"] for rows in curated.planted.values() for row in rows if "of" in row}
    lost = {name: reason for name, reason in curated.dropped.items() if name not in planted}
    kept = len(curated.kept)
    print(f"{'unplanted':<20} dropped {len(lost)} of {kept + len(lost)}: {sorted(set(lost.values()))}")
    assert len(lost) <= 0.01 * kept
