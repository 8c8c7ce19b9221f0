"""What farthing raises by itself, and how such a message reads.

    openai.OpenAIError
    └── FarthingError
        ├── PolicyError          (+ ValueError)   a policy, or its TOML file, that cannot be taken
        ├── OptionsError         (+ ValueError)   a value in `farthing.options(...)` or in an x-farthing-* header
        ├── BudgetExceeded                        a call for which a budget, or its `max_cost`, has no room
        ├── CacheError                            the cache could not do what was asked of it by name
        ├── DataError            (+ ValueError)   a file of outcomes that cannot be evaluated
        ├── QuestionsError       (+ ValueError)   what `client.farthing.map()` cannot ask; nothing was asked
        ├── LocalModelsError                      `farthing local` and the demo: weights, server, set-up
        └── UnsupportedSDKError  (+ ImportError)  an installed `openai` that farthing cannot sit on

    UserWarning
    └── FarthingWarning                           farthing went to the safe side; said once for each cause

What an upstream answers (4xx, 5xx, a lost connection) is not in here: it raises the SDK's own classes. Nothing in this
room decides anything, and it imports nothing but `openai`.
"""

from __future__ import annotations

import functools
from decimal import Decimal
from typing import Any

import openai

__all__ = [
    "BudgetExceeded",
    "CacheError",
    "DataError",
    "FarthingError",
    "FarthingWarning",
    "LocalModelsError",
    "OptionsError",
    "PolicyError",
    "QuestionsError",
    "UnsupportedSDKError",
    "explain",
]


class FarthingError(openai.OpenAIError):
    """The root of what farthing raises: an `except openai.OpenAIError` of the application catches it too."""


class PolicyError(FarthingError, ValueError):
    """A policy that cannot be taken: a wrong type or range, an unknown key, an alias cycle, an unreadable file."""


class OptionsError(FarthingError, ValueError):
    """A wrong value in `farthing.options(...)`, or a wrong name or value among the x-farthing-* headers."""


class BudgetExceeded(FarthingError):
    """An attempt that a budget of the policy, or the call's `max_cost`, has no room for, or cannot bound. It did not
    leave, and cost nothing.

    Attributes:
        budget: the name of the budget; "max_cost" for the limit of one call.
        subject: whose part of it is meant: "tag=faq", "day=2026-11-26"; empty for a budget that is one for all.
        limit, spent, reserved: USD.
        unknown: USD that attempts may have cost whose cost nobody told.
        cost: the most that the call may cost, USD; None = unknown, the message says why.
        model: the model that was asked for.
    """

    def __init__(
        self,
        message: str,
        *,
        budget: str = "",
        subject: str = "",
        limit: Decimal | str = "0",
        spent: Decimal | str = "0",
        reserved: Decimal | str = "0",
        unknown: Decimal | str = "0",
        cost: Decimal | str | None = None,
        model: str = "",
    ) -> None:
        super().__init__(message)
        self.budget, self.subject, self.model = budget, subject, model
        self.limit, self.spent = Decimal(limit), Decimal(spent)
        self.reserved, self.unknown = Decimal(reserved), Decimal(unknown)
        self.cost = None if cost is None else Decimal(cost)

    def __reduce__(self) -> tuple[Any, ...]:
        names = ("budget", "subject", "limit", "spent", "reserved", "unknown", "cost", "model")
        return functools.partial(type(self), **{name: getattr(self, name) for name in names}), self.args


class CacheError(FarthingError):
    """The cache could not do what was asked. A call raises it only when the policy is strict; else a broken cache is a
    miss."""


class DataError(FarthingError, ValueError):
    """Rows of outcomes that cannot be evaluated: an unreadable file, a missing column, a value that is none."""


class QuestionsError(FarthingError, ValueError):
    """Something among the arguments of `client.farthing.map()` that cannot be asked of many questions at once, or is no
    question. Nothing was asked."""


class LocalModelsError(FarthingError):
    """Local models could not be set up or started (`farthing local`, `farthing demo`)."""


class UnsupportedSDKError(FarthingError, ImportError):
    """The installed `openai` package is too old or too new; the message names the versions to install."""


class FarthingWarning(UserWarning):
    """Something of farthing's own failed and the call went on without it."""


def explain(what: str, *, where: str = "", value: str | None = None, hint: str = "") -> str:
    """The one shape of farthing's messages: what, where, the value after a colon, the hint on its own line.

    Args:
        what: what is wrong, without a full stop ("unknown key").
        where: the file, call or variable that holds it ("farthing.toml"); left out when empty.
        value: the offending text, shown as it is. None = no value is shown. Never pass a secret.
        hint: what to do about it; left out when empty.

    >>> print(explain("unknown key", where="farthing.toml", value="cache.ttll", hint='did you mean "cache.ttl"?'))
    unknown key in farthing.toml: cache.ttll
    hint: did you mean "cache.ttl"?
    """
    text = f"{what} in {where}" if where else what
    if value is not None:
        text = f"{text}: {value}"
    return f"{text}\nhint: {hint}" if hint else text
