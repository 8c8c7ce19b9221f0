"""How answers reach the event loops that wait for them: many calls, many loops, odd loops, slow readers."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import itertools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from conftest import Face, text
from openai import _base_client
from upstream import Reply, Seen, Upstream, answer, chat_events

import farthing

pytestmark = pytest.mark.once

httpx: Any = getattr(_base_client, "httpx2", None) or _base_client.httpx

_numbers = itertools.count(1)


def question(number: object) -> list[dict[str, str]]:
    return [{"role": "user", "content": str(number)}]


def asked(seen: Seen) -> str:
    return str(seen.json["messages"][0]["content"])


def echo(seen: Seen, number: int) -> Reply:
    return answer(seen, f"pong {asked(seen)}")


def client_of(upstream: Upstream, **more: Any) -> Any:
    policy = {"cache": {"name": f"hub-{next(_numbers)}"}}
    given = {"api_key": "sk-test", "base_url": upstream.url, "max_retries": 0, "policy": policy, **more}
    return farthing.AsyncOpenAI(**given)


async def ask(client: Any, number: object, **more: Any) -> str:
    made = await client.chat.completions.create(model="m", messages=question(number), **more)
    return str(made.choices[0].message.content)


async def listen(client: Any, number: object, **more: Any) -> str:
    stream = await client.chat.completions.create(model="m", messages=question(number), stream=True, **more)
    return text([chunk async for chunk in stream])


async def ask_all(client: Any, numbers: Any, how: Any = ask) -> None:
    """Each call gets the answer to its own question."""
    numbers = list(numbers)
    assert await asyncio.gather(*(how(client, n) for n in numbers)) == [f"pong {n}" for n in numbers]


def gathered(count: int) -> Callable[[Seen, int], Reply]:
    """Answers nobody before so many have asked: that many calls are in flight at the same time."""
    barrier = threading.Barrier(count)

    def script(seen: Seen, number: int) -> Reply:
        barrier.wait(60)
        return echo(seen, number)

    return script


class NoReader(asyncio.SelectorEventLoop):
    """A loop that cannot watch a socket for others, as Windows' Proactor cannot."""

    def add_reader(self, fd: Any, callback: Any, *args: Any) -> Any:
        raise NotImplementedError

    def remove_reader(self, fd: Any) -> Any:
        raise NotImplementedError


def run_on(loop: Any, main: Any) -> Any:
    try:
        return loop.run_until_complete(main)
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def uvloop_loop() -> Any:
    return pytest.importorskip("uvloop").new_event_loop()


LOOPS = {"asyncio": asyncio.new_event_loop, "no reader": NoReader, "uvloop": uvloop_loop}


@pytest.fixture(params=LOOPS)
def new_loop(request: pytest.FixtureRequest) -> Callable[[], Any]:
    return LOOPS[request.param]


# Many calls.


def test_many_in_flight(upstream: Upstream, new_loop: Callable[[], Any]) -> None:
    upstream.script = gathered(256)
    run_on(new_loop(), ask_all(client_of(upstream), range(256)))
    assert upstream.calls == 256


def test_many_streams_in_flight(upstream: Upstream, new_loop: Callable[[], Any]) -> None:
    upstream.script = gathered(64)
    run_on(new_loop(), ask_all(client_of(upstream), range(64), listen))


def test_many_without_cache(upstream: Upstream, new_loop: Callable[[], Any]) -> None:
    upstream.script = gathered(64)
    run_on(new_loop(), ask_all(client_of(upstream, policy={"cache": False}), range(64)))


def test_plain_calls_and_streams_together(upstream: Upstream, new_loop: Callable[[], Any]) -> None:
    upstream.script = gathered(64)

    async def main() -> None:
        client = client_of(upstream)
        await asyncio.gather(ask_all(client, range(32)), ask_all(client, range(32, 64), listen))

    run_on(new_loop(), main())


def test_answers_in_the_other_order(upstream: Upstream, new_loop: Callable[[], Any]) -> None:
    """The last to ask is answered first."""
    turns = [threading.Event() for _ in range(17)]
    turns[16].set()

    def script(seen: Seen, number: int) -> Reply:
        n = int(asked(seen))
        assert turns[n + 1].wait(60)
        return echo(seen, number)

    upstream.script = script

    async def main() -> None:
        client, order = client_of(upstream), []

        async def one(n: int) -> None:
            assert await ask(client, n) == f"pong {n}"
            order.append(n)
            turns[n].set()

        await asyncio.gather(*(one(n) for n in range(16)))
        assert order == list(range(15, -1, -1))

    run_on(new_loop(), main())


