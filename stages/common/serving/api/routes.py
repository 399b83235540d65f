"""OpenAI's API: /v1/chat/completions and /v1/completions whole or streamed, /v1/models; errors in
OpenAI's form.
"""

import secrets
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from stages.common.core.records import message
from stages.common.serving.api import completions, moss_commands, replies, tool_calls
from stages.common.serving.api.bounds import Bounds
from stages.common.serving.api.completions import CompletionRequest
from stages.common.serving.api.errors import Refusal, invalid, refused
from stages.common.serving.api.fields import Decoding
from stages.common.serving.api.metrics import Observer
from stages.common.serving.api.schema import ChatRequest
from stages.common.serving.api.tools import Tools
from stages.common.serving.engine.champions import fingerprint

if TYPE_CHECKING:
    from fastapi import FastAPI, Request
    from transformers import PreTrainedTokenizerBase

W = TypeVar("W", bound=Decoding)


def add_routes(app: "FastAPI", observer: Observer, bounds: Bounds) -> None:
    """Add the API to `app`."""
    from fastapi import Request
    from fastapi.responses import JSONResponse, StreamingResponse

    champions, began = observer.champions, int(time.time())

    def streamed(events: Any) -> Any:
        return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-store"})

    async def chat(wanted: ChatRequest, reader: replies.Reader) -> Any:
        wanted = with_switches(wanted, bounds.tools, champions.current.engine.tokenizer)
        named = wanted.server_tools
        run = partial(bounds.tools.run, allowed=named) if named else None
        question = bounds.question(wanted, secrets.randbits(62) if wanted.seed is None else wanted.seed)
        asked, pieces = await tool_calls.ask(observer, question, "api", run, bounds.tool_rounds)
        reader.follow(asked)
        first = await anext(pieces)  # what fails before an answer begins gets a status of its own
        about = replies.about(asked)
        if wanted.stream:
            return streamed(replies.events(asked, first, pieces, about, wanted.wants_usage, reader))
        return await replies.whole(asked, first, pieces, about)

    async def go_on(wanted: CompletionRequest, reader: replies.Reader) -> Any:
        answers = await completions.ask(observer, wanted, bounds, reader)
        writer = completions.Writer(wanted, answers)
        if wanted.stream:
            return streamed(completions.events(writer, await anext(answers[0].pieces), reader))
        return await completions.whole(writer)

    async def models(request: Request) -> Any:
        wanted = request.path_params.get("model", champions.name)
        if wanted != champions.name:
            return refused(Refusal(404, f"there is no model '{wanted}'", param="model", code="model_not_found"))
        one = {"id": champions.name, "object": "model", "created": began, "owned_by": "lathe"}
        one |= {"fingerprint": fingerprint(champions.current.facts())}
        return JSONResponse(one if "model" in request.path_params else {"object": "list", "data": [one]})

    async def unknown(request: Request) -> Any:
        return refused(Refusal(404, f"there is no {request.method} {request.url.path}", code="unknown_url"))

    async def chat_completions(request: Request) -> Any:
        return await _answered(request, ChatRequest, chat, champions.name)

    async def text_completions(request: Request) -> Any:
        return await _answered(request, CompletionRequest, go_on, champions.name)

    app.add_route("/v1/chat/completions", chat_completions, methods=["POST"])
    app.add_route("/v1/completions", text_completions, methods=["POST"])
    app.add_route("/v1/models", models, methods=["GET"])
    app.add_route("/v1/models/{model:path}", models, methods=["GET"])
    app.add_route("/v1/{rest:path}", unknown, methods=["GET", "POST", "PUT", "PATCH", "DELETE"])


async def _answered(
    request: "Request", schema: type[W], answer: Callable[[W, replies.Reader], Awaitable[Any]], served: str
) -> Any:
    """Return the reply to a request of `schema`. From when it is read its reader is watched; a
    stream's reader until it ends.
    """
    from fastapi.responses import StreamingResponse

    reader = None
    try:
        wanted = await _parsed(request, schema)
        if wanted.model not in (None, served):
            what = f"there is no model '{wanted.model}', only '{served}'"
            raise Refusal(404, what, param="model", code="model_not_found")
        reader = replies.Reader(request)
        reply = await answer(wanted, reader)
    except Exception as error:  # the boundary: a client gets OpenAI's form whatever happens
        reply = refused(error)
    if reader and not isinstance(reply, StreamingResponse):
        reader.close()
    return reply


async def _parsed(request: "Request", schema: type[W]) -> W:
    from starlette.requests import ClientDisconnect

    try:
        return schema.model_validate_json(await request.body())
    except ClientDisconnect as error:  # gone, or cut off by a guard
        raise Refusal(413, "the request is too large, or came too slowly") from error
    except ValidationError as error:
        raise invalid(error, schema) from error


def with_switches(asked: ChatRequest, tools: Tools, tokenizer: "PreTrainedTokenizerBase") -> ChatRequest:
    """Return the request with the server's tools that its system turn switches on, where MOSS
    answers and no tools are named beside it.
    """
    if asked.tools or asked.server_tools or asked.tool_choice or not moss_commands.speaks(tokenizer):
        return asked
    first = [message(turn.spoken_by, turn.text) for turn in asked.messages[:1]]
    names = moss_commands.switched_on(first, tools.names)
    return asked.model_copy(update={"server_tools": names}) if names else asked
