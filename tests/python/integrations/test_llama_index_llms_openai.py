"""llama-index (openai): its two model classes, with functions and structured answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from conftest import Face
from pydantic import BaseModel
from support import MODEL, agree, agree_locally, library, run_snippet
from upstream import Assistant, Upstream

import farthing
from farthing.local import LocalServer

openai_module = library("llama_index.llms.openai")
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool

QUESTION = [ChatMessage(role="user", content="ping")]
ADA = {"name": "Ada", "age": 36}
Make = Callable[[Any], Any]


class Person(BaseModel):
    name: str
    age: int


def weather(city: str) -> str:
    """The weather in a city."""
    return f"rain in {city}"


@pytest.fixture(params=["chat", "responses"])
def make(request: pytest.FixtureRequest, face: Face) -> Make:
    """The model of a client."""
    kind = openai_module.OpenAI if request.param == "chat" else openai_module.OpenAIResponses
    name = "async_openai_client" if face.is_async else "openai_client"
    return lambda client: kind(model="gpt-4o-mini", api_key="none", max_retries=0, **{name: client})


def asked(face: Face, model: Any, method: str, *arguments: Any, **more: Any) -> Any:
    return face.run(lambda: getattr(model, ("a" if face.is_async else "") + method)(*arguments, **more))


def test_chat(face: Face, upstream: Upstream, make: Make) -> None:
    def use(client: Any) -> Any:
        return asked(face, make(client), "chat", QUESTION).message.content

    assert agree(face, upstream, use) == "pong 1"


def test_streamed(face: Face, upstream: Upstream, make: Make) -> None:
    def use(client: Any) -> Any:
        return face.items(asked(face, make(client), "stream_chat", QUESTION))[-1].message.content

    assert agree(face, upstream, use) == "pong 1"


def test_tools(face: Face, upstream: Upstream, make: Make) -> None:
    tool = FunctionTool.from_defaults(weather)

    def use(client: Any) -> Any:
        model = make(client)
        first = asked(face, model, "chat_with_tools", [tool], user_msg="What is the weather in Paris?")
        (call,) = model.get_tool_calls_from_response(first)
        said = ChatMessage(role="tool", content=str(tool(**call.tool_kwargs)))
        said.additional_kwargs["call_id" if "Responses" in type(model).__name__ else "tool_call_id"] = call.tool_id
        return asked(face, model, "chat", [*QUESTION, first.message, said]).message.content

    assert agree(face, upstream, use, Assistant(functions={"weather": {"city": "Paris"}})) == "it says: rain in Paris"


def test_tools_streamed(face: Face, upstream: Upstream, make: Make) -> None:
    tool = FunctionTool.from_defaults(weather)

    def use(client: Any) -> Any:
        model = make(client)
        stream = asked(face, model, "stream_chat_with_tools", [tool], user_msg="What is the weather in Paris?")
        return [call.tool_kwargs for call in model.get_tool_calls_from_response(face.items(stream)[-1])]

    functions = {"weather": {"city": "Paris"}}
    assert agree(face, upstream, use, Assistant(functions=functions)) == [{"city": "Paris"}]


def test_structured(face: Face, upstream: Upstream, make: Make) -> None:
    def use(client: Any) -> Any:
        return asked(face, make(client).as_structured_llm(Person), "chat", QUESTION).raw.model_dump()

    assert agree(face, upstream, use, Assistant(functions={"Person": ADA}, fields=ADA)) == ADA


def test_the_answer_has_its_receipt(face: Face, upstream: Upstream, make: Make) -> None:
    model = make(face.client(upstream))
    answers = [asked(face, model, "chat", QUESTION) for _ in range(2)]
    assert [farthing.receipt(answer.raw).outcome for answer in answers] == ["miss", "hit"]


@pytest.mark.local
def test_a_real_model(face: Face, local_server: LocalServer) -> None:
    name = "async_openai_client" if face.is_async else "openai_client"

    # The class for endpoints that are not OpenAI's is in another package; what it adds is the window's size.
    class Local(openai_module.OpenAI):
        @property
        def metadata(self) -> Any:
            from llama_index.core.llms import LLMMetadata

            return LLMMetadata(context_window=2048, is_chat_model=True, model_name=MODEL)

    def use(client: Any) -> Any:
        model = Local(
            model=MODEL, temperature=0, max_tokens=12, additional_kwargs={"seed": 1}, api_key="none", **{name: client}
        )
        plain = asked(face, model, "chat", QUESTION).message.content
        streamed = face.items(asked(face, model, "stream_chat", QUESTION))[-1].message.content
        return plain, streamed

    plain, streamed = agree_locally(face, local_server, use)
    assert plain == streamed


def test_the_snippet(upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    upstream.script = Assistant()
    names = run_snippet("llama-index", upstream, monkeypatch)
    assert names["answer"].message.content == "pong 1"
    assert upstream.calls == 1
