"""Load the champion from the registry as a server does: ask it canned prompts (check), or chat with
it (serve).

check reads reports/promote.json and the registry, writes reports/deploy.json. Run: dvc repro deploy
serve opens a chat page and an OpenAI-compatible API on loopback, and follows the champion. Run:
python -m stages.deploy serve; with LATHE_SERVE_TOKEN in the environment it answers only who knows
that token.
"""

import json
import os
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from pydantic import Field

from stages.common.core import params
from stages.common.ranking.eligibility import Wanted
from stages.common.release import promoted
from stages.common.release.promoted import Promotion
from stages.common.runtime import logs, process
from stages.common.runtime.errors import ParamsError
from stages.common.runtime.logs import log
from stages.common.serving import app as serving
from stages.common.serving.api.tools import Name, Tools
from stages.common.serving.challenger.contested import Challenging
from stages.common.serving.drift.distances import Drift
from stages.common.serving.drift.watch import Watch
from stages.common.serving.engine.champions import Champions, Question
from stages.common.serving.engine.requests import pieces
from stages.common.serving.origins import ORIGIN
from stages.common.serving.pages.inputs import Page, conversation
from stages.common.tracking import session

SERVE = "python -m stages.deploy"
TOKEN = "LATHE_SERVE_TOKEN"
TOKEN_CHARACTERS = 16
TRANSFORMERS = "transformers"


class Params(params.StageParams):
    """Section `deploy` of params.yaml."""

    canned: list[str] = Field(min_length=1)
    """Prompts whose answers the report shows; on the page they are the examples."""
    system_prompt: str = ""
    """What the model is told before a conversation; the page can change it."""
    max_new_tokens: int = Field(default=128, ge=1)
    """Longest answer."""
    temperature: float = Field(default=0.7, ge=0, le=2)
    """The server's temperature unless asked for another; the canned prompts are answered
    greedily.
    """
    backend: str = Field(default=TRANSFORMERS, pattern=r"^(transformers|https?://[^\s/]+(/\S*)?)$")
    """Who computes in `serve`: `transformers` in the server itself, or the URL of an
    OpenAI-compatible API (vLLM).
    """
    answers_at_once: int = Field(default=32, ge=1)
    """Rows of the batch; more questions wait."""
    waiting: int = Field(default=64, ge=1)
    """Questions that may wait; more are refused."""
    requests_per_minute: int = Field(default=120, ge=1)
    """Of one client."""
    poll_seconds: float = Field(default=5.0, gt=0)
    """How often the registry is asked whether there is another champion."""
    feedback: str = "feedback/page.jsonl"
    """Where likes, edits and ranks of the chat go; beside it what is said on /annotate: answers in
    demonstrations.jsonl, votes side by side in votes.jsonl.
    """
    tools: list[Name] = ["calculator", "search"]
    """What the server can do for a model that calls it, when a request or the page asks for
    that.
    """
    tool_rounds: int = Field(default=4, ge=1, le=16)
    """How often, for one answer."""
    documents: str = "data/validated/documents"
    """Folder of Parquet files that `search` reads; their passages are kept in memory."""
    challenger: Challenging = Challenging()
    """What the version with alias `challenger` does beside the champion (docs/challenger.md)."""
    drift: Drift = Drift()
    """When what people ask has drifted from the champion's own data; `serve` counts it."""


def check(
    promotion: Annotated[Path, typer.Option(help="report of the promotion")],
    report: Annotated[Path, typer.Option(help="report to write")],
) -> None:
    """Load the champion, ask it the canned prompts and write its answers."""
    settings = params.load(Params, "deploy")
    with session.start("deploy", params={"deploy": settings.model_dump()}, inputs={"promotion": promotion}) as run:
        said = promoted.read(promotion)
        number = promoted.waiting(said)
        if number:
            write(report, said, waits=True)
            found = f"no champion yet: version {number} waits for review, make review"
        else:
            champions = Champions(said.name, rows=1)
            said.check(champions.current.facts()["weights_sha256"], promotion)
            answers, seconds = ask(champions, settings)
            write(report, said, answers)
            run.table("canned", answers)
            run.metrics({"first_token_seconds": seconds})
            number = champions.current.version.number
            found = f"version {number} answers, first token after {1000 * seconds:.0f} ms"
    logs.report(found)


