"""Functions of the user's by number, since the core cannot hold them. Who calls them is `hooks.py`.

The table is weak: whoever has the policy keeps its functions alive.
"""

from __future__ import annotations

import threading
import types
import weakref
from collections.abc import Callable
from typing import Any

__all__ = ["core_name", "function_of", "number_of", "refused", "table", "warned"]

warned: set[int] = set()
"""Functions whose failure was told."""
refused: set[int] = set()
"""Functions of which it was told that they are not called."""


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
            marks = (warned, refused)

            def forget(_: Any) -> None:
                # No lock: this runs wherever the garbage collector does, also when the module's names are gone at exit.
                self._functions.pop(number, None)
                for marked in marks:
                    marked.discard(number)
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


table = _Table()


def number_of(function: Callable[..., Any]) -> int:
    """The number of a callable, the same for as long as it lives, and never another's.

    Bound methods of one object are one callable, however often they are looked up. The table does not keep the callable
    alive, unless it is of a kind that Python cannot refer to weakly.

    Raises:
        TypeError: it cannot be called.
    """
    if not callable(function):
        raise TypeError(f"not callable: {type(function).__name__}")
    return table.number(function)


def function_of(number: int) -> Callable[..., Any] | None:
    """The callable of a number; None when it is gone."""
    return table.get(number)


def core_name(one: str | Callable[..., Any]) -> str:
    """How the policy's core text names a scorer or router: a name as it is, a callable as "hook:NUMBER"."""
    return one if isinstance(one, str) else f"hook:{number_of(one)}"
