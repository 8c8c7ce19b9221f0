"""Where a client's calls go: the upstream, the model's real name and the fallbacks behind the name in a request.

Keys never cross: a request to an upstream of the policy is built by an SDK client of its own (`destinations.py`), which
never had the key, the organization or the headers of the user's client. Nothing is sent here, and who is asked when is
decided in the core (`src/upstream/fallback.rs`).
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from openai._models import FinalRequestOptions
from openai._types import NotGiven, Omit

from . import _core
from .call_options import PREFIX
from .destinations import Destination, Keys, is_secret, limits_of
from .parts import plain
from .policy import Policy
from .routes import is_dynamic, sent_headers
from .upstream_policy import DEFAULT, Adapt, Alias

__all__ = [
    "Choices",
    "Route",
    "Routes",
    "adapted",
    "plan_of",
    "request_to",
    "routes_of",
]

_ABSENT = (Omit, NotGiven)
_REASONING = re.compile(r"(?:.*/)?(?:o[1-9](?:-|$)|gpt-5).*")
# As OpenAI's reference has it for these models: https://platform.openai.com/docs/api-reference/chat/create
_KNOWN = Adapt(rename={"max_tokens": "max_completion_tokens"})
_MOST_NAMES = 10_000


class Route:
    """What stands behind one name of a model."""

    __slots__ = ("adapt", "choices", "destination", "fallbacks", "model", "name", "parameters", "salt", "substitutes")

    def __init__(self, name: str, model: str, destination: Destination | None) -> None:
        self.name = name
        self.model = model
        self.destination = destination
        self.parameters: Mapping[str, Any] = {}
        self.adapt: Adapt | None = None
        self.fallbacks: tuple[Route, ...] = ()
        # Cheaper models that a budget may send a call to.
        self.substitutes: tuple[Route, ...] = ()
        # Models that stages choose among, in place of this one.
        self.choices: Choices | None = None
        # Sets the answers apart from those that were chosen, or asked for, otherwise.
        self.salt = b""

    @property
    def others(self) -> tuple[Route, ...]:
        """Who may be asked besides it."""
        return self.fallbacks + self.substitutes + (self.choices.all if self.choices is not None else ())

    @property
    def plain(self) -> Route:
        """Where a call goes that no stage sees."""
        return self if self.choices is None else self.choices.default

    @property
    def changes(self) -> bool:
        """Whether a request is changed in more than its model."""
        return bool(self.parameters or self.adapt)

    def stamp(self) -> tuple[Any, ...]:
        return tuple(route.destination.stamp() for route in (self, *self.others) if route.destination is not None)

    def dynamic(self) -> Iterator[Destination]:
        """The upstreams whose key is a function's, the first one's first."""
        for route in (self, *self.others):
            if route.destination is not None and route.destination.ask_key is not None:
                yield route.destination


class Choices:
    """What the stages route and escalate choose among, for the calls that name one model."""

    def __init__(
        self,
        tiers: Iterable[Route],
        helpers: Iterable[Route],
        asked: Route,
        default: Route,
        stages: tuple[bool, bool],
    ) -> None:
        self.tiers = tuple(tiers)
        self.helpers = tuple(helpers)
        self.asked = asked
        self.default = default
        self.stages = stages
        """Whether the stage route has a say, and the stage escalate."""

    @property
    def all(self) -> tuple[Route, ...]:
        """Everyone who may be asked, each with those behind it."""
        firsts = (*self.tiers, *self.helpers)
        return (*firsts, *(other for first in firsts for other in first.others))


class Routes:
    """The routes of a policy, by the names of models behind which there is more than another name. False when there are
    none."""

    def __init__(
        self, named: dict[str, Route], substitutes: tuple[Route, ...], aliases: Mapping[str, str | Alias]
    ) -> None:
        self._named = named
        self._substitutes = substitutes
        self._aliases = aliases

    def __bool__(self) -> bool:
        return bool(self._named or self._substitutes)

    def get(self, name: str) -> Route | None:
        found = self._named.get(name)
        if found is None and self._substitutes:
            alias = self._aliases.get(name, name)
            found = Route(name, _model_of(alias), None)
            found.substitutes = self._substitutes
            if len(self._named) < _MOST_NAMES:
                self._named[name] = found
        return found


def routes_of(policy: Policy, numbers: Iterator[int]) -> Routes:
    """What the policy says of where calls go.

    Raises:
        PolicyError: a key is not where the policy says that it is.
    """
    destinations = {name: Destination(name, upstream, next(numbers)) for name, upstream in policy.upstreams.items()}

    def bare(name: str) -> tuple[Route, tuple[str, ...]]:
        given = policy.aliases.get(name, name)
        alias = given if isinstance(given, Alias) else Alias(model=given)
        model = policy.models.get(alias.model)
        upstream = alias.upstream if alias.upstream is not None else model.upstream if model is not None else None
        route = Route(name, alias.model, None if upstream in (None, DEFAULT) else destinations[str(upstream)])
        route.parameters = alias.parameters
        if alias.adapt == "auto":
            route.adapt = _KNOWN if _REASONING.fullmatch(alias.model) else None
        else:
            route.adapt = alias.adapt
        fallback = alias.fallback if alias.fallback is not None else model.fallback if model is not None else ()
        return route, fallback

    cheaper = [bare(to)[0] for to in dict.fromkeys(budget.to for budget in policy.budgets if budget.to is not None)]
    routes = {}
    for name in {**policy.models, **policy.aliases}:
        route, fallbacks = bare(name)
        # A fallback of a fallback is not followed: whoever reads the line sees who is asked.
        route.fallbacks = tuple(bare(other)[0] for other in fallbacks)
        if route.destination is not None or route.changes or route.fallbacks:
            # The model of the request cannot just be called by another name: that one is not here.
            route.substitutes = tuple(cheaper)
            routes[name] = route

    def whole(name: str) -> Route:
        route, fallbacks = bare(name)
        route.fallbacks = tuple(bare(other)[0] for other in fallbacks)
        route.substitutes = tuple(cheaper)
        return route

    if policy.route is not None or policy.escalate is not None:
        _choose(policy, routes, whole)
    if policy.batch is not None:
        for name in policy.batch.models:
            route = routes.setdefault(name, whole(name))
            route.salt += policy.batch.salt()
    if policy.compress is not None:
        writers = [whole(policy.compress.summarise.model)] if policy.compress.summarise is not None else []
        for name in policy.compress.models:
            route = routes.setdefault(name, whole(name))
            route.salt += policy.compress.salt()
            if route.choices is not None:
                route.choices.helpers += tuple(one for one in writers if not _has(route.choices.helpers, one))
            elif writers:
                # It goes where it went: nobody chooses.
                route.choices = Choices((), writers, route, route, (False, False))
    return Routes(
        routes, tuple(cheaper) if any(route.destination or route.changes for route in cheaper) else (), policy.aliases
    )


def _has(routes: Iterable[Route], one: Route) -> bool:
    return any(route.name == one.name for route in routes)


def _model_of(alias: str | Alias) -> str:
    return alias if isinstance(alias, str) else alias.model


def _choose(
    policy: Policy,
    routes: dict[str, Route],
    whole: Callable[[str], Route],
) -> None:
    """Puts routes with choices in the place of those that the stages are for."""
    route, escalate = policy.route, policy.escalate
    tiers = dict.fromkeys(route.tiers.values()) if route is not None else {}
    ladder = dict.fromkeys(escalate.ladder) if escalate is not None else {}
    helpers: dict[str, None] = {}
    others: dict[str, None] = {}
    if route is not None and route.llm is not None:
        helpers[route.llm.model] = None
    if escalate is not None and escalate.judge is not None:
        helpers[escalate.judge.model] = None
    if escalate is not None and escalate.agreement is not None:
        others = dict.fromkeys(escalate.agreement.models)
    helping = [whole(name) for name in helpers]
    salt = _salt(policy)
    for name in dict.fromkeys((*(route.models if route else ()), *(escalate.models if escalate else ()))):
        routed, escalated = route is not None and name in route.models, escalate is not None and name in escalate.models
        names = {**(tiers if routed else {}), **(ladder if escalated else {}), **(others if escalated else {})}
        asked = whole(name)
        found = {other: whole(other) for other in names}
        if routed:
            assert route is not None
            last = list(route.tiers.values())[-1]
            first = route.tiers[route.default] if route.default is not None else last
        else:
            assert escalate is not None
            last = first = escalate.ladder[-1]
        baselines = (
            escalate.baseline if escalated and escalate else None,
            route.baseline if routed and route else None,
        )
        baseline = next((one for one in baselines if one is not None), None)
        # Neither the model's own place nor its own words: those are the chosen one's.
        neutral = Route(name, asked.model, None)
        neutral.choices = Choices(
            found.values(),
            helping,
            asked if baseline is None else whole(baseline),
            found[first],
            (routed, escalated),
        )
        neutral.salt = salt
        routes[name] = neutral


def _salt(policy: Policy) -> bytes:
    """What decides which model answers. Functions are told by their names: their numbers are this process's alone."""
    parts = plain(policy, shown=True)
    assert isinstance(parts, dict)
    kept = {name: parts[name] for name in ("route", "escalate", "aliases")}
    # Their order counts, and is lost below.
    kept["tiers"] = list(policy.route.tiers.items()) if policy.route is not None else []
    kept["places"] = {name: (row["upstream"], row["fallback"]) for name, row in parts["models"].items()}
    kept["upstreams"] = {name: upstream.base_url for name, upstream in policy.upstreams.items()}
    return hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).digest()


