"""Functions of the user's that the policy names: routers, scorers, comparisons. The core knows each by a number.

A sync function runs on a thread of Python's, an async one on the caller's event loop, or for a sync client on a loop of
farthing's own (`hook_threads.py`). Either way in a copy of the caller's context. What it returns goes to a completion,
as JSON; what it raises is a failure, and never the caller's.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import json
import logging
import os
import threading
import traceback
import types
import warnings
import weakref
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

from .call_options import packs
from .exceptions import FarthingWarning
from .hook_threads import OwnLoop, Refused, Threads

__all__ = [
    "CompressRequest",
    "Draft",
    "RouteRequest",
    "call",
    "cancel",
    "core_name",
    "function_of",
    "is_inside",
    "number_of",
]

_LONGEST_SHOWN = 200
"""Characters of a returned value in a message."""

_HAND_ON = (
    "hint: it hangs, or it calls the client from a thread that it started itself, and so is called again from there: "
    "hand the context on, executor.submit(contextvars.copy_context().run, function)"
)
_logger = logging.getLogger("farthing")
_inside: contextvars.ContextVar[bool] = contextvars.ContextVar("farthing_inside_hook", default=False)


class Completion(Protocol):
    """Where the core waits. The first call counts, later ones are ignored."""

    number: int
    """Names it, and is not used again in this process."""

    @property
    def is_cancelled(self) -> bool:
        """Nobody waits any more."""

    def done(self, text: str) -> None:
        """What the function returned, as JSON."""

    def fail(self, text: str) -> None:
        """Why there is nothing."""


@dataclass(frozen=True)
class RouteRequest:
    """What a router is asked about: a request, before it is sent.

    Attributes:
        model: the model that the application asked for.
        tiers: the names that may be returned, from cheap to dear, without those that cannot serve this request.
        messages: all messages (Responses: input items), as they were sent.
        prompt: text of the last message of the user's.
        system: text of the system and developer messages.
        tools: the tools that the request offers.
        features: what `by = "rules"` measured, by name.
        request: the whole body of the request.
    """

    model: str = ""
    tiers: tuple[str, ...] = ()
    messages: list[Any] = field(default_factory=list)
    prompt: str = ""
    system: str = ""
    tools: list[Any] = field(default_factory=list)
    features: dict[str, Any] = field(default_factory=dict)
    request: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CompressRequest:
    """What a function is asked to shorten: one text of a prompt.

    Attributes:
        text: as the methods before it have left it.
        part: "system", "history", "tools", "documents" or "last_user".
        question: text of the last message of the user's, without its documents.
        model: the model that the application asked for.
    """

    text: str = ""
    part: str = ""
    question: str = ""
    model: str = ""


@dataclass(frozen=True)
class Draft:
    """What a scorer is asked about: an answer that nobody has seen yet.

    Attributes:
        model: the model that wrote it.
        rung: the name of its rung.
        ladder: the names of all rungs, from cheap to dear.
        prompt: text of the last message of the user's.
        messages: all messages (Responses: input items), as they were sent.
        answer: the text of the answer; "" when there is none.
        tool_calls: name and arguments of each call that the answer asks for.
        response: the whole body of the answer.
        request: the whole body of the request.
        reference: a known good answer, if the call was given one.
        scores: what the scorers before this one said, 0 to 1, by name.
    """

    model: str = ""
    rung: str = ""
    ladder: tuple[str, ...] = ()
    prompt: str = ""
    messages: list[Any] = field(default_factory=list)
    answer: str = ""
    tool_calls: list[Any] = field(default_factory=list)
    response: dict[str, Any] = field(default_factory=dict)
    request: dict[str, Any] = field(default_factory=dict)
    reference: str | None = None
    scores: dict[str, float] = field(default_factory=dict)


def is_inside() -> bool:
    """Whether a function of a policy is running here. Tasks that it starts count, threads that it starts do not (before
    Python 3.14 they begin with an empty context)."""
    return _inside.get()


def _enter() -> None:
    _inside.set(True)
    # What a function asks is none of the questions that are packed with the one which waits for it.
    packs(None)


# ---- numbers ----


class _Table:
    """Callables by number. Weak: whoever has the policy keeps them alive."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._last = 0
        # By identity, as not everything that can be called can be hashed.
        self._numbers: dict[tuple[int, ...], int] = {}
        self._functions: dict[int, Callable[[], Any]] = {}

    def after_fork(self) -> None:
        self._lock = threading.RLock()

    def number(self, function: Callable[..., Any]) -> int:
        key = _identity(function)
        with self._lock:
            known = self._numbers.get(key)
            if known is not None and (found := self.get(known)) is not None and _identity(found) == key:
                return known
            self._last += 1
            number = self._last
            warned, refused = _warned, _refused

            def forget(_: Any) -> None:
                # No lock: this runs wherever the garbage collector does, also when the module's names are gone at exit.
                self._functions.pop(number, None)
                warned.discard(number)
                refused.discard(number)
                if self._numbers.get(key) == number:
                    self._numbers.pop(key, None)

            self._functions[number] = _weak(function, forget)
            self._numbers[key] = number
            return number

    def get(self, number: int) -> Callable[..., Any] | None:
        reference = self._functions.get(number)
        return None if reference is None else reference()


