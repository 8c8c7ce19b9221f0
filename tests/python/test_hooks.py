"""Functions of the policy, called as the core calls them: numbers, threads, loops, what they return and raise."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import itertools
import json
import logging
import os
import subprocess
import sys
import textwrap
import threading
import time
import warnings
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing import FarthingWarning, hook_numbers, hook_requests, hooks
from farthing.hook_threads import OwnLoop, Refused, Threads

NUMBERS = itertools.count(1_000_000)
COLOUR: contextvars.ContextVar[str] = contextvars.ContextVar("colour", default="none")


class Completion:
    def __init__(self) -> None:
        self.number = next(NUMBERS)
        self.is_cancelled = False
        self.reports: list[tuple[str, str]] = []
        self.ended = threading.Event()

    def done(self, text: str) -> None:
        self.reports.append(("done", text))
        self.ended.set()

    def fail(self, text: str) -> None:
        self.reports.append(("fail", text))
        self.ended.set()

    def wait(self, seconds: float = 10) -> Any:
        assert self.ended.wait(seconds), "nothing was reported"
        assert len(self.reports) == 1
        how, text = self.reports[0]
        return json.loads(text) if how == "done" else RuntimeError(text)


def start(function: Any, loop: Any = None, kind: str = "compare", **argument: Any) -> Completion:
    argument = {"kind": kind, **(argument or {"one": "a", "other": "b"})}
    completion = Completion()
    context = contextvars.copy_context()
    hooks.call(hook_numbers.number_of(function), json.dumps(argument), kind, context, loop, completion)
    return completion


def ask(function: Any, kind: str = "compare", **argument: Any) -> Any:
    return start(function, None, kind, **argument).wait()


@pytest.fixture
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FarthingWarning)
        yield


class Scorer:
    def method(self, one: str, other: str) -> str:
        return one + other

    async def later(self, one: str, other: str) -> str:
        await asyncio.sleep(0)
        return other + one

    def __call__(self, one: str, other: str) -> bool:
        return one == other


class AsyncScorer:
    async def __call__(self, one: str, other: str) -> bool:
        await asyncio.sleep(0)
        return hooks.is_inside()


class Unhashable(Scorer):
    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return True


class Slotted:
    __slots__ = ()

    def method(self, one: str, other: str) -> str:
        return one

    def __call__(self, one: str, other: str) -> str:
        return other


# ---- numbers ----


def test_a_number_is_the_same_for_as_long_as_its_function_lives() -> None:
    scorer, partial = Scorer(), functools.partial(max, 1)
    for one in (len, scorer, partial, ask, Scorer, lambda: 0):
        assert hook_numbers.number_of(one) == hook_numbers.number_of(one)
        assert hook_numbers.function_of(hook_numbers.number_of(one)) is one
    # Each look-up of a method makes a new object.
    assert (
        hook_numbers.number_of(scorer.method)
        == hook_numbers.number_of(scorer.method)
        != hook_numbers.number_of(scorer.later)
    )
    assert hook_numbers.number_of(Scorer().method) != hook_numbers.number_of(scorer.method)
    assert hook_numbers.core_name(len) == f"hook:{hook_numbers.number_of(len)}"
    assert hook_numbers.core_name("rules") == "rules"


def test_equal_objects_are_not_the_same_function() -> None:
    one, other = Unhashable(), Unhashable()
    assert hook_numbers.number_of(one) == hook_numbers.number_of(one) != hook_numbers.number_of(other)
    assert (
        hook_numbers.number_of(one.method) == hook_numbers.number_of(one.method) != hook_numbers.number_of(other.method)
    )


def test_what_cannot_be_referred_to_weakly_has_a_number_too() -> None:
    one = Slotted()
    assert hook_numbers.number_of(one) == hook_numbers.number_of(one)
    assert ask(one) == "b"
    method = one.method
    assert hook_numbers.number_of(method) == hook_numbers.number_of(method)
    assert ask(method) == "a"


def test_the_table_keeps_nothing_alive_and_uses_no_number_twice() -> None:
    seen: set[int] = set()
    for _ in range(200):
        # Python gives the next one the place, and so the id, of the last.
        one = Scorer()
        numbers = {hook_numbers.number_of(one), hook_numbers.number_of(one.method)}
        assert not numbers & seen
        seen |= numbers
        gone = weakref.ref(one)
        del one
        gc.collect(0)
        assert gone() is None
    assert all(hook_numbers.function_of(number) is None for number in seen)
    assert not [number for number in hook_numbers.table._numbers.values() if number in seen]


def test_a_function_that_is_gone_is_a_failure() -> None:
    number, completion = hook_numbers.number_of(Scorer()), Completion()
    gc.collect()
    hooks.call(number, "{}", "score", contextvars.copy_context(), None, completion)
    assert "gone" in str(completion.wait())


def test_functions_that_outlive_the_module_end_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end of a process Python sets the names of modules to None before some objects go."""
    failures: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", failures.append)
    kept = [lambda request: None]
    number = hook_numbers.number_of(kept[0])
    with monkeypatch.context() as end:
        end.setattr(hook_numbers, "warned", None)
        kept.clear()
        gc.collect()
    assert hook_numbers.function_of(number) is None and failures == []


