"""Fixtures: a scripted upstream, and one face for sync and async clients, so that each test runs for both."""

from __future__ import annotations

import asyncio
import concurrent.futures
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))

from upstream import Upstream

import farthing

# Started in the background of a script, Ctrl-C is ignored, and so it would be by the processes that tests start.
if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine is no finding.
settings.register_profile("farthing", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("farthing")

MESSAGES = [{"role": "user", "content": "ping"}]


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FARTHING_POLICY", "FARTHING_HTTP", "OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    server = Upstream()
    yield server
    server.close()


@pytest.fixture(scope="session")
def local_server() -> Iterator[Any]:
    """The smallest real model, under its own name."""
    pytest.importorskip("xllamacpp", reason='pip install "farthing[local]"')
    from farthing.local import MODELS, LocalServer, fetch

    with LocalServer([("smollm2-135m", fetch(MODELS["smollm2-135m"]))]) as server:
        yield server


class Face:
    """A client, sync or async, behind one set of blocking calls."""

    def __init__(self, is_async: bool) -> None:
        self.is_async = is_async
        self._loop = asyncio.new_event_loop() if is_async else None

    def close(self) -> None:
        if self._loop is not None:
            # As asyncio.run does: libraries leave tasks of their own behind.
            for task in (left := asyncio.all_tasks(self._loop)):
                task.cancel()
            if left:
                self._loop.run_until_complete(asyncio.wait(left))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    def client(self, upstream: Upstream | str, *, cached: bool = True, plain: bool = False, **options: Any) -> Any:
        """A client with a cache of its own; `plain`: the SDK's."""
        options = {"api_key": "sk-test", "max_retries": 0, **options}
        options["base_url"] = upstream if isinstance(upstream, str) else upstream.url
        module: Any = openai if plain else farthing
        if not plain and "policy" not in options:
            options["policy"] = {"cache": {"name": f"test-{next(_numbers)}"}} if cached else {"cache": False}
        return (module.AsyncOpenAI if self.is_async else module.OpenAI)(**options)

    def run(self, call: Callable[[], Any]) -> Any:
        """The result of a call that may be a coroutine."""
        if self._loop is None:
            return call()

        async def main() -> Any:
            result = call()
            return await result if isinstance(result, Awaitable) else result

        try:
            return self._loop.run_until_complete(main())
        except pytest.fail.Exception:  # the time limit: say what it waited for
            for task in asyncio.all_tasks(self._loop):
                task.print_stack()
            raise

    def together(self, *calls: Callable[[], Any]) -> list[Any]:
        """The results, or errors, of calls that run at the same time."""
        if self._loop is None:
            with concurrent.futures.ThreadPoolExecutor(len(calls)) as pool:
                futures = [pool.submit(call) for call in calls]
                return [future.exception() or future.result() for future in futures]

        async def main() -> list[Any]:
            return await asyncio.gather(*(call() for call in calls), return_exceptions=True)

        return self._loop.run_until_complete(main())

    def chat(self, client: Any, **arguments: Any) -> Any:
        arguments = {"model": "test-model", "messages": MESSAGES, **arguments}
        return self.run(lambda: client.chat.completions.create(**arguments))

    def stream(self, client: Any, **arguments: Any) -> list[Any]:
        return self.items(self.chat(client, stream=True, **arguments))

    def items(self, stream: Any) -> list[Any]:
        if not self.is_async:
            return list(stream)

        async def read() -> list[Any]:
            return [item async for item in stream]

        return list(self.run(read))


_numbers = iter(range(1, 10**9))


@pytest.fixture(params=["sync", "async"])
def face(request: pytest.FixtureRequest) -> Iterator[Face]:
    face = Face(request.param == "async")
    yield face
    face.close()


def text(chunks: list[Any]) -> str:
    """What a stream of chat chunks says."""
    return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
