"""The policy: what farthing may do for a client, as frozen dataclasses and as TOML, taken by one checker.

`Policy(...)`, `Policy.from_dict`, a TOML file and a path in FARTHING_POLICY all end in `_values`: a field carries its
own check, so there is no second place that knows a range. A new part is one dataclass and one line in `Policy`.

Not in this room: anything that acts on a policy (that is the Rust core, which reads `Policy.to_core()`), prices that
farthing brings along, settings of a single call (call_options.py), what a single value may be (checks.py). Every client
imports it, so what only errors and files need (difflib, tomllib) is imported where it is used.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import KW_ONLY, MISSING, dataclass, field, fields, is_dataclass
from decimal import Decimal
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from . import checks
from .call_options import MODES, Mode
from .checks import Bad, nearest, one_of, shown, text
from .exceptions import PolicyError, explain

__all__ = ["Cache", "Mode", "ModelPrice", "Policy"]

ENV = "FARTHING_POLICY"

# Parts that the design names and this version does not have: refused by name, so that nobody believes they are at work.
_LATER = frozenset({"compress", "batch", "route", "escalate", "fallback", "budget", "upstreams"})


def _mode(value: object, key: str) -> str:
    return one_of(value, MODES, key)


def _dotted(key: str, name: object) -> str:
    """`models."gpt-4.1".input`: as TOML would write it, so that it can be copied into the file."""
    plain = isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9_-]+", name)
    quoted = name if plain else json.dumps(str(name), ensure_ascii=False)
    return f"{key}.{quoted}" if key else str(quoted)


def _table(value: object, key: str, or_else: str = "") -> Mapping[Any, object]:
    if not isinstance(value, Mapping):
        raise Bad(f"{key or 'it'} must be a table{or_else}", shown(value))
    return value


def _models(value: object, key: str) -> Mapping[str, ModelPrice]:
    rows = _table(value, key).items()
    name = f"a name in {key}"
    return MappingProxyType({text(n, name, 256): _part(ModelPrice, row, _dotted(key, n)) for n, row in rows})


def _aliases(value: object, key: str) -> Mapping[str, str]:
    rows = _table(value, key).items()
    named = {text(n, f"a name in {key}", 256): text(m, _dotted(key, n), 256) for n, m in rows}
    first = next((n for n, model in named.items() if model in named), None)
    if first is None:
        return MappingProxyType(named)
    path = [first]
    while path[-1] in named and path[-1] not in path[:-1]:
        path.append(named[path[-1]])
    if path[-1] in named:
        raise Bad(f"{key} run in a circle", " -> ".join(path), "an alias names a model that the upstream knows")
    # One step and no more: whoever reads the line sees which model is asked.
    hint = f'name the model itself: {_dotted(key, first)} = "{path[-1]}"'
    raise Bad(f"{key} point to another alias", " -> ".join(path), hint)


class _Part:
    """A part of the policy: its fields checked, and their values made plain, however it came to be."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        with _reported(f"{cls.__name__}()"):
            _known(cls, kwargs, "")
        return super().__new__(cls)

    def __post_init__(self) -> None:
        with _reported(f"{type(self).__name__}()"):
            for name, value in _values(type(self), vars(self), "").items():
                object.__setattr__(self, name, value)


_P = TypeVar("_P", bound=_Part)


@contextmanager
def _reported(where: str) -> Iterator[None]:
    try:
        yield
    except Bad as bad:
        raise PolicyError(bad.message(where)) from None


def _values(cls: type[_Part], given: Mapping[str, object], key: str) -> dict[str, object]:
    return {f.name: f.metadata["check"](given[f.name], _dotted(key, f.name)) for f in _fields(cls) if f.name in given}


def _fields(cls: type[_Part]) -> tuple[Any, ...]:
    return fields(cls) if is_dataclass(cls) else ()


def _known(cls: type[_Part], given: Mapping[Any, object], key: str) -> None:
    """Refuses the first name that `cls` does not have, with the nearest that it does, here or in another part."""
    siblings = [f.name for f in _fields(cls)]
    for name, value in given.items():
        if name in siblings:
            continue
        if cls is Policy and name in _LATER:
            hint = f"leave {name} out; a policy has: {', '.join(siblings)}"
            raise Bad("a part that this version of farthing does not have yet", name, hint)
        guess = nearest(str(name), siblings)
        # A right name in the wrong table beats a similar one in this.
        moved = next((n for n in _everywhere() if n.rpartition(".")[2] == name and (key or cls is Policy)), None)
        if cls is ModelPrice and isinstance(value, Mapping):
            whole = f"{key}.{name}".partition(".")[2].replace('"', "")
            hint = f'a model name with a dot is quoted: models."{whole}"'
        elif moved or guess:
            hint = f'did you mean "{moved or _dotted(key, guess)}"?'
        else:
            hint = f"valid here: {', '.join(siblings)}"
        raise Bad("unknown key", _dotted(key, name), hint)


