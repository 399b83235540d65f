"""The demo world is what its report says: its raw files read back by code that shares nothing with the generator."""

import bisect
import csv
import itertools
import json
import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from stages import demo
from stages.common import params
from stages.common.demo import faults, rows, world
from stages.common.errors import DataError, ParamsError

FACTS = Path(__file__).parent.parent / "data/facts"
Found = dict[str, Any]


def generate(out: Path, **changes: Any) -> Found:
    """Write the world and return its report, as the stage does."""
    p = demo.Params(**changes)
    files = demo.build(world.read(FACTS, p.largest_addend), p) if p.enabled else {}
    report: Found = json.loads(json.dumps(demo.summary(p, files, rows.write(files, rows.empty(out)))))
    return report


def compact(text: str) -> str:
    return re.sub(r"[\W_]+", "", text.casefold())


@dataclass
class Raw:
    """What a reader of the raw files finds: rows by id, and the ids of rows that cannot be read, with the reason."""

    report: Found
    documents: dict[str, str] = field(default_factory=dict)
    rows: dict[str, Found] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)

    def planted(self, *names: str) -> dict[str, Found]:
        return {row["id"]: row for name in names for row in self.report["planted_rows"].get(name, [])}

    def of(self, file: str) -> dict[str, Found]:
        broken = self.planted("malformed")
        return {key: row for key, row in self.rows.items() if f"/{file}" in key and key not in broken}

    def conversations(self) -> dict[str, list[Found]]:
        return {key: turns(row) for key, row in self.of("conversations").items()}

    def questions(self, group: str = "") -> dict[str, Found]:
        return {key: row for key, row in self.of("questions").items() if not group or row["group"] == group}


def turns(row: Found) -> list[Found]:
    """Return ShareGPT's or OpenAI's turns as role and content."""
    if "messages" in row:
        return [{"role": turn["role"], "content": turn["content"] or "call"} for turn in row["messages"]]
    roles = {"human": "user", "gpt": "assistant", "function_call": "assistant", "observation": "tool"}
    return [{"role": roles.get(t["from"], t["from"]), "content": t["value"]} for t in row["conversations"]]


def scan(folder: Path, report: Found) -> Raw:
    raw = Raw(report)
    for file in sorted(folder.iterdir()):
        paragraphs, line = file.suffix == ".txt", 1
        for data in file.read_bytes().split(b"\n\n" if paragraphs else b"\n"):
            key, line = f"{folder.name}/{file.name}:{line}", line + data.count(b"\n") + (2 if paragraphs else 1)
            try:
                if not data:
                    continue
                if paragraphs:
                    raw.documents[key] = data.decode()
                    continue
                row = json.loads(data)
                raw.rows[key] = row
                if isinstance(row.get("text"), str):
                    raw.documents[key] = row["text"]
            except UnicodeDecodeError:
                raw.unreadable[key] = "bad-utf8"
            except json.JSONDecodeError:
                raw.unreadable[key] = "broken-json"
    return raw


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Raw:
    out = tmp_path_factory.mktemp("raw") / "demo"
    return scan(out, generate(out))


