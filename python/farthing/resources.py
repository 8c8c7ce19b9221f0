"""The plain path: `create` calls whose arguments are plain JSON values.

L1: answered before? Then here, in microseconds. L2: not stored, so Rust sends it and the object is made here at once.
Everything else goes to the SDK's own `create`, whose HTTP request comes to `transport.py` (L3). The types that editors
and type checkers see are the SDK's.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import openai
from openai import AsyncStream, Stream
from openai._legacy_response import LegacyAPIResponse
from openai._models import BaseModel, FinalRequestOptions
from openai.resources import chat as _chat
from openai.resources import embeddings as _embeddings
from openai.resources import responses as _responses
from openai.types import CreateEmbeddingResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent

from . import _core
from .answers import failure, http_response, queue_of, whole_response
from .call_options import NONE, Options, current, from_headers, merge, sample_text
from .places import ABSENT, IGNORED_HEADERS, place_of
from .receipts import attach
from .routes import httpx_of
from .streams import LIVE, STORED

_RAW = "x-stainless-raw-response"
_SDK_FOLDER = os.path.dirname(openai.__file__)
_OBJECT, _ASKED_ENCODING = 0, 1
_log = logging.getLogger("openai")


class Kind:
    """What differs between the three endpoints."""

    shape: _core.Shape

    def __init__(self, name: str, path: str, made: Any, chunk: Any, default: tuple[str, str] | None = None) -> None:
        self.name = name
        self.path = path
        self.made = made
        self.chunk = chunk
        self.default = default

    @functools.cache  # noqa: B019: three kinds, and they live as long as the module
    def builder(self) -> _core.Builder:
        """Makes the object of an answer."""
        # A model's validator is made when it is first needed.
        self.made.model_rebuild()
        return _core.Builder(self.made.__pydantic_validator__.validate_json)

    @functools.cache  # noqa: B019
    def chunk_builder(self) -> _core.Builder:
        """Makes the object of a stream's event."""
        import pydantic

        return _core.Builder(pydantic.TypeAdapter(self.chunk).validator.validate_json)

    @functools.cache  # noqa: B019
    def options(self) -> Any:
        """The SDK's options of a call, for what it makes of an answer; nothing in them is one call's own."""
        return FinalRequestOptions.construct(method="post", url=self.path)

    def build(self, call: _Call, body: bytes, response: Callable[[], Any]) -> Any:
        """The object that the SDK makes of a body (`src/py/build.rs`; `tests/python/test_build.py` compares the two)."""
        vectors: Any = ()
        if self.default is not None and call.slot == _OBJECT:
            unpacked = _core.unpack_embeddings(body)
            if unpacked is not None and unpacked[1]:
                body, vectors = unpacked
        made = self.builder().build(body)
        if made is None:
            made = call.client._process_response_data(data=json.loads(body), cast_to=self.made, response=response())
        for item, vector in zip(getattr(made, "data", ()) if vectors else (), vectors, strict=True):
            if vector is not None:
                item.embedding = vector
        return made


CHAT = Kind("chat", "/chat/completions", ChatCompletion, ChatCompletionChunk)
RESPONSES = Kind("responses", "/responses", Response, ResponseStreamEvent)
EMBEDDINGS = Kind("embeddings", "/embeddings", CreateEmbeddingResponse, None, ("encoding_format", "base64"))


