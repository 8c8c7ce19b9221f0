"""The part of the policy that says when an answer is good enough, and who is asked when it is not.

Not in this room: what is made of it (`src/stages/escalate.rs`, `src/escalate/`), and where the models are
(upstreams.py).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from . import checks
from .checks import Bad, one_of, shown
from .parts import check, dotted, or_none, part
from .route_policy import name, probability, rising, some_names
from .upstream_policy import _Portable

__all__ = ["SCORERS", "Agreement", "Escalate", "Judge"]

SCORERS = ("structural", "logprob", "reference", "agreement", "judge")
"""What may score, besides a function of the user's; in the order of what they cost."""

_COMPARES = ("exact", "numeric", "normalised", "json")
_LABELS = ("features", "text", "off")


def _ladder(value: object, key: str) -> tuple[str, ...]:
    rungs = checks.names(value, key)
    if len(rungs) < 2:
        hint = f'{key} = ["gpt-4o-mini", "gpt-4o"], from cheap to dear'
        raise Bad(f"{key} must have two rungs or more", shown(list(rungs)), hint)
    return rungs


def _thresholds(value: object, key: str) -> tuple[float, ...]:
    if checks.number(value) is not None:
        value = (value,)
    return rising(value, key)


def _scorer(value: object, key: str) -> tuple[tuple[object, float], ...]:
    """Pairs of a scorer and its weight."""
    if isinstance(value, str) or callable(value):
        value = (value,)
    if isinstance(value, Mapping):
        value = list(value.items())
    if isinstance(value, bytes) or not isinstance(value, Iterable):
        raise Bad(
            f"{key} must be one of {', '.join(SCORERS)}, a function, a list of them, or a table with weights",
            shown(value),
        )
    found: list[tuple[object, float]] = []
    for one in value:
        weight: object = 1.0
        if isinstance(one, list | tuple) and len(one) == 2:
            one, weight = one
        number = checks.number(weight)
        if number is None or not 0 < number <= 1000:
            raise Bad(f"{key} has a weight that is not more than 0", shown(weight))
        scorer = one if callable(one) else one_of(one, SCORERS, key)
        if any(known == scorer for known, _ in found):
            raise Bad(f"{key} names a scorer twice", shown(scorer))
        found.append((scorer, number))
    if not found:
        raise Bad(f"{key} is empty", hint=f'{key} = "structural"')
    return tuple(found)


def _labels(value: object, key: str) -> str:
    return "off" if value is False or value is None else one_of(value, _LABELS, key)


