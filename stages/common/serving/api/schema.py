"""What a chat completion's request may hold, under OpenAI's names."""

from typing import Annotated, Any, Literal, NoReturn

from pydantic import Field, ValidationInfo, field_validator

from stages.common.annotation.feedback import CHARACTERS_AT_MOST
from stages.common.serving.api.fields import ONLY_NULL, Decoding, Lenient

MESSAGES_AT_MOST = 256
BEAMS_AT_MOST = 8
TOOLS_AT_MOST = 16
PARTS_AT_MOST = 64
TOP_LOGPROBS_AT_MOST = 20

ToolName = Annotated[str, Field(pattern=r"^[\w.-]{1,64}$")]
Said = Annotated[str, Field(max_length=CHARACTERS_AT_MOST)]


class Called(Lenient):
    """Which function was called, and with what: JSON, as the model wrote it."""

    WITHOUT_EFFECT = frozenset({"parsed_arguments"})

    name: ToolName
    arguments: Said


class ToolCall(Lenient):
    """A call that the model made in an earlier turn."""

    WITHOUT_EFFECT = frozenset({"index", "provider_specific_fields"})

    id: Annotated[str, Field(max_length=64)] | None = None
    type: Literal["function"] = "function"
    function: Called


class Function(Lenient):
    """A function of the client's."""

    name: ToolName
    description: Said | None = None
    parameters: dict[str, Any] | None = None
    strict: bool = False
    """Whether the arguments of a call surely are valid on `parameters`."""


class Tool(Lenient):
    """What the model may call and the client runs."""

    type: Literal["function"]
    function: Function


class ChatMessage(Lenient):
    """One turn."""

    # What replies hold beside the text, and models are not shown.
    WITHOUT_EFFECT = frozenset(
        {"annotations", "parsed", "provider_specific_fields", "reasoning", "reasoning_content", "thinking_blocks"}
    )
    NEUTRAL = {"audio": ONLY_NULL, "function_call": ONLY_NULL, "tool_calls": ([],), "type": ("text", "message")}

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    tool_calls: Annotated[list[ToolCall], Field(min_length=1, max_length=TOOLS_AT_MOST)] | None = None
    """Of the assistant; it then may say nothing."""
    tool_call_id: Annotated[str, Field(max_length=64)] | None = None
    """Of a tool's result; results are read in the order in which they stand."""
    refusal: Said | None = None
    """What the assistant said in place of an answer."""
    content: Said | None = Field(default=None, validate_default=True)
    name: Annotated[str, Field(max_length=64)] | None = None
    """Accepted, and not shown to the model."""

    @field_validator("tool_calls")
    @classmethod
    def of_the_assistant(cls, calls: list[ToolCall] | None, known: ValidationInfo) -> list[ToolCall] | None:
        """Refuse calls that somebody else makes."""
        if calls and known.data.get("role") != "assistant":
            raise ValueError("only the assistant calls tools")
        return calls

    @field_validator("content", mode="before")
    @classmethod
    def as_one_text(cls, content: Any) -> Any:
        """Join the parts of a message; there are no images or sounds here."""
        if not isinstance(content, list):
            return content
        if not 0 < len(content) <= PARTS_AT_MOST:
            raise ValueError(f"a message has 1 to {PARTS_AT_MOST} parts")
        return "\n".join(_text(part) for part in content)

    @field_validator("content")
    @classmethod
    def said(cls, content: str | None, known: ValidationInfo) -> str | None:
        """Refuse a turn in which nothing is said, except the assistant's."""
        if content is None and known.data.get("role") != "assistant":
            raise ValueError("Field required")
        return content

    @property
    def calls(self) -> list[dict[str, str]] | None:
        """The calls as records have them."""
        return [call.function.model_dump() for call in self.tool_calls] if self.tool_calls else None

    @property
    def text(self) -> str:
        """What is said."""
        return self.content or self.refusal or ""

    @property
    def spoken_by(self) -> str:
        """The role the model knows."""
        return {"developer": "system", "function": "tool"}.get(self.role, self.role)


