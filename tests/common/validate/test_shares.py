"""Sources and categories, counted by hand."""

from typing import Any

from stages.common.core.records import Shape
from stages.common.curate.record_counts import Tally
from stages.common.validate import shares


def counted(shape: Shape, *found: dict[str, Any]) -> Tally:
    total = Tally()
    for record in found:
        shares.count(total, shape, {"source": "a", "ranks": [1, 2], **record})
    return total


def test_the_share_of_a_source_is_of_its_shape() -> None:
    found = counted("documents", *[{}] * 19, {"source": "<b>"}) + counted("prompts", {})
    assert list(shares.facts_of_sources(found)) == [
        {"id": "documents of &lt;b&gt;", "records": 1, "share": 5, "tied": None},
        {"id": "documents of a", "records": 19, "share": 95, "tied": None},
        {"id": "prompts of a", "records": 1, "share": None, "tied": None},
    ]


def test_a_comparison_is_tied_when_two_answers_share_a_rank() -> None:
    found = counted("comparisons", *({"ranks": ranks} for ranks in ([1, 2], [1, 1], [1, 2, 2], [3, 1, 2])))
    assert next(shares.facts_of_sources(found))["tied"] == 50


def test_a_category_without_comparisons_has_none_unless_no_comparison_has_a_category() -> None:
    found = counted("comparisons", *[{"categories": ["<x>", "y", "y"]}] * 2)
    found += counted("prompts", {}) + counted("questions", {"category": "z"})
    assert list(shares.facts_of_categories(found)) == [
        {"id": "&lt;x&gt;", "comparisons": 2, "prompts": None},
        {"id": "y", "comparisons": 2, "prompts": None},
        {"id": "z", "comparisons": 0, "prompts": None},
    ]


def test_free_text_in_a_category_does_not_fill_the_memory() -> None:
    found = counted("prompts", *({"category": f"about {row}"} for row in range(5_000)))
    assert len(found) == shares.MOST_CATEGORIES
    assert len(list(shares.facts_of_categories(found))) < 1_001
