"""`farthing.count_tokens`: how many tokens a text or a prompt has, counted by the core, offline.

What is counted how is in the core (src/tokens/); this only hands it over.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from . import _core
from .exceptions import explain

__all__ = ["TokenCount", "count_tokens"]


class TokenCount(int):
    """A number of tokens: an `int`, which says whether it was counted or estimated.

    Attributes:
        tokens: the number itself.
        estimated: True when the vocabulary of the model is not known (o200k_base was taken), or when something in it
            has no rule that is published: images, audio, files, calls of tools, nested schemas, a run of more than 32
            KiB without the end of a word, a text of more than 8 MiB.
    """

    # No __slots__: a subclass of int cannot have any.
    estimated: bool

    def __new__(cls, tokens: int, estimated: bool = False) -> TokenCount:
        made = super().__new__(cls, tokens)
        made.estimated = estimated
        return made

    @property
    def tokens(self) -> int:
        return int(self)

    def __repr__(self) -> str:
        return f"TokenCount({int(self)}, estimated={self.estimated})"

    def __str__(self) -> str:
        return int.__repr__(self)

    def __reduce__(self) -> tuple[type[TokenCount], tuple[int, bool]]:
        return TokenCount, (int(self), self.estimated)


def count_tokens(
    text_or_messages: str | Iterable[Mapping[str, Any] | Any],
    *,
    model: str,
    tools: Iterable[Mapping[str, Any] | Any] | None = None,
) -> TokenCount:
    """The tokens of a text; or those of a chat request's prompt, with what the API bills around its messages and tools.

    Nothing is downloaded. The first count with a vocabulary takes some tens of milliseconds longer, to unpack it. The
    GIL is free meanwhile.

    Args:
        text_or_messages: a text; or messages as `chat.completions.create` takes them (dicts, or the SDK's own objects).
        model: its name, a snapshot, or a fine-tuned model ("ft:gpt-4o-mini:..."). Of a model whose vocabulary is not
            known, the count is an estimate.
        tools: as `create` takes them; with messages only.

    Raises:
        TypeError: it is neither a text nor messages, or holds something that is no JSON; `model` is no text.
        ValueError: it is nested deeper than 100 levels, or holds a NaN or an infinity; `tools` with a text.
    """
    if not isinstance(model, str):
        raise TypeError(explain("model must be the name of a model", value=type(model).__name__))
    if isinstance(text_or_messages, str):
        if tools is not None:
            raise ValueError(explain("tools are counted with messages, not with a text", hint="give messages"))
        return TokenCount(*_core.count_text(model, _whole(text_or_messages)))
    if isinstance(text_or_messages, bytes | Mapping) or not isinstance(text_or_messages, Iterable):
        raise TypeError(
            explain("count_tokens takes a text or a list of messages", value=type(text_or_messages).__name__)
        )
    messages = _json(_items(text_or_messages, "a message"))
    return TokenCount(*_core.count_chat(model, messages, None if tools is None else _json(_items(tools, "a tool"))))


def _items(given: Iterable[Any], what: str) -> list[Any]:
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise TypeError(explain(f"count_tokens takes a list where {what} stands", value=type(given).__name__))
    items = list(given)
    for item in items:
        if not isinstance(item, Mapping) and not hasattr(item, "model_dump"):
            raise TypeError(explain(f"{what} must be a dict, or an object of the SDK's", value=type(item).__name__))
    return items


def _json(value: object) -> bytes:
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, default=_plain)
    except RecursionError:
        raise ValueError(explain("what is to be counted is nested too deep")) from None
    except ValueError as error:
        raise ValueError(explain("what is to be counted is no JSON", value=str(error))) from None
    # A lone surrogate is no text: it is counted as what stands in its place in a request.
    return text.encode("utf-8", "replace")


def _plain(value: Any) -> object:
    """The SDK's own objects, and iterables that it takes for lists."""
    if hasattr(value, "model_dump"):
        return value.model_dump(exclude_none=True, warnings=False)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Iterable):
        return list(value)
    raise TypeError(explain("a message holds something that is no JSON", value=type(value).__name__))


def _whole(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")
