"""From one upstream to the next: when, whose key, what the caller gets, and what the books say."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import openai
import pytest
from conftest import MESSAGES, Face, text
from openai import _base_client
from upstream import Reply, Seen, Upstream, answer, chat, chat_events, event, response_events

import farthing

httpx: Any = getattr(_base_client, "httpx2", None) or _base_client.httpx
ERROR = {"error": {"message": "no", "type": "kind", "param": None, "code": "why"}}


class World:
    """Three servers with one model: `first` is the client's own upstream, the others are the policy's."""

    def __init__(self) -> None:
        self.first, self.second, self.third = (
            Upstream(lambda seen, number, name=name: answer(seen, name)) for name in ("first", "second", "third")
        )
        self.refusing = f"http://127.0.0.1:{_closed_port()}/v1"

    def close(self) -> None:
        for server in (self.first, self.second, self.third):
            server.close()

    def policy(self, **more: Any) -> dict[str, Any]:
        return {
            "cache": {"name": f"fallback-{next(_numbers)}"},
            "upstreams": {
                "second": {"base_url": self.second.url, "api_key": "sk-second"},
                "third": {"base_url": self.third.url, "api_key": "sk-third", "headers": {"x-third": "3"}},
                "gone": {"base_url": self.refusing},
            },
            "aliases": {
                "model-2": {"model": "real-2", "upstream": "second"},
                "model-3": {"model": "real-3", "upstream": "third"},
                "model-0": {"model": "real-0", "upstream": "gone", "fallback": ["model-3"]},
            },
            "models": {"test-model": {"fallback": ["model-2", "model-3"]}},
            **more,
        }

    def client(self, face: Face, **options: Any) -> Any:
        return face.client(self.first, **{"api_key": "sk-first", "policy": self.policy(), **options})

    @property
    def calls(self) -> tuple[int, int, int]:
        return self.first.calls, self.second.calls, self.third.calls

    def keys(self) -> set[str]:
        found = set()
        for name, server in (("first", self.first), ("second", self.second), ("third", self.third)):
            found |= {(name, seen.headers.get("authorization", "")) for seen in server.seen}
        return {f"{name}: {key}" for name, key in found}


def _closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


_numbers = iter(range(10**9))


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


def fails(status: int, **headers: str) -> Callable[[Seen, int], Reply]:
    return lambda seen, number: Reply(status, ERROR, {"retry-after-ms": "1", **headers})


def said(response: Any) -> str:
    return str(response.choices[0].message.content)


def attempts(response: Any) -> list[tuple[str, int | None, str | None]]:
    receipt = farthing.receipt(response)
    assert receipt is not None
    return [(attempt.upstream, attempt.status, attempt.error) for attempt in receipt.attempts]


@pytest.mark.parametrize("http", ["rust", "sdk"])
@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 529])
def test_what_another_upstream_can_cure(
    face: Face, world: World, status: int, http: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FARTHING_HTTP", http)
    world.first.script = fails(status)
    world.second.script = fails(503)
    made = face.chat(world.client(face, organization="org-first"))
    assert said(made) == "third" and world.calls == (1, 1, 1)
    assert attempts(made) == [("default", status, None), ("second", 503, None), ("third", 200, None)]
    assert world.keys() == {"first: Bearer sk-first", "second: Bearer sk-second", "third: Bearer sk-third"}
    assert world.third.seen[0].headers["x-third"] == "3"
    assert "openai-organization" not in world.second.seen[0].headers
    assert world.first.seen[0].headers["openai-organization"] == "org-first"
    assert [s.seen[0].json["model"] for s in (world.first, world.second, world.third)] == [
        "test-model",
        "real-2",
        "real-3",
    ]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422])
def test_what_is_wrong_with_the_request(face: Face, world: World, status: int) -> None:
    world.first.script = fails(status)
    with pytest.raises(openai.APIStatusError) as caught:
        face.chat(world.client(face))
    assert caught.value.status_code == status and world.calls == (1, 0, 0)


def test_no_connection(face: Face, world: World) -> None:
    made = face.chat(world.client(face), model="model-0")
    assert said(made) == "third"
    assert attempts(made) == [("gone", None, "connect_error"), ("third", 200, None)]


def test_no_answer_in_time(face: Face, world: World) -> None:
    world.first.script = lambda seen, number: Reply(delay=30)
    policy = world.policy()
    # The first upstream's patience is not the second's.
    policy["upstreams"]["second"]["timeout"] = 60
    made = face.chat(world.client(face, policy=policy, timeout=0.2))
    assert said(made) == "second" and attempts(made)[0] == ("default", None, "read_timeout")


def test_retries_come_first(face: Face, world: World) -> None:
    world.first.script = fails(503)
    world.second.script = fails(503)
    client = world.client(face, max_retries=2)
    assert said(face.chat(client)) == "third" and world.calls == (3, 3, 1)
    bill = client.savings()
    assert (bill.retries, bill.fallbacks, bill.hedges) == (4, 2, 0)
    assert "4 retries, 2 fallbacks" in str(bill)
    counts = [seen.headers["x-stainless-retry-count"] for seen in world.second.seen]
    assert counts == ["0", "1", "2"]


def test_the_upstreams_own_retries(face: Face, world: World) -> None:
    world.first.script = world.second.script = fails(503)
    policy = world.policy()
    policy["upstreams"]["second"]["max_retries"] = 1
    assert said(face.chat(world.client(face, policy=policy))) == "third" and world.calls == (1, 2, 1)


def test_a_retry_after_that_is_too_long(face: Face, world: World) -> None:
    world.first.script = lambda seen, number: Reply(429, ERROR, {"retry-after": "600"})
    assert said(face.chat(world.client(face, max_retries=3))) == "second" and world.calls[0] == 1


def test_a_retry_after_beyond_the_deadline(face: Face, world: World) -> None:
    world.first.script = lambda seen, number: Reply(429, ERROR, {"retry-after": "60"})
    policy = world.policy(fallback={"deadline": 30})
    assert said(face.chat(world.client(face, policy=policy, max_retries=3))) == "second" and world.calls[0] == 1


@pytest.mark.parametrize("retries", [0, 1])
def test_if_all_fail_the_first_says_why(face: Face, world: World, retries: int) -> None:
    world.first.script, world.second.script, world.third.script = fails(503), fails(500), fails(429)
    client = world.client(face, max_retries=retries)
    with pytest.raises(openai.InternalServerError) as caught:
        face.chat(client)
    assert caught.value.status_code == 503 and str(caught.value.request.url).startswith(world.first.url)
    assert world.calls == (1 + retries,) * 3
    bill = client.savings()
    assert (bill.errors, bill.fallbacks, bill.retries, bill.unanswered) == (1, 2, 3 * retries, 0)


def test_the_receipt_of_a_call_that_failed(world: World) -> None:
    world.first.script = world.second.script = world.third.script = fails(503)
    client = world.client(Face(False))
    with pytest.raises(openai.InternalServerError):
        client.chat.completions.create(model="test-model", messages=MESSAGES)
    receipt = client.last_receipt()
    assert [(a.upstream, a.model, a.status) for a in receipt.attempts] == [
        ("default", "test-model", 503),
        ("second", "real-2", 503),
        ("third", "real-3", 503),
    ]
    assert receipt.outcome == "error"


def test_one_deadline(face: Face, world: World) -> None:
    world.first.script = fails(500)
    world.second.script = lambda seen, number: Reply(delay=30)
    client = world.client(face, policy=world.policy(fallback={"deadline": 0.5}))
    began = time.monotonic()
    with pytest.raises(openai.InternalServerError):
        face.chat(client)
    assert time.monotonic() - began < 15 and world.calls == (1, 1, 0)
    assert client.savings().unanswered == 1


def test_a_fallbacks_answer_is_not_kept(face: Face, world: World) -> None:
    world.first.script = lambda seen, number: fails(503)(seen, number) if number < 3 else answer(seen, "first")
    client = world.client(face)
    assert [said(face.chat(client)) for _ in range(4)] == ["second", "second", "first", "first"]
    assert world.calls == (3, 2, 0)


def test_equal_calls_in_flight_share_a_fallback(face: Face, world: World) -> None:
    world.first.script = lambda seen, number: Reply(503, ERROR, delay=0.3)
    client = world.client(face)
    create = client.chat.completions.create
    calls = [lambda: create(model="test-model", messages=MESSAGES)] * 8
    assert {said(made) for made in face.together(*calls)} == {"second"}
    assert world.calls == (1, 1, 0)


@pytest.mark.parametrize("use", ["parse", "raw", "responses", "embeddings"])
def test_other_ways_of_calling(face: Face, world: World, use: str) -> None:
    world.first.script = fails(503)
    client = world.client(face)
    chats = client.chat.completions
    calls: dict[str, Callable[[], Any]] = {
        "parse": lambda: chats.parse(model="test-model", messages=MESSAGES),
        "raw": lambda: chats.with_raw_response.create(model="test-model", messages=MESSAGES),
        "responses": lambda: client.responses.create(model="test-model", input="ping"),
        "embeddings": lambda: client.embeddings.create(model="test-model", input="ping"),
    }
    made = face.run(calls[use])
    assert attempts(made) == [("default", 503, None), ("second", 200, None)] and world.calls == (1, 1, 0)
    assert world.keys() == {"first: Bearer sk-first", "second: Bearer sk-second"}


def test_back_to_the_clients_own(face: Face, world: World) -> None:
    """From an upstream of the policy, whose key must not come along."""
    world.second.script = fails(503)
    policy = world.policy(models={})
    policy["aliases"]["model-2"]["fallback"] = ["plain-model"]
    client = world.client(face, policy=policy, organization="org-first")
    assert said(face.chat(client, model="model-2", extra_headers={"x-trace": "1"})) == "first"
    assert world.keys() == {"first: Bearer sk-first", "second: Bearer sk-second"}
    seen = world.first.seen[0]
    assert (seen.json["model"], seen.headers["openai-organization"], seen.headers["x-trace"]) == (
        "plain-model",
        "org-first",
        "1",
    )


def test_adaptation_is_each_models_own(face: Face, world: World) -> None:
    world.first.script = world.second.script = fails(503)
    policy = world.policy(models={})
    policy["aliases"] = {
        "smart": {
            "model": "o9",
            "parameters": {"temperature": 1},
            "adapt": {"rename": {"max_tokens": "max_completion_tokens"}, "roles": {"system": "developer"}},
            "fallback": ["model-2", "model-3"],
        },
        "model-2": {"model": "real-2", "upstream": "second", "adapt": {"rename": {"max_tokens": "most"}}},
        "model-3": {
            "model": "real-3",
            "upstream": "third",
            "adapt": {"drop": ["max_tokens"]},
            "parameters": {"seed": 1},
        },
    }
    messages = [{"role": "system", "content": "brief"}, *MESSAGES]
    made = face.chat(world.client(face, policy=policy), model="smart", messages=messages, max_tokens=5)
    assert said(made) == "third"
    first, second, third = (server.seen[0].json for server in (world.first, world.second, world.third))
    assert (first["max_completion_tokens"], first["messages"][0]["role"]) == (5, "developer")
    assert (second["most"], second["messages"][0]["role"]) == (5, "system") and "max_completion_tokens" not in second
    assert "max_completion_tokens" not in third or third["max_tokens"] != 5
    assert (third["seed"], third["temperature"], third["messages"][0]["role"]) == (1, 1, "system")


def test_what_one_server_holds_no_other_knows(face: Face, world: World) -> None:
    world.first.script = fails(503)
    client = world.client(face)
    with pytest.raises(openai.InternalServerError):
        face.run(lambda: client.responses.create(model="test-model", input="more", previous_response_id="resp_1"))
    assert world.calls == (1, 0, 0)


def test_prices_are_those_of_who_answered(face: Face, world: World) -> None:
    world.first.script = fails(503)
    world.second.script = lambda seen, number: Reply(body=chat("second", model="real-2"))
    policy = world.policy()
    policy["models"] = {
        "test-model": {"input": 100, "output": 100, "fallback": ["model-2"]},
        "real-2": {"input": 1, "output": 2},
    }
    client = world.client(face, policy=policy)
    face.chat(client)
    assert client.savings().spent * 1_000_000 == 9 * 1 + 3 * 2


# Streams.


def test_a_stream_that_does_not_begin(face: Face, world: World) -> None:
    world.first.script = fails(503)
    assert text(face.stream(world.client(face))) == "second"


BROKEN = {
    "cut before the first byte": Reply(pieces=[], cut=True),
    "cut after the role": Reply(pieces=chat_events("first")[:1], cut=True),
    "ends after the role": Reply(pieces=chat_events("first")[:1]),
    "tells of an error": Reply(pieces=[*chat_events("first")[:1], event(ERROR)]),
}


@pytest.mark.parametrize("http", ["rust", "sdk"])
@pytest.mark.parametrize("how", BROKEN)
def test_a_stream_that_breaks_before_its_first_token(
    face: Face, world: World, how: str, http: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FARTHING_HTTP", http)
    world.first.script = lambda seen, number: BROKEN[how]
    client = world.client(face)
    chunks = face.stream(client)
    assert text(chunks) == "second" and world.calls == (1, 1, 0)
    # The first one's beginning is not shown.
    assert sum(bool(c.choices and c.choices[0].delta.role) for c in chunks) == 1
    bill = client.savings()
    assert bill.fallbacks == 1 and bill.misses == 1


def test_the_receipt_is_that_of_the_answer(face: Face, world: World) -> None:
    """Not of a stream that had begun at another upstream, although that costs something too."""
    world.first.script = lambda seen, number: BROKEN["tells of an error"]
    world.second.script = lambda seen, number: Reply(body=chat(model="real-2"))
    price = {"input": 1, "output": 2}
    models = {"test-model": {**price, "fallback": ["model-2"]}, "real-2": price}
    client = world.client(face, policy=world.policy(models=models))
    stream = face.chat(client, stream=True)
    face.items(stream)
    receipt = farthing.receipt(stream)
    assert receipt is not None and receipt.answered is not None
    assert (receipt.upstream, receipt.answered.model, receipt.model_answered) == ("second", "real-2", "real-2")
    assert receipt.cost == receipt.answered.cost and not receipt.estimated
    assert [attempt.ending for attempt in receipt.attempts] == ["abandoned", "answered"]
    assert client.savings().spent == sum(attempt.cost or 0 for attempt in receipt.attempts) > receipt.cost


def test_a_stream_that_breaks_later_is_not_begun_again(face: Face, world: World) -> None:
    world.first.script = lambda seen, number: Reply(pieces=chat_events("first")[:4], cut=True)
    client = world.client(face)
    stream = face.chat(client, stream=True)
    with pytest.raises((openai.APIConnectionError, httpx.RequestError)):
        face.items(stream)
    assert world.calls == (1, 0, 0)


def test_if_all_streams_break_the_first_is_shown(face: Face, world: World) -> None:
    world.first.script = lambda seen, number: BROKEN["tells of an error"]
    world.second.script = world.third.script = fails(503)
    stream = face.chat(world.client(face), stream=True)
    with pytest.raises(openai.APIError) as caught:
        face.items(stream)
    assert caught.value.message == "no" and world.calls == (1, 1, 1)


@pytest.mark.parametrize("cached", [True, False])
def test_a_stream_without_any_event(face: Face, world: World, cached: bool) -> None:
    """It says nothing, and so do the others: the caller gets what the first one said, and nobody waits for more."""
    world.first.script = lambda seen, number: Reply(pieces=[])
    world.second.script = world.third.script = fails(503)
    client = world.client(face, policy=world.policy(**({} if cached else {"cache": False})))
    assert face.stream(client) == []
    assert world.calls == (1, 1, 1)


def test_the_deadline_holds_for_the_last_stream(face: Face, world: World) -> None:
    world.first.script = world.second.script = fails(500)
    world.third.script = lambda seen, number: Reply(pieces=chat_events("third")[:1], linger=30)
    client = world.client(face, policy=world.policy(fallback={"deadline": 0.5}))
    began = time.monotonic()
    with pytest.raises(openai.InternalServerError):
        face.stream(client)
    assert time.monotonic() - began < 15 and world.calls == (1, 1, 1)


def test_a_stream_of_responses(face: Face, world: World) -> None:
    world.first.script = lambda seen, number: Reply(pieces=response_events("first")[:2], cut=True)
    client = world.client(face)
    events = face.items(face.run(lambda: client.responses.create(model="test-model", input="ping", stream=True)))
    assert events[-1].type == "response.completed" and world.calls == (1, 1, 0)
    assert sum(e.type == "response.created" for e in events) == 1


# Breakers.


def test_an_open_breaker_is_passed_by(face: Face, world: World) -> None:
    world.first.script = fails(503)
    policy = world.policy(fallback={"breaker": {"minimum": 3, "rest": 3600}})
    client = world.client(face, policy=policy)
    for temperature in range(6):
        assert said(face.chat(client, temperature=temperature)) == "second"
    assert world.calls == (3, 6, 0) and client.savings().fallbacks == 6


def test_a_breaker_that_rested_probes_and_closes(face: Face, world: World) -> None:
    world.first.script = lambda seen, number: fails(503)(seen, number) if number <= 2 else answer(seen, "first")
    policy = world.policy(fallback={"breaker": {"minimum": 2, "rest": 0.2}})
    client = world.client(face, policy=policy)
    answers = [said(face.chat(client, temperature=number)) for number in range(2)]
    assert answers == ["second"] * 2
    while said(face.chat(client, seed=next(_numbers))) != "first":
        time.sleep(0.02)
    assert said(face.chat(client, temperature=9)) == "first" and world.first.calls == 4


def test_a_probe_that_was_given_up(world: World) -> None:
    """Another caller may be the next; nobody waits for another rest."""
    world.first.script = lambda seen, number: (
        fails(503)(seen, number) if number <= 2 else replace(answer(seen, "first"), delay=30 * (number == 3))
    )
    policy = world.policy(fallback={"breaker": {"minimum": 2, "rest": 2}})
    client = farthing.AsyncOpenAI(api_key="sk-first", base_url=world.first.url, max_retries=0, policy=policy)

    async def ask(**more: Any) -> str:
        return said(await client.chat.completions.create(model="test-model", messages=MESSAGES, **more))

    async def main() -> None:
        assert [await ask(temperature=number) for number in range(2)] == ["second"] * 2
        calls: list[asyncio.Future[str]] = []
        while world.first.calls < 3:
            calls.append(asyncio.ensure_future(ask(seed=next(_numbers))))
            await asyncio.wait(calls[-1:], timeout=0.02)
        began = time.monotonic()
        for call in calls:
            call.cancel()
        while await ask(seed=next(_numbers)) != "first":
            await asyncio.sleep(0.01)
        assert time.monotonic() - began < 1.8

    asyncio.run(main())


def test_a_breaker_is_of_one_key(face: Face, world: World) -> None:
    """One key's used up quota says nothing about another key at the same host."""
    world.first.script = lambda seen, number: (
        fails(429)(seen, number) if seen.headers["authorization"] == "Bearer sk-used-up" else answer(seen, "first")
    )
    policy = world.policy(fallback={"breaker": {"minimum": 2}})
    used_up = world.client(face, api_key="sk-used-up", policy=policy)
    assert [said(face.chat(used_up, seed=number)) for number in range(3)] == ["second"] * 3
    assert world.first.calls == 2
    assert said(face.chat(world.client(face, policy=policy))) == "first"


