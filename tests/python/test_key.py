"""Which requests are the same request: pairs that must differ and pairs that must not, through the real client.

The properties of the encoding itself are in tests/rust/key.rs.
"""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from conftest import MESSAGES, Face
from openai.resources.chat import Completions
from openai.resources.embeddings import Embeddings
from openai.resources.responses import Responses
from upstream import Upstream

import farthing

USER = {"role": "user", "content": "ping"}


def tool(**parameters: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "f", "parameters": {"type": "object", **parameters}}}


# A value for each parameter of `chat.completions.create`, or a pair of values that must differ from each other.
CHAT: dict[str, tuple[Any, ...]] = {
    "messages": (
        [{"role": "system", "content": "ping"}],
        [{"role": "user", "content": "pong"}],
        [{"role": "user", "content": "ping "}],
        [USER, USER],
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
        [{"role": "assistant", "content": "b"}, {"role": "user", "content": "a"}],
        [{"role": "user", "content": "b"}, {"role": "assistant", "content": "a"}],
        [{"role": "user", "content": [{"type": "text", "text": "ping"}]}],
        [{**USER, "name": "ada"}],
        [{**USER, "cache_control": {"type": "ephemeral"}}],
    ),
    "model": ("another-model",),
    "audio": (),  # calls with effects, or state on the server: never looked up (test_cache.py)
    "store": (False,),
    "web_search_options": (),
    "frequency_penalty": (0.5, -0.5),
    "function_call": ("none", {"name": "f"}),
    "functions": ([{"name": "f"}], [{"name": "g"}]),
    "logit_bias": ({"1": 1}, {"1": 2}, {"2": 1}),
    "logprobs": (True, False),
    "max_completion_tokens": (10, 11),
    "max_tokens": (10, 11),
    "metadata": ({"a": "1"}, {"a": "2"}),
    "modalities": (["text"],),
    "moderation": ({"model": "omni-moderation-latest"},),
    "n": (1, 2),
    "parallel_tool_calls": (True, False),
    "prediction": ({"type": "content", "content": "a"}, {"type": "content", "content": "b"}),
    "presence_penalty": (0.5, -0.5),
    "prompt_cache_key": ("a", "b"),
    "prompt_cache_options": ({"mode": "explicit"}, {"mode": "implicit"}),
    "prompt_cache_retention": ("24h", "in_memory"),
    "reasoning_effort": ("low", "high"),
    "response_format": (
        {"type": "json_object"},
        {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}},
        {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "array"}}},
    ),
    "safety_identifier": ("a", "b"),
    "seed": (1, 2),
    "service_tier": ("auto", "flex", "priority"),
    "stop": ("a", ["a"], ["a", "b"], ["b", "a"]),
    "temperature": (0, 0.5, 1),
    "tool_choice": ("auto", "none", {"type": "function", "function": {"name": "f"}}),
    "tools": (
        [tool()],
        [tool(properties={})],
        [tool(properties={"a": {"type": "string"}})],
        [tool(properties={"b": {"type": "string"}})],
        [tool(properties={"a": {"type": "string"}}, required=["a"])],
        [tool(), tool(properties={})],
    ),
    "top_logprobs": (1, 2),
    "top_p": (0.5, 0.6),
    "user": ("a", "b"),
    "verbosity": ("low", "high"),
    "extra_body": ({"a": 1}, {"a": 2}, {"b": 1}, {"top_k": 1}, {"a": None}, {"a": "1"}, {"a": [1]}),
    "extra_query": ({"a": "1"}, {"a": "2"}),
    "extra_headers": ({"x-a": "1"}, {"x-a": "2"}, {"x-b": "1"}, {"authorization": "Bearer other"}),
}
DELIVERY = {"self", "stream", "stream_options", "timeout"}
RESPONSES: dict[str, tuple[Any, ...]] = {
    "access_programs": (["a"],),
    "background": (False,),
    "background_options": ({"a": 1},),
    "context_management": ([{"type": "compaction"}],),
    "conversation": (),
    "image": ({"a": 1},),
    "include": (["reasoning.encrypted_content"],),
    "input": ("pong", [USER], [{"role": "system", "content": "ping"}]),
    "instructions": ("a", "b"),
    "max_output_tokens": (16, 17),
    "max_tool_calls": (1, 2),
    "metadata": ({"a": "1"},),
    "model": ("another-model",),
    "moderation": ({"model": "omni-moderation-latest"},),
    "parallel_tool_calls": (True, False),
    "previous_response_id": (),
    "prompt": ({"id": "p", "version": "1"}, {"id": "p", "version": "2"}),
    "prompt_cache_key": ("a", "b"),
    "prompt_cache_options": ({"mode": "explicit"},),
    "prompt_cache_retention": ("24h",),
    "reasoning": ({"effort": "low"}, {"effort": "high"}),
    "safety_identifier": ("a",),
    "service_tier": ("flex", "auto"),
    "store": (False,),
    "temperature": (0, 1),
    "text": ({"verbosity": "low"}, {"format": {"type": "json_object"}}),
    "tool_choice": ("auto", "none"),
    "tools": ([{"type": "function", "name": "f", "parameters": {}, "strict": True}],),
    "top_logprobs": (1,),
    "top_p": (0.5,),
    "truncation": ("auto", "disabled"),
    "user": ("a",),
    "extra_body": ({"a": 1},),
    "extra_query": ({"a": "1"},),
    "extra_headers": ({"x-a": "1"},),
}
EMBEDDINGS: dict[str, tuple[Any, ...]] = {
    "input": ("pong", ["ping"], ["ping", "pong"], ["pong", "ping"], [1, 2], [[1, 2]]),
    "model": ("another-model",),
    "dimensions": (8, 16),
    "encoding_format": ("float",),
    "user": ("a",),
    "extra_body": ({"a": 1},),
    "extra_query": ({"a": "1"},),
    "extra_headers": ({"x-a": "1"},),
}
TABLES: dict[str, tuple[Any, dict[str, tuple[Any, ...]], dict[str, Any]]] = {
    "chat": (Completions, CHAT, {"model": "m", "messages": MESSAGES}),
    "responses": (Responses, RESPONSES, {"model": "m", "input": "ping"}),
    "embeddings": (Embeddings, EMBEDDINGS, {"model": "m", "input": "ping"}),
}


