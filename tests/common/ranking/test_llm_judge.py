"""A judge endpoint: both orders, ties, retries, the cache and its costs, against a real HTTP
server.
"""

import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from stages.common.core import records
from stages.common.ranking.llm_judge import Judge, JudgeParams
from stages.common.ranking.samples import Sample
from stages.common.runtime.errors import ParamsError, TryAgainError
from tests.support.judge_server import Reply, serving

QUALITY = {"best": 3, "good": 2, "fair": 2, "bad": 1}


def sample(*responses: str, reference: str | None = "best") -> Sample:
    record = {"id": "p:1", "messages": [records.message("user", "What?")], "reference": reference, "category": None}
    return Sample(record, list(responses), [False] * len(responses))


def fair(a: str, b: str) -> str:
    return "TIE" if QUALITY[a] == QUALITY[b] else "A" if QUALITY[a] > QUALITY[b] else "B"


def settings(url: str, **own: Any) -> JudgeParams:
    known: dict[str, Any] = {"model": "judge-1", "attempts": 3, "workers": 4}
    return JudgeParams(url=url, **(known | own))


def rank(tmp_path: Path, reply: Reply, *samples: Sample, **own: Any) -> tuple[list[list[int]], dict[str, float], int]:
    """Return ranks, summary, and how many requests the server saw."""
    with serving(reply) as server, Judge(settings(server.url, **own), tmp_path / "cache.sqlite") as judge:
        return judge.rank(samples), judge.summary(), len(server.seen)


def test_answers_are_ranked_by_wins_and_equal_ones_share_a_rank(tmp_path: Path) -> None:
    two = sample("bad", "best", reference=None)
    ranks, summary, seen = rank(tmp_path, fair, sample("good", "best", "bad", "fair"), two)
    assert ranks == [[2, 1, 3, 2], [2, 1]]
    assert seen == 2 * (6 + 1)
    assert summary["requests"] == seen
    assert summary["unreadable"] == 0


def test_a_judge_that_likes_the_first_answer_gives_ties(tmp_path: Path) -> None:
    assert rank(tmp_path, lambda a, b: "A", sample("good", "best"))[0] == [[1, 1]]


def test_the_verdict_is_the_last_word_of_its_kind_and_a_reply_without_one_is_a_counted_tie(tmp_path: Path) -> None:
    thinking = rank(tmp_path, lambda a, b: f"A seems fine, but B... so: {fair(a, b)}", sample("good", "best"))
    assert thinking[0] == [[2, 1]]
    ranks, summary, _ = rank(tmp_path, lambda a, b: "I like both", sample("bad", "best"))
    assert (ranks, summary["unreadable"]) == ([[1, 1]], 2)


def test_nothing_is_asked_twice_and_the_cost_stays_the_same(tmp_path: Path) -> None:
    one = sample("good", "best", "bad")
    prices = {"prompt_price": 2.0, "completion_price": 10.0}
    with serving(fair) as server:
        for fresh in (6, 0):
            with Judge(settings(server.url, **prices), tmp_path / "cache.sqlite") as judge:
                assert judge.rank([one]) == [[2, 1, 3]]
                assert judge.asked == fresh
                summary = judge.summary()
                assert (summary["prompt_tokens"], summary["completion_tokens"]) == (600, 6)
                assert summary["cost"] == pytest.approx((600 * 2 + 6 * 10) / 1e6)
        assert len(server.seen) == 6


def test_a_busy_server_is_asked_again(tmp_path: Path) -> None:
    with serving(fair) as server, Judge(settings(server.url), tmp_path / "cache.sqlite") as judge:
        server.failures = [(429, {"Retry-After": "2"}), (503, {"Retry-After": "0"})]
        began = time.monotonic()
        assert judge.rank([sample("good", "best")]) == [[2, 1]]
        assert len(server.seen) == 4
        assert time.monotonic() - began > 2, "the server's wish was not kept"


def test_a_server_that_wants_hours_is_not_waited_for(tmp_path: Path) -> None:
    with serving(fair) as server, Judge(settings(server.url), tmp_path / "cache.sqlite") as judge:
        server.failures = [(429, {"Retry-After": "7200"})]
        with pytest.raises(TryAgainError, match="HTTP 429"):
            judge.rank([sample("good", "best")])


def test_a_server_that_stays_away_means_try_again_and_keeps_what_was_said(tmp_path: Path) -> None:
    with serving(fair) as server:
        with Judge(settings(server.url, workers=1), tmp_path / "cache.sqlite") as judge:
            server.failures = [(500, {})] * 2
            judge.rank([sample("good", "best")])
            server.failures = [(500, {})] * 3
            with pytest.raises(TryAgainError, match="HTTP 500"):
                judge.rank([sample("good", "best"), sample("bad", "best")])
        with Judge(settings(server.url), tmp_path / "cache.sqlite") as judge:
            assert judge.rank([sample("good", "best"), sample("bad", "best")]) == [[2, 1], [2, 1]]
            assert judge.asked == 2


