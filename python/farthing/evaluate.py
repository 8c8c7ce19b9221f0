"""`farthing evaluate`: what a router between two models is worth, on rows of outcomes that somebody has.

Reads CSV, JSON lines or parquet, and prints; the measures are the core's (`src/evaluate/`). No model is called, and no
text leaves the machine.
"""

from __future__ import annotations

import csv
import gzip
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any

from . import _core
from .exceptions import DataError, explain

__all__ = ["Columns", "compare", "cost", "quality", "questions", "read", "shown"]

_WORDS = {
    "true": 1.0,
    "yes": 1.0,
    "right": 1.0,
    "correct": 1.0,
    "false": 0.0,
    "no": 0.0,
    "wrong": 0.0,
    "incorrect": 0.0,
}
_PATH = "is the path right, and may you read the file?"
_OBJECTS = 'a line is one object with the columns as its keys: {"prompt": "...", "score": 0.8, "good": true}'


@dataclass(frozen=True)
class Columns:
    """Which columns hold what. Qualities are 0 to 1, or true and false; costs are numbers of one unit, or absent."""

    prompt: str
    cheap: str
    dear: str
    group: str | None = None
    cheap_cost: str | None = None
    dear_cost: str | None = None


def read(path: str) -> Iterator[Mapping[str, Any]]:
    """The rows of a .csv, .tsv, .jsonl or .parquet file, the first three also with .gz behind it.

    Raises:
        DataError: it cannot be read, is of another kind, or is not what its name says.
    """
    name = os.fsdecode(path)
    plain = name.removesuffix(".gz")
    kind = plain.rpartition(".")[2].lower()
    try:
        if kind == "parquet":
            yield from _parquet(name)
            return
        if kind not in ("csv", "tsv", "jsonl", "ndjson"):
            hint = "the name ends in .csv, .tsv, .jsonl or .parquet"
            raise DataError(explain("unknown kind of file", value=name, hint=hint))
        file: IO[str]
        with gzip.open(name, "rt", encoding="utf-8-sig") if plain != name else open(name, encoding="utf-8-sig") as file:
            if kind in ("csv", "tsv"):
                csv.field_size_limit(2**31 - 1)
                yield from csv.DictReader(file, dialect="excel-tab" if kind == "tsv" else "excel")
            else:
                yield from _lines(file, name)
    except OSError as error:
        raise DataError(explain("cannot read", value=f"{name}: {error.strerror or error}", hint=_PATH)) from error
    except (UnicodeDecodeError, csv.Error, EOFError) as error:
        hint = f"it must be UTF-8 text of the kind that its name says: .{kind}"
        raise DataError(explain("cannot read", value=f"{name}: {error}", hint=hint)) from error


def _lines(file: Iterable[str], name: str) -> Iterator[Mapping[str, Any]]:
    for number, line in enumerate(file, 1):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                value = f"line {number}: {error}"
                raise DataError(explain("not a line of JSON", where=name, value=value, hint=_OBJECTS)) from None
            if not isinstance(row, dict):
                raise DataError(explain("not a JSON object", where=name, value=f"line {number}", hint=_OBJECTS))
            yield row


def _parquet(name: str) -> Iterator[Mapping[str, Any]]:
    try:
        from pyarrow import ArrowInvalid, parquet
    except ImportError:
        hint = 'pip install "farthing[data]", or write the rows as .csv or .jsonl'
        raise DataError(explain("parquet needs pyarrow", value=name, hint=hint)) from None
    try:
        for batch in parquet.ParquetFile(name).iter_batches():
            yield from batch.to_pylist()
    except ArrowInvalid as error:
        hint = "it is no whole parquet file: write it again"
        raise DataError(explain("cannot read", value=f"{name}: {error}", hint=hint)) from None


def compare(
    rows: Iterable[Mapping[str, Any]], columns: Columns, labels: Iterable[int], seed: int = 0
) -> dict[str, Any]:
    """Routers beside each other; rows without one of the two outcomes are left out and counted (`left_out`).

    Args:
        labels: numbers of labelled rows that the learned router gets, a line each.
        seed: of the folds and of the bootstrap.

    Raises:
        DataError: a column that is not there, a quality that is none, fewer than 10 rows.
    """
    asked, left_out = questions(rows, columns)
    found = json.loads(_core.compare_routers(asked, list(labels), 1000, seed))
    has_costs = columns.cheap_cost is not None and columns.dear_cost is not None
    return {"left_out": left_out, "has_costs": has_costs, **found}


# Prompt, group, quality of the cheap and of the dear answer, cost of each.
_Question = tuple[str, "str | None", float, float, float, float]


