"""`client.farthing`: calls about many questions at once.

Each question is one ordinary `client.chat.completions.create(...)`, made by a worker (a thread, or a task of the
caller's loop), so that cache, single-flight, stages, ledger and receipts are what they are for any other call. What is
more: the calls of one map carry one session, by which the core joins them with each other, and not by time.

Not in this room: what may be asked (questions.py), how calls share a request (`src/stages/batch.rs`).
"""

from __future__ import annotations

import contextvars
import queue
import threading
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, overload

import anyio

from . import _core
from .call_options import packs
from .progress import Bar
from .questions import Question, check_call, firsts_and_copies, messages_of

if TYPE_CHECKING:
    import openai
    from openai.types.chat import ChatCompletion

__all__ = ["AsyncMany", "Many"]

_ITEMS = 10
"""Questions in one request, where neither the call nor the policy says."""
_MOST_THREADS = 512
"""Of a sync client's map: a waiting thread looks for signals many times a second."""
_TURN = 0.1
"""Seconds. Where waiting for a lock holds Ctrl-C up (Windows), it is held up for so long."""


class Many:
    """`client.farthing` of a sync client."""

    def __init__(self, client: openai.OpenAI) -> None:
        self._client = client

    @overload
    def map(
        self,
        questions: Iterable[Question],
        *,
        model: str,
        system: str | None = ...,
        max_per_request: int | None = ...,
        concurrency: int = ...,
        progress: bool | None = ...,
        return_exceptions: Literal[False] = ...,
        **create: Any,
    ) -> list[ChatCompletion]: ...
    @overload
    def map(
        self,
        questions: Iterable[Question],
        *,
        model: str,
        system: str | None = ...,
        max_per_request: int | None = ...,
        concurrency: int = ...,
        progress: bool | None = ...,
        return_exceptions: bool,
        **create: Any,
    ) -> list[ChatCompletion | Exception]: ...
    def map(
        self,
        questions: Iterable[Question],
        *,
        model: str,
        system: str | None = None,
        max_per_request: int | None = None,
        concurrency: int = 4,
        progress: bool | None = None,
        return_exceptions: bool = False,
        **create: Any,
    ) -> Any:
        """Asks independent questions, several in one request, and returns an answer to each, in their order.

        What was answered is in the cache: after an error or Ctrl-C, the same call again goes on where this one ended.
        Where the policy's `[batch]` does not name the model, its calls here are packed all the same.

            answers = client.farthing.map(texts, model="gpt-4o-mini", system="Is it a complaint? yes or no")

        Args:
            questions: texts, or lists of messages that end with the user's; any iterable that has an order, read once.
                One that stands there again is asked once; then its copies are ordinary calls, which the cache answers.
            model: model or alias.
            system: a system message that is put first.
            max_per_request: questions in one request, 1 to 1,000; 1 = each alone; None = the policy's `max_items`, or
                10.
            concurrency: requests under way at a time, 1 to 1,000 (512 questions, for a sync client).
            progress: whether a progress bar is shown; None = where stderr is a terminal, and in notebooks.
            return_exceptions: exceptions are returned in the places of answers. Otherwise the first one is raised, once
                the calls under way have ended; the others are not begun.
            create: what else `client.chat.completions.create` takes, but for `stream`, `n`, `tools`.

        Returns:
            A `ChatCompletion` for each question, with a receipt of its own: its share of the tokens and of the cost.

        Raises:
            QuestionsError: something is no question, or cannot be asked of many. Nothing was asked.
            OpenAIError: what the first call that failed raised.
        """
        asked = _Asked(self._client, questions, model, system, max_per_request, concurrency, return_exceptions, create)
        with Bar(len(asked.messages), progress) as bar:
            for work, workers in asked.rounds(_MOST_THREADS):
                _in_threads(work, workers, bar)
        return asked.results


class AsyncMany:
    """`client.farthing` of an async client."""

    def __init__(self, client: openai.AsyncOpenAI) -> None:
        self._client = client

    @overload
    async def map(
        self,
        questions: Iterable[Question],
        *,
        model: str,
        system: str | None = ...,
        max_per_request: int | None = ...,
        concurrency: int = ...,
        progress: bool | None = ...,
        return_exceptions: Literal[False] = ...,
        **create: Any,
    ) -> list[ChatCompletion]: ...
    @overload
    async def map(
        self,
        questions: Iterable[Question],
        *,
        model: str,
        system: str | None = ...,
        max_per_request: int | None = ...,
        concurrency: int = ...,
        progress: bool | None = ...,
        return_exceptions: bool,
        **create: Any,
    ) -> list[ChatCompletion | Exception]: ...
    async def map(
        self,
        questions: Iterable[Question],
        *,
        model: str,
        system: str | None = None,
        max_per_request: int | None = None,
        concurrency: int = 4,
        progress: bool | None = None,
        return_exceptions: bool = False,
        **create: Any,
    ) -> Any:
        """As `Many.map`; cancelling it cancels the calls under way."""
        asked = _Asked(self._client, questions, model, system, max_per_request, concurrency, return_exceptions, create)
        with Bar(len(asked.messages), progress) as bar:
            for work, workers in asked.rounds(None):
                await _in_tasks(work, workers, bar)
        return asked.results


