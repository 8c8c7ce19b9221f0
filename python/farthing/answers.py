"""What the core answers, as the SDK's own things: responses, exceptions, the bytes of a stream.

One copy for the plain path (`resources/`) and for the SDK's own (`transport.py`). Nothing is asked here.
"""

from __future__ import annotations

import asyncio
import copy
import datetime
import functools
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Protocol

import openai
from openai import _streaming

from . import _core
from .exceptions import FarthingError, explain
from .receipts import remember

__all__ = ["RECEIPT", "Asked", "failure", "http_response", "queue_of", "wait_async"]

RECEIPT = "farthing_receipt"
# The queue that this thread used last: finding it by the loop costs a microsecond.
_last = threading.local()
# Older SDKs let the http library's own error through where a stream breaks off (3.14 began to wrap it).
WRAPS_STREAM_ERRORS = hasattr(_streaming, "APIConnectionError")
_queues: weakref.WeakKeyDictionary[Any, Callable[[], _core.LoopQueue | None]] = weakref.WeakKeyDictionary()
# How long until a loop is asked again to watch a queue whose file descriptor somebody else still claims, in seconds.
_PATIENCE = 0.05


class Asked(Protocol):
    """A request that the core was given."""

    client: Any
    owns_retries: bool
    """The engine retries, not the SDK's loop."""
    started: float
    """When it was asked, by `time.monotonic()`."""

    @property
    def httpx(self) -> Any:
        """The http library of the client."""

    @property
    def request(self) -> Any:
        """The request as that library's own."""


def whole_response(
    asked: Asked, status: int, headers: list[tuple[bytes, bytes]], body: bytes, receipt: _core.ReceiptCell
) -> Any:
    """A response with its body read. Its request is built when somebody looks at it: it costs more than the rest."""
    made = _response(asked.httpx)(
        status,
        headers=headers,
        extensions={"http_version": b"HTTP/1.1", RECEIPT: receipt},
        stream=asked.httpx.ByteStream(body),
    )
    # What read() would do, without its way through the decoders.
    made._content = body
    made.is_closed = made.is_stream_consumed = True
    made.elapsed = datetime.timedelta(seconds=time.monotonic() - asked.started)
    made._farthing_asked = asked
    return made


@functools.cache
def _response(httpx: Any) -> type[Any]:
    class Response(httpx.Response):  # type: ignore[misc]
        _farthing_asked: Any = None
        _request: Any

        @property
        def request(self) -> Any:
            if self._request is None and self._farthing_asked is not None:
                self._request = self._farthing_asked.request
            return httpx.Response.request.fget(self)

        @request.setter
        def request(self, value: Any) -> None:
            self._request = value

        def __reduce__(self) -> tuple[Any, ...]:
            # To others it is what it looks like, also where farthing is not installed.
            state = {name: value for name, value in self.__getstate__().items() if name != "_farthing_asked"}
            return object.__new__, (httpx.Response,), {**state, "_request": self.request}

    Response.__name__ = Response.__qualname__ = "Response"
    Response.__module__ = httpx.Response.__module__
    return Response


def http_response(asked: Asked, answer: _core.Answer, *, is_async: bool) -> Any:
    """The answer as the http library's response, its body unread."""
    httpx = asked.httpx
    stream = httpx.ByteStream(answer.body) if answer.pipe is None else _events(httpx, is_async)(asked, answer.pipe)
    made = httpx.Response(
        answer.status,
        headers=answer.headers,
        request=asked.request,
        extensions={"http_version": b"HTTP/1.1", RECEIPT: answer.receipt},
        stream=stream,
    )
    made.elapsed = datetime.timedelta(seconds=time.monotonic() - asked.started)
    return made


def failure(asked: Asked, error: _core.SendError) -> BaseException:
    """What the SDK would raise."""
    kind, message, cause = error.args
    receipt = getattr(error, "receipt", None)
    if receipt is not None:
        remember(asked.client._farthing.number, receipt)
    if kind == "raised":
        return _own(cause)
    low = transport_error(asked, kind, message, cause)
    if not asked.owns_retries:
        # The SDK's own loop retries this call, and it knows the transport's errors.
        return low
    return sdk_error(asked, low)


def sdk_error(asked: Asked, low: BaseException) -> BaseException:
    """The SDK's exception for one of the transport's."""
    shown: BaseException
    if isinstance(low, asked.httpx.TimeoutException):
        shown = openai.APITimeoutError(request=asked.request)
    else:
        shown = openai.APIConnectionError(request=asked.request)
    shown.__cause__ = low
    return shown


def failure_in_stream(asked: Asked, error: _core.SendError) -> BaseException:
    """What the SDK raises when a stream breaks off: the errors that its retries would have seen, wrapped."""
    kind, message, cause = error.args
    low = transport_error(asked, kind, message, cause)
    return sdk_error(asked, low) if isinstance(low, asked.httpx.RequestError) and WRAPS_STREAM_ERRORS else low


def forked(error: _core.CoreError) -> FarthingError:
    """A stream that the parent process opened is read by its child."""
    return FarthingError(explain(str(error), hint="make the call in the process that reads its answer"))