def _text(part: Any) -> str:
    """Return the text of a message's part. Raises ValueError for a part that is none."""
    kind = part.get("type") if isinstance(part, dict) else type(part).__name__
    said = part.get({"text": "text", "refusal": "refusal"}.get(str(kind), "")) if isinstance(part, dict) else None
    if not isinstance(said, str):
        raise ValueError(f"only text parts are read here, and one is of type {str(kind)[:64]!r}")
    return said


class JsonSchema(Lenient):
    """A schema that the answer is valid on, whether `strict` or not."""

    WITHOUT_EFFECT = frozenset({"description", "name", "strict"})

    schema_: dict[str, Any] = Field(default={"type": "object"}, alias="schema")


class ResponseFormat(Lenient):
    """What the answer is: text, a JSON object, or JSON on a schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = Field(default=None, validate_default=True)

    @field_validator("json_schema")
    @classmethod
    def there(cls, schema: JsonSchema | None, known: ValidationInfo) -> JsonSchema | None:
        """Refuse a format on a schema without one."""
        if schema is None and known.data.get("type") == "json_schema":
            raise ValueError("Field required")
        return schema

    @property
    def wanted(self) -> dict[str, Any] | None:
        """The schema of the answer, None for text."""
        if self.type == "text":
            return None
        return self.json_schema.schema_ if self.type == "json_schema" and self.json_schema else {"type": "object"}


def _no_choice() -> NoReturn:
    raise ValueError("it is auto, none, required, or a function by its name")


class ChatRequest(Decoding):
    """A request. `beams` and `server_tools` are not OpenAI's."""

    NEUTRAL = Decoding.NEUTRAL | {
        "add_generation_prompt": (True,),
        "audio": ONLY_NULL,
        "continue_final_message": (False,),
        "function_call": ("none", "auto"),
        "functions": ([],),
        "modalities": (["text"],),
        "moderation": ONLY_NULL,
        "reasoning_effort": ("none",),
        "server_tools": ([],),
        "tools": ([],),
        "verbosity": ("medium",),
        "web_search_options": ONLY_NULL,
    }

    messages: list[ChatMessage] = Field(min_length=1, max_length=MESSAGES_AT_MOST)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    beams: int = Field(default=1, ge=1, le=BEAMS_AT_MOST)
    logprobs: bool = False
    top_logprobs: int = Field(default=0, ge=0, le=TOP_LOGPROBS_AT_MOST)
    response_format: ResponseFormat | None = None
    tools: Annotated[list[Tool], Field(min_length=1, max_length=TOOLS_AT_MOST)] | None = None
    """The client's own: calls of them are handed back and not run."""
    tool_choice: Any = None
    """`none`: the model is not told of any tool. `required`, or a tool: it calls one, or that one.
    """
    parallel_tool_calls: bool = True
    server_tools: Annotated[list[ToolName], Field(min_length=1, max_length=TOOLS_AT_MOST)] | None = None
    """Names of the server's own: calls of them are run here, and their results read by the
    model.
    """

    @field_validator("top_logprobs")
    @classmethod
    def beside_the_others(cls, top: int, known: ValidationInfo) -> int:
        """Refuse alternatives to log-probabilities that are not asked for."""
        if top and not known.data.get("logprobs"):
            raise ValueError("it is taken beside logprobs: true")
        return top

    @field_validator("tool_choice", mode="before")
    @classmethod
    def known_choice(cls, choice: Any) -> Any:
        """Refuse other words than OpenAI's."""
        if isinstance(choice, dict):
            named = choice.get("function")
            choice = named.get("name") if choice.get("type") == "function" and isinstance(named, dict) else None
            return [choice] if isinstance(choice, str) else _no_choice()
        return choice if choice in ("auto", "none", "required") else _no_choice()

    @property
    def length(self) -> int | None:
        """The longest answer wanted, under either name."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def must_name(self) -> str | None:
        """The tool that is to be called, "" for any, None where none has to be."""
        if isinstance(self.tool_choice, list):
            return str(self.tool_choice[0])
        return "" if self.tool_choice == "required" else None
