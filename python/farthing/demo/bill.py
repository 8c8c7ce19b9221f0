"""The demo's bill, as text and as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from decimal import Decimal

from ..ledger import money
from .run import PRICES, Line, Outage

__all__ = ["as_json", "as_text"]

_HEADINGS = ("", "requests", "upstream", "tokens", "USD", "seconds", "right")


def as_text(lines: Sequence[Line], outage: Outage | None = None) -> str:
    """A table, a line for each way to run the workload, and what the second saved against the first; another table for
    the upstream that died."""
    table = _aligned([_HEADINGS, *(_row(line) for line in lines)])
    prices = ", ".join(f"{name} {price}" for name, price in PRICES.items() if name != "middle")
    alone = [line for line in lines if line.name.endswith(" model")]
    models = {line.name.rpartition(", ")[2].removesuffix(" model"): line.model for line in alone}
    named = ", ".join(f"{name} = {model}" for name, model in models.items())
    plain, ours = lines[0], lines[1]
    time = 100 * (1 - ours.seconds / plain.seconds)
    told = f"farthing saved {_share(ours, plain):.1f} % of the money and {time:.0f} % of the time"
    stages = [
        f"with the stage {line.name.rpartition(', ')[2]}: {_share(line, plain):.1f} % of the money, {line.right} right"
        for line in lines
        if line.name.startswith("farthing, ") and line not in alone
    ]
    died = []
    if outage is not None:
        counts = (f"{outage.requests}", f"{outage.answered}", f"{outage.fallbacks}")
        row = (outage.name, *counts, f"{outage.right} of {outage.requests}")
        died = ["", *_aligned([("", "requests", "answered", "fallbacks", "right"), row])]
    return "\n".join([*table, *died, "", told, *stages, f"models: {named}", f"prices: {prices} USD per million tokens"])


def _share(line: Line, plain: Line) -> Decimal:
    """Percent of the money that a line saved."""
    return 100 * (1 - line.cost / plain.cost) if plain.cost else Decimal(0)


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]


def _row(line: Line) -> tuple[str, ...]:
    tokens = line.prompt_tokens + line.completion_tokens
    right = f"{line.right} of {line.requests}"
    return (
        line.name,
        f"{line.requests}",
        f"{line.upstream}",
        f"{tokens:,}",
        money(line.cost),
        f"{line.seconds:.1f}",
        right,
    )


def as_json(lines: Sequence[Line], outage: Outage | None = None) -> str:
    """The lines as a JSON array, the outage last; money as decimal text."""
    all_lines: list[Line | Outage] = [*lines, *([] if outage is None else [outage])]
    return json.dumps([dataclasses.asdict(line) for line in all_lines], default=str, indent=2)
