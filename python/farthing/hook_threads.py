"""Where functions of the policy run: daemon threads of Python's, and an event loop on one.

Not threads of the core: one that is inside the interpreter when that ends would take the process down. Daemons, because
a function that never returns is not to keep the process from its end.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections import deque
from collections.abc import Callable

__all__ = ["OwnLoop", "Threads"]

_MOST_THREADS = 64
"""Functions that wait (for a server of the user's, say) hold a thread each; beyond this many they wait in line."""
_IDLE_SECONDS = 30.0

_logger = logging.getLogger("farthing")


class Threads:
    """Daemon threads, as many as there are functions running at a time."""

    def __init__(self, most: int = _MOST_THREADS, idle_seconds: float = _IDLE_SECONDS) -> None:
        self._most = most
        self._idle_seconds = idle_seconds
        self._changed = threading.Condition()
        self._jobs: deque[Callable[[], None]] = deque()
        self._running = 0
        self._idle = 0

    def submit(self, job: Callable[[], None]) -> None:
        """
        Raises:
            RuntimeError: there is no thread, and none can be had.
        """
        with self._changed:
            self._jobs.append(job)
            # A thread that was woken, and has not come round yet, still counts as idle; so does its job.
            if self._idle >= len(self._jobs):
                self._changed.notify()
                return
            if self._running >= self._most:
                return
            self._running += 1
        try:
            # An empty context: what is in the submitter's is not to live as long as the thread.
            start = threading.Thread(target=self._work, name="farthing-hook", daemon=True).start
            contextvars.Context().run(start)
        except RuntimeError:
            with self._changed:
                self._running -= 1
                if self._running > 0 or job not in self._jobs:
                    return
                self._jobs.remove(job)
            raise

    def _work(self) -> None:
        while (job := self._next()) is not None:
            try:
                job()
            except BaseException:
                # A job reports what goes wrong itself: this is the report that failed, and the thread is needed.
                _logger.debug("a function's report failed", exc_info=True)
            # What the job held is not to live until the next one.
            del job

    def _next(self) -> Callable[[], None] | None:
        with self._changed:
            self._idle += 1
            try:
                while not self._jobs:
                    if not self._changed.wait(self._idle_seconds) and not self._jobs:
                        self._running -= 1
                        return None
                return self._jobs.popleft()
            finally:
                self._idle -= 1


class OwnLoop:
    """An event loop on a daemon thread, for async functions of sync clients."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def get(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None or self._loop.is_closed():
                loop = asyncio.new_event_loop()
                thread = threading.Thread(target=self._run, args=(loop,), name="farthing-hook-loop", daemon=True)
                contextvars.Context().run(thread.start)
                self._loop = loop
            return self._loop

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        while not loop.is_closed():
            try:
                loop.run_forever()
            except BaseException:
                # A callback of the user's raised SystemExit: others wait for this loop.
                _logger.debug("a callback on farthing's event loop failed", exc_info=True)
            else:
                # Somebody stopped it: the next call has a new one.
                loop.close()