class _Call:
    """One plain call."""

    __slots__ = ("__dict__", "arguments", "client", "found", "headers", "is_async", "kind", "place", "raw", "rust", "slot", "started")

    owns_retries = True

    def __init__(self, resource: Any, kind: Kind, is_async: bool, arguments: dict[str, Any]) -> None:
        self.client = resource._client
        self.kind = kind
        self.is_async = is_async
        self.arguments = arguments
        self.headers: dict[str, str] | None = None
        self.started = time.monotonic()
        self.raw = False
        # Embeddings with the default encoding are decoded by the SDK, those with a chosen one are not.
        self.slot = _OBJECT
        if kind.default is not None and type(arguments.get(kind.default[0], ABSENT[0]())) not in ABSENT:
            self.slot = _ASKED_ENCODING

    def look(self, resource: Any) -> bool:
        """Looks the call up. False: it is not one for this path."""
        arguments = self.arguments
        options, given = current(), None
        extra = arguments.get("extra_headers")
        if extra and type(extra) not in ABSENT:
            given = self._take_headers(extra)
            if given is None:
                return False
            options = merge(options, given)
        placed = place_of(resource, self.kind, arguments)
        if placed is None:
            return False
        self.place, self.rust, default = placed
        if default is not None:
            options = merge(merge(current(), default), given)
        packed = None
        if options is not NONE:
            packed = (options.mode, options.ttl, sample_text(options.sample), options.tag)
        self.found = self.place.look(arguments, self.slot, self.raw, packed)
        return self.found is not None

    def _take_headers(self, extra: Mapping[str, Any]) -> Options | None:
        ours: dict[str, str] = {}
        theirs: dict[str, str] = {}
        for name, value in extra.items():
            name = name.lower()
            if name.startswith("x-farthing-"):
                ours[name] = value
            elif type(value) is not str:
                return None
            elif name == _RAW:
                if value != "true":
                    return None
                self.raw = True
                theirs[name] = value
            elif name in IGNORED_HEADERS:
                theirs[name] = value
            else:
                return None
        if theirs:
            self.headers = theirs
        return (from_headers(ours) if ours else None) or NONE

    # L1: what is stored.

    def stored(self, hit: _core.Hit) -> Any:
        """The answer in the form that the caller asked for."""
        value = hit.value
        if hit.stream:
            if value is None:
                response = self.stored_response(hit)
                value = [
                    self.client._process_response_data(data=event, cast_to=self.kind.chunk, response=response)
                    for event in json.loads(hit.events())
                ]
                hit.keep(value)
            return STORED[self.is_async](self, hit, value)
        if value is None:
            value = self.kind.build(self, hit.body, lambda: self.stored_response(hit))
            if isinstance(value, BaseModel):
                value._request_id = hit.request_id
            hit.keep(value)
        attach(value, hit.receipt)
        return self._raw(self.stored_response(hit), value, hit.receipt, 0) if self.raw else value

    def stored_response(self, hit: _core.Hit) -> Any:
        """The HTTP response that a hit stands for."""
        return whole_response(self, 200, hit.headers, hit.body, hit.receipt)

    # L2: what Rust sends.

    def limits(self) -> tuple[float | None, float | None, float | None, int] | None:
        """Seconds to connect, read and write, and retries; None: not for this path."""
        client = self.client
        retries = client.max_retries
        if type(retries) is not int or retries < 0:
            return None
        timeout = self.arguments.get("timeout", ABSENT[1]())
        if type(timeout) in ABSENT:
            timeout = client.timeout
        elif timeout is not None:
            headers = self.headers = self.headers or {}
            read = timeout if type(timeout) in (int, float) else getattr(timeout, "read", None)
            if read is not None:
                headers["x-stainless-read-timeout"] = str(read)
        else:
            return None
        if type(timeout) in (int, float):
            return timeout, timeout, timeout, retries
        try:
            return timeout.connect, timeout.read, timeout.write, retries
        except AttributeError:
            return None

    def answered(self, answer: _core.Answer) -> Any:
        """What the SDK would make of an answer that has come whole, or of a stream that has begun."""
        if self.found.stream:
            if answer.pipe is not None:
                return LIVE[self.is_async](self, answer)
        elif answer.is_json:
            value = self.kind.build(self, answer.body, lambda: http_response(self, answer, is_async=self.is_async))
            if isinstance(value, BaseModel):
                value._request_id = answer.request_id
                attach(value, answer.receipt)
            if not self.raw:
                return value
            response = whole_response(self, answer.status, answer.headers, answer.body, answer.receipt)
            return self._raw(response, value, answer.receipt, answer.receipt.attempts - 1)
        return None

    def unexpected(self, response: Any, answer: _core.Answer) -> dict[str, Any]:
        """Arguments for the SDK's `_process_response`."""
        streams = self.found.stream
        kind: Any = AsyncStream if self.is_async else Stream
        return {
            "cast_to": self.kind.made,
            "options": self.kind.options(),
            "response": response,
            "stream": streams,
            "stream_cls": kind[self.kind.chunk] if streams else None,
            "retries_taken": max(answer.receipt.attempts - 1, 0),
        }

    def _raw(self, response: Any, value: Any, receipt: _core.ReceiptCell, retries: int) -> Any:
        raw: Any = LegacyAPIResponse(
            raw=response,
            client=self.client,
            cast_to=self.kind.made,
            stream=False,
            stream_cls=None,
            options=self.kind.options(),
            retries_taken=retries,
        )
        raw._parsed_by_type[self.kind.made] = value
        attach(raw, receipt)
        return raw

    @cached_property
    def httpx(self) -> Any:
        return httpx_of(self.client)

    @cached_property
    def request(self) -> Any:
        """The request that was sent, or would have been."""
        content = self.found.body if isinstance(self.found, _core.Miss) else None
        return self.httpx.Request("POST", self.place.url, headers=self.place.headers(self.headers or {}), content=content)


def _is_sdk_function(function: Any) -> bool:
    """Whether nobody had replaced it before farthing was imported."""
    code = getattr(function, "__code__", None)
    return code is not None and code.co_filename.startswith(_SDK_FOLDER)


def _asks_in_rust(call: _Call) -> tuple[float | None, float | None, float | None, int] | None:
    """The limits for L2; None: the SDK's way."""
    # Whoever reads the SDK's log wants to see the calls that leave the machine: the SDK writes it.
    if not call.rust or _log.isEnabledFor(logging.DEBUG):
        return None
    return call.limits()


