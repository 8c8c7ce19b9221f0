"""Who sends a call: Rust, the client's own http client, or the SDK unseen by us. Nothing is sent here.

Mocks and recorders (respx, pytest-httpx, vcrpy) patch the http library's classes, tracers replace the SDK's methods.
They must see what they saw before, and what they answer must not get into the cache: such calls go the SDK's way. So do
all calls where Python's sockets are not its own: gevent's and eventlet's wait for other threads that are none, PySocks'
go through a proxy, pytest-socket's go nowhere.
"""

from __future__ import annotations

import importlib
import itertools
import os
import socket
import weakref
from collections.abc import Sequence
from enum import Enum
from types import FunctionType
from typing import Any

import openai
from openai import _base_client

from . import _core
from .call_options import PREFIX

__all__ = [
    "HTTPX",
    "Route",
    "endpoint_of",
    "httpx_of",
    "is_dynamic",
    "is_sdk_function",
    "owner_of",
    "probes_of",
    "route_of",
    "sent_headers",
    "urls_of",
]

HTTPX: Any = importlib.import_module("httpx2" if hasattr(_base_client, "httpx2") else "httpx")
"""The http library that the installed SDK is made with."""

_PATCHED = {
    "": (
        ("Client", "send"),
        ("Client", "_transport_for_url"),
        ("AsyncClient", "send"),
        ("AsyncClient", "_transport_for_url"),
        ("HTTPTransport", "handle_request"),
        ("AsyncHTTPTransport", "handle_async_request"),
    ),
    "core": (("ConnectionPool", "handle_request"), ("AsyncConnectionPool", "handle_async_request")),
    "aiohttp": (("ClientSession", "_request"),),
}
"""What mocks, recorders and tracers replace, in httpx, in httpcore and in aiohttp."""
_SOCKETS = ("socket", "create_connection", "getaddrinfo")
"""What is replaced in `socket` by those who want all connections of a process."""
_METHODS = ("post", "request")
"""What they replace in the SDK's clients."""

_SDK_MADE = (_base_client.SyncHttpxClientWrapper, _base_client.AsyncHttpxClientWrapper)
_ENDPOINTS = (("/chat/completions", "chat"), ("/responses", "responses"), ("/embeddings", "embeddings"))
_SDK_FOLDER = os.path.dirname(openai.__file__)
_numbers = itertools.count(1)
_probes: dict[tuple[Any, bool], _core.Probes] = {}
_owners: weakref.WeakKeyDictionary[Any, bytes] = weakref.WeakKeyDictionary()


class Route(Enum):
    """Who sends."""

    RUST = "reqwest"
    SDK_CLIENT = "the client's own http client, for the engine"
    UNSEEN = "the SDK, without the engine"


def endpoint_of(request: Any) -> str | None:
    """ "chat", "responses" or "embeddings"; None for a request that is none of ours."""
    if request.method != "POST" or not request.headers.get("content-type", "").startswith("application/json"):
        return None
    path = request.url.path.rstrip("/")
    return next((name for end, name in _ENDPOINTS if path.endswith(end)), None)


def httpx_of(client: Any) -> Any:
    """The http library of this client: an injected one may be the other httpx."""
    for kind in type(client._client).__mro__:
        root = kind.__module__.partition(".")[0]
        if root in ("httpx", "httpx2"):
            return HTTPX if root == HTTPX.__name__ else importlib.import_module(root)
    return HTTPX


def is_sdk_function(function: Any) -> bool:
    """Whether it is what the SDK came with: not a mock, not a tracer's wrapper around it."""
    return _is_from(function, _SDK_FOLDER)


def _is_from(function: Any, folder: str) -> bool:
    return type(function) is FunctionType and function.__code__.co_filename.startswith(folder + os.sep)


def _patched(client: Any) -> list[tuple[Any, str]]:
    """What a mock or a tracer may replace below this client."""
    httpx, transport = httpx_of(client), getattr(client._client, "_transport", None)
    modules = [("", httpx), ("core", importlib.import_module(httpx.__name__.replace("httpx", "httpcore")))]
    if _is_aiohttp(transport):
        modules.append(("aiohttp", importlib.import_module("aiohttp")))
    known = [(getattr(module, owner), name) for kind, module in modules for owner, name in _PATCHED[kind]]
    sockets = [*((socket, name) for name in _SOCKETS), (socket.socket, "connect")]
    return [*sockets, *((owner, name) for owner, name in known if hasattr(owner, name))]


def _is_original(owner: Any, name: str) -> bool:
    """Whether it is what the library came with."""
    now = getattr(owner, name)
    if owner is socket.socket:
        # In C.
        return type(now) is not FunctionType
    if owner is socket:
        if isinstance(now, type):
            return now.__module__ == socket.__name__
        # By the file: other packages may be in a folder below the standard library's.
        return type(now) is FunctionType and now.__code__.co_filename == socket.SocketIO.close.__code__.co_filename
    module = importlib.import_module(owner.__module__.partition(".")[0])
    return _is_from(now, os.path.dirname(module.__file__ or ""))


def _http_probes(client: Any) -> _core.Probes | None:
    """None while a patch is in place, and for as long as one is that was there before farthing."""
    key = (httpx_of(client), _is_aiohttp(getattr(client._client, "_transport", None)))
    known = _probes.get(key)
    if known is None:
        places = _patched(client)
        if not all(_is_original(owner, name) for owner, name in places):
            return None
        known = _probes[key] = _core.Probes(places)
    return known


