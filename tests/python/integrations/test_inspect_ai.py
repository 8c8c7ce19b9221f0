"""inspect-ai: an id of its own in the headers of every request, an http client of its own, epochs."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from conftest import Face
from support import MODEL, agree, agree_locally, library, run_snippet
from upstream import Assistant, Upstream

import farthing
from farthing.local import LocalServer

inspect_ai = library("inspect_ai")
from inspect_ai.dataset import Sample
from inspect_ai.model import ChatMessageTool, ChatMessageUser, GenerateConfig, ResponseSchema, get_model, modelapi
from inspect_ai.model._providers.openai import OpenAIAPI
from inspect_ai.scorer import includes
from inspect_ai.solver import Generate, Solver, TaskState, generate, solver
from inspect_ai.tool import Tool, ToolDef, tool
from inspect_ai.util import json_schema
from pydantic import BaseModel

ADA = {"name": "Ada", "age": 36}


class Person(BaseModel):
    name: str
    age: int


@tool
def weather() -> Tool:
    async def execute(city: str) -> str:
        """The weather in a city.

        Args:
            city: its name
        """
        return f"rain in {city}"

    return execute


@pytest.fixture
def face() -> Iterator[Face]:
    face = Face(is_async=True)
    yield face
    face.close()


API = pytest.mark.parametrize("responses", [False, True], ids=["chat", "responses"])
STREAMS = pytest.mark.parametrize("streams", [False, True], ids=["", "streamed"])


def model_of(client: Any, name: str = "gpt-4o-mini", *, responses: bool = False, streams: bool = False) -> Any:
    """Inspect's model, with its client replaced."""
    model = get_model(
        f"openai/{name}",
        base_url=str(client.base_url),
        api_key="sk-test",
        memoize=False,
        responses_api=responses,
        responses_store=False,
        streaming=streams,
    )
    model.api.client = client
    return model


@API
@STREAMS
def test_chat(face: Face, upstream: Upstream, responses: bool, streams: bool) -> None:
    def use(client: Any) -> Any:
        output = face.run(lambda: model_of(client, responses=responses, streams=streams).generate("ping"))
        return output.completion, output.usage.total_tokens

    assert agree(face, upstream, use) == ("pong 1", 12)
    assert upstream.seen[0].headers["x-irid"]


@API
@STREAMS
def test_tools(face: Face, upstream: Upstream, responses: bool, streams: bool) -> None:
    def use(client: Any) -> Any:
        async def main() -> str:
            model = model_of(client, responses=responses, streams=streams)
            said: list[Any] = [ChatMessageUser(content="What is the weather in Paris?")]
            output = await model.generate(said, tools=[weather()])
            said.append(output.message)
            for call in output.message.tool_calls:
                result = await ToolDef(weather()).tool(**call.arguments)
                said.append(ChatMessageTool(content=result, tool_call_id=call.id, function=call.function))
            return (await model.generate(said, tools=[weather()])).completion

        return face.run(main)

    assert agree(face, upstream, use, Assistant(functions={"weather": {"city": "Paris"}})) == "it says: rain in Paris"


@API
def test_structured(face: Face, upstream: Upstream, responses: bool) -> None:
    config = GenerateConfig(response_schema=ResponseSchema(name="person", json_schema=json_schema(Person)))

    def use(client: Any) -> Any:
        return face.run(lambda: model_of(client, responses=responses).generate("Ada is 36.", config=config)).completion

    assert Person.model_validate_json(agree(face, upstream, use, Assistant(fields=ADA))) == Person(**ADA)


def test_the_id_in_the_header(face: Face, upstream: Upstream) -> None:
    """A request id in a header, new for each request, does not make an equal request another one."""
    upstream.script = Assistant()
    client = face.client(upstream)
    model = model_of(client)
    said = [face.run(lambda: model.generate("ping")).completion for _ in range(3)]
    assert said == ["pong 1"] * 3
    assert upstream.calls == 1


