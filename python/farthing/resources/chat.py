"""`client.chat.completions`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openai.resources import chat as _chat
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from ..plain import Kind
from ..seams import resource
from . import fast

CHAT = Kind("chat", "/chat/completions", ChatCompletion, ChatCompletionChunk)


class Completions(_chat.Completions):
    if not TYPE_CHECKING:
        create = fast(_chat.Completions, CHAT)


class AsyncCompletions(_chat.AsyncCompletions):
    if not TYPE_CHECKING:
        create = fast(_chat.AsyncCompletions, CHAT)


class Chat(_chat.Chat):
    if not TYPE_CHECKING:

        @resource
        def completions(self):
            return Completions(self._client)


class AsyncChat(_chat.AsyncChat):
    if not TYPE_CHECKING:

        @resource
        def completions(self):
            return AsyncCompletions(self._client)
