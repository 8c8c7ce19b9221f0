"""What `farthing calibrate` found, as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["shown", "verdict"]


def shown(found: Mapping[str, Any]) -> str:
    """A calibration as text: for each rung the curve, the threshold and its bound, the bill, and whether it pays."""
    lines = []
    left = [(found["unlabelled"], "no score or no quality"), (found["repeated"], "the same prompt again")]
    lines += [f"{count:,} rows left out: {why}" for count, why in left if count]
    lines += found["notes"]
    for name, rung in found["rungs"].items():
        lines += [""] * bool(lines) + _rung(name, rung, found)
    for name, count in found["too_few"].items():
        lines += ["", f"rung {name!r}: {count:,} rows that stand for the traffic, too few to calibrate"]
    if len(found["rungs"]) > 1:
        lines += [
            "",
            "Each bound is of its own rung's calls; a call that may be accepted at several rungs can lose their sum.",
        ]
    return "\n".join(lines)


def _rung(name: str, rung: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    total = rung["fitted"] + rung["chosen_on"] + rung["reported"]
    title = f"rung {name!r}: " if name else ""
    lines = [
        f"{title}{total:,} drafts: {rung['fitted']:,} fitted the map, {rung['chosen_on']:,} others chose the "
        f"threshold, {rung['reported']:,} others are reported on (seed {found['seed']})",
        "",
        f"{'threshold':<11}{'accepted':<24}{'loss over all answers':<24}risk among accepted",
    ]
    for point in rung["curve"]:
        cells = "".join(f"{_percent(point[key]):<24}" for key in ("coverage", "loss", "risk"))
        lines.append(f"{point['threshold']:<11.3f}{cells}".rstrip())
    lines.append("thresholds are on P(good); intervals are 95 %, each by itself")
    lines += ["", *_threshold(rung, found)]
    lines += _bill(rung)
    return [*lines, "", verdict(rung, found)]


def _threshold(rung: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    promise = f"a loss over all answers of at most {found['max_loss']:.3g} at {found['confidence']:.3g} confidence"
    chosen = rung["chosen"]
    if chosen is None:
        if rung["chosen_on"] < rung["least_rows"]:
            least = rung["least_rows"]
            return [
                f"no threshold: {rung['chosen_on']:,} rows can never show {promise}. That takes {least:,} to choose on",
                f"without a single loss, which is {2 * least:,} or more in all; or a larger --max-loss",
            ]
        return [f"no threshold: not one can be shown to keep {promise}"]
    point = rung["at_threshold"]
    return [
        f"threshold {chosen['threshold']:.3f}: the lowest of 1,001 fixed ones that was shown to keep",
        f"{promise} (Learn then Test, fixed sequence)",
        f"  where it was chosen  accepted {chosen['coverage']:.1%}, loss over all answers {chosen['loss']:.2%}, "
        f"bound {chosen['bound']:.2%}",
        f"  on held-out rows     accepted {_percent(point['coverage'])}, "
        f"loss over all answers {_percent(point['loss'])},",
        f"                       risk among accepted {_percent(point['risk'])}",
        "The bound rests on this: the rows were drawn at random from the traffic that the policy will see, with the",
        "same models and the same scorer. When one of them changes, it says nothing any more.",
    ]


def _bill(rung: Mapping[str, Any]) -> list[str]:
    lines = []
    quality = rung["quality"]
    if quality is not None:
        lines += [
            "",
            f"quality on held-out rows: cheap {_percent(quality['cheap'])}, dear {_percent(quality['dear'])},",
            f"ladder {_percent(quality['ladder'])}; ladder less dear {_percent(quality['difference'])}",
        ]
    bill = rung["bill"]
    if bill is not None:
        where = "at the threshold" if rung["chosen"] else "without a threshold, so everything escalates"
        lines += [
            "",
            f"1,000 calls cost, on {bill['rows']:,} held-out rows, {where}:",
            f"  always cheap  {_money(bill['cheap'])}",
            f"  always dear   {_money(bill['dear'])}",
            f"  the ladder    {_money(bill['ladder'])}, of it judging {_money(bill['scorer'])}",
        ]
        if bill["escalated_cost"] is not None:
            even = f"break-even {bill['break_even']:.1%} of the cost"
            if bill["break_even"] <= 0:
                even = "no rate breaks even: draft and judging cost as much as the dear answer"
            by_cost = f"{bill['escalated_cost']:.1%} of the dear model's cost"
            lines.append(f"escalated: {bill['escalated']:.1%} of the calls, {by_cost}; {even}")
    return lines


def verdict(rung: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """Whether the ladder pays, in one sentence. The baseline is the best single model: the cheap one where taking every
    draft keeps the loss, else the dear one."""
    bill, quality = rung["bill"], rung["quality"]
    alone = "the dear model alone (the best single model)"
    if quality is not None and quality["cheap"]["value"] >= quality["dear"]["value"]:
        return "The ladder earns nothing: the cheap model alone is as good as the dear one on the held-out rows."
    if rung["cheap_bound"] <= found["max_loss"]:
        return "The ladder earns nothing: the cheap model alone keeps the loss, and costs less (the best single model)."
    if bill is not None and bill["break_even"] is not None and bill["break_even"] <= 0:
        return "The ladder cannot pay: draft and judging together cost as much as the dear model alone."
    if rung["chosen"] is None:
        return "The ladder does not pay: without a threshold every call escalates, and the drafts are paid for nothing."
    if bill is None or bill["saved"]["value"] is None:
        return "Whether the ladder pays cannot be said without costs: give the columns cost and dear_cost."
    saved = bill["saved"]
    if saved["low"] > 0:
        return f"The ladder pays: it saves {_percent(saved)} of the cost of {alone}."
    if saved["high"] < 0:
        lost = {"value": -saved["value"], "low": -saved["high"], "high": -saved["low"]}
        return f"The ladder does not pay: it costs {_percent(lost)} more than {alone}."
    return f"Whether the ladder pays is not certain: it saves {_percent(saved)} of what the dear model alone costs."


def _percent(interval: Mapping[str, float | None]) -> str:
    value, low, high = interval["value"], interval["low"], interval["high"]
    if value is None or low is None or high is None:
        return "unknown"
    return f"{value:.1%} [{low:.1%}, {high:.1%}]"


def _money(cost: float) -> str:
    return f"{1000 * cost:.4g}"