def probes_of(client: Any) -> _core.Probes:
    """For a client with a route: tells whether somebody has patched what is below it since."""
    kind = type(client)
    return _core.Probes([*_patched(client), *((kind, name) for name in _METHODS)])


def _is_patched(client: Any) -> bool:
    probes = _http_probes(client)
    if probes is None or probes.changed() or any(name in vars(client) for name in ("_send_request", *_METHODS)):
        return True
    for kind in type(client).__mro__:
        for name in _METHODS:
            method = vars(kind).get(name)
            if method is None:
                continue
            # A subclass of the user's may have a method of its own; what stands in the SDK's classes is the SDK's.
            own = kind.__module__.partition(".")[0] in (openai.__name__, __package__)
            if not (is_sdk_function(method) if own else type(method) is FunctionType):
                return True
    return False


def route_of(client: Any, urls: Sequence[str] = (), *, own: bool = True) -> Route:
    """Who sends for this client, now: patches come and go. `urls`: of upstreams of the policy that may be asked; `own`:
    whether the client's own may be."""
    if _is_patched(client):
        return Route.UNSEEN
    http = client._client
    # A closed client raises, and that is the SDK's to do.
    if http.is_closed or not _is_real(http):
        return Route.UNSEEN
    if type(http) not in _SDK_MADE or os.environ.get("FARTHING_HTTP") == "sdk" or (own and is_dynamic(client)):
        return Route.SDK_CLIENT
    # Whom to trust is said in the environment, and httpx reads it in its own way.
    tls = (own and client._base_url.scheme == "https") or any(url.startswith("https:") for url in urls)
    if tls and (os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR")):
        return Route.SDK_CLIENT
    # httpx sends a user and password in the URL in place of the key.
    if own and client._base_url.userinfo:
        return Route.SDK_CLIENT
    hooks = http.event_hooks
    plain = not (http._mounts or http.auth or hooks["request"] or hooks["response"] or len(http.cookies.jar))
    return Route.RUST if plain else Route.SDK_CLIENT


def owner_of(client: Any, route: Route, upstream: bytes | None = None) -> tuple[bytes, bool]:
    """What sets this client's answers apart beyond its headers, and whether the engine owns the retries. `upstream`:
    what sets those of an upstream of the policy apart."""
    if upstream is not None:
        certified = route is Route.SDK_CLIENT and type(client._client) not in _SDK_MADE
        return upstream + _owner(client._client) if certified else upstream, True
    if is_dynamic(client):
        # Its credentials are made below us: no header says whose answers these are, and only the SDK can renew them.
        return _owner(client), False
    if route is Route.SDK_CLIENT and type(client._client) not in _SDK_MADE:
        # A client certificate or a proxy may decide who asks.
        return _owner(client._client), True
    return b"", True


def is_dynamic(client: Any) -> bool:
    """Whether the SDK makes credentials for each request, below `request()`."""
    return (
        getattr(client, "workload_identity", None) is not None or getattr(client, "_provider_runtime", None) is not None
    )


def _owner(thing: Any) -> bytes:
    owner = _owners.get(thing)
    if owner is None:
        owner = _owners.setdefault(thing, b"owner %d" % next(_numbers))
    return owner


def _is_real(http: Any) -> bool:
    """Whether this http client goes to the network, whichever of its transports it takes."""
    if any(name in vars(http) for name in ("send", "_transport_for_url", "_send_single_request")):
        return False
    mounted = [transport for transport in (getattr(http, "_mounts", None) or {}).values() if transport is not None]
    return all(map(_goes_out, (getattr(http, "_transport", None), *mounted)))


def _goes_out(transport: Any) -> bool:
    """A stock transport, or aiohttp's."""
    if _is_stock(transport):
        return "handle_request" not in vars(transport) and "handle_async_request" not in vars(transport)
    # A transport of the user's own, around a real one (retries, logs): it goes to the network as well.
    return _is_aiohttp(transport) or any(_is_stock(inner) for inner in getattr(transport, "__dict__", {}).values())


def _is_stock(transport: Any) -> bool:
    return any(
        kind.__module__.partition(".")[0] in ("httpx", "httpx2")
        and kind.__name__ in ("HTTPTransport", "AsyncHTTPTransport")
        for kind in type(transport).__mro__
    )


def _is_aiohttp(transport: Any) -> bool:
    return any(
        kind.__module__.partition(".")[0] == "httpx_aiohttp" or kind.__module__.startswith("openai.")
        for kind in type(transport).__mro__
    )


def urls_of(destined: Any) -> list[str]:
    """Of where a call may go (upstreams.py), those of the policy's upstreams that may be asked."""
    routes = () if destined is None else (destined, *destined.others)
    return [one.destination.base_url for one in routes if one.destination is not None]


def sent_headers(request: Any) -> list[tuple[bytes, bytes]]:
    """The headers of a request for other bodies of the same kind."""
    own = PREFIX.encode()
    kept = ((name, value) for name, value in request.headers.raw if not name.lower().startswith(own))
    return [(name, value) for name, value in kept if name.lower() != b"content-length"]