def questions(rows: Iterable[Mapping[str, Any]], columns: Columns) -> tuple[list[_Question], int]:
    """What the core takes, and how many rows were left out because an outcome is missing.

    Raises:
        DataError: a column that is not there, a quality that is none, fewer than 10 rows.
    """
    asked: list[_Question] = []
    left_out = 0
    for number, row in enumerate(rows, 1):
        for name in (columns.prompt, columns.cheap, columns.dear, columns.group, columns.cheap_cost, columns.dear_cost):
            if name is not None and name not in row:
                hint = f"there are: {', '.join(map(str, row))}"
                raise DataError(explain("no such column", where=f"row {number}", value=name, hint=hint))
        cheap, dear = (quality(row[name], name, number) for name in (columns.cheap, columns.dear))
        if cheap is None or dear is None or row[columns.prompt] is None:
            left_out += 1
            continue
        group = None if columns.group is None else str(row[columns.group])
        costs = (cost(row, columns.cheap_cost, number), cost(row, columns.dear_cost, number))
        asked.append((str(row[columns.prompt]), group, cheap, dear, *costs))
    if len(asked) < 10:
        raise DataError(explain("too few rows with both outcomes", value=str(len(asked)), hint="10 or more"))
    return asked, left_out


def quality(value: object, name: str, number: int) -> float | None:
    """What a cell says of an answer, 0 to 1; None where it says nothing. `name`, `number`: of the column and the row.

    Raises:
        DataError: it says something else.
    """
    if value is None or value == "":
        return None
    try:
        share = _WORDS[value.lower()] if isinstance(value, str) and value.lower() in _WORDS else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        share = math.nan
    if 0 <= share <= 1:
        return share
    if math.isnan(share) and not isinstance(value, str):
        return None
    hint = "divide what is of another scale by its greatest value, or name another column; an empty cell is left out"
    what = f"{name} must be 0 to 1, or true or false"
    raise DataError(explain(what, where=f"row {number}", value=repr(value)[:80], hint=hint))


def cost(row: Mapping[str, Any], name: str | None, number: int) -> float:
    """What a row's column says that something cost, at least 0; 0 without a column.

    Raises:
        DataError: it is no such number.
    """
    if name is None:
        return 0.0
    try:
        paid = float(row[name])
    except (TypeError, ValueError, OverflowError):
        paid = math.nan
    if paid >= 0 and math.isfinite(paid):
        return paid
    hint = "a number of one unit for all rows, without a currency sign; leave out the column where it is not known"
    what = f"{name} must be a number >= 0"
    raise DataError(explain(what, where=f"row {number}", value=repr(row[name])[:80], hint=hint))


def shown(found: Mapping[str, Any]) -> str:
    """A comparison as text."""
    gain = found["gain"]
    left = f", {found['left_out']:,} left out for want of an outcome" if found["left_out"] else ""
    lines = [
        f"{found['rows']:,} questions{left}; 95 % intervals by the bootstrap",
        f"all cheap   {_percent(found['cheap_quality'])} right",
        f"all dear    {_percent(found['dear_quality'])} right, a gain of {_percent(gain)}",
    ]
    if found["has_costs"]:
        lines[1] += f", {found['cheap_cost']:.6g} a question"
        lines[2] += f", {found['dear_cost']:.6g} a question"
    if gain["low"] <= 0:
        lines.append("the dear model is not better for certain: there is nothing to route for, the cheap one is enough")
    lines += ["", f"{'router':<15}{'labels':>7}  {'APGR':<20}{'CPT(50 %)':<20}CPT(80 %)"]
    for line in found["lines"]:
        labels = f"{line['labels']:,}" if line["labels"] else "none"
        measures = "".join(f"{_interval(line['measures'][name]):<20}" for name in ("apgr", "cpt50", "cpt80"))
        lines.append(f"{line['name']:<15}{labels:>7}  {measures}".rstrip())
    what = "quality / mean cost" if found["has_costs"] else "quality"
    shares = [point["share"] for point in found["lines"][0]["curve"]][::2]
    lines += ["", f"{what} when so many of the calls go to the dear model"]
    lines.append(f"{'':<22}" + "".join(f"{share:>16.0%}" for share in shares).rstrip())
    for line in found["lines"]:
        name = f"{line['name']}, {line['labels']:,}" if line["labels"] else line["name"]
        cells = [
            f"{point['quality']:.1%}" + (f" / {point['cost']:.3g}" if found["has_costs"] else "")
            for point in line["curve"][::2]
        ]
        lines.append(f"{name:<22}" + "".join(f"{cell:>16}" for cell in cells))
    return "\n".join(lines)


def _percent(interval: Mapping[str, float]) -> str:
    return f"{interval['value']:.1%} [{interval['low']:.1%}, {interval['high']:.1%}]"


def _interval(interval: Mapping[str, float | None]) -> str:
    value, low, high = interval["value"], interval["low"], interval["high"]
    if value is None or low is None or high is None:
        return "never"
    return f"{value:.3f} [{low:.3f}, {high:.3f}]" if low != high else f"{value:.3f}"
