"""OpenAI's completions, /v1/completions: plain texts or tokens that the model goes on with, and the
log-probabilities of both.
"""

import secrets
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import Field, field_validator

from stages.common.annotation.feedback import CHARACTERS_AT_MOST
from stages.common.serving.api import replies
from stages.common.serving.api.bounds import Bounds
from stages.common.serving.api.errors import CLIENT_GONE, Refusal
from stages.common.serving.api.fields import Decoding
from stages.common.serving.api.logprobs import Spelling, of_completion
from stages.common.serving.api.metrics import Observer
from stages.common.serving.engine.champions import Asked, Question
from stages.common.serving.engine.requests import Piece

if TYPE_CHECKING:
    from fastapi import Response

PROMPTS_AT_MOST = 32
LOGPROBS_AT_MOST = 20
DEFAULT_TOKENS = 16
"""Longest answer where a request does not say, as with OpenAI."""
Prompt = str | tuple[int, ...]


class CompletionRequest(Decoding):
    """A request."""

    NEUTRAL = Decoding.NEUTRAL | {"beams": (1,), "suffix": ("",)}

    prompt: list[Prompt] = Field(default=[""], min_length=1, max_length=PROMPTS_AT_MOST)
    """Texts, or tokens; each gets a choice."""
    max_tokens: int = Field(default=DEFAULT_TOKENS, ge=0)
    echo: bool = False
    """Whether the prompt stands before what follows it, with its log-probabilities."""
    logprobs: int | None = Field(default=None, ge=0, le=LOGPROBS_AT_MOST)
    """How many alternatives are told for each token."""

    @field_validator("prompt", mode="before")
    @classmethod
    def one_or_many(cls, given: Any) -> Any:
        """Read every way to write prompts as a list of them."""
        many = [given] if isinstance(given, str) or _is_tokens(given) else given
        if not isinstance(many, list) or not all(isinstance(one, str) or _is_tokens(one) for one in many):
            raise ValueError("it is a text, a list of tokens, or a list of these")
        if any(isinstance(one, str) and len(one) > CHARACTERS_AT_MOST for one in many):
            raise ValueError(f"a text has at most {CHARACTERS_AT_MOST} characters")
        return [one if isinstance(one, str) else tuple(one) or "" for one in many]


def _is_tokens(given: Any) -> bool:
    return isinstance(given, list) and all(isinstance(one, int) and not isinstance(one, bool) for one in given)


class Answer(NamedTuple):
    """A prompt, and what follows it."""

    prompt: Prompt
    asked: Asked
    pieces: AsyncIterator[Piece]


def questions(wanted: CompletionRequest, bounds: Bounds) -> list[Question]:
    """Return what is asked, with the server's defaults."""
    seed = secrets.randbits(62) if wanted.seed is None else wanted.seed
    length = min(wanted.max_tokens, bounds.max_new_tokens)
    scores_prompt = (wanted.echo and wanted.logprobs is not None) or not length
    return [
        Question(
            [],
            length,
            bounds.sampling(wanted, seed),
            wanted.stops,
            alternatives=wanted.logprobs,
            scores_prompt=scores_prompt,
            plain=prompt,
        )
        for prompt in wanted.prompt
    ]


async def ask(observer: Observer, wanted: CompletionRequest, bounds: Bounds, reader: replies.Reader) -> list[Answer]:
    """Ask for all prompts at once; `reader` ends them all."""
    found: list[Answer] = []
    for prompt, question in zip(wanted.prompt, questions(wanted, bounds), strict=True):
        asked, pieces = await observer.ask(question, "api")
        reader.follow(asked)
        found.append(Answer(prompt, asked, pieces))
    return found


class Writer:
    """Writes the choices of one reply."""

    def __init__(self, wanted: CompletionRequest, answers: Sequence[Answer]) -> None:
        self.wanted, self.answers = wanted, answers
        asked = answers[0].asked
        about = replies.about(asked, "cmpl") | {"object": "text_completion"}
        about.pop("dropped_messages")
        self.about, self.spelling = about, Spelling(asked.champion.engine)

    def choice(self, number: int, piece: Piece, offset: int | None) -> dict[str, Any]:
        """Return a choice, or a piece of it; `offset` is how long its text was before, None at its
        beginning, where the prompt is echoed.
        """
        answer, scores, begins = self.answers[number], piece.scores, offset is None
        prompt = self._text(answer.prompt) if self.wanted.echo and begins else ""
        echoed = tuple(answer.asked.ticket.prompt_scores or ()) if self.wanted.echo and begins else ()
        known = None
        if self.wanted.logprobs is not None:
            known = of_completion((*echoed, *scores), self.spelling, offset or 0, len(echoed))
        text = prompt + piece.text
        return {"index": number, "text": text, "logprobs": known, "finish_reason": piece.finish}

    def _text(self, prompt: Prompt) -> str:
        if isinstance(prompt, str):
            return prompt
        return b"".join(self.spelling.bytes_of(token) for token in prompt).decode(errors="replace")

    def usage(self, tokens: Sequence[int]) -> dict[str, int]:
        """Return how many tokens were read and made."""
        return replies.usage(sum(answer.asked.prompt_tokens for answer in self.answers), sum(tokens))


async def whole(writer: Writer) -> "Response":
    """Return all choices at once."""
    from fastapi.responses import JSONResponse

    choices, tokens = [], []
    for number, answer in enumerate(writer.answers):
        piece = Piece("", 0)
        async for following in answer.pieces:
            piece = piece.with_next(following)
        if piece.finish == "cancelled":
            raise Refusal(CLIENT_GONE, "the answer was ended")
        choices.append(writer.choice(number, piece, None))
        tokens.append(piece.tokens)
    return JSONResponse(writer.about | {"choices": choices, "usage": writer.usage(tokens)})


async def events(writer: Writer, first: Piece, reader: replies.Reader) -> AsyncIterator[str]:
    """Yield the choices as server-sent events, one after the other; all are made at once."""
    nothing = {"usage": None} if writer.wanted.wants_usage else {}
    tokens, piece = [], first
    try:
        for number, answer in enumerate(writer.answers):
            piece = piece if number == 0 else await anext(answer.pieces)
            offset: int | None = None
            while True:
                choice = writer.choice(number, piece, offset)
                offset = (offset or 0) + len(choice["text"])
                if piece.finish == "cancelled":
                    raise Refusal(503, "the server is ending")
                yield replies.event(writer.about | {"choices": [choice]} | nothing)
                if piece.finish:
                    break
                piece = await anext(answer.pieces)
            tokens.append(piece.tokens)
        if writer.wanted.wants_usage:
            yield replies.event(writer.about | {"choices": [], "usage": writer.usage(tokens)})
    except Exception as error:  # the boundary, as in the routes; the status is long sent
        yield replies.failed(error)
    finally:
        reader.close()
    yield replies.DONE