def test_answers_and_errors_together(upstream: Upstream, new_loop: Callable[[], Any]) -> None:
    def script(seen: Seen, number: int) -> Reply:
        n = int(asked(seen))
        return Reply(400 + n, {"error": {"message": f"no {n}"}}) if n % 2 else echo(seen, number)

    upstream.script = script

    async def main() -> None:
        client = client_of(upstream)
        results = await asyncio.gather(*(ask(client, n) for n in range(40)), return_exceptions=True)
        for n, result in enumerate(results):
            if n % 2:
                assert isinstance(result, openai.APIStatusError)
                assert result.status_code == 400 + n
                assert f"no {n}" in result.message
            else:
                assert result == f"pong {n}"

    run_on(new_loop(), main())


def test_equal_calls_share_one_and_each_is_answered(upstream: Upstream, new_loop: Callable[[], Any]) -> None:
    upstream.script = lambda seen, number: Reply(body=echo(seen, number).body, delay=0.2)

    async def main() -> None:
        client = client_of(upstream)
        assert await asyncio.gather(*(ask(client, "x") for _ in range(64))) == ["pong x"] * 64

    run_on(new_loop(), main())
    assert upstream.calls == 1


def test_the_loop_is_free_while_it_waits(upstream: Upstream, new_loop: Callable[[], Any]) -> None:
    """The answer is only sent once the loop has turned for somebody else."""
    turned = threading.Event()

    def script(seen: Seen, number: int) -> Reply:
        assert turned.wait(60)
        return echo(seen, number)

    upstream.script = script

    async def main() -> None:
        client = client_of(upstream)
        call = asyncio.create_task(ask(client, 1))
        while not upstream.calls:
            await asyncio.sleep(0.001)
        turned.set()
        assert await call == "pong 1"

    run_on(new_loop(), main())


# Many loops.


@pytest.mark.parametrize("how", [ask, listen])
def test_one_loop_after_another(upstream: Upstream, new_loop: Callable[[], Any], how: Any) -> None:
    upstream.script = echo
    client = client_of(upstream)
    for turn in range(4):
        run_on(new_loop(), ask_all(client, range(8 * turn, 8 * turn + 8), how))
    assert upstream.calls == 32


def test_asyncio_run_twice(upstream: Upstream) -> None:
    upstream.script = echo
    client = client_of(upstream)
    for turn in range(2):
        assert asyncio.run(ask(client, turn)) == f"pong {turn}"
        assert asyncio.run(ask(client, 0)) == "pong 0", "from the cache"
    assert upstream.calls == 2


def test_loops_of_different_kinds(upstream: Upstream) -> None:
    upstream.script = echo
    client = client_of(upstream)
    for turn, make in enumerate([asyncio.new_event_loop, NoReader, asyncio.new_event_loop, NoReader]):
        run_on(make(), ask_all(client, range(8 * turn, 8 * turn + 8)))


@pytest.mark.parametrize("how", [ask, listen])
def test_two_loops_at_once(upstream: Upstream, new_loop: Callable[[], Any], how: Any) -> None:
    """Two threads, each with a loop of its own, and one client."""
    # All at once: the two really wait at the same time.
    upstream.script = gathered(64)
    client = client_of(upstream)
    errors: list[BaseException] = []

    def work(numbers: range) -> None:
        try:
            run_on(new_loop(), ask_all(client, numbers, how))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(range(32 * n, 32 * n + 32),)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert errors == []


def test_equal_calls_of_two_loops(upstream: Upstream, new_loop: Callable[[], Any]) -> None:
    """The answer to one upstream call reaches both loops."""
    upstream.script = lambda seen, number: Reply(body=echo(seen, number).body, delay=0.5)
    client = client_of(upstream)
    results: list[str] = []
    barrier = threading.Barrier(2)

    def work() -> None:
        barrier.wait(60)
        results.append(run_on(new_loop(), ask(client, "x")))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == ["pong x"] * 2
    assert upstream.calls == 1


