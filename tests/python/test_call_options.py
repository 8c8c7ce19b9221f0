"""Options of single calls: what holds where, who wins, and what is refused."""

from __future__ import annotations

import asyncio
import functools
import pickle
import threading
import timeit
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.call_options import Options, current, from_headers, merge, options
from farthing.exceptions import FarthingError, OptionsError
from farthing.policy import Cache


class Index:
    """An integer of another library, such as numpy's."""

    def __index__(self) -> int:
        return 7


# fmt: off
TIMES = [
    (1, 1.0), (0.5, 0.5), (Decimal("1.5"), 1.5), ("90", 90.0), (" 500ms ", 0.5), ("30m", 1800.0), ("30 min", 1800.0),
    ("1.5h", 5400.0), ("7D", 604800.0), ("2w", 1209600.0), (3_153_600_000, 3_153_600_000.0),
]
NO_TIMES = [
    0, -1, True, float("nan"), float("inf"), -float("inf"), 10**400, -(10**400), Decimal("NaN"), Decimal("sNaN"), "",
    "h", "-1h", "1 year", "1h30m", "0s", "inf", "10000w", "9" * 31, b"1h", [], Decimal("1e-999"), 3_153_600_001,
]
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"cache": "of"}, "cache must be one of on, off, read_only, write_only, refresh in farthing.options(): 'of'\n"
                      'hint: did you mean "off"?'),
    ({"cache": False}, "cache must be one of on, off, read_only, write_only, refresh in farthing.options(): False"),
    ({"ttl": 0}, "ttl must be more than 0 seconds and at most 100 years in farthing.options(): 0\n"
                 'hint: a number of seconds, or a text such as "30m", "1h", "7d"'),
    ({"tag": ""}, "tag must be a text of 1 to 128 printable characters in farthing.options(): ''"),
    ({"tag": "a\nb"}, "tag must be a text of 1 to 128 printable characters in farthing.options(): 'a\\nb'"),
    ({"tag": 5}, "tag must be a text of 1 to 128 printable characters in farthing.options(): 5"),
    ({"sample": True}, "sample must be a whole number of 64 bits or a text of 1 to 128 printable characters in "
                       "farthing.options(): True"),
]
# fmt: on


@pytest.mark.parametrize(("given", "ttl"), TIMES)
def test_times_mean_the_same_in_options_headers_and_policy(given: Any, ttl: float) -> None:
    with options(ttl=given):
        assert current().ttl == ttl
    assert Cache(ttl=given).ttl == ttl
    assert from_headers({"x-farthing-ttl": str(given)}) == Options(ttl=ttl)


@pytest.mark.parametrize("given", NO_TIMES)
def test_times_refused(given: Any) -> None:
    for take in (lambda: options(ttl=given), lambda: Cache(ttl=given)):
        with pytest.raises(FarthingError, match="ttl must be more than 0 seconds"):
            take()


@pytest.mark.parametrize(("given", "message"), REFUSED)
def test_what_is_said(given: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionsError) as caught:
        options(**given)
    assert str(caught.value) == message
    assert isinstance(caught.value, ValueError) and isinstance(caught.value, openai.OpenAIError)


@pytest.mark.parametrize("sample", ["", "x" * 129, 1.0, b"1", 2**63, -(2**63) - 1, [], "\ud800"])
def test_samples_refused(sample: Any) -> None:
    with pytest.raises(OptionsError, match="sample must be"):
        options(sample=sample)


def test_samples() -> None:
    for sample, kept in [(0, 0), (-(2**63), -(2**63)), ("epoch 1", "epoch 1"), (Index(), 7)]:
        with options(sample=sample):  # type: ignore[arg-type]
            assert current().sample == kept and type(current().sample) is type(kept)
    with options(sample=0), options(tag="x"):
        assert current().sample == 0, "0 is a sample, not the absence of one"


def test_nothing_is_asked_for_by_default() -> None:
    assert (
        current()
        == Options()
        == Options(mode=None, ttl=None, tag=None, sample=None, reference=None, deadline=None, max_cost=None)
    )


