"""Which calls are plain, and what of them stays the same: the L1 and L2 view of a client's endpoint.

A `Place` is made once for a client and an endpoint, from a request that the SDK itself builds, and holds until
something about the client changes (`src/py/guard.rs` compares). Nothing is looked up or sent here (`resources/`).
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from typing import Any, TypeAlias

import openai
from openai._models import FinalRequestOptions
from openai._types import NotGiven, Omit

from . import _core
from .call_options import PREFIX, Options, from_headers
from .routes import Route, is_dynamic, owner_of, probes_of, route_of

__all__ = ["ABSENT", "IGNORED_HEADERS", "Placed", "place_of"]

ABSENT = (Omit, NotGiven)

Placed: TypeAlias = "tuple[_core.Place, bool, Options | None]"
"""The place, whether Rust may send (L2), and the options that the client's own headers give."""

# Headers of a call that are not part of the key (src/key/mod.rs): a call may carry them and still be plain.
IGNORED_HEADERS = frozenset(
    ("user-agent", "traceparent", "tracestate", "baggage", "x-request-id", "x-irid", "idempotency-key")
)

# What a place is made from: when one of these is another object, it is made again.
_CLIENT = (
    "api_key",
    "organization",
    "project",
    "_base_url",
    "_custom_headers",
    "_custom_query",
    "_client",
    "_farthing",
    "timeout",
    "max_retries",
    "_api_key_provider",
    "_strict_response_validation",
    "_azure_ad_token",
    "_azure_ad_token_provider",
)
_HTTP = ("_state", "_transport", "_mounts", "_auth", "_event_hooks", "_cookies")

# Seams of the SDK's own that a subclass of the user's may have replaced: only the SDK's whole way calls them.
_SEAMS = (
    "_build_headers",
    "_calculate_retry_timeout",
    "_make_sse_decoder",
    "_make_status_error",
    "_make_status_error_from_response",
    "_prepare_options",
    "_prepare_request",
    "_prepare_url",
    "_retry_request",
    "_should_retry",
    "_auth_headers",
    "_auth_query",
    "_custom_auth",
    "auth_headers",
    "custom_auth",
    "default_headers",
    "default_query",
    "platform_headers",
    "qs",
    "user_agent",
    "get",
    "post",
    "request",
)
_OWN = ("_build_request", "_process_response", "_process_response_data", "_send_request")


def place_of(resource: Any, kind: Any, arguments: Mapping[str, Any]) -> Placed | None:
    """None: this client's calls are the SDK's."""
    client = resource._client
    places: dict[Any, Placed] | None = vars(resource).get("_farthing_places")
    if places is None:
        places = vars(resource)["_farthing_places"] = {}
    model = None
    if hasattr(client, "_azure_deployment"):
        # The URL has the model in it.
        model = arguments.get("model")
        if type(model) is not str:
            return None
    found = places.get(model)
    if found is not None:
        if found[0].holds():
            return found
        places.clear()
    made = _make(resource, kind, model)
    if made is not None and len(places) < 100:
        places[model] = made
    return made


def _make(resource: Any, kind: Any, model: str | None) -> Placed | None:
    client = resource._client
    if client._strict_response_validation or getattr(client, "_api_key_provider", None) is not None:
        return None
    if getattr(client, "_azure_ad_token_provider", None) is not None or getattr(client, "_azure_ad_token", None):
        return None
    route = route_of(client)
    # The resource took the client's method when it was made: a mock may have been there then.
    if route is Route.UNSEEN or not _is_whole(type(client)) or resource._post != client.post:
        return None
    options = FinalRequestOptions.construct(
        method="post", url=kind.path, json_data={"model": model or "model"}, security={"bearer_auth": True}
    )
    options = _prepared(client, options)
    if options is None:
        return None
    built = client._build_request(options)
    owner, _ = owner_of(client, route)
    http: Any = client._client
    hooks = getattr(http, "_event_hooks", {})
    watched = [(vars(client), _CLIENT), (vars(http), _HTTP), (vars(resource), ("_post",))]
    # The user's own dicts, if they gave any: what they put in later is sent too.
    for own in (client._custom_headers, client._custom_query):
        if type(own) is dict:
            watched.append((own, tuple(own)))
        elif own:
            return None
    transport: Any = getattr(http, "_transport", None)
    if hasattr(transport, "__dict__"):
        watched.append((vars(transport), ()))
    jar: Any = getattr(getattr(http, "_cookies", None), "jar", None)
    empty = [*hooks.values(), *([jar._cookies] if hasattr(jar, "_cookies") else [])]
    place = _core.Place(
        kind.shape,
        client._farthing.engine,
        client._farthing.ledger,
        owner,
        str(built.url),
        [(name, value) for name, value in built.headers.raw if name.lower() != b"content-length"],
        probes_of(client),
        watched,
        empty if route is Route.RUST else [],
    )
    if route is Route.RUST and not place.sendable:
        return None
    ours = {name: value for name, value in client.default_headers.items() if name.lower().startswith(PREFIX)}
    sends = route is Route.RUST and os.environ.get("FARTHING_L2") != "off"
    return place, sends, from_headers(ours) if ours else None


def _prepared(client: Any, options: Any) -> Any:
    """The SDK's own preparation: Azure's key is put in there, by some versions nowhere else. None: only the SDK can."""
    if is_dynamic(client):
        return options
    try:
        made = client._prepare_options(options)
        if inspect.iscoroutine(made):
            made.send(None)
            made.close()  # it waits for something
            return None
        return made
    except StopIteration as done:
        return done.value
    except Exception:  # raised again where the user expects it: when the SDK does the same
        return None


_whole: dict[type, bool] = {}


def _is_whole(kind: type) -> bool:
    """Whether nobody between farthing's class and the user's replaced a seam that only the SDK's whole way calls."""
    known = _whole.get(kind)
    if known is None:
        known = _whole[kind] = all(_is_ours(_owner(kind, name), name) for name in (*_SEAMS, *_OWN))
    return known


def _owner(kind: type, name: str) -> type | None:
    return next((base for base in kind.__mro__ if name in vars(base)), None)


def _is_ours(owner: type | None, name: str) -> bool:
    if owner is None:
        return True
    module = owner.__module__.partition(".")[0]
    return module == (__package__ if name in _OWN else openai.__name__)
