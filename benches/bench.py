"""`make bench`: farthing beside the plain SDK, in one run, against the project's own loopback server.

Machines differ, so what counts are the ratios. Each pair is measured in turns (plain, farthing, plain, ...), so that a
busy moment of the machine falls on both; medians over all turns. "cpu" is the process' CPU time, all threads.
"""

from __future__ import annotations

import argparse
import asyncio
import concurrent.futures
import gc
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
_numbers = itertools.count()
_server = 0

Call = Callable[[Any, int], Any]


@contextmanager
def server() -> Iterator[str]:
    """The loopback server; its base URL."""
    binary = ROOT / "target" / "release" / "examples" / "loopback"
    global _server
    with subprocess.Popen([binary], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdin is not None
        _server = process.pid
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()


@contextmanager
def one_core() -> Iterator[None]:
    """Caller and server on one core, where the system can do that.

    One call at a time keeps one core busy. On two, each sleeps while it waits for the other, and waking a virtual
    machine's core takes longer (20 us here) than either works.
    """
    if not hasattr(os, "sched_setaffinity") or not _server:
        yield
        return
    cores = os.sched_getaffinity(0)

    def pin(to: set[int]) -> None:
        for process in ("self", str(_server)):
            for thread in os.listdir(f"/proc/{process}/task"):
                os.sched_setaffinity(int(thread), to)

    pin({max(cores)})
    try:
        yield
    finally:
        pin(cores)


# What is asked. `n` makes each request one that was never asked before.


def two(n: int) -> dict[str, Any]:
    system = {"role": "system", "content": "You are a helpful assistant. Answer in one sentence."}
    return {"model": "gpt-4.1", "messages": [system, {"role": "user", "content": f"What is a farthing? ({n})"}]}


def twenty(n: int) -> dict[str, Any]:
    turns = [
        {"role": ("user", "assistant")[i % 2], "content": f"Turn {i}: {'a few words of a conversation ' * 5}"}
        for i in range(18)
    ]
    asked = two(n)
    return {**asked, "messages": [asked["messages"][0], *turns, asked["messages"][1]]}


def tools(n: int) -> dict[str, Any]:
    parameters = {
        "type": "object",
        "properties": {name: {"type": "string", "description": f"the {name}"} for name in ("city", "day", "unit")},
        "required": ["city"],
        "additionalProperties": False,
    }
    made = [
        {"type": "function", "function": {"name": f"tool_{i}", "description": "Gets it.", "parameters": parameters}}
        for i in range(10)
    ]
    return {**two(n), "tools": made, "temperature": 0}


def result(n: int) -> dict[str, Any]:
    """A tool's result of about 40 KB."""
    rows = [{"id": f"{n}-{i}", "name": f"item {i}", "price": i * 1.5, "is_sold": i % 3 == 0} for i in range(470)]
    call = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    return {
        "model": "gpt-4.1",
        "messages": [
            {"role": "user", "content": "What does item 77 cost?"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_1", "content": json.dumps(rows, indent=1)},
        ],
    }


def follow_up(n: int) -> dict[str, Any]:
    """The same result each time, and another question."""
    asked = result(0)
    further = [{"role": "assistant", "content": "1.50"}, {"role": "user", "content": f"And item {n}?"}]
    return {**asked, "messages": asked["messages"] + further}


def texts(n: int) -> dict[str, Any]:
    return {"model": "text-embedding-3-small", "input": [f"text {i} of {n}" for i in range(100)]}


def ask(make: Callable[[int], dict[str, Any]]) -> Call:
    return lambda client, n: client.chat.completions.create(**make(n))


def ask_raw(client: Any, n: int) -> Any:
    return client.chat.completions.with_raw_response.create(**two(n)).parse()


def ask_response(client: Any, n: int) -> Any:
    return client.responses.create(model="gpt-4.1", input=f"What is a farthing? ({n})")


def ask_embeddings(client: Any, n: int) -> Any:
    return client.embeddings.create(**texts(n))


def ask_stream(client: Any, n: int) -> int:
    return sum(1 for _ in client.chat.completions.create(**two(n), stream=True, stream_options={"include_usage": True}))


# How it is measured.


class Times:
    """Seconds of each call: wall by call, CPU by turn."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.cpu: list[float] = []

    @property
    def median(self) -> float:
        return statistics.median(self.wall)

    @property
    def cpu_median(self) -> float:
        return statistics.median(self.cpu)


def sync_turn(call: Call, client: Any, count: int, times: Times, fresh: bool = True) -> None:
    begun = time.process_time()
    for _ in range(count):
        n = next(_numbers) if fresh else -1
        started = time.perf_counter()
        call(client, n)
        times.wall.append(time.perf_counter() - started)
    times.cpu.append((time.process_time() - begun) / count)


def threads_turn(call: Call, client: Any, count: int, threads: int, times: Times) -> None:
    """Wall is seconds a request, with all threads at work."""

    def work(share: int) -> None:
        for _ in range(share):
            call(client, next(_numbers))

    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, [2] * threads))
        begun, started = time.process_time(), time.perf_counter()
        list(pool.map(work, [count // threads] * threads))
        times.wall.append((time.perf_counter() - started) / count)
        times.cpu.append((time.process_time() - begun) / count)


def async_turn(make: Callable[[], Any], call: Call, count: int, in_flight: int, times: Times) -> None:
    """A client of its own each turn: AsyncOpenAI's pool gets slower with every burst. Wall is seconds a request."""

    async def work(client: Any, share: int) -> None:
        for _ in range(share):
            await call(client, next(_numbers))

    async def main() -> None:
        client = make()
        await asyncio.gather(*(work(client, 1) for _ in range(in_flight)))
        begun, started = time.process_time(), time.perf_counter()
        await asyncio.gather(*(work(client, count // in_flight) for _ in range(in_flight)))
        done = count // in_flight * in_flight
        times.wall.append((time.perf_counter() - started) / done)
        times.cpu.append((time.process_time() - begun) / done)
        await client.close()

    asyncio.run(main())


def alternate(turns: int, *sides: Callable[[], None]) -> None:
    gc.collect()
    for _ in range(turns):
        for side in sides:
            side()


# What is printed.


def head(title: str, *columns: str) -> None:
    print(f"\n{title:<38}" + "".join(f"{column:>14}" for column in columns))


def us(seconds: float) -> str:
    return f"{seconds * 1e6:,.1f}"


def row(name: str, plain: Times, ours: Times, reach: str = "") -> None:
    wall, cpu = plain.median / ours.median, plain.cpu_median / ours.cpu_median
    cells = [
        us(plain.median),
        us(ours.median),
        f"{wall:.1f}x",
        us(plain.cpu_median),
        us(ours.cpu_median),
        f"{cpu:.1f}x",
    ]
    print(f"{name:<38}" + "".join(f"{cell:>14}" for cell in cells) + f"  {reach}", flush=True)


class Bench:
    def __init__(self, url: str, scale: float) -> None:
        import openai

        import farthing

        self.openai, self.farthing = openai, farthing
        self.options: dict[str, Any] = {"base_url": url, "api_key": "sk-bench", "max_retries": 0}
        self.scale = scale
        self.policy = {"cache": {"max_bytes": "1GiB"}}

    def many(self, count: int) -> int:
        return max(int(count * self.scale), 8)

    def clients(self) -> tuple[Any, Any]:
        return self.openai.OpenAI(**self.options), self.farthing.OpenAI(**self.options, policy=self.policy)

    def hits(self) -> None:
        head("hit, us", "plain", "farthing", "ratio", "plain cpu", "cpu", "ratio")
        plain, ours = self.clients()
        for name, call, reach in (
            ("2 messages", ask(two), "reach >= 100x, <= 12 us"),
            ("20 messages", ask(twenty), ""),
            ("2 messages, 10 tools", ask(tools), ""),
            ("raw response", ask_raw, "reach <= 25 us"),
            ("responses", ask_response, ""),
            ("stream, whole, 41 chunks", ask_stream, ""),
            ("embeddings 100x1536", ask_embeddings, ""),
        ):
            call(plain, -1), call(ours, -1), call(ours, -1)
            a, b = Times(), Times()
            alternate(
                5,
                lambda: sync_turn(call, plain, self.many(40), a),  # noqa: B023
                lambda: sync_turn(call, ours, self.many(400), b, fresh=False),  # noqa: B023
            )
            row(name, a, b, reach)

    def misses(self) -> None:
        head("miss, sync, us", "plain", "farthing", "ratio", "plain cpu", "cpu", "ratio")
        clients = self.clients()
        with one_core():
            for name, call, count, reach in (
                ("2 messages", ask(two), 100, "reach >= 8x"),
                ("20 messages", ask(twenty), 60, ""),
                ("2 messages, 10 tools", ask(tools), 60, ""),
                ("raw response", ask_raw, 100, ""),
                ("responses", ask_response, 100, ""),
                ("embeddings 100x1536", ask_embeddings, 15, ""),
            ):
                self._miss(name, call, count, clients, reach)
        self._miss("2 messages, server on another core", ask(two), 100, clients, "")

    def _miss(self, name: str, call: Call, count: int, clients: tuple[Any, Any], reach: str) -> None:
        plain, ours = clients
        sync_turn(call, plain, 5, Times()), sync_turn(call, ours, 5, Times())
        a, b = Times(), Times()
        alternate(
            5,
            lambda: sync_turn(call, plain, self.many(count), a),
            lambda: sync_turn(call, ours, self.many(4 * count), b),
        )
        row(name, a, b, reach)

    def threads(self) -> None:
        head("miss, 8 threads, us a request", "plain", "farthing", "ratio", "plain cpu", "cpu", "ratio")
        plain, ours = self.clients()
        a, b = Times(), Times()
        alternate(
            5,
            lambda: threads_turn(ask(two), plain, self.many(400), 8, a),
            lambda: threads_turn(ask(two), ours, self.many(4000), 8, b),
        )
        row("2 messages", a, b)

    def chunks(self) -> None:
        head("streamed miss, us a chunk", "plain", "farthing", "ratio", "plain cpu", "cpu", "ratio")
        plain, ours = self.clients()
        a, b = Times(), Times()
        count = ask_stream(plain, next(_numbers))
        assert count == ask_stream(ours, next(_numbers)), "the same chunks"
        alternate(
            5,
            lambda: sync_turn(ask_stream, plain, self.many(20), a),
            lambda: sync_turn(ask_stream, ours, self.many(100), b),
        )
        # What a chunk costs beyond the call: without the part that a call with one answer costs as well.
        for times in (a, b):
            times.wall = [seconds / count for seconds in times.wall]
            times.cpu = [seconds / count for seconds in times.cpu]
        row(f"{count} chunks, call and all", a, b, "reach >= 10x cpu")

    def many_in_flight(self) -> None:
        head("miss, async, us a request", "plain", "farthing", "ratio", "plain cpu", "cpu", "ratio")

        def plain() -> Any:
            return self.openai.AsyncOpenAI(**self.options)

        def ours() -> Any:
            return self.farthing.AsyncOpenAI(**self.options, policy=self.policy)

        def aio() -> Any:
            return self.openai.AsyncOpenAI(**self.options, http_client=self.openai.DefaultAioHttpClient())

        for in_flight, count, reach in ((1, 200, ""), (32, 640, ""), (256, 1024, "reach >= 40x")):
            a, b, c = Times(), Times(), Times()
            alternate(
                3,
                lambda: async_turn(plain, ask(two), self.many(count), in_flight, a),  # noqa: B023
                lambda: async_turn(ours, ask(two), self.many(count * 10), in_flight, b),  # noqa: B023
                lambda: async_turn(aio, ask(two), self.many(count), in_flight, c),  # noqa: B023
            )
            row(f"{in_flight} in flight", a, b, reach)
            row(f"{in_flight} in flight, plain on aiohttp", c, b)
            print(f"{'':<38}{1 / a.median:>14,.0f}{1 / b.median:>14,.0f}  requests/s (aiohttp {1 / c.median:,.0f})")

    def packs(self) -> None:
        """What the window of `[batch]` adds to a call: to a lone one, which waits it out, and to one of ten, which fill
        a request at once. The prompts are short, so each goes alone in the end: what is measured is the waiting."""
        head("window of [batch], us a call", "without", "with", "ratio", "without cpu", "cpu", "ratio")
        window = {"models": ["gpt-4.1"], "window_ms": 20, "max_items": 10}

        def client(**more: Any) -> Callable[[], Any]:
            return lambda: self.farthing.AsyncOpenAI(**self.options, policy={**self.policy, **more})

        for name, in_flight, count in (("a lone call, window of 20 ms", 1, 20), ("ten at a time", 10, 1000)):
            a, b = Times(), Times()
            alternate(
                3,
                lambda: async_turn(client(), ask(two), self.many(count), in_flight, a),  # noqa: B023
                lambda: async_turn(client(batch=window), ask(two), self.many(count), in_flight, b),  # noqa: B023
            )
            row(name, a, b)

    def shorter(self) -> None:
        """What `[compress]` adds to a call with a tool's result of 40 KB: one that is new, one that was sent before."""
        head("[compress], us a call", "without", "with", "ratio", "without cpu", "cpu", "ratio")
        base = {**self.policy, "cache": None}
        without = self.farthing.OpenAI(**self.options, policy=base)
        for name, make, methods in (
            ("a new result, structural", result, ["structural"]),
            ("a new result, extractive", result, ["extractive"]),
            ("a known result, structural", follow_up, ["structural"]),
        ):
            table = {"models": ["gpt-4.1"], "methods": methods}
            ours = self.farthing.OpenAI(**self.options, policy={**base, "compress": table})
            a, b = Times(), Times()
            with one_core():
                alternate(
                    5,
                    lambda: sync_turn(ask(make), without, self.many(40), a),  # noqa: B023
                    lambda: sync_turn(ask(make), ours, self.many(40), b),  # noqa: B023
                )
            row(name, a, b)

    def growth(self) -> None:
        """Hit and miss beside caches of different sizes; in processes of their own, as memory is not given back."""
        head("cost by entries in the cache", "hit us", "miss us", "bytes/entry", "weighed")
        for entries in (1_000, 10_000, 100_000, 1_000_000):
            if entries * self.scale < entries and entries > 100_000:
                continue
            code = [sys.executable, __file__, "--one-size", str(entries), "--url", self.options["base_url"]]
            subprocess.run(code, check=True)

    def disk(self) -> None:
        """The cache file: each line in a process of its own, which finds what another one wrote."""
        import disk

        disk.report(self.options["base_url"], self.scale)

    def imports(self) -> None:
        head("import, ms", "openai", "and farthing", "difference")

        def cost(code: str) -> float:
            timed = f"import time; t = time.perf_counter(); {code}; print(time.perf_counter() - t)"
            runs = [subprocess.run([sys.executable, "-c", timed], capture_output=True, text=True) for _ in range(7)]
            return min(float(run.stdout) for run in runs)

        plain = cost("import openai; openai.OpenAI")
        both = cost("import openai; openai.OpenAI; import farthing; farthing.OpenAI")
        bare = cost("import farthing")
        print(
            f"{'client class at hand':<38}{plain * 1e3:>14.1f}{both * 1e3:>14.1f}"
            f"{(both - plain) * 1e3:>14.1f}  reach <= 50"
        )
        print(f"{'import farthing, alone':<38}{'':>14}{bare * 1e3:>14.1f}")

    def wheel(self) -> None:
        head("wheel, MB", "size")
        for path in sorted((ROOT / "target" / "wheels").glob("*.whl")):
            print(f"{path.name:<52}{path.stat().st_size / 1e6:.1f}  reach <= 8")


def one_size(url: str, entries: int) -> None:
    """A line of `growth`."""
    import farthing

    def memory() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    client = farthing.AsyncOpenAI(
        base_url=url, api_key="sk-bench", max_retries=0, policy={"cache": {"max_bytes": "16GiB"}}
    )

    async def fill() -> int:
        numbers = iter(range(entries))

        async def work() -> None:
            for n in numbers:
                await client.chat.completions.create(**two(n))

        # The pools, the buffers and the code's own memory are there before the first entry is counted.
        await asyncio.gather(*(client.chat.completions.create(**two(-n - 2)) for n in range(256)))
        gc.collect()
        before = memory()
        await asyncio.gather(*(work() for _ in range(256)))
        gc.collect()
        return memory() - before

    grown = asyncio.run(fill())
    stats = client.cache.stats()
    twin = farthing.OpenAI(base_url=url, api_key="sk-bench", max_retries=0, policy={"cache": {"max_bytes": "16GiB"}})
    assert twin.cache.stats()["entries"] == stats["entries"], "one cache"
    ask(two)(twin, 0), ask(two)(twin, 0)
    hit, miss = Times(), Times()
    for _ in range(5):
        started = [time.perf_counter()]
        for n in range(0, entries, max(entries // 400, 1)):
            ask(two)(twin, n)
            started.append(time.perf_counter())
        hit.wall += [b - a for a, b in itertools.pairwise(started)]
        for _ in range(200):
            n = next(_numbers) + 10**9
            begun = time.perf_counter()
            ask(two)(twin, n)
            miss.wall.append(time.perf_counter() - begun)
    cells = [us(hit.median), us(miss.median), f"{grown / entries:,.0f}", f"{stats['bytes'] / stats['entries']:,.0f}"]
    print(f"{entries:<38,}" + "".join(f"{cell:>14}" for cell in cells), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "parts", nargs="*", help="hits misses threads chunks many_in_flight packs shorter growth disk imports wheel"
    )
    parser.add_argument("--scale", type=float, default=1.0, help="fewer calls, for a quick look: 0.1")
    parser.add_argument("--one-size", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--url", help="a server that runs already")
    given = parser.parse_args()
    os.environ.setdefault("OPENAI_LOG", "")
    if given.one_size:
        one_size(given.url, given.one_size)
        return
    with server() as url:
        bench = Bench(url, given.scale)
        parts = given.parts or [
            "imports",
            "hits",
            "misses",
            "threads",
            "chunks",
            "many_in_flight",
            "packs",
            "shorter",
            "growth",
            "disk",
            "wheel",
        ]
        print(f"openai {bench.openai.__version__}, farthing {bench.farthing.__version__}, {os.cpu_count()} cores")
        for part in parts:
            getattr(bench, part)()


if __name__ == "__main__":
    main()
