"""Every document rule of `curate` and of datatrove's filters by itself, in one run: what it drops,
and its speed.

The texts are the demo's documents with what was planted in them, the handwritten ones of the tests,
and, as good text, the files given with --good (four lines a document). datatrove gets words and
sentences from patterns; with --spacy from its own tokenizers: `pip install spacy==3.8.18
jieba==0.42.1` first.

    python -m bench.document_rules
"""

import re
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from datatrove.data import Document
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from datatrove.utils.word_tokenizers import WordTokenizer, load_word_tokenizer

from stages.common.curate.filters import boilerplate, gibberish, heuristics, language, phrase_lists, spam
from stages.common.text.normalisation import normalise
from stages.common.text.units import units
from tests.common.curate.filters.test_heuristics import HANDWRITTEN, documents

Text = tuple[str, str, str]  # kind, language, text
Rule = Callable[[Text], bool]
LINES = 4
KINDS = ("good", "spam", "gibberish", "boilerplate", "repetitive")
HAN = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
WORD = re.compile(rf"[{HAN}]|[^\W_{HAN}]+|[^\w\s]+|_+")
SENTENCE = re.compile(r"[^.!?。！？；\n]+[.!?。！？；\n]*|[.!?。！？；\n]+")
STOP_WORDS = {"en": None, "zh": [*"的了是在和有不我也为"]}
GOPHER = ("doc_words", "avg_word_length", "symbol_word_ratio", "bullet_lines_ratio", "ellipsis_lines_ratio")
GOPHER_OFF = dict.fromkeys([*(f"max_{name}" for name in GOPHER), "min_doc_words", "min_avg_word_length"])
GOPHER_OFF |= {"max_non_alpha_words_ratio": None, "min_stop_words": None}
LINES_OFF = dict.fromkeys(["dup_line_frac", "dup_para_frac", "dup_line_char_frac", "dup_para_char_frac"])
REPETITION_OFF: dict[str, Any] = LINES_OFF | {"top_n_grams": (), "dup_n_grams": ()}
C4 = ("no_terminal_punct", "lorem_ipsum", "javascript", "curly_bracket", "policy")
C4_OFF = {f"filter_{name}": False for name in C4} | {"remove_citations": False, "max_word_length": -1}
C4_OFF |= {"min_words_per_line": -1, "min_num_sentences": 1}
FINEWEB_OFF = {"line_punct_thr": -1, "short_line_thr": 2, "char_duplicates_ratio": 99, "new_line_ratio": 1e9}
DEFAULTS: dict[str, tuple[type, dict[str, Any], list[tuple[str, Any]]]] = {
    "Gopher": (GopherQualityFilter, GOPHER_OFF, [
        ("min_doc_words", 50), ("min_avg_word_length", 3), ("max_avg_word_length", 10), ("max_symbol_word_ratio", 0.1),
        ("max_bullet_lines_ratio", 0.9), ("max_ellipsis_lines_ratio", 0.3), ("max_non_alpha_words_ratio", 0.8),
        ("min_stop_words", 2),
    ]),
    "Gopher repetition": (GopherRepetitionFilter, REPETITION_OFF, [
        ("dup_line_frac", 0.3), ("dup_para_frac", 0.3), ("dup_line_char_frac", 0.2), ("dup_para_char_frac", 0.2),
        ("top_n_grams", ((2, 0.2),)), ("top_n_grams", ((3, 0.18),)), ("top_n_grams", ((4, 0.16),)),
        ("dup_n_grams", ((5, 0.15),)), ("dup_n_grams", ((10, 0.1),)), ("dup_n_grams", ((15, 0.2),)),
    ]),
    "C4": (C4QualityFilter, C4_OFF, [
        ("min_num_sentences", 5), ("min_words_per_line", 3), *((f"filter_{name}", True) for name in C4),
    ]),
    "FineWeb": (FineWebQualityFilter, FINEWEB_OFF, [
        ("line_punct_thr", 0.12), ("short_line_thr", 0.67), ("char_duplicates_ratio", 0.01), ("new_line_ratio", 0.3),
    ]),
}  # fmt: skip


class Patterns(WordTokenizer):
    """Words, numbers, runs of signs and single Chinese characters; sentences end at their marks."""

    def word_tokenize(self, text: str) -> list[str]:
        return WORD.findall(text)

    def sent_tokenize(self, text: str) -> list[str]:
        return SENTENCE.findall(text)

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        return [match.span() for match in SENTENCE.finditer(text)]


def texts(good: list[Path]) -> list[Text]:
    """Return the demo's documents, the handwritten texts and those of the files `good`."""
    found = [(kind if kind in KINDS else "good", normalise(text)) for kind, text in documents(1)]
    found += [(kind, text) for part in HANDWRITTEN.values() for kind, several in part.items() for text in several]
    for file in good:
        lines = file.read_text(encoding="utf-8").splitlines()
        joined = (normalise("\n".join(lines[start : start + LINES])) for start in range(0, len(lines), LINES))
        found += [("good", text) for text in joined if len(text) > 100]
    return [(kind, "zh" if phrase_lists.HAN.search(text) else "en", text) for kind, text in found]


