"""litellm with a client of the user's: always by raw responses, always with a timeout, and past `create`."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import Face
from pydantic import BaseModel
from support import MODEL, agree, agree_locally, library, repeated, run_snippet
from upstream import Assistant, Reply, Upstream

import farthing
from farthing.local import LocalServer

litellm = library("litellm")

ADA = {"name": "Ada", "age": 36}
QUESTION = [{"role": "user", "content": "ping"}]
WEATHER = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}


class Person(BaseModel):
    name: str
    age: int


def complete(face: Face, client: Any, **more: Any) -> Any:
    asked = {"model": "openai/gpt-4o-mini", "messages": QUESTION, "client": client, **more}
    return face.run(lambda: litellm.acompletion(**asked) if face.is_async else litellm.completion(**asked))


def text(chunks: list[Any]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def test_chat(face: Face, upstream: Upstream) -> None:
    def use(client: Any) -> Any:
        answer = complete(face, client)
        return answer.choices[0].message.content, answer.usage.total_tokens

    assert agree(face, upstream, use) == ("pong 1", 12)


def test_streamed(face: Face, upstream: Upstream) -> None:
    def use(client: Any) -> Any:
        return text(face.items(complete(face, client, stream=True)))

    assert agree(face, upstream, use) == "pong 1"


@pytest.mark.parametrize("streams", [False, True], ids=["", "streamed"])
def test_tools(face: Face, upstream: Upstream, streams: bool) -> None:
    def use(client: Any) -> Any:
        more = {"tools": [WEATHER], "stream": streams}
        answer = complete(face, client, **more)
        if streams:
            answer = litellm.stream_chunk_builder(face.items(answer))
        message = answer.choices[0].message
        (call,) = message.tool_calls
        said = {"role": "tool", "tool_call_id": call.id, "content": f"rain, {call.function.arguments}"}
        messages = [*QUESTION, message.model_dump(), said]
        return complete(face, client, tools=[WEATHER], messages=messages).choices[0].message.content

    functions = {"weather": {"city": "Paris"}}
    assert agree(face, upstream, use, Assistant(functions=functions)) == 'it says: rain, {"city": "Paris"}'


def test_structured(face: Face, upstream: Upstream) -> None:
    def use(client: Any) -> Any:
        return complete(face, client, response_format=Person).choices[0].message.content

    assert Person.model_validate_json(agree(face, upstream, use, Assistant(fields=ADA))) == Person(**ADA)


def test_embeddings(face: Face, upstream: Upstream) -> None:
    def use(client: Any) -> Any:
        asked = {"model": "openai/text-embedding-3-small", "input": ["ping", "pong"], "client": client}
        made = face.run(lambda: litellm.aembedding(**asked) if face.is_async else litellm.embedding(**asked))
        return [item["embedding"] for item in made.data]

    assert agree(face, upstream, use) == [[0.25, -1.5, 3.0]] * 2


def test_it_says_whether_it_was_a_hit(face: Face, upstream: Upstream) -> None:
    upstream.script = Assistant()
    client = face.client(upstream)
    answers = [complete(face, client) for _ in range(2)]
    hidden = [answer._hidden_params["additional_headers"] for answer in answers]
    assert [headers.get("llm_provider-x-farthing-cache") for headers in hidden] == [None, "hit"]


def test_a_wrapped_client(face: Face, upstream: Upstream) -> None:
    """litellm sets `max_retries` on the client it is given; the original keeps its own."""
    upstream.script = Assistant()
    original = face.client(upstream, plain=True, max_retries=7)
    client = farthing.wrap(original, policy={"cache": {"name": f"litellm, wrapped {face.is_async}"}})
    use = lambda: complete(face, client, num_retries=0, max_retries=1).choices[0].message.content  # noqa: E731
    assert use() == repeated(client, use, lambda: upstream.calls) == "pong 1"
    assert original.max_retries == 7


def test_errors(face: Face, upstream: Upstream) -> None:
    upstream.script = lambda seen, number: Reply(429, {"error": {"message": "slowly", "code": "rate_limit_exceeded"}})
    errors = []
    for plain in (True, False):
        with pytest.raises(litellm.RateLimitError) as caught:
            complete(face, face.client(upstream, plain=plain), max_retries=0)
        errors.append((str(caught.value), caught.value.status_code, upstream.calls))
    assert errors[0][:2] == errors[1][:2]
    assert errors[1][2] == 2 * errors[0][2]


@pytest.mark.local
def test_a_real_model(face: Face, local_server: LocalServer) -> None:
    asked = {"model": f"openai/{MODEL}", "temperature": 0, "seed": 1, "max_tokens": 12}

    def use(client: Any) -> Any:
        plain = complete(face, client, **asked).choices[0].message.content
        return plain, text(face.items(complete(face, client, **asked, stream=True)))

    plain, streamed = agree_locally(face, local_server, use)
    assert plain == streamed


def test_the_snippet(upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    upstream.script = Assistant()
    names = run_snippet("litellm", upstream, monkeypatch)
    assert names["answer"].choices[0].message.content == "pong 1"
    assert upstream.calls == 1
