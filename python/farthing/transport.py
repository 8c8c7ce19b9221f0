"""L3: the seam below the SDK's `request()`. Its HTTP request in, an HTTP response out, farthing's engine in between.

Every call that `resources/` did not answer comes here, so that the SDK's own semantics (parse, streams, raw
responses, errors) hold. What goes which way is in `routes.py`, the user's own http client in `sender.py`.
"""

from __future__ import annotations

import asyncio
import contextvars
import copy
import functools
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from . import _core
from .answers import RECEIPT, failure, http_response, queue_of
from .call_options import Options, current, from_headers, merge, sample_text
from .exceptions import BudgetExceeded
from .receipts import attach, refused, remember
from .routes import Route, endpoint_of, httpx_of, owner_of, route_of, urls_of
from .sender import AsyncSdkSender, SdkSender

if TYPE_CHECKING:
    from .destinations import Keys
    from .upstreams import Route as Destined

EXTENSION = "farthing"


def build(client: Any, plain: Callable[..., Any], options: Any, kwargs: dict[str, Any]) -> Any:
    """The SDK's `_build_request`, with the model's name resolved, farthing's own headers taken out and the limits
    noted."""
    session = client._farthing
    if session.watched:
        session.poll()
    data, extra = options.json_data, getattr(options, "extra_json", None)
    # The extra body wins over the model that the method was given.
    asked = next((d["model"] for d in (extra, data) if isinstance(d, dict) and isinstance(d.get("model"), str)), None)
    engine, routes = session.current
    route = routes.get(asked) if routes and asked is not None else None
    notes: list[str] = []
    before = None
    if route is not None:
        before = copy.copy(options)
        _take(options, route, notes)
    elif asked is not None:
        real = None
        try:
            real = engine.alias(asked)
        except _core.CoreError as error:
            session.failed(error)
        if real is not None:
            _name(options, real)
    if route is not None and route.destination is not None:
        from .upstreams import request_to

        request = request_to(route.destination, client, options, None, notes, **kwargs)
    else:
        request = plain(options, **kwargs)
    request.extensions[EXTENSION] = {
        "engine": engine,
        "options": merge(current(), _own_options(request)),
        "max_retries": options.get_max_retries(client.max_retries),
        "model_asked": asked,
        "route": route,
        "before": before,
        "plain": plain,
        "notes": notes,
    }
    return request


def _take(options: Any, route: Destined, notes: list[str]) -> None:
    """Makes the options of a call those of its route."""
    if not route.changes:
        _name(options, route.model)
        return
    from .upstreams import adapted

    data, extra = options.json_data, getattr(options, "extra_json", None)
    merged = {**(data if isinstance(data, dict) else {}), **(extra if isinstance(extra, dict) else {})}
    options.json_data = {**adapted(route, merged, notes), "model": route.model}
    if extra is not None:
        options.extra_json = None


def plain_request(plain: Callable[..., Any], options: Any) -> Any:
    """The SDK's request as it is, but for farthing's own headers."""
    request = plain(options)
    _own_options(request)
    return request


def _own_options(request: Any) -> Options | None:
    """The options in farthing's own headers, which are taken out."""
    ours = {name: value for name, value in request.headers.items() if name.startswith("x-farthing-")}
    for name in ours:
        del request.headers[name]
    return from_headers(ours) if ours else None


def _name(options: Any, model: str) -> None:
    for field in ("json_data", "extra_json"):
        data = getattr(options, field, None)
        if isinstance(data, dict) and isinstance(data.get("model"), str):
            setattr(options, field, {**data, "model": model})


def send(client: Any, plain: Callable[..., Any], request: Any, stream: bool, kwargs: dict[str, Any]) -> Any:
    """The sync client's `_send_request`."""
    route = _route(request)
    keys: Keys = {}
    if route is not None:
        from .destinations import keys_now

        keys = keys_now(route)
    sdk, (plain, named) = plain, _ways(client, plain, route)
    call = _Call.of(client, request, kwargs, keys)
    if call is None:
        return _plainly(client, sdk, named, request, route, keys)(stream=stream, **kwargs)
    sender = SdkSender(client._client, plain, named, request, kwargs) if call.route is Route.SDK_CLIENT else None
    try:
        answer = call.engine.send(call.arguments, sender)
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
        return _plainly(client, sdk, named, request, route, keys)(stream=stream, **kwargs)
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
    route = _route(request)
    keys: Keys = {}
    if route is not None:
        from .destinations import keys_soon

        keys = await keys_soon(route)
    sdk, (plain, named) = plain, _ways(client, plain, route)
    call = _Call.of(client, request, kwargs, keys)
    try:
        loop = asyncio.get_running_loop() if call is not None else None
    except RuntimeError:  # trio
        loop = None
    if call is None or loop is None:
        return await _plainly(client, sdk, named, request, route, keys)(stream=stream, **kwargs)
    sender = (
        AsyncSdkSender(client._client, plain, named, request, kwargs, loop) if call.route is Route.SDK_CLIENT else None
    )
    future: asyncio.Future[_core.Answer] = loop.create_future()
    answer: _core.Answer | None = None
    try:
        job = call.engine.send_async(call.arguments, sender, queue_of(loop), future, loop, contextvars.copy_context())
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
        return await _plainly(client, sdk, named, request, route, keys)(stream=stream, **kwargs)
    remember(client._farthing.number, answer.receipt)
    response = http_response(call, answer, is_async=True)
    raises = not response.is_success and call.owns_retries
    if raises or not stream:
        await response.aread()
    if raises:
        raise client._make_status_error_from_response(response)
    return response