def test_the_inner_block_overrides_only_what_it_gives() -> None:
    with options(cache="refresh", tag="outer") as outer:
        assert outer == current() == Options(mode="refresh", tag="outer")
        with options(tag="inner", ttl="1h"):
            assert current() == Options(mode="refresh", ttl=3600.0, tag="inner")
        assert current() == Options(mode="refresh", tag="outer")
        with pytest.raises(ZeroDivisionError), options(cache="off"):
            raise ZeroDivisionError
        assert current() == Options(mode="refresh", tag="outer")
    assert current() == Options()


def test_one_object_may_be_entered_again_and_inside_itself() -> None:
    faq = options(tag="faq")
    for _ in range(2):
        with faq, options(tag="other"), faq:
            assert current().tag == "faq"
        assert current() == Options()


def test_threads_and_tasks_have_their_own() -> None:
    shared = options(tag="shared")
    seen: dict[str, Options] = {}
    inside = threading.Barrier(2)

    def work(name: str, block: options) -> None:
        with block:
            inside.wait(10)
            seen[name] = current()
            inside.wait(10)
        seen[name + " after"] = current()

    with options(cache="off"):
        threads = [
            threading.Thread(target=work, args=("one", shared)),
            threading.Thread(target=work, args=("two", options(tag="two"))),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
    assert seen["one"].tag == "shared" and seen["two"].tag == "two"
    assert seen["one after"] == seen["two after"] == Options()

    async def task(tag: str) -> Options:
        with options(tag=tag), shared if tag == "b" else options(ttl=5):
            await asyncio.sleep(0.001)
            return current()

    async def main() -> list[Options]:
        with options(cache="off"):
            return list(await asyncio.gather(task("a"), task("b")))

    assert asyncio.run(main()) == [Options(mode="off", ttl=5.0, tag="a"), Options(mode="off", tag="shared")]


def test_as_a_decorator_of_plain_and_async_functions() -> None:
    @options(tag="job")
    def plain(x: int) -> tuple[int, str | None]:
        """Says so."""
        return x, current().tag

    @options(tag="job")
    async def slow(x: int) -> tuple[int, str | None]:
        before = current().tag
        await asyncio.sleep(0)
        return x, before if before == current().tag else None

    class Callable:
        async def __call__(self) -> str | None:
            return current().tag

    # The SDK's own async `create` is a plain function that hands out a coroutine.
    behind: Any = options(tag="job")(lambda: slow_tag())

    async def slow_tag() -> str | None:
        await asyncio.sleep(0)
        return current().tag

    async def main() -> list[Any]:
        bound: Any = options(tag="job")(functools.partial(slow_tag))
        return [*await asyncio.gather(slow(1), slow(2)), await behind(), await bound(), await decorated()]

    decorated = options(tag="job")(Callable().__call__)
    assert plain(1) == (1, "job") and plain.__name__ == "plain" and plain.__doc__ == "Says so."
    assert asyncio.iscoroutinefunction(slow)
    assert asyncio.run(main()) == [(1, "job"), (2, "job"), "job", "job", "job"]
    assert current() == Options()


def test_what_cannot_be_decorated() -> None:
    def steps() -> Iterator[int]:
        yield 1

    async def async_steps() -> AsyncIterator[int]:
        yield 1

    for thing in (steps, async_steps, Index, functools.partial(steps)):
        with pytest.raises(OptionsError, match=r"only a plain or async function.*\nhint: use `with`"):
            options(tag="x")(thing)


def test_headers() -> None:
    assert from_headers({}) is None
    assert from_headers({"X-Request-Id": "1", "x-farthingale": "a dress"}) is None
    assert from_headers(
        {"X-Farthing-Cache": "read_only", "x-farthing-TTL": " 1h ", "x-farthing-tag": "faq", "x-farthing-sample": "a"}
    ) == Options(mode="read_only", ttl=3600.0, tag="faq", sample="a")


@pytest.mark.parametrize("absent", [openai.omit, openai.NOT_GIVEN])
def test_a_header_that_is_taken_away_says_nothing(absent: Any) -> None:
    assert from_headers({"x-farthing-tag": absent, "x-farthing-typo": absent}) is None


@pytest.mark.parametrize(
    ("text", "sample"), [("3", 3), ("-3", -3), ("0", 0), ("03", "03"), ("3.0", "3.0"), ("-", "-"), ("٣", "٣")]
)
def test_a_sample_of_digits_is_the_number(text: str, sample: int | str) -> None:
    found = from_headers({"x-farthing-sample": text})
    assert found is not None and found.sample == sample and type(found.sample) is type(sample)


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"X-Farthing-Tags": "a"}, 'headers: x-farthing-tags\nhint: did you mean "x-farthing-tag"?'),
        ({"x-farthing-cahce": "on"}, 'x-farthing-cahce\nhint: did you mean "x-farthing-cache"?'),
        ({"x-farthing-policy": "a"}, "hint: farthing knows x-farthing-cache, x-farthing-ttl, x-farthing-tag"),
        ({"x-farthing-": "a"}, "hint: farthing knows"),
        ({"x-farthing-cache": "ON"}, "x-farthing-cache must be one of on, off"),
        ({"x-farthing-ttl": "never"}, "x-farthing-ttl must be more than 0 seconds"),
        ({"x-farthing-tag": ""}, "x-farthing-tag must be a text of 1 to 128"),
        ({"x-farthing-sample": "9999999999999999999"}, "x-farthing-sample must be a whole number of 64 bits"),
        ({"x-farthing-tag": None}, ""),
    ],
)
def test_headers_refused(headers: dict[str, Any], message: str) -> None:
    if not message:
        assert from_headers(headers) == Options()
        return
    with pytest.raises(OptionsError) as caught:
        from_headers(headers)
    assert message in str(caught.value)