@pytest.mark.parametrize("wrong", [None, 3, "text", []])
def test_what_cannot_be_called_has_no_number(wrong: Any) -> None:
    with pytest.raises(TypeError, match="not callable"):
        hook_numbers.number_of(wrong)


def test_many_threads_ask_for_one_number() -> None:
    functions = [lambda i=i: i for i in range(100)]
    found: list[list[int]] = []
    threads = [
        threading.Thread(target=lambda: found.append([hook_numbers.number_of(f) for f in functions])) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(numbers == found[0] for numbers in found)
    assert len(set(found[0])) == len(functions)


# ---- what they are given ----


def test_a_router_gets_the_request() -> None:
    def route(asked: hook_requests.RouteRequest) -> list[Any]:
        with pytest.raises(AttributeError):
            asked.model = "other"  # type: ignore[misc]
        return [asked.model, asked.tiers, asked.features["words"], asked.prompt, asked.request["n"], asked.system]

    argument = {"model": "m", "tiers": ["a", "b"], "features": {"words": 2}, "prompt": "\U0001f600"}
    said = ask(route, "route", **argument, request={"n": 1}, newer_than_this="ignored")
    assert said == ["m", ["a", "b"], 2, "\U0001f600", 1, ""]


def test_a_scorer_gets_the_draft_and_each_its_own() -> None:
    def score(draft: hook_requests.Draft) -> Any:
        draft.messages.append("mine")
        return [draft.rung, draft.ladder, draft.answer, draft.reference, draft.scores, len(draft.messages)]

    argument: dict[str, Any] = {"rung": "small", "ladder": ["small", "big"], "answer": "42"}
    argument |= {"messages": [], "reference": None, "scores": {"structural": 0.5}}
    for _ in range(2):
        said = ask(score, "score", **argument)
        assert said == ["small", ["small", "big"], "42", None, {"structural": 0.5}, 1]


def test_a_comparison_gets_two_texts() -> None:
    assert ask(Scorer()) is False
    scorer = Scorer()
    assert ask(scorer.method) == "ab"
    assert ask(scorer.later) == "ba"
    assert ask(functools.partial(scorer.later)) == "ba"
    assert ask(AsyncScorer()) is True


# ---- what they return ----

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_json_comes_back_as_it_was(value: Any) -> None:
    def function(one: str, other: str) -> Any:
        return value

    assert ask(function) == value


class Loop(list[Any]):
    def __repr__(self) -> str:
        raise ValueError("no")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (object(), "builtins.object"),
        ({1, 2}, "builtins.set: {1, 2}"),
        (float("nan"), "builtins.float: nan"),
        (float("inf"), "inf"),
        (b"bytes", "builtins.bytes"),
        ("x" * 5 + "\ud800", None),
        ({"deep": [1, {"er": 3j}]}, "builtins.dict"),
    ],
)
def test_what_json_cannot_say_is_named(value: Any, shown: str | None, quiet: None) -> None:
    def function(one: str, other: str) -> Any:
        return value

    said = ask(function)
    if shown is None:
        assert said == value  # an escape, which the core's reader refuses
    else:
        assert isinstance(said, RuntimeError) and shown in str(said) and "JSON" in str(said)


