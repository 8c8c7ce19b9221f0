"""The part of the policy that says which model a call goes to, before it is asked.

Not in this room: what is made of it (`src/stages/route.rs`, `src/route/`), and where the models are (upstreams.py).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from . import checks
from .checks import Bad, nearest, one_of, shown, text
from .parts import check, dotted, or_none, part, table
from .upstream_policy import _Portable

__all__ = ["ROUTERS", "Classifier", "Route", "Rules"]

ROUTERS = ("rules", "learned", "llm")
"""What may choose, besides a function of the user's."""

_LEARN = "farthing calibrate DATA --router --write router.json"
_TWO = 'by = ["rules"] takes as many tiers as there are'
_AFFINITIES = ("stay", "rise", "off")
_FORMATS = ("auto", "letter", "schema", "text")


def probability(value: object, key: str) -> float:
    """0 to 1."""
    number = checks.number(value)
    if number is None or not 0 <= number <= 1:
        raise Bad(f"{key} must be a number from 0 to 1", shown(value))
    return number


def name(value: object, key: str) -> str:
    """Of a model, an alias or a tier."""
    return text(value, key, 256)


def some_names(value: object, key: str) -> tuple[str, ...]:
    """Names of models and aliases, at least one."""
    found = checks.names((value,) if isinstance(value, str) else value, key)
    if not found:
        raise Bad(f"{key} is empty", hint=f'{key} = ["auto"] names the models of the calls that this is for')
    return found


def _tiers(value: object, key: str) -> Mapping[str, str]:
    rows = {text(n, f"a name in {key}"): name(m, dotted(key, n)) for n, m in table(value, key).items()}
    if not rows:
        raise Bad(f"{key} is empty", hint=f'{key} = {{ simple = "gpt-4o-mini", hard = "gpt-4o" }}, from cheap to dear')
    return MappingProxyType(rows)


def _routers(value: object, key: str) -> tuple[object, ...]:
    given = (value,) if isinstance(value, str) or callable(value) else value
    if isinstance(given, Mapping) or not isinstance(given, Iterable):
        raise Bad(f"{key} must be one of {', '.join(ROUTERS)}, a function, or a list of them", shown(value))
    found = tuple(one if callable(one) else one_of(one, ROUTERS, key) for one in given)
    if not found:
        raise Bad(f"{key} is empty", hint=f'{key} = "rules"')
    return found


def _weights(value: object, key: str) -> Mapping[str, float]:
    made = {}
    for feature, weight in table(value, key).items():
        number = checks.number(weight)
        if number is None:
            raise Bad(f"{dotted(key, feature)} must be a number", shown(weight))
        made[text(feature, f"a name in {key}")] = number
    return MappingProxyType(made)


def rising(value: object, key: str) -> tuple[float, ...]:
    """Numbers from 0 to 1 that do not fall."""
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise Bad(f"{key} must be a list of numbers from 0 to 1", shown(value))
    found = tuple(probability(one, key) for one in value)
    if list(found) != sorted(found):
        raise Bad(f"{key} must not fall", shown(list(found)), "they go with the models in their order, cheap to dear")
    return found


def _condition(value: object, key: str) -> str:
    """A number is one that is to be equal."""
    return str(int(value)) if isinstance(value, int) and value >= 0 else text(value, key)


def _when(value: object, key: str) -> tuple[Mapping[str, str], ...]:
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise Bad(
            f"{key} must be a list of tables", shown(value), f'{key} = [{{ tier = "code", code_fences = ">= 1" }}]'
        )
    rows = []
    for at, row in enumerate(value):
        where = f"{key}[{at}]"
        named = {text(n, f"a name in {where}"): v for n, v in table(row, where).items()}
        rows.append(MappingProxyType({n: _condition(v, dotted(where, n)) for n, v in named.items()}))
        if "tier" not in rows[-1]:
            raise Bad("missing key", dotted(where, "tier"))
    return tuple(rows)


def _examples(value: object, key: str) -> tuple[tuple[str, str], ...]:
    if isinstance(value, Mapping):
        value = list(value.items())
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise Bad(f"{key} must be a list of pairs: a prompt and its tier", shown(value))
    made = []
    for pair in value:
        if (
            not isinstance(pair, list | tuple)
            or len(pair) != 2
            or not all(isinstance(one, str) and one for one in pair)
        ):
            raise Bad(f"{key} must be a list of pairs: a prompt and its tier", shown(pair))
        made.append((pair[0], pair[1]))
    return tuple(made)


def _labels(value: object, key: str) -> Mapping[str, str]:
    if not isinstance(value, Mapping) and isinstance(value, Iterable) and not isinstance(value, str):
        value = {one: "" for one in value}
    rows = table(value, key, " (tier = description), or a list of tiers").items()
    for label, description in rows:
        if not isinstance(description, str):
            raise Bad(f"{dotted(key, label)} must say what the tier is for", shown(description))
    return MappingProxyType({text(label, f"a name in {key}"): str(said) for label, said in rows})


