"""What a client and its copies share: engine, ledger, policy; and which engine belongs to which policy.

No call is made here (`resources/`, `transport.py`), and nothing about HTTP.
"""

from __future__ import annotations

import atexit
import itertools
import os
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from . import _core
from .answers import forget_queues
from .exceptions import CacheError, FarthingError, FarthingWarning, PolicyError, explain
from .policy import ENV, Policy

if TYPE_CHECKING:
    from .signatures import PolicyLike
    from .upstreams import Routes

__all__ = ["CacheControl", "Session"]

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_core.before_fork,
        after_in_parent=_core.after_fork_in_parent,
        after_in_child=_core.after_fork_in_child,
    )
atexit.register(_core.at_exit)

# Held, so that a program which makes a client for each request still finds its answers; the policies used last only, as
# each may hold a cache of its own.
_MOST_HELD = 32
# Seconds between two looks at a policy's file.
_POLL = 1.0
_held: dict[str, _core.Engine] = {}
_engines: weakref.WeakValueDictionary[str, _core.Engine] = weakref.WeakValueDictionary()
_lock = threading.Lock()
_numbers = itertools.count(1)
# One reload at a time: of two, the one that read the older file must not have the last word.
_reloads = threading.RLock()


def _engine(policy: str, before: _core.Engine | None = None) -> _core.Engine:
    """One engine a policy, so that clients with equal policies share answers and calls in flight. `before`: that the
    client had until now."""
    with _lock:
        engine = _engines.get(policy)
        if engine is None:
            engine = _core.Engine(policy, before)
            _engines[policy] = engine
        _held.pop(policy, None)
        _held[policy] = engine
        if len(_held) > _MOST_HELD:
            del _held[next(iter(_held))]
        return engine


if hasattr(os, "register_at_fork"):
    # Another thread may hold the lock at the fork, and there is no such thread in the child.
    def _in_child() -> None:
        global _lock, _reloads
        _lock, _reloads = threading.Lock(), threading.RLock()
        forget_queues()
        if _has_file:
            # By now multiprocessing is loaded, if the child is one of its own.
            _flush_at_the_end_of_children()

    os.register_at_fork(after_in_child=_in_child)


class Session:
    """Shared by a client and what `copy()` and `with_options()` make of it."""

    # One object, which a reload replaces: a call must not have the engine of one policy and the routes of another.
    # places.py watches it.
    current: tuple[_core.Engine, Routes | None]

    def __init__(
        self,
        policy: Policy,
        ledger: _core.Ledger | None = None,
        path: str | None = None,
        *,
        watch: bool = False,
        before: _core.Engine | None = None,
    ) -> None:
        self.policy = policy
        routes = _routes(policy)
        self.current = _engine(policy.to_core(), before), routes
        self.ledger = ledger if ledger is not None else _core.Ledger()
        if policy.cache is not None and policy.cache.path is not None:
            self._opened()
        self.warned = False
        self.number = next(_numbers)
        self.path = path
        self.watched = watch
        self._looked = time.monotonic()
        self._seen = _stamp(path) if watch else None

    @property
    def engine(self) -> _core.Engine:
        return self.current[0]

    @classmethod
    def of(cls, given: PolicyLike, ledger: _core.Ledger | None = None, *, watch: bool = False) -> Session:
        """The session of a policy as a client is given it; `watch`: its file is looked at on calls.

        Raises:
            PolicyError: the policy has a mistake in it; it is to be watched, and is no file.
        """
        path = given if isinstance(given, str | os.PathLike) else os.environ.get(ENV) if given is None else None
        if watch and not path:
            raise PolicyError(explain("reload=True needs a policy in a file", hint='policy="farthing.toml"'))
        # Absolute, so that a change of the working directory does not mean another file.
        place = os.path.abspath(os.path.expanduser(os.fsdecode(path))) if path else None
        return cls(Policy.resolve(given), ledger, place, watch=watch)

    def reload(self) -> None:
        """Reads the policy's file again.

        Raises:
            PolicyError: there is none, or it has a mistake in it: then everything stays as it is.
        """
        if self.path is None:
            hint = 'make the client with policy="farthing.toml", or with FARTHING_POLICY set'
            raise PolicyError(explain("the policy of this client was not read from a file", hint=hint))
        with _reloads:
            policy = Policy.from_toml(self.path)
            routes = _routes(policy)
            engine = _engine(policy.to_core(), self.engine)
            self.policy, self.current = policy, (engine, routes)
        if policy.cache is not None and policy.cache.path is not None:
            self._opened()

    def packing(self, model: str) -> Session:
        """One whose policy packs calls to `model`: itself, or another with the same cache and ledger."""
        if self.watched:
            self.poll()
        from .batch_policy import Batch

        policy = self.policy
        if policy.batch is None:
            batch = Batch(models=(model,), window_ms=0)
        elif model in policy.batch.models:
            return self
        else:
            batch = replace(policy.batch, models=(model,), window_ms=0)
        return Session(replace(policy, batch=batch), self.ledger, before=self.engine)

    def poll(self) -> None:
        """Takes the file over when it has changed; looks at it at most once a second."""
        now = time.monotonic()
        if now - self._looked < _POLL:
            return
        self._looked = now
        assert self.path is not None
        seen = _stamp(self.path)
        # A file that is not there is one that is just being replaced.
        if seen is None or seen == self._seen:
            return
        self._seen = seen
        try:
            self.reload()
        except (FarthingError, _core.CoreError) as error:
            message = f"the policy stays as it was: {error}"
            warnings.warn(message, FarthingWarning, stacklevel=4)

    def _opened(self) -> None:
        """Says what went wrong with the cache file when it was opened; has it written when a child of multiprocessing
        ends.

        Raises:
            CacheError: the policy is strict.
        """
        global _has_file
        _has_file = True
        news = self.engine.take_news(self.ledger)
        if news is not None:
            if self.policy.strict:
                raise CacheError(news)
            warnings.warn(news, FarthingWarning, stacklevel=5)
        _flush_at_the_end_of_children()

    def written(self, *, wait: bool = True) -> None:
        """Has the cache file written, for a client that is closed."""
        try:
            self.engine.cache_flush(2.0 if wait else 0.0)
        except _core.CoreError as error:
            if self.policy.strict:
                raise CacheError(str(error)) from None
            self.failed(error)

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