def _identity(function: Any) -> tuple[int, ...]:
    """A bound method is a new object each time that it is looked up."""
    if isinstance(function, types.MethodType) and _is_weakly_held(function.__self__):
        return (id(function.__self__), id(function.__func__))
    return (id(function),)


def _is_weakly_held(value: Any) -> bool:
    try:
        weakref.ref(value)
    except TypeError:
        return False
    return True


def _weak(function: Any, forget: Callable[[Any], None]) -> Callable[[], Any]:
    if isinstance(function, types.MethodType) and _is_weakly_held(function.__self__):
        return weakref.WeakMethod(function, forget)
    try:
        return weakref.ref(function, forget)
    except TypeError:
        # An object with __slots__ and without __weakref__: it lives as long as the process.
        return lambda: function


_warned: set[int] = set()
_refused: set[int] = set()
_table = _Table()


def number_of(function: Callable[..., Any]) -> int:
    """The number of a callable, the same for as long as it lives, and never another's.

    Bound methods of one object are one callable, however often they are looked up. The table does not keep the callable
    alive, unless it is of a kind that Python cannot refer to weakly.

    Raises:
        TypeError: it cannot be called.
    """
    if not callable(function):
        raise TypeError(f"not callable: {type(function).__name__}")
    return _table.number(function)


def function_of(number: int) -> Callable[..., Any] | None:
    """The callable of a number; None when it is gone."""
    return _table.get(number)


def core_name(one: str | Callable[..., Any]) -> str:
    """How the policy's core text names a scorer or router: a name as it is, a callable as "hook:NUMBER"."""
    return one if isinstance(one, str) else f"hook:{number_of(one)}"


# ---- calls ----


def call(
    number: int,
    argument: str,
    kind: str,
    context: contextvars.Context,
    loop: asyncio.AbstractEventLoop | None,
    completion: Completion,
) -> None:
    """Starts the function `number`, and returns at once; never raises. Called from a thread of the core.

    Args:
        number: see `number_of`.
        argument: JSON of what the function is asked about.
        kind: "route" (the function gets a `RouteRequest`), "score" (a `Draft`), "compress" (a `CompressRequest`) or
            "compare" (two texts).
        context: the caller's; the function runs in a copy.
        loop: the caller's event loop; None for a sync client.
        completion: gets what the function returns.
    """
    try:
        function = function_of(number)
        if function is None:
            completion.fail("the function is gone: its policy is no longer held by anybody")
            return
        job = _Job(number, function, argument, kind, context.copy(), loop, completion)
        if _is_async(function):
            job.on_loop(None)
        else:
            _submit(job)
    except BaseException as error:
        completion.fail(_said(error))


def _submit(job: _Job) -> None:
    completion = job.completion
    try:
        _threads.submit(job.on_thread, job.number, lambda: completion.is_cancelled, job.refuse)
    except Refused as refusal:
        why = str(refusal)
        if job.number in _refused:
            job.refuse(why)
        else:
            # To warn is to run the user's code, and that is not for a thread of the core.
            _threads.submit(lambda: job.refuse(why))


def cancel(number: int) -> None:
    """Nobody waits for the completion `number`: a task is cancelled, a thread cannot be. Called from a thread of the
    core."""
    found = _tasks.get(number)
    if found is not None:
        task, loop = found
        try:
            loop.call_soon_threadsafe(task.cancel)
        except RuntimeError:  # the loop is closed
            pass


_tasks: dict[int, tuple[asyncio.Task[Any], asyncio.AbstractEventLoop]] = {}


