"""Telephone numbers by our patterns and by `phonenumbers`, in one run: found, wrong, and documents
a second.

What is planted in the demo's documents and conversations, the handwritten examples of the tests,
and the library's own example numbers of every region, each in an English and a Chinese sentence.
The library finds numbers by itself, or confirms what the patterns find. It is no dependency: `pip
install phonenumbers==9.0.43` first.

    python -m bench.personal
"""

import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from functools import partial
from typing import Annotated, Any
from unittest.mock import patch

import typer

from stages.common.core.records import Record, Shape
from stages.common.curate.filters import pii, pii_patterns
from stages.common.curate.filters.pii_patterns import Span
from tests.common.curate.filters.test_pii import KEPT, REPLACED
from tests.support import demo_world

Find = Callable[[str], Iterator[Span]]
SENTENCES = ("You can reach us at {} on weekdays.", "请在工作日拨打{}联系我们。")
REGIONS = ("CN", "US")
PATTERNS = pii_patterns._numbers
COLUMNS = ("of planted", "other hits", "of examples", "false of kept", "of regions", "speed")


def others(text: str) -> list[Span]:
    """What the patterns find but for telephone numbers."""
    return [span for span in PATTERNS(text) if span.kind != "phone"]


def finds(text: str, leniency: int, context: bool) -> Iterator[Span]:
    """The library finds; `context`: what stands in a link or is calculated with is none, as for the
    patterns.
    """
    from phonenumbers import PhoneNumberMatcher  # type: ignore[import-not-found]

    yield from others(text)
    links = [match.span() for match in pii_patterns.URL.finditer(text)] if context else []
    for region in REGIONS:
        for hit in PhoneNumberMatcher(text, region, leniency, max_tries=65_535):
            place = bisect_left(links, (hit.start + 1,))
            linked = place and hit.start < links[place - 1][1]
            if not context or not (linked or counted(text, hit.start, hit.end)):
                yield Span(hit.start, hit.end, "phone")


def counted(text: str, start: int, end: int) -> bool:
    before = pii_patterns.OPERATOR_BEFORE.search(text[max(start - 8, 0) : start])
    return bool(before or pii_patterns.OPERATOR_AFTER.match(text, end))


def confirms(text: str, check: Callable[[Any], bool]) -> Iterator[Span]:
    """The patterns propose, the library confirms."""
    from phonenumbers import NumberParseException, parse

    for span in PATTERNS(text):
        for region in REGIONS:
            try:
                sure = span.kind != "phone" or check(parse(text[span.start : span.end], region))
            except NumberParseException:
                continue
            if sure:
                yield span
                break


def examples() -> list[str]:
    """Fixed, mobile and toll-free example numbers of every region, as they are written abroad and
    without spaces.
    """
    import phonenumbers
    from phonenumbers import PhoneNumberFormat, PhoneNumberType

    kinds = (PhoneNumberType.FIXED_LINE, PhoneNumberType.MOBILE, PhoneNumberType.TOLL_FREE)
    regions = sorted(phonenumbers.SUPPORTED_REGIONS)
    numbers = [phonenumbers.example_number_for_type(region, kind) for region in regions for kind in kinds]
    forms = (PhoneNumberFormat.INTERNATIONAL, PhoneNumberFormat.E164)
    return [phonenumbers.format_number(number, form) for form in forms for number in numbers if number]


def planted() -> list[tuple[Shape, Record, Record]]:
    """Every record of the demo with what the patterns make of it, which the tests hold to
    be right.
    """
    return [(one.shape, one.record, pii.scrub_record(one.shape, one.record)[0]) for one in demo_world.build(1)]


def quality(records: list[tuple[Shape, Record, Record]], numbers: list[str]) -> tuple[str, ...]:
    """Return recall and false hits of what `pii_patterns._numbers` is now."""
    gone = [pii.scrub_record(shape, record)[0] == clean for shape, record, clean in records if clean != record]
    wrong = sum(pii.scrub_record(shape, record)[1].total() for shape, record, clean in records if clean == record)
    whole = sum(pii.scrub(text)[0] == expected for text, expected in REPLACED)
    false = sum(pii.scrub(text)[1].total() for text in KEPT)
    abroad = [pii.scrub(said.format(it))[0] == said.format("[PHONE]") for it in numbers for said in SENTENCES]
    shown = [f"{sum(found)}/{len(found)}" for found in (gone, abroad)]
    return shown[0], str(wrong), f"{whole}/{len(REPLACED)}", str(false), shown[1]


def seconds(texts: list[str]) -> float:
    started = time.process_time()
    for text in texts:
        pii.scrub(text)
    return time.process_time() - started


def ways() -> dict[str, Find]:
    """Return every way to find numbers, by name."""
    from phonenumbers import Leniency, is_possible_number, is_valid_number

    found: dict[str, Find] = {"patterns": PATTERNS}
    for name in ("possible", "valid", "strict_grouping", "exact_grouping"):
        level = getattr(Leniency, name.upper())
        found[f"library, {name}"] = partial(finds, leniency=level, context=False)
        found[f"library, {name}, in context"] = partial(finds, leniency=level, context=True)
    found["patterns, confirmed possible"] = partial(confirms, check=is_possible_number)
    found["patterns, confirmed valid"] = partial(confirms, check=is_valid_number)
    return found


def main(rounds: Annotated[int, typer.Option(help="Interleaved rounds; the fastest of each counts.")] = 5) -> None:
    """Print a row a way; the speed is relative to the patterns'."""
    records, numbers = planted(), examples()
    texts = [record["text"] for shape, record, _ in records if shape == "documents"]
    texts += [*KEPT, *(text for text, _ in REPLACED)]
    found = ways()
    fastest = dict.fromkeys(found, float("inf"))
    for _ in range(rounds):
        for name, way in found.items():
            with patch.object(pii_patterns, "_numbers", way):
                fastest[name] = min(fastest[name], seconds(texts))
    print(f"{'':<37}" + "".join(f"{column:>15}" for column in COLUMNS))
    for name, way in found.items():
        with patch.object(pii_patterns, "_numbers", way):
            cells = (*quality(records, numbers), f"{fastest['patterns'] / fastest[name]:.2f}")
        print(f"{name:<37}" + "".join(f"{cell:>15}" for cell in cells), flush=True)


if __name__ == "__main__":
    typer.run(main)