def ours() -> dict[str, Rule]:
    """Return our rules, and all of them together, by name and threshold."""
    rules = heuristics.Rules()
    shares: dict[str, Callable[[str], float]] = {
        "symbols": gibberish.symbol_share, "stretched": gibberish.run_share, "mojibake": gibberish.mojibake_share,
        "max_avg_word_length": gibberish.mean_word_length, "mixed_words": gibberish.mixed_share,
        "odd_pairs": gibberish.odd_pair_share, "rare_characters": gibberish.rare_han_share,
        "lorem_ipsum": boilerplate.fill_in_share, "scripts": boilerplate.script_share,
        "advertising": lambda text: spam.score(phrase_lists.read(text)),
        "notices": lambda text: boilerplate.notice_share(phrase_lists.read(text)),
        "menus": lambda text: boilerplate.menu_share(phrase_lists.read(text)),
        "dup_line_char_frac": heuristics.line_share,
        "top_3_gram": lambda text: heuristics.phrase_share(units(text)),
        "dup_15_gram": lambda text: heuristics.passage_share(units(text)),
    }  # fmt: skip
    least: dict[str, Callable[[str], float]] = {
        "min_doc_words": lambda text: float(len(units(text))), "entropy_bits": gibberish.entropy,
        "frequent_characters": gibberish.frequent_han_share,
    }  # fmt: skip
    found: dict[str, Rule] = {}
    for name, share in shares.items():
        limit = getattr(rules, name)
        found[f"ours: {name} {limit}"] = partial(over, share, limit)
    for name, share in least.items():
        limit = getattr(rules, name)
        found[f"ours: {name} {limit}"] = partial(under, share, limit)
    found["ours: all"] = lambda text: bool(heuristics.fault(text[2], language.detect(text[2]), rules))
    return found


def over(share: Callable[[str], float], limit: float, text: Text) -> bool:
    return share(text[2]) > limit


def under(share: Callable[[str], float], limit: float, text: Text) -> bool:
    return share(text[2]) < limit


def theirs(tokenizers: dict[str, WordTokenizer]) -> dict[str, Rule]:
    """Return each rule of datatrove's filters with all others switched off, and each filter as it
    comes.
    """
    found: dict[str, Rule] = {}
    for family, (kind, off, rules) in DEFAULTS.items():
        for name, value in rules:
            found[f"{family}: {name} {value}"] = partial(drops, by_language(kind, tokenizers, off | {name: value}))
        found[f"{family}: all"] = partial(drops, by_language(kind, tokenizers, {}))
    return found


def by_language(kind: type, tokenizers: dict[str, WordTokenizer], options: dict[str, Any]) -> dict[str, Any]:
    stop = {code: {"stop_words": STOP_WORDS[code]} if kind is GopherQualityFilter else {} for code in tokenizers}
    return {code: kind(language=words, **options, **stop[code]) for code, words in tokenizers.items()}


def drops(filters: dict[str, Any], text: Text) -> bool:
    return filters[text[1]].filter(Document(text[2], "")) is not True


def main(
    good: Annotated[list[Path] | None, typer.Option(help="Plain text whose every document is good.")] = None,
    spacy: Annotated[bool, typer.Option(help="datatrove's own tokenizers.")] = False,
    rounds: Annotated[int, typer.Option(help="Interleaved rounds; the fastest of each counts.")] = 3,
) -> None:
    """Print a row a rule: dropped by kind and language, and documents a second relative to all of
    ours together.
    """
    own: dict[str, WordTokenizer] = {"en": Patterns(), "zh": Patterns()}
    rules = ours() | theirs({"en": load_word_tokenizer("eng"), "zh": load_word_tokenizer("cmn")} if spacy else own)
    found = texts(good or [])
    columns = [(kind, code) for kind in KINDS for code in ("en", "zh")]
    fastest, dropped = dict.fromkeys(rules, float("inf")), dict[str, Counter[tuple[str, str]]]()
    for _ in range(rounds):
        for name, rule in rules.items():
            started = time.process_time()
            dropped[name] = Counter(text[:2] for text in found if rule(text))
            fastest[name] = min(fastest[name], time.process_time() - started)
    total = Counter(text[:2] for text in found)
    print(f"{'':<44}" + "".join(f"{f'{kind} {code}':>15}" for kind, code in columns) + f"{'speed':>8}")
    print(f"{'texts':<44}" + "".join(f"{total[column]:>15}" for column in columns))
    for name in rules:
        counts = "".join(f"{dropped[name][column]:>15}" for column in columns)
        print(f"{name:<44}{counts}{fastest['ours: all'] / fastest[name]:>8.2f}")


if __name__ == "__main__":
    typer.run(main)
