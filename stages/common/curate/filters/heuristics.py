"""Whether a document reads like text: rules after Gopher (Rae et al. 2021) and C4 (Raffel et al.
2020).

For English and Chinese. Both papers' rules are for long web pages; these keep what a domain corpus
is made of as well: headings, lists of questions, definitions, manuals, verse, and code within text.
Gopher's shares of 2- to 10-grams (table A1) are made for web pages. Lists of questions, tables and
dictionaries repeat short phrases by nature, so here short ones count only where one phrase fills
the text, and otherwise long ones; datatrove's functions count them.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Annotated

from pydantic import Field, NonNegativeFloat, NonNegativeInt

from stages.common.core.params import StageParams
from stages.common.curate.filters import boilerplate, gibberish, phrase_lists, spam
from stages.common.curate.filters.phrase_lists import Reading
from stages.common.text.units import units

Share = Annotated[float, Field(ge=0, le=1)]
Phrases = Counter[tuple[str, ...]]
PHRASE, PASSAGE = 3, 15
SHORTEST_LINE = 6
SENTENCES = re.compile(r"[^\n.!?。！？；;]+[.!?。！？；;]*")
LANGUAGES = ("en", "zh", "und")
CAUTION = 1.5
"""How many times the signs of an advertisement another language needs: some of them it has in
common with English.
"""


class Rules(StageParams):
    """How much of each sign is too much; what datatrove has too is named as there
    (docs/libraries.md).
    """

    enabled: bool = True
    """False: no document is dropped by these rules."""
    min_doc_words: NonNegativeInt = 5
    """Words, numbers and Chinese characters a document must have (Gopher's 50 loses 4 in 10 good
    texts).
    """
    symbols: Share = 0.55
    """Share of signs that are neither letters, digits nor common punctuation (Gopher counts # and …
    by word).
    """
    entropy_bits: NonNegativeFloat = 1.8
    """Least entropy of the characters; one repeated has 0, English about 4, DNA 2."""
    stretched: Share = 0.4
    """Share of letters in runs of four and more of the same."""
    max_avg_word_length: NonNegativeFloat = 25.0
    """Mean length of words (Gopher's 10 loses lists of chemicals)."""
    odd_pairs: Share = 0.4
    """Share of letter pairs that English hardly has; letter salad has 0.5 and more, Polish 0.3."""
    mixed_words: Share = 0.8
    """Share of words that mix letters and digits, as dumps do."""
    mojibake: Share = 0.1
    """Share of characters left by a wrong decoding."""
    rare_characters: Share = 0.4
    """Share of Chinese characters that are in common use neither in simplified nor in traditional
    writing.
    """
    frequent_characters: Share = 0.2
    """Least share of the most frequent Chinese characters, in text that runs on without
    punctuation.
    """
    advertising: NonNegativeFloat = 2.4
    """Sum of weak signs (calls, prices, contacts, shouting, …; at most 9.5) from which a text is an
    advertisement.
    """
    lorem_ipsum: Share = 0.3
    """Share of `lorem ipsum` (C4 drops every page with it)."""
    scripts: Share = 0.6
    """Share of lines of a page's scripts and styles (C4 drops every page with a curly bracket)."""
    notices: Share = 0.6
    """Share of notices about cookies, rights, subscriptions and the like."""
    menus: Share = 0.5
    """Share of items of menus and navigation."""
    dup_line_char_frac: Share = 0.3
    """Share of characters in lines or sentences that stood before (Gopher's 0.2 loses songs)."""
    top_3_gram: Share = 0.6
    """Share of characters in the most frequent phrase of three units (Gopher's 0.18 loses lists of
    questions).
    """
    dup_15_gram: Share = 0.3
    """Share of characters in passages of fifteen units that stood before (Gopher's 0.1 of ten loses
    lists).
    """


def fault(text: str, language: str, rules: Rules) -> str:
    """Return why a document is no text worth reading, or nothing.

    The reasons are `too_short`, `gibberish`, `spam`, `boilerplate` and `repetitive`. Of other
    languages than English and Chinese an advertisement needs more signs: the phrases are not its
    own.
    """
    if not rules.enabled:
        return ""
    if is_gibberish(text, rules):
        return "gibberish"
    parts = units(text)
    reading = phrase_lists.read(text, parts if text.isascii() else None)
    if len(parts) < rules.min_doc_words:
        return "too_short"
    if spam.score(reading) >= rules.advertising * (1 if language in LANGUAGES else CAUTION):
        return "spam"
    if is_boilerplate(reading, rules):
        return "boilerplate"
    return "repetitive" if is_repetitive(text, parts, rules) else ""


def is_gibberish(text: str, rules: Rules) -> bool:
    """Whether the text is no language: symbols, one character repeated, letter salad, rare
    characters, mojibake.
    """
    return (
        gibberish.symbol_share(text) > rules.symbols
        or gibberish.entropy(text) < rules.entropy_bits
        or gibberish.run_share(text) > rules.stretched
        or gibberish.mean_word_length(text) > rules.max_avg_word_length
        or gibberish.mojibake_share(text) > rules.mojibake
        or gibberish.mixed_share(text) > rules.mixed_words
        or gibberish.odd_pair_share(text) > rules.odd_pairs
        or gibberish.rare_han_share(text) > rules.rare_characters
        or gibberish.frequent_han_share(text) < rules.frequent_characters
    )


def is_boilerplate(reading: Reading, rules: Rules) -> bool:
    """Whether most of the text is what surrounds the text of a web page."""
    return (
        boilerplate.fill_in_share(reading.text) > rules.lorem_ipsum
        or boilerplate.script_share(reading.text) > rules.scripts
        or boilerplate.notice_share(reading) > rules.notices
        or boilerplate.menu_share(reading) > rules.menus
    )


def is_repetitive(text: str, parts: list[str], rules: Rules) -> bool:
    """Whether much of the text (`parts` are its units) stood in it before."""
    if line_share(text) > rules.dup_line_char_frac:
        return True
    phrases = list(_phrases(parts))
    if len(set(phrases)) == len(phrases):  # none comes again, so no share is above 0
        return False
    counts = Counter(phrases)
    return phrase_share(parts, counts) > rules.top_3_gram or passage_share(parts, counts) > rules.dup_15_gram


def line_share(text: str) -> float:
    """Return the share of characters in lines, or in sentences, that stood before; very short ones
    may come again.
    """
    return max(_again(text.split("\n")), _again(SENTENCES.findall(text)))


def phrase_share(units: Sequence[str], counts: Phrases | None = None) -> float:
    """Return the share of characters in the most frequent phrase of three units; above 1 where it
    overlaps itself. `counts` are those of its phrases.
    """
    counts = Counter(_phrases(units)) if counts is None else counts
    number = max(counts.values(), default=0)
    if number <= 2:
        return 0.0
    phrase = next(phrase for phrase, times in counts.items() if times == number)
    return number * sum(map(len, phrase)) / sum(map(len, units))


def passage_share(units: list[str], counts: Phrases | None = None) -> float:
    """Return the share of characters in passages of fifteen units that stood before."""
    if not _may_repeat(units, Counter(_phrases(units)) if counts is None else counts):
        return 0.0
    from datatrove.pipeline.filters.gopher_repetition_filter import find_all_duplicate

    return find_all_duplicate(units, PASSAGE) / max(sum(map(len, units)), 1)


def _phrases(units: Sequence[str]) -> Iterator[tuple[str, ...]]:
    return zip(*(units[start:] for start in range(PHRASE)), strict=False)


def _may_repeat(units: Sequence[str], counts: Phrases) -> bool:
    """Whether all phrases of some passage stand in the text more than once."""
    if counts.total() - len(counts) <= PASSAGE - PHRASE:
        return False
    again = (counts[phrase] > 1 for phrase in _phrases(units))
    return max((sum(run) for _, run in groupby(again)), default=0) > PASSAGE - PHRASE


def _again(parts: Sequence[str]) -> float:
    from datatrove.pipeline.filters.gopher_repetition_filter import find_duplicates

    lines = [part.strip() for part in parts]
    long = [line for line in lines if len(line) >= SHORTEST_LINE]
    if len(set(long)) == len(long):
        return 0.0
    _, characters = find_duplicates(long)
    return characters / max(sum(map(len, lines)), 1)
