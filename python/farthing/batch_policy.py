"""The part of the policy that says which calls may share a request, and how many of them.

Not in this room: what is made of it (`src/stages/batch.rs`, `src/batch/`), and calls about many questions at once
(many.py).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from . import checks
from .checks import Bad, one_of, shown
from .parts import Part, plain
from .parts import check as checked
from .route_policy import probability, some_names

__all__ = ["MOST_ITEMS", "Batch"]

MOST_ITEMS = 1000
"""Questions in one request."""

_LONGEST_WINDOW = 60_000
_MOST_VOTES = 9
_FORMATS = ("auto", "json", "lines")


def _whole(value: object, least: int, most: int) -> int | None:
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    return value if is_whole and least <= value <= most else None  # type: ignore[operator, return-value]


def _window(value: object, key: str) -> int:
    window = _whole(value, 0, _LONGEST_WINDOW)
    if window is None:
        hint = f"{key} = 20; 0 joins no calls by time, client.farthing.map() packs all the same"
        raise Bad(f"{key} must be milliseconds, a whole number from 0 to {_LONGEST_WINDOW}", shown(value), hint)
    return window


def _items(value: object, key: str) -> int:
    items = _whole(value, 2, MOST_ITEMS)
    if items is None:
        hint = "batch = false packs nothing" if value in (0, 1) else f"{key} = 10"
        raise Bad(f"{key} must be a whole number from 2 to {MOST_ITEMS}", shown(value), hint)
    return items


def _format(value: object, key: str) -> str:
    return one_of(value, _FORMATS, key)


def _vote(value: object, key: str) -> int:
    votes = _whole(value, 1, _MOST_VOTES)
    if votes is None or votes % 2 == 0:
        hint = f"{key} = 3 asks three times, in other orders; 1 asks once"
        raise Bad(f"{key} must be an odd number from 1 to {_MOST_VOTES}", shown(value), hint)
    return votes


@dataclass(frozen=True, kw_only=True)
class Batch(Part):
    """Several calls in one request: what they have in common is paid for once, and each gets an answer of its own.

    Only calls of one model, with the same parameters and the same messages before the last, share a request.

    Args:
        models: the names that calls use; a call to another model is left alone.
        window_ms: how long a call waits for others to share a request with, in milliseconds, 0 to 60,000; 0 = not at
            all: only what one `client.farthing.map()` asks is packed.
        max_items: questions in one request, 2 to 1,000.
        max_prompt_tokens: tokens of its questions, without what they have in common, >= 1.
        max_answer_tokens: tokens of its answer, >= 1.
        format: "json" (a schema, or an object), "lines" (numbered, for models that know no JSON mode), "auto".
        vote: how often each question is asked, in other orders, before the majority's answer is taken: odd, 1 to 9.
        check: share of the packed questions, 0 to 1, that are asked alone too, to compare.
        always: pack also where the tokens say that it does not pay.

    Raises:
        PolicyError: a wrong type, a value out of range, an unknown name.
    """

    models: tuple[str, ...] = field(metadata=checked(some_names))
    window_ms: int = field(default=20, metadata=checked(_window))
    max_items: int = field(default=10, metadata=checked(_items))
    max_prompt_tokens: int = field(default=8000, metadata=checked(checks.tokens))
    max_answer_tokens: int = field(default=4000, metadata=checked(checks.tokens))
    format: Literal["auto", "json", "lines"] = field(default="auto", metadata=checked(_format))
    vote: int = field(default=1, metadata=checked(_vote))
    check: float = field(default=0.0, metadata=checked(probability))
    always: bool = field(default=False, metadata=checked(checks.flag))

    def to_core(self) -> dict[str, Any]:
        """As `src/config.rs` reads it."""
        made = plain(self)
        assert isinstance(made, dict)
        return made

    def salt(self) -> bytes:
        """Sets the answers apart from those to calls that were asked otherwise. Which calls wait, for how long, and
        what is measured, makes no other answers."""
        kept = {name: value for name, value in self.to_core().items() if name not in ("models", "window_ms", "check")}
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).digest()

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            models: Iterable[str] | str,
            window_ms: int = ...,
            max_items: int = ...,
            max_prompt_tokens: int = ...,
            max_answer_tokens: int = ...,
            format: Literal["auto", "json", "lines"] = ...,
            vote: int = ...,
            check: float = ...,
            always: bool = ...,
        ) -> None: ...
