"""What a part of the policy is: a frozen dataclass whose fields carry their own checks; from keywords, a dict or TOML.

Not in this room: any part by name (policy.py has them), and what a single value may be (checks.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, fields, is_dataclass
from decimal import Decimal
from typing import Any, ClassVar, TypeVar

from . import checks
from .checks import Bad, nearest, shown
from .exceptions import PolicyError

__all__ = ["Part", "check", "dotted", "or_none", "part", "plain", "reported", "stage", "table"]


def dotted(key: str, name: object) -> str:
    """`models."gpt-4.1".input`: as TOML would write it, so that it can be copied into the file."""
    plain = isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9_-]+", name)
    quoted = name if plain else json.dumps(str(name), ensure_ascii=False)
    return f"{key}.{quoted}" if key else str(quoted)


def table(value: object, key: str, or_else: str = "") -> Mapping[Any, object]:
    if not isinstance(value, Mapping):
        raise Bad(f"{key or 'it'} must be a table{or_else}", shown(value))
    return value


class Part:
    """A part of the policy: its fields checked, and their values made plain, however it came to be."""

    whole: ClassVar[type[Part]]
    """The policy itself: where a name that is unknown in one part is looked for in the others."""

    @classmethod
    def hint(cls, key: str, name: str, value: object) -> str:
        """What to do about an unknown name, where this part knows better than the alphabet; else empty."""
        return ""

    @classmethod
    def agree(cls, values: Mapping[str, Any], key: str) -> None:
        """Refuses fields that are good each by itself and do not go together. Raises Bad."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        with reported(f"{cls.__name__}()"):
            _known(cls, kwargs, "")
        return super().__new__(cls)

    def __post_init__(self) -> None:
        with reported(f"{type(self).__name__}()"):
            for name, value in _values(type(self), vars(self), "").items():
                object.__setattr__(self, name, value)


_P = TypeVar("_P", bound=Part)


@contextmanager
def reported(where: str) -> Iterator[None]:
    try:
        yield
    except Bad as bad:
        raise PolicyError(bad.message(where)) from None


def _values(cls: type[Part], given: Mapping[str, object], key: str) -> dict[str, object]:
    made = {f.name: f.metadata["check"](given[f.name], dotted(key, f.name)) for f in _fields(cls) if f.name in given}
    cls.agree(made, key)
    return made


def _fields(cls: type[Part]) -> tuple[Any, ...]:
    return fields(cls) if is_dataclass(cls) else ()


def _known(cls: type[Part], given: Mapping[Any, object], key: str) -> None:
    """Refuses the first name that `cls` does not have, with the nearest that it does, here or in another part."""
    siblings = [f.name for f in _fields(cls)]
    for name, value in given.items():
        if name in siblings:
            continue
        guess = nearest(str(name), siblings)
        # A right name in the wrong table beats a similar one in this.
        moved = next((n for n in _everywhere() if n.rpartition(".")[2] == name and (key or cls is Part.whole)), None)
        near = f'did you mean "{moved or dotted(key, guess)}"?' if moved or guess else ""
        hint = cls.hint(key, name, value) or near or f"valid here: {', '.join(siblings)}"
        raise Bad("unknown key", dotted(key, name), hint)


def _everywhere() -> Iterator[str]:
    for one in _fields(Part.whole):
        yield one.name
        yield from (f"{one.name}.{f.name}" for f in _fields(one.metadata.get("part") or Part))


def part(cls: type[_P], value: object, key: str) -> _P:
    """A part out of itself or a table. Raises Bad."""
    if isinstance(value, cls):
        return value
    given = table(value, key, f" (in Python a {cls.__name__} or a dict)")
    _known(cls, given, key)
    for f in _fields(cls):
        if f.name not in given and f.default is MISSING and f.default_factory is MISSING:
            raise Bad("missing key", dotted(key, f.name))
    return cls(**_values(cls, given, key))


def check(taken: Callable[..., object]) -> dict[str, Any]:
    """The metadata of a field: `taken(value, key)` returns what is kept, or raises Bad."""
    return {"check": taken}


def or_none(taken: Callable[[object, str], object]) -> Callable[[object, str], object]:
    return lambda value, key: None if value is None else taken(value, key)


def stage(cls: type[Part]) -> dict[str, Any]:
    """The metadata of a part that None turns off; so does false, as TOML has no null."""
    return {"part": cls} | check(lambda v, key: None if v is None or v is False else part(cls, v, key))


def plain(value: object, but: tuple[str, ...] = (), *, shown: bool = False) -> object:
    """What JSON takes of a part and what is in it, without the fields `but`; `shown`: functions by their names."""
    if isinstance(value, Part):
        kept = (f.name for f in _fields(type(value)) if f.name not in but)
        return {name: plain(getattr(value, name), shown=shown) for name in kept}
    if isinstance(value, Mapping):
        return {name: plain(item, shown=shown) for name, item in value.items()}
    if isinstance(value, tuple):
        return [plain(item, shown=shown) for item in value]
    if shown and callable(value):
        return getattr(value, "__qualname__", type(value).__qualname__)
    return checks.digits(value) if isinstance(value, Decimal) else value