def serve(
    host: Annotated[str, typer.Option(help="address to listen on; 0.0.0.0 opens it to the network")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="port to listen on", min=1, max=65535)] = 7860,
    allow_host: Annotated[list[str] | None, typer.Option(help="a name it is also reached by; repeatable")] = None,
    allow_origin: Annotated[
        list[str] | None, typer.Option(help="a site whose pages may use the API, as http://localhost:3000; repeatable")
    ] = None,
    without_token: Annotated[bool, typer.Option(help="let everybody in who reaches an address of the network")] = False,
) -> None:
    """Serve the champion as chat page and API until Ctrl-C; answers under way then have 20 seconds
    to end.
    """
    settings, secret = params.load(Params, "deploy"), token(host, without_token)
    allowed = origins(allow_origin or [])
    name = promoted.registered_name()
    with serving.listening(host, port, elsewhere(port + 1)) as listener:
        backend = "" if settings.backend == TRANSFORMERS else settings.backend
        champions = following(name, settings, backend)
        hosts = [*serving.LOOPBACK, host, *(allow_host or [])]
        drift = Watch(champions, settings.drift) if settings.drift.window else None
        app = serving.build(champions, page(settings), hosts, secret, settings.requests_per_minute, allowed, drift)
        champions.follow(settings.poll_seconds)
        version = champions.current.version.number
        logs.report(f"version {version} of {name} chats at http://{host}:{port}  (Ctrl-C ends it)")
        if drift:
            drift.start()
        try:
            serving.run(app, champions, listener)
        finally:
            if drift:
                drift.close()


def following(name: str, settings: Params, backend: str = "") -> Champions:
    """Return the champion in memory, with a challenger beside it where params.yaml says so."""
    if settings.challenger.mode == "off":
        return Champions(name, settings.answers_at_once, settings.waiting, backend=backend)
    if backend:
        remedy = f"deploy.backend: {TRANSFORMERS}, or deploy.challenger.mode: off"
        what = "a challenger needs the weights here: a backend serves one model"
        raise ParamsError(what, where="params.yaml", remedy=remedy)
    return settings.challenger.contested(name, settings.answers_at_once, settings.waiting)


def elsewhere(port: int) -> str:
    """Return the command that was given, with another port."""
    said = process.continuation[0] if process.continuation else f"{SERVE} serve"
    return f"{re.sub(r' --port[ =][0-9]+', '', said)} --port {port}"


def token(host: str, without_token: bool) -> str:
    """Return the token that is asked for, "" for none. Raises ParamsError where one is needed, or
    easily guessed.
    """
    given = os.environ.get(TOKEN, "")
    if given and len(given) < TOKEN_CHARACTERS:
        raise ParamsError(f"it has {len(given)} characters", where=TOKEN, remedy=f"take {TOKEN_CHARACTERS} or more")
    if not given and not without_token and host not in serving.LOOPBACK:
        remedy = f"set {TOKEN}, or add --without-token if something else keeps strangers out"
        raise ParamsError("everybody who reaches this address could use the model", where=host, remedy=remedy)
    return given


def origins(given: Sequence[str]) -> list[str]:
    """Return the sites as browsers name them. Raises ParamsError for what is no site's name: `*`
    would let every page in that a browser of this machine shows.
    """
    for one in given:
        if not ORIGIN.fullmatch(one):
            raise ParamsError("it is no site", where=f"--allow-origin {one}", remedy="name it as http://localhost:3000")
    return [one.lower() for one in given]


def ask(champions: Champions, settings: Params) -> tuple[list[dict[str, str]], float]:
    """Return the canned prompts with their greedy answers, and the longest wait for a first token,
    in seconds.
    """
    rows, longest = [], 0.0
    for prompt in settings.canned:
        messages = conversation(prompt, [], settings.system_prompt)
        started, text, waited = time.monotonic(), "", None
        for piece in pieces(champions.ask, Question(messages, settings.max_new_tokens))[1]:
            waited = waited or time.monotonic() - started
            text += piece.text
        longest = max(longest, waited or 0.0)
        rows.append({"prompt": prompt, "answer": text})
        log.info("%s -> %s", prompt, " ".join(text.split()))
    return rows, longest


def write(path: Path, said: Promotion, answers: Sequence[dict[str, str]] = (), waits: bool = False) -> None:
    """Write the report: the same on every machine. `waits`: the weights wait for a person, and
    nobody answers yet.
    """
    facts: dict[str, object] = {"name": said.name, "weights_sha256": said.deployed_sha256}
    facts |= {"review": "pending"} if waits else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps(facts | {"answers": list(answers)}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )


def page(settings: Params) -> Page:
    """Return what the chat page offers."""
    return Page(
        system_prompt=settings.system_prompt,
        temperature=settings.temperature,
        max_new_tokens=settings.max_new_tokens,
        examples=tuple(settings.canned),
        feedback=Path(settings.feedback),
        tools=Tools(settings.tools, Path(settings.documents)),
        tool_rounds=settings.tool_rounds,
        wanted=Wanted.of_params(),
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:  # its own name: serving must not hold the stage's lock
        process.run("serve", check, serve, again=SERVE)
    else:
        process.run("deploy", check, serve)
