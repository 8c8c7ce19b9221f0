"""The part of the policy that says which texts of a prompt are said in fewer tokens, and how.

Not in this room: what is made of it (`src/stages/compress.rs`, `src/compress/`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from . import checks
from .checks import Bad, one_of, shown
from .parts import check, dotted, or_none, part, plain
from .route_policy import name, probability, some_names
from .upstream_policy import _Portable

__all__ = ["METHODS", "PARTS", "Compress", "Summarise"]

METHODS = ("structural", "extractive", "summarise")
"""How a text may be shortened, besides a function of the user's; in the order of what they cost."""

PARTS = ("system", "history", "tools", "documents", "last_user")
"""What of a prompt may be shortened."""

_MOST = 10**9


def _whole(least: int, example: int) -> Callable[[object, str], int]:
    def taken(value: object, key: str) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and least <= value <= _MOST:
            return value
        raise Bad(f"{key} must be a whole number from {least} to {_MOST}", shown(value), f"{key} = {example}")

    return taken


def _share(value: object, key: str) -> float:
    share = probability(value, key)
    if not 0 < share < 1:
        raise Bad(f"{key} must be more than 0 and less than 1", shown(value), f"{key} = 0.5 leaves half of the tokens")
    return share


def _several(value: object, key: str, valid: tuple[str, ...], functions: bool) -> tuple[object, ...]:
    """`functions`: functions of the user's may be among them, and there may be none at all."""
    if isinstance(value, str) or (functions and callable(value)):
        value = (value,)
    if isinstance(value, bytes | Mapping) or not isinstance(value, Iterable):
        raise Bad(f"{key} must be a list of: {', '.join(valid)}", shown(value), f'{key} = ["{valid[0]}"]')
    found: list[object] = []
    for one in value:
        taken = one if functions and callable(one) else one_of(one, valid, key)
        if taken in found:
            raise Bad(f"{key} names one twice", shown(taken))
        found.append(taken)
    if not found and not functions:
        raise Bad(f"{key} is empty", hint=f'{key} = ["{valid[0]}"]')
    return tuple(found)


def _parts(value: object, key: str) -> tuple[object, ...]:
    return _several(value, key, PARTS, False)


def _methods(value: object, key: str) -> tuple[object, ...]:
    return _several(value, key, METHODS, True)


@dataclass(frozen=True, kw_only=True)
class Summarise(_Portable):
    """A model that says texts in fewer words.

    A text is asked about once, and its summary kept in memory. It is used only if it is shorter and keeps the facts:
    numbers, names, URLs and code are looked for in it.

    Args:
        model: model or alias; the cheapest that is able to do it.
        keep: share of the tokens that is to be left, more than 0 and less than 1.
        max_lost: share of the numbers, names, URLs and pieces of code that may be missing, 0 to 1; with more, the
            original is used.
        uses: how many calls are expected to read the summary, >= 1: it is asked for only if it is cheaper than what
            they save.

    Raises:
        PolicyError: a wrong type, a value out of range.
    """

    model: str = field(metadata=check(name))
    keep: float = field(default=0.5, metadata=check(_share))
    max_lost: float = field(default=0.02, metadata=check(probability))
    uses: int = field(default=10, metadata=check(_whole(1, 10)))


@dataclass(frozen=True, kw_only=True)
class Compress(_Portable):
    """Long texts of a prompt in fewer tokens.

    A message keeps the form in which it was sent first, as long as the conversation goes on, so that the provider finds
    it in its cache.

    Args:
        models: the names that calls use; a call to another model is left alone.
        min_chars: characters of a text that is worth a look, >= 1.
        parts: which texts: "system" (system and developer messages, `instructions`), "history" (messages of the user
            and the assistant before the last turns), "tools" (results of tools), "documents" (what stands in
            `<document>` and the like, and all but the last text of a message of several), "last_user" (the last message
            of the user: of it the documents, or where none is marked, all but its last paragraph).
        methods: how, in this order: "structural" (written shorter; of a tool's results also pages as their text, files
            in base64 as their size, frames of libraries as their number), "extractive" (the sentences that answer the
            last question; never of a system message), "summarise", or a function `(CompressRequest) -> str | None`,
            sync or async. What one leaves, the next one gets. () changes nothing, and only counts what another order
            of the prompt would gain.
        keep: share of a text's tokens that "extractive" leaves, more than 0 and less than 1.
        keep_turns: messages of the user's at the end, >= 1, from which on nothing is "history".
        summarise: see `Summarise`; needed for "summarise".
        tables: "structural" writes lists of equal JSON objects as tables, `{"columns": [...], "rows": [...]}`: fewer
            tokens, and small models read them worse (docs/stages/compress.md has figures).
        recoverable: what was left out of a tool's result can be asked for: the model is offered one more tool, whose
            calls farthing answers. Such an answer is read to its end before the application gets it.
        timeout: seconds that functions and models may take for all texts of a call.

    Raises:
        PolicyError: a wrong type, a value out of range, an unknown name, "summarise" without a model.
    """

    models: tuple[str, ...] = field(metadata=check(some_names))
    min_chars: int = field(default=500, metadata=check(_whole(1, 500)))
    parts: tuple[str, ...] = field(default=("system", "history", "tools", "documents"), metadata=check(_parts))
    methods: tuple[str | Callable[..., Any], ...] = field(default=("structural",), metadata=check(_methods))
    keep: float = field(default=0.5, metadata=check(_share))
    keep_turns: int = field(default=2, metadata=check(_whole(1, 2)))
    summarise: Summarise | None = field(default=None, metadata=check(or_none(lambda v, key: part(Summarise, v, key))))
    tables: bool = field(default=False, metadata=check(checks.flag))
    recoverable: bool = field(default=False, metadata=check(checks.flag))
    timeout: float = field(default=30.0, metadata=check(checks.seconds))

    @classmethod
    def agree(cls, values: Mapping[str, Any], key: str) -> None:
        if "summarise" in values.get("methods", ()) and values.get("summarise") is None:
            hint = 'methods = ["summarise"] needs it: summarise = { model = "gpt-4o-mini" }'
            raise Bad("missing key", dotted(key, "summarise"), hint)
        if values.get("summarise") is not None and "summarise" not in values.get("methods", ("structural",)):
            hint = 'methods = ["structural", "summarise"]'
            raise Bad(f"{dotted(key, 'summarise')} is not among the methods", hint=hint)

    def to_core(self) -> dict[str, Any]:
        """As `src/config.rs` reads it."""
        from .hook_numbers import core_name

        values = plain(self, but=("methods",))
        assert isinstance(values, dict)
        return {**values, "methods": [core_name(method) for method in self.methods]}

    def salt(self) -> bytes:
        """Sets the answers apart from those to prompts that were not shortened, or otherwise. Functions are told by
        their names: their numbers are this process's alone."""
        values = plain(self, but=("models", "timeout"), shown=True)
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).digest()

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            models: Iterable[str] | str,
            min_chars: int = ...,
            parts: Iterable[Literal["system", "history", "tools", "documents", "last_user"]] | str = ...,
            methods: Iterable[str | Callable[..., Any]] | str | Callable[..., Any] = ...,
            keep: float = ...,
            keep_turns: int = ...,
            summarise: Summarise | Mapping[str, Any] | None = ...,
            tables: bool = ...,
            recoverable: bool = ...,
            timeout: float | str = ...,
        ) -> None: ...
