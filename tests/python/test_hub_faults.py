"""What an event loop and its queue have to survive: dead transports, cancelled calls, loops that are let go; and what a
caller's own connections have to notice."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
import time
from typing import Any

import openai
import pytest
from conftest import MESSAGES, Face
from upstream import Reply, Seen, Upstream, answer, chat, chat_events

import farthing
from farthing import answers

pytestmark = pytest.mark.once
unix = pytest.mark.skipif(sys.platform == "win32", reason="file descriptors as on Unix")


def client_of(upstream: Upstream, **options: Any) -> Any:
    return farthing.AsyncOpenAI(base_url=upstream.url, api_key="k", max_retries=0, **options)


async def ask(client: Any, text: str = "ping") -> Any:
    return await client.chat.completions.create(model="m", messages=[{"role": "user", "content": text}])


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@unix
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_dead_transport_with_the_number_of_our_socket(upstream: Upstream) -> None:
    """A collection closes a transport's socket and revives the transport, which has the loop forget its number."""

    async def main() -> int:
        loop = asyncio.get_running_loop()
        # For the other end of our pair, which comes first.
        spare = os.open(os.devnull, os.O_RDONLY)
        dead = openai.AsyncOpenAI(base_url=upstream.url, api_key="k")
        await ask(dead)
        pool: Any = dead._client._transport._pool  # type: ignore[attr-defined]
        number: int = max(c._connection._network_stream._stream._transport._sock_fd for c in pool._connections)
        del dead, pool
        gc.collect()
        taken = []
        while (fd := os.open(os.devnull, os.O_RDONLY)) < number:
            taken.append(fd)
        os.close(fd)
        os.close(spare)
        try:
            client = client_of(upstream)
            # Not in a task of its own: the collection falls into the very step that makes the queue.
            me = asyncio.current_task()
            assert me is not None
            limit = loop.call_later(10, me.cancel)
            await ask(client, "a")
            await ask(client, "b")
            limit.cancel()
            return abs((answers.queue_of(loop).fileno() or 0) - number)
        finally:
            for fd in taken:
                os.close(fd)

    gc.collect()
    gc.disable()
    try:
        assert asyncio.run(main()) == 0, "the socket did not get the number that this is about"
    finally:
        gc.enable()


@unix
def test_taken_off_the_loop_with_calls_in_flight(upstream: Upstream) -> None:
    upstream.script = lambda seen, number: Reply(body=chat(), delay=0.2)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        client = client_of(upstream)
        calls = [asyncio.ensure_future(ask(client, str(n))) for n in range(5)]
        for _ in range(3):
            await asyncio.sleep(0.04)
            loop.remove_reader(answers.queue_of(loop).fileno())  # type: ignore[arg-type]
        await asyncio.wait_for(asyncio.gather(*calls), 10)

    asyncio.run(main())


def test_cancelled_calls_leave_nothing_behind(upstream: Upstream) -> None:
    upstream.script = lambda seen, number: Reply(body=chat(), delay=0.05)

    async def main() -> int:
        client = client_of(upstream)
        for n in range(200):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(ask(client, str(n)), 0.001)
        stream = await client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
        await stream.close()
        gc.collect()
        return sum(isinstance(found, asyncio.Future) for found in gc.get_objects())

    assert asyncio.run(main()) < 50


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts files in /proc")
@pytest.mark.parametrize("how", ["cancelled", "closed with calls in flight", "never closed"])
def test_loops_are_let_go(upstream: Upstream, how: str) -> None:
    upstream.script = lambda seen, number: Reply(body=chat(), delay=0.02)
    client = client_of(upstream)

    def once(n: int) -> None:
        loop = asyncio.new_event_loop()
        task = loop.create_task(ask(client, f"{how} {n}"))
        loop.run_until_complete(asyncio.sleep(0.002))
        if how == "cancelled":
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                loop.run_until_complete(task)
        elif how == "never closed":
            loop.run_until_complete(task)
            return
        else:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
        loop.close()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio.BaseEventLoop, "__del__", lambda loop: loop.is_closed() or loop.close())
        once(-1)
        gc.collect()
        before = open_files()
        for n in range(40):
            once(n)
        end = time.monotonic() + 10
        while open_files() > before + 10 and time.monotonic() < end:
            gc.collect()
            time.sleep(0.05)
        assert open_files() <= before + 10


