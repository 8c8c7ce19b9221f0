"""Where functions of the policy run: daemon threads of Python's, and an event loop on one.

Not threads of the core: one that is inside the interpreter when that ends would take the process down. Daemons, because
a function that never returns is not to keep the process from its end.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["OwnLoop", "Refused", "Threads"]

_MOST_THREADS = 64
"""Runs of one function that wait (for a server of the user's, say) hold a thread each; beyond this many they wait in
line. For each function: one that hangs is not to take the threads of another."""
_MOST_HANGING = 16
"""Runs of one function that go on though nobody waits for them any more; beyond this many there are no new ones."""
_PATIENCE = 2.0
"""Seconds. Where no run ends for so long, those in line would wait in vain: all may wait for the one that is last."""
_IDLE_SECONDS = 30.0

_logger = logging.getLogger("farthing")


class Refused(Exception):
    """A function is not run, because of those runs of it that go on. The text says why."""


@dataclass(eq=False)
class _Job:
    run: Callable[[], None]
    line: _Line
    is_left: Callable[[], bool]
    refuse: Callable[[str], None]


@dataclass(eq=False)
class _Line:
    """The runs of one function."""

    key: int
    running: set[_Job] = field(default_factory=set)
    waiting: deque[_Job] = field(default_factory=deque)
    ended: int = 0
    is_watched: bool = False


class Threads:
    """Daemon threads, as many as there are functions running at a time."""

    def __init__(
        self,
        most: int = _MOST_THREADS,
        idle_seconds: float = _IDLE_SECONDS,
        most_hanging: int = _MOST_HANGING,
        patience: float = _PATIENCE,
    ) -> None:
        self._most = most
        self._idle_seconds = idle_seconds
        self._most_hanging = most_hanging
        self._patience = patience
        self._changed = threading.Condition()
        self._lines: dict[int, _Line] = {}
        self._jobs: deque[_Job] = deque()
        self._running = 0
        self._idle = 0

    def submit(
        self,
        run: Callable[[], None],
        key: int = 0,
        is_left: Callable[[], bool] = lambda: False,
        refuse: Callable[[str], None] = lambda why: None,
    ) -> None:
        """
        Args:
            run: what is to be done.
            key: whose it is: each has its own line.
            is_left: whether nobody waits for it any more.
            refuse: called, on a thread, with why it is not run after all.

        Raises:
            Refused: too many runs for this key hang.
            RuntimeError: there is no thread, and none can be had.
        """
        with self._changed:
            line = self._lines.get(key) or self._lines.setdefault(key, _Line(key))
            if len(line.running) > self._most_hanging:
                hanging = sum(1 for other in line.running if other.is_left())
                if hanging > self._most_hanging:
                    raise Refused(f"{hanging} runs of it go on though nobody waits for them any more")
            job = _Job(run, line, is_left, refuse)
            if len(line.running) >= self._most:
                line.waiting.append(job)
                self._watch(line)
                return
            line.running.add(job)
            self._jobs.append(job)
            # A thread that was woken, and has not come round yet, still counts as idle; so does its job.
            if self._idle >= len(self._jobs):
                self._changed.notify()
                return
            self._running += 1
        try:
            _start(self._work)
        except RuntimeError:
            with self._changed:
                self._running -= 1
                if self._running > 0 or job not in self._jobs:
                    return
                self._jobs.remove(job)
                self._end(job)
            raise

    def _watch(self, line: _Line) -> None:
        """Refuses those in line once no run has ended for a while."""
        if line.is_watched:
            return

        def watch() -> None:
            while True:
                with self._changed:
                    if not line.waiting:
                        line.is_watched = False
                        return
                    ended = line.ended
                time.sleep(self._patience)
                with self._changed:
                    refused = list(line.waiting) if line.ended == ended else []
                    if refused:
                        line.waiting.clear()
                for job in refused:
                    job.refuse(f"{self._most} runs of it go on, and none has ended for {self._patience:g} seconds")

        try:
            _start(watch)
            line.is_watched = True
        except RuntimeError:  # no thread to be had: they wait
            pass

    def _end(self, job: _Job) -> None:
        """Whoever calls has the lock, and comes round for the next job."""
        line = job.line
        line.running.discard(job)
        line.ended += 1
        if line.waiting:
            following = line.waiting.popleft()
            line.running.add(following)
            self._jobs.append(following)
        elif not line.running and self._lines.get(line.key) is line:
            del self._lines[line.key]

    def _work(self) -> None:
        while (job := self._next()) is not None:
            try:
                job.run()
            except BaseException:
                # A job reports what goes wrong itself: this is the report that failed, and the thread is needed.
                _logger.debug("a function's report failed", exc_info=True)
            with self._changed:
                self._end(job)
            # What the job held is not to live until the next one.
            del job

    def _next(self) -> _Job | None:
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


def _start(work: Callable[[], None]) -> None:
    """In an empty context: what is in the submitter's is not to live as long as the thread.

    Raises:
        RuntimeError: there is none to be had.
    """
    contextvars.Context().run(threading.Thread(target=work, name="farthing-hook", daemon=True).start)


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
