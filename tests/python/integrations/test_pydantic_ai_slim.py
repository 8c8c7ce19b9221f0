"""pydantic-ai: async only, with many `omit`s and a User-Agent of its own in every call."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from conftest import Face
from pydantic import BaseModel
from support import MODEL, agree, agree_locally, library, repeated, run_snippet
from upstream import Assistant, Upstream

import farthing
from farthing.local import LocalServer

pydantic_ai = library("pydantic_ai")
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.azure import AzureProvider
from pydantic_ai.providers.openai import OpenAIProvider

ADA = {"name": "Ada", "age": 36}


class Person(BaseModel):
    name: str
    age: int


def weather(city: str) -> str:
    """The weather in a city."""
    return f"rain in {city}"


@pytest.fixture
def face() -> Iterator[Face]:
    face = Face(is_async=True)
    yield face
    face.close()


KINDS = pytest.mark.parametrize("kind", [OpenAIChatModel, OpenAIResponsesModel], ids=["chat", "responses"])


def agent(kind: Any, client: Any, name: str = "gpt-4o-mini", **more: Any) -> Any:
    return pydantic_ai.Agent(kind(name, provider=OpenAIProvider(openai_client=client)), **more)


@KINDS
def test_chat(face: Face, upstream: Upstream, kind: Any) -> None:
    def use(client: Any) -> Any:
        made = face.run(lambda: agent(kind, client).run("ping"))
        return made.output, made.usage.total_tokens

    assert agree(face, upstream, use) == ("pong 1", 12)


@KINDS
def test_streamed(face: Face, upstream: Upstream, kind: Any) -> None:
    def use(client: Any) -> Any:
        async def read() -> str:
            async with agent(kind, client).run_stream("ping") as run:
                return "".join([part async for part in run.stream_text(delta=True)])

        return face.run(read)

    assert agree(face, upstream, use) == "pong 1"


@KINDS
@pytest.mark.parametrize("streams", [False, True], ids=["", "streamed"])
def test_tools(face: Face, upstream: Upstream, kind: Any, streams: bool) -> None:
    def use(client: Any) -> Any:
        made = agent(kind, client, tools=[weather])

        async def read() -> Any:
            async with made.run_stream("What is the weather in Paris?") as run:
                return await run.get_output()

        return face.run(read) if streams else face.run(lambda: made.run("What is the weather in Paris?")).output

    assert agree(face, upstream, use, Assistant(functions={"weather": {"city": "Paris"}})) == "it says: rain in Paris"


@KINDS
@pytest.mark.parametrize("output", [pydantic_ai.ToolOutput, pydantic_ai.NativeOutput, pydantic_ai.PromptedOutput])
@pytest.mark.parametrize("streams", [False, True], ids=["", "streamed"])
def test_structured(face: Face, upstream: Upstream, kind: Any, output: Any, streams: bool) -> None:
    def use(client: Any) -> Any:
        made = agent(kind, client, output_type=output(Person))

        async def read() -> Any:
            async with made.run_stream("Ada is 36.") as run:
                return await run.get_output()

        return (face.run(read) if streams else face.run(lambda: made.run("Ada is 36.")).output).model_dump()

    assert agree(face, upstream, use, Assistant(functions={"final_result": ADA}, fields=ADA)) == ADA


def test_azure(face: Face, upstream: Upstream) -> None:
    """It tells Azure by the client's class."""
    upstream.script = Assistant()
    root = upstream.url.removesuffix("/v1")
    client = farthing.AsyncAzureOpenAI(azure_endpoint=root, api_key="none", api_version="2025-01-01")
    model = OpenAIChatModel("gpt-4o-mini", provider=AzureProvider(openai_client=client))
    assert OpenAIProvider(openai_client=client).canonical_system == "azure"
    use = lambda: face.run(lambda: pydantic_ai.Agent(model).run("ping")).output  # noqa: E731
    assert use() == repeated(client, use, lambda: upstream.calls) == "pong 1"


def test_run_sync(upstream: Upstream) -> None:
    """Its sync call runs an event loop for each."""
    upstream.script = Assistant()
    client = farthing.AsyncOpenAI(base_url=upstream.url, api_key="none")
    assert [agent(OpenAIChatModel, client).run_sync("ping").output for _ in range(3)] == ["pong 1"] * 3
    assert upstream.calls == 1
    assert client.savings().hits == 2


def test_agents_at_once(upstream: Upstream) -> None:
    upstream.script = Assistant()
    client = farthing.AsyncOpenAI(base_url=upstream.url, api_key="none")

    async def main() -> Any:
        return await asyncio.gather(*(agent(OpenAIChatModel, client).run("ping") for _ in range(5)))

    assert [run.output for run in asyncio.run(main())] == ["pong 1"] * 5
    assert upstream.calls == 1


def test_errors_are_the_sdks(face: Face, upstream: Upstream) -> None:
    from upstream import Reply

    upstream.script = lambda seen, number: Reply(400, {"error": {"message": "no", "code": "bad"}})
    with pytest.raises(pydantic_ai.exceptions.ModelHTTPError) as caught:
        face.run(lambda: agent(OpenAIChatModel, face.client(upstream)).run("ping"))
    assert isinstance(caught.value.__cause__, openai.BadRequestError)


@pytest.mark.local
def test_a_real_model(face: Face, local_server: LocalServer) -> None:
    settings = {"temperature": 0, "seed": 1, "max_tokens": 12}

    def use(client: Any) -> Any:
        made = agent(OpenAIChatModel, client, MODEL, model_settings=settings)

        async def read() -> str:
            async with made.run_stream("ping") as run:
                return "".join([part async for part in run.stream_text(delta=True)])

        return face.run(lambda: made.run("ping")).output, face.run(read)

    plain, streamed = agree_locally(face, local_server, use)
    assert plain == streamed


def test_the_snippet(upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    upstream.script = Assistant()
    names = run_snippet("pydantic-ai", upstream, monkeypatch)
    assert names["result"].output == "pong 1"
    assert upstream.calls == 1