def _characters(value: object, key: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 1_000_000:
        return value
    raise Bad(f"{key} must be a number of characters, from 0 to 1,000,000", shown(value))


def _router_file(value: object, key: str) -> str:
    """The path of what `farthing calibrate --router` wrote."""
    from . import _core

    place = checks.path(value, key)
    try:
        with open(place, encoding="utf-8") as file:
            wrong = _core.check_weights(json.dumps(json.load(file)["cheap"]))
    except FileNotFoundError:
        raise Bad(f"{key} is not there", place, _LEARN) from None
    except OSError as error:
        raise Bad(f"{key} cannot be read", f"{place}: {error.strerror}", _LEARN) from None
    except (ValueError, TypeError, KeyError, RecursionError):
        wrong = place
    if wrong is not None:
        raise Bad(f"{key} has no weights of a router", wrong, _LEARN)
    return place


@dataclass(frozen=True, kw_only=True)
class Rules(_Portable):
    """How `by = "rules"` chooses: from what the prompt looks like, without a call.

    Args:
        weights: of features, over the built-in ones (docs/stages/route.md has the names).
        thresholds: of the difficulty, 0 to 1, one fewer than tiers, not falling; () = equal parts.
        when: conditions on counts, the first that holds wins: `{"tier": "code", "code_fences": ">= 1"}`; () = the
            built-in ones for tiers that are called trivial, code or reasoning.
    """

    weights: Mapping[str, float] = field(default_factory=dict, metadata=check(_weights))
    thresholds: tuple[float, ...] = field(default=(), metadata=check(rising))
    when: tuple[Mapping[str, str], ...] = field(default=(), metadata=check(_when))

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            weights: Mapping[str, float] = ...,
            thresholds: Iterable[float] = ...,
            when: Iterable[Mapping[str, str | int]] = ...,
        ) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Classifier(_Portable):
    """The cheap model that `by = "llm"` asks for the tier.

    Args:
        model: model or alias.
        labels: tier -> what it is for; () = the tiers' names alone.
        examples: pairs of a prompt and its tier, shown to the model.
        format: "letter" (one token, held to by `logit_bias` where the model's vocabulary is known), "schema" (a JSON
            schema), "text" (the tier's name), "auto" (letter where the vocabulary is known, else text).
        head, tail: characters of the first and of the last part of a long prompt that the model is shown.
    """

    model: str = field(metadata=check(name))
    labels: Mapping[str, str] = field(default_factory=dict, metadata=check(_labels))
    examples: tuple[tuple[str, str], ...] = field(default=(), metadata=check(_examples))
    format: Literal["auto", "letter", "schema", "text"] = field(
        default="auto", metadata=check(lambda value, key: one_of(value, _FORMATS, key))
    )
    head: int = field(default=1500, metadata=check(_characters))
    tail: int = field(default=500, metadata=check(_characters))

    @classmethod
    def agree(cls, values: Mapping[str, Any], key: str) -> None:
        if values.get("head") == 0 and values.get("tail") == 0:
            hint = f"{dotted(key, 'head')} = 1500, {dotted(key, 'tail')} = 500"
            raise Bad(f"{dotted(key, 'head')} and {dotted(key, 'tail')} leave nothing of the prompt", "0", hint)

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            model: str,
            labels: Mapping[str, str] | Iterable[str] = ...,
            examples: Iterable[tuple[str, str]] | Mapping[str, str] = ...,
            format: Literal["auto", "letter", "schema", "text"] = ...,
            head: int = ...,
            tail: int = ...,
        ) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Route(_Portable):
    """Which model a call goes to.

    Args:
        models: the names that calls use; a call to another model is left alone.
        tiers: name -> model or alias, from cheap to dear.
        default: the tier of calls that nothing could place; None = the last.
        by: "rules" (from the prompt's look), "learned" (weights of `farthing calibrate --router`), "llm" (a cheap model
            is asked), or a function `(RouteRequest) -> tier`, `(tier, confidence)` or None, sync or async; several in a
            row: the next is asked when one is less sure than `confidence`.
        confidence: 0 to 1.
        rules: see `Rules`.
        llm: see `Classifier`; needed for "llm".
        weights: the file for "learned".
        affinity: "stay" (a conversation keeps its tier), "rise" (it may go to a dearer one), "off" (each call by
            itself, but to a cheaper tier only if that pays after the prompt cache that is given up).
        affinity_ttl: seconds that a conversation is remembered.
        timeout: seconds that a function, or the asked model, may take.
        baseline: the model that savings are compared with; None = the one that the call names, else the last tier's.

    Raises:
        PolicyError: a wrong type, a value out of range, a tier that is not listed.
    """

    models: tuple[str, ...] = field(metadata=check(some_names))
    tiers: Mapping[str, str] = field(metadata=check(_tiers))
    default: str | None = field(default=None, metadata=check(or_none(text)))
    by: tuple[str | Callable[..., Any], ...] = field(default=("rules",), metadata=check(_routers))
    confidence: float = field(default=0.6, metadata=check(probability))
    rules: Rules = field(default_factory=Rules, metadata=check(lambda v, key: part(Rules, v, key)))
    llm: Classifier | None = field(default=None, metadata=check(or_none(lambda v, key: part(Classifier, v, key))))
    weights: str | None = field(default=None, metadata=check(or_none(_router_file)))
    affinity: Literal["stay", "rise", "off"] = field(
        default="stay", metadata=check(lambda value, key: one_of(value, _AFFINITIES, key))
    )
    affinity_ttl: float = field(default=3600.0, metadata=check(checks.seconds))
    timeout: float = field(default=10.0, metadata=check(checks.seconds))
    baseline: str | None = field(default=None, metadata=check(or_none(name)))

    @classmethod
    def agree(cls, values: Mapping[str, Any], key: str) -> None:
        tiers = values.get("tiers", {})
        places = [(values.get("default"), "default")]
        places += [(row["tier"], f"rules.when[{at}].tier") for at, row in enumerate(_of(values, "rules", "when"))]
        places += [(label, "llm.labels") for label in _of(values, "llm", "labels")]
        places += [(tier, "llm.examples") for _, tier in _of(values, "llm", "examples")]
        for tier, where in places:
            if tier is not None and tier not in tiers:
                guess = nearest(tier, tiers)
                hint = f'did you mean "{guess}"?' if guess else f"tiers are: {', '.join(tiers)}"
                raise Bad(f"{_at(key, where)} is not among the tiers", tier, hint)
        thresholds = _of(values, "rules", "thresholds")
        if thresholds and len(thresholds) != len(tiers) - 1:
            hint = f"{len(tiers)} tiers need {len(tiers) - 1}: one for each border between two"
            raise Bad(f"{_at(key, 'rules.thresholds')} has {len(thresholds)} numbers", hint=hint)
        if tiers and values.get("rules") is not None:
            _rules_fit(values["rules"], tiers, _at(key, "rules"))
        by = values.get("by", ())
        if "llm" in by and values.get("llm") is None:
            raise Bad("missing key", dotted(key, "llm"), 'by = "llm" needs a model: llm = { model = "gpt-4o-mini" }')
        if "learned" in by and values.get("weights") is None:
            raise Bad("missing key", dotted(key, "weights"), _LEARN)
        if "learned" in by and len(tiers) != 2:
            raise Bad(f"{_at(key, 'by')} has learned, which chooses between two tiers", str(len(tiers)), _TWO)

    def to_core(self) -> dict[str, Any]:
        """As `src/config.rs` reads it."""
        from .hook_numbers import core_name

        learned = None
        if self.weights is not None and "learned" in self.by:
            with open(self.weights, encoding="utf-8") as file:
                learned = json.load(file)
        return {
            "tiers": list(self.tiers.items()),
            "default": self.default if self.default is not None else list(self.tiers)[-1],
            "by": [core_name(one) for one in self.by],
            "confidence": self.confidence,
            "rules": _core_rules(self.rules),
            "llm": None
            if self.llm is None
            else {
                "model": self.llm.model,
                "labels": dict(self.llm.labels),
                "examples": [list(pair) for pair in self.llm.examples],
                "format": self.llm.format,
                "head": self.llm.head,
                "tail": self.llm.tail,
            },
            "learned": learned,
            "affinity": self.affinity,
            "affinity_ttl": self.affinity_ttl,
            "timeout": self.timeout,
            "baseline": self.baseline,
        }

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            models: Iterable[str] | str,
            tiers: Mapping[str, str],
            default: str | None = ...,
            by: str | Callable[..., Any] | Iterable[str | Callable[..., Any]] = ...,
            confidence: float = ...,
            rules: Rules | Mapping[str, Any] = ...,
            llm: Classifier | Mapping[str, Any] | None = ...,
            weights: str | os.PathLike[str] | None = ...,
            affinity: Literal["stay", "rise", "off"] = ...,
            affinity_ttl: float | str = ...,
            timeout: float | str = ...,
            baseline: str | None = ...,
        ) -> None: ...


def _core_rules(rules: Rules) -> dict[str, Any]:
    return {
        "weights": dict(rules.weights),
        "thresholds": list(rules.thresholds),
        "when": [dict(row) for row in rules.when],
    }


def _rules_fit(rules: Rules, tiers: Mapping[str, str], key: str) -> None:
    """The core knows the names of features and counts. Raises Bad."""
    from . import _core

    wrong = _core.check_rules(json.dumps(_core_rules(rules)), list(tiers))
    if wrong is not None:
        what, _, hint = wrong.partition("\nhint: ")
        where, _, rest = what.partition(": ")
        what, _, value = rest.partition(": ")
        raise Bad(f"{key}.{where}: {what}", value or None, hint)


def _at(key: str, path: str) -> str:
    return f"{key}.{path}" if key else path


def _of(values: Mapping[str, Any], inner: str, name: str) -> Any:
    found = values.get(inner)
    return () if found is None else getattr(found, name)
