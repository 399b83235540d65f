"""What a chat completion's request may hold: OpenAI's names; what would be ignored in silence is refused."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

MESSAGES_AT_MOST = 256
CHARACTERS_AT_MOST = 65_536
BEAMS_AT_MOST = 8

Said = Annotated[str, Field(max_length=CHARACTERS_AT_MOST)]


class TextPart(BaseModel):
    """A part of a message; there are no images or sounds here."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["text"]
    text: Said


class ChatMessage(BaseModel):
    """One turn."""

    model_config = ConfigDict(extra="forbid")

    role: Literal["system", "developer", "user", "assistant"]
    content: Said | Annotated[list[TextPart], Field(min_length=1, max_length=64)]
    name: Annotated[str, Field(max_length=64)] | None = None
    """Accepted, and not shown to the model."""
    refusal: None = None

    @property
    def text(self) -> str:
        """What is said."""
        return self.content if isinstance(self.content, str) else "\n".join(part.text for part in self.content)

    @property
    def spoken_by(self) -> str:
        """The role the model knows."""
        return "system" if self.role == "developer" else self.role


class StreamOptions(BaseModel):
    """What a stream ends with."""

    include_usage: bool = False


class ChatRequest(BaseModel):
    """A request. `top_k`, `repetition_penalty` and `beams` are not OpenAI's."""

    model_config = ConfigDict(extra="forbid")

    messages: list[ChatMessage] = Field(min_length=1, max_length=MESSAGES_AT_MOST)
    model: Annotated[str, Field(max_length=256)] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int = Field(default=0, ge=0, le=1_000)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    stop: Annotated[str, Field(max_length=256)] | list[Annotated[str, Field(max_length=256)]] | None = None
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    repetition_penalty: float = Field(default=1.0, ge=0.1, le=10)
    beams: int = Field(default=1, ge=1, le=BEAMS_AT_MOST)
    # Known to OpenAI's clients; only the values that change nothing are taken.
    n: Literal[1] = 1
    logprobs: Literal[False] | None = None
    frequency_penalty: Literal[0] | None = None
    presence_penalty: Literal[0] | None = None
    user: Annotated[str, Field(max_length=256)] | None = None
    store: Literal[False] | None = None
    metadata: dict[str, Any] | None = None

    @property
    def length(self) -> int | None:
        """The longest answer wanted, under either name."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def stops(self) -> tuple[str, ...]:
        """The strings that end an answer."""
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(dict.fromkeys(text for text in given if text))[:4]
