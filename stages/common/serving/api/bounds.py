"""What a request may ask of this server, and what it gets where it leaves that out."""

import json
from dataclasses import dataclass

from stages.common.core.records import message
from stages.common.generation.sampling import Sampling
from stages.common.serving.api.errors import Refusal
from stages.common.serving.api.fields import Decoding
from stages.common.serving.api.schema import ChatRequest
from stages.common.serving.api.tools import Tools
from stages.common.serving.engine.champions import Question
from stages.common.serving.engine.grammar import CALLS_AT_MOST, Form

COLDEST, NARROWEST = 0.01, 1e-6
"""Below, a temperature is 0, and a nucleus is its first token."""


@dataclass(frozen=True)
class Bounds:
    """The server's bounds and defaults."""

    max_new_tokens: int
    """Longest answer; also the default."""
    temperature: float
    tools: Tools
    """The server's own."""
    tool_rounds: int
    """How often tools are run for one answer."""

    def sampling(self, wanted: Decoding, seed: int) -> Sampling:
        """Return how the tokens of an answer are chosen."""
        temperature = self.temperature if wanted.temperature is None else wanted.temperature
        return Sampling(
            temperature=0.0 if temperature < COLDEST else temperature,
            top_p=max(wanted.top_p, NARROWEST),
            top_k=max(wanted.top_k, 0),
            repetition_penalty=wanted.repetition_penalty,
            seed=seed,
        )

    def question(self, wanted: ChatRequest, seed: int) -> Question:
        """Return what is asked. Raises Refusal for what is beyond the bounds, but a longer answer:
        that is cut where the longest ends.
        """
        alternatives, form = wanted.top_logprobs if wanted.logprobs else None, self.form(wanted)
        if wanted.beams > 1 and (form or alternatives is not None):
            raise Refusal(400, "beam search goes with neither schemas nor logprobs", param="beams")
        return Question(
            [message(turn.spoken_by, turn.text, tool_calls=turn.calls) for turn in wanted.messages],
            min(wanted.length or self.max_new_tokens, self.max_new_tokens),
            self.sampling(wanted, seed),
            wanted.stops,
            wanted.beams,
            self.offered(wanted),
            form,
            alternatives,
        )

    def offered(self, wanted: ChatRequest) -> str | None:
        """Return the tools that the model is told of, as JSON. Raises Refusal for one that there is
        not.
        """
        if wanted.tools and wanted.server_tools:
            raise Refusal(400, "either tools of the client or of the server, not both", param="server_tools")
        unknown = [name for name in wanted.server_tools or [] if name not in self.tools.names]
        if unknown:
            there = ", ".join(self.tools.names) or "none"
            raise Refusal(400, f"there is no tool '{unknown[0]}' here; there are: {there}", param="server_tools")
        names = [tool.function.name for tool in wanted.tools or []] + (wanted.server_tools or [])
        if wanted.must_name is not None and wanted.must_name not in ("", *names):
            raise Refusal(400, f"there is no tool '{wanted.must_name}' in this request", param="tool_choice")
        if wanted.must_name is not None and not names:
            raise Refusal(400, "no tool is given that could be called", param="tool_choice")
        if wanted.tool_choice == "none" or not names:
            return None
        if wanted.server_tools:
            return self.tools.schemas(wanted.server_tools)
        given = [tool.model_dump(exclude_none=True, exclude={"function": {"strict"}}) for tool in wanted.tools or []]
        return json.dumps(given, ensure_ascii=False)

    def form(self, wanted: ChatRequest) -> Form | None:
        """Return what the answer has to be, None where anything may be said."""
        asked = wanted.response_format.wanted if wanted.response_format else None
        schema = None if asked is None else json.dumps(asked, ensure_ascii=False)
        must, only_one = wanted.must_name, not wanted.parallel_tool_calls
        strict = tuple(tool.function.name for tool in wanted.tools or [] if tool.function.strict)
        if wanted.tool_choice == "none" or not (wanted.tools or wanted.server_tools):
            return Form(schema) if schema else None
        if not (schema or strict or must is not None or only_one):
            return None
        return Form(schema, must is not None, must or None, strict, 1 if must or only_one else CALLS_AT_MOST)