def test_a_huge_or_circular_value_is_a_short_failure(quiet: None) -> None:
    circular = Loop()
    circular.append(circular)
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    for value in (circular, deep, [object()] * 100_000):
        said = ask(lambda one, other, value=value: value)
        assert isinstance(said, RuntimeError) and len(str(said)) < 500
    while deep:
        deep = deep.pop()


# ---- what they raise ----


class Silent(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even that")


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("bad \ud800 text"), "ValueError: bad ? text"),
        (SystemExit(3), "SystemExit: 3"),
        (KeyboardInterrupt(), "KeyboardInterrupt: "),
        (asyncio.CancelledError("gone"), "CancelledError: gone"),
        (GeneratorExit(), "GeneratorExit: "),
        (StopIteration(4), None),
        (Silent(), "Silent: (its message cannot be read)"),
    ],
)
def test_what_is_raised_is_a_failure(error: BaseException, text: str | None, is_async: bool, quiet: None) -> None:
    def plain(one: str, other: str) -> Any:
        raise error

    async def later(one: str, other: str) -> Any:
        raise error

    said = ask(later if is_async else plain)
    assert isinstance(said, RuntimeError)
    assert text is None or str(said) == text
    # Threads and loop are as they were.
    scorer = Scorer()
    assert (ask(scorer.method), ask(scorer.later)) == ("ab", "ba")


def test_the_user_is_warned_once_for_each_function(caplog: pytest.LogCaptureFixture) -> None:
    def one_that_fails(one: str, other: str) -> Any:
        raise ValueError("three")

    def another(one: str, other: str) -> Any:
        raise ValueError("four")

    def a_third(one: str, other: str) -> Any:
        raise ValueError("half of a letter: \ud800")

    caplog.set_level(logging.INFO, "farthing")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            ask(one_that_fails)
        ask(another)
        ask(a_third)
        deadline = time.monotonic() + 5
        while len(caught) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
    texts = [str(warning.message) for warning in caught if warning.category is FarthingWarning]
    assert len(texts) == 3
    assert "one_that_fails: ValueError: three" in texts[0] and "hint: " in texts[0]
    logged = [record for record in caplog.records if record.name == "farthing"]
    # A log file could not take it.
    assert all(record.getMessage().encode() for record in logged)
    assert len(logged) == 3 and "Traceback" in logged[0].getMessage() and "line" in logged[0].getMessage()


def test_warnings_that_are_errors_change_nothing() -> None:
    def fails(one: str, other: str) -> Any:
        raise ValueError("three")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert str(ask(fails)) == "ValueError: three"
        scorer = Scorer()
        assert ask(scorer.method) == "ab"


# ---- where they run ----


def test_the_context_is_a_copy_of_the_callers() -> None:
    def plain(one: str, other: str) -> list[Any]:
        seen = COLOUR.get()
        COLOUR.set("changed")
        return [seen, hooks.is_inside()]

    async def later(one: str, other: str) -> list[Any]:
        return plain(one, other) + [await asyncio.create_task(inner())]

    async def inner() -> bool:
        return hooks.is_inside()

    token = COLOUR.set("red")
    try:
        # Several of one call at a time: a context can be entered only once.
        waiting = [start(plain) for _ in range(20)]
        assert [one.wait() for one in waiting] == [["red", True]] * 20
        assert ask(later) == ["red", True, True]
        assert COLOUR.get() == "red"
    finally:
        COLOUR.reset(token)
    assert not hooks.is_inside()


def test_an_async_function_runs_on_the_callers_loop() -> None:
    async def where(one: str, other: str) -> list[Any]:
        await asyncio.sleep(0)
        return [id(asyncio.get_running_loop()), threading.get_ident(), COLOUR.get()]

    def returns_one(one: str, other: str) -> Any:
        return where(one, other)

    async def main() -> None:
        COLOUR.set("blue")
        loop = asyncio.get_running_loop()
        for function in (where, returns_one):
            completion = start(function, loop)
            said = await loop.run_in_executor(None, completion.wait)
            assert said == [id(loop), threading.get_ident(), "blue"]
        assert not hooks._tasks

    asyncio.run(main())
    loop, thread, _ = ask(where)
    assert thread != threading.get_ident() and ask(returns_one)[0] == loop