def test_when_all_rest_the_first_is_tried(face: Face, world: World) -> None:
    world.first.script = world.second.script = world.third.script = fails(503)
    client = world.client(face, policy=world.policy(fallback={"breaker": {"minimum": 1, "rest": 3600}}))
    for number in range(3):
        with pytest.raises(openai.InternalServerError):
            face.chat(client, temperature=number)
    assert world.calls == (3, 1, 1)


# Hedging.


def hedged(world: World, **more: Any) -> dict[str, Any]:
    return world.policy(fallback={"hedge": {"percentile": 50, "minimum": 3}}, **more)


def warm(face: Face, client: Any, **arguments: Any) -> None:
    for number in range(3):
        face.chat(client, seed=1000 + number, **arguments)


def test_a_late_answer_has_a_second_try(face: Face, world: World) -> None:
    client = world.client(face, policy=hedged(world))
    warm(face, client)
    world.first.script = lambda seen, number: Reply(delay=30)
    made = face.chat(client)
    assert said(made) == "second" and world.calls == (4, 1, 0)
    bill = client.savings()
    # The loser may have been billed, and nobody will say how much.
    assert (bill.hedges, bill.unanswered, bill.errors) == (1, 1, 0)
    assert world.first.aborted.wait(10)
    assert {a.ending for a in farthing.receipt(made).attempts} == {"abandoned", "answered"}  # type: ignore[union-attr]


