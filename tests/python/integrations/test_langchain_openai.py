"""langchain-openai: it builds its clients itself, and makes every plain call by `with_raw_response`."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from conftest import Face
from pydantic import BaseModel
from support import MODEL, agree, agree_locally, library, run_snippet
from upstream import Assistant, Upstream

from farthing.local import LocalServer

langchain = library("langchain_openai")
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool

ADA = {"name": "Ada", "age": 36}


class Person(BaseModel):
    """A person."""

    name: str
    age: int


@tool
def weather(city: str) -> str:
    """The weather in a city."""
    return f"rain in {city}"


def model_of(client: Any, **more: Any) -> Any:
    """A model that uses the client; of the other kind it gets one that reaches nothing."""
    is_async = isinstance(client, openai.AsyncOpenAI)
    none = (openai.OpenAI if is_async else openai.AsyncOpenAI)(api_key="none", base_url="http://127.0.0.1:9")
    sync, other = (none, client) if is_async else (client, none)
    parts = {"client": sync.chat.completions, "async_client": other.chat.completions}
    return langchain.ChatOpenAI(
        **{"model": "test-model", "root_client": sync, "root_async_client": other, **parts, **more}
    )


API = pytest.mark.parametrize("responses", [False, True], ids=["chat", "responses"])


def invoke(face: Face, runnable: Any, given: Any) -> Any:
    return face.run(lambda: runnable.ainvoke(given) if face.is_async else runnable.invoke(given))


def stream(face: Face, runnable: Any, given: Any) -> list[Any]:
    return face.items(runnable.astream(given) if face.is_async else runnable.stream(given))


@API
def test_chat(face: Face, upstream: Upstream, responses: bool) -> None:
    def use(client: Any) -> Any:
        answer = invoke(face, model_of(client, use_responses_api=responses), "ping")
        return answer.text, answer.usage_metadata["total_tokens"]

    assert agree(face, upstream, use) == ("pong 1", 12)


@API
@pytest.mark.parametrize("headers", [False, True], ids=["", "with headers"])
def test_streamed(face: Face, upstream: Upstream, responses: bool, headers: bool) -> None:
    def use(client: Any) -> Any:
        model = model_of(client, use_responses_api=responses, include_response_headers=headers)
        return "".join(chunk.text for chunk in stream(face, model, "ping"))

    assert agree(face, upstream, use) == "pong 1"


@API
@pytest.mark.parametrize("streams", [False, True], ids=["", "streamed"])
def test_tools(face: Face, upstream: Upstream, responses: bool, streams: bool) -> None:
    def use(client: Any) -> Any:
        model = model_of(client, use_responses_api=responses, streaming=streams).bind_tools([weather])
        said: list[Any] = [HumanMessage("What is the weather in Paris?")]
        said.append(invoke(face, model, said))
        for call in said[-1].tool_calls:
            said.append(ToolMessage(weather.invoke(call["args"]), tool_call_id=call["id"]))
        return invoke(face, model, said).text

    assert agree(face, upstream, use, Assistant(functions={"weather": {"city": "Paris"}})) == "it says: rain in Paris"


@API
@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
@pytest.mark.parametrize("streams", [False, True], ids=["", "streamed"])
def test_structured(face: Face, upstream: Upstream, responses: bool, method: str, streams: bool) -> None:
    def use(client: Any) -> Any:
        model = model_of(client, use_responses_api=responses).with_structured_output(Person, method=method)
        return (stream(face, model, "Ada is 36.")[-1] if streams else invoke(face, model, "Ada is 36.")).model_dump()

    assert agree(face, upstream, use, Assistant(functions={"Person": ADA}, fields=ADA)) == ADA


def test_a_batch(face: Face, upstream: Upstream) -> None:
    """Equal ones in one batch, which run at once, are one call."""
    upstream.script = Assistant()
    client = face.client(upstream)
    model = model_of(client)
    answers = face.run(lambda: model.abatch(["ping"] * 5) if face.is_async else model.batch(["ping"] * 5))
    assert [answer.text for answer in answers] == ["pong 1"] * 5
    assert upstream.calls == 1
    bill = client.savings()
    assert (bill.misses, bill.hits + bill.joined) == (1, 4)


def test_embeddings(face: Face, upstream: Upstream) -> None:
    def use(client: Any) -> Any:
        name = "async_client" if face.is_async else "client"
        other = "client" if face.is_async else "async_client"
        made = langchain.OpenAIEmbeddings(
            model="test-model", check_embedding_ctx_length=False, **{name: client.embeddings, other: object()}
        )
        return face.run(lambda: made.aembed_query("ping") if face.is_async else made.embed_query("ping"))

    assert agree(face, upstream, use) == [0.25, -1.5, 3.0]


def test_headers_of_a_hit(face: Face, upstream: Upstream) -> None:
    """The way to see from within langchain what a call cost: its raw response is farthing's."""
    upstream.script = Assistant()
    model = model_of(face.client(upstream), include_response_headers=True)
    answers = [invoke(face, model, "ping") for _ in range(2)]
    assert [answer.response_metadata["headers"].get("x-farthing-cache") for answer in answers] == [None, "hit"]


@pytest.mark.local
def test_a_real_model(face: Face, local_server: LocalServer) -> None:
    def use(client: Any) -> Any:
        model = model_of(client, model=MODEL, temperature=0, seed=1, max_tokens=12)
        return invoke(face, model, "ping").text, "".join(chunk.text for chunk in stream(face, model, "ping"))

    plain, streamed = agree_locally(face, local_server, use)
    assert plain == streamed


def test_the_snippet(upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    upstream.script = Assistant()
    names = run_snippet("langchain-openai", upstream, monkeypatch)
    assert names["answer"].text == "pong 1"
    assert upstream.calls == 1