def test_a_loop_that_cannot_watch(upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    upstream.script = lambda seen, number: Reply(delay=0.5) if b"slow" in seen.body else answer(seen)

    def refuses(*_: Any) -> None:
        raise NotImplementedError

    async def main() -> None:
        client = client_of(upstream)
        await asyncio.gather(*(ask(client, str(n)) for n in range(50)))
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(ask(client, "slow"), 0.001)
        stream = await client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
        assert len([chunk async for chunk in stream]) > 3

    loop = asyncio.new_event_loop()
    monkeypatch.setattr(loop, "add_reader", refuses)
    loop.run_until_complete(main())
    loop.close()


@pytest.mark.parametrize("threads", [1, 8])
def test_connections_that_the_server_has_closed(threads: int) -> None:
    """Nobody drives a sync caller's connection between two calls; what happened meanwhile is seen before the next."""
    upstream = Upstream()
    handler = upstream._server.RequestHandlerClass
    handler.timeout = 0.2  # type: ignore[attr-defined]
    client = farthing.OpenAI(base_url=upstream.url, api_key="k", max_retries=0, policy={"cache": False})
    failed: list[BaseException] = []

    def work() -> None:
        try:
            client.chat.completions.create(model="m", messages=MESSAGES)  # type: ignore[arg-type]
        except openai.APIConnectionError as error:
            failed.append(error)

    for _ in range(4):
        started = [threading.Thread(target=work) for _ in range(threads)]
        [thread.start() for thread in started]
        [thread.join() for thread in started]
        time.sleep(0.6)
    upstream.close()
    assert failed == []


def test_a_whole_answer_beside_a_stream_that_nobody_reads(face: Face, upstream: Upstream) -> None:
    """The stream stands still for its slow reader; who joined it for the whole answer cannot wait for that."""
    upstream.script = lambda seen, number: Reply(pieces=chat_events("a" * 10_000))
    client = face.client(upstream, timeout=5)
    held = face.chat(client, stream=True)
    started = time.monotonic()
    whole = face.chat(client)
    assert whole.choices[0].message.content == "a" * 10_000
    assert time.monotonic() - started < 20
    assert upstream.calls == 1
    assert len(face.items(held)) > 10_000


def test_an_error_on_a_stream_is_asked_for_once(face: Face, upstream: Upstream) -> None:
    """A first error may be about the usage chunk that farthing asks for; where that was taken before, it is not."""

    def script(seen: Seen, number: int) -> Reply:
        text = seen.json["messages"][0]["content"]
        if text == "ping":
            return answer(seen)
        return Reply(status=400, body={"error": {"message": text, "type": "invalid_request_error"}})

    upstream.script = script
    client = face.client(upstream)
    face.stream(client)
    for text, calls in (("context too long", 1), ("unknown field: stream_options", 2)):
        before = upstream.calls
        with pytest.raises(openai.BadRequestError, match=text):
            face.chat(client, messages=[{"role": "user", "content": text}], stream=True)
        assert upstream.calls - before == calls


def test_request_ids_that_are_not_ascii(face: Face, upstream: Upstream) -> None:
    upstream.script = lambda seen, number: Reply(body=chat(), headers={"x-request-id": "caf\xe9"})
    plain, ours = (face.chat(face.client(upstream, plain=plain))._request_id for plain in (True, False))
    assert ours == plain == "café"


def test_a_body_that_does_not_decode(face: Face, upstream: Upstream) -> None:
    upstream.script = lambda seen, number: Reply(body=b"no gzip", headers={"content-encoding": "gzip"})
    causes = []
    for plain in (True, False):
        with pytest.raises(openai.APIConnectionError) as raised:
            face.chat(face.client(upstream, plain=plain))
        causes.append(type(raised.value.__cause__))
    assert causes[0] is causes[1]


def test_a_stream_prints_as_the_sdks(face: Face, upstream: Upstream) -> None:
    plain, ours = (face.chat(face.client(upstream, plain=plain), stream=True) for plain in (True, False))
    assert repr(ours).partition(" object")[0] == repr(plain).partition(" object")[0]
