"""Properties of the SDK's classes in whose place farthing has its own, unless a mock stands there.

A mock on `openai.OpenAI.chat` is meant for all clients, and a subclass with a `chat` of its own would hide it.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import openai

__all__ = ["resource"]


class resource(cached_property[Any]):
    """Asked once for each client: then its value is among the client's own attributes."""

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        for kind in type(instance).__mro__ if instance is not None else ():
            theirs = vars(kind).get(self.attrname or "")
            if kind.__module__.partition(".")[0] == openai.__name__ and theirs is not None:
                if isinstance(theirs, cached_property):
                    break
                bound = getattr(type(theirs), "__get__", None)
                return theirs if bound is None else bound(theirs, instance, type(instance))
        return super().__get__(instance, owner)
