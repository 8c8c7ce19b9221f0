"""Thousands of calls over three upstreams that fail in every way: each ends in a right answer or the SDK's exception,
nothing hangs, and what the servers billed is in the books, measured or listed as unknown."""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import random
import threading
from collections import Counter
from decimal import Decimal
from typing import Any

import openai
import pytest
from upstream import Reply, Seen, Upstream, chat, chat_events

import farthing

CALLS, IN_FLIGHT = 2000, 64
PRICE = {"input": 1, "output": 2}
UNIT = Decimal(9 * 1 + 3 * 2) / 1_000_000
ERROR = {"error": {"message": "no"}}
# Of a hundred requests; the rest are answered.
WAYS = {"500": 8, "503 burst": 4, "429": 4, "429 with a wish": 4, "refused late": 2, "hangs": 1, "cut": 4, "no head": 4}


class Flaky:
    """A server that fails by dice of its own; counts what it bills, or would."""

    def __init__(self, seed: int) -> None:
        self._dice = random.Random(seed)
        self._lock = threading.Lock()
        self._burst = 0
        self.ways: Counter[str] = Counter()
        self.billed = 0
        self.server = Upstream(self._script)

    def _way(self) -> str:
        if self._burst:
            self._burst -= 1
            return "503"
        way = self._dice.choices([*WAYS, "answers"], [*WAYS.values(), 100 - sum(WAYS.values())])[0]
        if way == "503 burst":
            self._burst = 6
        return way

    def _script(self, seen: Seen, number: int) -> Reply:
        with self._lock:
            way = self._way()
            at = self._dice.randrange(4)
            self.ways[way] += 1
            # What was answered with an error status costs nothing; all else may.
            self.billed += way in ("answers", "hangs", "cut", "no head")
        body = seen.json
        text = f"echo {body['messages'][0]['content']}"
        model = self._dice.choice(["test-model", "test-model-2026-01-01"])
        if way in ("500", "503", "503 burst", "refused late"):
            status = 500 if way == "500" else 503
            return Reply(status, ERROR, {"retry-after-ms": "1"}, delay=0.02 if way == "refused late" else 0)
        if way == "429":
            return Reply(429, ERROR, {"retry-after-ms": "0.1"})
        if way == "429 with a wish":
            return Reply(429, ERROR, {"retry-after": "0.01"})
        if way == "hangs":
            return Reply(body={}, delay=60)
        if way == "no head":
            return Reply(cut_before=True)
        if body.get("stream"):
            usage = bool((body.get("stream_options") or {}).get("include_usage"))
            pieces = chat_events(text, usage=usage, model=model)
            return Reply(pieces=pieces[:at], cut=True) if way == "cut" else Reply(pieces=pieces)
        return Reply(cut_before=True) if way == "cut" else Reply(body=chat(text, model=model))


_numbers = itertools.count()


def policy(servers: list[Flaky], **fallback: Any) -> dict[str, Any]:
    names = ("a", "b", "c")
    rest = {"breaker": {"minimum": 20, "failures": 0.6, "rest": 0.1}, **fallback}
    return {
        "cache": {"name": f"chaos-{next(_numbers)}"},
        "upstreams": {n: {"base_url": s.server.url, "api_key": f"sk-{n}"} for n, s in zip(names, servers, strict=True)},
        "aliases": {n: {"model": "test-model", "upstream": n} for n in names[1:]},
        "models": {
            "test-model": {**PRICE, "upstream": "a", "fallback": ["b", "c"]},
            "test-model-2026-01-01": PRICE,
        },
        "fallback": rest,
    }


def asked(number: int) -> dict[str, Any]:
    messages = [{"role": "user", "content": f"number {number}"}]
    return {"model": "test-model", "messages": messages, "stream": number % 3 == 0}


def joined(chunks: list[Any]) -> str:
    return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)


def one(client: Any, number: int) -> str:
    made = client.chat.completions.create(**asked(number))
    return joined(list(made)) if number % 3 == 0 else made.choices[0].message.content


async def one_async(client: Any, number: int) -> str:
    made = await client.chat.completions.create(**asked(number))
    return joined([c async for c in made]) if number % 3 == 0 else made.choices[0].message.content


def run_threads(parts: dict[str, Any], **options: Any) -> tuple[list[Any], farthing.Savings]:
    client = farthing.OpenAI(policy=parts, **options)
    with concurrent.futures.ThreadPoolExecutor(IN_FLIGHT) as pool:
        futures = [pool.submit(one, client, number) for number in range(CALLS)]
        return [future.exception() or future.result() for future in futures], client.savings()


def run_async(parts: dict[str, Any], **options: Any) -> tuple[list[Any], farthing.Savings]:
    async def main() -> tuple[list[Any], farthing.Savings]:
        client, room = farthing.AsyncOpenAI(policy=parts, **options), asyncio.Semaphore(IN_FLIGHT)

        async def call(number: int) -> Any:
            async with room:
                return await one_async(client, number)

        results = await asyncio.gather(*map(call, range(CALLS)), return_exceptions=True)
        return results, client.savings()

    return asyncio.run(main())


@pytest.mark.once
@pytest.mark.timeout(240)
@pytest.mark.parametrize("hedge", [False, True], ids=["", "hedged"])
@pytest.mark.parametrize("run", [run_threads, run_async], ids=["threads", "async"])
def test_chaos(run: Any, hedge: bool) -> None:
    servers = [Flaky(seed) for seed in (1, 2, 3)]
    parts = policy(servers, hedge={"percentile": 97, "minimum": 50} if hedge else False)
    results, bill = run(parts, base_url="http://127.0.0.1:9/v1", api_key="sk-none", timeout=5, max_retries=1)
    for server in servers:
        server.server.close()

    failed = [result for result in results if isinstance(result, BaseException)]
    strange = [error for error in failed if not isinstance(error, openai.APIError | httpx_errors())]
    assert not strange, strange[:3]
    assert all(r == f"echo number {n}" for n, r in enumerate(results) if not isinstance(r, BaseException))
    # Three upstreams seldom fail together; a stream that breaks off later is not made good.
    assert len(failed) < CALLS * 0.06, Counter(map(repr, failed)).most_common(5)

    assert bill.calls == CALLS and bill.fallbacks > 0 and bill.retries > 0
    assert all(server.server.calls > 0 for server in servers) and len(servers[0].ways) == len(WAYS) + 2
    for server, key in zip(servers, ("sk-a", "sk-b", "sk-c"), strict=True):
        assert {seen.headers["authorization"] for seen in server.server.seen} == {f"Bearer {key}"}

    billed = sum(server.billed for server in servers)
    charges = bill.by_stage["upstream"].calls
    if hedge:
        # A second try that was cancelled on its way may not have arrived: it is listed all the same.
        assert bill.hedges > 0 and billed <= charges + bill.unanswered <= billed + bill.hedges
    else:
        assert billed == charges + bill.unanswered
    measured = (bill.spent - bill.estimated_spent) / UNIT
    assert measured == int(measured) and 0 < measured <= charges and bill.estimated_spent > 0
    assert not bill.unknown_prices


def httpx_errors() -> Any:
    """What older SDKs let through where a stream breaks off."""
    from openai import _base_client

    module: Any = getattr(_base_client, "httpx2", None) or _base_client.httpx
    return module.HTTPError
