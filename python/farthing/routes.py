"""Who sends a call: Rust, the client's own http client, or the SDK unseen by us. Nothing is sent here.

Mocks and recorders (respx, pytest-httpx, vcrpy) patch the http library's classes, tracers replace the SDK's methods.
They must see what they saw before, and what they answer must not get into the cache: such calls go the SDK's way.
"""

from __future__ import annotations

import importlib
import itertools
import os
import weakref
from enum import Enum
from typing import Any

from openai import _base_client

from . import _core

__all__ = ["HTTPX", "PROBES", "Route", "endpoint_of", "httpx_of", "is_dynamic", "owner_of", "route_of"]

HTTPX: Any = importlib.import_module("httpx2" if hasattr(_base_client, "httpx2") else "httpx")
"""The http library that the installed SDK is made with."""

_CORE: Any = importlib.import_module("httpcore2" if HTTPX.__name__ == "httpx2" else "httpcore")

PROBES = _core.Probes(
    [
        (owner, name)
        for owner, name in (
            (HTTPX.Client, "send"),
            (HTTPX.Client, "_transport_for_url"),
            (HTTPX.AsyncClient, "send"),
            (HTTPX.AsyncClient, "_transport_for_url"),
            (HTTPX.HTTPTransport, "handle_request"),
            (HTTPX.AsyncHTTPTransport, "handle_async_request"),
            (_CORE.ConnectionPool, "handle_request"),
            (_CORE.AsyncConnectionPool, "handle_async_request"),
            (_base_client.SyncAPIClient, "request"),
            (_base_client.AsyncAPIClient, "request"),
            (_base_client.SyncAPIClient, "post"),
            (_base_client.AsyncAPIClient, "post"),
        )
        if name in vars(owner)
    ]
)
"""Attributes that a mock or a tracer replaces, as they were when farthing was imported."""

_SDK_MADE = (_base_client.SyncHttpxClientWrapper, _base_client.AsyncHttpxClientWrapper)
_ENDPOINTS = (("/chat/completions", "chat"), ("/responses", "responses"), ("/embeddings", "embeddings"))
_numbers = itertools.count(1)
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


def route_of(client: Any) -> Route:
    """Who sends for this client, now: patches come and go."""
    if PROBES.changed() or "_send_request" in vars(client) or "request" in vars(client) or "post" in vars(client):
        return Route.UNSEEN
    http = client._client
    # A closed client raises, and that is the SDK's to do.
    if http.is_closed or not _is_real(http):
        return Route.UNSEEN
    if type(http) not in _SDK_MADE or os.environ.get("FARTHING_HTTP") == "sdk" or is_dynamic(client):
        return Route.SDK_CLIENT
    # Whom to trust is said in the environment, and httpx reads it in its own way.
    if client._base_url.scheme == "https" and (os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR")):
        return Route.SDK_CLIENT
    # httpx sends a user and password in the URL in place of the key.
    if client._base_url.userinfo:
        return Route.SDK_CLIENT
    hooks = http.event_hooks
    plain = not (http._mounts or http.auth or hooks["request"] or hooks["response"] or len(http.cookies.jar))
    return Route.RUST if plain else Route.SDK_CLIENT


def owner_of(client: Any, route: Route) -> tuple[bytes, bool]:
    """What sets this client's answers apart beyond its headers, and whether the engine owns the retries."""
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
    """Whether this http client has a transport that goes to the network: a stock one, or aiohttp's."""
    if any(name in vars(http) for name in ("send", "_transport_for_url", "_send_single_request")):
        return False
    transport = getattr(http, "_transport", None)
    for kind in type(transport).__mro__:
        root = kind.__module__.partition(".")[0]
        if root in ("httpx", "httpx2") and kind.__name__ in ("HTTPTransport", "AsyncHTTPTransport"):
            return "handle_request" not in vars(transport) and "handle_async_request" not in vars(transport)
        if root == "httpx_aiohttp" or kind.__module__.startswith("openai."):
            return True
    # A transport of the user's own, around a real one (retries, logs): it goes to the network as well.
    return any(_is_stock(inner) for inner in getattr(transport, "__dict__", {}).values())


def _is_stock(transport: Any) -> bool:
    return any(
        kind.__module__.partition(".")[0] in ("httpx", "httpx2")
        and kind.__name__ in ("HTTPTransport", "AsyncHTTPTransport")
        for kind in type(transport).__mro__
    )
