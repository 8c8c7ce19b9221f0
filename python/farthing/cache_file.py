"""Cache files for the command line: what `farthing cache` and `farthing report` print.

The work is done in Rust (`src/store/disk/admin.rs`); here it is made text. No client comes here.
"""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

from . import _core
from .budget import lines, table
from .checks import Bad, seconds
from .exceptions import CacheError, explain
from .ledger import Savings, money

__all__ = ["entries", "export", "import_lines", "invalidate", "opened", "report", "show", "stats"]

# Lines that are taken in by one transaction.
_LINES = 1000


class _File:
    """A `_core.CacheFile` whose errors are farthing's."""

    def __init__(self, path: str) -> None:
        self._file: Any = _asked(_core.CacheFile, os.path.abspath(os.path.expanduser(path)))

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._file, name)
        return lambda *args: _asked(method, *args)


def _asked(function: Any, *args: Any) -> Any:
    try:
        return function(*args)
    except _core.CoreError as error:
        raise CacheError(str(error)) from None


def opened(path: str) -> Any:
    """The file. Raises CacheError when there is none, or none that this version can read."""
    if not os.path.isfile(os.path.expanduser(path)):
        raise CacheError(explain("there is no such cache file", value=path, hint="Cache(path=...) makes one"))
    return _File(path)


def report(path: str, since: str | None, by_day: bool, as_json: bool) -> str:
    """The ledger's bill, as text or JSON."""
    begin = _since(since)
    file = opened(path)
    if not by_day:
        bill = Savings.from_json(file.report(begin))
        budgets = lines(file.budget())
        if as_json:
            return json.dumps({**bill.to_dict(), "budgets": [line.to_dict() for line in budgets]}, indent=2)
        return f"{bill}\n\n{_aligned(table(budgets))}" if budgets else str(bill)
    days = [(_time(day)[:10], Savings.from_json(text)) for day, text in file.report_by_day(begin)]
    if as_json:
        return json.dumps({day: bill.to_dict() for day, bill in days}, indent=2)
    rows = [
        (
            day,
            f"{b.calls:,}",
            f"{b.hits + b.joined:,}",
            f"{b.saved_tokens:,}",
            money(b.spent) + _unknown(b),
            money(b.saved),
        )
        for day, b in days
    ]
    return _aligned([("day (UTC)", "calls", "hits", "saved tokens", "spent", "saved"), *rows])


def stats(path: str, as_json: bool) -> str:
    """Counts, as text or JSON."""
    text = opened(path).stats()
    if as_json:
        return json.dumps(json.loads(text), indent=2)
    counts = json.loads(text)
    lines = [
        f"answers    {counts['entries']:,}, {counts['expired']:,} of them expired",
        f"in use     {counts['bytes']:,} bytes",
    ]
    if counts["labels"]:
        lines.append(f"labels     {counts['labels']:,}")
    for title, name in (("model", "by_model"), ("tag", "by_tag"), ("cache name", "by_namespace")):
        rows = [
            (_clean(group["name"]), f"{group['entries']:,}", f"{group['answer_bytes']:,}") for group in counts[name]
        ]
        if rows:
            lines += ["", _aligned([(title, "answers", "bytes of answers"), *rows])]
    return "\n".join(lines)


def entries(path: str, tag: str | None, model: str | None, most: int, as_json: bool) -> str:
    """A list of entries, as text or JSON."""
    found = json.loads(opened(path).list(tag, model, most))
    if as_json:
        return json.dumps(found, indent=2)
    rows = [
        (
            entry["entry"],
            _time(entry["stored"]),
            _time(entry["used"]),
            _clean(entry["model"]),
            _clean(entry["tag"]),
            f"{entry['bytes']:,}",
        )
        for entry in found
    ]
    return _aligned([("entry", "stored (UTC)", "used (UTC)", "model", "tag", "bytes"), *rows])


def show(path: str, entry: str) -> str:
    """One entry as JSON, its answer unpacked. Raises CacheError when the name is none, or that of several."""
    text = opened(path).show(entry)
    if text is None:
        raise _no_such(entry)
    shown = json.loads(text)
    shown["stored"], shown["expires"] = (
        None if shown[name] is None else _time(shown[name] / 1000) for name in ("stored", "expires")
    )
    try:
        shown["body"] = json.loads(shown["body"])
    except ValueError:
        pass
    return json.dumps(shown, indent=2, ensure_ascii=False)


def invalidate(path: str, tag: str | None, model: str | None, entry: str | None) -> int:
    """Removes entries; returns how many. Raises CacheError when `entry` is no name, or that of several."""
    file = opened(path)
    if entry is None:
        return int(file.invalidate(tag, model))
    if not file.remove(entry):
        raise _no_such(entry)
    return 1


def export(path: str) -> Iterator[str]:
    """Lines of JSON, the salt first."""
    file = opened(path)
    after = None
    while True:
        lines, after = file.export(after)
        yield from lines
        if after is None:
            return


def import_lines(path: str, lines: Iterable[str]) -> int:
    """Takes in what `export` wrote; returns how many answers. Makes the file when it is not there; answers that are
    there and younger stay. Raises CacheError at the first line that cannot be taken."""
    path = os.path.abspath(os.path.expanduser(path))
    source = iter(lines)
    _asked(_core.prepare_import, path, next(source, ""))
    file = opened(path)
    taken = 0
    number = 2
    while chunk := list(itertools.islice(source, _LINES)):
        count, wrong = file.import_lines(chunk)
        if wrong is not None:
            line, what = wrong
            hint = f"the {taken:,} answers of the lines before {number} were taken in"
            raise CacheError(explain(f"line {number + line} cannot be taken: {what}", hint=hint))
        taken, number = taken + count, number + len(chunk)
    return taken


def _no_such(entry: str) -> CacheError:
    return CacheError(explain("not the beginning of one entry's name", value=entry, hint="farthing cache PATH list"))


def _since(text: str | None) -> int:
    """Seconds since 1970."""
    if text is None:
        return 0
    if re.fullmatch(r"\d{4}-\d\d-\d\d", text):
        try:
            return int(datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp())
        except ValueError:
            pass
    try:
        return int((datetime.now(timezone.utc) - timedelta(seconds=seconds(text, "--since"))).timestamp())
    except (Bad, OverflowError):
        hint = "a date (2026-01-31), or how long ago (24h, 7d)"
        raise CacheError(explain("not a time for --since", value=text, hint=hint)) from None


def _time(stamp: float) -> str:
    try:
        return datetime.fromtimestamp(stamp, timezone.utc).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return "?"


def _clean(name: str | None) -> str:
    """A name that cannot move the cursor of whoever prints it."""
    return "".join(c if c.isprintable() else "?" for c in name or "") or "-"


def _aligned(rows: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _unknown(bill: Savings) -> str:
    return " + unknown" if bill.unknown_prices else ""
