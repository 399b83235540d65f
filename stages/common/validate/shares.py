"""What validation knows of sources and categories: how much of a shape each one makes up."""

from collections.abc import Iterator
from typing import Any

from stages.common.core.records import SHAPES, Record, Shape
from stages.common.curate import record_counts
from stages.common.curate.record_counts import Tally
from stages.common.validate.features import escaped

MOST_CATEGORIES = 1_000  # more are no categories, and memory must not grow with the data
FACTS_OF_SOURCES = ("id", "records", "share", "tied")
FACTS_OF_CATEGORIES = ("id", "comparisons", "prompts")


def count(counted: Tally, shape: Shape, record: Record) -> None:
    """Count a record by source and category, and a comparison whose ranks do not tell all its
    answers apart.
    """
    source = record["source"] or ""
    counted["records", shape, source] += 1
    if shape == "comparisons" and len(set(record["ranks"])) < len(record["ranks"]):
        counted["tied", source] += 1
    for category in dict.fromkeys(record.get("categories") or [record.get("category")]):
        key = ("category", shape, category or "")
        if category and (key in counted or len(counted) < MOST_CATEGORIES):
            counted[key] += 1


def facts_of_sources(counted: Tally) -> Iterator[dict[str, Any]]:
    """Yield for each source its records, its share of the shape and its tied comparisons, both in
    per cent.

    The only source of a shape has no share.
    """
    for shape in SHAPES:
        found = record_counts.under(counted, "records", shape)
        total = sum(found.values())
        for source, records in found.items():
            yield {
                "id": escaped(f"{shape} of {source}"),
                "records": records,
                "share": 100 * records // total if len(found) > 1 else None,
                "tied": 100 * counted["tied", source] // records if shape == "comparisons" else None,
            }


def facts_of_categories(counted: Tally) -> Iterator[dict[str, Any]]:
    """Yield for each category how many comparisons and prompts it has; None where that shape has no
    categories.
    """
    found = {shape: record_counts.under(counted, "category", shape) for shape in SHAPES}
    for category in sorted({category for of_shape in found.values() for category in of_shape})[:MOST_CATEGORIES]:
        told = {shape: found[shape].get(category, 0) if found[shape] else None for shape in ("comparisons", "prompts")}
        yield {"id": escaped(category)} | told
