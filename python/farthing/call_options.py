"""Options of single calls: `farthing.options(...)`, the x-farthing-* headers, and which of the two wins.

Not in this room: what an option does (that is the engine's), and anything that holds for a whole client (policy.py).
`current()` is asked on every call, so it stays a lookup in a ContextVar.
"""

from __future__ import annotations

import functools
import inspect
import operator
import re
from collections.abc import Callable, Coroutine, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from decimal import Decimal
from types import CoroutineType, TracebackType
from typing import Any, Literal, NoReturn, TypeVar, cast, get_args

import openai

from .checks import Bad, digits, nearest, one_of, seconds, shown, text, usd
from .exceptions import OptionsError, explain

__all__ = ["NONE", "Mode", "Options", "current", "from_headers", "merge", "options", "packs", "sample_text"]

Mode = Literal["on", "off", "read_only", "write_only", "refresh"]
MODES: tuple[str, ...] = get_args(Mode)
PREFIX = "x-farthing-"
HEADERS = tuple(PREFIX + name for name in ("cache", "ttl", "tag", "sample", "deadline", "max-cost"))

_WHOLE = re.compile(r"-?(?:0|[1-9][0-9]{0,18})", re.ASCII)

_F = TypeVar("_F", bound=Callable[..., Any])


def _reference(value: object, key: str) -> str:
    if isinstance(value, str) and value.strip():
        return value
    raise Bad(f"{key} must be a text: a known good answer", shown(value))


def _sample(value: object, key: str) -> int | str:
    if isinstance(value, str):
        return text(value, key)
    try:
        # __index__, so that the i of a numpy or pandas loop is an int here.
        number = None if isinstance(value, bool) else operator.index(cast(Any, value))
    except TypeError:
        number = None
    if number is not None and -(2**63) <= number < 2**63:
        return number
    raise Bad(f"{key} must be a whole number of 64 bits or a text of 1 to 128 printable characters", shown(value))


