"""Who extracts: a model of ours under structured decoding, or an OpenAI-compatible endpoint that
keeps the schema itself.

Both are asked in the same words and their replies are kept on disk, so what was said once is not
asked, or computed, again.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from stages.common.core import chat, models
from stages.common.core.records import message
from stages.common.extraction import schemas
from stages.common.extraction.schemas import Wanted
from stages.common.generation import generator
from stages.common.generation.engines.endpoint import Endpoint, EndpointParams, Kept, Reply
from stages.common.generation.engines.structured import Constraint, Grammars
from stages.common.runtime.progress import Progress
from stages.common.text.thoughts import without_thoughts

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CACHE = Path(".lathe/extract.sqlite")
INSTRUCTION = """You extract data from a document. Reply with JSON alone: {"records": [...]}, each record by the \
schema, but every value as {"span": ..., "value": ...}: the span is copied from the document word for word and says \
the value. What the document does not say is no record; without any, reply {"records": []}."""


class Said(NamedTuple):
    """A reply to a passage. `fits` is False where passage and reply have no room in the model's
    context: then nobody was asked.
    """

    text: str
    is_cut: bool
    fits: bool = True


def question(wanted: Wanted, passage: str) -> list[dict[str, str]]:
    """Return the messages that ask for the records of a passage."""
    schema = json.dumps(wanted.record, ensure_ascii=False)
    asked = f"{wanted.instruction}\n\nSchema of a record:\n{schema}\n\nDocument:\n{passage}"
    return [{"role": "system", "content": INSTRUCTION}, {"role": "user", "content": asked}]


class AtEndpoint(Endpoint):
    """The endpoint, asked with `response_format`; a context manager."""

    def __init__(self, settings: EndpointParams, wanted: Wanted, cache: Path | None = None) -> None:
        super().__init__(settings, CACHE if cache is None else cache, "extract.endpoint", "endpoint")
        self.wanted = wanted
        schema = {"name": "records", "schema": wanted.reply, "strict": schemas.is_strict(wanted.reply)}
        self.format = {"type": "json_schema", "json_schema": schema}

    def answers(self, passages: Sequence[str]) -> list[Said]:
        """Return the reply to each passage. Raises as `each` does."""
        return self.each(self._said, [(passage,) for passage in passages])

    def _said(self, passage: str) -> Said:
        reply = self.reply(question(self.wanted, passage), response_format=self.format)
        return Said(without_thoughts(reply.text), reply.completion_tokens >= self.settings.max_tokens)


class Local:
    """A model in this process, greedy, whose every reply is on the schema; a context manager."""

    def __init__(
        self, folder: Path, wanted: Wanted, max_new_tokens: int, batch_size: int, cache: Path | None = None
    ) -> None:
        self.wanted, self.max_new_tokens, self.batch_size = wanted, max_new_tokens, batch_size
        self.tokenizer, self.weights = models.load_tokenizer(folder), models.weights_sha256(folder)
        self.context = generator.context_of(models.load_config(folder))
        self.folder = folder
        self._loaded: tuple[PreTrainedModel, Grammars] | None = None
        self.cache = Kept(CACHE if cache is None else cache)
        self.replies: list[Reply] = []
        self.asked = 0

    def __enter__(self) -> "Local":
        return self

    def __exit__(self, *_: object) -> None:
        self.cache.close()

    def answers(self, passages: Sequence[str]) -> list[Said]:
        """Return the reply to each passage; one without room in the context is not asked for."""
        prompts = [self._prompt(passage) for passage in passages]
        fits = [not self.context or len(prompt) + self.max_new_tokens <= self.context for prompt in prompts]
        keys = [Kept.key([self.weights, prompt, self.wanted.reply, self.max_new_tokens]) for prompt in prompts]
        known = {key: self.cache.get(key) for key, fit in zip(keys, fits, strict=True) if fit}
        new = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key in known and not known[key]}
        for key, reply in zip(new, self._decoded(list(new.values())), strict=True):
            self.cache.put(key, reply)
            known[key] = reply
        self.asked += len(new)
        found = []
        for said in map(known.get, keys):
            self.replies += [said] if said else []
            at_end = said is not None and said.completion_tokens >= self.max_new_tokens
            found.append(Said(said.text, at_end) if said else Said("", False, fits=False))
        return found

    def summary(self) -> dict[str, float]:
        """Return what all of this took, replies that were kept included; it costs nothing."""
        read = sum(reply.prompt_tokens for reply in self.replies)
        written = sum(reply.completion_tokens for reply in self.replies)
        return {"requests": len(self.replies), "prompt_tokens": read, "completion_tokens": written, "cost": 0.0}

    def _prompt(self, passage: str) -> list[int]:
        turns = [message(one["role"], one["content"]) for one in question(self.wanted, passage)]
        return chat.encode_prompt(self.tokenizer, turns)

    def _decoded(self, prompts: Sequence[list[int]]) -> list[Reply]:
        if not prompts:
            return []
        if self._loaded is None:
            model = models.load_frozen(self.folder)
            vocabulary = model.get_output_embeddings().weight.shape[0]
            self._loaded = model, Grammars(self.tokenizer, vocabulary, chat.stops(self.tokenizer))
        model, grammars = self._loaded
        answers = generator.decode(
            model,
            prompts,
            max_new_tokens=self.max_new_tokens,
            stop=chat.stops(self.tokenizer),
            batch_size=self.batch_size,
            progress=Progress(len(prompts)),
            constraint=Constraint(grammars, [self.wanted.reply] * len(prompts)),
        )
        return [
            Reply(self.tokenizer.decode(one.tokens, skip_special_tokens=True), len(prompt), len(one.tokens))
            for prompt, (one,) in zip(prompts, answers, strict=True)
        ]
