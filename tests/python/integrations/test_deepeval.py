"""deepeval: it takes no client and makes one for each call; a subclass of its model gives it ours."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import Face
from pydantic import BaseModel
from support import MODEL, agree, agree_locally, library, run_snippet
from upstream import Assistant, Upstream

import farthing
from farthing.local import LocalServer

library("deepeval")
import deepeval.models.llms.openai_model as module
from deepeval.metrics import GEval
from deepeval.models import OpenAIModel
from deepeval.test_case import LLMTestCase, SingleTurnParams

ADA = {"name": "Ada", "age": 36}
JUDGE = Assistant('{"score": 8, "reason": "good"}', fields={"steps": ["Look at it."]})


class Person(BaseModel):
    name: str
    age: int


class Model(OpenAIModel):
    """deepeval's model with a client of ours."""

    def __init__(self, client: Any, name: str = "gpt-4o-mini", **more: Any) -> None:
        self.client = client
        super().__init__(model=name, api_key="none", **more)

    def load_model(self, async_mode: bool = False) -> Any:
        return self.client


def asked(face: Face, model: Any, *arguments: Any) -> Any:
    return face.run(lambda: (model.a_generate if face.is_async else model.generate)(*arguments))


def test_chat(face: Face, upstream: Upstream) -> None:
    assert agree(face, upstream, lambda client: asked(face, Model(client), "ping"))[0] == "pong 1"


@pytest.mark.parametrize("name", ["gpt-4o-mini", "gpt-4", "gpt-3.5-turbo"])
def test_structured(face: Face, upstream: Upstream, name: str) -> None:
    """By `parse` with a schema, by `parse` with an object, by reading what was said."""

    def use(client: Any) -> Any:
        return asked(face, Model(client, name), "Ada is 36.", Person)[0].model_dump()

    assert agree(face, upstream, use, Assistant(fields=ADA, text='{"name": "Ada", "age": 36}')) == ADA


def test_a_metric(face: Face, upstream: Upstream) -> None:
    """A judged test: the steps are made once, the verdict is asked with log probabilities."""
    case = LLMTestCase(input="ping", actual_output="pong")

    def use(client: Any) -> Any:
        metric = GEval(
            name="kindness",
            criteria="Is the output kind?",
            evaluation_params=[SingleTurnParams.ACTUAL_OUTPUT],
            model=Model(client),
            async_mode=face.is_async,
        )
        measure = metric.a_measure if face.is_async else metric.measure
        return face.run(lambda: measure(case, _show_indicator=False))

    assert agree(face, upstream, use, JUDGE) == 0.8
    assert upstream.calls == 2


def test_names_replaced_in_the_module(face: Face, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other way: it makes a farthing client for each call, and they share one cache."""
    monkeypatch.setattr(module, "OpenAI", farthing.OpenAI)
    monkeypatch.setattr(module, "AsyncOpenAI", farthing.AsyncOpenAI)
    upstream.script = Assistant()
    before = farthing.savings().hits
    model = OpenAIModel(model="gpt-4o-mini", api_key="none", base_url=upstream.url)
    assert [asked(face, model, "ping")[0] for _ in range(3)] == ["pong 1"] * 3
    assert upstream.calls == 1
    assert farthing.savings().hits == before + 2


@pytest.mark.local
def test_a_real_model(face: Face, local_server: LocalServer) -> None:
    """deepeval never streams."""

    def use(client: Any) -> Any:
        model = Model(client, MODEL, temperature=0, generation_kwargs={"seed": 1, "max_tokens": 12})
        return asked(face, model, "ping")[0]

    agree_locally(face, local_server, use)


def test_the_snippet(upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    upstream.script = JUDGE
    names = run_snippet("deepeval", upstream, monkeypatch)
    assert names["metric"].score == 0.8
    assert upstream.calls == 2
