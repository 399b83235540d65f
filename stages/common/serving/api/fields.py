"""What requests of OpenAI's clients have in common: null and neutral values are taken, a field that
would change the answer is heeded or refused by its name.
"""

from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

STOPS_AT_MOST = 64
ONLY_NULL: tuple[Any, ...] = ()


class Lenient(BaseModel):
    """An object of a request. What is null counts as left out."""

    model_config = ConfigDict(extra="forbid")

    NEUTRAL: ClassVar[dict[str, tuple[Any, ...]]] = {}
    """Fields that are not heeded, with the values that ask for nothing: another is refused."""
    WITHOUT_EFFECT: ClassVar[frozenset[str]] = frozenset()
    """Fields that change no answer, taken whatever they hold."""

    @model_validator(mode="before")
    @classmethod
    def what_changes_nothing(cls, given: Any) -> Any:
        """Leave out what asks for nothing."""
        if not isinstance(given, dict):
            return given
        return {name: value for name, value in given.items() if not cls._asks_nothing(name, value)}

    @classmethod
    def _asks_nothing(cls, name: str, value: Any) -> bool:
        if value is None or name in cls.WITHOUT_EFFECT:
            return True
        return any(
            value == one and isinstance(value, bool) == isinstance(one, bool) for one in cls.NEUTRAL.get(name, ())
        )

    @classmethod
    def refusal_of(cls, name: str) -> str:
        """Return why a field that is not known, or whose value is not neutral, is refused."""
        if name not in cls.NEUTRAL:
            return "there is no such field"
        neutral = [repr(one) for one in cls.NEUTRAL[name]]
        return f"it is not supported; taken are {', '.join(['null', *neutral])}"


class StreamOptions(Lenient):
    """What a stream ends with."""

    WITHOUT_EFFECT = frozenset({"include_obfuscation"})
    NEUTRAL = {"continuous_usage_stats": (False,)}

    include_usage: bool = False


class Decoding(Lenient):
    """How to answer. `top_k` and `repetition_penalty` are not OpenAI's."""

    WITHOUT_EFFECT = frozenset(
        {
            "metadata",
            "prediction",
            "prompt_cache_key",
            "prompt_cache_options",
            "prompt_cache_retention",
            "safety_identifier",
            "service_tier",
            "store",
            "user",
        }
    )
    NEUTRAL = {
        "best_of": (1,),
        "frequency_penalty": (0,),
        "ignore_eos": (False,),
        "length_penalty": (1,),
        "logit_bias": ({},),
        "min_p": (0,),
        "min_tokens": (0,),
        "n": (1,),
        "presence_penalty": (0,),
        "skip_special_tokens": (True,),
    }

    model: Annotated[str, Field(max_length=256)] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float = Field(default=1.0, ge=0, le=1)
    top_k: int = Field(default=0, ge=-1, le=1_000)
    stop: list[Annotated[str, Field(max_length=256)]] = Field(default=[], max_length=STOPS_AT_MOST)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    repetition_penalty: float = Field(default=1.0, ge=0.1, le=10)

    @field_validator("stop", mode="before")
    @classmethod
    def one_or_many(cls, given: Any) -> Any:
        """Read one text as a list of one; null among many is none."""
        many = [given] if isinstance(given, str) else given
        return [one for one in many if one is not None] if isinstance(many, list) else many

    @property
    def stops(self) -> tuple[str, ...]:
        """The strings that end an answer."""
        return tuple(dict.fromkeys(text for text in self.stop if text))

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with the number of tokens."""
        return self.stream_options is not None and self.stream_options.include_usage
