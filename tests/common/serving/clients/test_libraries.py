"""The API through the libraries that people build on, each as its documentation says; without one
of them its tests say so (extra `clients`).
"""

from collections.abc import Iterator
from typing import Any, Literal

import openai
import pytest
from pydantic import BaseModel

from stages.common.core import chat
from stages.common.core.records import message
from stages.common.generation import generator
from stages.common.serving.engine.champions import Champions
from tests.common.serving.conftest import served

QUESTION = "What is the capital of land 3?"
LONG = "word " * 5_000
GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 24}


class Place(BaseModel):
    """Where the weather is asked for."""

    place: Literal["Lima", "Oslo"]


@pytest.fixture(scope="module")
def url(lasting: Champions, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL of a server whose model reads enough for tools: its tokens are letters."""
    lasting.current.engine.model.config.max_position_embeddings = 2048
    with served(lasting, tmp_path_factory.mktemp("clients") / "page.jsonl") as address:
        yield f"{address}/v1"


@pytest.fixture(scope="module")
def expected(lasting: Champions) -> str:
    """The decoder's own answer to QUESTION."""
    engine = lasting.current.engine
    prompt = chat.encode_prompt(engine.tokenizer, [message("user", QUESTION)])
    stops = chat.stops(engine.tokenizer)
    ((found,),) = generator.decode(engine.model, [prompt], max_new_tokens=24, stop=stops, batch_size=1)
    return str(engine.tokenizer.decode(found.tokens, skip_special_tokens=True))


class TestOpenAi:
    @pytest.fixture
    def client(self, url: str) -> openai.OpenAI:
        return openai.OpenAI(base_url=url, api_key="none", max_retries=0)

    def test_it_goes_on_with_its_history_and_null_is_the_default(self, client: openai.OpenAI, expected: str) -> None:
        asked: Any = {"role": "user", "content": QUESTION}
        said = client.chat.completions.create(
            model="lathe", messages=[asked], stream=None, n=None, top_p=None, **GREEDY
        )
        assert said.choices[0].message.content == expected
        history: Any = [asked, said.choices[0].message.model_dump(), asked]
        again = client.chat.completions.create(model="lathe", messages=history, **GREEDY)
        assert again.usage and said.usage and again.usage.prompt_tokens > 2 * said.usage.prompt_tokens

    def test_more_than_the_server_s_longest_answer_is_cut(self, client: openai.OpenAI) -> None:
        asked: Any = {"role": "user", "content": QUESTION}
        said = client.chat.completions.create(model="lathe", messages=[asked], max_tokens=256, temperature=0)
        assert said.usage and said.usage.completion_tokens == 64 and said.choices[0].finish_reason == "length"

    @pytest.mark.parametrize(
        ("content", "param", "code"),
        [
            (LONG, "messages", "context_length_exceeded"),
            ([{"type": "image_url", "image_url": {"url": "x"}}], "messages[0].content", "invalid_value"),
        ],
    )
    def test_it_is_told_what_is_wrong(self, client: openai.OpenAI, content: Any, param: str, code: str) -> None:
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(model="lathe", messages=[{"role": "user", "content": content}])
        assert (caught.value.param, caught.value.code, caught.value.type) == (param, code, "invalid_request_error")


class TestLangChain:
    @pytest.fixture
    def model(self, url: str, monkeypatch: pytest.MonkeyPatch) -> Any:
        langchain_openai = pytest.importorskip("langchain_openai")
        monkeypatch.setenv("LANGSMITH_TRACING", "false")
        return langchain_openai.ChatOpenAI(base_url=url, api_key="none", model="lathe", max_retries=0, **GREEDY)

    def test_it_invokes_streams_and_goes_on_with_its_history(self, model: Any, expected: str) -> None:
        said = model.invoke(QUESTION)
        assert said.content == expected and said.usage_metadata["output_tokens"] > 3
        assert "".join(chunk.content for chunk in model.stream(QUESTION)) == expected
        again = model.invoke([("human", QUESTION), said, ("human", "And of land 4?")])
        assert again.response_metadata["finish_reason"] in ("stop", "length")
        assert model.bind(logprobs=True).invoke(QUESTION).response_metadata["logprobs"]["content"]

    @pytest.mark.parametrize("choice", ["any", "Place"])
    def test_it_calls_tools_and_hands_results_back(self, model: Any, choice: str) -> None:
        from langchain_core.messages import HumanMessage, ToolMessage

        bound = model.bind_tools([Place], tool_choice=choice, strict=True, parallel_tool_calls=False, max_tokens=64)
        said = bound.invoke(QUESTION)
        (call,) = said.tool_calls
        assert call["name"] == "Place" and call["args"]["place"] in ("Lima", "Oslo")
        result = ToolMessage("sunny", tool_call_id=call["id"])
        assert model.invoke([HumanMessage(QUESTION), said, result]).response_metadata["finish_reason"]
        chunks = list(bound.stream(QUESTION))
        assert [one["name"] for chunk in chunks for one in chunk.tool_call_chunks] == ["Place"]

    @pytest.mark.parametrize("method", ["json_schema", "function_calling"])
    def test_it_fills_classes(self, model: Any, method: str) -> None:
        filling = model.with_structured_output(Place, method=method, strict=True)
        assert filling.invoke(QUESTION, max_tokens=64).place in ("Lima", "Oslo")

    def test_it_knows_a_conversation_that_is_too_long(self, model: Any) -> None:
        from langchain_core.exceptions import ContextOverflowError

        with pytest.raises(ContextOverflowError):
            model.invoke(LONG)


class TestLiteLlm:
    @pytest.fixture
    def ask(self, url: str, monkeypatch: pytest.MonkeyPatch) -> Any:
        monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else it is fetched
        litellm = pytest.importorskip("litellm", reason="LiteLLM is not installed: extra `clients`")
        return lambda **given: litellm.completion(
            model="openai/lathe", api_base=url, api_key="none", num_retries=0, **{**GREEDY, **given}
        )

    def test_it_asks_whole_and_streamed_with_tools_and_schemas(self, ask: Any, expected: str) -> None:
        asked = [{"role": "user", "content": QUESTION}]
        said = ask(messages=asked)
        assert said.choices[0].message.content == expected
        pieces = [chunk.choices[0].delta.content or "" for chunk in ask(messages=asked, stream=True)]
        assert "".join(pieces) == expected
        history = [*asked, said.choices[0].message.model_dump(), *asked]
        assert ask(messages=history, n=1, frequency_penalty=0).choices[0].message.content is not None
        filled = ask(messages=asked, response_format=Place, max_tokens=64).choices[0].message.content
        assert Place.model_validate_json(filled).place in ("Lima", "Oslo")
        schema = Place.model_json_schema() | {"additionalProperties": False}
        tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
        called = ask(messages=asked, tools=[tool], tool_choice="required", max_tokens=64).choices[0]
        assert called.message.tool_calls[0].function.name == "f"

    def test_it_knows_a_conversation_that_is_too_long(self, ask: Any) -> None:
        import litellm

        with pytest.raises(litellm.ContextWindowExceededError):
            ask(messages=[{"role": "user", "content": LONG}])


class TestHaystack:
    def test_it_runs_and_streams(self, url: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HAYSTACK_TELEMETRY_ENABLED", "False")
        pytest.importorskip("haystack", reason="Haystack is not installed: extra `clients`")
        from haystack.components.generators.chat import OpenAIChatGenerator
        from haystack.dataclasses import ChatMessage
        from haystack.utils import Secret

        pieces: list[str] = []
        for callback in (None, lambda chunk: pieces.append(chunk.content)):
            generator_ = OpenAIChatGenerator(
                Secret.from_token("none"),
                "lathe",
                streaming_callback=callback,
                api_base_url=url,
                generation_kwargs=GREEDY,
            )
            (reply,) = generator_.run([ChatMessage.from_user(QUESTION)])["replies"]
            assert reply.text == expected
        assert "".join(pieces) == expected
