"""Checks of single values (a time, a size, a text, a price): what users write, as what the core takes.

Shared by the policy and by the options of a call, so that a value means the same in both. A check takes the value and
the name that it was written under, and raises `Bad`; whoever knows where that was makes the user's error of it.

Not in this room: which field takes which check (policy.py, call_options.py).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from decimal import Decimal, InvalidOperation

from .exceptions import explain

__all__ = [
    "Bad",
    "digits",
    "disk_size",
    "flag",
    "headers",
    "names",
    "nearest",
    "number",
    "one_of",
    "path",
    "price",
    "seconds",
    "share",
    "shown",
    "size",
    "text",
    "tokens",
    "ttl",
    "usd",
]

# The core keeps times in types that panic on overflow; nobody waits a century for an answer to expire.
MAX_TTL = 100 * 365 * 86400
MAX_BYTES = 2**63 - 1
MIN_DISK_BYTES = 1024 * 1024
# USD per million tokens: a dollar a token. Money is counted in 1e-12 USD, so a token's price has six decimals here.
MAX_PRICE = Decimal(1_000_000)
PRICE_DECIMALS = 6
USD_DECIMALS = 12
MAX_TOKENS = 10**9

_QUANTITY = re.compile(r"([0-9]{1,30}(?:\.[0-9]{1,30})?)\s*([a-z]*)", re.ASCII)
_SECONDS = {"ms": 0.001, "": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 604800}
_BYTES = {"": 1, "b": 1} | {p + s: b**e for s, b in (("b", 1000), ("ib", 1024)) for e, p in enumerate("kmgt", 1)}
_HEADER = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+", re.ASCII)
# These say whose answers a cache entry holds: leaving one out of the key by accident would share them between tenants.
_TENANT_HEADERS = frozenset({"authorization", "api-key", "openai-organization", "openai-project"})


class Bad(Exception):
    """A value that a check refused; whoever knows where it was written makes the user's error of it."""

    def __init__(self, what: str, value: str | None = None, hint: str = "") -> None:
        super().__init__(what)
        self.what, self.value, self.hint = what, value, hint

    def message(self, where: str) -> str:
        return explain(self.what, where=where, value=self.value, hint=self.hint)


def shown(value: object) -> str:
    """A value as a message shows it: never a page long, and a `repr` that raises does not hide the error."""
    try:
        text = repr(str(value) if isinstance(value, Decimal) else value)
    except Exception:
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= 80 else text[:77] + "..."


def nearest(name: str, valid: Iterable[str]) -> str | None:
    """The valid name that `name` was most likely meant to be, or None. Case, `-` and `_` make no difference."""
    import difflib

    plain = {v.lower().replace("-", "_"): v for v in valid}
    close = difflib.get_close_matches(name.lower().replace("-", "_"), list(plain), n=1, cutoff=0.6)
    return plain[close[0]] if close else None


def one_of(value: object, valid: tuple[str, ...], key: str) -> str:
    """One of the `valid` names, exactly."""
    if isinstance(value, str) and value in valid:
        return value
    guess = nearest(value, valid) if isinstance(value, str) else None
    raise Bad(f"{key} must be one of {', '.join(valid)}", shown(value), f'did you mean "{guess}"?' if guess else "")


def text(value: object, key: str, longest: int = 128) -> str:
    """1 to `longest` printable characters: it goes into reports, and a lone surrogate would not survive JSON."""
    if isinstance(value, str) and 0 < len(value) <= longest and value.isprintable():
        return value
    raise Bad(f"{key} must be a text of 1 to {longest} printable characters", shown(value))


def seconds(value: object, key: str) -> float:
    """Seconds, > 0 and at most 100 years, from a number or from a text such as "90", "500ms", "30m", "1.5h", "7d"."""
    span = 0.0
    if isinstance(value, str):
        match = _QUANTITY.fullmatch(value.strip().lower())
        if match and match[2] in _SECONDS:
            span = float(match[1]) * _SECONDS[match[2]]
    elif isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        # Compared before it is converted: an int of 400 digits is not a float, and a Decimal NaN does not compare.
        comparable = not isinstance(value, Decimal) or value.is_finite()
        span = float(value) if comparable and 0 < value <= MAX_TTL else 0.0
    if 0 < span <= MAX_TTL:
        return span
    hint = 'a number of seconds, or a text such as "30m", "1h", "7d"'
    raise Bad(f"{key} must be more than 0 seconds and at most 100 years", shown(value), hint)


def ttl(value: object, key: str) -> float | None:
    """Seconds as :func:`seconds` takes them, or no end."""
    # TOML has no null, so a file says "never" where Python says None.
    return None if value is None or value == "never" else seconds(value, key)


def size(value: object, key: str) -> int:
    """Bytes, >= 1, from a number or from a text such as "256MiB" (2**28), "1GB" (10**9)."""
    count = -1
    if isinstance(value, str):
        match = _QUANTITY.fullmatch(value.strip().lower())
        if match and match[2] in _BYTES:
            unit = _BYTES[match[2]]
            count = int(float(match[1]) * unit) if "." in match[1] else int(match[1]) * unit
    elif isinstance(value, int) and not isinstance(value, bool):
        count = value
    if 1 <= count <= MAX_BYTES:
        return count
    hint = 'to keep nothing, say mode = "off"' if count == 0 else 'a number of bytes, or a text such as "256MiB", "1GB"'
    raise Bad(f"{key} must be 1 byte to 2**63 - 1", shown(value), hint)


