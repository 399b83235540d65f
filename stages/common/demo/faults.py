"""Faults planted in raw data, each counted and known by its row id, so that a later stage's catch
can be checked.
"""

import copy
import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from stages.common.demo.rows import CRAWL, Files, Row, encode
from stages.common.demo.world import LANGUAGES, Item, Language

EDITED_SHARE = 0.05
SHORTEST_EDITED_BYTES = 240
MALFORMED = {
    "prose_en.txt": ("", ("bad-utf8",)),
    "articles.jsonl": ("text", ("broken-json", "bad-utf8", "wrong-type", "empty-text")),
    "conversations_sharegpt.jsonl": (
        "conversations",
        ("broken-json", "bad-utf8", "wrong-type", "empty-answer", "wrong-role-order"),
    ),
    "conversations_openai.jsonl": (
        "messages",
        ("broken-json", "bad-utf8", "wrong-type", "empty-answer", "wrong-role-order"),
    ),
    "comparisons.jsonl": ("responses", ("broken-json", "wrong-type", "ranks-mismatch")),
    "prompts.jsonl": ("messages", ("broken-json", "wrong-type")),
    "questions.jsonl": ("messages", ("broken-json", "missing-reference")),
}


def scatter(rows: list[Row], row: Row, rng: random.Random) -> None:
    """Insert `row` at a random place, a copy always after its original: keeping the first keeps the
    original.
    """
    first = rows.index(row.of) + 1 if row.of else 0
    rows.insert(rng.randint(first, len(rows)), row)


def exact_duplicates(rows: Sequence[Row], count: int, rng: random.Random) -> list[Row]:
    """Return copies of `count` clean rows."""
    return [Row(row.body, "exact_duplicate", {}, row) for row in rng.sample([r for r in rows if not r.fault], count)]


def near_duplicates(rows: Sequence[Row], count: int, rng: random.Random) -> list[Row]:
    """Return copies of `count` clean paragraphs in which one stretch of about 5 % was lost or
    doubled.
    """
    long = [
        row
        for row in rows
        if not row.fault and isinstance(row.body, str) and len(row.body.encode()) >= SHORTEST_EDITED_BYTES
    ]
    return [Row(edited(str(row.body), rng), "near_duplicate", {}, row) for row in rng.sample(long, count)]


def edited(text: str, rng: random.Random) -> str:
    """Return `text` with a stretch of about 5 % of its words (characters, where it has few spaces)
    lost or doubled.
    """
    joint = " " if text.count(" ") > len(text) / 12 else ""
    parts = text.split(" ") if joint else list(text)
    width = max(1, round(EDITED_SHARE * len(parts)))
    start = rng.randint(1, len(parts) - width - 1)
    stretch = rng.choice(([], parts[start : start + width] * 2))
    return joint.join([*parts[:start], *stretch, *parts[start + width :]])


def spam(texts: dict[str, Any], count: int, rng: random.Random) -> list[Row]:
    """Return `count` advertisements."""

    def make() -> str:
        template: str = rng.choice(texts["spam"])
        return template.format(x=rng.choice(texts["spam_words"]), n=rng.randint(100, 9999))

    return different([("", make)], "spam", count)


def boilerplate(texts: dict[str, Any], count: int, rng: random.Random) -> list[Row]:
    """Return `count` pieces of what web pages have around their text: notices, menus, comments,
    navigation.
    """

    def make(joint: str, parts: dict[str, Any]) -> str:
        names, chosen = parts.get("names", [""]), rng.sample(parts["pieces"], rng.randint(*parts["count"]))
        return joint.join(piece.format(name=rng.choice(names), n=rng.randint(2, 99)) for piece in chosen)

    kinds = [
        (kind, partial(make, text["joint"], text[language])) for kind, text in texts.items() for language in LANGUAGES
    ]
    return different(kinds, "boilerplate", count)


def gibberish(texts: dict[str, Any], count: int, rng: random.Random) -> list[Row]:
    """Return `count` paragraphs of letter salad, rare characters, or one character over and
    over.
    """
    letters = "bcdfghjklmnpqrstvwxz"
    kinds: list[tuple[str, Callable[[], str]]] = [
        ("letters", lambda: " ".join("".join(rng.choices(letters, k=rng.randint(3, 12))) for _ in range(25))),
        ("symbols", lambda: "".join(rng.choices("#@%&*~^|<>{}[]\\/§¤¶", k=120))),
        ("characters", lambda: "".join(rng.choices(texts["gibberish_zh"], k=60))),
        ("repeated", lambda: rng.choice(letters) * rng.randint(100, 200)),
    ]
    return different(kinds, "gibberish", count)


def different(kinds: Sequence[tuple[str, Callable[[], str]]], fault: str, count: int) -> list[Row]:
    """Return `count` texts, the kinds' makers taking turns; none comes twice, or it would be a
    duplicate too.
    """
    made: dict[str, str] = {}
    while len(made) < count:
        kind, make = kinds[len(made) % len(kinds)]
        made.setdefault(make(), kind)
    return [Row(text, fault, {"kind": kind} if kind else {}) for text, kind in made.items()]


