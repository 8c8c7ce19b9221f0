"""The client's own http client as the engine's sender: it sends what the engine asks for and reports what comes back.

A sync client sends on a daemon thread of Python's (a thread of the core must not be inside the interpreter when that
ends), an async one as a task on its own loop. Each attempt is one call of `start`; retries are the engine's.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from . import _core

# iter_bytes() has undone these; the length was that of the encoded body.
_UNDONE = (b"content-encoding", b"content-length", b"transfer-encoding")

Times = tuple[float | None, float | None, float | None]
"""Seconds to connect, to read, to write."""


class _Sender:
    def __init__(
        self, http: object, plain: Callable[..., Any], named: Callable[..., Any], request: Any, kwargs: dict[str, Any]
    ) -> None:
        # Calls that leave by the same http client may share a request.
        self.identity = id(http)
        self._ways = {False: plain, True: named}
        self._request = request
        self._kwargs = kwargs

    def _attempt(self, url: str, headers: list[tuple[bytes, bytes]], body: bytes, is_named: bool, times: Times) -> Any:
        kind = type(self._request)
        extensions = {name: value for name, value in self._request.extensions.items() if name != "farthing"}
        if is_named:
            # The SDK's notes on the client's own request, where its key may go for one, are not for this one.
            connect, read, write = times
            extensions = {"timeout": {"connect": connect, "read": read, "write": write, "pool": connect}}
        kept = [(name, value) for name, value in headers if name.lower() != b"content-length"]
        return kind(self._request.method, url, headers=kept, content=body, extensions=extensions)


class SdkSender(_Sender):
    """For sync clients."""

    def start(
        self,
        url: str,
        headers: Any,
        body: bytes,
        stream: bool,
        completion: _core.Completion,
        is_named: bool,
        times: Times,
    ) -> None:
        context = contextvars.copy_context()
        arguments = (self._work, self._attempt(url, headers, body, is_named, times), completion, is_named)
        threading.Thread(target=context.run, args=arguments, name="farthing-send", daemon=True).start()

    def cancel(self, number: int) -> None:
        """The thread looks at the completion between two pieces of the body."""

    def _work(self, request: Any, completion: _core.Completion, is_named: bool) -> None:
        try:
            response = self._ways[is_named](request, stream=True, **self._kwargs)
            try:
                completion.head(response.status_code, _headers(response))
                for piece in response.iter_bytes():
                    if completion.is_cancelled:
                        return
                    completion.chunk(piece)
            finally:
                response.close()
            completion.end()
        except BaseException as error:
            completion.fail(_kind(error), str(error) or type(error).__name__, error)


class AsyncSdkSender(_Sender):
    """For async clients."""

    def __init__(
        self,
        http: object,
        plain: Callable[..., Awaitable[Any]],
        named: Callable[..., Awaitable[Any]],
        request: Any,
        kwargs: dict[str, Any],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(http, plain, named, request, kwargs)
        self._loop = loop
        self._tasks: dict[int, asyncio.Task[None]] = {}

    def start(
        self,
        url: str,
        headers: Any,
        body: bytes,
        stream: bool,
        completion: _core.Completion,
        is_named: bool,
        times: Times,
    ) -> Coroutine[Any, Any, None]:
        return self._work(self._attempt(url, headers, body, is_named, times), completion, is_named)

    def cancel(self, number: int) -> None:
        """Called from a thread of the core."""
        task = self._tasks.get(number)
        if task is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(task.cancel)

    async def _work(self, request: Any, completion: _core.Completion, is_named: bool) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks[completion.number] = task
        try:
            if completion.is_cancelled:
                return
            response = await self._ways[is_named](request, stream=True, **self._kwargs)
            try:
                completion.head(response.status_code, _headers(response))
                async for piece in response.aiter_bytes():
                    completion.chunk(piece)
            finally:
                await response.aclose()
            completion.end()
        except asyncio.CancelledError:
            # Nobody waits, or the loop ends: whoever does wait starts again with a client of its own.
            return
        except BaseException as error:
            completion.fail(_kind(error), str(error) or type(error).__name__, error)
        finally:
            self._tasks.pop(completion.number, None)


def _headers(response: Any) -> list[tuple[bytes, bytes]]:
    return [(name, value) for name, value in response.headers.raw if name.lower() not in _UNDONE]


def _kind(error: BaseException) -> str:
    """By name, because the client may have been made with either httpx."""
    names = {kind.__name__ for kind in type(error).__mro__ if kind.__module__.partition(".")[0] in ("httpx", "httpx2")}
    for name, kind in (
        ("ConnectTimeout", "connect_timeout"),
        ("WriteTimeout", "write_timeout"),
        ("PoolTimeout", "pool_timeout"),
        ("TimeoutException", "read_timeout"),
        ("RequestError", "connection"),
    ):
        if name in names:
            return kind
    return "raised"