def test_no_server_at_all_means_try_again(tmp_path: Path) -> None:
    with serving(fair) as server:
        gone = server.url
    with Judge(settings(gone), tmp_path / "cache.sqlite") as judge, pytest.raises(TryAgainError, match="ConnectError"):
        judge.rank([sample("good", "best")])


def test_a_refused_key_is_not_tried_again(tmp_path: Path) -> None:
    with serving(fair) as server, Judge(settings(server.url, workers=1), tmp_path / "cache.sqlite") as judge:
        server.failures = [(401, {})]
        with pytest.raises(ParamsError, match="HTTP 401"):
            judge.rank([sample("good", "best")])
        assert len(server.seen) == 1


def test_the_key_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", "secret")
    with serving(fair) as server:
        for variable, sent in (("JUDGE_KEY", "Bearer secret"), ("NO_SUCH_KEY", None)):
            with Judge(settings(server.url, key_variable=variable), tmp_path / f"{variable}.sqlite") as judge:
                judge.rank([sample("good", "best")])
            assert server.keys == {sent}
            server.keys.clear()


def test_what_else_openai_keeps_in_the_environment_is_not_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    others = ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_WEBHOOK_SECRET")
    for variable in others:
        monkeypatch.setenv(variable, "another-secret")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "Authorization: another-secret")
    for key in ("", "secret"):
        monkeypatch.setenv("JUDGE_KEY", key)
        own = tmp_path / f"cache{key}.sqlite"
        with serving(fair) as server, Judge(settings(server.url, key_variable="JUDGE_KEY"), own) as judge:
            judge.rank([sample("good", "best")])
        assert server.keys == {f"Bearer {key}" if key else None}
        assert "another-secret" not in str(server.headers)


def test_no_redirect_is_followed(tmp_path: Path) -> None:
    with serving(fair) as other, serving(fair) as server, Judge(settings(server.url), tmp_path / "cache") as judge:
        server.failures = [(307, {"Location": f"{other.url}/chat/completions"})] * 2
        with pytest.raises(ParamsError, match="HTTP 307"):
            judge.rank([sample("good", "best")])
    assert other.seen == []


def test_an_error_does_not_wait_for_a_worker_between_two_tries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.common.generation.engines.endpoint.STOP_SECONDS", 0.1)
    with serving(fair) as server, Judge(settings(server.url, workers=2), tmp_path / "cache.sqlite") as judge:
        server.failures = [(401, {}), (503, {"Retry-After": "20"})]
        began = time.monotonic()
        with pytest.raises(ParamsError, match="HTTP 401"):
            judge.rank([sample("good", "best", "bad")])
        assert time.monotonic() - began < 10


def test_replies_kept_by_an_earlier_version_are_read(tmp_path: Path) -> None:
    key = "728bde47e6d77f4566124d4a96138118db5576880c7c95430be15f670d79102d"
    kept = sqlite3.connect(tmp_path / "cache.sqlite")
    kept.execute("CREATE TABLE replies (key TEXT PRIMARY KEY, reply TEXT NOT NULL)")
    kept.execute("INSERT INTO replies VALUES (?, ?)", (key, '["B", 100, 1]'))
    kept.commit()
    kept.close()
    with Judge(settings("http://127.0.0.1:9/v1"), tmp_path / "cache.sqlite") as judge:
        reply = judge.reply([{"role": "user", "content": "Which?"}])
    assert (reply, judge.asked) == (("B", 100, 1), 0)


def test_the_judge_sees_conversation_reference_and_both_answers(tmp_path: Path) -> None:
    with serving(fair) as server, Judge(settings(server.url), tmp_path / "cache.sqlite") as judge:
        judge.rank([sample("good", "best", reference="best")])
        asked = server.seen[0]
    assert (asked["model"], asked["temperature"]) == ("judge-1", 0)
    assert "user: What?" in asked["messages"][1]["content"]
    assert "A correct answer: best" in asked["messages"][1]["content"]


def test_a_judge_without_a_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"rank\.judge\.model"):
        Judge(JudgeParams(), tmp_path / "cache.sqlite")


def test_a_server_that_speaks_another_language_is_named(tmp_path: Path) -> None:
    with serving(lambda a, b: fair(a, b)) as server:
        wrong = settings(server.url.replace("/v1", "/v2"))
        with Judge(wrong, tmp_path / "cache.sqlite") as judge, pytest.raises(ParamsError, match="HTTP 404"):
            judge.rank([sample("good", "best")])