def test_a_header_of_the_users(face: Face, upstream: Upstream) -> None:
    """One that is new for each request makes each a request of its own, unless the policy says otherwise."""
    upstream.script = Assistant()
    for ignored, calls in ((), 2), (("x-run",), 1):
        before = upstream.calls
        model = model_of(face.client(upstream, policy={"cache": {"ignore_headers": ignored, "name": f"x-run {calls}"}}))
        for run in range(2):
            config = GenerateConfig(extra_headers={"x-run": str(run)})
            face.run(functools.partial(model.generate, "ping", config=config))
        assert upstream.calls == before + calls


@solver
def each_epoch(inner: Solver) -> Solver:
    async def solve(state: TaskState, generate: Generate) -> TaskState:
        with farthing.options(sample=state.epoch):
            return await inner(state, generate)

    return solve


@modelapi(name="farthing-test")
def _api() -> Any:
    class FarthingAPI(OpenAIAPI):
        def _create_client(self) -> openai.AsyncOpenAI:
            policy = {"cache": {"name": "inspect"}}
            return farthing.AsyncOpenAI(api_key=self.api_key, base_url=self.base_url, policy=policy)

    return FarthingAPI


def evaluate(upstream: Upstream, tmp_path: Path, solver: Any, epochs: int) -> list[str]:
    """What the model said in each epoch."""
    (log,) = inspect_ai.eval(
        inspect_ai.Task(dataset=[Sample(input="ping", target="pong")], solver=solver, scorer=includes()),
        model="farthing-test/gpt-4o-mini",
        model_base_url=upstream.url,
        model_args={"api_key": "sk-test", "responses_api": False},
        epochs=epochs,
        display="none",
        log_dir=str(tmp_path),
    )
    assert log.status == "success"
    return [sample.output.completion for sample in log.samples]


def test_epochs_are_samples(upstream: Upstream, tmp_path: Path) -> None:
    upstream.script = Assistant()
    said = evaluate(upstream, tmp_path, each_epoch(generate()), epochs=3)
    assert sorted(said) == ["pong 1", "pong 2", "pong 3"]
    # The whole evaluation again, by a client that Inspect makes anew.
    assert sorted(evaluate(upstream, tmp_path, each_epoch(generate()), epochs=3)) == sorted(said)
    assert upstream.calls == 3


def test_epochs_that_say_nothing_share_one_answer(upstream: Upstream, tmp_path: Path) -> None:
    """What the page warns of."""
    upstream.script = Assistant()
    assert evaluate(upstream, tmp_path, generate(), epochs=3) == ["pong 1"] * 3
    assert upstream.calls == 1


def test_a_wrapped_client_of_inspects(face: Face, upstream: Upstream) -> None:
    """Its transport is a class of its own, which may be a mock as far as farthing can tell: right, but not cached."""
    upstream.script = Assistant()
    model = get_model("openai/gpt-4o-mini", base_url=upstream.url, api_key="sk-test", memoize=False)
    model.api.client = farthing.wrap(model.api.client)
    assert [face.run(lambda: model.generate("ping")).completion for _ in range(2)] == ["pong 1", "pong 2"]


@pytest.mark.local
def test_a_real_model(face: Face, local_server: LocalServer) -> None:
    config = GenerateConfig(temperature=0, seed=1, max_tokens=12)

    def use(client: Any) -> Any:
        models = (model_of(client, MODEL, streams=streams) for streams in (False, True))
        return [face.run(functools.partial(model.generate, "ping", config=config)).completion for model in models]

    plain, streamed = agree_locally(face, local_server, use)
    assert plain == streamed


def test_the_snippet(upstream: Upstream, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("INSPECT_LOG_DIR", str(tmp_path))
    monkeypatch.setenv("INSPECT_DISPLAY", "none")
    upstream.script = Assistant()
    names = run_snippet("inspect-ai", upstream, monkeypatch)
    assert sorted(sample.output.completion for sample in names["log"].samples) == ["pong 1", "pong 2", "pong 3"]
    assert upstream.calls == 3
