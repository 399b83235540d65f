"""Answers in OpenAI's form: whole, as a stream of events, and as an error; beside them which tools
were run here.
"""

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

from stages.common.runtime.errors import StageError
from stages.common.runtime.logs import log
from stages.common.serving.api.tool_calls import Call, Ran, Step, Talk
from stages.common.serving.engine.champions import Asked, fingerprint
from stages.common.serving.engine.remote import BackendError
from stages.common.serving.engine.requests import BusyError, ClosedError, Piece

if TYPE_CHECKING:
    from fastapi import Request, Response

CLIENT_GONE = 499


class Refusal(Exception):
    """A request that gets no answer, and OpenAI's way to say it."""

    def __init__(self, status: int, what: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(what)
        self.status, self.code, self.param = status, code, param


def about(asked: Asked | Talk) -> dict[str, Any]:
    """Return what every reply says of itself."""
    facts = asked.champion.facts()
    named = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": facts["model"]}
    return named | {"system_fingerprint": fingerprint(facts), "dropped_messages": asked.dropped}


def _usage(asked: Asked | Talk, tokens: int) -> dict[str, int]:
    return {
        "prompt_tokens": asked.prompt_tokens,
        "completion_tokens": tokens,
        "total_tokens": asked.prompt_tokens + tokens,
    }


async def whole(
    request: "Request", asked: Asked | Talk, first: Piece, pieces: AsyncIterator[Piece], about: dict[str, Any]
) -> "Response":
    """Return the answer in one piece; it ends when its reader hangs up."""
    from fastapi.responses import JSONResponse

    watch = asyncio.create_task(_until_gone(request, asked))
    try:
        found = [first, *[piece async for piece in pieces]]
    finally:
        watch.cancel()
    finish = found[-1].finish
    if finish == "cancelled":
        raise Refusal(CLIENT_GONE, "the answer was ended")
    answer: dict[str, Any] = {"role": "assistant", "content": "".join(piece.text for piece in found)}
    steps = [piece for piece in found if isinstance(piece, Step)]
    if calls := [call for step in steps for call in step.calls]:
        answer |= {"content": answer["content"] or None, "tool_calls": _calls(calls)}
    if ran := [one for step in steps for one in step.ran]:
        about = about | {"server_tool_results": _ran(ran)}
    choice = {"index": 0, "message": answer, "finish_reason": finish, "logprobs": None}
    usage = _usage(asked, found[-1].tokens)
    return JSONResponse(about | {"object": "chat.completion", "choices": [choice], "usage": usage})


async def _until_gone(request: "Request", asked: Asked | Talk) -> None:
    """End the answer when its reader hangs up."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    asked.cancel()


async def events(
    asked: Asked | Talk, first: Piece, pieces: AsyncIterator[Piece], about: dict[str, Any], wants_usage: bool
) -> AsyncIterator[str]:
    """Yield the answer as server-sent events."""
    about = about | {"object": "chat.completion.chunk"}
    nothing = {"usage": None} if wants_usage else {}

    def chunk(delta: dict[str, Any], finish: str | None = None, more: dict[str, Any] = nothing) -> str:
        return _event(about | {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]} | nothing | more)

    last = first
    try:
        yield chunk({"role": "assistant", "content": first.text} | _beside(first), None, _results(first))
        async for last in pieces:
            if last.text or isinstance(last, Step):
                yield chunk({"content": last.text} | _beside(last), None, _results(last))
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


def _calls(calls: Sequence[Call]) -> list[dict[str, Any]]:
    made = [{"name": call.name, "arguments": call.arguments} for call in calls]
    return [{"id": f"call_{secrets.token_hex(12)}", "type": "function", "function": function} for function in made]


def _ran(ran: Sequence[Ran]) -> list[dict[str, str]]:
    return [{"name": call.name, "arguments": call.arguments, "result": result} for call, result in ran]


def _beside(piece: Piece) -> dict[str, Any]:
    """Return what a stream's delta holds beside the text: the calls that the client is to run."""
    calls = _calls(piece.calls) if isinstance(piece, Step) else []
    return {"tool_calls": [{"index": place} | call for place, call in enumerate(calls)]} if calls else {}


def _results(piece: Piece) -> dict[str, Any]:
    """Return what a stream's event holds beside its choices: the calls that were run here."""
    return {"server_tool_results": _ran(piece.ran)} if isinstance(piece, Step) and piece.ran else {}


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"


def refused(error: Exception) -> "Response":
    """Return a failure in OpenAI's form; of one that is ours the client learns only that it
    happened.
    """
    from fastapi.responses import JSONResponse

    status, param, code, headers = 500, None, None, {}
    what = "the server failed; its log says why"
    if isinstance(error, Refusal):
        status, what, param, code = error.status, str(error), error.param, error.code
    elif isinstance(error, BusyError):
        status, what, code, headers = 429, str(error), "rate_limit_exceeded", {"Retry-After": "2"}
    elif isinstance(error, ClosedError):
        status, what, headers = 503, "the server is ending", {"Retry-After": "5"}
    elif isinstance(error, BackendError):
        status, what, headers = 502, error.what, {"Retry-After": "5"}
    elif isinstance(error, StageError):
        status, what = 400, f"{error.what}; {error.remedy}" if error.remedy else error.what
    else:
        log.error("a request failed: %s", type(error).__name__)
        log.debug("traceback", exc_info=error)
    kinds = {429: "rate_limit_error", 500: "server_error", 502: "server_error", 503: "server_error"}
    body = {"message": what, "type": kinds.get(status, "invalid_request_error"), "param": param, "code": code}
    return JSONResponse({"error": body}, status, headers)
