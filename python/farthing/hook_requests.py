"""What functions of the user's are given: a request to route, a text to shorten, a draft to score.

The core writes them as JSON, with the same names; what it has and a class does not is left out.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

__all__ = ["CompressRequest", "Draft", "RouteRequest", "arguments"]


@dataclass(frozen=True)
class RouteRequest:
    """What a router is asked about: a request, before it is sent.

    Attributes:
        model: the model that the application asked for.
        tiers: the names that may be returned, from cheap to dear, without those that cannot serve this request.
        messages: all messages (Responses: input items), as they were sent.
        prompt: text of the last message of the user's.
        system: text of the system and developer messages.
        tools: the tools that the request offers.
        features: what `by = "rules"` measured, by name.
        request: the whole body of the request.
    """

    model: str = ""
    tiers: tuple[str, ...] = ()
    messages: list[Any] = field(default_factory=list)
    prompt: str = ""
    system: str = ""
    tools: list[Any] = field(default_factory=list)
    features: dict[str, Any] = field(default_factory=dict)
    request: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CompressRequest:
    """What a function is asked to shorten: one text of a prompt.

    Attributes:
        text: as the methods before it have left it.
        part: "system", "history", "tools", "documents" or "last_user".
        question: text of the last message of the user's, without its documents.
        model: the model that the application asked for.
    """

    text: str = ""
    part: str = ""
    question: str = ""
    model: str = ""


@dataclass(frozen=True)
class Draft:
    """What a scorer is asked about: an answer that nobody has seen yet.

    Attributes:
        model: the model that wrote it.
        rung: the name of its rung.
        ladder: the names of all rungs, from cheap to dear.
        prompt: text of the last message of the user's.
        messages: all messages (Responses: input items), as they were sent.
        answer: the text of the answer; "" when there is none.
        tool_calls: name and arguments of each call that the answer asks for.
        response: the whole body of the answer.
        request: the whole body of the request.
        reference: a known good answer, if the call was given one.
        scores: what the scorers before this one said, 0 to 1, by name.
    """

    model: str = ""
    rung: str = ""
    ladder: tuple[str, ...] = ()
    prompt: str = ""
    messages: list[Any] = field(default_factory=list)
    answer: str = ""
    tool_calls: list[Any] = field(default_factory=list)
    response: dict[str, Any] = field(default_factory=dict)
    request: dict[str, Any] = field(default_factory=dict)
    reference: str | None = None
    scores: dict[str, float] = field(default_factory=dict)


_KINDS: dict[str, type[Any]] = {"route": RouteRequest, "score": Draft, "compress": CompressRequest}


def arguments(kind: str, fields_: dict[str, Any]) -> tuple[Any, ...]:
    if kind == "compare":
        return (fields_["one"], fields_["other"])
    return (_made(_KINDS[kind], fields_),)


def _made(kind: type[Any], values: dict[str, Any]) -> Any:
    known = {one.name for one in fields(kind)}
    kept = {name: value for name, value in values.items() if name in known}
    for name in ("tiers", "ladder"):
        if name in kept:
            kept[name] = tuple(kept[name])
    return kind(**kept)