def _fast(base: type[Any], kind: Kind) -> Callable[..., Any]:
    """`create` for a subclass of `base`, sync or async as the original is."""
    original = vars(base)["create"]
    untouched = _is_sdk_function(original)
    is_async = base.__name__.startswith("Async")
    parameters = inspect.signature(original).parameters
    required = [name for name, p in parameters.items() if p.default is p.empty and name != "self"]
    kind.shape = _core.Shape(kind.name, set(parameters), required, ABSENT, kind.default)

    def look(resource: Any, arguments: dict[str, Any]) -> _Call | None:
        # A tracer that replaced the method must see the call.
        if not untouched or vars(base)["create"] is not original:
            return None
        call = _Call(resource, kind, is_async, arguments)
        try:
            return call if call.look(resource) else None
        except _core.CoreError as error:
            resource._client._farthing.failed(error)
            return None

    if is_async:

        @functools.wraps(original)
        async def create_async(self: Any, *args: Any, **kwargs: Any) -> Any:
            call = None if args else look(self, kwargs)
            if call is not None:
                if type(call.found) is _core.Hit:
                    return call.stored(call.found)
                answer = await _ask_async(call)
                if answer is not None:
                    made = call.answered(answer)
                    return made if made is not None else await _unexpected_async(call, answer)
            return await vars(base)["create"](self, *args, **kwargs)

        return create_async

    @functools.wraps(original)
    def create(self: Any, *args: Any, **kwargs: Any) -> Any:
        call = None if args else look(self, kwargs)
        if call is not None:
            if type(call.found) is _core.Hit:
                return call.stored(call.found)
            answer = _ask(call)
            if answer is not None:
                made = call.answered(answer)
                return made if made is not None else _unexpected(call, answer)
        return vars(base)["create"](self, *args, **kwargs)

    return create


def _ask(call: _Call) -> _core.Answer | None:
    """The answer of the engine; None: ask the SDK's way."""
    limits = _asks_in_rust(call)
    if limits is None:
        return None
    try:
        return call.found.ask(limits, list((call.headers or {}).items()))  # type: ignore[no-any-return]
    except _core.SendError as error:
        failed = failure(call, error)
        raise failed from failed.__cause__
    except _core.CoreError as error:
        call.client._farthing.failed(error)
        return None


async def _ask_async(call: _Call) -> _core.Answer | None:
    limits = _asks_in_rust(call)
    try:
        loop = asyncio.get_running_loop() if limits is not None else None
    except RuntimeError:  # trio
        loop = None
    if loop is None:
        return None
    future: asyncio.Future[_core.Answer] = loop.create_future()
    try:
        job = call.found.ask_async(limits, list((call.headers or {}).items()), queue_of(loop), future)
        try:
            return await future
        except BaseException:
            job.cancel()
            raise
    except _core.SendError as error:
        failed = failure(call, error)
        raise failed from failed.__cause__
    except _core.CoreError as error:
        call.client._farthing.failed(error)
        return None


def _unexpected(call: _Call, answer: _core.Answer) -> Any:
    """An error status, or a success that is not what was asked for: the SDK knows what to make of it."""
    response = http_response(call, answer, is_async=False)
    response.read()
    if not response.is_success:
        raise call.client._make_status_error_from_response(response)
    return call.client._process_response(**call.unexpected(response, answer))


async def _unexpected_async(call: _Call, answer: _core.Answer) -> Any:
    response = http_response(call, answer, is_async=True)
    await response.aread()
    if not response.is_success:
        raise call.client._make_status_error_from_response(response)
    return await call.client._process_response(**call.unexpected(response, answer))


class Completions(_chat.Completions):
    if not TYPE_CHECKING:
        create = _fast(_chat.Completions, CHAT)


class AsyncCompletions(_chat.AsyncCompletions):
    if not TYPE_CHECKING:
        create = _fast(_chat.AsyncCompletions, CHAT)


class Chat(_chat.Chat):
    if not TYPE_CHECKING:

        @cached_property
        def completions(self):
            return Completions(self._client)


class AsyncChat(_chat.AsyncChat):
    if not TYPE_CHECKING:

        @cached_property
        def completions(self):
            return AsyncCompletions(self._client)


class Responses(_responses.Responses):
    if not TYPE_CHECKING:
        create = _fast(_responses.Responses, RESPONSES)


class AsyncResponses(_responses.AsyncResponses):
    if not TYPE_CHECKING:
        create = _fast(_responses.AsyncResponses, RESPONSES)


class Embeddings(_embeddings.Embeddings):
    if not TYPE_CHECKING:
        create = _fast(_embeddings.Embeddings, EMBEDDINGS)


class AsyncEmbeddings(_embeddings.AsyncEmbeddings):
    if not TYPE_CHECKING:
        create = _fast(_embeddings.AsyncEmbeddings, EMBEDDINGS)
