"""Structured decoding: of the next tokens, those that keep an answer on a JSON schema.

llguidance follows each answer through the schema's grammar and says which tokens may come next;
the others' logits become -inf before a token is chosen. What stops an answer may come only where
the JSON is whole, so an answer that was not cut is valid. `Grammars` is of one tokenizer,
`Constraint` of one call of `generator.decode`.
"""

import json
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.common.generation import sampling as sampling_rules
from stages.common.generation.sampling import Sampling
from stages.common.runtime.errors import DataError, ParamsError

if TYPE_CHECKING:
    import torch
    from llguidance import LLMatcher
    from transformers import PreTrainedTokenizerBase

COMPACT: Any = {"whitespace_flexible": False}
"""Written as `json.dumps` does: free spaces are where a weak model never ends."""
KEPT = 256
"""Grammars that are kept for the next answer on them; a server is shown new ones for ever."""
Schema = dict[str, Any]


def grammar_of(schema: Schema) -> str:
    """Return the grammar of what a JSON schema allows."""
    from llguidance import LLMatcher

    return LLMatcher.grammar_from_json_schema(json.dumps(schema, ensure_ascii=False), defaults=COMPACT)


class Grammars:
    """Grammars over the tokens of one tokenizer; `vocabulary` is how many logits the model has."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", vocabulary: int, stops: Sequence[int]) -> None:
        from llguidance import hf

        if not stops:
            raise DataError("no token ends an answer, so none can end where its JSON does", where="structured decoding")
        if vocabulary < len(tokenizer):
            raise DataError(f"the model has {vocabulary} logits, the tokenizer {len(tokenizer)} tokens")
        try:
            self.tokens = hf.from_tokenizer(tokenizer, vocabulary, list(stops))
        except ValueError as error:  # a tokenizer without the fast implementation
            raise DataError(f"structured decoding cannot read it: {error}", where=tokenizer.name_or_path) from error
        self.vocabulary = vocabulary
        self._known: OrderedDict[str, LLMatcher] = OrderedDict()

    def matcher(self, schema: Schema) -> "LLMatcher":
        """Return what follows one answer on `schema`, at its beginning. Raises ParamsError for a
        schema that cannot be kept.
        """
        return self.follower(grammar_of(schema))

    def follower(self, grammar: str) -> "LLMatcher":
        """Return the same for a grammar as llguidance writes them."""
        from llguidance import LLMatcher

        made = self._known.get(grammar) or LLMatcher(self.tokens, grammar, log_level=0)
        _refuse_errors(made)
        self._known[grammar] = made
        while len(self._known) > KEPT:
            self._known.popitem(last=False)
        return made.deep_copy()


class Constraint:
    """The schema of each prompt's answers, and how far each answer is. Answers are known by their
    number: `samples` of the first prompt, then those of the next.
    """

    def __init__(self, grammars: Grammars, schemas: Sequence[Schema], samples: int = 1) -> None:
        self.grammars, self.schemas, self.samples = grammars, schemas, samples
        self.matchers: dict[int, LLMatcher | None] = {}
        self.ends = frozenset(grammars.tokens.eos_tokens)

    def masked(self, answers: Sequence[int], logits: "torch.Tensor") -> "torch.Tensor":
        """Return logits [B, V] of the next token of `answers` [B], -inf for each that may not
        come.
        """
        for answer in answers:
            if answer not in self.matchers:
                self.matchers[answer] = self.grammars.matcher(self.schemas[answer // self.samples])
        return masked([self.matchers[answer] for answer in answers], logits)

    def take(self, answers: Sequence[int], tokens: Sequence[int]) -> None:
        """Go on by the token that each answer was given; one that it ends is not followed on."""
        advance([self.matchers[answer] for answer in answers], tokens)
        self.matchers |= {answer: None for answer, token in zip(answers, tokens, strict=True) if token in self.ends}


def choose(
    logits: "torch.Tensor",
    sampling: Sampling,
    uniform: "torch.Tensor | None",
    seen: "torch.Tensor | None",
    constraint: Constraint | None,
    answers: "torch.Tensor",
) -> "torch.Tensor":
    """Return the next tokens [B] of `answers` [B] as `sampling.choose` does, where there is a
    constraint of those that it allows.
    """
    if constraint is None:
        return sampling_rules.choose(logits, sampling, uniform, seen)
    numbers = answers.tolist()
    token = sampling_rules.choose(constraint.masked(numbers, logits), sampling, uniform, seen)
    constraint.take(numbers, token.tolist())
    return token


def masked(matchers: "Sequence[LLMatcher | None]", logits: "torch.Tensor") -> "torch.Tensor":
    """Return logits [B, V], -inf where a row's matcher allows no token; a row without one stays."""
    import torch

    allowed = np.ones(logits.shape, dtype=bool)
    for row, matcher in zip(allowed, matchers, strict=True):
        if matcher is not None:
            bits = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
            _refuse_errors(matcher)
            row[:] = np.unpackbits(bits, count=len(row), bitorder="little")
    return logits.masked_fill(~torch.from_numpy(allowed).to(logits.device), -torch.inf)


def advance(matchers: "Sequence[LLMatcher | None]", tokens: Sequence[int]) -> None:
    """Give each row's matcher the token that was chosen."""
    for matcher, token in zip(matchers, tokens, strict=True):
        if matcher is not None and not matcher.consume_token(token):
            _refuse_errors(matcher)


def check(schema: Schema) -> None:
    """Raise ParamsError, with the reason, for a schema that structured decoding cannot keep."""
    from llguidance import LLMatcher

    wrong = LLMatcher.validate_grammar(grammar_of(schema))
    if wrong:
        raise ParamsError(f"no such schema can be kept while decoding: {wrong.splitlines()[0]}", where="JSON schema")


def _refuse_errors(matcher: "LLMatcher") -> None:
    if matcher.is_error():
        reason = matcher.get_error().splitlines()[0]
        raise ParamsError(f"no such schema can be kept while decoding: {reason}", where="JSON schema")
