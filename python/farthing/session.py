"""What a client and its copies share: engine, ledger, policy; and which engine belongs to which policy.

No call is made here (`resources/`, `transport.py`), and nothing about HTTP.
"""

from __future__ import annotations

import atexit
import itertools
import os
import threading
import warnings
import weakref
from typing import Any

from . import _core
from .answers import forget_queues
from .exceptions import FarthingError, FarthingWarning
from .policy import Policy

__all__ = ["CacheControl", "Session"]

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_core.after_fork_in_child)
atexit.register(_core.at_exit)

# Held, so that a program which makes a client for each request still finds its answers; the policies used last only, as
# each may hold a cache of its own.
_MOST_HELD = 32
_held: dict[str, _core.Engine] = {}
_engines: weakref.WeakValueDictionary[str, _core.Engine] = weakref.WeakValueDictionary()
_lock = threading.Lock()
_numbers = itertools.count(1)


def _engine(policy: str) -> _core.Engine:
    """One engine a policy, so that clients with equal policies share answers and calls in flight."""
    with _lock:
        engine = _engines.get(policy)
        if engine is None:
            engine = _core.Engine(policy)
            _engines[policy] = engine
        _held.pop(policy, None)
        _held[policy] = engine
        if len(_held) > _MOST_HELD:
            del _held[next(iter(_held))]
        return engine


if hasattr(os, "register_at_fork"):
    # Another thread may hold the lock at the fork, and there is no such thread in the child.
    def _in_child() -> None:
        global _lock
        _lock = threading.Lock()
        forget_queues()

    os.register_at_fork(after_in_child=_in_child)


class Session:
    """Shared by a client and what `copy()` and `with_options()` make of it."""

    __slots__ = ("__weakref__", "engine", "ledger", "number", "policy", "warned")

    def __init__(self, policy: Policy, ledger: _core.Ledger | None = None) -> None:
        self.policy = policy
        self.engine = _engine(policy.to_core())
        self.ledger = ledger if ledger is not None else _core.Ledger()
        self.warned = False
        self.number = next(_numbers)

    def failed(self, error: Exception) -> None:
        """Notes a failure of farthing's own: raised when the policy is strict, else warned about once a client.

        Raises:
            FarthingError: the policy is strict.
        """
        if self.policy.strict:
            raise FarthingError(str(error)) from error
        if not self.warned:
            self.warned = True
            warnings.warn(
                f"{error}; the call goes on without farthing\nhint: Policy(strict=True) raises instead",
                FarthingWarning,
                stacklevel=4,
            )


class CacheControl:
    """`client.cache`: the exact cache, which all clients with the same policy in this process share."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def clear(self) -> None:
        """Forgets every stored answer."""
        self._session.engine.cache_clear()

    def invalidate(self, *, tag: str) -> int:
        """Forgets the answers that were stored under a tag; returns how many there were."""
        return self._session.engine.cache_invalidate(tag)

    def stats(self) -> dict[str, Any]:
        """Counts: `entries`, `bytes` and `max_bytes` (bytes), `hits`, `misses`, `stored`, `in_flight`."""
        return self._session.engine.cache_stats()
