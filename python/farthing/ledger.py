"""The bill: what `client.savings()` returns. Built from the report of the Rust ledger; only shown and added up here.

Not in this room: prices, and any decision about what counts as saved (that is the ledger's, in Rust). Money is Decimal,
in USD, from end to end. Names of models and tags come from users and upstreams, so they are cleaned before they are
shown.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from decimal import ROUND_HALF_UP, Context, Decimal, InvalidOperation
from typing import Any

__all__ = ["Line", "Savings"]

# The caller's own decimal context may round to a few digits; a bill does not.
_EXACT = Context(prec=60, rounding=ROUND_HALF_UP)
_ZERO = Decimal(0)
_WIDTH = 100
_ROWS = 20


@dataclass(frozen=True)
class Line:
    """One model's, tag's or stage's part of the bill.

    Attributes:
        calls: calls that ended, however they were answered.
        hits: of these, answered from the cache or by an equal call in flight.
        prompt_tokens, completion_tokens: tokens paid for.
        saved_tokens: prompt and completion tokens that were not paid for.
        spent, saved: USD; None = the price is unknown.
    """

    calls: int = 0
    hits: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    saved_tokens: int = 0
    spent: Decimal | None = _ZERO
    saved: Decimal | None = _ZERO

    def __add__(self, other: Line) -> Line:
        if not isinstance(other, Line):
            return NotImplemented
        return Line(*(_sum(getattr(self, f.name), getattr(other, f.name)) for f in fields(Line)))


@dataclass(frozen=True)
class Savings:
    """The bill of a client. Prints as a table; two of them add up with `+` or `sum`.

    Attributes:
        calls: calls that ended. Each is one of: `hits` (from the cache), `joined` (answered by an equal call in
            flight), `misses` (asked and paid), `bypassed` (the cache was off or not meant for it), `errors`.
        retries: requests that went out once more, to the same upstream, after a failure.
        fallbacks: requests that went to another upstream, because one could not answer.
        hedges: second tries beside a request that was late.
        unanswered: requests that may have been billed, and nobody said how much: the answer was lost, or nobody
            waited for it. Their money is in none of the sums.
        escalations: drafts that were not good enough, so that the next model of a ladder was asked.
        packed: answers that came in a request that several calls shared.
        reordered_tokens: tokens that providers would have had in their caches if prompts began with what comes again
            and again, as far as `[compress]` looked.
        checked, checked_same: of these, questions that were asked alone too, and those whose answers came to the same.
        shadowed, shadowed_good: accepted drafts that were compared with a dear model's answer, and those as good.
        prompt_tokens, completion_tokens: tokens paid for; `cached_tokens` of the prompt were read from the upstream's
            own cache.
        saved_prompt_tokens, saved_completion_tokens: tokens that were not paid for; `saved_tokens` is their sum.
        spent: USD charged by upstreams, farthing's own calls (`overhead`) included.
        saved: USD that would have been charged in addition without farthing; `net` is `saved` less `overhead`.
        estimated_spent, estimated_saved: the parts of `spent` and `saved` that rest on counted rather than reported
            tokens.
        by_model, by_tag, by_stage: the same by the model that answered, by tag, by the stage that spent or saved.
        unknown_prices: models without a price, sorted; their money is in none of the sums.
        faults: failures of farthing's own that calls went on without (a full disk, say), counted by kind.
    """

    calls: int = 0
    hits: int = 0
    joined: int = 0
    misses: int = 0
    bypassed: int = 0
    errors: int = 0
    retries: int = 0
    fallbacks: int = 0
    hedges: int = 0
    unanswered: int = 0
    escalations: int = 0
    shadowed: int = 0
    shadowed_good: int = 0
    packed: int = 0
    checked: int = 0
    checked_same: int = 0
    reordered_tokens: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    saved_prompt_tokens: int = 0
    saved_completion_tokens: int = 0
    spent: Decimal = _ZERO
    saved: Decimal = _ZERO
    overhead: Decimal = _ZERO
    estimated_spent: Decimal = _ZERO
    estimated_saved: Decimal = _ZERO
    by_model: dict[str, Line] = field(default_factory=dict)
    by_tag: dict[str, Line] = field(default_factory=dict)
    by_stage: dict[str, Line] = field(default_factory=dict)
    unknown_prices: tuple[str, ...] = ()
    faults: dict[str, int] = field(default_factory=dict)

    @property
    def saved_tokens(self) -> int:
        """Prompt and completion tokens that were not paid for."""
        return self.saved_prompt_tokens + self.saved_completion_tokens

    @property
    def worse(self) -> tuple[float, float, float] | None:
        """The share of accepted drafts that a dear model would have bettered, with its 95 % interval, all 0 to 1: what
        cheap answers lose in quality, as far as shadows tell. None = there were no shadows. Score interval (Wilson
        1927)."""
        return _share(self.shadowed - self.shadowed_good, self.shadowed)

    @property
    def differing(self) -> tuple[float, float, float] | None:
        """The share of packed answers that differ from what their questions get alone, with its 95 % interval, all 0 to
        1, as far as `[batch] check` tells. None = nothing was checked. Score interval (Wilson 1927). With a temperature
        above 0, two answers to one question differ by chance too."""
        return _share(self.checked - self.checked_same, self.checked)

    @property
    def net(self) -> Decimal:
        """USD saved, less what farthing spent on saving it. Negative when it did not pay."""
        return _EXACT.subtract(self.saved, self.overhead)

    @classmethod
    def from_json(cls, text: str) -> Savings:
        """The bill in the ledger's report. A key that is missing counts as nothing, one that is unknown is left out, so
        that a report of another version can be read. Raises ValueError when it is not a JSON object."""
        report = json.loads(text, parse_float=Decimal)
        if not isinstance(report, dict):
            raise ValueError(f"a ledger's report is a JSON object, not this: {text[:80]!r}")
        known = {f.name: f for f in fields(cls)}
        return cls(**{name: _read(name, report[name]) for name in known if report.get(name) is not None})

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values that `json.dumps` takes, money as decimal text; `from_json` reads it again."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return _plain(values | {"saved_tokens": self.saved_tokens, "net": self.net})  # type: ignore[no-any-return]

    def __add__(self, other: Savings) -> Savings:
        if not isinstance(other, Savings):
            return NotImplemented
        return Savings(*(_sum(getattr(self, f.name), getattr(other, f.name)) for f in fields(Savings)))

    def __radd__(self, other: object) -> Savings:
        # `sum` starts from 0.
        return self if other == 0 else NotImplemented

    def __str__(self) -> str:
        import textwrap

        lines = [f"{label:<11}{value}" for label, value in self._summary()]
        for title, rows in self._tables():
            lines += ["", *_aligned(title, rows)]
        for line in [*self._unknown(), *self._faults()]:
            lines += textwrap.wrap(line, _WIDTH, subsequent_indent="    ", break_on_hyphens=False) or [""]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """The same for a notebook."""
        parts = [_html_table(self._summary())]
        parts += [_html_table(rows, [title, *_HEADINGS]) for title, rows in self._tables()]
        parts += [f"<p>{_escape(line)}</p>" for line in [*self._unknown(), *self._faults()] if line]
        return "<div>" + "".join(parts) + "</div>"

    def _summary(self) -> list[tuple[str, ...]]:
        cached = f" ({self.cached_tokens:,} cached upstream)" if self.cached_tokens else ""
        more = " + unknown" if self.unknown_prices else ""
        net = money(self.net)
        without = _EXACT.add(self.spent, self.net)
        if not more and without > 0 and self.net:
            share = _EXACT.divide(_EXACT.multiply(Decimal(100), self.net), without)
            net += f"   {share.quantize(Decimal('0.1'), context=_EXACT)} % of what it would have cost"
        counts = ("hits", "joined", "misses", "bypassed", "errors")
        again = [
            f"{n:,} {name}"
            for name in ("retries", "fallbacks", "hedges", "unanswered", "escalations")
            if (n := getattr(self, name))
        ]
        return [
            ("calls", f"{self.calls:,}: " + ", ".join(f"{getattr(self, name):,} {name}" for name in counts)),
            *([("attempts", ", ".join(again))] if again else []),
            *([("quality", self._quality())] if self.shadowed else []),
            *([("packs", self._packs())] if self.packed else []),
            *([("order", self._order())] if self.reordered_tokens else []),
            (
                "tokens",
                f"{self.prompt_tokens:,} prompt{cached}, {self.completion_tokens:,} completion, "
                f"{self.saved_tokens:,} saved",
            ),
            ("spent", money(self.spent) + more + _estimated(self.estimated_spent)),
            ("saved", money(self.saved) + _estimated(self.estimated_saved)),
            ("overhead", money(self.overhead)),
            ("net", net),
        ]

    def _quality(self) -> str:
        share, low, high = self.worse or (0.0, 0.0, 0.0)
        told = f"{100 * share:.1f} % of accepted drafts worse than the dear model's answer"
        return f"{told} [{100 * low:.1f}, {100 * high:.1f}], {self.shadowed:,} compared"

    def _order(self) -> str:
        return (
            f"{self.reordered_tokens:,} prompt tokens more could be cached: what comes again stands behind what changes"
        )

    def _packs(self) -> str:
        told = f"{self.packed:,} answers came in shared requests"
        if self.differing is None:
            return told
        share, low, high = (100 * part for part in self.differing)
        return f"{told}; {share:.1f} % of {self.checked:,} differ from what is said alone [{low:.1f}, {high:.1f}]"

    def _tables(self) -> Iterable[tuple[str, list[tuple[str, ...]]]]:
        for title, lines in (("model", self.by_model), ("tag", self.by_tag), ("stage", self.by_stage)):
            # The dearest first, where money is known; then the busiest.
            ranked = sorted(lines.items(), key=lambda item: (-_weight(item[1]), -item[1].calls, item[0]))
            unpriced = self.unknown_prices if title == "model" else ()
            rows = [_row(name, line, name in unpriced) for name, line in ranked[:_ROWS]]
            if len(ranked) > _ROWS:
                rest = sum((line for _, line in ranked[_ROWS:-1]), ranked[-1][1])
                rows.append(_row(f"({len(ranked) - _ROWS} more)", rest, False))
            if rows:
                yield title, rows

    def _unknown(self) -> list[str]:
        if not self.unknown_prices:
            return []
        names = [_clean(name) for name in self.unknown_prices[:_ROWS]]
        more = len(self.unknown_prices) - len(names)
        first = json.dumps(names[0], ensure_ascii=False)
        return [
            "",
            f"price unknown: {', '.join(names)}{f' and {more} more' if more else ''}",
            f"hint: models.{first} = {{ input = 0.15, output = 0.60 }} in the policy, in USD per million tokens",
        ]

    def _faults(self) -> list[str]:
        if not self.faults:
            return []
        return ["", "farthing failed and went on: " + ", ".join(f"{_clean(k)} ({n:,})" for k, n in self.faults.items())]


_HEADINGS = ("calls", "hits", "tokens", "saved tokens", "spent", "saved")


def money(amount: Decimal | None) -> str:
    """USD for people: two decimals from a dollar up, three digits that count below; never 0.00 for what is not 0."""
    if amount is None:
        return "unknown"
    places = 2 if not amount or amount.copy_abs() >= 1 else max(4, 2 - amount.adjusted())
    shown = amount.copy_abs().quantize(Decimal(1).scaleb(-places), context=_EXACT)
    return f"{'-' if amount < 0 else ''}${shown:,f}"


def _share(part: int, whole: int) -> tuple[float, float, float] | None:
    """A share with its 95 % interval; None: there is nothing to have a share of."""
    if not whole:
        return None
    n, z = whole, 1.959963984540054
    share = part / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    # At the ends the two differ by rounding alone.
    return share, min(share, max(0.0, middle - reach)), max(share, min(1.0, middle + reach))


def _estimated(amount: Decimal) -> str:
    return f"   {money(amount)} of it estimated" if amount else ""


def _read(name: str, value: Any) -> Any:
    if name.startswith("by_"):
        return {str(key): _line(line) for key, line in _mapping(value).items()}
    if name == "faults":
        return {str(kind): count for kind, count in _mapping(value).items() if isinstance(count, int)}
    if name == "unknown_prices":
        return tuple(sorted({str(model) for model in value})) if isinstance(value, list) else ()
    if name in _MONEY:
        return None if value is None else _usd(value)
    return value if isinstance(value, int) else 0


_MONEY = frozenset({"spent", "saved", "overhead", "estimated_spent", "estimated_saved"})


def _line(value: Any) -> Line:
    line = _mapping(value)
    # A null is a price that nobody knows; it must not become 0 on the way.
    return Line(**{f.name: _read(f.name, line[f.name]) for f in fields(Line) if f.name in line})


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _usd(value: Any) -> Decimal:
    try:
        amount = Decimal(value)
    except (InvalidOperation, TypeError, ValueError):
        return _ZERO
    return amount if amount.is_finite() else _ZERO


def _sum(one: Any, two: Any) -> Any:
    if one is None or two is None:
        return two if one is None else one
    if isinstance(one, Decimal):
        return _EXACT.add(one, two)
    if isinstance(one, tuple):
        return tuple(sorted({*one, *two}))
    if isinstance(one, dict):
        return {name: _sum(one.get(name), two.get(name)) for name in [*one, *(n for n in two if n not in one)]}
    return one + two


def _plain(value: Any) -> Any:
    if isinstance(value, Line):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, tuple):
        return list(value)
    return f"{value:f}" if isinstance(value, Decimal) else value


def _weight(line: Line) -> Decimal:
    return _EXACT.add(line.spent or _ZERO, line.saved or _ZERO)


def _row(name: str, line: Line, unpriced: bool) -> tuple[str, ...]:
    def usd(amount: Decimal | None) -> str:
        return "unknown" if unpriced and not amount else money(amount)

    counts = (line.calls, line.hits, line.prompt_tokens + line.completion_tokens, line.saved_tokens)
    return _clean(name), *(f"{count:,}" for count in counts), usd(line.spent), usd(line.saved)


def _clean(name: str) -> str:
    """A name that cannot move the cursor or break the line of whoever prints it."""
    return "".join(c if c.isprintable() else "?" for c in name) or '""'


def _columns(text: str) -> int:
    import unicodedata

    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) > 0 for c in text)


def _fit(text: str, width: int) -> str:
    """Cut in the middle: what tells two names of models apart is often at their end."""
    if _columns(text) <= width:
        return text + " " * (width - _columns(text))
    head, tail = text[: len(text) // 2], text[len(text) // 2 :]
    while _columns(head) + _columns(tail) > width - 3:
        head, tail = (head[:-1], tail) if len(head) > len(tail) else (head, tail[1:])
    return _fit(f"{head}...{tail}", width)


def _aligned(title: str, rows: list[tuple[str, ...]]) -> list[str]:
    columns = [list(column) for column in zip(*rows, strict=True)]
    columns[-2:] = [_on_the_point(column) for column in columns[-2:]]
    columns = [[heading, *column] for heading, column in zip((title, *_HEADINGS), columns, strict=True)]
    widths = [max(map(len, column)) for column in columns[1:]]
    room = _WIDTH - sum(widths) - 2 * len(widths)
    name = min(max(8, room), max(map(_columns, columns[0])))
    table = [[_fit(cell, name) for cell in columns[0]]]
    table += [[cell.rjust(width) for cell in column] for column, width in zip(columns[1:], widths, strict=True)]
    return ["  ".join(cells).rstrip() for cells in zip(*table, strict=True)]


def _on_the_point(cells: list[str]) -> list[str]:
    """Amounts of very different sizes, one decimal point below the other."""
    after = [len(cell.partition(".")[2]) if "." in cell else 0 for cell in cells]
    return [cell if cell == "unknown" else cell + " " * (max(after) - n) for cell, n in zip(cells, after, strict=True)]


def _escape(text: str) -> str:
    import html

    return html.escape(text, quote=True)


def _html_table(rows: Iterable[tuple[str, ...]], headings: Iterable[str] = ()) -> str:
    headings = tuple(headings)

    def line(cells: Iterable[str], tag: str) -> str:
        sides = ["left", *["right" if headings else "left"] * len(_HEADINGS)]
        styled = [f'<{tag} style="text-align:{sides[i]}">{_escape(text)}</{tag}>' for i, text in enumerate(cells)]
        return f"<tr>{''.join(styled)}</tr>"

    head = f"<thead>{line(headings, 'th')}</thead>" if headings else ""
    return f"<table>{head}<tbody>{''.join(line(row, 'td') for row in rows)}</tbody></table>"
