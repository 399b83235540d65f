"""Chat answers in OpenAI's form, whole and as a stream of events; beside them which tools were run
here.
"""

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

from stages.common.serving.api.errors import CLIENT_GONE, Refusal, refused
from stages.common.serving.api.logprobs import Spelling, of_chat
from stages.common.serving.api.tool_calls import Call, Ran, Step, Talk
from stages.common.serving.engine.champions import Asked, fingerprint
from stages.common.serving.engine.requests import Piece
from stages.common.serving.engine.scores import Score

if TYPE_CHECKING:
    from fastapi import Request, Response

DONE = "data: [DONE]\n\n"


def about(asked: Asked | Talk, kind: str = "chatcmpl") -> dict[str, Any]:
    """Return what every reply says of itself."""
    facts = asked.champion.facts()
    named = {"id": f"{kind}-{secrets.token_hex(12)}", "created": int(time.time()), "model": facts["model"]}
    return named | {"system_fingerprint": fingerprint(facts), "dropped_messages": asked.dropped}


def usage(prompt: int, tokens: int) -> dict[str, int]:
    """Return how many tokens were read and made."""
    return {"prompt_tokens": prompt, "completion_tokens": tokens, "total_tokens": prompt + tokens}


class Reader:
    """Who waits for an answer: when he hangs up it ends, also before it has begun."""

    def __init__(self, request: "Request") -> None:
        self._asked: list[Asked | Talk] = []
        self._is_gone = False
        self._watch = asyncio.create_task(self._until_gone(request))

    async def _until_gone(self, request: "Request") -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        self._is_gone = True
        for asked in self._asked:
            asked.cancel()

    def follow(self, asked: Asked | Talk) -> None:
        """End this with the others."""
        self._asked.append(asked)
        if self._is_gone:
            asked.cancel()

    def close(self) -> None:
        """End what is still under way, and wait for nobody any more."""
        self._watch.cancel()
        for asked in self._asked:
            asked.cancel()


async def whole(asked: Asked | Talk, first: Piece, pieces: AsyncIterator[Piece], about: dict[str, Any]) -> "Response":
    """Return the answer in one piece."""
    from fastapi.responses import JSONResponse

    found = [first, *[piece async for piece in pieces]]
    finish = found[-1].finish
    if finish == "cancelled":
        raise Refusal(CLIENT_GONE, "the answer was ended")
    answer: dict[str, Any] = {"role": "assistant", "content": "".join(piece.text for piece in found)}
    steps = [piece for piece in found if isinstance(piece, Step)]
    if calls := [call for step in steps for call in step.calls]:
        answer |= {"content": answer["content"] or None, "tool_calls": _calls(calls)}
    if ran := [one for step in steps for one in step.ran]:
        about = about | {"server_tool_results": _ran(ran)}
    scores = [score for piece in found for score in piece.scores]
    choice = {"index": 0, "message": answer, "finish_reason": finish, "logprobs": _logprobs(asked, scores)}
    return JSONResponse(
        about
        | {"object": "chat.completion", "choices": [choice], "usage": usage(asked.prompt_tokens, found[-1].tokens)}
    )


def _logprobs(asked: Asked | Talk, scores: Sequence[Score]) -> dict[str, Any] | None:
    """Return the log-probabilities of tokens; None where none are asked for."""
    return of_chat(scores, Spelling(asked.champion.engine)) if scores else None


async def events(
    asked: Asked | Talk,
    first: Piece,
    pieces: AsyncIterator[Piece],
    about: dict[str, Any],
    wants_usage: bool,
    reader: Reader,
) -> AsyncIterator[str]:
    """Yield the answer as server-sent events."""
    about = about | {"object": "chat.completion.chunk"}
    nothing = {"usage": None} if wants_usage else {}

    def chunk(delta: dict[str, Any], finish: str | None, piece: Piece) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": _logprobs(asked, piece.scores)}
        return event(about | {"choices": [choice]} | nothing | _results(piece))

    last = first
    try:
        yield chunk({"role": "assistant", "content": first.text} | _beside(first), None, first)
        async for last in pieces:
            if last.text or last.scores or isinstance(last, Step):
                yield chunk({"content": last.text} | _beside(last), None, last)
        if last.finish == "cancelled":
            raise Refusal(503, "the server is ending")
        yield chunk({}, last.finish, Piece("", 0))
        if wants_usage:
            yield event(about | {"choices": [], "usage": usage(asked.prompt_tokens, last.tokens)})
    except Exception as error:  # the boundary, as in `complete`; the status is long sent
        yield failed(error)
    finally:
        reader.close()
    yield DONE


def failed(error: Exception) -> str:
    """Return the event that says how an answer failed."""
    return event(json.loads(bytes(refused(error).body)))


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


def event(content: dict[str, Any]) -> str:
    """Return a server-sent event."""
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"
