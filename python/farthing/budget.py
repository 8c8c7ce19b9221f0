"""Budgets: the part of the policy that says what may be spent, and how the budgets of a client stand.

What is reserved, booked and refused is the core's (src/budget/); prices and tokens are not in here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal, get_args

from . import checks
from .checks import Bad, one_of, shown
from .ledger import money
from .parts import Part, check, dotted, or_none, part

__all__ = ["Budget", "BudgetLine", "budgets", "lines", "table"]

Per = Literal["total", "day", "client", "tag", "model"]
Action = Literal["warn", "block", "downgrade"]

_PER: tuple[str, ...] = get_args(Per)
_ACTIONS: tuple[str, ...] = get_args(Action)


def _per(value: object, key: str) -> tuple[str, ...]:
    names = (value,) if isinstance(value, str) else value
    if isinstance(names, Mapping) or not isinstance(names, Iterable):
        raise Bad(f"{key} must be one of {', '.join(_PER)}, or a list of them", shown(value))
    found = {one_of(name, _PER, key) for name in names} - {"total"}
    return tuple(name for name in _PER if name in found)


def _action(value: object, key: str) -> str:
    return one_of(value, _ACTIONS, key)


def _name(value: object, key: str) -> str:
    return checks.text(value, key, 256)


def _together(action: object, to: object, key: str) -> None:
    """What holds for two fields at once."""
    if action == "downgrade" and to is None:
        raise Bad(f"{dotted(key, 'to')} is missing", None, 'action = "downgrade" needs the model that takes over')
    if action != "downgrade" and to is not None:
        hint = 'to = ... goes with action = "downgrade"'
        raise Bad(f"{dotted(key, 'to')} has no meaning with action", shown(action), hint)


@dataclass(frozen=True)
class Budget(Part):
    """What may be spent.

    Before an attempt leaves, the most that it may cost is reserved: the prompt's tokens, and as many as the answer may
    have (the call's own limit, or the model's), at the dearest price that may apply. When its cost is known, that is
    booked instead. What is spent, reserved and unknown together stays within `limit`, in all processes that share a
    cache file.

    Args:
        limit: USD, 0 to 1,000,000 with at most 12 decimals; kept as an exact Decimal.
        per: "total" (one limit for all calls), "day" (each UTC day), "client" (each client, with its copies, of this
            process), "tag" or "model" (each one has its own); or several of them: `("tag", "day")`.
        tag: only calls under this tag.
        model: only calls to this model, by the name in the request or the real one.
        action: what happens to a call that does not fit. "block": it raises `BudgetExceeded` before it leaves; so does
            one whose price or longest answer is unknown. "downgrade": it goes to the model `to`, if that fits. "warn":
            it leaves, and the log says so once.
        to: the model, or alias, that takes over; with "downgrade".
        at: the share of the limit from which on there is a warning, > 0 and < 1; once for each account. None = none.
        name: by which processes that share a cache file find the same account, and which reports show; None = made of
            `per`, `tag` and `model`.

    Raises:
        PolicyError: a wrong type, a value out of range, "downgrade" without `to`.
    """

    limit: Decimal = field(metadata=check(checks.usd))
    per: tuple[str, ...] = field(default=(), kw_only=True, metadata=check(_per))
    tag: str | None = field(default=None, kw_only=True, metadata=check(or_none(checks.text)))
    model: str | None = field(default=None, kw_only=True, metadata=check(or_none(_name)))
    action: Action = field(default="block", kw_only=True, metadata=check(_action))
    to: str | None = field(default=None, kw_only=True, metadata=check(or_none(_name)))
    at: Decimal | None = field(default=None, kw_only=True, metadata=check(or_none(checks.share)))
    name: str | None = field(default=None, kw_only=True, metadata=check(or_none(_name)))

    def __post_init__(self) -> None:
        super().__post_init__()
        from .parts import reported

        with reported("Budget()"):
            _together(self.action, self.to, "")
        if self.name is None:
            filters = [f"{name}={getattr(self, name)}" for name in ("tag", "model") if getattr(self, name) is not None]
            object.__setattr__(self, "name", " ".join([*(self.per or ("total",)), *filters]))

    if TYPE_CHECKING:

        def __init__(
            self,
            limit: Decimal | str | float,
            *,
            per: Per | Iterable[Per] = ...,
            tag: str | None = ...,
            model: str | None = ...,
            action: Action = ...,
            to: str | None = ...,
            at: Decimal | str | float | None = ...,
            name: str | None = ...,
        ) -> None: ...


def budgets(value: object, key: str) -> tuple[Budget, ...]:
    """The check of the policy's field: rows, each with a name of its own."""
    if isinstance(value, Mapping | str | bytes) or not isinstance(value, Iterable):
        raise Bad(f"{key} must be a list of budgets", shown(value), "[[budget]] begins one, in TOML")
    rows = list(value)
    # With more than one, the message has to say which: the first is 1.
    keys = [key] if len(rows) == 1 else [f"{key}[{number}]" for number in range(1, len(rows) + 1)]
    for row, where in zip(rows, keys, strict=True):
        if isinstance(row, Mapping):
            _together(row.get("action", "block"), row.get("to"), where)
    made = tuple(part(Budget, row, where) for row, where in zip(rows, keys, strict=True))
    seen: set[str | None] = set()
    for one in made:
        if one.name in seen:
            raise Bad(f"two {key} have one name", shown(one.name), "name = ... tells them apart")
        seen.add(one.name)
    return made


@dataclass(frozen=True)
class BudgetLine:
    """How one budget stands, or one tag's, model's or client's part of it.

    Attributes:
        name: of the budget.
        subject: "tag=faq", "model=gpt-4o", "client=1" or several of them; empty for a budget that is one for all.
        period: the UTC day as "2026-11-26"; None = for ever.
        action: "warn", "block" or "downgrade".
        limit, spent: USD.
        reserved: USD that calls in flight may cost.
        unknown: USD that attempts may have cost whose cost nobody told: their bounds. They count.
        left: USD: the limit less all of that, never below 0.
        expired: USD that was reserved by processes that died. It may have been billed, and does not count.
        unpriced: attempts whose cost is unknown and could not be bounded.
    """

    name: str
    subject: str = ""
    period: str | None = None
    action: str = ""
    limit: Decimal | None = None
    spent: Decimal = Decimal(0)
    reserved: Decimal = Decimal(0)
    unknown: Decimal = Decimal(0)
    left: Decimal | None = None
    expired: Decimal = Decimal(0)
    unpriced: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values that `json.dumps` takes, money as decimal text."""
        return {name: f"{value:f}" if isinstance(value, Decimal) else value for name, value in vars(self).items()}


_MONEY = frozenset({"limit", "spent", "reserved", "unknown", "left", "expired"})


def lines(text: str) -> tuple[BudgetLine, ...]:
    """The lines of the core's JSON."""
    names = {f.name for f in fields(BudgetLine)}

    def read(name: str, value: Any) -> Any:
        return Decimal(value) if name in _MONEY and value is not None else value

    return tuple(BudgetLine(**{n: read(n, v) for n, v in row.items() if n in names}) for row in json.loads(text))


def table(found: Iterable[BudgetLine]) -> list[tuple[str, ...]]:
    """The lines for people: a heading and a row each."""
    rows: list[tuple[str, ...]] = [("budget", "of", "limit", "spent", "reserved", "unknown", "left")]
    for line in found:
        of = ", ".join(filter(None, (line.period, line.subject)))
        amounts = (line.limit, line.spent, line.reserved, line.unknown, line.left)
        rows.append((line.name, of, *map(money, amounts)))
    return rows
