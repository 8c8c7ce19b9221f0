"""L3: the seam below the SDK's `request()`. Its HTTP request in, an HTTP response out, farthing's engine in between.

Every call that `resources/` did not answer comes here, so that the SDK's own semantics (parse, streams, raw
responses, errors) hold. What goes which way is in `routes.py`, the user's own http client in `sender.py`.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Awaitable, Callable
from typing import Any

from . import _core
from .answers import RECEIPT, failure, http_response, queue_of
from .call_options import current, from_headers, merge, sample_text
from .exceptions import BudgetExceeded
from .receipts import attach, refused, remember
from .routes import Route, endpoint_of, httpx_of, owner_of, route_of
from .sender import AsyncSdkSender, SdkSender

EXTENSION = "farthing"


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
    extra = getattr(options, "extra_json", None)
    if isinstance(extra, dict) and isinstance(extra.get("model"), str):
        # The extra body wins over the model that the method was given.
        asked = extra["model"]
        try:
            real = session.engine.alias(asked)
        except _core.CoreError as error:
            real = session.failed(error)
        if real is not None:
            options.extra_json = {**extra, "model": real}
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
    call = _Call.of(client, request, kwargs, is_async=False)
    if call is None:
        return plain(request, stream=stream, **kwargs)
    sender = SdkSender(plain, request, kwargs) if call.route is Route.SDK_CLIENT else None
    try:
        answer = client._farthing.engine.send(call.arguments, sender)
    except BudgetExceeded as error:
        refused(client._farthing.number, error)
        raise
    except _core.SendError as error:
        failed = failure(call, error)
        raise failed from failed.__cause__
    except _core.CoreError as error:
        client._farthing.failed(error)
        answer = None
    if answer is None:
        return plain(request, stream=stream, **kwargs)
    remember(client._farthing.number, answer.receipt)
    response = http_response(call, answer, is_async=False)
    raises = not response.is_success and call.owns_retries
    if raises or not stream:
        response.read()
    if raises:
        raise client._make_status_error_from_response(response)
    return response


async def send_async(
    client: Any, plain: Callable[..., Awaitable[Any]], request: Any, stream: bool, kwargs: dict[str, Any]
) -> Any:
    """The async client's `_send_request`."""
    call = _Call.of(client, request, kwargs, is_async=True)
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
            call.arguments, sender, queue_of(loop), future, loop, contextvars.copy_context()
        )
        if job is not None:
            try:
                answer = await future
            except BaseException:
                job.cancel()
                raise
    except BudgetExceeded as error:
        refused(client._farthing.number, error)
        raise
    except _core.SendError as error:
        failed = failure(call, error)
        raise failed from failed.__cause__
    except _core.CoreError as error:
        client._farthing.failed(error)
    if answer is None:
        return await plain(request, stream=stream, **kwargs)
    remember(client._farthing.number, answer.receipt)
    response = http_response(call, answer, is_async=True)
    raises = not response.is_success and call.owns_retries
    if raises or not stream:
        await response.aread()
    if raises:
        raise client._make_status_error_from_response(response)
    return response


def retries(response: Any, counted: int) -> int:
    """How often a call was retried: the SDK counts none of those that the engine made."""
    cell = response.extensions.get(RECEIPT)
    return counted if cell is None else max(counted, cell.attempts - 1)


def _in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def note(made: Any, response: Any) -> None:
    """Hangs the receipt of `response` on what the SDK made of it."""
    cell = response.extensions.get(RECEIPT)
    if cell is not None:
        attach(made, cell)


class _Call:
    """One HTTP request that the engine answers."""

    def __init__(self, client: Any, request: Any, endpoint: str, route: Route, *, is_async: bool) -> None:
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
            # In a notebook, a sync call may stand in the way of the loop on which an equal call is being sent.
            "joins": is_async or route is not Route.SDK_CLIENT or not _in_loop(),
        }

    @classmethod
    def of(cls, client: Any, request: Any, kwargs: dict[str, Any], *, is_async: bool) -> _Call | None:
        """None: the request is not for the engine."""
        if EXTENSION not in request.extensions or kwargs.get("auth") is not None:
            return None
        endpoint = endpoint_of(request)
        if endpoint is None:
            return None
        route = route_of(client)
        if route is Route.UNSEEN:
            return None
        times = request.extensions.get("timeout") or {}
        if not all(time is None or time > 0 for time in times.values()):
            # 0, -1, NaN: what the http library makes of it.
            return None
        try:
            request.read()
        except Exception:  # an async or one-shot body: the SDK's to send
            return None
        return cls(client, request, endpoint, route, is_async=is_async)

    def response(self, answer: _core.Answer, *, is_async: bool) -> Any:
        response = http_response(self, answer, is_async=is_async)
        return response
