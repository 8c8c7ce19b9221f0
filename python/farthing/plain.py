"""One plain call: its arguments are JSON values through and through, so the SDK's own preparation does nothing to them.

What is looked up (L1) and what is asked (L2) is the core's; here is what belongs to Python: which headers and timeouts
are plain, and what the caller gets in the end. The methods that make such calls are in `resources/`.
"""

from __future__ import annotations

import array
import base64
import functools
import json
import time
from collections.abc import Callable, Mapping
from functools import cached_property
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin

from openai import AsyncStream, Stream
from openai._legacy_response import LegacyAPIResponse
from openai._models import BaseModel, FinalRequestOptions
from openai._types import NotGiven

from . import _core
from .answers import whole_response
from .call_options import NONE, Options, current, from_headers, merge, sample_text
from .places import ABSENT, IGNORED_HEADERS, place_of
from .receipts import attach, remember
from .routes import httpx_of
from .streams import LIVE, STORED

if TYPE_CHECKING:
    from .upstreams import Route

__all__ = ["Kind", "Limits", "PlainCall"]

_RAW = "x-stainless-raw-response"
_OBJECT, _ASKED_ENCODING = 0, 1

Limits = tuple[float | None, float | None, float | None, int, bool]
"""Seconds to connect, to read, to write; retries; whether the times are the call's own."""


class Kind:
    """What differs between the three endpoints. There are three, and they live as long as the module does."""

    shape: _core.Shape

    def __init__(self, name: str, path: str, made: Any, chunk: Any, default: tuple[str, str] | None = None) -> None:
        self.name = name
        self.path = path
        self.made = made
        self.chunk = chunk
        self.default = default

    @functools.cache  # noqa: B019
    def builder(self) -> _core.Builder:
        """Makes the object of an answer."""
        # A model's validator is made when it is first needed.
        self.made.model_rebuild()
        return _core.Builder(self.made.__pydantic_validator__.validate_json, _reached(self.made, {}))

    @functools.cache  # noqa: B019
    def chunk_builder(self) -> _core.Builder:
        """Makes the object of a stream's event."""
        import pydantic

        return _core.Builder(pydantic.TypeAdapter(self.chunk).validator.validate_json, _reached(self.chunk, {}))

    @functools.cache  # noqa: B019
    def options(self, slot: int) -> Any:
        """The SDK's options of a call, for what it makes of an answer; nothing in them is one call's own."""
        parse = {} if self.default is None or slot != _OBJECT else {"post_parser": _with_floats}
        given: dict[str, Any] = {"method": "post", "url": self.path, **parse}
        return FinalRequestOptions.construct(**given)

    def build(self, slot: int, body: bytes) -> Any:
        """The object that the SDK makes of a body (`src/py/build.rs`); None: its own code has to make it."""
        if self.default is None or slot != _OBJECT:
            return self.builder().build(body)
        unpacked = _core.unpack_embeddings(body)
        if unpacked is None or not unpacked[1]:
            return None
        made = self.builder().build(unpacked[0])
        for item, vector in zip(made.data if made is not None else (), unpacked[1], strict=False):
            if vector is not None:
                item.embedding = vector
        return made


def _with_floats(made: Any) -> Any:
    """What the SDK makes of an answer with packed vectors."""
    if not made.data:
        raise ValueError("No embedding data received")
    for item in made.data:
        if isinstance(item.embedding, str):
            item.embedding = array.array("f", base64.b64decode(item.embedding)).tolist()
    return made


def _reached(kind: Any, known: dict[type, tuple[str, ...]]) -> dict[type, tuple[str, ...]]:
    """The models that the SDK's `construct` makes of a type, each with the fields through which it goes on."""
    inner = _plain_type(kind)
    if isinstance(inner, type) and issubclass(inner, BaseModel) and inner not in known:
        fields = {name: _plain_type(field.annotation) for name, field in inner.model_fields.items()}
        known[inner] = tuple(name for name, of in fields.items() if isinstance(of, type) and issubclass(of, BaseModel))
        for name in known[inner]:
            _reached(fields[name], known)
    return known


def _plain_type(kind: Any) -> Any:
    """What is in a list, a dict or an annotation; a union stays one, for `construct` does not look into it."""
    while True:
        if hasattr(kind, "__value__"):
            kind = kind.__value__
        origin, inner = get_origin(kind), get_args(kind)
        if origin is Annotated:
            kind = inner[0]
        elif origin in (list, dict) and inner:
            kind = inner[-1]
        else:
            return kind