def _everywhere() -> Iterator[str]:
    for part in _fields(Policy):
        yield part.name
        yield from (f"{part.name}.{f.name}" for f in _fields(part.metadata.get("part") or _Part))


def _part(cls: type[_P], value: object, key: str) -> _P:
    if isinstance(value, cls):
        return value
    given = _table(value, key, f" (in Python a {cls.__name__} or a dict)")
    _known(cls, given, key)
    for f in _fields(cls):
        if f.name not in given and f.default is MISSING and f.default_factory is MISSING:
            raise Bad("missing key", _dotted(key, f.name))
    return cls(**_values(cls, given, key))


def _check(check: Callable[..., object]) -> dict[str, Any]:
    return {"check": check}


def _or_none(check: Callable[[object, str], object]) -> Callable[[object, str], object]:
    return lambda value, key: None if value is None else check(value, key)


def _stage(cls: type[_Part]) -> dict[str, Any]:
    """The metadata of a part that None turns off; so does false, as TOML has no null."""
    return {"part": cls} | _check(lambda v, key: None if v is None or v is False else _part(cls, v, key))


@dataclass(frozen=True, kw_only=True)
class Cache(_Part):
    """The exact cache: an equal request is answered from memory, or from a file below it.

    Args:
        max_bytes: what it may hold in memory, in bytes, >= 1; also a text ("256MiB" = 2**28, "1GB" = 10**9). The least
            useful go.
        ttl: seconds until an answer is too old, > 0, at most 100 years; also a text ("30m", "1h", "7d"); None (in TOML
            "never") = never.
        mode: "on"; "off"; "read_only" (answers, does not store); "write_only" (stores, does not answer); "refresh"
            (asks again and stores the new answer in place of the old).
        deterministic_only: only requests with temperature 0 or a seed.
        scope: a stable name, 1 to 128 characters, that takes the place of the tenant (API key, organization, project)
            in the cache key; for keys that rotate. None = the tenant. Not a secret: it may be shown.
        ignore_headers: extra request headers that do not make a request another one. Kept in lower case, sorted.
        name: sets this cache apart. Clients of one process with equal policies share a cache; a name makes a policy
            unlike an otherwise equal one, and answers under different names in one file do not meet.
        path: a file (SQLite) that keeps answers and the ledger, made when it is not there, shared by all processes
            that name it. `~` is the home directory; kept as an absolute path. None = memory alone.
        max_disk_bytes: what the file may hold, as `max_bytes`, >= 1 MiB. The answers that were not used for longest go;
            one that takes more than a quarter, or 16 MiB, is not kept on disk. The file does not get smaller by what
            goes, until `farthing cache PATH vacuum`; its log takes up to 8 MiB besides.

    Raises:
        PolicyError: a wrong type, a value out of range, an unknown name.
    """

    max_bytes: int = field(default=256 * 1024 * 1024, metadata=_check(checks.size))
    ttl: float | None = field(default=86400.0, metadata=_check(checks.ttl))
    mode: Mode = field(default="on", metadata=_check(_mode))
    deterministic_only: bool = field(default=False, metadata=_check(checks.flag))
    scope: str | None = field(default=None, metadata=_check(_or_none(checks.text)))
    ignore_headers: tuple[str, ...] = field(default=(), metadata=_check(checks.headers))
    name: str | None = field(default=None, metadata=_check(_or_none(checks.text)))
    path: str | None = field(default=None, metadata=_check(_or_none(checks.path)))
    max_disk_bytes: int = field(default=1024 * 1024 * 1024, metadata=_check(checks.disk_size))

    if TYPE_CHECKING:  # what may be given is wider than what is kept

        def __init__(
            self,
            *,
            max_bytes: int | str = ...,
            ttl: float | str | None = ...,
            mode: Mode = ...,
            deterministic_only: bool = ...,
            scope: str | None = ...,
            ignore_headers: Iterable[str] = ...,
            name: str | None = ...,
            path: str | os.PathLike[str] | None = ...,
            max_disk_bytes: int | str = ...,
        ) -> None: ...


