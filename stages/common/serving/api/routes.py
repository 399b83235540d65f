"""OpenAI's chat completions: /v1/chat/completions whole or streamed, /v1/models; errors in OpenAI's
form.
"""

import json
import secrets
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from stages.common.core.records import message
from stages.common.generation.sampling import Sampling
from stages.common.serving.api import moss_commands, replies, tool_calls
from stages.common.serving.api.metrics import Observer
from stages.common.serving.api.replies import Refusal, refused
from stages.common.serving.api.schema import ChatRequest
from stages.common.serving.api.tools import Tools
from stages.common.serving.engine.champions import Question, fingerprint

if TYPE_CHECKING:
    from fastapi import FastAPI, Request
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Bounds:
    """What a request may ask for, and what it gets where it leaves that out."""

    max_new_tokens: int
    """Longest answer; also the default."""
    temperature: float
    tools: Tools
    """The server's own."""
    tool_rounds: int
    """How often tools are run for one answer."""


def add_routes(app: "FastAPI", observer: Observer, bounds: Bounds) -> None:
    """Add the API to `app`."""
    from fastapi import Request
    from fastapi.responses import JSONResponse, StreamingResponse

    champions, began = observer.champions, int(time.time())

    async def complete(request: Request) -> Any:
        try:
            asked_for = await _parsed(request)
            _known(asked_for.model, champions.name)
            asked_for = with_switches(asked_for, bounds.tools, champions.current.engine.tokenizer)
            named = asked_for.server_tools
            run = partial(bounds.tools.run, allowed=named) if named else None
            asked, pieces = await tool_calls.ask(observer, question(asked_for, bounds), "api", run, bounds.tool_rounds)
            first = await anext(pieces)  # what fails before an answer begins gets a status of its own
            about = replies.about(asked)
            if asked_for.stream:
                wants_usage = asked_for.stream_options is not None and asked_for.stream_options.include_usage
                events = replies.events(asked, first, pieces, about, wants_usage)
                return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-store"})
            return await replies.whole(request, asked, first, pieces, about)
        except Exception as error:  # the boundary: a client gets OpenAI's form whatever happens
            return refused(error)

    async def models(request: Request) -> Any:
        wanted = request.path_params.get("model", champions.name)
        if wanted != champions.name:
            return refused(Refusal(404, f"there is no model '{wanted}'", param="model", code="model_not_found"))
        one = {"id": champions.name, "object": "model", "created": began, "owned_by": "lathe"}
        one |= {"fingerprint": fingerprint(champions.current.facts())}
        return JSONResponse(one if "model" in request.path_params else {"object": "list", "data": [one]})

    async def unknown(request: Request) -> Any:
        return refused(Refusal(404, f"there is no {request.method} {request.url.path}", code="unknown_url"))

    app.add_route("/v1/chat/completions", complete, methods=["POST"])
    app.add_route("/v1/models", models, methods=["GET"])
    app.add_route("/v1/models/{model:path}", models, methods=["GET"])
    app.add_route("/v1/{rest:path}", unknown, methods=["GET", "POST", "PUT", "PATCH", "DELETE"])


def _known(model: str | None, served: str) -> None:
    if model not in (None, served):
        what = f"there is no model '{model}', only '{served}'"
        raise Refusal(404, what, param="model", code="model_not_found")


async def _parsed(request: "Request") -> ChatRequest:
    from starlette.requests import ClientDisconnect

    try:
        return ChatRequest.model_validate_json(await request.body())
    except ClientDisconnect as error:  # gone, or cut off by a guard
        raise Refusal(413, "the request is too large, or came too slowly") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        param = ".".join(str(part) for part in first["loc"]) or None
        what = f"{param}: {first['msg']}" if param else first["msg"]
        raise Refusal(400, what, param=param, code=first["type"]) from error


def with_switches(asked: ChatRequest, tools: Tools, tokenizer: "PreTrainedTokenizerBase") -> ChatRequest:
    """Return the request with the server's tools that its system turn switches on, where MOSS
    answers and no tools are named beside it.
    """
    if asked.tools or asked.server_tools or asked.tool_choice or not moss_commands.speaks(tokenizer):
        return asked
    first = [message(turn.spoken_by, turn.text) for turn in asked.messages[:1]]
    names = moss_commands.switched_on(first, tools.names)
    return asked.model_copy(update={"server_tools": names}) if names else asked


def question(asked: ChatRequest, bounds: Bounds) -> Question:
    """Return what is asked, with the server's defaults. Raises Refusal for what is beyond its
    bounds.
    """
    length = asked.length or bounds.max_new_tokens
    if length > bounds.max_new_tokens:
        raise Refusal(400, f"max_tokens is {length}, at most {bounds.max_new_tokens} are allowed", param="max_tokens")
    sampling = Sampling(
        temperature=bounds.temperature if asked.temperature is None else asked.temperature,
        top_p=asked.top_p,
        top_k=asked.top_k,
        repetition_penalty=asked.repetition_penalty,
        seed=secrets.randbits(62) if asked.seed is None else asked.seed,
    )
    messages = [message(turn.spoken_by, turn.text, tool_calls=turn.calls) for turn in asked.messages]
    return Question(messages, length, sampling, asked.stops, asked.beams, _offered(asked, bounds.tools))


def _offered(asked: ChatRequest, tools: Tools) -> str | None:
    """Return the tools that the model is told of, as JSON. Raises Refusal for one that there is
    not.
    """
    if asked.tools and asked.server_tools:
        raise Refusal(400, "either tools of the client or of the server, not both", param="server_tools")
    unknown = [name for name in asked.server_tools or [] if name not in tools.names]
    if unknown:
        there = ", ".join(tools.names) or "none"
        raise Refusal(400, f"there is no tool '{unknown[0]}' here; there are: {there}", param="server_tools")
    if asked.tool_choice == "none" or not (asked.tools or asked.server_tools):
        return None
    if asked.server_tools:
        return tools.schemas(asked.server_tools)
    return json.dumps([tool.model_dump(exclude_none=True) for tool in asked.tools or []], ensure_ascii=False)