def disk_size(value: object, key: str) -> int:
    """As :func:`size`, and enough for a cache file to hold some answers."""
    count = size(value, key)
    if count < MIN_DISK_BYTES:
        raise Bad(f"{key} must be 1 MiB or more", shown(value), "an empty file takes 60 KB already")
    return count


def path(value: object, key: str) -> str:
    """The absolute path of a file; `~` is the home directory."""
    if not isinstance(value, str | os.PathLike):
        raise Bad(f"{key} must be the path of a file", shown(value))
    given = os.fspath(value)
    if not isinstance(given, str) or not given.strip() or "\0" in given or given.endswith(("/", os.sep)):
        raise Bad(f"{key} must be the path of a file", shown(given), f'{key} = "~/.cache/my-app/farthing.db"')
    try:
        given.encode()
    except UnicodeEncodeError:
        raise Bad(f"{key} must be the path of a file, in UTF-8", shown(given)) from None
    # Absolute, so that a change of the working directory (or a child with another one) does not mean another file.
    return os.path.abspath(os.path.expanduser(given))


def number(value: object) -> float | None:
    """A finite number as a float; None when it is none."""
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        with suppress(OverflowError):
            found = float(value)
            return found if found - found == 0 else None
    return None


def flag(value: object, key: str) -> bool:
    if not isinstance(value, bool):
        raise Bad(f"{key} must be true or false", shown(value))
    return value


def headers(value: object, key: str) -> tuple[str, ...]:
    """Names of headers that may be left out of the cache key: lower case, sorted."""
    # A bare string is a sequence too, of one-letter headers: the usual slip, and a silent one.
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise Bad(f"{key} must be a list of header names", shown(value), f'{key} = ["x-request-source"]')
    names = set()
    for name in value:
        if not isinstance(name, str) or not _HEADER.fullmatch(name.lower()):
            raise Bad(f"{key} must hold names of headers", shown(name))
        if name.lower() in _TENANT_HEADERS:
            hint = "scope = a stable name, to share answers between API keys, organizations and projects"
            raise Bad(f"{key} cannot leave out a header that says whose answer it is", shown(name), hint)
        names.add(name.lower())
    return tuple(sorted(names))


def names(value: object, key: str) -> tuple[str, ...]:
    """Models and aliases, in an order that counts."""
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise Bad(f"{key} must be a list of models and aliases", shown(value), f'{key} = ["gpt-4o-mini"]')
    listed = tuple(text(name, f"a name in {key}", 256) for name in value)
    twice = next((name for i, name in enumerate(listed) if name in listed[:i]), None)
    if twice is not None:
        raise Bad(f"{key} names a model twice", twice)
    return listed


def _decimal(value: object) -> Decimal:
    """A number, exactly as it was written; NaN when it is none."""
    if isinstance(value, int | float | str | Decimal) and not isinstance(value, bool):
        with suppress(InvalidOperation):
            # float's own repr: that of a subclass (numpy's) is not a number.
            return Decimal(float.__repr__(value) if isinstance(value, float) else value)
    return Decimal("NaN")


def usd(value: object, key: str) -> Decimal:
    """USD, 0 to a million."""
    amount = _decimal(value)
    if not amount.is_finite() or not 0 <= amount <= MAX_PRICE:
        raise Bad(f"{key} must be USD, from 0 to {MAX_PRICE}", shown(value))
    return _exactly(amount, USD_DECIMALS, key, value) if amount else Decimal(0)


def share(value: object, key: str) -> Decimal:
    """A part of a whole, more than 0 and less than 1."""
    amount = _decimal(value)
    if not amount.is_finite() or not 0 < amount < 1:
        raise Bad(f"{key} must be more than 0 and less than 1", shown(value), f"{key} = 0.8 is 80 %")
    return _exactly(amount, USD_DECIMALS, key, value)


def tokens(value: object, key: str) -> int:
    """A number of tokens, >= 1."""
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_TOKENS:
        return value
    raise Bad(f"{key} must be a number of tokens, from 1 to {MAX_TOKENS}", shown(value))


def price(value: object, key: str) -> Decimal:
    """USD per million tokens, 0 to a dollar a token."""
    amount = _decimal(value)
    if not amount.is_finite() or not 0 <= amount <= MAX_PRICE:
        raise Bad(f"{key} must be USD per million tokens, from 0 to {MAX_PRICE}", shown(value))
    if not amount:
        return Decimal(0)
    return _exactly(amount, PRICE_DECIMALS, key, value)


def _exactly(amount: Decimal, decimals: int, key: str, value: object) -> Decimal:
    # The exponent is looked at first: 1E-1000000 is not to be written out.
    if amount.adjusted() < -decimals or len(digits(amount).partition(".")[2]) > decimals:
        hint = "a float shows its rounding error here; a text or a Decimal is taken exactly"
        raise Bad(f"{key} must have at most {decimals} decimals", shown(value), hint)
    return amount


def digits(price: Decimal) -> str:
    """2.50 and 2.5 are equal, so they must be the same text: the hash of a policy is made of it."""
    plain = f"{price:f}"
    return plain.rstrip("0").rstrip(".") if "." in plain else plain
