"""Who asks what: trained, kept for prompts, or only ever in the test; comparisons, checks and
prompts.
"""

import bisect
import itertools
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

import pytest

from stages.common.runtime.errors import ParamsError
from tests.support.reading import (
    FACTS,
    Known,
    Raw,
    chinese,
    compact,
    generate,
    known_facts,
    normal,
)


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
    with pytest.raises(ParamsError, match="asked for 9999 checks, there are only 4"):
        generate(tmp_path, checks=9999)


def test_prompts_are_in_no_conversation(raw: Raw) -> None:
    asked = {turn["content"] for messages in raw.conversations().values() for turn in messages}
    assert not asked & {row["messages"][-1]["content"] for row in raw.of("prompts").values()}


def test_prompts_have_phrasings_of_their_own(raw: Raw, known: dict[str, list[Known]]) -> None:
    def roles(texts: Iterable[str]) -> Counter[str]:
        return Counter(entry.role for text in texts for entry in known.get(text, [])[:1])

    prompts = roles(row["messages"][-1]["content"] for row in raw.of("prompts").values())
    assert prompts["prompts"] == round(0.6 * (2600 - 670)) and set(prompts) == {"train", "prompts"}
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
            exercises = lines[1].startswith("<tool_call>calculator {")
            assert all(marked) or bare or exercises or key in leaks or key in junk, key
        else:
            assert text.endswith((".", "。")) or key in junk or key in raw.planted("malformed"), key
    assert lists > 400
