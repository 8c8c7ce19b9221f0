"""What `client.farthing.map()` is given: read whole, and checked, before anything is asked.

Not in this room: who asks the questions, and when (many.py).
"""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn, TypeAlias

import openai
from openai.resources.chat import Completions

from .batch_policy import MOST_ITEMS
from .checks import nearest, shown
from .exceptions import QuestionsError, explain

__all__ = ["Messages", "Question", "check_call", "firsts_and_copies", "messages_of"]

Question: TypeAlias = "str | Sequence[Mapping[str, Any]]"
"""A text, or a list of messages that ends with the user's."""

Messages: TypeAlias = "list[Any]"

_WHERE = "client.farthing.map()"
_MOST_CONCURRENT = 1000
_SYSTEM = ("system", "developer")
_ALONE = "client.chat.completions.create(...) takes it, one question at a time"
_MISSING = ("float", "NoneType", "NAType")
"""What stands for a missing value in a column of texts."""


def _refuse(what: str, value: str | None = None, hint: str = "") -> NoReturn:
    raise QuestionsError(explain(what, where=_WHERE, value=value, hint=hint))


def messages_of(questions: Iterable[Question], system: str | None) -> list[Messages]:
    """The messages of each question.

    Raises:
        QuestionsError: something is not a question, or has a system message of its own beside `system`.
    """
    if system is not None and not isinstance(system, str):
        _refuse("system must be a text", shown(system))
    if isinstance(questions, str | bytes):
        _refuse("questions must be many", shown(questions), "questions = [question]")
    if isinstance(questions, Mapping):
        _refuse("questions must be a list: results have its order", shown(questions), "list(questions.values())")
    if isinstance(questions, set | frozenset):
        _refuse("questions must be in an order: results have it", shown(questions), "sorted(questions)")
    if hasattr(questions, "columns") and hasattr(questions, "itertuples"):
        _refuse("questions must be one column", shown(type(questions).__name__), 'questions = frame["question"]')
    if hasattr(questions, "__aiter__"):
        hint = "[question async for question in questions]"
        _refuse("questions must be a list: an async iterable is read before", shown(questions), hint)
    if not isinstance(questions, Iterable):
        _refuse("questions must be a list of texts, or of lists of messages", shown(questions))
    first = [] if system is None else [{"role": "system", "content": system}]
    return [_messages(question, first, at) for at, question in enumerate(questions)]


def _messages(question: object, first: Messages, at: int) -> Messages:
    name = f"questions[{at}]"
    if isinstance(question, str):
        # numpy's and pandas' own texts are str too, and JSON is asked for plain ones.
        return [*first, {"role": "user", "content": str(question)}]
    if isinstance(question, Mapping):
        hint = "a question is a text, or a list of messages: [[message, ...], ...]"
        _refuse(f"{name} must be a list of messages, not one", shown(question), hint)
    if not isinstance(question, list | tuple):
        missing = type(question).__name__ in _MISSING
        hint = "leave missing values out: series.dropna()" if missing else ""
        _refuse(f"{name} must be a text or a list of messages", shown(question), hint)
    roles = [_role(message, f"{name}[{place}]") for place, message in enumerate(question)]
    if not roles or roles[-1] != "user":
        _refuse(f"{name} must end with a message of the user", shown(roles[-1] if roles else question))
    if not first:
        return [*question]
    if any(role in _SYSTEM for role in roles):
        _refuse(
            f"{name} has a system message, and system is given as well",
            hint="leave system out, or take the message out of the question",
        )
    return [*first, *question]


def _role(message: object, name: str) -> str:
    # An answer's message, which goes into the next question as it is, is an object of the SDK's.
    if isinstance(message, Mapping) and not all(isinstance(key, str) for key in message):
        _refuse(f"the fields of {name} must have texts for names", shown(message))
    role = message.get("role") if isinstance(message, Mapping) else getattr(message, "role", None)
    if not isinstance(role, str):
        hint = '{"role": "user", "content": "..."}'
        _refuse(f"{name} must be a message with a role", shown(message), hint)
    return role


def check_call(model: object, max_per_request: object, concurrency: object, create: Mapping[str, Any]) -> None:
    """Refuses what holds for all questions and cannot be asked of many at once.

    Raises:
        QuestionsError: see `Many.map`.
    """
    if not isinstance(model, str) or not model:
        _refuse("model must be the name of a model", shown(model))
    for name, value, most in (
        ("max_per_request", max_per_request, MOST_ITEMS),
        ("concurrency", concurrency, _MOST_CONCURRENT),
    ):
        if value is None and name == "max_per_request":
            continue
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
            _refuse(f"{name} must be a whole number from 1 to {most}", shown(value))
    extra = create.get("extra_body")
    if _said(extra) and not isinstance(extra, Mapping):
        _refuse("extra_body must be a dict", shown(extra))
    if isinstance(create.get("response_format"), type):
        hint = '{"type": "json_schema", "json_schema": {"name": "answer", "schema": Model.model_json_schema()}}'
        _refuse("response_format must be a dict here", shown(create["response_format"]), hint)
    for given in (create, extra if isinstance(extra, Mapping) else {}):
        if "messages" in given:
            _refuse("messages are what the questions are", hint='map(["...", [{"role": "user", ...}]], model=...)')
        if _said(given.get("stream")):
            _refuse("stream is not for many questions", shown(given["stream"]), _ALONE)
        if _said(given.get("n")) and given["n"] != 1:
            _refuse("n must be 1", shown(given["n"]), "one map() under each farthing.options(sample=i)")
        for name in ("tools", "functions"):
            if _said(given.get(name)):
                _refuse(f"{name} are not for many questions", hint=_ALONE)
    known = _known()
    unknown = next((name for name in create if known and name not in known), None)
    if unknown is not None:
        guess = nearest(unknown, {*known, "max_per_request", "concurrency", "progress", "return_exceptions", "system"})
        _refuse("unknown argument", unknown, f'did you mean "{guess}"?' if guess else "")


def _said(value: object) -> bool:
    return not isinstance(value, openai.Omit | openai.NotGiven) and bool(value)


@functools.cache
def _known() -> frozenset[str]:
    """What the SDK's method takes; empty = anything, as somebody's in its place may."""
    parameters = inspect.signature(Completions.create).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return frozenset()
    return frozenset(parameters) - {"self"}


def firsts_and_copies(asked: list[Messages]) -> tuple[list[int], list[int]]:
    """The places of the questions that stand there for the first time, and of those that stood there before."""
    firsts: list[int] = []
    copies: list[int] = []
    seen: set[str] = set()
    for at, messages in enumerate(asked):
        text = json.dumps(messages, sort_keys=True, default=repr)
        (copies if text in seen else firsts).append(at)
        seen.add(text)
    return firsts, copies