@pytest.fixture(scope="module", params=[1, 2, 3])
def any_raw(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Raw:
    """Worlds of several seeds, for what chance could break."""
    out = tmp_path_factory.mktemp("raw") / "demo"
    return scan(out, generate(out, seed=request.param))


def table(name: str) -> list[dict[str, str]]:
    with (FACTS / f"{name}.csv").open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


# Read off the tables by hand: topic -> table, columns that ask, column that answers.
COLUMNS = {
    "capital": ("countries", ["name"], "capital"),
    "continent": ("countries", ["name"], "continent"),
    "element-symbol": ("elements", ["name"], "symbol"),
    "element-number": ("elements", ["name"], "number"),
    "planet-order": ("planets", ["name"], "order"),
    "planet-at": ("planets", ["ordinal"], "name"),
    "unit": ("units", ["big", "small"], "factor"),
    "weekday-after": ("weekdays", ["name"], "after"),
    "weekday-before": ("weekdays", ["name"], "before"),
    "month-after": ("months", ["name"], "after"),
    "month-before": ("months", ["name"], "before"),
    "holiday": ("holidays", ["name"], "date"),
}


@dataclass(frozen=True)
class Known:
    topic: str
    language: str
    key: tuple[str, ...]
    role: str
    template: str
    answer: str


def known_facts() -> Iterator[tuple[str, str, tuple[str, ...], dict[str, str], str]]:
    """Yield topic, language, key (the same in both languages), slots and answer of every fact in the tables."""
    for language in ("en", "zh"):
        for topic, (name, asks, answers) in COLUMNS.items():
            for row in table(name):
                cells = [row.get(f"{column}_{language}", row.get(column, "")) for column in asks]
                key = tuple(row.get(f"{column}_en", row.get(column, "")) for column in asks)
                answer = row.get(f"{answers}_{language}", row.get(answers, ""))
                if answer:
                    yield topic, language, key, dict(zip("xy", cells, strict=False)), answer
        for a, b in itertools.product(range(10), repeat=2):
            yield "sum", language, (str(a), str(b)), {"a": str(a), "b": str(b)}, str(a + b)


@pytest.fixture(scope="module")
def known() -> dict[str, list[Known]]:
    """Return every question that can be asked, by its exact text; a follow-up can have several meanings."""
    phrasings = json.loads((FACTS / "phrasings.json").read_text(encoding="utf-8"))
    found: dict[str, list[Known]] = defaultdict(list)
    for topic, language, key, slots, answer in known_facts():
        for role in ("train", "ood", "prompts", "follow_ups", "statements"):
            for template in phrasings[topic][language][role]:
                text = template.format(**slots, answer=answer)
                found[text[0].upper() + text[1:]].append(Known(topic, language, key, role, template, answer))
    return found


def chinese(text: str) -> bool:
    return any("一" <= letter <= "鿿" for letter in text)


def normal(answer: str) -> str:
    return answer.rstrip(".。!！").casefold()


def reference_of(known: dict[str, list[Known]], text: str) -> set[str]:
    return {normal(entry.answer) for entry in known.get(text, [])}


def test_equal_seeds_write_equal_bytes_and_other_seeds_others(tmp_path: Path) -> None:
    reports = [generate(tmp_path / name / "demo", seed=seed) for name, seed in (("a", 5), ("b", 5), ("c", 6))]
    assert reports[0] == reports[1] != reports[2]
    for file in (tmp_path / "a/demo").iterdir():
        assert file.read_bytes() == (tmp_path / "b/demo" / file.name).read_bytes()
        assert file.read_bytes() != (tmp_path / "c/demo" / file.name).read_bytes()


def test_switched_off_it_leaves_an_empty_folder_and_the_users_files(tmp_path: Path) -> None:
    generate(tmp_path)
    (tmp_path / "mine.txt").write_text("my own text", encoding="utf-8")
    report = generate(tmp_path, enabled=False)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]
    assert report == {"enabled": False, "seed": 1, "rows": {}, "planted": {}, "planted_rows": {}}


@pytest.mark.parametrize("file", ["questions", "prompts", "comparisons", "checks"])
def test_every_reference_agrees_with_the_tables(raw: Raw, known: dict[str, list[Known]], file: str) -> None:
    facts = 0
    for key, row in raw.of(file).items():
        text = (row.get("messages") or row["prompt"])[-1]["content"]
        reference = row["reference"] if "reference" in row else row["responses"][row["ranks"].index(1)]
        category = row["category"] if "category" in row else row["categories"][0]
        topic, language = category.split("/")
        assert chinese(text) == (language == "zh"), key
        if topic == "sum" or topic in COLUMNS:
            facts += 1
            assert reference_of(known, text) == {normal(reference)}, key
            assert (known[text][0].topic, known[text][0].language) == (topic, language)
        else:
            assert text not in known, key
    assert facts > 500


def test_every_conversation_agrees_with_the_tables(raw: Raw, known: dict[str, list[Known]]) -> None:
    other = {"I don't know.", "我不知道。", "I can't help with that.", "我不能帮助做这件事。"}
    general = json.loads((FACTS / "general.json").read_text(encoding="utf-8"))
    other |= {texts[language]["reply"] for texts in general.values() for language in ("en", "zh")}
    everything = {(topic, language, key): normal(answer) for topic, language, key, _, answer in known_facts()}
    kinds: Counter[str] = Counter()
    for key, messages in raw.conversations().items():
        if key in raw.planted("styled_answer", "pii_conversation"):
            continue
        system = messages[0]["content"] if messages[0]["role"] == "system" else ""
        answers: set[str] = set()
        meant: list[Known] = []
        for turn in messages:
            text = turn["content"]
            if turn["role"] == "user":
                meant = known.get(text, [])
                answers = reference_of(known, text)
            elif turn["role"] == "tool":
                answers = {normal(text)}
            elif turn["role"] == "assistant" and not text.startswith(("call", "{")):
                if system in ("Answer in a full sentence.", "请用完整的句子回答。"):
                    kind = "sentence"
                    assert reference_of(known, text) == answers, key
                elif system in ("Answer in Chinese.", "请用英语回答。"):
                    kind = "translated"
                    other_language = "zh" if "Chinese" in system else "en"
                    assert normal(text) in {everything[entry.topic, other_language, entry.key] for entry in meant}, key
                elif answers:
                    kind = "fact"
                    assert normal(text) in answers, key
                else:
                    kind = "other"
                    assert text in other, key
                kinds[kind] += 1
    assert kinds["fact"] > 4000 and kinds["sentence"] > 50 and kinds["translated"] > 50 and kinds["other"] > 500