def adapted(route: Route, fields: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    """The fields of a request as the route's model takes them, but for the model's name."""
    adapt = route.adapt or Adapt()
    made: dict[str, Any] = {}
    for name, value in fields.items():
        if type(value) in _ABSENT:
            made.setdefault(name, value)
            continue
        if name in adapt.drop:
            notes.append(f"{name} was left out for {route.name}")
            continue
        other = adapt.rename.get(name, name)
        if other != name and type(fields.get(other, _ABSENT[0]())) not in _ABSENT:
            continue
        if adapt.roles and name in ("messages", "input") and type(value) in (list, tuple):
            value = [_with_role(item, adapt.roles) for item in value]
        made[other] = value
    for name, value in route.parameters.items():
        if type(made.get(name, _ABSENT[0]())) in _ABSENT:
            made[name] = value
    return made


def _with_role(item: Any, roles: Mapping[str, str]) -> Any:
    role = item.get("role") if isinstance(item, dict) else None
    return {**item, "role": roles[role]} if isinstance(role, str) and role in roles else item


def _difference(first: Route, fallback: Route) -> str:
    """What a request for `first`, already adapted, needs for `fallback`: `src/upstream/adapt.rs` reads it."""
    back = {new: old for old, new in (first.adapt.rename if first.adapt else {}).items()}
    there = dict(fallback.adapt.rename if fallback.adapt else {})
    rename = {**there, **{new: there.get(old, old) for new, old in back.items()}}
    back_roles = {new: old for old, new in (first.adapt.roles if first.adapt else {}).items()}
    roles = dict(fallback.adapt.roles if fallback.adapt else {})
    roles = {**roles, **{new: roles.get(old, old) for new, old in back_roles.items()}}
    return json.dumps(
        {
            "model": fallback.model,
            "parameters": dict(fallback.parameters),
            "rename": {old: new for old, new in rename.items() if old != new},
            "roles": {old: new for old, new in roles.items() if old != new},
            "drop": list(fallback.adapt.drop) if fallback.adapt else [],
        }
    )


def request_to(
    destination: Destination, client: Any, options: Any, key: str | None, notes: list[str], **kwargs: Any
) -> Any:
    """The SDK's HTTP request for `options`, to an upstream of the policy. `notes`: for the receipt."""
    twin = destination.twin(client)
    # The client's own word on the cache holds there too; these are never sent.
    ours = {name: value for name, value in client.default_headers.items() if name.lower().startswith(PREFIX)}
    options.headers = {**ours, **destination.headers(options.headers)}
    options.params = _no_query(options.params, destination.name, notes)
    if isinstance(options.timeout, NotGiven):
        options.timeout = client.timeout if destination.timeout is None else destination.timeout
    request = twin._build_request(options, **kwargs)
    destination.finish(request, key)
    return request


def _no_query(given: Any, upstream: str, notes: list[str]) -> dict[str, Any]:
    """A call's `extra_query` may hold a key under any name, so nothing of it goes to an upstream it may not be for."""
    note = f'extra_query was left out for upstream "{upstream}"'
    if given and note not in notes:
        notes.append(note)
    return {}


_CHAT = "/chat/completions"


def plan_of(
    route: Route, client: Any, build: Callable[..., Any], options: Any, keys: Keys, notes: list[str]
) -> _core.Plan:
    """The plan of calls by `route`. `options`: of a call, before anybody changed them; `build`: the client's own
    `_build_request`; `notes`: for the receipt."""
    choices = None
    if route.choices is not None:
        chosen = route.choices

        def tiers(routes: Iterable[Route], options: Any) -> list[tuple[Any, _core.Plan]]:
            found = _targets(route, routes, client, build, options, keys, notes)
            return [(found[one], _plan(one, client, build, options, keys, notes)) for one in routes if one in found]

        asked = tiers([chosen.asked], options)
        # Whatever the call is, it is chat that they are asked by.
        helping = copy.copy(options)
        helping.url = _CHAT
        helpers = tiers(chosen.helpers, helping)
        choices = _core.Choices(tiers(chosen.tiers, options), helpers, asked[0] if asked else None, *chosen.stages)
    return _plan(route, client, build, options, keys, notes, choices)


def _plan(
    route: Route,
    client: Any,
    build: Callable[..., Any],
    options: Any,
    keys: Keys,
    notes: list[str],
    choices: _core.Choices | None = None,
) -> _core.Plan:
    targets = _targets(route, (*route.fallbacks, *route.substitutes), client, build, options, keys, notes)
    fallbacks, substitutes = (
        [targets[one] for one in ones if one in targets] for ones in (route.fallbacks, route.substitutes)
    )
    absent = [one.name for one in route.substitutes if one not in targets]
    first = None if route.destination is None else route.destination.name
    return _core.Plan(first, fallbacks, substitutes, absent, route.name, choices)


def _targets(
    route: Route,
    others: Iterable[Route],
    client: Any,
    build: Callable[..., Any],
    options: Any,
    keys: Keys,
    notes: list[str],
) -> dict[Route, Any]:
    """Those of the others that can be asked, with how."""
    timed = not isinstance(options.timeout, NotGiven)
    targets: dict[Route, Any] = {}
    for fallback in others:
        there = fallback.destination
        if there is None and is_dynamic(client):
            notes.append(f"{fallback.name} was left out: only the SDK can make this client's credentials")
            continue
        if there is not None and there.ask_key is not None and there not in keys:
            notes.append(f"{fallback.name} was left out: its upstream's api_key gave no key")
            continue
        given: dict[str, Any] = {"method": "post", "url": options.url, "json_data": {"model": fallback.model}}
        security = {"security": options.security} if hasattr(options, "security") else {}
        headers = options.headers if isinstance(options.headers, Mapping) else {}
        params = options.params
        if there is None and route.destination is not None and not hasattr(client, "_azure_deployment"):
            # A key that comes with the call was meant for the upstream it names. (Azure clients put their own there.)
            headers = {name: value for name, value in headers.items() if not is_secret(name.lower())}
            params = _no_query(params, DEFAULT, notes)
        copy = FinalRequestOptions.construct(
            **given, headers=dict(headers), params=params, timeout=options.timeout, **security
        )
        if there is None:
            request = build(copy)
            limits = limits_of(options.timeout if timed else client.timeout, None, client)
        else:
            request = request_to(there, client, copy, keys.get(there), notes)
            limits = limits_of(options.timeout, there.max_retries, client) if timed else there.limits(client)
        raw = sent_headers(request)
        name = None if there is None else there.name
        targets[fallback] = (name, fallback.name, str(request.url), raw, _difference(route, fallback), limits)
    return targets
