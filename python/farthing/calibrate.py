"""What `farthing calibrate` writes, read and checked: for each rung a map from score to P(good), and a threshold.

A policy reads such a file while it is made, so nothing heavy is imported here; the command itself is in
`calibration.py`.

    {"version": 1, "made": "2026-11-26", "scorers": ["judge", "structural"],
     "rungs": {"small": {"points": [[0.1, 0.3], [0.9, 0.97]], "threshold": 0.87, "max_loss": 0.01, "confidence": 0.95,
                         "rows": 1200}}}
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from typing import Any

from .exceptions import PolicyError, explain

__all__ = ["VERSION", "load", "validate"]

VERSION = 1

# A file beyond this is not ours: a map has tens of points.
_MOST_BYTES = 16 << 20
_HINT = "farthing calibrate DATA --write FILE makes such a file"
# Scorers are few, and a name is a word.
_MOST_SCORERS = 100
_NAMES = {"points", "threshold", "max_loss", "confidence", "rows"}


def load(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The calibration in a file, checked.

    Returns:
        What `validate` returns.

    Raises:
        PolicyError: the file cannot be read, or is no calibration; the message says what is wrong where.
    """
    name = os.fsdecode(path)
    try:
        with open(name, "rb") as file:
            text = file.read(_MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or error
        raise PolicyError(explain("cannot read the calibration", value=f"{name}: {said}", hint=_HINT)) from None
    if len(text) > _MOST_BYTES:
        raise PolicyError(explain("a calibration is at most 16 MiB", where=name, hint=_HINT))
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PolicyError(explain("not JSON", where=name, value=str(error)[:200], hint=_HINT)) from None
    return validate(found, where=name)


def validate(found: object, *, where: str = "calibration") -> dict[str, Any]:
    """A calibration as it should be: `{"version": 1, "made": str, "rungs": {name: rung}}`, unknown keys refused.

    It may say which `scorers` its scores are of: their names as labels have them, functions "callable", "callable 2"
    and so on. They come back sorted; where the file does not say, the key is left out.

    A rung has `points` (at least one pair of score and P(good), each 0 to 1, neither falling), `threshold` on P(good)
    (0 to 1; None = none could be shown to keep the loss), `max_loss` and `confidence` (between 0 and 1), and `rows`
    that it was made of (at least 1). Numbers come back as floats, `rows` as an int.

    Args:
        where: what the messages call it, usually the file's name.

    Raises:
        PolicyError: it is not.
    """
    if not isinstance(found, Mapping):
        raise _wrong("a calibration is a JSON object", where, found)
    if found.get("version") != VERSION or isinstance(found.get("version"), bool):
        hint = "another version of farthing wrote it: run farthing calibrate again with this one"
        value = _short(found.get("version"))
        raise PolicyError(explain(f"version must be {VERSION}", where=where, value=value, hint=hint))
    _only(found, {"version", "rungs", "made", "scorers"}, where, "")
    rungs = found.get("rungs")
    if not isinstance(rungs, Mapping) or not rungs or not all(isinstance(name, str) for name in rungs):
        raise _wrong("rungs must be an object with at least one rung by its name", where, rungs)
    made = found.get("made", "")
    if not isinstance(made, str):
        raise _wrong("made must be a date", where, made)
    scorers = {"scorers": _scorers(found["scorers"], where)} if found.get("scorers") is not None else {}
    return {
        "version": VERSION,
        "made": made,
        **scorers,
        "rungs": {name: _rung(rung, where, f"rungs.{name}") for name, rung in rungs.items()},
    }


def _scorers(scorers: object, where: str) -> list[str]:
    is_list = isinstance(scorers, (list, tuple)) and 0 < len(scorers) <= _MOST_SCORERS
    if not is_list or not all(isinstance(name, str) and name for name in scorers):  # type: ignore[attr-defined]
        raise _wrong("scorers must be a list with at least one name", where, scorers)
    if len(set(scorers)) < len(scorers):  # type: ignore[call-overload, arg-type]
        raise _wrong("scorers names one twice", where, scorers)
    return sorted(scorers)  # type: ignore[call-overload, no-any-return]


def _rung(rung: object, where: str, name: str) -> dict[str, Any]:
    if not isinstance(rung, Mapping):
        raise _wrong(f"{name} must be an object", where, rung)
    _only(rung, _NAMES, where, f"{name}.")
    for key in sorted(_NAMES - set(rung)):
        raise PolicyError(explain(f"{name} has no {key}", where=where, hint=_HINT))
    threshold = rung["threshold"]
    checked: dict[str, Any] = {
        "points": _points(rung["points"], where, f"{name}.points"),
        "threshold": None if threshold is None else _share(threshold, where, f"{name}.threshold"),
    }
    for key in ("max_loss", "confidence"):
        checked[key] = _share(rung[key], where, f"{name}.{key}")
        if not 0 < checked[key] < 1:
            raise _wrong(f"{name}.{key} must be between 0 and 1", where, rung[key])
    rows = rung["rows"]
    if isinstance(rows, bool) or not isinstance(rows, int) or rows < 1:
        raise _wrong(f"{name}.rows must be a whole number of at least 1", where, rows)
    return {**checked, "rows": rows}


def _points(points: object, where: str, name: str) -> list[tuple[float, float]]:
    if not isinstance(points, (list, tuple)) or not points:
        raise _wrong(f"{name} must be a list with at least one pair of score and P(good)", where, points)
    checked: list[tuple[float, float]] = []
    for at, point in enumerate(points):
        place = f"{name}[{at}]"
        if not isinstance(point, (list, tuple)) or len(point) != 2:
            raise _wrong(f"{place} must be a pair of score and P(good)", where, point)
        score, good = (_share(value, where, place) for value in point)
        if checked and (score < checked[-1][0] or good < checked[-1][1]):
            raise _wrong(f"{place} falls: scores and P(good) must never fall from one point to the next", where, point)
        checked.append((score, good))
    return checked


def _share(value: object, where: str, name: str) -> float:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    # NaN and infinity, which Python reads from JSON, are outside as well.
    if not is_number or not 0 <= value <= 1 or math.isnan(value):  # type: ignore[operator, arg-type]
        raise _wrong(f"{name} must be a number from 0 to 1", where, value)
    return float(value)  # type: ignore[arg-type]


def _only(found: Mapping[str, Any], names: set[str], where: str, prefix: str) -> None:
    for name in found:
        if name not in names:
            raise PolicyError(explain("unknown key", where=where, value=f"{prefix}{_short(name)}", hint=_HINT))


def _wrong(what: str, where: str, value: object) -> PolicyError:
    return PolicyError(explain(what, where=where, value=_short(value), hint=_HINT))


def _short(value: object) -> str:
    try:
        text = value if isinstance(value, str) else json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        text = type(value).__name__
    return text if len(text) <= 80 else f"{text[:80]}..."