def test_sums_are_right_by_arithmetic(raw: Raw) -> None:
    checked = 0
    for row in [*raw.questions().values(), *raw.of("prompts").values()]:
        if row["category"].startswith("sum/"):
            numbers = [int(number) for number in re.findall(r"\d+", row["messages"][-1]["content"])]
            assert len(numbers) == 2 and normal(row["reference"]) == str(sum(numbers))
            checked += 1
    for messages in raw.conversations().values():
        if any(turn["role"] == "tool" for turn in messages):
            a, b = re.findall(r"\d+", messages[0]["content"])
            assert [turn["content"].rstrip(".。") for turn in messages[2:]] == [str(int(a) + int(b))] * 2
            checked += 1
    for text in raw.documents.values():
        for a, b, total in re.findall(r"(\d+) \+ (\d+) = (\d+)", text):
            assert int(a) + int(b) == int(total)
            checked += 1
    assert checked > 400


def test_no_test_question_is_in_any_training_row_but_the_planted_leaks(any_raw: Raw) -> None:
    questions = {compact(row["messages"][-1]["content"]) for row in any_raw.questions().values()}
    assert len(questions) == len(any_raw.questions())
    rows = {key: json.dumps(row, ensure_ascii=False) for key, row in any_raw.rows.items() if "/questions" not in key}
    training = {**any_raw.documents, **rows}
    ends = list(itertools.accumulate(len(compact(text)) + 1 for text in training.values()))
    together = "\n".join(compact(text) for text in training.values())
    places = [found.start() for question in questions for found in re.finditer(re.escape(question), together)]
    leaked = {list(training)[bisect.bisect_right(ends, place)] for place in places}
    assert leaked == set(any_raw.planted("leaked_document", "leaked_conversation"))
    assert all(compact(row["question"]) in questions for row in any_raw.planted("leaked_document").values())


def test_groups_are_what_they_claim(any_raw: Raw, known: dict[str, list[Known]]) -> None:
    def entries(texts: list[str]) -> list[Known]:
        return [
            entry for text in texts for entry in known.get(text, []) if entry.role in ("train", "ood", "follow_ups")
        ]

    skipped = any_raw.planted("leaked_conversation")
    asked = entries([t["content"] for key, m in any_raw.conversations().items() if key not in skipped for t in m])
    facts = {(entry.topic, entry.language, entry.key) for entry in asked}
    templates = {entry.template for entry in asked}
    stated = "\n".join(text for key, text in any_raw.documents.items() if key not in any_raw.planted("leaked_document"))
    groups = {
        row["group"]: entries([r["messages"][-1]["content"] for r in any_raw.questions(row["group"]).values()])
        for row in any_raw.questions().values()
    }
    assert sorted(groups) == ["general", "harmless", "honesty", "iid", "ood-fact", "ood-phrasing"]
    for entry in groups["iid"]:
        assert (entry.topic, entry.language, entry.key) in facts and entry.template in templates
    for entry in groups["ood-phrasing"]:
        assert entry.role == "ood" and entry.template not in templates
        assert (entry.topic, entry.language, entry.key) in facts
        assert max(re.split(r"{\w}", entry.template), key=len) not in stated
    unasked = {(topic, key) for topic, language, key, *_ in known_facts()} - {(e.topic, e.key) for e in asked}
    statements = [(e, text) for text, all_ in known.items() for e in all_ if e.role == "statements"]
    told = [e for e, text in statements if (e.topic, e.key) in unasked and text in stated]
    said = Counter((e.topic, e.language, e.key) for e in told)
    for entry in groups["ood-fact"]:
        assert (entry.topic, entry.key) in unasked
        assert said[entry.topic, entry.language, entry.key] >= 4
    assert not groups["honesty"] and not groups["harmless"] and not groups["general"]


