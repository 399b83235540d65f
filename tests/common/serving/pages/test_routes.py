"""The pages' own calls, sent by hand: behind the same guards, and whatever they hold, nothing is
kept or given away.
"""

import json
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import httpx
import pytest

from stages.common.annotation import ranking_store
from stages.common.core import records
from stages.common.ranking import samples
from stages.common.serving.engine.champions import Champions
from stages.common.text.parquet_writer import Shards
from tests.common.serving.conftest import served

JUNK: list[Any] = ["../../etc/passwd", {"path": "/etc/passwd"}, None, -1, [[1e300]], "{{ 7*7 }}", "\x00<script>", True]
TOKEN = "a token of some length"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("routes")
    row = {
        "id": "prompts.jsonl:1",
        "source": "prompts.jsonl",
        "messages": [records.message("user", "Where?")],
        "reference": None,
        "category": None,
        "responses": ["Here.", "There."],
        "cut": [False] * 2,
    }
    with Shards({folder / "samples/r1" / split: samples.SCHEMA for split in ("train", "validation")}) as shards:
        shards.add(folder / "samples/r1/train", row)
        shards.add(folder / "samples/r1/validation", row | {"id": "prompts.jsonl:2"})
    return folder


@pytest.fixture(scope="module")
def client(lasting: Champions, work: Path) -> Iterator[httpx.Client]:
    """Knows the token."""
    page = work / "feedback/page.jsonl"
    folders = work / "samples", work / "annotations"
    with (
        served(lasting, page, TOKEN, samples=folders[0], annotations=folders[1]) as url,
        httpx.Client(base_url=url, timeout=30, headers={"Authorization": f"Bearer {TOKEN}"}) as known,
    ):
        yield known


def call(client: httpx.Client, number: int, data: list[Any], session: str) -> dict[str, Any]:
    """Call a function of the page as its own script does; return what it says at the end, {} when
    it is refused.
    """
    body = {"data": data, "fn_index": number, "session_hash": session, "event_data": {"index": 1, "value": "a"}}
    if client.post("/gradio_api/queue/join", json=body).status_code != 200:
        return {}
    with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as stream:
        for line in stream.iter_lines():
            event = json.loads(line.removeprefix("data: ") or "{}")
            if event.get("msg") in ("process_completed", "unexpected_error"):
                return dict(event)
    return {}


def functions(client: httpx.Client) -> list[dict[str, Any]]:
    """Return those that run on the server."""
    return [one for one in client.get("/config").json()["dependencies"] if one["backend_fn"]]


def labelled(client: httpx.Client, label: str) -> int:
    """Return the function that clicking a button calls."""
    config = client.get("/config").json()
    (button,) = [one["id"] for one in config["components"] if one["props"].get("value") == label]
    (found,) = [one["id"] for one in config["dependencies"] if [button, "click"] in one["targets"]]
    return int(found)


def written(work: Path) -> list[Path]:
    return [path for folder in ("feedback", "annotations") for path in (work / folder).rglob("*")]


def test_both_pages_ask_for_the_token_and_so_do_their_calls(client: httpx.Client) -> None:
    assert {client.get(path).status_code for path in ("/", "/annotate", "/config")} == {200}
    url = str(client.base_url)
    for path in ("/annotate", "/annotate/", "/config"):
        assert httpx.get(url + path).status_code == 401
    assert httpx.post(f"{url}/gradio_api/queue/join", json={"data": [], "fn_index": 0}).status_code == 401
    foreign = {"Origin": "https://elsewhere.example"}
    assert client.post("/gradio_api/queue/join", json={"data": []}, headers=foreign).status_code == 403


def test_no_call_with_junk_keeps_or_tells_anything(client: httpx.Client, work: Path) -> None:
    for one in functions(client):
        for start in (0, 3):
            junk = list(islice(cycle(JUNK), start, start + len(one["inputs"])))
            said = json.dumps(call(client, one["id"], junk, f"junk-{one['id']}"))
            assert "root:" not in said and "Traceback" not in said and "site-packages" not in said
    assert written(work) == []
    assert client.get("/healthz").status_code == 200


def test_ranks_are_kept_only_of_who_sits_there_and_of_what_is_shown(client: httpx.Client, work: Path) -> None:
    for one in functions(client):
        if [target for target in one["targets"] if target[1] == "load"]:
            call(client, one["id"], [], "ada")  # as a browser does that opens the page
    begin, save = labelled(client, "Begin"), labelled(client, "Save and next")
    ranks: list[Any] = [None, 2, 1, *[None] * 7, *[["rude"]] * 9]
    unranked: list[Any] = [None] * 10 + [[]] * 9
    assert "type your name first" in json.dumps(call(client, save, unranked, "nobody"))
    assert call(client, save, ranks, "nobody")["success"] is False
    for round, who in (("../samples/r1", "ada"), ("r1", "<script>"), ("", "ada")):
        assert call(client, begin, [who, round], "nobody")["success"] is False
    assert call(client, begin, ["ada", "r1"], "ada")["success"] is True
    forged = {"round": "../../x", "who": "eve", "to_rank": "prompts.jsonl:1"}
    assert call(client, save, [forged, 9, 1, *ranks[3:]], "ada")["success"] is False
    assert written(work) == []
    assert call(client, save, [forged, *ranks[1:]], "ada")["success"] is True
    (kept,) = ranking_store.read(work / "annotations/r1.jsonl")
    assert (kept.annotator, kept.ranks, kept.marks) == ("ada", [2, 1], [["rude"], ["rude"]])
    assert sorted(kept.responses) == ["Here.", "There."]