def pii_values(texts: dict[str, Any]) -> dict[str, Callable[[random.Random], str]]:
    """Return makers of fictitious personal data by kind: a domain and networks that nobody was ever
    given, reserved numbers and test cards. Reserved domains and networks would be no personal data.
    """

    def digits(rng: random.Random, count: int) -> str:
        return "".join(rng.choices("0123456789", k=count))

    return {
        "mail": lambda rng: f"{rng.choice(('anna', 'zhang.san', 'j_doe', 'li4'))}{digits(rng, 2)}@post.sample",
        "phone": lambda rng: f"+1 (555) 555-01{digits(rng, 2)}",
        "mobile": lambda rng: f"1990000{digits(rng, 4)}",
        "identity": lambda rng: chinese_identity(
            f"99000019{rng.randint(10, 99)}0{rng.randint(1, 9)}15{digits(rng, 3)}"
        ),
        "social": lambda rng: f"987-65-43{digits(rng, 2)}",
        "card": lambda rng: rng.choice(texts["cards"]),
        "address": lambda rng: f"{rng.choice(texts['networks'])}.{rng.randint(1, 254)}",
        "key": lambda rng: "sk-" + "".join(rng.choices("abcdefghijkmnpqrstuvwxyzABCDEFGH23456789", k=40)),
    }


def chinese_identity(first: str) -> str:
    """Return 17 digits with their check character (GB 11643, ISO 7064 mod 11-2); area 990000 was
    never given out.
    """
    weights = [2 ** (17 - index) % 11 for index in range(17)]
    return first + "10X98765432"[sum(int(digit) * weight for digit, weight in zip(first, weights, strict=True)) % 11]


def pii(texts: dict[str, Any], count: int, rng: random.Random) -> list[tuple[Language, str, dict[str, str]]]:
    """Return `count` sentences with personal data: language, text, what was planted; none comes
    twice.
    """
    makers = list(pii_values(texts).items())
    sentences: dict[str, tuple[Language, str, dict[str, str]]] = {}
    while len(sentences) < count:
        kind, make = makers[len(sentences) % len(makers)]
        language = LANGUAGES[len(sentences) // len(makers) % 2]
        value = make(rng)
        text = rng.choice(texts["pii"][language]).format(name=rng.choice(texts["names"][language]), value=value)
        sentences[text] = (language, text, {"kind": kind, "value": value})
    return list(sentences.values())


def leaked_documents(texts: dict[str, Any], items: Sequence[Item], rng: random.Random) -> list[Row]:
    """Return paragraphs that give away test questions with their answers."""
    return [
        Row(
            rng.choice(texts["leaks"][item.language]).format(question=item.text, reference=item.reply),
            "leaked_document",
            {"question": item.text},
        )
        for item in items
    ]


def malformed(row: Row, kind: str, main_field: str) -> Row:
    """Return a damaged copy of a row; `main_field` is the one its shape is known by, empty for a
    paragraph.
    """
    detail = {"kind": kind}
    text = encode(row.body, paragraphs=not main_field)
    if kind == "broken-json":
        return Row(text[: 2 * len(text) // 3].decode(errors="ignore").encode(), "malformed", detail)
    if kind == "bad-utf8":
        return Row(text[: len(text) // 2] + b"\xff\xfe" + text[len(text) // 2 :], "malformed", detail)
    body: dict[str, Any] = copy.deepcopy(row.body) if isinstance(row.body, dict) else {"text": row.body}
    if kind == "wrong-type":
        body[main_field] = 42
    elif kind == "empty-text":
        body[main_field] = "   "
    elif kind == "empty-answer":
        body[main_field][-1]["value" if "value" in body[main_field][-1] else "content"] = ""
    elif kind == "wrong-role-order":
        body[main_field] = [body[main_field][-1], *body[main_field][:-1]]
    elif kind == "ranks-mismatch":
        body["ranks"] = body["ranks"][:-1]
    else:
        del body["reference"]
    return Row(body, "malformed", detail)


def plant(
    files: Files, texts: dict[str, Any], counts: Mapping[str, int], leaks: Sequence[Item], rng: random.Random
) -> None:
    """Plant `counts` faults of each kind in `files`, and `leaks` as documents; `texts` are the
    world's.

    Text that nobody would want goes to the crawl, other faults of documents to the articles: there
    each is a row of its own, where paragraphs of plain text are joined when they are read.
    """
    web, texts = texts["boilerplate"], texts["faults"]
    talk = [name for name in files if name.startswith("conversations")]
    extra: list[tuple[str, Row]] = [
        (name, malformed(row, kind, main_field))
        for name, (main_field, kinds) in MALFORMED.items()
        for kind in kinds
        for row in rng.sample([row for row in files[name] if not row.fault], counts["malformed"])
    ]
    junk = [
        *spam(texts, counts["spam"], rng),
        *gibberish(texts, counts["gibberish"], rng),
        *boilerplate(web, counts["boilerplate"], rng),
    ]
    paragraphs = [
        *(Row(text, "pii_document", detail) for _, text, detail in pii(texts, counts["pii"], rng)),
        *leaked_documents(texts, leaks, rng),
    ]
    extra += [(CRAWL, row) for row in junk] + [("articles.jsonl", row) for row in paragraphs]
    for names, copies, count in (
        (["articles.jsonl"], exact_duplicates, counts["exact_duplicates"]),
        (talk, exact_duplicates, counts["exact_duplicates"]),
        (["articles.jsonl"], near_duplicates, counts["near_duplicates"]),
    ):
        home = {row: name for name in names for row in files[name]}
        extra += [(home[row.of], row) for row in copies(list(home), count, rng) if row.of]
    for name, row in extra:
        scatter(files[name], row, rng)