@dataclass(frozen=True)
class ModelPrice(_Part):
    """What a model costs, in USD per million tokens; kept as an exact Decimal.

    Args:
        input: prompt tokens, 0 to 1,000,000 with at most 6 decimals. A float is taken by its `repr` (2.5 is 2.5).
        output: completion tokens, the same range.
        cached_input: prompt tokens that the upstream read from its own cache; None = as `input`.
        cache_write: prompt tokens that the upstream wrote to its own cache; None = as `input`.

    Raises:
        PolicyError: not a number, not finite, out of range, or more than 6 decimals.
    """

    input: Decimal = field(metadata=_check(checks.price))
    output: Decimal = field(metadata=_check(checks.price))
    _: KW_ONLY
    cached_input: Decimal | None = field(default=None, metadata=_check(_or_none(checks.price)))
    cache_write: Decimal | None = field(default=None, metadata=_check(_or_none(checks.price)))

    if TYPE_CHECKING:

        def __init__(
            self,
            input: Decimal | str | float,
            output: Decimal | str | float,
            *,
            cached_input: Decimal | str | float | None = ...,
            cache_write: Decimal | str | float | None = ...,
        ) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Policy(_Part):
    """What farthing may do for a client. Immutable, hashable, picklable; equal when every value is.

    Args:
        cache: the exact cache; None (in TOML `cache = false`) = no cache.
        models: prices of the user's own by model name; they win over farthing's table.
        aliases: name in the request -> name that the upstream knows. An alias of an alias is refused.
        strict: raise where farthing itself fails, rather than go on without it.

    Raises:
        PolicyError: a wrong type, a value out of range, an unknown name, aliases that run in a circle.
    """

    cache: Cache | None = field(default_factory=Cache, metadata=_stage(Cache))
    models: Mapping[str, ModelPrice] = field(default_factory=dict, metadata=_check(_models))
    aliases: Mapping[str, str] = field(default_factory=dict, metadata=_check(_aliases))
    strict: bool = field(default=False, metadata=_check(checks.flag))

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> Policy:
        """The policy of a dict with the names of the dataclasses. Raises PolicyError."""
        with _reported("the policy"):
            return _part(cls, values, "")

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str]) -> Policy:
        """The policy of a TOML file (UTF-8). Raises PolicyError, with the line for a syntax error."""
        return _from_file(path, "")

    @classmethod
    def resolve(cls, policy: Policy | str | os.PathLike[str] | Mapping[str, object] | None) -> Policy:
        """What a client was given, as a policy: itself, a path, a dict; None = the file that the environment variable
        FARTHING_POLICY names, or the default when it is unset or empty. Raises PolicyError."""
        if isinstance(policy, Policy):
            return policy
        if policy is None:
            path = os.environ.get(ENV)
            return _from_file(path, f" (named by {ENV})") if path else cls()
        if isinstance(policy, Mapping):
            return cls.from_dict(policy)
        if isinstance(policy, str | os.PathLike):
            return cls.from_toml(policy)
        raise PolicyError(explain("policy must be a Policy, a path, a dict or None", value=shown(policy)))

    def to_core(self) -> str:
        """The policy as JSON for the Rust core: sorted keys, prices as decimal texts, equal for equal policies."""
        return json.dumps(_plain(self), sort_keys=True, separators=(",", ":"), allow_nan=False)

    def __hash__(self) -> int:
        return hash(self.to_core())

    def __reduce__(self) -> tuple[Any, ...]:
        # A mappingproxy does not pickle.
        return Policy.from_dict, ({n: dict(v) if isinstance(v, Mapping) else v for n, v in vars(self).items()},)


def _plain(value: object) -> object:
    if isinstance(value, _Part):
        return {f.name: _plain(getattr(value, f.name)) for f in _fields(type(value))}
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return checks.digits(value) if isinstance(value, Decimal) else value


def _from_file(path: str | os.PathLike[str], origin: str) -> Policy:
    import sys

    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    name = os.fsdecode(path)
    where = f"{name}{origin}"
    try:
        with open(os.path.expanduser(name), "rb") as file:
            raw = file.read()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        hint = f"looked for it at {os.path.abspath(name)}" if isinstance(error, FileNotFoundError) else ""
        raise PolicyError(explain(f"cannot read the policy {where}", value=reason, hint=hint)) from error
    try:
        # utf-8-sig: Windows editors put a mark in front that TOML does not know. Decimal: 2.50 stays what was written.
        content = tomllib.loads(raw.decode("utf-8-sig"), parse_float=Decimal)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise PolicyError(explain("not UTF-8", where=where, value=f"line {line}", hint="save it as UTF-8")) from None
    except (ValueError, RecursionError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else str(error)
        raise PolicyError(explain("invalid TOML", where=where, value=reason)) from None
    with _reported(where):
        return _part(Policy, content, "")
