"""The champion on another server: the same answers as from here, only under the name of its
weights, typed failures.
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from stages import deploy
from stages.common.core import chat, models, params
from stages.common.core.records import message
from stages.common.generation.sampling import Sampling
from stages.common.release import registry
from stages.common.runtime.errors import DataError, ParamsError
from stages.common.serving.engine import remote
from stages.common.serving.engine.champions import Champions, Question, facts, fingerprint
from stages.common.serving.engine.remote import BackendError, RemoteEngine
from stages.common.serving.engine.requests import BusyError, ClosedError, pieces
from tests.common.serving.conftest import Registered, served
from tests.support import backend
from tests.support.backend import Backend
from tests.support.registered import NAME


def asked(number: int, tokens: int = 12, **more: object) -> Question:
    return Question([message("user", f"What is the capital of land {number}?")], tokens, **more)  # type: ignore[arg-type]


def said(champions: Champions, question: Question) -> tuple[str, int, str | None]:
    _, found = pieces(champions.ask, question)
    every = list(found)
    return "".join(piece.text for piece in every), every[-1].tokens, every[-1].finish


@pytest.fixture
def there(registered: Registered) -> Iterator[Backend]:
    """Version 1 on a server of its own, under the name of its weights."""
    folder = registry.fetch(registered.client, registered.versions[0])
    tokenizer = models.load_tokenizer(folder)
    name = fingerprint(facts(registered.versions[0]))
    with backend.serving(models.load(folder).eval(), tokenizer, chat.stops(tokenizer), [name]) as server:
        yield server


@pytest.fixture
def distant(registered: Registered, there: Backend) -> Iterator[Champions]:
    registry.point(registered.client, registry.CHAMPION, registered.versions[0])
    made = Champions(NAME, rows=2, waiting=1, client=registered.client, backend=there.url)
    yield made
    made.close()


def test_the_answers_are_those_of_the_model_here(distant: Champions, champions: Champions, there: Backend) -> None:
    for number in range(4):
        assert said(distant, asked(number)) == said(champions, asked(number))
    assert there.keys == {None}
    first = there.seen[0]
    assert first["model"].startswith("version-1-") and first["temperature"] == 0
    assert not {"top_k", "seed", "stop", "repetition_penalty"} & set(first), "nothing that was not asked for"


def test_what_is_asked_for_goes_there(registered: Registered, there: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(remote.KEY, "secret-of-the-backend")
    registry.point(registered.client, registry.CHAMPION, registered.versions[0])
    made = Champions(NAME, client=registered.client, backend=there.url + "/")
    said(made, asked(1, sampling=Sampling(0.5, 0.9, 7, 1.2, seed=2**40 + 3), stop=("x", "y")))
    body = there.seen[-1]
    assert (body["temperature"], body["top_p"], body["top_k"], body["repetition_penalty"]) == (0.5, 0.9, 7, 1.2)
    assert body["stop"] == ["x", "y"] and body["seed"] == 3 and body["max_tokens"] == 12
    assert there.keys == {"Bearer secret-of-the-backend"}
    made.close()


def test_only_the_name_of_the_champions_weights_is_taken(registered: Registered, there: Backend) -> None:
    registry.point(registered.client, registry.CHAMPION, registered.versions[0])
    right, there.names = there.names, ["lathe", "version-2-abc"]
    with pytest.raises(BackendError, match=rf"serves lathe, version-2-abc, not {right[0]}.*--served-model-name"):
        Champions(NAME, client=registered.client, backend=there.url)


def test_a_new_champion_takes_over_once_the_backend_has_it(
    distant: Champions, registered: Registered, there: Backend
) -> None:
    registry.point(registered.client, registry.CHAMPION, registered.versions[1])
    assert not distant.look() and distant.current.version.number == "1"
    assert said(distant, asked(1))[2] in ("stop", "length"), "the old one goes on"
    there.names.append(fingerprint(facts(registered.versions[1])))
    looks = iter(range(100))
    assert any(distant.look() for _ in looks)
    assert distant.current.version.number == "2"
    said(distant, asked(1))
    assert there.seen[-1]["model"] == there.names[1]


@pytest.mark.parametrize("breaks", ["status", "cut", "nonsense"])
def test_a_backend_that_fails_is_an_error_and_the_next_answer_comes(
    distant: Champions, there: Backend, breaks: str
) -> None:
    there.breaks = breaks
    with pytest.raises(BackendError, match="does not answer"):
        said(distant, asked(1))
    there.breaks = ""
    assert said(distant, asked(1))[2] in ("stop", "length")
    assert distant.current.engine.load() == (0, 0)


def test_who_hangs_up_ends_the_answer_there(distant: Champions, there: Backend) -> None:
    there.seconds = 0.05
    _, found = pieces(distant.ask, asked(1, 60))
    next(found)
    found.close()  # type: ignore[attr-defined]  # a generator
    end = time.monotonic() + 20
    while not there.hung_up:
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_full_engine_refuses_and_a_closed_one_too(distant: Champions, there: Backend) -> None:
    there.seconds = 0.05
    engine = distant.current.engine
    assert isinstance(engine, RemoteEngine)
    under_way = [pieces(distant.ask, asked(number, 60)) for number in range(3)]
    assert engine.load() == (1, 2)
    with pytest.raises(BusyError):
        distant.ask(asked(9), print)
    with pytest.raises(DataError, match="no beam search"):
        distant.ask(asked(9, beams=2), print)
    engine.close()
    with pytest.raises(ClosedError):
        engine.submit(under_way[0][0].ticket.request, print)
    assert not engine.join(0.01)
    engine.cancel_all()
    assert [list(found)[-1].finish for _, found in under_way] == ["cancelled"] * 3
    assert engine.join(5)


def test_the_api_says_that_the_backend_is_away(distant: Champions, there: Backend, tmp_path: Path) -> None:
    there.breaks = "status"
    with served(distant, tmp_path / "f.jsonl") as url:
        body = {"messages": [{"role": "user", "content": "Hello?"}], "temperature": 0}
        refused = httpx.post(f"{url}/v1/chat/completions", json=body)
        assert refused.status_code == 502 and there.url not in refused.text
        assert refused.json()["error"]["type"] == "server_error"
        there.breaks = ""
        assert httpx.post(f"{url}/v1/chat/completions", json=body).status_code == 200
        with httpx.stream("POST", f"{url}/v1/chat/completions", json=body | {"stream": True}) as reply:
            events = [json.loads(line[6:]) for line in reply.iter_lines() if line.startswith("data: {")]
        assert events[-1]["choices"][0]["finish_reason"] in ("stop", "length")


def test_nobody_there_is_said_at_the_start(registered: Registered) -> None:
    registry.point(registered.client, registry.CHAMPION, registered.versions[0])
    with pytest.raises(BackendError, match="does not list its models"):
        Champions(NAME, client=registered.client, backend="http://127.0.0.1:9/v1")


def test_an_address_that_is_none_is_said_at_the_start(registered: Registered) -> None:
    registry.point(registered.client, registry.CHAMPION, registered.versions[0])
    with pytest.raises(ParamsError, match=r"'deploy\.backend' is no URL"):
        Champions(NAME, client=registered.client, backend="http://[::1/v1")


@pytest.mark.parametrize("backend", ["vllm", "ftp://x/v1", "http://", "http:// x"])
def test_what_is_no_backend_is_refused(backend: str, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(json.dumps({"deploy": {"canned": ["a"], "backend": backend}}))
    with pytest.raises(ParamsError, match="backend"):
        params.load(deploy.Params, "deploy", tmp_path / "params.yaml")
