"""Labels: what own traffic taught about drafts. Kept by the core (src/labels.rs); here they are read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

from . import _core
from .exceptions import CacheError

__all__ = ["Label", "labels"]

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


@dataclass(frozen=True)
class Label:
    """One draft, and what became of it.

    Attributes:
        at: when, UTC.
        model: the model that wrote the draft.
        rung: the name of its rung.
        kind: "escalation" (it was judged on the way up the ladder) or "shadow" (it was accepted, and then compared with
            a dearer model's answer).
        prompt: SHA-256 of what was asked, 64 hex digits.
        features: what `by = "rules"` measured of the request, by name.
        text: the prompt, at most its first 64 KiB; None unless the policy keeps it.
        score: all scorers together, 0 to 1; None = none could say.
        scores: each scorer, 0 to 1.
        good: how good the draft turned out to be, 0 to 1; None = not known.
        cost: of the draft, USD; None = not known.
        dear_cost: of the dearer answer, USD; None = not known, or there was none.
        overhead: of judging the draft, USD; None = not known.
    """

    at: datetime
    model: str
    rung: str
    kind: str
    prompt: str
    features: dict[str, Any]
    text: str | None
    score: float | None
    scores: dict[str, float]
    good: float | None
    cost: Decimal | None
    dear_cost: Decimal | None
    overhead: Decimal | None

    @classmethod
    def from_core(cls, fields: dict[str, Any]) -> Label:
        """Of what the core writes: times in milliseconds since 1970, money as decimal text."""
        money = {
            name: None if fields[name] is None else Decimal(fields[name]) for name in ("cost", "dear_cost", "overhead")
        }
        try:
            at = _EPOCH + timedelta(milliseconds=fields["at"])
        except OverflowError:
            raise CacheError(f"a label of the cache file is of no time that there is: {fields['at']}") from None
        return cls(**{**fields, **money, "at": at})


def labels(engine: _core.Engine) -> list[Label]:
    """The labels of an engine, the oldest first.

    Raises:
        CacheError: the cache file cannot be read.
    """
    try:
        text = engine.labels()
    except _core.CoreError as error:
        raise CacheError(str(error)) from None
    return [Label.from_core(fields) for fields in json.loads(text)]