def test_a_closed_loop_is_a_failure(quiet: None) -> None:
    loop = asyncio.new_event_loop()
    loop.close()

    async def later(one: str, other: str) -> int:
        return 1

    assert "closed" in str(start(later, loop).wait())
    assert "closed" in str(start(lambda one, other: later(one, other), loop).wait())


def test_who_no_longer_waits_cancels_the_task() -> None:
    began, ended = threading.Event(), threading.Event()

    async def long(one: str, other: str) -> None:
        began.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    completion = start(long)
    assert began.wait(10)
    completion.is_cancelled = True
    hooks.cancel(completion.number)
    assert ended.wait(10)
    assert completion.reports == []
    hooks.cancel(completion.number)
    hooks.cancel(12345)


def test_a_job_that_nobody_waits_for_is_not_begun() -> None:
    threads = Threads(most=1)
    release, ran = threading.Event(), []
    threads.submit(lambda: ran.append(release.wait(10)))
    completion = Completion()
    function = lambda one, other: ran.append("late")  # noqa: E731
    job = hooks._Job(1, function, "{}", "compare", contextvars.copy_context(), None, completion)
    threads.submit(job.on_thread)
    completion.is_cancelled = True
    release.set()
    last = threading.Event()
    threads.submit(last.set)
    assert last.wait(10) and ran == [True]


def test_functions_that_wait_for_each_other_have_a_thread_each() -> None:
    together = threading.Barrier(20)

    def meet(one: str, other: str) -> bool:
        together.wait(10)
        return True

    assert all(one.wait() for one in [start(meet) for _ in range(20)])


def test_beyond_the_most_they_wait_in_line_and_threads_go_when_idle() -> None:
    threads = Threads(most=4, idle_seconds=0.05)
    running, most, ended = 0, 0, threading.Semaphore(0)
    lock = threading.Lock()

    def job() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.005)
        with lock:
            running -= 1
        ended.release()

    for _ in range(100):
        threads.submit(job)
    assert all(ended.acquire(timeout=10) for _ in range(100))
    assert 1 < most <= 4
    deadline = time.monotonic() + 5
    while threads._running and time.monotonic() < deadline:
        time.sleep(0.01)
    assert (threads._running, threads._idle) == (0, 0)
    threads.submit(job)
    assert ended.acquire(timeout=10)


def test_a_function_that_hangs_takes_no_thread_of_another() -> None:
    release, left = threading.Event(), threading.Event()
    threads = Threads(most=4, most_hanging=2)
    for _ in range(3):
        threads.submit(release.wait, 1, left.is_set)
    threads.submit(release.wait, 1)
    left.set()
    with pytest.raises(Refused, match="3 runs of it go on though nobody waits"):
        threads.submit(release.wait, 1)
    ended = threading.Semaphore(0)
    for _ in range(8):
        threads.submit(ended.release, 2)
    assert all(ended.acquire(timeout=10) for _ in range(8))
    release.set()
    deadline = time.monotonic() + 5
    while threads._lines and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not threads._lines
    threads.submit(ended.release, 1)
    assert ended.acquire(timeout=10)


def test_those_in_line_are_refused_only_where_nothing_moves() -> None:
    threads = Threads(most=2, patience=0.3)
    ended, refused = threading.Semaphore(0), []

    def slow() -> None:
        time.sleep(0.1)
        ended.release()

    for _ in range(12):
        threads.submit(slow, 1, refuse=refused.append)
    assert all(ended.acquire(timeout=10) for _ in range(12)) and not refused
    release, said = threading.Event(), threading.Event()
    for _ in range(2):
        threads.submit(release.wait, 1)
    threads.submit(slow, 1, refuse=lambda why: (refused.append(why), said.set()))
    assert said.wait(10) and refused == ["2 runs of it go on, and none has ended for 0.3 seconds"]
    release.set()