@dataclass(frozen=True)
class _Job:
    number: int
    function: Callable[..., Any]
    argument: str
    kind: str
    context: contextvars.Context
    loop: asyncio.AbstractEventLoop | None
    completion: Completion

    def made(self) -> Any:
        return self.function(*_arguments(self.kind, json.loads(self.argument)))

    def on_thread(self) -> None:
        if not self.completion.is_cancelled:
            self.context.run(self._work)

    def _work(self) -> None:
        _enter()
        try:
            value = self.made()
            if inspect.isawaitable(value):
                self.on_loop(value)
            else:
                self._finish(value)
        except BaseException as error:
            self._fail(error)

    def on_loop(self, awaitable: Awaitable[Any] | None) -> None:
        """Awaits what the function returned; None: it is called on the loop, as what it makes may want one to run."""
        loop = self.loop if self.loop is not None else _own_loop.get()

        def start() -> None:
            _enter()
            # A task keeps itself in `_tasks` once it runs; until then the loop has it.
            loop.create_task(self._wait(awaitable, loop))

        try:
            loop.call_soon_threadsafe(start, context=self.context.copy())
        except RuntimeError:  # the loop is closed
            _close(awaitable)
            raise

    async def _wait(self, awaitable: Awaitable[Any] | None, loop: asyncio.AbstractEventLoop) -> None:
        task = asyncio.current_task()
        assert task is not None
        _tasks[self.completion.number] = (task, loop)
        try:
            if self.completion.is_cancelled:
                _close(awaitable)
                return
            made = self.made() if awaitable is None else awaitable
            self._finish(await made if inspect.isawaitable(made) else made)
        except KeyboardInterrupt as error:
            self._fail(error)
            if self.loop is not None:
                # The application's own loop: Ctrl-C is the application's.
                raise
        except BaseException as error:
            self._fail(error)
        finally:
            _tasks.pop(self.completion.number, None)

    def _finish(self, value: Any) -> None:
        try:
            text = json.dumps(value, allow_nan=False)
        except Exception as error:
            raise TypeError(f"it returned {_shown(value)}, which JSON cannot say") from error
        self.completion.done(text)

    def _fail(self, error: BaseException) -> None:
        """Tells the core, and before that, once for each function, the user: a sync caller sees it during its call."""
        if self.completion.is_cancelled:
            return
        said = _said(error)
        try:
            self._warn(error, said)
        except BaseException:
            # Warnings may be errors, a log's handler may fail.
            pass
        finally:
            self.completion.fail(said)

    def refuse(self, why: str) -> None:
        """It is not run, and the core goes on without it."""
        said = f"not called: {why}"
        try:
            if self.number not in _refused and not self.completion.is_cancelled:
                _refused.add(self.number)
                warnings.warn(
                    f"a function of the policy is not called: {self._name}: {why}\n{_HAND_ON}",
                    FarthingWarning,
                    stacklevel=2,
                )
        except BaseException:
            pass
        finally:
            self.completion.fail(said)

    @property
    def _name(self) -> str:
        return getattr(self.function, "__qualname__", None) or type(self.function).__qualname__

    def _warn(self, error: BaseException, said: str) -> None:
        is_first = self.number not in _warned
        _warned.add(self.number)
        name = self._name
        lines = _sayable("".join(traceback.format_exception(type(error), error, error.__traceback__)))
        _logger.log(logging.WARNING if is_first else logging.DEBUG, "%s (%s): %s", name, self.kind, lines)
        if is_first:
            hint = "hint: the logger 'farthing' has the traceback; later failures of it are logged at DEBUG"
            warnings.warn(f"a function of the policy failed: {name}: {said}\n{hint}", FarthingWarning, stacklevel=2)


def _close(awaitable: Any) -> None:
    """A coroutine that is not awaited would be complained of."""
    if inspect.iscoroutine(awaitable):
        awaitable.close()


def _is_async(function: Any) -> bool:
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


_KINDS: dict[str, type[Any]] = {"route": RouteRequest, "score": Draft, "compress": CompressRequest}


def _arguments(kind: str, fields_: dict[str, Any]) -> tuple[Any, ...]:
    if kind == "compare":
        return (fields_["one"], fields_["other"])
    return (_made(_KINDS[kind], fields_),)


def _made(kind: type[Any], values: dict[str, Any]) -> Any:
    known = {one.name for one in fields(kind)}
    kept = {name: value for name, value in values.items() if name in known}
    for name in ("tiers", "ladder"):
        if name in kept:
            kept[name] = tuple(kept[name])
    return kind(**kept)


def _said(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:
        text = "(its message cannot be read)"
    text = f"{type(error).__name__}: {text}"
    return _sayable(text)


def _sayable(text: str) -> str:
    """Without lone surrogates: neither the core's texts nor a log file can have any."""
    return text.encode("utf-8", "replace").decode()


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:
        text = "?"
    text = text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."
    return f"{type(value).__module__}.{type(value).__qualname__}: {text}"


# ---- the process ----


_threads = Threads()
_own_loop = OwnLoop()
_left: list[Any] = []


def _after_fork() -> None:
    """The threads are the parent's, and so may be the holders of the locks."""
    global _threads, _own_loop
    # The parent's loop shares its sockets with this process: closing it here could wake the parent.
    _left.append((_own_loop, dict(_tasks)))
    _tasks.clear()
    _table.after_fork()
    _threads = Threads()
    _own_loop = OwnLoop()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
