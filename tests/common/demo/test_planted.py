"""What is planted in the demo, and listed in its report, is what a scan of its files finds."""

import json
import re
from collections import Counter, defaultdict

from stages.common.demo import faults
from tests.support.reading import FACTS, Found, Known, Raw, chinese, normal, reference_of, turns


def test_planted_duplicates_are_what_a_scan_finds(any_raw: Raw) -> None:
    for bodies in (
        {
            k: text
            for k, text in any_raw.documents.items()
            if "/articles" in k and k not in any_raw.planted("malformed")
        },
        {key: json.dumps(messages) for key, messages in any_raw.conversations().items()},
    ):
        first: dict[str, str] = {}
        copies = {key: first[body] for key, body in bodies.items() if first.setdefault(body, key) != key}
        planted = {k: r["of"] for k, r in any_raw.planted("exact_duplicate").items() if k in bodies}
        assert copies == planted and len(planted) == 40


def test_planted_near_duplicates_are_what_a_scan_finds(raw: Raw) -> None:
    known = raw.planted("spam", "gibberish", "malformed", "exact_duplicate", "pii_document")
    shingles = {
        key: {text[i : i + 5] for i in range(len(text) - 4)}
        for key, text in raw.documents.items()
        if ".jsonl" in key and key not in known and len(text.encode()) > 200
    }
    owners: dict[str, list[str]] = defaultdict(list)
    found = {}
    for key, own in shingles.items():
        common = Counter(other for shingle in own for other in owners[shingle])
        for other, shared in common.items():
            if shared / (len(own) + len(shingles[other]) - shared) > 0.8:
                found[key] = other
        for shingle in own:
            owners[shingle].append(key)
    assert found == {key: row["of"] for key, row in raw.planted("near_duplicate").items()}


def test_planted_pii_is_what_a_scan_finds_and_is_fictitious(raw: Raw) -> None:
    patterns = {
        "mail": r"\w[\w.]*@post\.sample",
        "phone": r"\+1 \(555\) 555-01\d\d",
        "mobile": r"(?<!\d)1[3-9]\d{9}(?!\d)",
        "identity": r"(?<!\d)\d{17}[\dX]",
        "social": r"(?<!\d)987-65-43\d\d",
        "card": r"(?<!\d)\d{4} \d{4,6} \d{4,5}(?: \d{4})?(?!\d)",
        "address": r"(?<!\d)(?:240\.0\.2|248\.51\.100|243\.0\.113)\.\d{1,3}",
        "key": r"sk-[A-Za-z0-9]{40}",
    }
    texts = {**raw.documents, **{k: " ".join(t["content"] for t in m) for k, m in raw.conversations().items()}}
    found = {(k, kind) for k, text in texts.items() for kind, pattern in patterns.items() if re.search(pattern, text)}
    planted = raw.planted("pii_document", "pii_conversation")
    assert found == {(key, row["kind"]) for key, row in planted.items()}
    assert Counter(row["kind"] for row in planted.values()) == dict.fromkeys(patterns, 12)
    for row in planted.values():
        assert re.fullmatch(patterns[row["kind"]], row["value"]) and row["value"] in texts[row["id"]]
        if row["kind"] == "card":
            digits = [int(digit) for digit in row["value"] if digit != " "][::-1]
            assert sum(digits[::2]) + sum(sum(divmod(2 * digit, 10)) for digit in digits[1::2]) in range(0, 200, 10)


def test_the_check_character_of_an_identity_is_the_standards() -> None:
    assert faults.chinese_identity("11010519491231002") == "11010519491231002X"  # the example in GB 11643-1999
    assert faults.chinese_identity("44052418800101001") == "440524188001010014"