CLOSED = """
import asyncio, gc, sys, threading
sys.path.insert(0, {tests!r})
from upstream import Upstream
from test_hub import NoReader, ask, client_of, echo, listen

release = threading.Event()

def script(seen, number):
    if number <= 8:
        assert release.wait(60)
    return echo(seen, number)

server = Upstream(script)
client = client_of(server)
loop = {loop}

async def main():
    tasks = [asyncio.ensure_future(({how})(client, n)) for n in range(8)]
    while server.calls < 8:
        await asyncio.sleep(0.001)
    return tasks

tasks = loop.run_until_complete(main())
if {cancel}:
    for task in tasks:
        task.cancel()
    loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
else:
    # What asyncio itself says of tasks that are left behind is not what is tested.
    for task in tasks:
        task._log_destroy_pending = False
loop.close()
if {early}:
    del tasks, loop
    gc.collect()
release.set()
for turn in range(3):
    assert asyncio.run(ask(client, 100 + turn)) == "pong %d" % (100 + turn)
    assert asyncio.run(listen(client, 200 + turn)) == "pong %d" % (200 + turn)
tasks = loop = None
gc.collect()
print("done")
"""


@pytest.mark.parametrize("loop", ["asyncio.SelectorEventLoop()", "NoReader()"])
@pytest.mark.parametrize("how", ["ask", "listen"])
@pytest.mark.parametrize("cancel", [False, True], ids=["left", "cancelled"])
@pytest.mark.parametrize("early", [False, True], ids=["kept", "collected"])
def test_a_loop_that_is_closed_with_calls_in_flight(loop: str, how: str, cancel: bool, early: bool) -> None:
    """In a process of its own, so that a hang, a warning or a traceback at any time is seen."""
    code = CLOSED.format(tests=str(Path(__file__).parent), loop=loop, how=how, cancel=cancel, early=early)
    ran = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, timeout=60)
    assert ran.stderr.decode() == ""
    assert ran.stdout.decode() == "done\n"
    assert ran.returncode == 0


def test_closed_loops_leave_no_descriptors(upstream: Upstream, new_loop: Callable[[], Any]) -> None:
    """Each loop has a queue with two sockets, and both go with it."""
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("no /proc")
    upstream.script = echo
    client = client_of(upstream)

    def turn(n: int) -> int:
        run_on(new_loop(), ask_all(client, range(n * 2, n * 2 + 2)))
        gc.collect()
        return len(os.listdir("/proc/self/fd"))

    before = [turn(n) for n in range(3)][-1]
    after = [turn(n) for n in range(3, 23)][-1]
    # The upstream's own connections come and go.
    assert after <= before + 6


# Cancellation.


def hanging(seen: Seen, number: int) -> Reply:
    """The odd ones are answered, the even ones are not."""
    return Reply(body=echo(seen, number).body, delay=0 if int(asked(seen)) % 2 else 60)


@pytest.mark.parametrize("cached", [True, False], ids=["cached", "uncached"])
@pytest.mark.parametrize("way", ["cancel", "wait_for"])
def test_one_of_many_is_cancelled(upstream: Upstream, new_loop: Callable[[], Any], way: str, cached: bool) -> None:
    release = threading.Event()

    def script(seen: Seen, number: int) -> Reply:
        if asked(seen) == "7":
            return Reply(body=echo(seen, number).body, delay=60)
        assert release.wait(60)
        return echo(seen, number)

    upstream.script = script

    async def main() -> None:
        client = client_of(upstream, **({} if cached else {"policy": {"cache": False}}))
        tasks = [asyncio.ensure_future(ask(client, n)) for n in range(16) if n != 7]
        while upstream.calls < 15:
            await asyncio.sleep(0.001)
        if way == "cancel":
            doomed = asyncio.ensure_future(ask(client, 7))
            while upstream.calls < 16:
                await asyncio.sleep(0.001)
            doomed.cancel()
            with pytest.raises(asyncio.CancelledError):
                await doomed
        else:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(ask(client, 7), 1)
        assert await asyncio.to_thread(upstream.aborted.wait, 20), "the connection is closed"
        release.set()
        assert await asyncio.gather(*tasks) == [f"pong {n}" for n in range(16) if n != 7]
        assert await ask(client, 8) == "pong 8"

    run_on(new_loop(), main())


