"""instructor: structured answers by tools or by a schema, with retries of its own."""

from __future__ import annotations

import json
from typing import Any

import pytest
from conftest import Face
from pydantic import BaseModel, field_validator
from support import MODEL, agree, agree_locally, library, repeated, run_snippet
from upstream import Assistant, Reply, Seen, Upstream, answer

import farthing
from farthing.local import LocalServer

instructor = library("instructor")

ASKED = {"model": "test-model", "messages": [{"role": "user", "content": "Ada is 36."}]}
ADA = {"name": "Ada", "age": 36}


class Person(BaseModel):
    name: str
    age: int

    @field_validator("age")
    @classmethod
    def _old_enough(cls, age: int) -> int:
        if age < 0:
            raise ValueError("nobody is that young")
        return age


MODES = [instructor.Mode.TOOLS, instructor.Mode.JSON, instructor.Mode.JSON_SCHEMA, instructor.Mode.RESPONSES_TOOLS]


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
def test_structured(face: Face, upstream: Upstream, mode: Any) -> None:
    def use(client: Any) -> Any:
        made = instructor.from_openai(client, mode=mode)
        return face.run(lambda: made.create(response_model=Person, **ASKED)).model_dump()

    assert agree(face, upstream, use, Assistant(functions={"Person": ADA}, fields=ADA)) == ADA


@pytest.mark.parametrize("mode", MODES[:2], ids=lambda mode: mode.name)
def test_streamed(face: Face, upstream: Upstream, mode: Any) -> None:
    def use(client: Any) -> Any:
        made = instructor.from_openai(client, mode=mode)
        # Sync or async, it is the caller who iterates.
        stream = made.create_partial(response_model=Person, **ASKED)
        return face.items(stream)[-1].model_dump()

    assert agree(face, upstream, use, Assistant(functions={"PartialPerson": ADA}, fields=ADA)) == ADA


def test_the_completion_has_its_receipt(face: Face, upstream: Upstream) -> None:
    upstream.script = Assistant(functions={"Person": ADA})
    made = instructor.from_openai(face.client(upstream))
    outcomes = []
    for _ in range(2):
        person, completion = face.run(lambda: made.create_with_completion(response_model=Person, **ASKED))
        assert person.model_dump() == ADA
        outcomes.append(farthing.receipt(completion).outcome)
    assert outcomes == ["miss", "hit"]


def test_without_a_model(face: Face, upstream: Upstream) -> None:
    def use(client: Any) -> Any:
        made = instructor.from_openai(client)
        return face.run(lambda: made.create(response_model=None, **ASKED)).choices[0].message.content

    assert agree(face, upstream, use) == "pong 1"


def test_a_retry_is_another_request(face: Face, upstream: Upstream) -> None:
    """The answer that did not validate is in the messages of the second try, so the cache does not give it again."""

    def script(seen: Seen, number: int) -> Reply:
        tried = any(message.get("tool_calls") for message in seen.json["messages"])
        given = ADA if tried else {**ADA, "age": -1}
        return answer(seen, calls=[(f"call_{number}", "Person", json.dumps(given))])

    def use(client: Any) -> Any:
        made = instructor.from_openai(client)
        return face.run(lambda: made.create(response_model=Person, max_retries=3, **ASKED)).model_dump()

    assert agree(face, upstream, use, script) == ADA
    assert upstream.calls == 2
    assert "nobody is that young" in upstream.seen[1].body.decode()


def test_a_wrapped_client(face: Face, upstream: Upstream) -> None:
    upstream.script = Assistant(functions={"Person": ADA})
    client = farthing.wrap(face.client(upstream, plain=True), policy={"cache": {"name": "instructor, wrapped"}})
    made = instructor.from_openai(client)
    use = lambda: face.run(lambda: made.create(response_model=Person, **ASKED)).model_dump()  # noqa: E731
    assert use() == repeated(client, use, lambda: upstream.calls) == ADA
    assert upstream.calls == 1


@pytest.mark.local
def test_a_real_model(face: Face, local_server: LocalServer) -> None:
    asked = {"model": MODEL, "temperature": 0, "seed": 1, "max_tokens": 12, "messages": ASKED["messages"]}

    def use(client: Any) -> Any:
        made = instructor.from_openai(client)
        plain = face.run(lambda: made.create(response_model=None, **asked)).choices[0].message.content
        chunks = face.items(face.run(lambda: made.create(response_model=None, stream=True, **asked)))
        return plain, "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)

    plain, streamed = agree_locally(face, local_server, use)
    assert plain == streamed


def test_the_snippet(upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    upstream.script = Assistant(functions={"Person": ADA})
    names = run_snippet("instructor", upstream, monkeypatch)
    assert names["person"].name == "Ada"
    assert upstream.calls == 1
