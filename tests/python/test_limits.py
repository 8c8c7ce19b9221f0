"""Limits of an upstream: calls at once, requests and tokens a minute, and what the upstream itself says is left."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from conftest import MESSAGES, Face
from upstream import Reply, Seen, Upstream, answer, chat_events

import farthing


class Crowd:
    """A server that counts how many calls it has at a time."""

    def __init__(self, delay: float = 0.05) -> None:
        self.now = self.most = 0
        self._lock = threading.Lock()
        self._delay = delay
        self.server = Upstream(self._script)

    def _script(self, seen: Seen, number: int) -> Reply:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
        threading.Event().wait(self._delay)
        with self._lock:
            self.now -= 1
        return answer(seen, f"pong {number}")


@pytest.fixture
def crowd() -> Iterator[Crowd]:
    made = Crowd()
    yield made
    made.server.close()


@pytest.fixture
def spare() -> Iterator[Upstream]:
    server = Upstream(lambda seen, number: answer(seen, "spare"))
    yield server
    server.close()


_numbers = iter(range(10**9))


def policy(url: str, spare: Upstream | None = None, **limits: Any) -> dict[str, Any]:
    upstreams = {"limited": {"base_url": url, **limits}}
    alias: dict[str, Any] = {"model": "m", "upstream": "limited"}
    if spare is not None:
        upstreams["spare"] = {"base_url": spare.url}
        alias["fallback"] = ["other"]
    aliases: dict[str, Any] = {"fast": alias}
    if spare is not None:
        aliases["other"] = {"model": "m", "upstream": "spare"}
    return {"cache": {"name": f"limits-{next(_numbers)}"}, "upstreams": upstreams, "aliases": aliases}


def calls(client: Any, count: int, **arguments: Any) -> list[Any]:
    create = client.chat.completions.create
    return [lambda seed=seed: create(model="fast", messages=MESSAGES, seed=seed, **arguments) for seed in range(count)]


@pytest.mark.parametrize("http", ["rust", "sdk"])
def test_so_many_at_once(face: Face, crowd: Crowd, http: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FARTHING_HTTP", http)
    client = face.client("http://unused/v1", policy=policy(crowd.server.url, concurrency=3))
    made = face.together(*calls(client, 16))
    assert all(isinstance(one, openai.types.chat.ChatCompletion) for one in made)
    assert crowd.server.calls == 16 and crowd.most == 3


def test_clients_share_an_upstreams_limits(face: Face, crowd: Crowd) -> None:
    parts = policy(crowd.server.url, concurrency=2)
    clients = [face.client("http://unused/v1", policy=parts, api_key=f"sk-{n}") for n in range(3)]
    together = [call for i, client in enumerate(clients) for call in calls(client, 4, temperature=i)]
    made = face.together(*together)
    assert all(isinstance(one, openai.types.chat.ChatCompletion) for one in made)
    assert crowd.server.calls == 12 and crowd.most == 2


def test_a_stream_is_a_call_until_its_end(face: Face, upstream: Upstream) -> None:
    ends = threading.Event()

    def pieces() -> Iterator[bytes]:
        first, *rest = chat_events()
        yield first
        ends.wait(20)
        yield from rest

    upstream.script = lambda seen, number: Reply(pieces=pieces()) if number == 1 else answer(seen)
    client = face.client("http://unused/v1", policy=policy(upstream.url, concurrency=1))
    stream = face.chat(client, model="fast", stream=True)
    with pytest.raises(openai.APITimeoutError):
        face.chat(client, model="fast", timeout=0.2, seed=1)
    assert upstream.calls == 1
    ends.set()
    face.items(stream)
    face.chat(client, model="fast", seed=1)
    assert upstream.calls == 2


def test_a_wait_that_cannot_end_in_time(face: Face, upstream: Upstream) -> None:
    client = face.client("http://unused/v1", policy=policy(upstream.url, requests_per_minute=1))
    face.chat(client, model="fast", seed=1)
    with pytest.raises(openai.APITimeoutError) as caught:
        face.chat(client, model="fast", seed=2, timeout=10)
    assert type(caught.value.__cause__).__name__ == "PoolTimeout"
    assert upstream.calls == 1 and client.savings().unanswered == 0
    # What is stored costs no limit.
    face.chat(client, model="fast", seed=1)


def test_a_wait_that_cannot_end_in_time_goes_on(face: Face, upstream: Upstream, spare: Upstream) -> None:
    client = face.client("http://unused/v1", policy=policy(upstream.url, spare, requests_per_minute=1), timeout=10)
    face.chat(client, model="fast", seed=1)
    made = face.chat(client, model="fast", seed=2)
    assert made.choices[0].message.content == "spare" and (upstream.calls, spare.calls) == (1, 1)


def test_tokens_a_minute(face: Face, upstream: Upstream) -> None:
    client = face.client("http://unused/v1", policy=policy(upstream.url, tokens_per_minute=600), timeout=5)
    with pytest.raises(openai.APITimeoutError):
        face.chat(client, model="fast", max_tokens=10_000)
    assert upstream.calls == 0
    face.chat(client, model="fast", max_tokens=50)
    with pytest.raises(openai.APITimeoutError):
        face.chat(client, model="fast", max_tokens=190)
    assert upstream.calls == 1


def test_what_the_upstream_says_is_left(face: Face, upstream: Upstream) -> None:
    def script(seen: Seen, number: int) -> Reply:
        reply = answer(seen, f"pong {number}")
        if number == 1:
            reply.headers = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1h0m0s"}
        return reply

    upstream.script = script
    client = face.client("http://unused/v1", policy=policy(upstream.url, concurrency=9), timeout=10)
    face.chat(client, model="fast", seed=1)
    with pytest.raises(openai.APITimeoutError):
        face.chat(client, model="fast", seed=2)
    assert upstream.calls == 1


def test_a_batch_does_not_run_into_429(face: Face) -> None:
    """A server that takes 5 requests in a fifth of a second, and says what is left."""
    lock, taken, opened = threading.Lock(), 0, 0.0
    refused = 0

    def script(seen: Seen, number: int) -> Reply:
        import time

        nonlocal taken, opened, refused
        with lock:
            now = time.monotonic()
            if now - opened >= 0.2:
                taken, opened = 0, now
            taken += 1
            left = 0.2 - (now - opened)
            headers = {"x-ratelimit-remaining-requests": str(max(5 - taken, 0))}
            headers["x-ratelimit-reset-requests"] = f"{max(round(left * 1000) + 1, 1)}ms"
            if taken > 5:
                refused += 1
                return Reply(429, {"error": {}}, headers)
        reply = answer(seen, f"pong {number}")
        reply.headers = headers
        return reply

    server = Upstream(script)
    client = face.client("http://unused/v1", policy=policy(server.url, concurrency=1))
    made = face.together(*calls(client, 20))
    assert all(isinstance(one, openai.types.chat.ChatCompletion) for one in made) and refused == 0
    server.close()


def test_without_limits_nothing_waits(face: Face, crowd: Crowd) -> None:
    client = face.client("http://unused/v1", policy=policy(crowd.server.url))
    face.together(*calls(client, 8))
    assert crowd.most > 3
    assert farthing.receipt(face.chat(client, model="fast")) is not None