def test_many_of_many_are_cancelled(upstream: Upstream, new_loop: Callable[[], Any]) -> None:
    upstream.script = hanging

    async def main() -> None:
        client = client_of(upstream)
        tasks = [asyncio.ensure_future(ask(client, n)) for n in range(64)]
        assert await asyncio.gather(*tasks[1::2]) == [f"pong {n}" for n in range(1, 64, 2)]
        for task in tasks[::2]:
            task.cancel()
        ended = await asyncio.gather(*tasks[::2], return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ended)
        upstream.script = echo
        # At once, while the cancelled ones are being put away: nobody waits for an answer that was given up on.
        await ask_all(client, range(0, 64, 2))
        assert upstream.calls == 64 + 32

    run_on(new_loop(), main())


def test_cancelled_before_it_begins(upstream: Upstream, new_loop: Callable[[], Any]) -> None:
    upstream.script = echo

    async def main() -> None:
        client = client_of(upstream)
        for n in range(32):
            task = asyncio.ensure_future(ask(client, n))
            for _ in range(n % 4):
                await asyncio.sleep(0)
            task.cancel()
            result = (await asyncio.gather(task, return_exceptions=True))[0]
            assert isinstance(result, asyncio.CancelledError) or result == f"pong {n}"
        await ask_all(client, range(32))

    run_on(new_loop(), main())


def test_one_of_equal_calls_is_cancelled(upstream: Upstream, new_loop: Callable[[], Any]) -> None:
    """The others wait for the same upstream call, and it goes on for them: also when the first to ask is gone."""
    release = threading.Event()

    def script(seen: Seen, number: int) -> Reply:
        assert release.wait(60)
        return echo(seen, number)

    upstream.script = script

    async def main() -> None:
        client = client_of(upstream)
        tasks = [asyncio.ensure_future(ask(client, "x")) for _ in range(4)]
        while not upstream.calls:
            await asyncio.sleep(0.001)
        # Long enough for the others to have joined.
        await asyncio.sleep(0.1)
        tasks[0].cancel()
        tasks[2].cancel()
        await asyncio.sleep(0.1)
        release.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(r) for r in results] == [asyncio.CancelledError, str, asyncio.CancelledError, str]
        assert results[1] == results[3] == "pong x"

    run_on(new_loop(), main())
    assert upstream.calls == 1


def test_a_stream_that_is_cancelled_while_it_waits(upstream: Upstream, new_loop: Callable[[], Any]) -> None:
    def pieces() -> Iterator[bytes]:
        yield from chat_events("po")[:3]

    upstream.script = lambda seen, number: (
        Reply(pieces=pieces(), linger=60) if asked(seen) == "7" else echo(seen, number)
    )

    async def main() -> None:
        client = client_of(upstream)
        begun = asyncio.Event()

        async def doomed() -> None:
            stream = await client.chat.completions.create(model="m", messages=question(7), stream=True)
            async for chunk in stream:
                if chunk.choices[0].delta.content:
                    begun.set()

        task = asyncio.ensure_future(doomed())
        await begun.wait()
        others = [asyncio.ensure_future(listen(client, n)) for n in range(100, 108)]
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.gather(*others) == [f"pong {n}" for n in range(100, 108)]
        assert await asyncio.to_thread(upstream.aborted.wait, 20), "the connection is closed"

    run_on(new_loop(), main())


@pytest.mark.timeout(20)
def test_a_stream_that_was_cancelled_says_nothing_wrong(upstream: Upstream, face: Face) -> None:
    """asyncio.timeout around each chunk, as servers do: what the SDK does next, farthing does."""
    if not face.is_async:
        pytest.skip("nothing to cancel")
    upstream.script = lambda seen, number: Reply(pieces=chat_events("po")[:2], linger=3)
    results = []
    for plain in (True, False):
        client = face.client(upstream, plain=plain)

        async def main(client: Any = client) -> Any:
            stream = await client.chat.completions.create(model="m", messages=question(1), stream=True)
            first, second = await anext(stream), await anext(stream)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(anext(stream), 0.2)
            try:
                after: Any = await anext(stream, "the end")
            except Exception as error:
                after = type(error)
            return [c.choices[0].delta.content for c in (first, second)], after

        results.append(face.run(main))
    assert results[1] == results[0]


# Slow readers.


