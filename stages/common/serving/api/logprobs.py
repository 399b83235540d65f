"""Log-probabilities in OpenAI's two forms: of chat completions a list of tokens, of completions
columns.
"""

import codecs
from collections.abc import Sequence
from typing import Any

from stages.common.runtime.errors import DataError
from stages.common.serving.engine.engine import Engine
from stages.common.serving.engine.remote import RemoteEngine
from stages.common.serving.engine.scores import Score

LEAST = -9999.0
"""Stands for minus infinity, which JSON does not have."""


class Spelling:
    """How one model's tokens are written."""

    def __init__(self, engine: Engine | RemoteEngine) -> None:
        self._engine = engine
        self._known: dict[int, bytes] = {}
        self._special = frozenset(at for at, token in engine.tokenizer.added_tokens_decoder.items() if token.special)

    def shown(self, token: int) -> bytes:
        """Return what an answer's text has of a token: of a special one nothing."""
        return b"" if token in self._special else self.bytes_of(token)

    def bytes_of(self, token: int) -> bytes:
        """Return what a token stands for; parts of characters too."""
        if token not in self._known:
            self._known[token] = self._spell(token)
        return self._known[token]

    def _spell(self, token: int) -> bytes:
        if isinstance(self._engine, Engine):
            try:
                return bytes(self._engine.grammars.tokens.decode_bytes([token]))
            except DataError:  # a tokenizer without the fast implementation
                pass
        return str(self._engine.tokenizer.decode([token])).encode()

    def text_of(self, token: int) -> str:
        """Return a token as text, of one that is a part of a character `bytes:` and its bytes."""
        spelt = self.bytes_of(token)
        try:
            return spelt.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in spelt)


def of_chat(scores: Sequence[Score], spelling: Spelling) -> dict[str, Any]:
    """Return `choices[].logprobs` of a chat completion: of the tokens of its text."""

    def one(token: int, logprob: float) -> dict[str, Any]:
        spelt = list(spelling.bytes_of(token))
        return {"token": spelling.text_of(token), "logprob": max(logprob, LEAST), "bytes": spelt}

    content = [
        one(score.token, score.logprob or 0.0) | {"top_logprobs": [one(*other) for other in score.top]}
        for score in scores
        if not score.ends
    ]
    return {"content": content, "refusal": None}


def of_completion(scores: Sequence[Score], spelling: Spelling, offset: int = 0, prompt: int = 0) -> dict[str, Any]:
    """Return `choices[].logprobs` of a completion whose tokens begin `offset` characters behind the
    beginning of its text, the first `prompt` of them an echoed prompt's; the token that ended it is
    the last.
    """
    reader, offsets = codecs.getincrementaldecoder("utf-8")("replace"), []
    for place, score in enumerate(scores):
        offsets.append(offset)
        spelt = spelling.bytes_of(score.token) if place < prompt else spelling.shown(score.token)
        offset += 0 if score.ends else len(reader.decode(spelt))
    return {
        "tokens": [spelling.text_of(score.token) for score in scores],
        "token_logprobs": [None if score.logprob is None else max(score.logprob, LEAST) for score in scores],
        "top_logprobs": [_tops(score, spelling) for score in scores],
        "text_offset": offsets,
    }


def _tops(score: Score, spelling: Spelling) -> dict[str, float] | None:
    """Return the alternatives and the token itself; of two that read alike the more probable."""
    if score.logprob is None:
        return None
    found: dict[str, float] = {}
    for token, logprob in (*score.top, (score.token, score.logprob)):
        found.setdefault(spelling.text_of(token), max(logprob, LEAST))
    return found
