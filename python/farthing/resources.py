"""The fast path (L1): a plain `create` call that was answered before is answered here, in microseconds.

Everything that is not a hit goes to the SDK's own `create`, whose HTTP request comes to `transport.py`. The types that
editors and type checkers see are the SDK's.
"""

from __future__ import annotations

import functools
import inspect
import json
import os
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import openai
from openai import AsyncStream, Stream
from openai._legacy_response import LegacyAPIResponse
from openai._models import FinalRequestOptions
from openai._types import NotGiven, Omit
from openai.resources import chat as _chat
from openai.resources import embeddings as _embeddings
from openai.resources import responses as _responses
from openai.types import CreateEmbeddingResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent

from . import _core
from .call_options import Options, current, from_headers, merge
from .receipts import attach
from .routes import Route, httpx_of, owner_of, route_of
from .transport import RECEIPT, sample_text

_RAW = "x-stainless-raw-response"
# Headers of a call that are not part of the key (src/key/mod.rs): a call may carry them and still be plain.
_IGNORED = frozenset(
    ("user-agent", "traceparent", "tracestate", "baggage", "x-request-id", "x-irid", "idempotency-key")
)
_ABSENT = (Omit, NotGiven)
_SDK_FOLDER = os.path.dirname(openai.__file__)
_OBJECT, _ASKED_ENCODING = 0, 1


class Kind:
    """What differs between the three endpoints."""

    def __init__(self, name: str, path: str, made: Any, chunk: Any, default: tuple[str, str] | None = None) -> None:
        self.name = name
        self.path = path
        self.made = made
        self.chunk = chunk
        self.default = default

    def slot(self, arguments: Mapping[str, Any]) -> int:
        """Embeddings with the default encoding are decoded by the SDK, those with a chosen one are not."""
        if self.default is None or type(arguments.get(self.default[0], Omit())) in _ABSENT:
            return _OBJECT
        return _ASKED_ENCODING


CHAT = Kind("chat", "/chat/completions", ChatCompletion, ChatCompletionChunk)
RESPONSES = Kind("responses", "/responses", Response, ResponseStreamEvent)
EMBEDDINGS = Kind("embeddings", "/embeddings", CreateEmbeddingResponse, None, ("encoding_format", "base64"))


class _Lookup:
    """One plain call, ready to be looked up."""

    __slots__ = ("arguments", "client", "kind", "options", "place", "raw", "sample", "slot")

    def __init__(
        self, client: Any, kind: Kind, arguments: dict[str, Any], place: _Place, options: Options, raw: bool
    ) -> None:
        self.client = client
        self.kind = kind
        self.arguments = arguments
        self.place = place
        self.options = options
        self.raw = raw
        self.sample = sample_text(options.sample)
        self.slot = kind.slot(arguments)

    @classmethod
    def of(cls, client: Any, kind: Kind, arguments: dict[str, Any]) -> _Lookup | None:
        """None: not a call for this path."""
        options, raw = current(), False
        headers = arguments.get("extra_headers")
        if headers and type(headers) not in _ABSENT:
            ours: dict[str, str] = {}
            for name, value in headers.items():
                name = name.lower()
                if name == _RAW:
                    if value != "true":
                        return None
                    raw = True
                elif name.startswith("x-farthing-"):
                    ours[name] = value
                elif name not in _IGNORED:
                    return None
            if ours:
                options = merge(options, from_headers(ours))
        route = route_of(client)
        if route is Route.UNSEEN:
            return None
        place = _place(client, kind, arguments, route)
        return None if place is None else cls(client, kind, arguments, place, options, raw)

    def find(self) -> Any:
        """The answer in the form that the caller asked for; None = not stored."""
        options = self.options
        hit = self.client._farthing.engine.find(
            self.place.prefix,
            self.kind.name,
            self.arguments,
            _ABSENT,
            self.kind.default,
            self.slot,
            self.raw,
            self.kind.default is not None,
            self.client._farthing.ledger,
            options.mode,
            options.ttl,
            self.sample,
            options.tag,
        )
        if hit is None:
            return None
        if hit.stream:
            return _stored_stream(self, hit)
        value = hit.value
        if value is None:
            response = _http_response(self, hit)
            value = self.client._process_response_data(
                data=json.loads(hit.body), cast_to=self.kind.made, response=response
            )
            value._request_id = response.headers.get("x-request-id")
            hit.keep(value)
        attach(value, hit.receipt)
        return _raw_response(self, hit, value) if self.raw else value

    def keep(self, made: Any) -> None:
        """Leaves a copy of a new answer, so that the next equal call finds an object and not only JSON."""
        if isinstance(made, self.kind.made):
            self.client._farthing.engine.keep(
                self.place.prefix, self.arguments, _ABSENT, self.kind.default, self.slot, self.sample, made
            )


class _Place(NamedTuple):
    """An endpoint as a client reaches it: the key's unchanging part, and a request as it goes out, without its body."""

    prefix: _core.Prefix
    request: Any