def test_a_second_try_at_the_same_upstream(face: Face, world: World) -> None:
    client = world.client(face, policy=hedged(world, models={}))
    warm(face, client, model="lonely")
    world.first.script = lambda seen, number: Reply(delay=30) if number == 4 else answer(seen, "again")
    assert said(face.chat(client, model="lonely")) == "again" and world.calls == (5, 0, 0)


def test_no_second_try_for_what_has_effects(face: Face, world: World) -> None:
    client = world.client(face, policy=hedged(world))
    warm(face, client)
    world.first.script = lambda seen, number: answer(seen, "slow")
    delayed = answer

    def slow(seen: Seen, number: int) -> Reply:
        reply = delayed(seen, "slow")
        reply.delay = 0.5
        return reply

    world.first.script = slow
    assert said(face.chat(client, store=True)) == "slow" and client.savings().hedges == 0


def test_hedging_is_off_by_default(face: Face, world: World) -> None:
    client = world.client(face)
    warm(face, client)

    def slow(seen: Seen, number: int) -> Reply:
        reply = answer(seen, "slow")
        reply.delay = 0.5
        return reply

    world.first.script = slow
    assert said(face.chat(client)) == "slow" and world.calls == (4, 0, 0)


def test_a_client_whose_key_is_made_for_each_request(face: Face, world: World) -> None:
    async def later() -> str:
        return "sk-first"

    world.first.script = fails(503)
    client = world.client(face, api_key=later if face.is_async else lambda: "sk-first")
    assert said(face.chat(client)) == "second"
    assert world.keys() == {"first: Bearer sk-first", "second: Bearer sk-second"}


def test_a_fallback_whose_function_gives_no_key(face: Face, world: World) -> None:
    def broken() -> str:
        raise RuntimeError("no vault")

    world.first.script = fails(503)
    policy = world.policy()
    policy["upstreams"]["second"]["api_key"] = broken
    made = face.chat(world.client(face, policy=policy))
    assert said(made) == "third" and world.calls == (1, 0, 1)
    assert farthing.receipt(made).notes == ("model-2 was left out: its upstream's api_key gave no key",)  # type: ignore[union-attr]


def test_the_books_of_a_file(face: Face, world: World, tmp_path: Any) -> None:
    world.first.script = fails(503)
    path = str(tmp_path / "cache.db")
    client = world.client(face, policy=world.policy(cache={"path": path}), max_retries=1)
    face.chat(client)
    client.cache.flush()
    from farthing.cache_file import report

    bill = json.loads(report(path, None, False, True))
    assert (bill["retries"], bill["fallbacks"], bill["hedges"]) == (1, 1, 0)