def create(face: Face, client: Any, endpoint: str, arguments: dict[str, Any]) -> Any:
    resource = client.chat.completions if endpoint == "chat" else getattr(client, endpoint)
    return face.run(lambda: resource.create(**arguments))


@pytest.mark.parametrize("endpoint", TABLES)
def test_the_table_has_every_parameter_of_the_sdk(endpoint: str) -> None:
    resource, table, _ = TABLES[endpoint]
    parameters = set(inspect.signature(resource.create).parameters) - DELIVERY
    assert not parameters - set(table), "give them values here; the key needs no change"


@pytest.mark.parametrize("endpoint", TABLES)
def test_every_parameter_makes_another_request(face: Face, upstream: Upstream, endpoint: str) -> None:
    resource, table, base = TABLES[endpoint]
    known = inspect.signature(resource.create).parameters
    table = {name: values for name, values in table.items() if name in known}
    client = face.client(upstream)
    create(face, client, endpoint, base)
    expected = 1
    # Twice each: the first half must all miss, the second all hit, whatever came between.
    for first in (True, False):
        for name, values in table.items():
            for value in values:
                made = create(face, client, endpoint, {**base, name: value})
                expected += first
                assert upstream.calls == expected, f"{name}={value!r}"
                assert farthing.receipt(made).outcome == ("miss" if first else "hit"), f"{name}={value!r}"  # type: ignore[union-attr]


SAME: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"temperature": 0}, {"temperature": 0.0}),
    ({"temperature": 1}, {"temperature": 1.0}),
    ({"temperature": 0.0}, {"temperature": -0.0}),
    ({"logit_bias": {"1": 1, "2": 2}}, {"logit_bias": {"2": 2, "1": 1}}),
    ({"messages": [{"role": "user", "content": "x"}]}, {"messages": [{"content": "x", "role": "user"}]}),
    ({"messages": [USER]}, {"messages": (USER,)}),
    ({"temperature": 0.5}, {"extra_body": {"temperature": 0.5}}),
    ({"stop": None}, {"stop": None}),
    ({}, {"timeout": 5}),
    ({}, {"extra_headers": {"traceparent": "00-1"}}),
    ({}, {"extra_headers": {"X-Request-ID": "1", "Baggage": "a=b", "tracestate": "x"}}),
    ({}, {"extra_headers": {"Idempotency-Key": "1"}}),
    ({}, {"extra_headers": {"User-Agent": "mine"}}),
    ({}, {"extra_body": {}}),
    ({}, {"extra_headers": {}, "extra_query": {}}),
    ({"user": "é"}, {"user": "\u00e9"}),
]