@pytest.mark.parametrize("hangs", [False, True])
def test_a_function_that_asks_itself_from_a_thread_of_its_own(monkeypatch: pytest.MonkeyPatch, hangs: bool) -> None:
    """The threads that it starts have an empty context: nobody can see where they come from."""
    monkeypatch.setattr(hooks, "_threads", Threads(most=8, most_hanging=2, patience=0.2))
    begun, refusals = [], []

    def by(one: str, other: str) -> bool:
        begun.append(1)
        if hangs:
            time.sleep(0.2)
        made: list[Completion] = []

        def again() -> None:
            made.append(start(by))
            if hangs:
                time.sleep(0.1)
                made[0].is_cancelled = True
            made[0].ended.wait(10)

        thread = threading.Thread(target=again)
        thread.start()
        thread.join()
        if made[0].reports and made[0].reports[0][0] == "fail":
            refusals.append(made[0].reports[0][1])
        return True

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert ask(by) is True
    assert len(begun) == (4 if hangs else 8) and len(refusals) == 1 and "not called: " in refusals[0]
    (warning,) = [one for one in caught if one.category is FarthingWarning]
    assert "by" in str(warning.message) and "contextvars.copy_context().run" in str(warning.message)


def test_no_job_is_lost_while_threads_come_and_go() -> None:
    threads, done = Threads(most=3, idle_seconds=0.0005), threading.Semaphore(0)
    for round_ in range(300):
        threads.submit(done.release)
        if round_ % 3 == 0:
            time.sleep(0.0007)
    assert all(done.acquire(timeout=10) for _ in range(300))


def test_no_thread_to_be_had_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(hooks, "_threads", Threads())
    monkeypatch.setattr(threading.Thread, "start", refuse)
    said = start(len).wait()
    monkeypatch.undo()
    assert "can't start new thread" in str(said)
    assert not hooks._threads._jobs


def test_a_loop_that_somebody_stopped_is_replaced() -> None:
    own = OwnLoop()
    first = own.get()
    assert own.get() is first
    first.call_soon_threadsafe(first.stop)
    deadline = time.monotonic() + 5
    while not first.is_closed() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert own.get() is not first


# ---- the process ----

PRELUDE = """
import asyncio, contextvars, json, os, sys, threading, time
from farthing import hook_numbers, hooks
class Completion:
    number, is_cancelled = 1, False
    def __init__(self): self.ended = threading.Event()
    def done(self, text): self.said = text; self.ended.set()
    def fail(self, text): self.said = "failed " + text; self.ended.set()
def start(function):
    completion = Completion()
    argument = '{"one": "a", "other": "b"}'
    hooks.call(hook_numbers.number_of(function), argument, "compare", contextvars.copy_context(), None, completion)
    return completion
def ask(function):
    completion = start(function)
    return completion.said if completion.ended.wait(10) else "hung"
def plain(one, other): return "plain"
async def later(one, other): return "later"
async def for_ever(one, other): await asyncio.sleep(1000)
"""


def run(script: str) -> str:
    source = PRELUDE + textwrap.dedent(script)
    done = subprocess.run([sys.executable, "-X", "dev", "-c", source], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("function", ["lambda one, other: time.sleep(1000)", "for_ever", "lambda one, other: 1"])
def test_the_process_ends_while_a_function_runs(function: str) -> None:
    begun = time.monotonic()
    assert run(f"function = {function}\nstart(function)\ntime.sleep(0.2)\nprint('end')") == "end"
    assert time.monotonic() - begun < 15


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_has_threads_and_a_loop_of_its_own() -> None:
    script = """
    import warnings
    warnings.simplefilter("ignore", DeprecationWarning)
    print(ask(plain), ask(later), flush=True)
    number = hook_numbers.number_of(plain)
    waiting = start(for_ever)
    # At the worst moment: another thread has the locks.
    hooks._threads._changed.acquire(); hooks._own_loop._lock.acquire()
    held = threading.Thread(target=hook_numbers.table._lock.acquire); held.start(); held.join()
    child = os.fork()
    if child == 0:
        print(ask(plain), ask(later), hook_numbers.number_of(plain) == number, flush=True)
        os._exit(0)
    hooks._threads._changed.release(); hooks._own_loop._lock.release()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    assert run(script).splitlines() == ['"plain" "later"', '"plain" "later" True', "0"]


def test_a_function_that_outlives_the_module_at_exit() -> None:
    script = """
import logging
from farthing import hook_numbers, hooks
def scorer(draft): return 1.0
hook_numbers.number_of(scorer)
logging.keeps = scorer
del scorer
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("", "")
