"""The seam below the SDK's `request()`: its HTTP request in, an HTTP response out, farthing's engine in between.

Every call that `resources.py` did not answer comes here, so that the SDK's own semantics (parse, streams, raw
responses, errors) hold. What goes which way is in `routes.py`, the user's own http client in `sender.py`.
"""

from __future__ import annotations

import asyncio
import contextvars
import copy
import datetime
import functools
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import openai

from . import _core
from .call_options import current, from_headers, merge
from .receipts import attach
from .routes import Route, endpoint_of, httpx_of, owner_of, route_of
from .sender import AsyncSdkSender, SdkSender

EXTENSION = "farthing"
RECEIPT = "farthing_receipt"
_queues: weakref.WeakKeyDictionary[Any, _core.LoopQueue] = weakref.WeakKeyDictionary()


def build(client: Any, plain: Callable[..., Any], options: Any, kwargs: dict[str, Any]) -> Any:
    """The SDK's `_build_request`, with aliases resolved, farthing's own headers taken out and the limits noted."""
    session = client._farthing
    asked = None
    data = options.json_data
    if isinstance(data, dict) and isinstance(data.get("model"), str):
        asked = data["model"]
        real = None
        try:
            real = session.engine.alias(asked)
        except _core.CoreError as error:
            session.failed(error)
        if real is not None:
            options.json_data = {**data, "model": real}
    request = plain(options, **kwargs)
    ours = {name: value for name, value in request.headers.items() if name.startswith("x-farthing-")}
    given = from_headers(ours) if ours else None
    for name in ours:
        del request.headers[name]
    request.extensions[EXTENSION] = {
        "options": merge(current(), given),
        "max_retries": options.get_max_retries(client.max_retries),
        "model_asked": asked,
    }
    return request


def send(client: Any, plain: Callable[..., Any], request: Any, stream: bool, kwargs: dict[str, Any]) -> Any:
    """The sync client's `_send_request`."""
    call = _Call.of(client, request, kwargs)
    if call is None:
        return plain(request, stream=stream, **kwargs)
    sender = SdkSender(plain, request, kwargs) if call.route is Route.SDK_CLIENT else None
    try:
        answer = client._farthing.engine.send(call.arguments, sender)
    except _core.SendError as error:
        failure = call.error(error)
        raise failure from failure.__cause__
    except _core.CoreError as error:
        client._farthing.failed(error)
        answer = None
    if answer is None:
        return plain(request, stream=stream, **kwargs)
    response = call.response(answer, is_async=False)
    failed = not response.is_success and call.owns_retries
    if failed or not stream:
        response.read()
    if failed:
        raise client._make_status_error_from_response(response)
    return response


async def send_async(
    client: Any, plain: Callable[..., Awaitable[Any]], request: Any, stream: bool, kwargs: dict[str, Any]
) -> Any:
    """The async client's `_send_request`."""
    call = _Call.of(client, request, kwargs)
    try:
        loop = asyncio.get_running_loop() if call is not None else None
    except RuntimeError:  # trio
        loop = None
    if call is None or loop is None:
        return await plain(request, stream=stream, **kwargs)
    sender = AsyncSdkSender(plain, request, kwargs, loop) if call.route is Route.SDK_CLIENT else None
    future: asyncio.Future[_core.Answer] = loop.create_future()
    answer: _core.Answer | None = None
    try:
        job = client._farthing.engine.send_async(
            call.arguments, sender, _queue(loop), future, loop, contextvars.copy_context()
        )
        if job is not None:
            try:
                answer = await future
            finally:
                job.cancel()
    except _core.SendError as error:
        failure = call.error(error)
        raise failure from failure.__cause__
    except _core.CoreError as error:
        client._farthing.failed(error)
    if answer is None:
        return await plain(request, stream=stream, **kwargs)
    response = call.response(answer, is_async=True)
    failed = not response.is_success and call.owns_retries
    if failed or not stream:
        await response.aread()
    if failed:
        raise client._make_status_error_from_response(response)
    return response


def retries(response: Any, counted: int) -> int:
    """How often a call was retried: the SDK counts none of those that the engine made."""
    cell = response.extensions.get(RECEIPT)
    return counted if cell is None else max(counted, cell.facts()["attempts"] - 1)


def note(made: Any, response: Any) -> None:
    """Hangs the receipt of `response` on what the SDK made of it."""
    cell = response.extensions.get(RECEIPT)
    if cell is not None:
        attach(made, cell)


def _queue(loop: asyncio.AbstractEventLoop) -> _core.LoopQueue:
    queue = _queues.get(loop)
    if queue is None:
        queue = _core.LoopQueue(weakref.proxy(loop))
        _queues[loop] = queue
    return queue


