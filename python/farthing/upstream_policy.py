"""The parts of the policy that say where calls go: upstreams, aliases, fallbacks.

Not in this room: what is made of them (upstreams.py, and the core). A part says where a key is, and does not read it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from decimal import Decimal
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias
from urllib.parse import urlsplit

from . import checks
from .checks import Bad, shown, text
from .parts import Part, check, dotted, or_none, part, table

__all__ = [
    "DEFAULT",
    "SECRET_HEADERS",
    "Adapt",
    "Alias",
    "Breaker",
    "Fallback",
    "Hedge",
    "Timeouts",
    "Upstream",
    "refuse_secrets",
]

DEFAULT = "default"
"""The name of the upstream that a client brings along: its own base URL and key."""

Secret: TypeAlias = "str | Mapping[str, str] | Callable[[], str | Awaitable[str]]"
"""A key, or where it is: {"env": "NAME"}, {"file": "path"}; a function that gives it, sync or async."""

_HEADER = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+", re.ASCII)
SECRET_HEADERS = re.compile(
    r".*(?:(?:api|subscription|virtual|access|private)[-_]?key|authorization|auth|cookie|token|secret|password|jwt"
    r"|session|signature)",
    re.ASCII,
)
# What a call is about, and how its answer is wanted: no default could be meant for all calls.
_NO_PARAMETERS = frozenset(
    ("model", "messages", "input", "stream", "stream_options", "extra_headers", "extra_query", "extra_body", "timeout")
)
# Without these there is no request.
_ESSENTIAL = frozenset(("model", "messages", "input", "stream"))
_ELSEWHERE = '{ env = "NAME" } takes it from the environment, { file = "path" } from a file'


def _url(value: object, key: str) -> str:
    if isinstance(value, str):
        try:
            parts = urlsplit(value.strip())
            good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            good = False
        if good and (parts.username or parts.password):
            # Not shown: there is a password in it.
            raise Bad(f"{key} must have no user and password in it", hint="headers, or api_key, are the place for keys")
        if good and (parts.query or parts.fragment):
            # Not shown: keys stand there, now and then.
            raise Bad(f"{key} must have no query in it", hint="headers, or api_key, are the place for keys")
        if good and " " not in value.strip():
            return value.strip().rstrip("/")
    hint = f'{key} = "https://api.openai.com/v1"'
    raise Bad(f"{key} must be an http or https URL without a query", shown(value), hint)


def _place(value: Mapping[Any, object], key: str) -> Mapping[str, str]:
    if len(value) != 1 or not {"env", "file"} & set(value):
        raise Bad(f"{key} must say one place", hint=_ELSEWHERE)
    ((kind, where),) = value.items()
    if kind == "file":
        return MappingProxyType({"file": checks.path(where, f"{key}.file")})
    return MappingProxyType({"env": text(where, f"{key}.env", 256)})


def _secret(value: object, key: str) -> object:
    if isinstance(value, Mapping):
        return _place(value, key)
    if callable(value) or (isinstance(value, str) and value.strip() and value.isprintable() and value.isascii()):
        return value
    # The value is not shown.
    raise Bad(f"{key} must be a key, or say where it is", hint=_ELSEWHERE)


def _header_values(value: object, key: str) -> Mapping[str, object]:
    kept: dict[str, object] = {}
    for name, content in table(value, key).items():
        if not isinstance(name, str) or not _HEADER.fullmatch(name.lower()):
            raise Bad(f"{key} must hold names of headers", shown(name))
        where = dotted(key, name)
        if isinstance(content, Mapping):
            kept[name.lower()] = _place(content, where)
        elif isinstance(content, str) and content.isprintable() and content.isascii():
            kept[name.lower()] = content
        else:
            raise Bad(f"{where} must be the text of a header, or say where it is", hint=_ELSEWHERE)
    return MappingProxyType(dict(sorted(kept.items())))


def _timeout(value: object, key: str) -> float | Timeouts:
    if isinstance(value, Mapping | Timeouts):
        return part(Timeouts, value, key)
    return checks.seconds(value, key)


def _count(least: int, most: int) -> Callable[[object, str], int]:
    def taken(value: object, key: str) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
            return value
        raise Bad(f"{key} must be a whole number from {least:,} to {most:,}", shown(value))

    return taken


def _share(most: int) -> Callable[[object, str], float]:
    def taken(value: object, key: str) -> float:
        if isinstance(value, int | float | Decimal) and not isinstance(value, bool) and 0 < value <= most:
            return float(value)
        raise Bad(f"{key} must be more than 0 and at most {most}", shown(value))

    return taken


def _names_of_fields(value: object, key: str) -> Mapping[str, str]:
    rows = _texts(value, key)
    for name in sorted(_ESSENTIAL & {*rows, *rows.values()}):
        raise Bad(f"{key} cannot rename what a request is about, or to it", name)
    return rows


def _texts(value: object, key: str) -> Mapping[str, str]:
    rows = table(value, key).items()
    return MappingProxyType({text(n, f"a name in {key}"): text(v, dotted(key, n)) for n, v in rows})


def _fields(value: object, key: str) -> tuple[str, ...]:
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise Bad(f"{key} must be a list of fields", shown(value), f'{key} = ["logit_bias"]')
    names = {text(name, f"a name in {key}") for name in value}
    for name in sorted(_ESSENTIAL & names):
        raise Bad(f"{key} cannot leave out what a request is about", name)
    return tuple(sorted(names))


def _json(value: object, key: str) -> object:
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, Mapping):
        return {text(name, f"a name in {key}"): _json(item, dotted(key, name)) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json(item, key) for item in value]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise Bad(f"{key} must be a value that JSON has", shown(value))


def _parameters(value: object, key: str) -> Mapping[str, object]:
    given = {text(name, f"a name in {key}"): _json(item, dotted(key, name)) for name, item in table(value, key).items()}
    for name in sorted(_NO_PARAMETERS & set(given)):
        raise Bad(f"{key} cannot set what a request is about, or how its answer is wanted", name)
    try:
        json.dumps(given, allow_nan=False)
    except ValueError:
        raise Bad(f"{key} must hold values that JSON has", shown(given)) from None
    return MappingProxyType(given)


def _adapt(value: object, key: str) -> object:
    if value is None or value is False:
        return None
    if isinstance(value, str):
        return checks.one_of(value, ("auto",), key)
    return part(Adapt, value, key)


class _Portable(Part):
    """A part that pickles, although a mappingproxy does not."""

    def __reduce__(self) -> tuple[Any, ...]:
        values = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        return _restored, (type(self), {n: _thawed(v) for n, v in values.items()})


def _thawed(value: object) -> object:
    if isinstance(value, tuple):
        return tuple(_thawed(item) for item in value)
    return {name: _thawed(item) for name, item in value.items()} if isinstance(value, Mapping) else value


def _restored(cls: type[Any], values: dict[str, Any]) -> Any:
    return cls(**values)


@dataclass(frozen=True, kw_only=True)
class Timeouts(_Portable):
    """Times of one attempt, in seconds, > 0.

    Args:
        connect: until the connection stands.
        read: the longest silence of the upstream, also before its first byte.
        write: the longest that the upstream takes nothing of the request.

    Raises:
        PolicyError: a time that is not more than 0.
    """

    connect: float = field(default=5.0, metadata=check(checks.seconds))
    read: float = field(default=600.0, metadata=check(checks.seconds))
    write: float = field(default=600.0, metadata=check(checks.seconds))


@dataclass(frozen=True, kw_only=True)
class Upstream(_Portable):
    """An OpenAI-compatible endpoint. The client's own base URL and key are the upstream "default", which is not listed.

    Args:
        base_url: http or https, without a query.
        api_key: {"env": "NAME"} or {"file": "path"}, where the key is; in Python also the key itself, or a function
            that gives it (sync, or async for async clients), asked for each request. None = no Authorization is sent.
        headers: that go out with each request; a value may be {"env": ...} or {"file": ...} too.
        timeout: seconds for connect, read and write each, or `Timeouts`; None = the client's.
        max_retries: attempts beyond the first, >= 0; None = the client's.
        concurrency: calls at once, >= 1; None = any number.
        requests_per_minute, tokens_per_minute: >= 1; None = any number. With any of these three, the upstream's
            `x-ratelimit-*` headers are respected too.

    Raises:
        PolicyError: a wrong type, a value out of range, an unknown name.
    """

    base_url: str = field(metadata=check(_url))
    api_key: Secret | None = field(default=None, repr=False, metadata=check(or_none(_secret)))
    headers: Mapping[str, str | Mapping[str, str]] = field(
        default_factory=dict, repr=False, metadata=check(_header_values)
    )
    timeout: float | Timeouts | None = field(default=None, metadata=check(or_none(_timeout)))
    max_retries: int | None = field(default=None, metadata=check(or_none(_count(0, 1000))))
    concurrency: int | None = field(default=None, metadata=check(or_none(_count(1, 1_000_000))))
    requests_per_minute: int | None = field(default=None, metadata=check(or_none(_count(1, 2**31))))
    tokens_per_minute: int | None = field(default=None, metadata=check(or_none(_count(1, 2**31))))

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            base_url: str,
            api_key: Secret | None = ...,
            headers: Mapping[str, str | Mapping[str, str | os.PathLike[str]]] = ...,
            timeout: float | str | Timeouts | Mapping[str, Any] | None = ...,
            max_retries: int | None = ...,
            concurrency: int | None = ...,
            requests_per_minute: int | None = ...,
            tokens_per_minute: int | None = ...,
        ) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Adapt(_Portable):
    """What a model wants otherwise.

    Args:
        rename: fields of the request -> the names that the model knows ({"max_tokens": "max_completion_tokens"}). What
            a request says under the new name already stays.
        roles: roles of messages -> the roles that the model knows ({"system": "developer"}).
        drop: fields that the model refuses; leaving one out makes a note on the receipt.
    """

    rename: Mapping[str, str] = field(default_factory=dict, metadata=check(_names_of_fields))
    roles: Mapping[str, str] = field(default_factory=dict, metadata=check(_texts))
    drop: tuple[str, ...] = field(default=(), metadata=check(_fields))

    if TYPE_CHECKING:

        def __init__(
            self, *, rename: Mapping[str, str] = ..., roles: Mapping[str, str] = ..., drop: Iterable[str] = ...
        ) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Alias(_Portable):
    """A name for a model, with how it is asked.

    Args:
        model: the model as its upstream knows it.
        upstream: a name in `upstreams`; "default" = the client's own; None = as `models` says, else the client's own.
        parameters: fields that a request gets when it has none of its own ({"temperature": 0}).
        adapt: what the model wants otherwise; "auto" knows OpenAI's o-series and gpt-5 (max_tokens is
            max_completion_tokens there); None = the request stays.
        fallback: models or aliases that are asked in this order when this one cannot answer; None = as `models` says.
    """

    model: str = field(metadata=check(lambda value, key: text(value, key, 256)))
    upstream: str | None = field(default=None, metadata=check(or_none(checks.text)))
    parameters: Mapping[str, Any] = field(default_factory=dict, metadata=check(_parameters))
    adapt: Adapt | Literal["auto"] | None = field(default=None, metadata=check(_adapt))
    fallback: tuple[str, ...] | None = field(default=None, metadata=check(or_none(checks.names)))

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            model: str,
            upstream: str | None = ...,
            parameters: Mapping[str, Any] = ...,
            adapt: Adapt | Mapping[str, Any] | Literal["auto"] | None = ...,
            fallback: Iterable[str] | None = ...,
        ) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Breaker(_Portable):
    """When an upstream is left alone, and for how long.

    Args:
        failures: share of its calls within the window that failed, > 0 and <= 1.
        window: seconds.
        minimum: calls within the window below which a share says nothing, >= 1.
        rest: seconds until one call may try it again.
    """

    failures: float = field(default=0.5, metadata=check(_share(1)))
    window: float = field(default=30.0, metadata=check(checks.seconds))
    minimum: int = field(default=10, metadata=check(_count(1, 4096)))
    rest: float = field(default=15.0, metadata=check(checks.seconds))


@dataclass(frozen=True, kw_only=True)
class Hedge(_Portable):
    """When a second try is made beside one that is late. It costs: both may be billed.

    Args:
        percentile: of the upstream's last 200 latencies, > 0 and <= 100.
        minimum: latencies that must be known for it, >= 1.
    """

    percentile: float = field(default=95.0, metadata=check(_share(100)))
    minimum: int = field(default=20, metadata=check(_count(1, 200)))


def _hedge(value: object, key: str) -> Hedge | None:
    if value is None or value is False:
        return None
    return Hedge() if value is True else part(Hedge, value, key)


@dataclass(frozen=True, kw_only=True)
class Fallback(_Portable):
    """How calls go from one upstream to the next; which ones is said by each model or alias.

    Args:
        deadline: seconds over all attempts at all upstreams of a call that has fallbacks (of a stream: until its first
            token); None = no end.
        breaker: see `Breaker`.
        hedge: see `Hedge`; True = its defaults; None, or false = no second tries.
    """

    deadline: float | None = field(default=None, metadata=check(or_none(checks.seconds)))
    breaker: Breaker = field(default_factory=Breaker, metadata=check(lambda v, key: part(Breaker, v, key)))
    hedge: Hedge | None = field(default=None, metadata=check(_hedge))

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            deadline: float | str | None = ...,
            breaker: Breaker | Mapping[str, Any] = ...,
            hedge: Hedge | Mapping[str, Any] | bool | None = ...,
        ) -> None: ...


def upstreams(value: object, key: str) -> Mapping[str, Upstream]:
    """The table of upstreams."""
    made = {}
    for name, row in table(value, key).items():
        if text(name, f"a name in {key}") == DEFAULT:
            hint = "base_url and api_key of the client are the default upstream; give this one another name"
            raise Bad(f"{key} cannot have this name", DEFAULT, hint)
        made[name] = part(Upstream, row, dotted(key, name))
    return MappingProxyType(made)


def hidden(secret: object) -> object:
    """Where a key or the text of a header is, without it."""
    return dict(secret) if isinstance(secret, Mapping) else None if secret is None else "(given)"


def known(upstreams: Mapping[str, Upstream], name: str | None, key: str) -> None:
    """Refuses an upstream that is not listed."""
    if name is None or name == DEFAULT or name in upstreams:
        return
    guess = checks.nearest(name, [*upstreams, DEFAULT])
    hint = f'did you mean "{guess}"?' if guess else f"upstreams are: {', '.join([*upstreams, DEFAULT])}"
    raise Bad(f"{key} is not among the upstreams", name, hint)


def refuse_secrets(content: Mapping[str, Any]) -> None:
    """Secrets do not belong in a policy's file: it is shown to people, and kept where code is. Raises Bad."""
    rows = content.get("upstreams")
    for name, row in rows.items() if isinstance(rows, dict) else ():
        if not isinstance(row, dict):
            continue
        key = dotted("upstreams", name)
        if isinstance(row.get("api_key"), str):
            raise Bad(f"{key}.api_key is written out; a secret does not belong in a file like this", hint=_ELSEWHERE)
        headers = row.get("headers")
        for header, value in headers.items() if isinstance(headers, dict) else ():
            if isinstance(value, str) and SECRET_HEADERS.fullmatch(header.lower()):
                where = dotted(f"{key}.headers", header)
                raise Bad(f"{where} is written out; a secret does not belong in a file like this", hint=_ELSEWHERE)