@pytest.mark.parametrize("pair", SAME, ids=str)
def test_pairs_that_are_one_request(
    face: Face, upstream: Upstream, pair: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    client = face.client(upstream)
    for arguments in (*pair, *pair):
        create(face, client, "chat", {"model": "m", "messages": MESSAGES, **arguments})
    assert upstream.calls == 1


def test_absent_is_absent(face: Face, upstream: Upstream) -> None:
    import openai

    client = face.client(upstream)
    for absent in ({}, {"temperature": openai.omit}, {"temperature": openai.NOT_GIVEN}, {"tools": openai.omit}):
        create(face, client, "chat", {"model": "m", "messages": MESSAGES, **absent})
    assert upstream.calls == 1
    create(face, client, "chat", {"model": "m", "messages": MESSAGES, "temperature": None})
    assert upstream.calls == 2, "null is sent, so it is another request"


def test_types_are_told_apart(face: Face, upstream: Upstream) -> None:
    client = face.client(upstream)
    values = [1, "1", True, None, [1], {"a": 1}, [], {}, "", 0, False, 1.5, "1.5", [[]], [None], 2**70, -1, "null"]
    for value in values:
        create(face, client, "chat", {"model": "m", "messages": MESSAGES, "extra_body": {"x": value}})
    assert upstream.calls == len(values)


def test_boundaries_do_not_move(face: Face, upstream: Upstream) -> None:
    client = face.client(upstream)
    lists = [["ab", "c"], ["a", "bc"], ["abc"], ["a", "b", "c"], [["a"], "bc"], ["a", ["bc"]]]
    for value in lists:
        create(face, client, "chat", {"model": "m", "messages": MESSAGES, "extra_body": {"x": value}})
    assert upstream.calls == len(lists)


CLIENTS: list[dict[str, Any]] = [
    {},
    {"api_key": "sk-other"},
    {"organization": "org-1"},
    {"organization": "org-2"},
    {"project": "project-1"},
    {"organization": "project-1"},
    {"default_headers": {"x-tenant": "1"}},
    {"default_query": {"a": "1"}},
]


def test_clients_with_different_identities_share_nothing(face: Face, upstream: Upstream) -> None:
    policy = {"cache": {"name": f"identities {upstream.url}"}}
    for _ in range(2):
        for options in CLIENTS:
            face.chat(face.client(upstream, policy=policy, **options))
    assert upstream.calls == len(CLIENTS)


def test_base_urls_share_nothing(face: Face, upstream: Upstream) -> None:
    policy = {"cache": {"name": f"urls {upstream.url}"}}
    other = Upstream()
    for _ in range(2):
        for url in (upstream.url, upstream.url + "/x", other.url):
            face.chat(face.client(url, policy=policy))
    assert (upstream.calls, other.calls) == (2, 1)
    other.close()


def test_endpoints_share_nothing(face: Face, upstream: Upstream) -> None:
    client = face.client(upstream)
    create(face, client, "responses", {"model": "m", "input": "ping"})
    create(face, client, "embeddings", {"model": "m", "input": "ping", "encoding_format": "float"})
    assert upstream.calls == 2


def test_a_named_scope_stands_in_for_the_tenant(face: Face, upstream: Upstream) -> None:
    policy = {"cache": {"scope": "team", "name": upstream.url}}
    for options in ({}, {"api_key": "sk-rotated"}, {"organization": "org-1"}):
        face.chat(face.client(upstream, policy=policy, **options))
    assert upstream.calls == 1
    face.chat(face.client(upstream, policy=policy, default_headers={"x-tenant": "1"}))
    assert upstream.calls == 2


def test_the_policy_can_ignore_a_header(face: Face, upstream: Upstream) -> None:
    client = face.client(upstream, policy={"cache": {"ignore_headers": ["X-Trace"], "name": upstream.url}})
    for value in ("1", "2"):
        face.chat(client, extra_headers={"x-trace": value})
    assert upstream.calls == 1
    assert upstream.seen[0].headers["x-trace"] == "1"


def test_keys_and_reports_hold_no_secret(face: Face, upstream: Upstream) -> None:
    client = face.client(upstream, api_key="sk-very-secret")
    made = face.chat(client)
    for shown in (client.savings(), client.cache.stats(), farthing.receipt(made), client.policy, client.cache):
        assert "very-secret" not in repr(shown) + str(shown)
