"""`client.responses`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openai.resources import responses as _responses
from openai.types.responses import Response, ResponseStreamEvent

from ..plain import Kind
from . import fast

RESPONSES = Kind("responses", "/responses", Response, ResponseStreamEvent)


class Responses(_responses.Responses):
    if not TYPE_CHECKING:
        create = fast(_responses.Responses, RESPONSES)


class AsyncResponses(_responses.AsyncResponses):
    if not TYPE_CHECKING:
        create = fast(_responses.AsyncResponses, RESPONSES)