def transport_error(asked: Asked, kind: str, message: str, cause: BaseException | None) -> BaseException:
    """The httpx exception for a failure, each time a new one."""
    if cause is not None:
        return _own(cause)
    names = {
        "connect_timeout": "ConnectTimeout",
        "read_timeout": "ReadTimeout",
        "write_timeout": "WriteTimeout",
        "pool_timeout": "PoolTimeout",
        "connect_error": "ConnectError",
        "protocol_error": "RemoteProtocolError",
        "decoding_error": "DecodingError",
        "too_many_redirects": "TooManyRedirects",
    }
    made: BaseException = getattr(asked.httpx, names.get(kind, "ReadError"))(message, request=asked.request)
    return made


def _own(error: BaseException) -> BaseException:
    """A copy, because callers that shared one upstream call must not share one exception's traceback."""
    try:
        twin = copy.copy(error)
    except Exception:
        return error
    return twin if type(twin) is type(error) and twin.args == error.args else error


class _Watch:
    """What a loop calls when a queue has something; only the loop holds it.

    A dead transport can take it away: when the SDK's http client is garbage, its socket is closed, the kernel gives the
    number to our socket, and then the client's `__del__` has the loop close the transport, by that number. Whoever is
    taken off a loop that still runs goes back on it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, queue: _core.LoopQueue) -> None:
        self._loop = weakref.ref(loop)
        self._queue = queue
        self._descriptor: int | None = None
        descriptor = queue.fileno()
        loop.add_reader(descriptor, self)  # type: ignore[arg-type]
        self._descriptor = descriptor

    def __call__(self) -> None:
        self._queue.drain()

    def __del__(self) -> None:
        loop = self._loop()
        if self._descriptor is None or loop is None or loop.is_closed():
            return
        try:
            loop.call_soon_threadsafe(_watch_again, self._loop, self._queue)
        except RuntimeError:  # closed in this very moment
            return


def _watch_again(loop_of: Callable[[], asyncio.AbstractEventLoop | None], queue: _core.LoopQueue) -> None:
    loop = loop_of()
    if loop is None:
        return
    try:
        _Watch(loop, queue)
    except RuntimeError:
        loop.call_later(_PATIENCE, _watch_again, loop_of, queue)
    else:
        # It may have rung unheard.
        queue.drain()


class _Bell:
    """Wakes a loop that cannot watch a socket."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)
        self.queue: Callable[[], _core.LoopQueue | None] = lambda: None

    def __call__(self) -> None:
        loop, queue = self._loop(), self.queue()
        if loop is not None and queue is not None:
            loop.call_soon_threadsafe(queue.drain)


def queue_of(loop: asyncio.AbstractEventLoop) -> _core.LoopQueue:
    """The queue through which results reach `loop`."""
    last = _last.__dict__.get("queue")
    if last is not None and last[0]() is loop:
        queue = last[1]()
        if queue is not None:
            return queue  # type: ignore[no-any-return]
    known = _queues.get(loop)
    queue = None if known is None else known()
    if queue is None:
        queue, known = _new_queue(loop)
        _queues[loop] = known
    _last.queue = (weakref.ref(loop), weakref.ref(queue))
    return queue


def _new_queue(loop: asyncio.AbstractEventLoop) -> tuple[_core.LoopQueue, Callable[[], _core.LoopQueue | None]]:
    """A queue, and where it is found again."""
    try:
        queue = _core.LoopQueue()
        _Watch(loop, queue)
    # Windows' Proactor, and loops made like it; a number that the loop holds to be a transport's.
    except (NotImplementedError, RuntimeError):
        bell = _Bell(loop)
        queue = _core.LoopQueue(bell)
        bell.queue = weakref.ref(queue)
        return queue, lambda: queue
    return queue, weakref.ref(queue)


def forget_queues() -> None:
    """For a forked child: its parent's queues share their sockets with the parent."""
    _queues.clear()
    _last.__dict__.clear()


async def wait_async(pipe: _core.EventPipe) -> None:
    """Until the pipe has something."""
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    job = pipe.wait_async(queue_of(loop), future)
    try:
        await future
    except BaseException:
        job.cancel()
        raise


class _Events:
    def __init__(self, asked: Asked, pipe: _core.EventPipe) -> None:
        self._asked = asked
        self._pipe = pipe

    def _take(self) -> bytes | None:
        try:
            return self._pipe.take()
        except _core.SendError as error:
            kind, message, cause = error.args
            raise transport_error(self._asked, kind, message, cause) from None
        except _core.CoreError as error:
            raise forked(error) from error


@functools.cache
def _events(httpx: Any, is_async: bool) -> type[Any]:
    """httpx checks the type of a response's stream, and an injected client may bring another httpx than the SDK's."""

    class SyncEvents(_Events, httpx.SyncByteStream):  # type: ignore[misc]
        def __iter__(self) -> Iterator[bytes]:
            while True:
                piece = self._take()
                if piece is None:
                    self._pipe.wait()
                elif piece:
                    yield piece
                else:
                    return

        def close(self) -> None:
            self._pipe.close()

    class AsyncEvents(_Events, httpx.AsyncByteStream):  # type: ignore[misc]
        async def __aiter__(self) -> AsyncIterator[bytes]:
            while True:
                piece = self._take()
                if piece is None:
                    await wait_async(self._pipe)
                elif piece:
                    yield piece
                else:
                    return

        async def aclose(self) -> None:
            self._pipe.close()

    return AsyncEvents if is_async else SyncEvents
