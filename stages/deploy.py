"""Load the champion from the registry as a server does: ask it canned prompts (check), or chat with it (serve).

check reads reports/promote.json and the registry, writes reports/deploy.json. Run: dvc repro deploy
serve opens a chat page on loopback. Run: python -m stages.deploy serve
"""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import BaseModel, Field, ValidationError

from stages.common import chat_page, journal, models, params, process, records, registry, store, streaming, tracking
from stages.common.errors import DataError, ParamsError
from stages.common.journal import log

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SERVE = "python -m stages.deploy serve"


class Params(params.StageParams):
    """Section `deploy` of params.yaml."""

    canned: list[str] = Field(min_length=1)
    """Prompts whose answers the report shows; on the page they are the examples."""
    system_prompt: str = ""
    """What the model is told before a conversation; the page can change it."""
    max_new_tokens: int = Field(default=128, ge=1)
    """Longest answer."""
    temperature: float = Field(default=0.7, ge=0, le=2)
    """The page's temperature at first; the canned prompts are answered greedily."""


class Promotion(BaseModel):
    """What deploy needs of the promotion's report."""

    name: str
    champion_sha256: str | None
    """Weights of the champion after the decision; None when there is none."""
    reason: str


@dataclass(frozen=True)
class Champion:
    """The champion in memory."""

    version: registry.Version
    policy: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"


def check(
    promotion: Annotated[Path, typer.Option(help="report of the promotion")],
    report: Annotated[Path, typer.Option(help="report to write")],
) -> None:
    """Load the champion, ask it the canned prompts and write its answers."""
    settings = params.load(Params, "deploy")
    with tracking.start("deploy", params={"deploy": settings.model_dump()}, inputs={"promotion": promotion}) as run:
        promoted = read(promotion)
        champion = same_weights(load(promoted.name), promoted, promotion)
        answers, seconds = ask(champion, settings)
        write(report, promoted, answers)
        run.table("canned", answers)
        run.metrics({"first_token_seconds": seconds})
    journal.report(f"version {champion.version.number} answers, first token after {1000 * seconds:.0f} ms")


def serve(
    host: Annotated[str, typer.Option(help="address to listen on; 0.0.0.0 opens it to the network")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="port to listen on", min=1, max=65535)] = 7860,
    allow_host: Annotated[list[str] | None, typer.Option(help="a name it is also reached by; repeatable")] = None,
) -> None:
    """Serve the champion as a chat page until Ctrl-C."""
    settings = params.load(Params, "deploy")
    name = registered_name()
    with chat_page.listening(host, port, SERVE) as listener:
        champion = load(name)
        app = chat_page.build(
            partial(answer, champion), page(champion, settings), [*chat_page.LOOPBACK, host, *(allow_host or [])]
        )
        journal.report(f"version {champion.version.number} of {name} chats at http://{host}:{port}  (Ctrl-C ends it)")
        chat_page.run_server(app, listener)


def read(path: Path) -> Promotion:
    """Return the promotion's report. Raises DataError when it is missing, malformed or names no champion."""
    try:
        promoted = Promotion.model_validate_json(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValidationError) as error:
        what = f"not a promotion's report ({str(error).splitlines()[0]})"
        raise DataError(what, where=path, remedy="run `dvc repro -f promote`") from error
    if promoted.champion_sha256 is None:
        raise DataError(f"there is no champion: {promoted.reason}", where=path, remedy="train a better candidate")
    return promoted


def registered_name() -> str:
    """Return `promote.name` of params.yaml. Raises ParamsError."""
    name = (params.read_yaml(params.PARAMS_FILE).get("promote") or {}).get("name")
    if not name:
        raise ParamsError("missing key 'promote.name'", where=params.PARAMS_FILE)
    return str(name)


def load(name: str) -> Champion:
    """Return the champion of `name`, its files verified before a byte of them is used."""
    version, folder = registry.champion(store.client(), name)
    policy = models.load(folder)
    return Champion(version, policy.to(models.device()), models.load_tokenizer(folder))


def same_weights(champion: Champion, promoted: Promotion, report: Path) -> Champion:
    """Return the champion. Raises DataError when it is not the one of the promotion's report."""
    held = champion.version.tags["weights_sha256"]
    if held != promoted.champion_sha256:
        what = f"the champion's weights are {str(promoted.champion_sha256)[:12]} here and {held[:12]} in the registry"
        raise DataError(what, where=report, remedy="run `dvc repro -f promote`")
    return champion


def ask(champion: Champion, settings: Params) -> tuple[list[dict[str, str]], float]:
    """Return the canned prompts with their greedy answers, and the longest wait for a first token, in seconds."""
    rows, longest = [], 0.0
    for prompt in settings.canned:
        messages = chat_page.conversation(prompt, [], settings.system_prompt)
        started, text, waited = time.monotonic(), "", None
        for piece in answer(champion, messages, 0.0, settings.max_new_tokens):
            waited = waited or time.monotonic() - started
            text += piece
        longest = max(longest, waited or 0.0)
        rows.append({"prompt": prompt, "answer": text})
        log.info("%s -> %s", prompt, " ".join(text.split()))
    return rows, longest


def answer(champion: Champion, messages: Sequence[records.Record], temperature: float, max_new_tokens: int) -> Any:
    """Yield the champion's answer piece by piece."""
    return streaming.stream(
        champion.policy, champion.tokenizer, messages, temperature=temperature, max_new_tokens=max_new_tokens
    )


def write(path: Path, promoted: Promotion, answers: list[dict[str, str]]) -> None:
    """Write the report: the same on every machine."""
    facts = {"name": promoted.name, "weights_sha256": promoted.champion_sha256, "answers": answers}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def page(champion: Champion, settings: Params) -> chat_page.Page:
    """Return what the chat page says of the champion and offers."""
    tags, version = champion.version.tags, champion.version
    facts = {"model": version.name, "version": version.number, "weights_sha256": tags["weights_sha256"]}
    return chat_page.Page(
        title=version.name,
        description=f"Version {version.number}: {tags['candidate']}, {tags['metric']} {tags['value']}",
        system_prompt=settings.system_prompt,
        temperature=settings.temperature,
        max_new_tokens=settings.max_new_tokens,
        examples=tuple(settings.canned),
        facts=facts,
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:  # its own name: serving must not hold the stage's lock
        process.run("serve", check, serve, again=SERVE)
    else:
        process.run("deploy", check, serve)