class Flood:
    """An upstream that sends far more than may lie around unread, and counts what it could send."""

    def __init__(self, letters: int = 1 << 16, count: int = 600) -> None:
        frames = chat_events("@")
        self._head, body, self._tail = frames[0], frames[1], frames[2:]
        self._body = body.replace(b"@", b"y" * letters)
        self._count = count
        self.total = count * letters
        self.sent = 0

    def __call__(self, seen: Seen, number: int) -> Reply:
        return Reply(pieces=self._pieces())

    def _pieces(self) -> Iterator[bytes]:
        yield self._head
        for _ in range(self._count):
            # Counted before it is sent: the one that is stuck counts too.
            self.sent += len(self._body)
            yield self._body
        yield from self._tail

    def settled(self) -> int:
        """The count once it has stopped growing."""
        before = -1
        while before != self.sent:
            before = self.sent
            time.sleep(0.7)
        return before


MODES = pytest.mark.parametrize("mode", ["on", "off"], ids=["cacheable", "uncacheable"])


def begin(face: Face, client: Any, mode: str, number: object = 1, **more: Any) -> Any:
    with farthing.options(cache=mode):
        return face.run(
            lambda: client.chat.completions.create(model="m", messages=question(number), stream=True, **more)
        )


def first(face: Face, stream: Any) -> Any:
    return face.run(stream.__anext__) if face.is_async else next(stream)


@MODES
def test_the_upstream_waits_for_a_slow_reader(face: Face, upstream: Upstream, mode: str) -> None:
    flood = Flood()
    upstream.script = flood
    stream = begin(face, face.client(upstream), mode)
    first(face, stream)
    # The kernel's buffers on both sides of loopback take some 10 MB; the rest must have stayed where it was.
    assert flood.settled() < flood.total * 2 // 3
    assert len(text(face.items(stream))) == flood.total


@MODES
def test_the_upstream_waits_for_several_slow_readers(upstream: Upstream, mode: str) -> None:
    """One that is slow does not hold up one that is not."""
    floods = {"1": Flood(), "2": Flood(count=40)}
    upstream.script = lambda seen, number: floods[asked(seen)](seen, number)

    async def main() -> None:
        client = client_of(upstream)
        with farthing.options(cache=mode):
            slow, fast = [
                await client.chat.completions.create(model="m", messages=question(n), stream=True) for n in (1, 2)
            ]
        await anext(slow)
        assert len(text([chunk async for chunk in fast])) == floods["2"].total
        assert await asyncio.to_thread(floods["1"].settled) < floods["1"].total
        upstream.script = echo
        assert await ask(client, 3) == "pong 3"
        assert len(text([chunk async for chunk in slow])) == floods["1"].total

    run_on(asyncio.new_event_loop(), main())


@MODES
def test_a_slow_reader_is_no_read_timeout(face: Face, upstream: Upstream, mode: str) -> None:
    """The limit is for the upstream; here it is the reader that keeps it waiting."""
    flood = Flood()
    upstream.script = flood
    client = face.client(upstream, timeout=httpx.Timeout(30, read=0.5))
    stream = begin(face, client, mode)
    first(face, stream)
    flood.settled()
    time.sleep(1)
    assert len(text(face.items(stream))) == flood.total


@MODES
def test_a_reader_that_is_slow_between_chunks(face: Face, upstream: Upstream, mode: str) -> None:
    """Longer between two chunks than the read timeout, while nothing more comes in either."""
    upstream.script = lambda seen, number: Reply(pieces=chat_events("pong"))
    client = face.client(upstream, timeout=httpx.Timeout(30, read=0.3))
    stream = begin(face, client, mode)
    chunks = [first(face, stream)]
    for _ in range(3):
        time.sleep(0.4)
        chunks.append(first(face, stream))
    assert text(chunks + face.items(stream)) == "pong"


@MODES
def test_a_slow_upstream_is_a_read_timeout_all_the_same(face: Face, upstream: Upstream, mode: str) -> None:
    upstream.script = lambda seen, number: Reply(pieces=chat_events("pong")[:3], linger=30)
    results = []
    for plain in (True, False):
        client = face.client(upstream, plain=plain, timeout=httpx.Timeout(30, read=0.5))
        stream = begin(face, client, mode)
        # openai before 3.14 lets the http library's error through, whose words are its own.
        with pytest.raises((openai.APIError, httpx.TransportError)) as caught:
            face.items(stream)
        results.append((type(caught.value), isinstance(caught.value, openai.APIError) and str(caught.value)))
    assert results[1] == results[0]