class PlainCall:
    """One plain call."""

    __slots__ = (
        "__dict__",
        "arguments",
        "client",
        "found",
        "headers",
        "is_async",
        "kind",
        "place",
        "raw",
        "rust",
        "slot",
        "started",
    )

    owns_retries = True
    route: Route | None = None
    place: _core.Place
    rust: bool
    found: Any

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
        notes: list[str] | None = None
        route = None
        engine, routes = self.client._farthing.current
        if routes:
            asked = arguments.get("model")
            route = self.route = routes.get(asked) if type(asked) is str else None
            if route is not None and route.changes:
                if not isinstance(arguments.get("extra_body"), (*ABSENT, NoneType)):
                    return False  # merged with what is changed, on the SDK's own way
                from .upstreams import adapted

                notes = []
                arguments = self.arguments = adapted(route, arguments, notes)
        placed = place_of(resource, self.kind, arguments, route, engine)
        if placed is None:
            return False
        self.place, self.rust, default = placed[:3]
        if default is not None:
            options = merge(merge(current(), default), given)
        packed = None
        if options is not NONE:
            if options.wishes is not None:
                return False
            packed = (options.mode, options.ttl, sample_text(options.sample), options.tag, options.packing)
        self.found = self.place.look(arguments, self.slot, self.raw, packed, notes)
        return self.found is not None

    def _take_headers(self, extra: Mapping[str, Any]) -> Options | None:
        ours: dict[str, str] = {}
        theirs: dict[str, str] = {}
        for name, value in extra.items():
            if type(name) is not str:
                return None
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
        remember(self.client._farthing.number, hit.receipt)
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
        if value is None and self.raw:
            value = self._strict(hit.body, hit.request_id)
            if value is None:
                return self._raw(self.stored_response(hit), None, hit.receipt, 0)
            hit.keep(value)
        elif value is None:
            value = self._value(hit.body, hit.request_id, lambda: self.stored_response(hit))
            hit.keep(value)
        attach(value, hit.receipt)
        return self._raw(self.stored_response(hit), value, hit.receipt, 0) if self.raw else value

    def stored_response(self, hit: _core.Hit, *, streams: bool = False) -> Any:
        """The HTTP response that a hit stands for."""
        if streams:
            kept = [(name, value) for name, value in hit.headers if name != b"content-type"]
            headers = [*kept, (b"content-type", b"text/event-stream; charset=utf-8")]
            return whole_response(self, 200, headers, hit.event_stream(), hit.receipt)
        return whole_response(self, 200, hit.headers, hit.body, hit.receipt)

    # L2: what Rust sends.

    def limits(self) -> Limits | None:
        """Seconds to connect, read and write, and retries; None: not for this path."""
        client = self.client
        there = None if self.route is None else self.route.destination
        retries = client.max_retries if there is None or there.max_retries is None else there.max_retries
        if type(retries) is not int or retries < 0:
            return None
        timeout = self.arguments.get("timeout", ABSENT[1]())
        own = type(timeout) not in ABSENT
        if not own:
            timeout = client.timeout if there is None or there.timeout is None else there.timeout
        elif timeout is not None:
            headers = self.headers = self.headers or {}
            read = timeout if type(timeout) in (int, float) else getattr(timeout, "read", None)
            if read is None:
                # Then the SDK leaves the header out, which the client's own request has.
                return None
            headers["x-stainless-read-timeout"] = str(read)
        else:
            return None
        try:
            times = [timeout] * 3 if type(timeout) in (int, float) else [timeout.connect, timeout.read, timeout.write]
            # 0, -1, NaN: what the SDK's transport makes of it.
            usual = all(time is None or time > 0 for time in times)
        except (AttributeError, TypeError):
            return None
        return (*times, retries, own) if usual else None

    def answered(self, answer: _core.Answer) -> Any:
        """What the SDK would make of an answer that has come whole, or of a stream that has begun."""
        if self.found.stream:
            if answer.pipe is not None:
                return LIVE[self.is_async](self, answer)
        elif answer.is_json:
            if not self.raw:
                # With the whole response at hand only where the SDK's own code wants to see it.
                value = self._value(answer.body, answer.request_id, lambda: self._whole(answer))
                if isinstance(value, BaseModel):
                    attach(value, answer.receipt)
                return value
            value = self._strict(answer.body, answer.request_id)
            if value is not None:
                attach(value, answer.receipt)
            # What is odd raises in parse(), as it does in the SDK, not here.
            return self._raw(self._whole(answer), value, answer.receipt, answer.receipt.attempts - 1)
        return None

    def _whole(self, answer: _core.Answer) -> Any:
        return whole_response(self, answer.status, answer.headers, answer.body, answer.receipt)

    def _strict(self, body: bytes, request_id: str | None) -> Any:
        value = self.kind.build(self.slot, body)
        if value is not None:
            value._request_id = request_id
        return value

    def _value(self, body: bytes, request_id: str | None, response: Callable[[], Any]) -> Any:
        value = self.kind.build(self.slot, body)
        if value is None:
            value = self.client._process_response_data(
                data=json.loads(body), cast_to=self.kind.made, response=response()
            )
        if isinstance(value, BaseModel):
            value._request_id = request_id
        parse = self.kind.options(self.slot).post_parser
        return value if isinstance(parse, NotGiven) else parse(value)

    def unexpected(self, response: Any, answer: _core.Answer) -> dict[str, Any]:
        """Arguments for the SDK's `_process_response`."""
        streams = self.found.stream
        kind: Any = AsyncStream if self.is_async else Stream
        return {
            "cast_to": self.kind.made,
            "options": self.kind.options(self.slot),
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
            options=self.kind.options(self.slot),
            retries_taken=retries,
        )
        if value is not None:
            raw._parsed_by_type[self.kind.made] = value
        attach(raw, receipt)
        return raw

    @cached_property
    def httpx(self) -> Any:
        return httpx_of(self.client)

    @cached_property
    def request(self) -> Any:
        """The request that was sent, or would have been."""
        content = self.place.body(self.arguments)
        return self.httpx.Request(
            "POST", self.place.url, headers=self.place.headers(self.headers or {}), content=content
        )