def test_planted_spam_and_gibberish_are_what_a_scan_finds(raw: Raw) -> None:
    spam = {key for key, text in raw.documents.items() if re.search(r"!!!", text)}
    assert spam == set(raw.planted("spam"))
    rare = set("龘靐齉爩鱻麤灪籱饢驫癵爨齾钃鸞厵")
    gibberish = {
        key
        for key, text in raw.documents.items()
        if len(text) > 50 and (len(set(text)) < 5 or set(text) <= rare or not re.search(r"[aeiouAEIOU一-鿿]", text))
    }
    assert gibberish == set(raw.planted("gibberish"))


def test_the_crawl_holds_the_junk_and_as_much_prose_as_it_says(any_raw: Raw, known: dict[str, list[Known]]) -> None:
    crawl = {key: text for key, text in any_raw.documents.items() if "/crawl.jsonl" in key}
    junk = any_raw.planted("spam", "gibberish", "boilerplate")
    told = [text for text, entries in known.items() if any(entry.role == "statements" for entry in entries)]
    invented = json.loads((FACTS / "names.json").read_text(encoding="utf-8"))["statements"]
    told += [re.sub("{x}", "", template) for templates in invented.values() for template in templates]
    prose = {key for key, text in crawl.items() if any(sentence in text for sentence in told)}
    assert prose == set(crawl) - set(junk) and len(prose) == 60
    assert set(junk) < set(crawl) and len(junk) == 120
    assert len(set(crawl.values())) == len(crawl)
    kinds = Counter((row["kind"], chinese(crawl[key])) for key, row in any_raw.planted("boilerplate").items())
    assert {kind for kind, _ in kinds} == {"notice", "menu", "comments", "navigation"}
    assert len(kinds) == 8 and set(kinds.values()) == {7, 8}


def test_planted_malformed_rows_are_what_a_scan_finds(raw: Raw) -> None:
    found = dict(raw.unreadable)
    for key, row in raw.rows.items():
        if reason := fault_of(row):
            found[key] = reason
    assert found == {key: row["kind"] for key, row in raw.planted("malformed").items()}
    assert Counter(found.values()) == {
        "broken-json": 18, "bad-utf8": 12, "wrong-type": 15, "empty-text": 3, "empty-answer": 6,
        "wrong-role-order": 6, "ranks-mismatch": 3, "missing-reference": 3,
    }  # fmt: skip


def fault_of(row: Found) -> str:
    """Return what is wrong with a row, by a plain reading of its own shape."""
    if 42 in [value for value in row.values() if isinstance(value, int)]:
        return "wrong-type"
    if "text" in row:
        return "" if row["text"].strip() else "empty-text"
    if "ranks" in row:
        return "" if len(row["ranks"]) == len(row["responses"]) else "ranks-mismatch"
    if "group" in row or "category" in row:
        return "" if "reference" in row else "missing-reference"
    roles = "".join(turn["role"][0] for turn in turns(row))
    if not re.fullmatch(r"s?(ua|uata)+", roles):
        return "wrong-role-order"
    return "" if turns(row)[-1]["content"] not in ("", "call") else "empty-answer"


def test_styled_answers_are_counted_and_wrong_in_style_only(raw: Raw, known: dict[str, list[Known]]) -> None:
    messages = raw.conversations()
    different = {
        key
        for key, (first, *rest) in messages.items()
        if len(rest) == 1
        and first["content"] in known
        and normal(rest[0]["content"]) not in reference_of(known, first["content"])
    }
    assert different == set(raw.planted("styled_answer")) and len(different) == 160
    assert 0.02 < len(different) / len(messages) < 0.05


def test_the_report_counts_what_it_lists(raw: Raw) -> None:
    report = raw.report
    assert report["planted"] == {name: len(rows) for name, rows in report["planted_rows"].items()}
    total = sum(report["rows"].values())
    lines = len(raw.rows) + len(raw.unreadable) + sum(".txt" in key for key in raw.documents)
    assert total == lines
    ids = [row["id"] for rows in report["planted_rows"].values() for row in rows]
    assert len(ids) == len(set(ids)) and set(ids) <= {*raw.rows, *raw.documents, *raw.unreadable}
