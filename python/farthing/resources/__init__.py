"""The `create` methods: plain calls are answered here, everything else by the SDK's own.

L1: answered before? Then here, in microseconds. L2: not stored, so Rust sends it and the object is made here at once.
The rest goes to the SDK's own `create`, whose HTTP request comes to `transport.py` (L3). The types that editors and
type checkers see are the SDK's.

An endpoint is a file here, loaded when a client's resource is first used, as the SDK loads its own.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
from collections.abc import Callable
from typing import Any

from .. import _core
from ..answers import failure, http_response, queue_of
from ..exceptions import BudgetExceeded
from ..places import ABSENT
from ..plain import Kind, Limits, PlainCall
from ..receipts import refused, remember
from ..routes import is_sdk_function

__all__ = ["fast"]

_log = logging.getLogger("openai")


def _asks_in_rust(call: PlainCall) -> Limits | None:
    """The limits for L2; None: the SDK's way."""
    # Whoever reads the SDK's log wants to see the calls that leave the machine: the SDK writes it.
    if not call.rust or _log.isEnabledFor(logging.DEBUG):
        return None
    return call.limits()


def fast(base: type[Any], kind: Kind) -> Callable[..., Any]:
    """`create` for a subclass of `base`, sync or async as the original is."""
    original = vars(base)["create"]
    is_async = base.__name__.startswith("Async")
    # What the SDK came with, once it was seen: somebody may have replaced it before this was loaded.
    known: Any = None

    def look(resource: Any, arguments: dict[str, Any]) -> PlainCall | None:
        nonlocal known
        session = resource._client._farthing
        if session.watched:
            session.poll()
        now = vars(base)["create"]
        if now is not known:
            # A tracer that replaced the method must see the call.
            if not is_sdk_function(now):
                return None
            kind.shape = _shape(kind, now)
            known = now
        call = PlainCall(resource, kind, is_async, arguments)
        try:
            return call if call.look(resource) else None
        except _core.CoreError as error:
            resource._client._farthing.failed(error)
            return None

    if is_async:

        @functools.wraps(original)
        async def create_async(self: Any, *args: Any, **kwargs: Any) -> Any:
            call = None if args else look(self, kwargs)
            if call is not None:
                if type(call.found) is _core.Hit:
                    return call.stored(call.found)
                answer = await _ask_async(call)
                if answer is not None:
                    remember(self._client._farthing.number, answer.receipt)
                    made = call.answered(answer)
                    return made if made is not None else await _unexpected_async(call, answer)
            return await _bound(vars(base)["create"], self)(*args, **kwargs)

        return create_async

    @functools.wraps(original)
    def create(self: Any, *args: Any, **kwargs: Any) -> Any:
        call = None if args else look(self, kwargs)
        if call is not None:
            if type(call.found) is _core.Hit:
                return call.stored(call.found)
            answer = _ask(call)
            if answer is not None:
                remember(self._client._farthing.number, answer.receipt)
                made = call.answered(answer)
                return made if made is not None else _unexpected(call, answer)
        return _bound(vars(base)["create"], self)(*args, **kwargs)

    return create


def _bound(create: Any, resource: Any) -> Any:
    """As `resource.create` would be without our subclass: what stands there may be no function (wrapt, a mock)."""
    bind = getattr(type(create), "__get__", None)
    return create if bind is None else bind(create, resource, type(resource))


def _shape(kind: Kind, create: Callable[..., Any]) -> _core.Shape:
    parameters = inspect.signature(create).parameters
    required = [name for name, p in parameters.items() if p.default is p.empty and name != "self"]
    return _core.Shape(kind.name, set(parameters), required, ABSENT, kind.default)


def _ask(call: PlainCall) -> _core.Answer | None:
    """The answer of the engine; None: ask the SDK's way."""
    limits = _asks_in_rust(call)
    if limits is None:
        return None
    try:
        return call.found.ask(limits, list((call.headers or {}).items()))  # type: ignore[no-any-return]
    except BudgetExceeded as error:
        refused(call.client._farthing.number, error)
        raise
    except _core.SendError as error:
        failed = failure(call, error)
        raise failed from failed.__cause__
    except _core.CoreError as error:
        call.client._farthing.failed(error)
        return None


async def _ask_async(call: PlainCall) -> _core.Answer | None:
    limits = _asks_in_rust(call)
    if limits is None:
        return None
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:  # trio
        return None
    future: asyncio.Future[_core.Answer] = loop.create_future()
    try:
        job = call.found.ask_async(limits, list((call.headers or {}).items()), queue_of(loop), future)
        try:
            return await future
        except BaseException:
            job.cancel()
            raise
    except BudgetExceeded as error:
        refused(call.client._farthing.number, error)
        raise
    except _core.SendError as error:
        failed = failure(call, error)
        raise failed from failed.__cause__
    except _core.CoreError as error:
        call.client._farthing.failed(error)
        return None


def _unexpected(call: PlainCall, answer: _core.Answer) -> Any:
    """An error status, or a success that is not what was asked for: the SDK knows what to make of it."""
    response = http_response(call, answer, is_async=False)
    response.read()
    if not response.is_success:
        raise call.client._make_status_error_from_response(response)
    return call.client._process_response(**call.unexpected(response, answer))


async def _unexpected_async(call: PlainCall, answer: _core.Answer) -> Any:
    response = http_response(call, answer, is_async=True)
    await response.aread()
    if not response.is_success:
        raise call.client._make_status_error_from_response(response)
    return await call.client._process_response(**call.unexpected(response, answer))
