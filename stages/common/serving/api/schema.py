"""What a chat completion's request may hold: OpenAI's names; what would be ignored in silence is
refused.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from stages.common.annotation.feedback import CHARACTERS_AT_MOST

MESSAGES_AT_MOST = 256
BEAMS_AT_MOST = 8
TOOLS_AT_MOST = 16

ToolName = Annotated[str, Field(pattern=r"^[\w.-]{1,64}$")]
Said = Annotated[str, Field(max_length=CHARACTERS_AT_MOST)]


class TextPart(BaseModel):
    """A part of a message; there are no images or sounds here."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["text"]
    text: Said


class Called(BaseModel):
    """Which function was called, and with what: JSON, as the model wrote it."""

    model_config = ConfigDict(extra="forbid")

    name: ToolName
    arguments: Said


class ToolCall(BaseModel):
    """A call that the model made in an earlier turn."""

    model_config = ConfigDict(extra="forbid")

    id: Annotated[str, Field(max_length=64)]
    type: Literal["function"] = "function"
    function: Called


class Function(BaseModel):
    """A function of the client's."""

    model_config = ConfigDict(extra="forbid")

    name: ToolName
    description: Said | None = None
    parameters: dict[str, Any] | None = None
    strict: Literal[False] | None = None


class Tool(BaseModel):
    """What the model may call and the client runs."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["function"]
    function: Function


class ChatMessage(BaseModel):
    """One turn."""

    model_config = ConfigDict(extra="forbid")

    role: Literal["system", "developer", "user", "assistant", "tool"]
    tool_calls: Annotated[list[ToolCall], Field(min_length=1, max_length=TOOLS_AT_MOST)] | None = None
    """Of the assistant; it then may say nothing."""
    tool_call_id: Annotated[str, Field(max_length=64)] | None = None
    """Of a tool's result; results are read in the order in which they stand."""
    content: Said | Annotated[list[TextPart], Field(min_length=1, max_length=64)] | None = Field(
        default=None, validate_default=True
    )
    name: Annotated[str, Field(max_length=64)] | None = None
    """Accepted, and not shown to the model."""
    refusal: None = None

    @field_validator("tool_calls")
    @classmethod
    def of_the_assistant(cls, calls: list[ToolCall] | None, known: ValidationInfo) -> list[ToolCall] | None:
        """Refuse calls that somebody else makes."""
        if calls and known.data.get("role") != "assistant":
            raise ValueError("only the assistant calls tools")
        return calls

    @field_validator("content")
    @classmethod
    def said(cls, content: Any, known: ValidationInfo) -> Any:
        """Refuse a turn in which nothing is said, except one that calls tools."""
        if content is None and not known.data.get("tool_calls"):
            raise ValueError("Field required")
        return content

    @property
    def calls(self) -> list[dict[str, str]] | None:
        """The calls as records have them."""
        return [call.function.model_dump() for call in self.tool_calls] if self.tool_calls else None

    @property
    def text(self) -> str:
        """What is said."""
        if self.content is None:
            return ""
        return self.content if isinstance(self.content, str) else "\n".join(part.text for part in self.content)

    @property
    def spoken_by(self) -> str:
        """The role the model knows."""
        return "system" if self.role == "developer" else self.role


class StreamOptions(BaseModel):
    """What a stream ends with."""

    include_usage: bool = False


class ChatRequest(BaseModel):
    """A request. `top_k`, `repetition_penalty`, `beams` and `server_tools` are not OpenAI's."""

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
    tools: Annotated[list[Tool], Field(min_length=1, max_length=TOOLS_AT_MOST)] | None = None
    """The client's own: calls of them are handed back and not run."""
    tool_choice: Literal["auto", "none"] | None = None
    """`none`: the model is not told of any tool."""
    parallel_tool_calls: Literal[True] | None = None
    server_tools: Annotated[list[ToolName], Field(min_length=1, max_length=TOOLS_AT_MOST)] | None = None
    """Names of the server's own: calls of them are run here, and their results read by the
    model.
    """
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