def _route(request: Any) -> Destined | None:
    note = request.extensions.get(EXTENSION)
    return None if note is None else note["route"]


def is_named(request: Any) -> bool:
    """Whether a request goes to an upstream of the policy: what a client does to sign its own is not for that one."""
    route = _route(request)
    return route is not None and route.destination is not None


def _ways(client: Any, plain: Callable[..., Any], route: Destined | None) -> tuple[Callable[..., Any], Any]:
    """How the client's own http client sends the call's first request, and one to an upstream of the policy."""

    def named(request: Any, *, stream: bool, **_: Any) -> Any:
        # Not the SDK's own way: it may add credentials that are the client's. Where a redirect leads, the key of this
        # upstream would go too.
        return client._client.send(request, stream=stream, auth=None, follow_redirects=False)

    return (plain if route is None or route.destination is None else named), named


def _plainly(
    client: Any, plain: Callable[..., Any], named: Callable[..., Any], request: Any, route: Destined | None, keys: Keys
) -> Callable[..., Any]:
    """How the call is sent without the engine: with the key of its upstream, if that is a function's; to the default
    model, where a stage would have chosen one."""
    if route is not None and route.choices is not None:
        note = request.extensions[EXTENSION]
        options, route = copy.copy(note["before"]), route.plain
        _take(options, route, note["notes"])
        if route.destination is None:
            request = plain_request(note["plain"], options)
        else:
            from .upstreams import request_to

            request = request_to(route.destination, client, options, None, note["notes"])
    if route is None or route.destination is None:
        return functools.partial(plain, request)
    if route.destination in keys:
        request.headers["authorization"] = f"Bearer {keys[route.destination]}"
    return functools.partial(named, request)


def retries(response: Any, counted: int) -> int:
    """How often a call was retried: the SDK counts none of those that the engine made."""
    cell = response.extensions.get(RECEIPT)
    return counted if cell is None else max(counted, cell.attempts - 1)


def note(made: Any, response: Any) -> None:
    """Hangs the receipt of `response` on what the SDK made of it."""
    cell = response.extensions.get(RECEIPT)
    if cell is not None:
        attach(made, cell)


class _Call:
    """One HTTP request that the engine answers."""

    def __init__(self, client: Any, request: Any, endpoint: str, route: Route, keys: Keys) -> None:
        self.client = client
        self.request = request
        self.route = route
        self.started = time.monotonic()
        self.httpx = httpx_of(client)
        note = request.extensions[EXTENSION]
        self.engine = note["engine"]
        options = note["options"]
        times = request.extensions.get("timeout") or {}
        destined: Destined | None = note["route"]
        there = None if destined is None else destined.destination
        owner, self.owns_retries = owner_of(client, route, None if there is None else there.owner)
        if destined is not None:
            owner += destined.salt
        most = note["max_retries"] if there is None or there.max_retries is None else there.max_retries
        notes: list[str] = note["notes"]
        plan = None
        if destined is not None:
            from .upstreams import plan_of

            plan = plan_of(
                destined, client, functools.partial(plain_request, note["plain"]), note["before"], keys, notes
            )
        self.arguments: dict[str, Any] = {
            "endpoint": endpoint,
            "url": str(request.url),
            "headers": request.headers.raw,
            "body": request.content,
            "owner": owner,
            "ledger": client._farthing.ledger,
            "model_asked": note["model_asked"],
            "max_retries": most if self.owns_retries else 0,
            "plan": plan,
            "authorization": f"Bearer {keys[there]}" if there is not None and there in keys else None,
            "notes": notes,
            "connect": times.get("connect"),
            "read": times.get("read"),
            "write": times.get("write"),
            "mode": options.mode,
            "ttl": options.ttl,
            "tag": options.tag,
            "sample": sample_text(options.sample),
            "wishes": options.wishes,
            "packing": options.packing,
        }

    @classmethod
    def of(cls, client: Any, request: Any, kwargs: dict[str, Any], keys: Keys) -> _Call | None:
        """None: the request is not for the engine."""
        destined, named = _route(request), is_named(request)
        if EXTENSION not in request.extensions or (kwargs.get("auth") is not None and not named):
            return None
        endpoint = endpoint_of(request)
        if endpoint is None:
            return None
        own = not named or any(other.destination is None for other in (destined.others if destined else ()))
        route = route_of(client, urls_of(destined), own=own)
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
        return cls(client, request, endpoint, route, keys)
