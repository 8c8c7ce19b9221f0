"""Which calls are plain, and what of them stays the same: the L1 and L2 view of a client's endpoint.

A `Place` is made once for a client and an endpoint, from a request that the SDK itself builds, and holds until
something about the client changes (`src/py/guard.rs` compares). Nothing is looked up or sent here (`resources/`).
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import openai
from openai._models import FinalRequestOptions
from openai._types import NotGiven, Omit

from . import _core
from .call_options import PREFIX, Options, from_headers
from .routes import Route, is_dynamic, owner_of, probes_of, route_of, sent_headers, urls_of

if TYPE_CHECKING:
    from .upstreams import Route as Destined

__all__ = ["ABSENT", "IGNORED_HEADERS", "Placed", "place_of"]

ABSENT = (Omit, NotGiven)

Placed: TypeAlias = "tuple[_core.Place, bool, Options | None, Destined | None, tuple[Any, ...]]"
"""The place, whether Rust may send (L2), the options that the client's own headers give, the route that it was made
for, and the stamp of the files of its upstreams (upstreams.py)."""

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
_SESSION = ("current",)
_HTTP = ("_state", "_transport", "_mounts", "_auth", "_event_hooks", "_cookies")

# Seams of the SDK's own that a subclass of the user's may have replaced: only the SDK's whole way calls them.
_SEAMS = (
    "_build_headers",
    "_calculate_retry_timeout",
    "_make_sse_decoder",
    "_make_status_error",
    "_make_status_error_from_response",
    "_prepare_options",
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
_OWN = ("_build_request", "_prepare_request", "_process_response", "_process_response_data", "_send_request")


def place_of(
    resource: Any, kind: Any, arguments: Mapping[str, Any], route: Destined | None, engine: _core.Engine
) -> Placed | None:
    """None: this client's calls are the SDK's. `route`: of the model that is asked for; of one policy with `engine`."""
    client = resource._client
    places: dict[Any, Placed] | None = vars(resource).get("_farthing_places")
    if places is None:
        places = vars(resource)["_farthing_places"] = {}
    model = None if route is None else route.name
    if hasattr(client, "_azure_deployment"):
        # The URL has the model in it.
        model = arguments.get("model")
        if type(model) is not str:
            return None
    found = places.get(model)
    if found is not None:
        if found[0].holds() and found[3] is route and (route is None or found[4] == route.stamp()):
            return found
        places.clear()
    made = _make(resource, kind, model, route, engine)
    # After a reload in the meantime it is for this call alone.
    if made is not None and len(places) < 100 and client._farthing.engine is engine:
        places[model] = made
    return made


def _make(
    resource: Any, kind: Any, model: str | None, destined: Destined | None, engine: _core.Engine
) -> Placed | None:
    client = resource._client
    there = None if destined is None else destined.destination
    own = destined is None or there is None or any(route.destination is None for route in destined.others)
    if client._strict_response_validation:
        return None
    # Keys that are new for each request are asked for on the SDK's own way.
    if own and (getattr(client, "_api_key_provider", None) is not None or _has_token(client)):
        return None
    if destined is not None and next(destined.dynamic(), None) is not None:
        return None
    route = route_of(client, urls_of(destined), own=own)
    # The resource took the client's method when it was made: a mock may have been there then.
    if route is Route.UNSEEN or not _is_whole(type(client)) or resource._post != client.post:
        return None
    stamp = () if destined is None else destined.stamp()
    real = (model and engine.alias(model)) or model if destined is None else destined.model
    options = FinalRequestOptions.construct(
        method="post", url=kind.path, json_data={"model": real or "model"}, security={"bearer_auth": True}
    )
    plan = None
    if there is not None:
        from .upstreams import request_to

        built = request_to(there, client, options.model_copy(), None, [])
    else:
        prepared = _prepared(client, options.model_copy())
        if prepared is None:
            return None
        built = client._farthing_request(prepared)
    if destined is not None:
        from .upstreams import plan_of

        notes: list[str] = []
        prepared = _prepared(client, options.model_copy()) if own else options
        if prepared is None:
            return None
        plan = plan_of(destined, client, client._farthing_request, prepared, {}, notes)
        if notes:
            # The receipt of each call says it, and only the SDK's own way has the means.
            return None
    owner, _ = owner_of(client, route, None if there is None else there.owner)
    if destined is not None:
        owner += destined.salt
    http: Any = client._client
    hooks = getattr(http, "_event_hooks", {})
    session = client._farthing
    watched = [(vars(client), _CLIENT), (vars(http), _HTTP), (vars(resource), ("_post",)), (vars(session), _SESSION)]
    # The user's own dicts, if they gave any: what they put in later is sent too.
    for given in (client._custom_headers, client._custom_query):
        if type(given) is dict:
            watched.append((given, tuple(given)))
        elif given:
            return None
    transport: Any = getattr(http, "_transport", None)
    if hasattr(transport, "__dict__"):
        watched.append((vars(transport), ()))
    jar: Any = getattr(getattr(http, "_cookies", None), "jar", None)
    empty = [*hooks.values(), *([jar._cookies] if hasattr(jar, "_cookies") else [])]
    place = _core.Place(
        kind.shape,
        engine,
        client._farthing.ledger,
        owner,
        str(built.url),
        sent_headers(built),
        probes_of(client),
        watched,
        empty if route is Route.RUST else [],
        plan,
    )
    if route is Route.RUST and not place.sendable:
        return None
    ours = {name: value for name, value in client.default_headers.items() if name.lower().startswith(PREFIX)}
    sends = route is Route.RUST and os.environ.get("FARTHING_L2") != "off"
    return place, sends, from_headers(ours) if ours else None, destined, stamp


def _has_token(client: Any) -> bool:
    return getattr(client, "_azure_ad_token_provider", None) is not None or bool(
        getattr(client, "_azure_ad_token", None)
    )


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
