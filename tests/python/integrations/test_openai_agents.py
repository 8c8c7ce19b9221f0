"""openai-agents: copies of the client for its own retries, `with_streaming_response` for streams."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from conftest import Face
from pydantic import BaseModel
from support import MODEL, agree, agree_locally, library, run_snippet
from upstream import Assistant, Reply, Upstream

import farthing
from farthing.local import LocalServer

agents = library("agents")

ADA = {"name": "Ada", "age": 36}


class Person(BaseModel):
    name: str
    age: int


@agents.function_tool
def weather(city: str) -> str:
    """The weather in a city."""
    return f"rain in {city}"


@pytest.fixture(autouse=True)
def _no_tracing() -> None:
    agents.set_tracing_disabled(True)


@pytest.fixture
def face() -> Iterator[Face]:
    face = Face(is_async=True)
    yield face
    face.close()


KINDS = pytest.mark.parametrize(
    "kind", [agents.OpenAIChatCompletionsModel, agents.OpenAIResponsesModel], ids=["chat", "responses"]
)
STREAMS = pytest.mark.parametrize("streams", [False, True], ids=["", "streamed"])


def run(
    face: Face, kind: Any, client: Any, said: str, *, streams: bool, model: str = "gpt-4o-mini", **more: Any
) -> Any:
    """What a run ends with."""
    agent = agents.Agent("helper", model=kind(model, openai_client=client), **more)

    async def main() -> Any:
        if not streams:
            return await agents.Runner.run(agent, said)
        result = agents.Runner.run_streamed(agent, said)
        async for _ in result.stream_events():
            pass
        return result

    return face.run(main)


@KINDS
@STREAMS
def test_chat(face: Face, upstream: Upstream, kind: Any, streams: bool) -> None:
    def use(client: Any) -> Any:
        result = run(face, kind, client, "ping", streams=streams)
        return result.final_output, result.context_wrapper.usage.total_tokens

    assert agree(face, upstream, use)[0] == "pong 1"


@KINDS
@STREAMS
def test_tools(face: Face, upstream: Upstream, kind: Any, streams: bool) -> None:
    def use(client: Any) -> Any:
        return run(face, kind, client, "The weather in Paris?", streams=streams, tools=[weather]).final_output

    assert agree(face, upstream, use, Assistant(functions={"weather": {"city": "Paris"}})) == "it says: rain in Paris"


@KINDS
@STREAMS
def test_structured(face: Face, upstream: Upstream, kind: Any, streams: bool) -> None:
    def use(client: Any) -> Any:
        return run(face, kind, client, "Ada is 36.", streams=streams, output_type=Person).final_output.model_dump()

    assert agree(face, upstream, use, Assistant(fields=ADA)) == ADA


@KINDS
def test_its_own_retries(face: Face, upstream: Upstream, kind: Any) -> None:
    """It then asks copies of the client, made with `with_options(max_retries=0)`: they keep the engine and the bill."""
    upstream.script = lambda seen, number: Reply(503, {}) if number == 1 else Assistant()(seen, number)
    client = face.client(upstream, max_retries=5)
    backoff = agents.ModelRetryBackoffSettings(initial_delay=0.01, max_delay=0.01, jitter=False)
    policies = agents.retry_policies.any(agents.retry_policies.http_status([503]))
    settings = agents.ModelSettings(retry=agents.ModelRetrySettings(max_retries=3, backoff=backoff, policy=policies))
    said = [run(face, kind, client, "ping", streams=False, model_settings=settings).final_output for _ in range(2)]
    assert said == ["pong 2"] * 2
    assert upstream.calls == 2
    assert client.savings().hits == 1


def test_the_default_client(face: Face, upstream: Upstream) -> None:
    upstream.script = Assistant()
    client = face.client(upstream)
    agents.set_default_openai_client(client, use_for_tracing=False)
    agent = agents.Agent("helper", model="gpt-4o-mini")
    said = [face.run(lambda: agents.Runner.run(agent, "ping")).final_output for _ in range(2)]
    assert said == ["pong 1"] * 2
    assert upstream.calls == 1
    assert client.savings().hits == 1


def test_run_sync(upstream: Upstream) -> None:
    upstream.script = Assistant()
    client = farthing.AsyncOpenAI(base_url=upstream.url, api_key="none")
    agent = agents.Agent("helper", model=agents.OpenAIChatCompletionsModel("gpt-4o-mini", openai_client=client))
    assert [agents.Runner.run_sync(agent, "ping").final_output for _ in range(3)] == ["pong 1"] * 3
    assert upstream.calls == 1
    assert client.savings().hits == 2


@pytest.mark.local
def test_a_real_model(face: Face, local_server: LocalServer) -> None:
    settings = agents.ModelSettings(temperature=0, max_tokens=12, extra_body={"seed": 1})

    def use(client: Any) -> Any:
        return [
            run(
                face,
                agents.OpenAIChatCompletionsModel,
                client,
                "ping",
                streams=streams,
                model=MODEL,
                model_settings=settings,
            ).final_output
            for streams in (False, True)
        ]

    plain, streamed = agree_locally(face, local_server, use)
    assert plain == streamed


def test_the_snippet(upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    upstream.script = Assistant()
    names = run_snippet("openai-agents", upstream, monkeypatch)
    assert names["result"].final_output == "pong 1"
    assert upstream.calls == 1