def _place(client: Any, kind: Kind, arguments: Mapping[str, Any], route: Route) -> _Place | None:
    """The key's unchanging part, from a request that the SDK itself builds; made again when the client changes."""
    if client._strict_response_validation or getattr(client, "_api_key_provider", None) is not None:
        return None
    azure = hasattr(client, "_azure_deployment")
    if azure and (client._azure_ad_token_provider is not None or client._azure_ad_token is not None):
        return None
    model = arguments.get("model") if azure else None
    if azure and type(model) is not str:
        return None
    identity = (
        client.api_key,
        client.organization,
        client.project,
        client._base_url,
        client._custom_headers,
        client._custom_query,
        client._client,
        client._farthing,
        route,
    )
    cached = vars(client).get("_farthing_places")
    if cached is None or any(now is not then for now, then in zip(identity, cached[0], strict=True)):
        cached = (identity, {})
        vars(client)["_farthing_places"] = cached
    places: dict[Any, _Place] = cached[1]
    place = places.get((kind.name, model))
    if place is None:
        options = FinalRequestOptions.construct(method="post", url=kind.path, json_data={"model": model or "model"})
        built = client._build_request(options)
        owner, _ = owner_of(client, route)
        prefix = client._farthing.engine.prefix(owner, str(built.url), built.headers.raw)
        headers = [(name, value) for name, value in built.headers.raw if name.lower() != b"content-length"]
        place = _Place(prefix, httpx_of(client).Request("POST", built.url, headers=headers))
        if len(places) < 100:
            places[kind.name, model] = place
    return place


def _http_response(lookup: _Lookup, hit: _core.Hit) -> Any:
    return httpx_of(lookup.client).Response(
        200,
        headers=hit.headers,
        content=hit.body,
        request=lookup.place.request,
        extensions={"http_version": b"HTTP/1.1", RECEIPT: hit.receipt},
    )


def _raw_response(lookup: _Lookup, hit: _core.Hit, value: Any) -> Any:
    raw: Any = LegacyAPIResponse(
        raw=_http_response(lookup, hit),
        client=lookup.client,
        cast_to=lookup.kind.made,
        stream=False,
        stream_cls=None,
        options=FinalRequestOptions.construct(method="post", url=lookup.kind.path),
    )
    raw._parsed_by_type[lookup.kind.made] = value
    attach(raw, hit.receipt)
    return raw


class _Stored:
    """What a stored stream has in common with a live one, and nothing of its network."""

    _lookup: _Lookup
    _hit: _core.Hit

    def _begin(self, lookup: _Lookup, hit: _core.Hit) -> None:
        self._lookup = lookup
        self._hit = hit
        self._cast_to = lookup.kind.chunk
        self._client = lookup.client
        self._options = None
        attach(self, hit.receipt)

    @cached_property
    def response(self) -> Any:
        return _http_response(self._lookup, self._hit)


class _StoredStream(_Stored, Stream[Any]):  # type: ignore[misc,override]
    def __init__(self, lookup: _Lookup, hit: _core.Hit, chunks: list[Any]) -> None:
        self._begin(lookup, hit)
        self._iterator = iter(chunks)

    def close(self) -> None:
        self._iterator = iter(())


class _AsyncStoredStream(_Stored, AsyncStream[Any]):  # type: ignore[misc,override]
    def __init__(self, lookup: _Lookup, hit: _core.Hit, chunks: list[Any]) -> None:
        self._begin(lookup, hit)
        self._iterator = self._each(chunks)

    @staticmethod
    async def _each(chunks: list[Any]) -> Any:
        for chunk in chunks:
            yield chunk

    async def close(self) -> None:
        self._iterator = self._each([])


def _stored_stream(lookup: _Lookup, hit: _core.Hit) -> Any:
    client = lookup.client
    chunks = hit.value
    if chunks is None:
        response = _http_response(lookup, hit)
        chunks = [
            client._process_response_data(data=event, cast_to=lookup.kind.chunk, response=response)
            for event in json.loads(hit.events())
        ]
        hit.keep(chunks)
    stream = _AsyncStoredStream if isinstance(client, openai.AsyncOpenAI) else _StoredStream
    return stream(lookup, hit, chunks)


def _is_sdk_function(function: Any) -> bool:
    """Whether nobody had replaced it before farthing was imported."""
    code = getattr(function, "__code__", None)
    return code is not None and code.co_filename.startswith(_SDK_FOLDER)


def _fast(base: type[Any], kind: Kind) -> Callable[..., Any]:
    """`create` for a subclass of `base`, sync or async as the original is."""
    original = vars(base)["create"]
    untouched = _is_sdk_function(original)
    parameters = inspect.signature(original).parameters
    known = frozenset(parameters)
    required = frozenset(name for name, p in parameters.items() if p.default is p.empty) - {"self"}

    def lookup(resource: Any, arguments: dict[str, Any]) -> _Lookup | None:
        # A tracer that replaced the method must see the call.
        if not untouched or vars(base)["create"] is not original:
            return None
        # What the SDK would refuse, it refuses.
        if not required <= arguments.keys() <= known:
            return None
        client = resource._client
        try:
            return _Lookup.of(client, kind, arguments)
        except _core.CoreError as error:
            client._farthing.failed(error)
            return None

    def found(resource: Any, looked: _Lookup) -> Any:
        try:
            return looked.find()
        except _core.CoreError as error:
            resource._client._farthing.failed(error)
            return None

    def keep(resource: Any, looked: _Lookup, made: Any) -> None:
        try:
            looked.keep(made)
        except _core.CoreError as error:
            resource._client._farthing.failed(error)

    if base.__name__.startswith("Async"):

        @functools.wraps(original)
        async def create_async(self: Any, *args: Any, **kwargs: Any) -> Any:
            looked = None if args else lookup(self, kwargs)
            if looked is None:
                return await vars(base)["create"](self, *args, **kwargs)
            answer = found(self, looked)
            if answer is None:
                answer = await vars(base)["create"](self, **kwargs)
                keep(self, looked, answer)
            return answer

        return create_async

    @functools.wraps(original)
    def create(self: Any, *args: Any, **kwargs: Any) -> Any:
        looked = None if args else lookup(self, kwargs)
        if looked is None:
            return vars(base)["create"](self, *args, **kwargs)
        answer = found(self, looked)
        if answer is None:
            answer = vars(base)["create"](self, **kwargs)
            keep(self, looked, answer)
        return answer

    return create


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
