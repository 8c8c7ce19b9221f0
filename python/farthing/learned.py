"""`farthing calibrate --router`: weights of a router between two models, learned from questions that both answered.

The fitting is the core's (`src/route/learned.rs`); what is reported is of rows that it did not see.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from . import _core
from . import evaluate as outcomes
from .exceptions import DataError, explain

__all__ = ["VERSION", "learn", "shown", "verdict", "weights"]

VERSION = 1

# Digits after the point: a weight below half of the last one says nothing.
_DIGITS = 4
_LEAST_ROWS = 40


def learn(rows: Iterable[Mapping[str, Any]], columns: outcomes.Columns, seed: int = 0) -> dict[str, Any]:
    """Learns from three quarters of the rows and reports on the others. Of rows of one prompt the first is taken, so
    that no prompt is in both.

    Returns:
        `{"fitted": rows, "cheap": weights, "dear": weights, "report": {...}, "repeated": rows}`; the report is what
        `evaluate.compare` returns.

    Raises:
        DataError: see `evaluate.questions`; fewer than 40 prompts.
    """
    asked, left_out = outcomes.questions(rows, columns)
    once = list({row[0]: row for row in reversed(asked)}.values())[::-1]
    if len(once) < _LEAST_ROWS:
        hint = f"{_LEAST_ROWS} or more, each with both outcomes"
        raise DataError(explain("too few prompts to learn from", value=str(len(once)), hint=hint))
    found: dict[str, Any] = json.loads(_core.learn_router(once, 1000, seed))
    report = {"left_out": left_out, "has_costs": False, **found["report"]}
    return {**found, "report": report, "repeated": len(asked) - len(once)}


def weights(found: Mapping[str, Any]) -> dict[str, Any]:
    """What `--write` writes: `{"version": 1, "cheap": ..., "dear": ...}`, each the core's weights, rounded.

    They are of the probability that the model's answer is good.
    """
    return {"version": VERSION, **{name: _rounded(found[name]) for name in ("cheap", "dear")}}


def _rounded(weights: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "bias": round(weights["bias"], _DIGITS),
        # Most words are in no row: 0 rather than 0.0 halves the file.
        **{name: [round(weight, _DIGITS) or 0 for weight in weights[name]] for name in ("features", "words")},
    }


def shown(found: Mapping[str, Any]) -> str:
    """The report as text."""
    first = f"learned from {found['fitted']:,} questions, reported on {found['report']['rows']:,} others"
    if found["repeated"]:
        first += f"; {found['repeated']:,} rows left out: the same prompt again"
    return f"{first}\n{outcomes.shown(found['report'])}\n\n{verdict(found['report'])}"


def verdict(report: Mapping[str, Any]) -> str:
    """Whether the router is better than routing at random, in one sentence."""
    apgr = next(line["measures"]["apgr"] for line in report["lines"] if line["name"] == "learned")
    length = next(line["measures"]["apgr"] for line in report["lines"] if line["name"] == "prompt length")
    if report["gain"]["low"] <= 0 or apgr["value"] is None:
        return "There is nothing to route for: the dear model is not better for certain. Take the cheap one alone."
    if apgr["low"] <= 0.5 <= apgr["high"]:
        return "The router is no better than random: the interval of its APGR includes 0.5. Do not use it."
    if apgr["high"] < 0.5:
        return "The router is worse than random. Do not use it."
    if length["value"] is not None and length["value"] >= apgr["value"]:
        return "The router is better than random, but not better than sending the longest prompts to the dear model."
    return "The router is better than random."
