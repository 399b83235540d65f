"""OpenAI's chat completions: /v1/chat/completions whole or streamed, /v1/models; errors in OpenAI's form."""

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from stages.common.errors import StageError
from stages.common.journal import log
from stages.common.records import message
from stages.common.sampling import Sampling
from stages.common.serving.api_types import ChatRequest
from stages.common.serving.champions import Asked, Question
from stages.common.serving.observing import Observer
from stages.common.serving.requests import BusyError, ClosedError, Piece

if TYPE_CHECKING:
    from fastapi import FastAPI, Request, Response

CLIENT_GONE = 499


class Refusal(Exception):
    """A request that gets no answer, and OpenAI's way to say it."""

    def __init__(self, status: int, what: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(what)
        self.status, self.code, self.param = status, code, param


def add_routes(app: "FastAPI", observer: Observer, max_new_tokens: int, temperature: float) -> None:
    """Add the API to `app`; the defaults of what a request leaves out are given, the first is also the most allowed."""
    from fastapi import Request
    from fastapi.responses import JSONResponse, StreamingResponse

    champions, began = observer.champions, int(time.time())

    async def complete(request: Request) -> Any:
        try:
            asked_for = await _parsed(request)
            if asked_for.model not in (None, champions.name):
                what = f"there is no model '{asked_for.model}', only '{champions.name}'"
                raise Refusal(404, what, param="model", code="model_not_found")
            asked, pieces = await observer.ask(question(asked_for, max_new_tokens, temperature), "api")
            first = await anext(pieces)  # what fails before an answer begins gets a status of its own
            about = _about(asked)
            if asked_for.stream:
                wants_usage = asked_for.stream_options is not None and asked_for.stream_options.include_usage
                events = _events(asked, first, pieces, about, wants_usage)
                return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-store"})
            return await _whole(request, asked, first, pieces, about)
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


def question(asked: ChatRequest, max_new_tokens: int, temperature: float) -> Question:
    """Return what is asked, with the server's defaults. Raises Refusal for a longer answer than may be."""
    length = asked.length or max_new_tokens
    if length > max_new_tokens:
        raise Refusal(400, f"max_tokens is {length}, at most {max_new_tokens} are allowed", param="max_tokens")
    sampling = Sampling(
        temperature=temperature if asked.temperature is None else asked.temperature,
        top_p=asked.top_p,
        top_k=asked.top_k,
        repetition_penalty=asked.repetition_penalty,
        seed=secrets.randbits(62) if asked.seed is None else asked.seed,
    )
    messages = [message(turn.spoken_by, turn.text) for turn in asked.messages]
    return Question(messages, length, sampling, asked.stops, asked.beams)


def _about(asked: Asked) -> dict[str, Any]:
    facts = asked.champion.facts()
    about = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": facts["model"]}
    return about | {"system_fingerprint": fingerprint(facts), "dropped_messages": asked.dropped}


def fingerprint(facts: dict[str, str]) -> str:
    """Return which weights answer: the version's number and the beginning of their hash."""
    return f"version-{facts['version']}-{facts['weights_sha256'][:12]}"


def _usage(asked: Asked, tokens: int) -> dict[str, int]:
    return {
        "prompt_tokens": asked.prompt_tokens,
        "completion_tokens": tokens,
        "total_tokens": asked.prompt_tokens + tokens,
    }


async def _whole(
    request: "Request", asked: Asked, first: Piece, pieces: AsyncIterator[Piece], about: dict[str, Any]
) -> "Response":
    from fastapi.responses import JSONResponse

    watch = asyncio.create_task(_until_gone(request, asked))
    try:
        found = [first, *[piece async for piece in pieces]]
    finally:
        watch.cancel()
    finish = found[-1].finish
    if finish == "cancelled":
        raise Refusal(CLIENT_GONE, "the answer was ended")
    answer = {"role": "assistant", "content": "".join(piece.text for piece in found)}
    choice = {"index": 0, "message": answer, "finish_reason": finish, "logprobs": None}
    usage = _usage(asked, found[-1].tokens)
    return JSONResponse(about | {"object": "chat.completion", "choices": [choice], "usage": usage})


async def _until_gone(request: "Request", asked: Asked) -> None:
    """End the answer when its reader hangs up."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    asked.cancel()


async def _events(
    asked: Asked, first: Piece, pieces: AsyncIterator[Piece], about: dict[str, Any], wants_usage: bool
) -> AsyncIterator[str]:
    """Yield the answer as server-sent events."""
    about = about | {"object": "chat.completion.chunk"}
    nothing = {"usage": None} if wants_usage else {}

    def chunk(delta: dict[str, str], finish: str | None = None) -> str:
        return _event(about | {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]} | nothing)

    last = first
    try:
        yield chunk({"role": "assistant", "content": first.text})
        async for last in pieces:
            if last.text:
                yield chunk({"content": last.text})
        if last.finish == "cancelled":
            raise Refusal(503, "the server is ending")
        yield chunk({}, last.finish)
        if wants_usage:
            yield _event(about | {"choices": [], "usage": _usage(asked, last.tokens)})
    except Exception as error:  # the boundary, as in `complete`; the status is long sent
        yield _event(json.loads(bytes(refused(error).body)))
    finally:
        asked.cancel()
    yield "data: [DONE]\n\n"


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"


def refused(error: Exception) -> "Response":
    """Return a failure in OpenAI's form; of one that is ours the client learns only that it happened."""
    from fastapi.responses import JSONResponse

    status, param, code, headers = 500, None, None, {}
    what = "the server failed; its log says why"
    if isinstance(error, Refusal):
        status, what, param, code = error.status, str(error), error.param, error.code
    elif isinstance(error, BusyError):
        status, what, code, headers = 429, str(error), "rate_limit_exceeded", {"Retry-After": "2"}
    elif isinstance(error, ClosedError):
        status, what, headers = 503, "the server is ending", {"Retry-After": "5"}
    elif isinstance(error, StageError):
        status, what = 400, f"{error.what}; {error.remedy}" if error.remedy else error.what
    else:
        log.error("a request failed: %s", type(error).__name__)
        log.debug("traceback", exc_info=error)
    kinds = {429: "rate_limit_error", 500: "server_error", 503: "server_error"}
    body = {"message": what, "type": kinds.get(status, "invalid_request_error"), "param": param, "code": code}
    return JSONResponse({"error": body}, status, headers)