@MODES
def test_a_slow_reader_that_gives_up(face: Face, upstream: Upstream, mode: str) -> None:
    """While the task that fills the pipe waits for room in it."""
    upstream.script = Flood()
    stream = begin(face, face.client(upstream), mode)
    first(face, stream)
    time.sleep(0.3)
    face.run(stream.close)
    assert upstream.aborted.wait(20), "the connection is closed"


@MODES
def test_a_slow_reader_that_is_forgotten(face: Face, upstream: Upstream, mode: str) -> None:
    upstream.script = Flood()
    stream = begin(face, face.client(upstream), mode)
    first(face, stream)
    time.sleep(0.3)
    del stream
    gc.collect()
    assert upstream.aborted.wait(20), "the connection is closed"


@MODES
def test_one_chunk_that_is_larger_than_the_pipe(face: Face, upstream: Upstream, mode: str) -> None:
    flood = Flood(letters=3 << 20, count=4)
    upstream.script = flood
    assert len(text(face.items(begin(face, face.client(upstream), mode)))) == flood.total


@MODES
def test_two_readers_of_one_stream_at_their_own_pace(upstream: Upstream, mode: str) -> None:
    """Equal streams share one upstream call; the slower reader loses nothing."""
    flood = Flood(count=100)
    upstream.script = flood

    async def main() -> None:
        client = client_of(upstream)

        async def one(wait: float) -> int:
            with farthing.options(cache=mode):
                stream = await client.chat.completions.create(model="m", messages=question(1), stream=True)
            count = 0
            async for chunk in stream:
                count += len(text([chunk]))
                await asyncio.sleep(wait)
            return count

        assert await asyncio.gather(one(0), one(0.01)) == [flood.total] * 2

    run_on(asyncio.new_event_loop(), main())
    assert upstream.calls == (1 if mode == "on" else 2)


# Context.

WHO: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")


def test_context_survives(upstream: Upstream, new_loop: Callable[[], Any]) -> None:
    upstream.script = gathered(32)

    async def main() -> None:
        client = client_of(upstream)

        async def one(n: int) -> None:
            WHO.set(f"caller {n}")
            with farthing.options(tag=f"tag {n}"):
                if n % 2:
                    made = await client.chat.completions.create(model="m", messages=question(n))
                    assert WHO.get() == f"caller {n}"
                    assert made.choices[0].message.content == f"pong {n}"
                else:
                    stream = await client.chat.completions.create(model="m", messages=question(n), stream=True)
                    async for _ in stream:
                        assert WHO.get() == f"caller {n}"
                    made = stream
            found = farthing.receipt(made)
            assert found is not None
            assert found.tag == f"tag {n}"
            assert client.last_receipt().tag == f"tag {n}"
            assert WHO.get() == f"caller {n}"

        await asyncio.gather(*(one(n) for n in range(32)))
        assert WHO.get() == "nobody"

    run_on(new_loop(), main())


def test_context_of_callbacks(upstream: Upstream, new_loop: Callable[[], Any]) -> None:
    """What is called when an answer has come runs in the context that asked, not in the queue's."""
    upstream.script = echo

    async def main() -> None:
        client = client_of(upstream)
        names: list[str] = []
        WHO.set("first")
        await ask(client, 0)
        WHO.set("second")
        task = asyncio.ensure_future(ask(client, 1))
        task.add_done_callback(lambda _: names.append(WHO.get()))
        WHO.set("third")
        await task
        await asyncio.sleep(0)
        assert names == ["second"]
        assert WHO.get() == "third"

    run_on(new_loop(), main())


def test_task_groups(upstream: Upstream) -> None:
    """An error of one cancels the rest, and the group ends."""
    if not hasattr(asyncio, "TaskGroup"):
        pytest.skip("Python 3.11")

    def script(seen: Seen, number: int) -> Reply:
        return Reply(400, {"error": {"message": "no"}}) if asked(seen) == "0" else Reply(body={}, delay=60)

    upstream.script = script

    async def main() -> None:
        client = client_of(upstream)
        with pytest.raises(BaseException) as caught:
            async with asyncio.TaskGroup() as group:
                for n in range(8):
                    group.create_task(ask(client, n))
        assert [type(e) for e in caught.value.exceptions] == [openai.BadRequestError]  # type: ignore[attr-defined]

    asyncio.run(main())
    assert upstream.aborted.wait(20) or upstream.calls == 1