@dataclass(frozen=True)
class Options:
    """What is asked for the calls made now. None = not said, the policy's word holds. Made by `options` and
    `from_headers`, which check the values; the class itself does not.

    Attributes:
        mode: the cache's mode for these calls.
        ttl: seconds that an answer stored by these calls lasts, > 0.
        tag: a name for the bill and for `client.cache.invalidate(tag=...)`.
        sample: part of the cache key: equal requests with different samples get answers of their own.
        reference: a known good answer, for the scorers of `[escalate]`.
        deadline: seconds that a call on the ladder has in all.
        max_cost: USD that it may cost in all, decimal text.
    """

    mode: Mode | None = None
    ttl: float | None = None
    tag: str | None = None
    sample: int | str | None = None
    reference: str | None = None
    deadline: float | None = None
    max_cost: str | None = None
    # The session of the `client.farthing.map()` that makes the call (many.py); the core's object, opaque here.
    packing: object | None = field(default=None, repr=False, compare=False)
    # What held outside, for the way out. In the value rather than in the context manager, which one decorated function
    # shares between all its threads and tasks.
    _outer: Options | None = field(default=None, repr=False, compare=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return Options, (
            self.mode,
            self.ttl,
            self.tag,
            self.sample,
            self.reference,
            self.deadline,
            self.max_cost,
        )

    @property
    def wishes(self) -> tuple[str | None, float | None, str | None] | None:
        """What is asked of the stages that choose a model; None = nothing."""
        wishes = (self.reference, self.deadline, self.max_cost)
        return None if wishes == (None, None, None) else wishes


NONE = Options()
_CURRENT: ContextVar[Options] = ContextVar("farthing.options", default=NONE)


def current() -> Options:
    """The options that hold here: in this thread, this task, inside these `with` blocks."""
    return _CURRENT.get()


def merge(outer: Options, inner: Options | None) -> Options:
    """`inner` wins where it says something; else `outer` holds."""
    if inner is None or inner is NONE:
        return outer
    return Options(
        outer.mode if inner.mode is None else inner.mode,
        outer.ttl if inner.ttl is None else inner.ttl,
        outer.tag if inner.tag is None else inner.tag,
        outer.sample if inner.sample is None else inner.sample,
        outer.reference if inner.reference is None else inner.reference,
        outer.deadline if inner.deadline is None else inner.deadline,
        outer.max_cost if inner.max_cost is None else inner.max_cost,
        outer.packing if inner.packing is None else inner.packing,
    )


def packs(packing: object | None) -> None:
    """From here on, the calls of this thread or task belong to a session of packs (many.py); None = to none."""
    if _CURRENT.get().packing is not packing:
        _CURRENT.set(replace(_CURRENT.get(), packing=packing))


def sample_text(sample: int | str | None) -> str | None:
    """A sample as part of the key: the number 1 and the text "1" are different samples."""
    return None if sample is None else f"{'number' if isinstance(sample, int) else 'text'}:{sample}"


class options:
    """Options for the calls made inside a `with` block, or by a decorated function (sync or async).

    Blocks nest: the inner one overrides only what it gives. Threads do not inherit a block, tasks do, as with any
    contextvar. One object may be used again, also by several threads or tasks at a time.

        with farthing.options(cache="refresh", tag="faq"):
            client.chat.completions.create(...)

    Args:
        cache: "on", "off", "read_only", "write_only", "refresh"; None = as outside.
        ttl: seconds, > 0, at most 100 years, or a text ("30m", "1h", "7d"); None = as outside.
        tag: 1 to 128 printable characters; None = as outside.
        sample: a whole number (64 bits) or 1 to 128 printable characters; None = as outside. 3 and "3" are two samples.
        reference: a known good answer, for the scorers of `[escalate]` (pytest evaluations); None = as outside.
        deadline: seconds, > 0, or a text, for a call on the ladder in all; then the best draft so far is the answer, or
            `openai.APITimeoutError` is raised; None = as outside.
        max_cost: USD for a call on the ladder in all; what may cost more than is left is not asked. The best draft so
            far is the answer, or `BudgetExceeded` is raised; None = as outside.

    Raises:
        OptionsError: a value that is not one of these; a generator function or a class to decorate.
    """

    __slots__ = ("_options",)

    def __init__(
        self,
        *,
        cache: Mode | None = None,
        ttl: float | str | None = None,
        tag: str | None = None,
        sample: int | str | None = None,
        reference: str | None = None,
        deadline: float | str | None = None,
        max_cost: float | str | Decimal | None = None,
    ) -> None:
        self._options = _checked(
            {
                "cache": cache,
                "ttl": ttl,
                "tag": tag,
                "sample": sample,
                "reference": reference,
                "deadline": deadline,
                "max_cost": max_cost,
            },
            "",
            "farthing.options()",
        )

    def __enter__(self) -> Options:
        outer = _CURRENT.get()
        inner = merge(outer, self._options)
        object.__setattr__(inner, "_outer", outer)
        _CURRENT.set(inner)
        return inner

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _CURRENT.set(_CURRENT.get()._outer or NONE)

    def __call__(self, function: _F) -> _F:
        called = function if inspect.isroutine(function) else getattr(function, "__call__", None)  # noqa: B004
        target = function.func if isinstance(function, functools.partial) else called
        if isinstance(function, type) or inspect.isgeneratorfunction(target) or inspect.isasyncgenfunction(target):
            # Between two steps of a generator the block would hold for whoever runs it.
            what = "only a plain or async function can be decorated with farthing.options()"
            raise OptionsError(explain(what, value=shown(function), hint="use `with` around the calls inside it"))
        if inspect.iscoroutinefunction(target):

            @functools.wraps(function)
            async def wrapper(*args: Any, **kwargs: Any) -> Any:
                with self:
                    return await function(*args, **kwargs)

        else:

            @functools.wraps(function)
            def wrapper(*args: Any, **kwargs: Any) -> Any:
                with self:
                    result = function(*args, **kwargs)
                # A plain function that hands out a coroutine, as AsyncOpenAI's `create` is behind its decorators.
                return self._awaited(result) if isinstance(result, CoroutineType) else result

        return cast(_F, wrapper)

    async def _awaited(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        with self:
            return await coroutine

    def __repr__(self) -> str:
        return f"farthing.{self._options!r}".replace("Options(mode=", "options(cache=", 1)


def from_headers(headers: Mapping[str, str]) -> Options | None:
    """The options in the x-farthing-* headers of a request; None when there are none.

    Names in any case: x-farthing-cache, -ttl, -tag, -sample, -deadline, -max-cost, with the values of `options` (a
    reference is too long for a header); a sample of digits is a
    number, so that the header `3` and `options(sample=3)` are one sample. A header is the nearest word: it wins over
    the context (`merge(current(), from_headers(...))`).

    Raises:
        OptionsError: an unknown x-farthing-* name, with the nearest one; a value that `options` would refuse.
    """
    found: dict[str, object] = {}
    for name, value in headers.items():
        lower = name.lower() if isinstance(name, str) else ""
        # omit and NOT_GIVEN are the SDK's way to take a header away.
        if not lower.startswith(PREFIX) or isinstance(value, openai.Omit | openai.NotGiven):
            continue
        if lower not in HEADERS:
            _unknown(lower)
        found[lower.removeprefix(PREFIX).replace("-", "_")] = value.strip() if isinstance(value, str) else value
    if not found:
        return None
    sample = found.get("sample")
    if isinstance(sample, str) and _WHOLE.fullmatch(sample):
        found["sample"] = int(sample)
    return _checked(found, PREFIX, "the request's headers")


def _unknown(name: str) -> NoReturn:
    guess = nearest(name.removeprefix(PREFIX), (h.removeprefix(PREFIX) for h in HEADERS))
    hint = f'did you mean "{PREFIX}{guess}"?' if guess else f"farthing knows {', '.join(HEADERS)}"
    raise OptionsError(explain("unknown header", where="the request's headers", value=shown(name)[1:-1], hint=hint))


def _checked(found: Mapping[str, object], prefix: str, where: str) -> Options:
    def value(name: str, check: Callable[[Any, str], Any]) -> Any:
        given = found.get(name)
        return None if given is None else check(given, prefix + (name.replace("_", "-") if prefix else name))

    try:
        return Options(
            value("cache", lambda given, key: one_of(given, MODES, key)),
            value("ttl", seconds),
            value("tag", text),
            value("sample", _sample),
            value("reference", _reference),
            value("deadline", seconds),
            value("max_cost", lambda given, key: digits(usd(given, key))),
        )
    except Bad as bad:
        raise OptionsError(bad.message(where)) from None