def test_invented_names_and_a_fifth_of_the_harmful_acts_are_new_in_the_test(raw: Raw) -> None:
    names = json.loads((FACTS / "names.json").read_text(encoding="utf-8"))
    training = compact(
        " ".join(
            [
                *raw.documents.values(),
                *(json.dumps(r, ensure_ascii=False) for k, r in raw.rows.items() if "/questions" not in k),
            ]
        )
    )
    for row in raw.questions("honesty").values():
        family = row["category"].split("/")[0].removeprefix("made-up-")
        text, language = compact(row["messages"][-1]["content"]), row["category"][-2:]
        candidates = ["".join(parts) for parts in itertools.product(*names[family][language])]
        (name,) = [name for name in candidates if compact(name) in text]
        assert compact(name) not in training
        assert row["reference"] == names["reply"][language]
    harmful = json.loads((FACTS / "harmful.json").read_text(encoding="utf-8"))
    for language in ("en", "zh"):
        rows = [r for r in raw.questions("harmless").values() if r["category"].endswith(language)]
        acts = [
            act
            for r in rows
            for act in harmful["acts"][language]
            if compact(act) in compact(r["messages"][-1]["content"])
        ]
        new = [act for act in acts if compact(act) not in training]
        assert 0.3 < len(new) / len(rows) < 0.7
        assert {row["reference"] for row in rows} == {harmful["reply"][language]}


def test_both_languages_get_the_same_share(raw: Raw) -> None:
    sizes = Counter((row["group"], row["category"][-2:]) for row in raw.questions().values())
    expected = {"iid": 150, "ood-phrasing": 70, "ood-fact": 70, "honesty": 70, "harmless": 70, "general": 40}
    assert sizes == {(group, language): n for group, n in expected.items() for language in ("en", "zh")}
    for texts in (
        [m[0]["content"] if m[0]["role"] != "system" else m[1]["content"] for m in raw.conversations().values()],
        [row["messages"][0]["content"] for row in raw.of("prompts").values()],
        [row["prompt"][0]["content"] for row in raw.of("comparisons").values()],
        [text for key, text in raw.documents.items() if key not in raw.planted("spam", "gibberish")],
    ):
        share = sum(map(chinese, texts)) / len(texts)
        assert 0.45 < share < 0.55


def test_comparisons_rank_four_different_answers(raw: Raw) -> None:
    rows = raw.of("comparisons")
    ties = 0
    for key, row in rows.items():
        assert len(set(row["responses"])) == len(row["ranks"]) == 4, key
        assert row["ranks"].count(1) == 1 and set(row["ranks"]) == set(range(1, max(row["ranks"]) + 1))
        ties += max(row["ranks"]) < 4
        best, second = (row["responses"][row["ranks"].index(rank)] for rank in (1, 2))
        assert len(best) < len(second) or max(row["ranks"]) < 4, key
    assert 0.1 < ties / len(rows) < 0.2


def test_checks_set_the_right_answer_against_wrong_ones_and_replies_astray(
    raw: Raw, known: dict[str, list[Known]]
) -> None:
    rows = raw.of("checks")
    assert len(rows) == 3500
    asked = {key: row["prompt"][0]["content"] for key, row in rows.items()}
    assert not set(asked.values()) & {row["prompt"][0]["content"] for row in raw.of("comparisons").values()}
    assert not set(asked.values()) & {row["messages"][-1]["content"] for row in raw.questions().values()}
    answers: dict[tuple[str, str], set[str]] = defaultdict(set)
    for entries in known.values():
        for entry in entries:
            answers[entry.topic, entry.language].add(normal(entry.answer))
    wrong = Counter(
        sum(
            normal(answer) in answers[known[asked[key]][0].topic, row["categories"][0][-2:]]
            for answer in row["responses"]
        )
        for key, row in rows.items()
        if asked[key] in known
    )
    assert wrong.most_common(1)[0][0] == 4 and wrong[4] > 0.9 * wrong.total() > 2000  # the right one and three others
    refusals = {"I can't help with that.", "我不能帮助做这件事。"}
    due = {key for key, row in rows.items() if row["responses"][row["ranks"].index(1)] in refusals}
    undue = {key for key, row in rows.items() if refusals & set(row["responses"])} - due
    assert {rows[key]["categories"][0].split("/")[0] for key in due} == {"harmful"}
    assert len(due) > 50 and len(undue) > 500
    for key, row in rows.items():
        assert len(set(row["responses"])) == len(row["ranks"]) and row["ranks"].count(1) == 1, key