def _routes(policy: Policy) -> Routes | None:
    tables = any(not isinstance(alias, str) for alias in policy.aliases.values())
    rows = any(row.upstream is not None or row.fallback for row in policy.models.values())
    # Most policies say nothing of it, and reading the room takes milliseconds.
    if not (policy.upstreams or tables or rows or policy.route or policy.escalate or policy.batch or policy.compress):
        return None
    from .upstreams import routes_of

    return routes_of(policy, _numbers)


def _stamp(path: str | None) -> tuple[int, int] | None:
    try:
        found = os.stat(path or "")
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


@contextmanager
def _asked() -> Iterator[None]:
    """What the cache was asked to do by name: it says when it could not."""
    try:
        yield
    except _core.CoreError as error:
        raise CacheError(str(error)) from None


_children_flush = False
_has_file = False


def _flush_at_the_end_of_children() -> None:
    """A child of multiprocessing ends without `atexit`; it has finalizers of its own."""
    global _children_flush
    util = sys.modules.get("multiprocessing.util")
    if _children_flush or util is None:
        return
    _children_flush = True

    def add(_: Any) -> None:
        util.Finalize(None, _core.flush_files, exitpriority=-1000)

    add(None)
    # A forked child forgets the finalizers of its parent.
    util.register_after_fork(_flush_at_the_end_of_children, add)


class CacheControl:
    """`client.cache`: the exact cache, which all clients with the same policy in this process share."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def clear(self) -> None:
        """Forgets every stored answer, in memory and in the file. Raises CacheError when the file cannot."""
        with _asked():
            self._session.engine.cache_clear()

    def invalidate(self, *, tag: str) -> int:
        """Forgets the answers that were stored under a tag, in memory and in the file; returns how many there were.
        Other processes with the same file forget them within a second. Raises CacheError when the file cannot."""
        with _asked():
            return self._session.engine.cache_invalidate(tag)

    def flush(self) -> None:
        """Waits until the file has every answer and every sum so far; without a file, nothing happens. At exit this is
        done by itself. Raises CacheError when the file cannot take it within 5 seconds."""
        with _asked():
            self._session.engine.cache_flush(5.0)

    def stats(self) -> dict[str, Any]:
        """Counts: `entries`, `bytes` and `max_bytes` (bytes), `hits`, `misses`, `stored`, `in_flight`; with a
        file also `disk_entries`, `disk_bytes`, `max_disk_bytes` and `disk_hits`."""
        return self._session.engine.cache_stats()