class _Call:
    """One HTTP request that the engine answers."""

    def __init__(self, client: Any, request: Any, endpoint: str, route: Route) -> None:
        self.client = client
        self.request = request
        self.route = route
        self.started = time.monotonic()
        self.httpx = httpx_of(client)
        note = request.extensions[EXTENSION]
        options = note["options"]
        times = request.extensions.get("timeout") or {}
        owner, self.owns_retries = owner_of(client, route)
        self.arguments: dict[str, Any] = {
            "endpoint": endpoint,
            "url": str(request.url),
            "headers": request.headers.raw,
            "body": request.content,
            "owner": owner,
            "ledger": client._farthing.ledger,
            "model_asked": note["model_asked"],
            "max_retries": note["max_retries"] if self.owns_retries else 0,
            "connect": times.get("connect"),
            "read": times.get("read"),
            "write": times.get("write"),
            "mode": options.mode,
            "ttl": options.ttl,
            "tag": options.tag,
            "sample": sample_text(options.sample),
        }

    @classmethod
    def of(cls, client: Any, request: Any, kwargs: dict[str, Any]) -> _Call | None:
        """None: the request is not for the engine."""
        if EXTENSION not in request.extensions or kwargs.get("auth") is not None:
            return None
        endpoint = endpoint_of(request)
        if endpoint is None:
            return None
        route = route_of(client)
        if route is Route.UNSEEN:
            return None
        try:
            request.read()
        except Exception:  # an async or one-shot body: the SDK's to send
            return None
        return cls(client, request, endpoint, route)

    def response(self, answer: _core.Answer, *, is_async: bool) -> Any:
        """The answer as the SDK's kind of response, its body unread."""
        httpx = self.httpx
        if answer.pipe is not None:
            body = _events_class(httpx, is_async)(self, answer.pipe)
        else:
            body = httpx.ByteStream(answer.body)
        response = httpx.Response(
            answer.status,
            headers=answer.headers,
            request=self.request,
            extensions={"http_version": b"HTTP/1.1", RECEIPT: answer.receipt},
            stream=body,
        )
        response.elapsed = datetime.timedelta(seconds=time.monotonic() - self.started)
        return response

    def error(self, error: _core.SendError) -> BaseException:
        """What the SDK would raise."""
        kind, message, cause = error.args
        if kind == "raised":
            return _own(cause)
        low = self.transport_error(kind, message, cause)
        if not self.owns_retries:
            # The SDK's own loop retries this call, and it knows the transport's errors.
            return low
        shown: BaseException
        if isinstance(low, self.httpx.TimeoutException):
            shown = openai.APITimeoutError(request=self.request)
        else:
            shown = openai.APIConnectionError(request=self.request)
        shown.__cause__ = low
        return shown

    def transport_error(self, kind: str, message: str, cause: BaseException | None) -> BaseException:
        """The httpx exception for a failure, each time a new one."""
        if cause is not None:
            return _own(cause)
        names = {
            "connect_timeout": "ConnectTimeout",
            "read_timeout": "ReadTimeout",
            "write_timeout": "WriteTimeout",
            "pool_timeout": "PoolTimeout",
        }
        made: BaseException = getattr(self.httpx, names.get(kind, "ReadError"))(message, request=self.request)
        return made


def _own(error: BaseException) -> BaseException:
    """A copy, because callers that shared one upstream call must not share one exception's traceback."""
    try:
        twin = copy.copy(error)
    except Exception:
        return error
    return twin if type(twin) is type(error) and twin.args == error.args else error


def sample_text(sample: int | str | None) -> str | None:
    """A sample as part of the key: the number 1 and the text "1" are different samples."""
    return None if sample is None else f"{'number' if isinstance(sample, int) else 'text'}:{sample}"


class _Events:
    def __init__(self, call: _Call, pipe: _core.EventPipe) -> None:
        self._call = call
        self._pipe = pipe

    def _take(self) -> bytes | None:
        try:
            return self._pipe.take()
        except _core.SendError as error:
            kind, message, cause = error.args
            raise self._call.transport_error(kind, message, cause) from None


@functools.cache
def _events_class(httpx: Any, is_async: bool) -> type[Any]:
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
                    await self._wait()
                elif piece:
                    yield piece
                else:
                    return

        async def _wait(self) -> None:
            loop = asyncio.get_running_loop()
            future = loop.create_future()
            job = self._pipe.wait_async(_queue(loop), future)
            try:
                await future
            finally:
                job.cancel()

        async def aclose(self) -> None:
            self._pipe.close()

    return AsyncEvents if is_async else SyncEvents