class _Asked:
    """One map: its questions, and what came of them."""

    def __init__(
        self,
        client: Any,
        questions: Iterable[Question],
        model: str,
        system: str | None,
        max_per_request: int | None,
        concurrency: int,
        keeps_errors: bool,
        create: dict[str, Any],
    ) -> None:
        check_call(model, max_per_request, concurrency, create)
        self.messages = messages_of(questions, system)
        self.results: list[Any] = [None] * len(self.messages)
        self._client = client
        self._arguments = {**create, "model": model}
        self._most = max_per_request
        batch = client.policy.batch
        self._concurrency = concurrency
        self._workers = concurrency * (max_per_request or (_ITEMS if batch is None else batch.max_items))
        self._keeps_errors = keeps_errors

    def rounds(self, most_workers: int | None) -> Iterable[tuple[_Work, int]]:
        """What is to be done, one after the other, and by how many workers. Raises what the first call that failed
        raised."""
        firsts, copies = firsts_and_copies(self.messages)
        client, packing = self._client, None
        for places in (firsts, copies):
            if not places:
                continue
            workers = min(len(places), self._workers, most_workers or len(places))
            if places is firsts:
                client, packing = _session(client, self._arguments["model"], workers, self._concurrency, self._most)
            else:
                # By now the cache has the answers. In a session, a worker that waits for another's equal call would be
                # waited for itself.
                packing = None
            work = _Work(client, places, self, packing)
            yield work, workers
            if work.error is not None:
                raise work.error

    def arguments(self, place: int) -> dict[str, Any]:
        return {**self._arguments, "messages": self.messages[place]}

    def settled(self, place: int, error: Exception) -> bool:
        """Whether an exception may stand in the place of an answer."""
        if self._keeps_errors:
            self.results[place] = error
        return self._keeps_errors


def _session(client: Any, model: str, workers: int, concurrency: int, most: int | None) -> tuple[Any, _core.Packing]:
    """Whom the questions are asked through, and the session of their calls."""
    if most != 1:
        from .client import packing_twin

        client = packing_twin(client, model)
    return client, _core.Packing(workers, concurrency, most)


class _Work:
    """The questions of one round, for workers to take."""

    def __init__(self, client: Any, places: list[int], asked: _Asked, packing: _core.Packing | None) -> None:
        self.create = client.chat.completions.create
        self.packing = packing
        self.error: BaseException | None = None
        self._left = deque(places)
        self._asked = asked
        self._lock = threading.Lock()

    def take(self) -> int | None:
        """The place of the next question; None: there is none."""
        try:
            place = self._left.popleft()
        except IndexError:
            return None
        if not self._left:
            self._drained()
        return place

    def arguments(self, place: int) -> dict[str, Any]:
        return self._asked.arguments(place)

    def answered(self, place: int, answer: Any) -> None:
        self._asked.results[place] = answer

    def failed(self, place: int, error: BaseException) -> None:
        if isinstance(error, Exception) and self._asked.settled(place, error):
            return
        with self._lock:
            if self.error is None:
                self.error = error
        self.drop()

    def drop(self) -> None:
        """No other question is begun."""
        self._left.clear()
        self._drained()

    def _drained(self) -> None:
        if self.packing is not None:
            self.packing.drained()


class _Seat:
    """A worker's place in the session, which is left once."""

    def __init__(self, packing: _core.Packing | None) -> None:
        self._packing = packing
        self._once = threading.Lock()

    def leave(self) -> None:
        if self._packing is not None and self._once.acquire(blocking=False):
            self._packing.leave()


def _in_threads(work: _Work, workers: int, bar: Bar) -> None:
    # True: a question is done; False: a worker is.
    done: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def run(seat: _Seat) -> None:
        try:
            packs(work.packing)
            while (place := work.take()) is not None:
                try:
                    work.answered(place, work.create(**work.arguments(place)))
                except BaseException as error:
                    work.failed(place, error)
                done.put(True)
        finally:
            try:
                seat.leave()
            finally:
                done.put(False)

    # Daemons: what they wait for is not to hold up the end of the process. Nobody can enter one context twice.
    made = []
    for _ in range(workers):
        seat = _Seat(work.packing)
        run_it = contextvars.copy_context().run
        made.append((seat, threading.Thread(target=run_it, args=(run, seat), name="farthing-map", daemon=True)))
    started = 0
    try:
        for _, thread in made:
            try:
                thread.start()
            except RuntimeError:  # so many threads cannot be had
                if not started:
                    raise
                break
            started += 1
        for seat, _ in made[started:]:
            seat.leave()
        left = started
        while left:
            try:
                answered = done.get(timeout=_TURN)
            except queue.Empty:
                continue
            if answered:
                bar.advance()
            else:
                left -= 1
    except BaseException:
        # Ctrl-C: what is under way ends in the background, and is stored.
        work.drop()
        for seat, thread in made:
            if thread.ident is None:
                seat.leave()
        raise


async def _in_tasks(work: _Work, workers: int, bar: Bar) -> None:
    async def run(seat: _Seat) -> None:
        try:
            packs(work.packing)
            while (place := work.take()) is not None:
                try:
                    work.answered(place, await work.create(**work.arguments(place)))
                except Exception as error:
                    work.failed(place, error)
                bar.advance()
        finally:
            seat.leave()

    seats = [_Seat(work.packing) for _ in range(workers)]
    try:
        async with anyio.create_task_group() as group:
            for seat in seats:
                group.start_soon(run, seat)
    finally:
        # A task that was cancelled before its first step has not left.
        for seat in seats:
            seat.leave()
