"""Equal requests in flight make one upstream call, whoever makes them."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
from typing import Any

import openai
import pytest
from conftest import MESSAGES, Face, text
from upstream import Reply, Seen, Upstream, answer, chat_events, late

import farthing

slow = late(0.3)


def ask(client: Any, **options: Any) -> Any:
    return client.chat.completions.create(model="m", messages=MESSAGES, **options)


def outcomes(answers: list[Any]) -> list[str | None]:
    return sorted(str(farthing.receipt(a).outcome) for a in answers)  # type: ignore[union-attr]


def test_many_callers_make_one_call(face: Face, upstream: Upstream) -> None:
    upstream.script = slow
    client = face.client(upstream)
    answers = face.together(*[lambda: ask(client)] * 8)
    assert upstream.calls == 1
    assert outcomes(answers) == ["joined"] * 7 + ["miss"]
    assert {a.choices[0].message.content for a in answers} == {"pong 1"}
    assert len({id(a) for a in answers}) == 8
    bill = client.savings()
    assert (bill.calls, bill.misses, bill.joined) == (8, 1, 7)
    assert (bill.prompt_tokens, bill.saved_prompt_tokens) == (9, 63)
    assert client.cache.stats()["in_flight"] == 0


def test_threads_and_tasks_share_one_call(upstream: Upstream) -> None:
    upstream.script = slow
    policy = {"cache": {"name": f"mixed {upstream.url}"}}
    sync, other = Face(False), Face(True)
    one, two = sync.client(upstream, policy=policy), other.client(upstream, policy=policy)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        threads = [pool.submit(ask, one) for _ in range(4)]
        tasks = other.together(*[lambda: ask(two)] * 4)
        answers = [t.result() for t in threads] + tasks
    other.close()
    assert upstream.calls == 1
    assert outcomes(answers) == ["joined"] * 7 + ["miss"]


def test_streams_and_plain_calls_share_one_call(face: Face, upstream: Upstream) -> None:
    upstream.script = lambda seen, number: Reply(pieces=chat_events("pong", usage=True), delay=0.2, pause=0.02)
    client = face.client(upstream)

    def streamed() -> Any:
        if not face.is_async:
            return text(list(ask(client, stream=True)))

        async def read() -> str:
            return text([chunk async for chunk in await ask(client, stream=True)])

        return read()

    def plain() -> Any:
        # A little later, so that the stream is the one that is shared.
        if not face.is_async:
            time.sleep(0.1)
            return ask(client).choices[0].message.content

        async def later() -> str:
            await asyncio.sleep(0.1)
            return str((await ask(client)).choices[0].message.content)

        return later()

    assert face.together(streamed, streamed, plain, plain) == ["pong"] * 4
    assert upstream.calls == 1


def test_a_stream_joins_a_plain_call(face: Face, upstream: Upstream) -> None:
    upstream.script = slow
    client = face.client(upstream)

    def later() -> Any:
        if not face.is_async:
            time.sleep(0.1)
            return text(list(ask(client, stream=True)))

        async def read() -> str:
            await asyncio.sleep(0.1)
            return text([chunk async for chunk in await ask(client, stream=True)])

        return read()

    first, second = face.together(lambda: ask(client), later)
    assert first.choices[0].message.content == second == "pong 1"
    assert upstream.calls == 1


def test_errors_reach_every_waiter_as_objects_of_their_own(face: Face, upstream: Upstream) -> None:
    upstream.script = lambda seen, number: Reply(429, {"error": {"message": "slow down", "code": "x"}}, delay=0.3)
    client = face.client(upstream)
    errors = face.together(*[lambda: ask(client)] * 6)
    assert upstream.calls == 1
    assert {type(e) for e in errors} == {openai.RateLimitError}
    assert len({id(e) for e in errors}) == len({id(e.response) for e in errors}) == 6
    assert {e.code for e in errors} == {"x"}
    assert client.savings().errors == 6


def test_ten_waiters_do_not_retry_ten_times(face: Face, upstream: Upstream) -> None:
    upstream.script = lambda seen, number: Reply(500, {}, {"retry-after-ms": "20"}, delay=0.2)
    client = face.client(upstream, max_retries=2)
    errors = face.together(*[lambda: ask(client)] * 10)
    assert {type(e) for e in errors} == {openai.InternalServerError}
    assert upstream.calls == 3


def test_a_dead_upstream_reaches_every_waiter(face: Face, upstream: Upstream) -> None:
    upstream.script = lambda seen, number: Reply(pieces=[], delay=0.2, cut=True, headers={"x": "y"})
    client = face.client(upstream)
    errors = face.together(*[lambda: ask(client)] * 4)
    assert upstream.calls == 1
    assert {type(e) for e in errors} == {openai.APIConnectionError}
    assert len({id(e) for e in errors}) == len({id(e.__cause__) for e in errors}) == 4


def test_the_first_caller_leaves_and_the_others_get_their_answer(upstream: Upstream) -> None:
    upstream.script = slow
    face = Face(True)
    client = face.client(upstream)

    async def main() -> list[Any]:
        first = asyncio.create_task(ask(client))
        await asyncio.sleep(0.1)
        others = [asyncio.create_task(ask(client)) for _ in range(3)]
        await asyncio.sleep(0.05)
        first.cancel()
        return await asyncio.gather(first, *others, return_exceptions=True)

    first, *others = face.run(main)
    face.close()
    assert isinstance(first, asyncio.CancelledError)
    assert {o.choices[0].message.content for o in others} == {"pong 1"}
    assert upstream.calls == 1
    assert client.savings().prompt_tokens == 9


def test_when_all_leave_the_connection_is_closed(upstream: Upstream) -> None:
    upstream.script = lambda seen, number: Reply(body={}, delay=10)
    face = Face(True)
    client = face.client(upstream)

    async def main() -> None:
        tasks = [asyncio.create_task(ask(client)) for _ in range(3)]
        await asyncio.sleep(0.2)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    face.run(main)
    assert upstream.aborted.wait(5)
    face.close()
    assert client.cache.stats()["in_flight"] == 0


def test_a_new_caller_does_not_board_a_cancelled_flight(upstream: Upstream) -> None:
    upstream.script = slow
    face = Face(True)
    client = face.client(upstream)

    async def main() -> Any:
        first = asyncio.create_task(ask(client))
        await asyncio.sleep(0.1)
        first.cancel()
        await asyncio.sleep(0.02)
        return await ask(client)

    assert face.run(main).choices[0].message.content == "pong 2"
    face.close()


def test_each_waiter_has_its_own_timeout(face: Face, upstream: Upstream) -> None:
    def script(seen: Seen, number: int) -> Reply:
        return Reply(body=answer(seen).body, delay=0.6)

    upstream.script = script
    client = face.client(upstream)
    patient, hasty = face.together(lambda: ask(client, timeout=5), lambda: ask(client, timeout=0.2))
    assert patient.choices[0].message.content == "pong"
    assert isinstance(hasty, openai.APITimeoutError)
    assert upstream.calls == 1


def test_samples_and_refreshes_fly_alone(face: Face, upstream: Upstream) -> None:
    upstream.script = slow
    client = face.client(upstream)

    def sampled(number: int) -> Any:
        return lambda: ask(client, extra_headers={"x-farthing-sample": str(number)})

    face.together(*[sampled(n) for n in range(3)])
    assert upstream.calls == 3
    face.together(*[lambda: ask(client, extra_headers={"x-farthing-cache": "refresh"})] * 3)
    assert upstream.calls == 6


def test_a_loop_that_closes_leaves_the_others_their_answer(upstream: Upstream) -> None:
    """The leader's event loop goes away while a thread waits for the same answer."""
    upstream.script = slow
    policy = {"cache": {"name": f"closing {upstream.url}"}}
    sync, other = Face(False), Face(True)
    one, two = sync.client(upstream, policy=policy), other.client(upstream, policy=policy)
    started = threading.Event()

    def leader() -> None:
        async def main() -> None:
            task = asyncio.ensure_future(ask(two))
            await asyncio.sleep(0.1)
            started.set()
            await asyncio.sleep(0.05)
            del task

        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
        loop.close()

    thread = threading.Thread(target=leader)
    thread.start()
    assert started.wait(5)
    made = ask(one)
    thread.join()
    other.close()
    assert made.choices[0].message.content.startswith("pong")


@pytest.mark.parametrize("callers", [64])
def test_under_load(face: Face, upstream: Upstream, callers: int) -> None:
    """Many callers, few different requests: each is asked once."""
    upstream.script = slow
    client = face.client(upstream)

    def one(number: int) -> Any:
        messages = [{"role": "user", "content": f"{number % 8}"}]
        return lambda: client.chat.completions.create(model="m", messages=messages)

    answers = face.together(*[one(n) for n in range(callers)])
    assert upstream.calls == 8
    assert all(not isinstance(a, BaseException) for a in answers)
    bill = client.savings()
    assert bill.calls == callers == bill.misses + bill.joined + bill.hits
    assert bill.misses == 8