def _samples(value: object, key: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 32:
        return value
    raise Bad(f"{key} must be a whole number from 0 to 32", shown(value))


def _compare(value: object, key: str) -> object:
    return value if callable(value) else one_of(value, _COMPARES, key)


def _calibration(value: object, key: str) -> object:
    """What `farthing calibrate --write` wrote: the path of the file, or what is in it."""
    from .calibrate import load, validate

    if isinstance(value, Mapping):
        return MappingProxyType(validate(value, where=key))
    place = checks.path(value, key)
    try:
        load(place)
    except OSError as error:
        hint = "farthing calibrate DATA --write calibration.json"
        raise Bad(f"{key} cannot be read", f"{place}: {error.strerror}", hint) from None
    return place


def _scorer_names(scorers: Iterable[object]) -> list[str]:
    """As labels have them: functions are "callable", "callable 2" and so on."""
    functions = 0
    names = []
    for scorer in scorers:
        if isinstance(scorer, str):
            names.append(scorer)
        else:
            functions += 1
            names.append("callable" if functions == 1 else f"callable {functions}")
    return sorted(names)


def _same_scorers(calibration: Mapping[str, Any], scorers: Iterable[object], key: str) -> None:
    """A map is of one kind of score: where the scorers are others, its P(good) means nothing."""
    known, names = calibration.get("scorers"), _scorer_names(scorers)
    if known is not None and sorted(known) != names:
        hint = f"calibrate with scores of {', '.join(names)}, or make scorer what it was calibrated with"
        raise Bad(f"{key} is of other scorers than the policy's", f"{', '.join(known)} (not {', '.join(names)})", hint)


def _usd(value: object, key: str) -> Decimal:
    amount = checks.usd(value, key)
    if not amount:
        raise Bad(f"{key} must be more than 0", shown(value))
    return amount


def _read(calibration: str | Mapping[str, Any]) -> Mapping[str, Any]:
    from .calibrate import load

    return load(calibration) if isinstance(calibration, str) else calibration


@dataclass(frozen=True, kw_only=True)
class Judge(_Portable):
    """A model that grades drafts.

    Args:
        model: model or alias; not the rung that it judges, if you can.
        rubric: what a good answer is; None = "correct, complete, and what was asked for".
    """

    model: str = field(metadata=check(name))
    rubric: str | None = field(default=None, metadata=check(or_none(lambda v, key: _rubric(v, key))))


def _rubric(value: object, key: str) -> str:
    if isinstance(value, str) and 0 < len(value.strip()) <= 20_000:
        return value
    raise Bad(f"{key} must be a text of 1 to 20,000 characters", shown(value))


@dataclass(frozen=True, kw_only=True)
class Agreement(_Portable):
    """Other answers to the same question, which a draft is compared with.

    Args:
        models: models or aliases that are asked too.
        samples: how often the rung itself is asked again, 0 to 32; worth it at a temperature above 0 only.
        compare: "exact", "numeric", "normalised", "json", or a function `(one: str, other: str) -> bool`; None = by
            what the answers look like.
    """

    models: tuple[str, ...] = field(default=(), metadata=check(checks.names))
    samples: int = field(default=0, metadata=check(_samples))
    compare: str | Callable[[str, str], bool] | None = field(default=None, metadata=check(or_none(_compare)))

    @classmethod
    def agree(cls, values: Mapping[str, Any], key: str) -> None:
        if not values.get("models") and not values.get("samples"):
            hint = f'{dotted(key, "models")} = ["another-cheap-model"], or samples = 2'
            raise Bad(f"{key or 'Agreement'} compares with nothing", hint=hint)

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            models: Iterable[str] = ...,
            samples: int = ...,
            compare: str | Callable[[str, str], bool] | None = ...,
        ) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Escalate(_Portable):
    """A ladder of models: a cheap one answers, the answer is judged, and the next one is asked if it is poor.

    Args:
        models: the names that calls use; a call to another model is left alone.
        ladder: models or aliases, from cheap to dear, two or more. The last one's answer is not judged.
        thresholds: 0 to 1, one for each rung but the last, not falling, or one for all: a draft that scores as much is
            taken. None = those of `calibration`.
        scorer: "structural", "logprob", "reference", "agreement", "judge", or a function `(Draft) -> score`, sync or
            async; a list of them, or a table with weights: the weighted mean counts. A scorer that fails escalates.
        judge: see `Judge`; needed for "judge".
        agreement: see `Agreement`; needed for "agreement".
        timeout: seconds that a function, a judge or another answer may take.
        deadline: seconds for the call in all; after it nobody is asked or waited for. The best draft so far is the
            answer; without one, the call raises `openai.APITimeoutError`.
        max_cost: USD for the call in all; whatever may cost more than is left of it (a draft, a judge, a retry) is not
            asked. The best draft so far is the answer; without one, the call raises `BudgetExceeded`.
        calibration: what `farthing calibrate --write` wrote: thresholds are compared with P(good) then, not with the
            score. It is of all scorers together: a draft that one of them has nothing to go by for escalates.
        shadow: share of the accepted drafts, 0 to 1, that the last rung answers too, after the caller has its answer,
            so that the bill can say how often the draft was as good.
        labels: what is kept of each rejected or shadowed draft for `farthing calibrate`: "features", "text" (the prompt
            too), "off".
        baseline: the model that savings are compared with; None = the one that the call names, else the last rung.

    Raises:
        PolicyError: a wrong type, a value out of range, an empty ladder, thresholds that fall, a calibration of other
            scorers.
    """

    models: tuple[str, ...] = field(metadata=check(some_names))
    ladder: tuple[str, ...] = field(metadata=check(_ladder))
    thresholds: tuple[float, ...] | None = field(default=None, metadata=check(or_none(_thresholds)))
    scorer: tuple[tuple[str | Callable[..., Any], float], ...] = field(
        default=(("structural", 1.0),), metadata=check(_scorer)
    )
    judge: Judge | None = field(default=None, metadata=check(or_none(lambda v, key: part(Judge, v, key))))
    agreement: Agreement | None = field(default=None, metadata=check(or_none(lambda v, key: part(Agreement, v, key))))
    timeout: float = field(default=10.0, metadata=check(checks.seconds))
    deadline: float | None = field(default=None, metadata=check(or_none(checks.seconds)))
    max_cost: Decimal | None = field(default=None, metadata=check(or_none(_usd)))
    calibration: str | Mapping[str, Any] | None = field(default=None, metadata=check(or_none(_calibration)))
    shadow: float = field(default=0.0, metadata=check(probability))
    labels: Literal["features", "text", "off"] = field(default="features", metadata=check(_labels))
    baseline: str | None = field(default=None, metadata=check(or_none(name)))

    @classmethod
    def agree(cls, values: Mapping[str, Any], key: str) -> None:
        ladder, thresholds = values.get("ladder", ()), values.get("thresholds")
        if thresholds is not None and len(thresholds) not in (1, len(ladder) - 1):
            hint = f"{len(ladder)} rungs need {len(ladder) - 1}: one for each but the last, or one for all"
            raise Bad(f"{dotted(key, 'thresholds')} has {len(thresholds)} numbers", hint=hint)
        if thresholds is None and values.get("calibration") is None and values.get("ladder"):
            hint = f'thresholds = [{", ".join(["0.85"] * (len(ladder) - 1))}], or calibration = "calibration.json"'
            raise Bad("missing key", dotted(key, "thresholds"), hint)
        if values.get("calibration") is not None and values.get("scorer"):
            scorers = [scorer for scorer, _ in values["scorer"]]
            _same_scorers(_read(values["calibration"]), scorers, dotted(key, "calibration"))
        if thresholds is None and values.get("calibration") is not None:
            rungs = _read(values["calibration"])["rungs"]
            for rung in ladder[:-1]:
                found = rungs.get(rung) or rungs.get("")
                if found is None or found.get("threshold") is None:
                    hint = "give thresholds of P(good) as well, calibrate with more rows, or allow a higher --max-loss"
                    raise Bad(f"{dotted(key, 'calibration')} has no threshold for a rung", rung, hint)
        scorers = [scorer for scorer, _ in values.get("scorer", ())]
        for needed, example in (
            ("judge", '{ model = "gpt-4o-mini" }'),
            ("agreement", '{ models = ["another-model"] }'),
        ):
            if needed in scorers and values.get(needed) is None:
                raise Bad("missing key", dotted(key, needed), f'scorer = "{needed}" needs it: {needed} = {example}')
        if "agreement" in scorers and not values["agreement"].samples:
            for rung in ladder[:-1]:
                if all(model == rung for model in values["agreement"].models):
                    hint = f'{dotted(key, "agreement.models")} = [..., "another-cheap-model"], or samples = 2'
                    raise Bad(f"{dotted(key, 'agreement')} compares a rung with itself alone", rung, hint)

    def to_core(self) -> dict[str, Any]:
        """As `src/config.rs` reads it."""
        from .hook_numbers import core_name

        calibration = None if self.calibration is None else _read(self.calibration)
        compare = None if self.agreement is None else self.agreement.compare
        return {
            "ladder": list(self.ladder),
            "thresholds": None if self.thresholds is None else list(self.thresholds),
            "scorers": [[core_name(scorer), weight] for scorer, weight in self.scorer],
            "judge": None if self.judge is None else {"model": self.judge.model, "rubric": self.judge.rubric},
            "agreement": None
            if self.agreement is None
            else {
                "models": list(self.agreement.models),
                "samples": self.agreement.samples,
                "compare": None if compare is None else core_name(compare),
            },
            "timeout": self.timeout,
            "deadline": self.deadline,
            "max_cost": None if self.max_cost is None else checks.digits(self.max_cost),
            "calibration": {} if calibration is None else calibration["rungs"],
            "shadow": self.shadow,
            "labels": self.labels,
            "baseline": self.baseline,
        }

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            models: Iterable[str] | str,
            ladder: Iterable[str],
            thresholds: Iterable[float] | float | None = ...,
            scorer: str
            | Callable[..., Any]
            | Iterable[str | Callable[..., Any] | tuple[str | Callable[..., Any], float]]
            | Mapping[str, float] = ...,
            judge: Judge | Mapping[str, Any] | None = ...,
            agreement: Agreement | Mapping[str, Any] | None = ...,
            timeout: float | str = ...,
            deadline: float | str | None = ...,
            max_cost: Decimal | str | float | None = ...,
            calibration: str | os.PathLike[str] | Mapping[str, Any] | None = ...,
            shadow: float = ...,
            labels: Literal["features", "text", "off"] | bool = ...,
            baseline: str | None = ...,
        ) -> None: ...
