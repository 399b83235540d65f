"""The watch beside a real engine: what is asked over HTTP is counted, judged, said once, kept over
a restart, and holds no text.
"""

import json
import logging
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from stages.common.core import records
from stages.common.release import registry
from stages.common.runtime.errors import DataError
from stages.common.runtime.logs import log
from stages.common.serving.drift import days, page, reference, watch
from stages.common.serving.drift.distances import Drift
from stages.common.serving.drift.watch import Watch
from stages.common.serving.engine.champions import Champions, Question
from stages.common.text.parquet_writer import write as write_records
from tests.common.serving.conftest import Registered, served

SETTINGS = Drift(window=100)
SECRET = "zanzibarium"


@pytest.fixture
def folder(registered: Registered, champions: Champions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose champion was evaluated, with prompts that it was trained on."""
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("evaluate: {max_new_tokens: 9}\ndeploy: {drift: {window: 100}}\n", encoding="utf-8")
    prompts = [
        {
            "id": f"p:{number}",
            "source": "p",
            "messages": [records.message("user", f"What is the capital of the land with number {number}?")],
            "reference": None,
            "category": None,
        }
        for number in range(100, 400, 2)
    ]
    write_records(prompts, Path("data/validated/prompts/train"), "prompts")
    evaluation = Path("reports/evaluate/sft")
    evaluation.mkdir(parents=True)
    facts = {"candidate": "sft", "weights_sha256": champions.current.facts()["weights_sha256"]}
    (evaluation / "metrics.json").write_text(json.dumps(facts), encoding="utf-8")
    answers = [{"answer": f"The capital of that land is town {number}."} for number in range(150)]
    (evaluation / "answers.jsonl").write_text("\n".join(map(json.dumps, answers)), encoding="utf-8")
    return tmp_path / ".lathe/drift"


@pytest.fixture
def said() -> Iterator[list[str]]:
    """What the log was told."""

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    lines: list[str] = []
    handler = Kept(logging.INFO)
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    yield lines
    log.setLevel(level)
    log.removeHandler(handler)


def until(holds: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def asked(text: str) -> Question:
    return Question([records.message("user", text)], 8)


def note_many(one: Watch, champions: Champions, texts: list[str], answer: str = "The capital is town 3.") -> None:
    for text in texts:
        one.note(champions.current, asked(text), answer, 8, cut=False)
        until(lambda: one._queue.qsize() < 100)


ALIKE = [f"What is the capital of the land with number {number}?" for number in range(101, 301, 2)]
OTHER = [f"请问{SECRET}第{number}国的首都是哪里？我想知道它的历史和人口。" for number in range(100)]


def test_what_is_asked_over_http_is_counted_and_exported(champions: Champions, folder: Path) -> None:
    one = Watch(champions, SETTINGS, folder).start()
    with served(champions, folder / "feedback.jsonl", drift=one) as address:
        for number in range(12):
            messages = [{"role": "user", "content": f"What is the capital of land {number}, {SECRET}?"}]
            body = {"messages": messages, "max_tokens": 4}
            assert httpx.post(f"{address}/v1/chat/completions", json=body, timeout=60).status_code == 200
        httpx.post(f"{address}/v1/completions", json={"prompt": "The capital", "max_tokens": 2}, timeout=60)
        until(lambda: one.window.get("prompt_tokens"))
        metrics = httpx.get(f"{address}/metrics").text
    one.close()
    assert 'lathe_drift_records{quantity="prompt_language"} 10.0' in metrics
    assert 'lathe_drift_share{bin="en",quantity="prompt_language"} 1.0' in metrics
    assert 'lathe_drift_expected_share{bin="en",quantity="prompt_language"} 1.0' in metrics
    assert re.search(r'lathe_drift_psi\{quantity="prompt_tokens"\} \d', metrics)
    assert 'lathe_drift_alarm{quantity="prompt_language"} 0.0' in metrics and "lathe_drift_dropped_total 0.0" in metrics
    (day,) = days.read(folder).days.values()
    (profile,) = day.values()
    assert sum(profile["answer_tokens"].values()) == 12, "a completion of plain text is no question"
    assert all(SECRET not in file.read_text(encoding="utf-8") for file in folder.glob("*.json"))


def test_a_drift_is_said_once_and_that_it_is_over_too(champions: Champions, folder: Path, said: list[str]) -> None:
    one = Watch(champions, SETTINGS, folder).start()
    note_many(one, champions, ALIKE)
    until(lambda: one._queue.empty() and len(one._days.blocks) == 10)
    assert not [level for level in one.levels if level.quantity.startswith("prompt") and level.is_drifted]
    note_many(one, champions, OTHER)
    until(lambda: sum(one.window["prompt_language"].values()) == one.window["prompt_language"].get("zh"))
    warnings = [line for line in said if line.startswith("drift of prompt_language")]
    assert len(warnings) == 1 and "PSI" in warnings[0] and SECRET not in "".join(said)
    note_many(one, champions, ALIKE)
    until(lambda: "zh" not in one.window["prompt_language"])
    assert len([line for line in said if line.startswith("no more drift of prompt_language")]) == 1
    one.close()


def test_counts_and_what_was_said_outlive_a_restart(champions: Champions, folder: Path, said: list[str]) -> None:
    first = Watch(champions, SETTINGS, folder).start()
    note_many(first, champions, OTHER)
    first.close()
    again = Watch(champions, SETTINGS, folder).start()
    until(lambda: again.levels)
    assert sum(again.window["prompt_language"].values()) == 100
    assert [level.is_drifted for level in again.levels if level.quantity == "prompt_language"] == [True]
    again.close()
    assert len([line for line in said if line.startswith("drift of prompt_language")]) == 1


def test_without_the_champions_data_counts_go_on_without_distances(
    champions: Champions, folder: Path, said: list[str]
) -> None:
    Path("reports/evaluate/sft/metrics.json").write_text('{"weights_sha256": "another"}', encoding="utf-8")
    one = Watch(champions, SETTINGS, folder).start()
    note_many(one, champions, OTHER[:20])
    until(lambda: one.window)
    one.close()
    assert len([line for line in said if "no data here to compare" in line]) == 1
    assert one.levels == [] and one.window["prompt_language"] == {"zh": 20}
    page.main(folder)
    assert "nothing is compared" in (folder / "drift.html").read_text(encoding="utf-8")


def test_the_reference_is_made_once_and_is_the_champions(
    registered: Registered, champions: Champions, folder: Path
) -> None:
    weights = champions.current.facts()["weights_sha256"]
    made = reference.made(weights, champions.current.engine.tokenizer)
    assert made
    assert made.profile["prompt_language"] == {"en": 150} and made.profile["answer_refused"] == {"no": 150}
    assert sum(made.profile["answer_cut"].values()) == 150
    made.write(folder)
    kept = reference.read(folder, weights)
    assert kept and kept.profile == made.profile and kept.known.counts == dict(made.known.counts)
    assert reference.read(folder, "f" * 64) is None
    reference.place(folder, weights).write_text("{", encoding="utf-8")
    assert reference.read(folder, weights) is None


def test_the_perplexity_of_prompts_is_the_champions_own(
    champions: Champions, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "SCORED_PROMPTS", 5)
    monkeypatch.setattr(watch, "SCORING_SHARE", 1.0)
    monkeypatch.setattr(watch, "WAKE_SECONDS", 0.01)
    one = Watch(champions, SETTINGS, folder).start()
    until(lambda: one.reference and "prompt_perplexity" in one.reference.profile)
    one.close()
    kept = reference.read(folder, champions.current.facts()["weights_sha256"])
    assert kept and sum(kept.profile["prompt_perplexity"].values()) == 5


def test_a_full_queue_drops_and_counts(champions: Champions, folder: Path) -> None:
    one = Watch(champions, SETTINGS, folder)  # not started: nobody empties it
    for _ in range(watch.WAITING_AT_MOST + 3):
        one.note(champions.current, asked("What?"), "That.", 1, cut=False)
    assert one.dropped == 3


def test_another_champion_has_a_window_of_its_own(
    registered: Registered, champions: Champions, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Watch(champions, SETTINGS, folder).start()
    note_many(one, champions, OTHER[:20])
    until(lambda: one.window)
    monkeypatch.chdir(registered.folder)
    registry.point(registered.client, registry.CHAMPION, registered.versions[1])
    assert champions.look()
    until(lambda: not one.window)
    one.close()
    assert one._days.weights == registered.versions[1].tags["weights_sha256"] and one.reference is None


def test_old_days_go_and_a_damaged_file_is_begun_anew(folder: Path, said: list[str]) -> None:
    one = days.Days()
    one.of("a" * 64)
    for number in range(1, 10):
        one.add(f"2026-11-0{number}", {"prompt_language": "en"})
    one.write(folder, kept=3)
    assert sorted(days.read(folder).days) == ["2026-11-07", "2026-11-08", "2026-11-09"]
    (folder / days.FILE).write_text('{"days": ', encoding="utf-8")
    assert days.read(folder).days == {} and "cannot be read" in said[-1]


def test_the_page_shows_days_alarms_and_what_to_do(
    champions: Champions, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match="nothing was counted"):
        page.main(folder)
    one = Watch(champions, SETTINGS, folder).start()
    monkeypatch.setattr(watch, "today", lambda: "2026-11-29")
    note_many(one, champions, ALIKE)
    until(lambda: len(one._days.blocks) == 10)
    monkeypatch.setattr(watch, "today", lambda: "2026-11-30")
    note_many(one, champions, OTHER)
    until(lambda: one.window["prompt_language"].get("zh") == 100)
    one.close()
    page.main(folder)
    text = (folder / "drift.html").read_text(encoding="utf-8")
    assert text.count("<svg") >= 7 and "<script" not in text and SECRET not in text
    assert "What has drifted" in text and "deploy.system_prompt in which languages" in text
    assert "Drifted on 2026-11-30" in text and "Drifted on 2026-11-29" not in text.split("prompt_language")[-1][:3000]