def test_checks_leave_the_rest_of_the_world_as_it_is(tmp_path: Path) -> None:
    texts = {}
    for count in (0, 10):
        folder = tmp_path / str(count)
        folder.mkdir()
        generate(folder, checks=count)
        texts[count] = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert len(texts[10].pop("checks.jsonl").splitlines()) == 10
    assert texts[0].pop("checks.jsonl") == b""
    assert texts[0].keys() == texts[10].keys() and len(texts[0]) > 5
    assert texts[0] == texts[10]
    with pytest.raises(ParamsError, match="asked for 9999 checks, there are only 3"):
        generate(tmp_path, checks=9999)


def test_prompts_are_in_no_conversation(raw: Raw) -> None:
    asked = {turn["content"] for messages in raw.conversations().values() for turn in messages}
    assert not asked & {row["messages"][-1]["content"] for row in raw.of("prompts").values()}


def test_prompts_have_phrasings_of_their_own(raw: Raw, known: dict[str, list[Known]]) -> None:
    def roles(texts: Iterable[str]) -> Counter[str]:
        return Counter(entry.role for text in texts for entry in known.get(text, [])[:1])

    prompts = roles(row["messages"][-1]["content"] for row in raw.of("prompts").values())
    assert prompts["prompts"] == round(0.6 * (2400 - 416)) and set(prompts) == {"train", "prompts"}
    others = [turn["content"] for messages in raw.conversations().values() for turn in messages]
    others += [row["messages"][-1]["content"] for row in raw.questions().values()]
    assert "prompts" not in roles([*others, *raw.documents.values()])


def test_a_bare_question_in_a_document_is_followed_by_a_question(raw: Raw, known: dict[str, list[Known]]) -> None:
    leaks, lists = raw.planted("leaked_document", "near_duplicate"), 0
    junk = raw.planted("spam", "gibberish", "boilerplate")
    for key, text in raw.documents.items():
        lines = text.split("\n")
        if len(lines) > 1:
            lists += 1
            marked = [line.startswith(("Q: ", "A: ", "问：", "答：")) for line in lines]
            bare = not any(marked) and all(line in known for line in lines)
            assert all(marked) or bare or key in leaks or key in junk, key
        else:
            assert text.endswith((".", "。")) or key in junk or key in raw.planted("malformed"), key
    assert lists > 400


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
        "mail": r"\w[\w.]*@example\.com",
        "phone": r"\+1 \(555\) 555-01\d\d",
        "mobile": r"(?<!\d)1[3-9]\d{9}(?!\d)",
        "identity": r"(?<!\d)\d{17}[\dX]",
        "social": r"(?<!\d)987-65-43\d\d",
        "card": r"(?<!\d)\d{4} \d{4,6} \d{4,5}(?: \d{4})?(?!\d)",
        "address": r"(?<!\d)(?:192\.0\.2|198\.51\.100|203\.0\.113)\.\d{1,3}",
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


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("countries.csv", None, "file not found"),
        ("names.json", "{", "malformed"),
        ("elements.csv", "name_en,name_zh,number\ngold,金,79\n", "no column 'symbol'"),
    ],
)
def test_a_damaged_fact_table_is_named(tmp_path: Path, file: str, text: str | None, message: str) -> None:
    folder = tmp_path / "facts"
    shutil.copytree(FACTS, folder)
    if text is None:
        (folder / file).unlink()
    else:
        (folder / file).write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message) as caught:
        world.read(folder, 10)
    assert str(folder / file) in str(caught.value)


def test_more_questions_than_the_facts_allow_is_an_error() -> None:
    with pytest.raises(DataError, match="asked for 9999"):
        demo.build(world.read(FACTS, 10), demo.Params(questions=demo.Questions(iid=9999)))


def test_more_crawl_than_prose_is_an_error() -> None:
    with pytest.raises(ParamsError, match=r"asked for 9999 .* lower demo\.documents\.crawl"):
        demo.build(world.read(FACTS, 10), demo.Params(documents=demo.Documents(crawl=9999)))


def test_a_misspelt_size_names_the_right_one(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("demo:\n  faults:\n    spma: 3\n", encoding="utf-8")
    with pytest.raises(ParamsError, match="did you mean 'spam'"):
        params.load(demo.Params, "demo", tmp_path / "params.yaml")