SOME = st.builds(
    Options,
    st.none() | st.sampled_from(["on", "off", "refresh"]),
    st.none() | st.floats(1, 9),
    st.none() | st.text("ab", min_size=1),
    st.none() | st.integers(-9, 9),
)


@given(SOME, SOME, SOME)
def test_the_inner_word_wins_and_nesting_is_merging(a: Options, b: Options, c: Options) -> None:
    both = merge(a, b)
    for name in ("mode", "ttl", "tag", "sample"):
        inner, outer = getattr(b, name), getattr(a, name)
        assert getattr(both, name) == (outer if inner is None else inner)
    assert merge(merge(a, b), c) == merge(a, merge(b, c))
    assert merge(a, None) == merge(a, Options()) == merge(Options(), a) == a
    blocks = [options(cache=o.mode, ttl=o.ttl, tag=o.tag, sample=o.sample) for o in (a, b)]
    with blocks[0], blocks[1]:
        assert current() == both and pickle.loads(pickle.dumps(current())) == both
    assert current() == Options()


def test_a_header_wins_over_the_context() -> None:
    with options(cache="off", tag="context"):
        assert merge(current(), from_headers({"x-farthing-cache": "on"})) == Options(mode="on", tag="context")


def test_asking_is_next_to_free() -> None:
    with options(tag="x"):
        best = min(timeit.repeat(current, number=20_000, repeat=20)) / 20_000
    assert best < 1e-6, f"{best * 1e9:.0f} ns"  # 45 ns here; asked on every call


def test_repr_reads_as_it_is_written() -> None:
    assert (
        repr(options(cache="off", tag="a"))
        == "farthing.options(cache='off', ttl=None, tag='a', sample=None, reference=None, deadline=None, max_cost=None)"
    )
    with options(tag="a"):
        assert (
            repr(current())
            == "Options(mode=None, ttl=None, tag='a', sample=None, reference=None, deadline=None, max_cost=None)"
        )


def test_wishes_are_said_by_context_or_header() -> None:
    with options(deadline="2s", max_cost=0.25, reference="42"), options(max_cost="0.1") as inner:
        assert inner.wishes == ("42", 2.0, "0.1")
    found = from_headers({"X-Farthing-Deadline": "1.5", "x-farthing-max-cost": "0.02"})
    assert found is not None and found.wishes == (None, 1.5, "0.02")
    assert current().wishes is None


@pytest.mark.parametrize("wrong", [{"deadline": 0}, {"max_cost": -1}, {"max_cost": "much"}, {"reference": " "}])
def test_wrong_wishes_are_refused(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(OptionsError, match=name):
        options(**wrong)
