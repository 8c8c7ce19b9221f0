"""Calls functions of the user's that the policy names: routers, scorers, comparisons, compressors. The core knows each
by a number (`hook_numbers.py`); what it is given is in `hook_requests.py`.

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
import traceback
import warnings
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from .call_options import packs
from .exceptions import FarthingWarning
from .hook_numbers import function_of, refused, table, warned
from .hook_requests import arguments
from .hook_threads import OwnLoop, Refused, Threads

__all__ = ["call", "cancel", "is_inside"]

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


def is_inside() -> bool:
    """Whether a function of a policy is running here. Tasks that it starts count, threads that it starts do not (before
    Python 3.14 they begin with an empty context)."""
    return _inside.get()


def _enter() -> None:
    _inside.set(True)
    # What a function asks is none of the questions that are packed with the one which waits for it.
    packs(None)


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
        if job.number in refused:
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
        return self.function(*arguments(self.kind, json.loads(self.argument)))

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
            if self.number not in refused and not self.completion.is_cancelled:
                refused.add(self.number)
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
        is_first = self.number not in warned
        warned.add(self.number)
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
    if isinstance(value, bytes | bytearray):
        # It may be all of a prompt's text, which is nobody's business.
        return f"{type(value).__module__}.{type(value).__qualname__} of {len(value):,} bytes"
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
    table.after_fork()
    _threads = Threads()
    _own_loop = OwnLoop()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
