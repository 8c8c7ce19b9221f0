"""The policy: what farthing may do for a client, as frozen dataclasses and as TOML, taken by one checker.

`Policy(...)`, `Policy.from_dict`, a TOML file and a path in FARTHING_POLICY all end in the same checks (`parts.py`): a
field carries its own, so there is no second place that knows a range. A new part is one dataclass and one line in
`Policy`.

Not in this room: anything that acts on a policy (that is the Rust core, which reads `Policy.to_core()`), prices that
farthing brings along, settings of a single call (call_options.py), what a single value may be (checks.py). Every client
imports it, so what only errors, files and upstreams need (difflib, tomllib, upstream_policy.py) is imported where it is
used.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field, is_dataclass
from decimal import Decimal
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from . import checks
from .budget import Budget, budgets
from .call_options import MODES, Mode
from .checks import Bad, one_of, shown, text
from .exceptions import PolicyError, explain
from .parts import Part, check, dotted, or_none, part, plain, reported, stage, table

if TYPE_CHECKING:
    from .batch_policy import Batch
    from .compress_policy import Compress
    from .escalate_policy import Escalate
    from .route_policy import Route
    from .upstream_policy import Alias, Fallback, Upstream

__all__ = ["Budget", "Cache", "Mode", "ModelPrice", "Policy"]

ENV = "FARTHING_POLICY"
_PRICES = ("input", "output", "cached_input", "cache_write")


_ABILITIES = ("images", "audio", "files", "tools", "json_schema")


def _abilities(value: object, key: str) -> tuple[str, ...]:
    listed = checks.names((value,) if isinstance(value, str) else value, key)
    return tuple(sorted(one_of(name, _ABILITIES, key) for name in listed))


def _mode(value: object, key: str) -> str:
    return one_of(value, MODES, key)


def _models(value: object, key: str) -> Mapping[str, ModelPrice]:
    rows = table(value, key).items()
    name = f"a name in {key}"
    return MappingProxyType({text(n, name, 256): part(ModelPrice, row, dotted(key, n)) for n, row in rows})


def _aliases(value: object, key: str) -> Mapping[str, str | Alias]:
    rows = table(value, key).items()
    made = {text(n, f"a name in {key}", 256): _alias(m, dotted(key, n)) for n, m in rows}
    named = {name: _model_of(alias) for name, alias in made.items()}
    first = next((n for n, model in named.items() if model in named), None)
    if first is None:
        return MappingProxyType(made)
    path = [first]
    while path[-1] in named and path[-1] not in path[:-1]:
        path.append(named[path[-1]])
    if path[-1] in named:
        raise Bad(f"{key} run in a circle", " -> ".join(path), "an alias names a model that the upstream knows")
    # One step and no more: whoever reads the line sees which model is asked.
    hint = f'name the model itself: {dotted(key, first)} = "{path[-1]}"'
    raise Bad(f"{key} point to another alias", " -> ".join(path), hint)


def _alias(value: object, key: str) -> str | Alias:
    if isinstance(value, str) or not (isinstance(value, Mapping) or is_dataclass(value)):
        return text(value, key, 256)
    from .upstream_policy import Alias

    return part(Alias, value, key)


def _upstreams(value: object, key: str) -> Mapping[str, Upstream]:
    if not table(value, key):
        return MappingProxyType({})
    from .upstream_policy import upstreams

    return upstreams(value, key)


def _late(room: str, name: str) -> Callable[[object, str], Any]:
    """A part that has a room of its own, which is read where a policy has that part."""

    def taken(value: object, key: str) -> Any:
        if value is None or value is False:
            return None
        return part(getattr(import_module(f".{room}", __package__), name), value, key)

    return taken


def _model_of(alias: str | Alias) -> str:
    return alias if isinstance(alias, str) else alias.model


@dataclass(frozen=True, kw_only=True)
class Cache(Part):
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

    max_bytes: int = field(default=256 * 1024 * 1024, metadata=check(checks.size))
    ttl: float | None = field(default=86400.0, metadata=check(checks.ttl))
    mode: Mode = field(default="on", metadata=check(_mode))
    deterministic_only: bool = field(default=False, metadata=check(checks.flag))
    scope: str | None = field(default=None, metadata=check(or_none(checks.text)))
    ignore_headers: tuple[str, ...] = field(default=(), metadata=check(checks.headers))
    name: str | None = field(default=None, metadata=check(or_none(checks.text)))
    path: str | None = field(default=None, metadata=check(or_none(checks.path)))
    max_disk_bytes: int = field(default=1024 * 1024 * 1024, metadata=check(checks.disk_size))

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
class ModelPrice(Part):
    """What a model costs, in USD per million tokens (kept as an exact Decimal), and where it is.

    Args:
        input: prompt tokens, 0 to 1,000,000 with at most 6 decimals. A float is taken by its `repr` (2.5 is 2.5).
        output: completion tokens, the same range.
        cached_input: prompt tokens that the upstream read from its own cache; None = as `input`.
        cache_write: prompt tokens that the upstream wrote to its own cache; None = as `input`.
        upstream: where the model is, a name in `upstreams`; None = the client's own.
        fallback: models or aliases that are asked in this order when this one cannot answer.
        max_output: the most tokens of an answer, >= 1, for budgets; None = what farthing's table says, if anything.
        context: tokens of prompt and answer together that the model takes, >= 1, for routing; None = enough.
        can, cannot: what it is able to do, for routing: "images", "audio", "files", "tools", "json_schema".

    Raises:
        PolicyError: not a number, not finite, out of range, or more than 6 decimals; one of `input` and `output` alone
            (None, None = farthing's own table).
    """

    input: Decimal | None = field(default=None, metadata=check(or_none(checks.price)))
    output: Decimal | None = field(default=None, metadata=check(or_none(checks.price)))
    _: KW_ONLY
    cached_input: Decimal | None = field(default=None, metadata=check(or_none(checks.price)))
    cache_write: Decimal | None = field(default=None, metadata=check(or_none(checks.price)))
    upstream: str | None = field(default=None, metadata=check(or_none(checks.text)))
    fallback: tuple[str, ...] = field(default=(), metadata=check(checks.names))
    max_output: int | None = field(default=None, metadata=check(or_none(checks.tokens)))
    context: int | None = field(default=None, metadata=check(or_none(checks.tokens)))
    can: tuple[str, ...] = field(default=(), metadata=check(_abilities))
    cannot: tuple[str, ...] = field(default=(), metadata=check(_abilities))

    @classmethod
    def agree(cls, values: Mapping[str, Any], key: str) -> None:
        prices = [name for name in _PRICES if values.get(name) is not None]
        for name in ("input", "output"):
            if prices and name not in prices:
                raise Bad("missing key", dotted(key, name))
        both = sorted({*values.get("can", ())} & {*values.get("cannot", ())})
        if both:
            raise Bad(f"{dotted(key, 'can')} and cannot say the same", both[0])

    @classmethod
    def hint(cls, key: str, name: str, value: object) -> str:
        if not isinstance(value, Mapping):
            return ""
        whole = f"{key}.{name}".partition(".")[2].replace('"', "")
        return f'a model name with a dot is quoted: models."{whole}"'

    if TYPE_CHECKING:

        def __init__(
            self,
            input: Decimal | str | float | None = ...,
            output: Decimal | str | float | None = ...,
            *,
            cached_input: Decimal | str | float | None = ...,
            cache_write: Decimal | str | float | None = ...,
            upstream: str | None = ...,
            fallback: Iterable[str] = ...,
            max_output: int | None = ...,
            context: int | None = ...,
            can: Iterable[str] = ...,
            cannot: Iterable[str] = ...,
        ) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Policy(Part):
    """What farthing may do for a client. Immutable, hashable, picklable; equal when every value is.

    Args:
        cache: the exact cache; None (in TOML `cache = false`) = no cache.
        models: by model name, prices of the user's own, which win over farthing's table; where it is; who is asked in
            its place.
        aliases: name in the request -> name that the upstream knows, or an `Alias`. An alias of an alias is refused.
        upstreams: endpoints by name, besides the client's own.
        fallback: how calls go from one upstream to the next; None = the defaults of `Fallback`.
        budgets: what may be spent; in TOML a `[[budget]]` each.
        route: which model a call goes to; None = the one that it names.
        escalate: when an answer is good enough, and who is asked when it is not; None = every answer is.
        batch: which calls may share a request; None = each has its own, but for what `client.farthing.map()` packs.
        compress: which texts of a prompt are said in fewer tokens, and how; None = none.
        strict: raise where farthing itself fails, rather than go on without it: its cache file cannot be used, a
            function of the policy raises, a judge does not answer.

    Raises:
        PolicyError: a wrong type, a value out of range, an unknown name, aliases that run in a circle.
    """

    cache: Cache | None = field(default_factory=Cache, metadata=stage(Cache))
    models: Mapping[str, ModelPrice] = field(default_factory=dict, metadata=check(_models))
    aliases: Mapping[str, str | Alias] = field(default_factory=dict, metadata=check(_aliases))
    upstreams: Mapping[str, Upstream] = field(default_factory=dict, metadata=check(_upstreams))
    fallback: Fallback | None = field(default=None, metadata=check(_late("upstream_policy", "Fallback")))
    budgets: tuple[Budget, ...] = field(default=(), metadata={"part": Budget} | check(budgets))
    route: Route | None = field(default=None, metadata=check(_late("route_policy", "Route")))
    escalate: Escalate | None = field(default=None, metadata=check(_late("escalate_policy", "Escalate")))
    batch: Batch | None = field(default=None, metadata=check(_late("batch_policy", "Batch")))
    compress: Compress | None = field(default=None, metadata=check(_late("compress_policy", "Compress")))
    strict: bool = field(default=False, metadata=check(checks.flag))

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> Policy:
        """The policy of a dict with the names of the dataclasses. Raises PolicyError."""
        with reported("the policy"):
            return part(cls, _spelled(values), "")

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

    def to_show(self) -> dict[str, Any]:
        """The policy as plain values for people: everything but keys and the texts of headers."""
        from .upstream_policy import hidden

        values: Any = plain(self, shown=True)
        for upstream in values["upstreams"].values():
            upstream["api_key"] = hidden(upstream["api_key"])
            upstream["headers"] = {name: hidden(value) for name, value in upstream["headers"].items()}
        return values  # type: ignore[no-any-return]

    def to_core(self) -> str:
        """The policy as JSON for the Rust core: sorted keys, prices as decimal texts, equal for equal policies."""
        values: Any = plain(self, but=("route", "escalate", "compress"))
        values["route"] = None if self.route is None else self.route.to_core()
        values["escalate"] = None if self.escalate is None else self.escalate.to_core()
        values["compress"] = None if self.compress is None else self.compress.to_core()
        # Where calls go is Python's to say (upstreams.py); keys and headers are nobody else's.
        known_of = (*_PRICES, "max_output", "context", "can", "cannot")
        values["models"] = {name: {of: row[of] for of in known_of} for name, row in values["models"].items()}
        values["aliases"] = {name: _model_of(alias) for name, alias in self.aliases.items()}
        limits = ("base_url", "concurrency", "requests_per_minute", "tokens_per_minute")
        values["upstreams"] = {n: {name: getattr(u, name) for name in limits} for n, u in self.upstreams.items()}
        return json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)

    @classmethod
    def agree(cls, values: Mapping[str, Any], key: str) -> None:
        listed = values.get("upstreams", {})
        for table_name in ("models", "aliases"):
            for name, row in values.get(table_name, {}).items():
                if isinstance(row, str):
                    continue
                where = dotted(table_name, name)
                if row.upstream is not None:
                    from .upstream_policy import known

                    known(listed, row.upstream, f"{where}.upstream")
                if name in (row.fallback or ()):
                    raise Bad(f"{where}.fallback names itself", name)

    def __hash__(self) -> int:
        return hash(self.to_core())

    def __reduce__(self) -> tuple[Any, ...]:
        # A mappingproxy does not pickle.
        return Policy.from_dict, ({n: dict(v) if isinstance(v, Mapping) else v for n, v in vars(self).items()},)


Part.whole = Policy


def _spelled(values: Mapping[str, object]) -> Mapping[str, object]:
    """A file names one budget at a time: `[[budget]]`."""
    if not isinstance(values, Mapping) or "budget" not in values or "budgets" in values:
        return values
    return {("budgets" if name == "budget" else name): value for name, value in values.items()}


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
    with reported(where):
        content = _spelled(content)
        if "upstreams" in content:
            from .upstream_policy import refuse_secrets

            refuse_secrets(content)
        return part(Policy, content, "")
