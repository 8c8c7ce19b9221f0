"""`farthing cascade`: what it is worth to ask two cheap models, and a dear one only where their answers differ.

Reads per-question outcomes of several models, and prints. The pair is chosen on one half of the questions and reported
on the other. No model is called.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from .evaluate import quality
from .exceptions import DataError, explain

__all__ = ["Columns", "Price", "answers", "compare", "prices", "shown"]

_ROUNDS = 1000
# Models that answered fewer of the questions than this are left out, rather than the questions.
_LEAST_SHARE = 0.95
# Numbers longer than this are compared as text.
_MOST_DIGITS = 100

Price = tuple[float, float]
"""USD a million tokens, in and out."""


@dataclass(frozen=True)
class Columns:
    """Which columns hold what. `question` is an id; `answer` is what was extracted, None or "" where nothing was."""

    question: str = "question"
    model: str = "model"
    answer: str = "answer"
    correct: str = "correct"
    output_tokens: str = "output_tokens"
    input_tokens: str | None = None


@dataclass(frozen=True)
class _Answer:
    said: object
    correct: float
    cost: float


@dataclass(frozen=True)
class _Found:
    """By question, a number each."""

    cost: list[float]
    correct: list[float]
    agreed: list[bool]


def prices(file: str | None, given: Iterable[str]) -> dict[str, Price]:
    """Prices by model: of a JSON file `{"model": [in, out]}`, and of texts "model=in,out", which win.

    Raises:
        DataError: it is no such file, or no such text.
    """
    found: dict[str, Any] = {}
    if file is not None:
        try:
            with open(file, encoding="utf-8") as text:
                found = json.load(text)
        except (OSError, ValueError, RecursionError) as error:
            why = getattr(error, "strerror", None) or error
            hint = 'a readable file of JSON: {"model": [0.15, 0.6]}'
            raise DataError(explain("cannot read the prices", value=f"{file}: {why}", hint=hint)) from None
        if not isinstance(found, dict):
            raise DataError(explain("prices are a JSON object", where=file, hint='{"model": [0.15, 0.6]}'))
    for text_of_one in given:
        name, _, pair = text_of_one.rpartition("=")
        found[name] = pair.split(",")
    return {name: _price(name, pair) for name, pair in found.items()}


def _price(name: str, pair: Any) -> Price:
    try:
        into, out = (float(part) for part in pair)
        if name and 0 <= into < 1e9 and 0 <= out < 1e9:
            return into, out
    except (TypeError, ValueError, OverflowError):
        pass
    hint = "USD a million tokens, in and out: gpt-4o-mini=0.15,0.6"
    raise DataError(explain("not a price", value=f"{name!r}: {str(pair)[:80]}", hint=hint))


def answers(
    rows: Iterable[Mapping[str, Any]], columns: Columns, priced: Mapping[str, Price]
) -> dict[str, dict[str, _Answer]]:
    """Answers by model and question, of the models that have a price. Of several of one model the first counts.

    Raises:
        DataError: a column that is not there, or a value that is none.
    """
    found: dict[str, dict[str, _Answer]] = {}
    wanted = [columns.question, columns.model, columns.answer, columns.correct, columns.output_tokens]
    wanted += [columns.input_tokens] if columns.input_tokens is not None else []
    for number, row in enumerate(rows, 1):
        for name in wanted:
            if name not in row:
                hint = f"there are: {', '.join(map(str, row))}"
                raise DataError(explain("no such column", where=f"row {number}", value=name, hint=hint))
        model, question = str(row[columns.model]), str(row[columns.question])
        if model not in priced:
            continue
        correct = quality(row[columns.correct], columns.correct, number)
        into, out = (
            0.0 if name is None else _tokens(row[name], name, number)
            for name in (columns.input_tokens, columns.output_tokens)
        )
        if correct is not None and into is not None and out is not None:
            cost = (into * priced[model][0] + out * priced[model][1]) / 1e6
            found.setdefault(model, {}).setdefault(question, _Answer(_normal(row[columns.answer]), correct, cost))
    return found


def _tokens(value: object, name: str, number: int) -> float | None:
    if value is None or value == "":
        return None
    try:
        tokens = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        tokens = -1.0
    if 0 <= tokens < 1e12:
        return tokens
    raise DataError(explain(f"{name} must be a number of tokens", where=f"row {number}", value=repr(value)[:80]))


def _normal(value: object) -> object:
    """What is compared: a number by its value, a text without the spaces around and doubled; None = no answer.

    Case and punctuation stay: `'a'` and `'A'` are different answers of a program.
    """
    text = "" if value is None else " ".join(str(value).split())
    if len(text) <= _MOST_DIGITS:
        try:
            number = Decimal(text.replace(",", "") if text[:1].isdigit() or text[:1] == "-" else text)
            # 1e999999 would be a number of a million digits.
            return number if number.is_finite() and abs(number.adjusted()) <= _MOST_DIGITS else text
        except InvalidOperation:
            pass
    return text or None


def compare(
    found: Mapping[str, Mapping[str, _Answer]],
    dears: Sequence[str] = (),
    cheaps: Sequence[str] = (),
    max_loss: float = 0.01,
    seed: int = 0,
) -> dict[str, Any]:
    """For each dear model, the pair of cheaper models that saves most, beside the best single cheaper model.

    Both are chosen on half of the questions: the one that saves most among those whose accuracy there is at most
    `max_loss` below the dear model's. What is reported is of the other half, with 95 % intervals by the bootstrap over
    questions.

    Args:
        dears, cheaps: names; empty = every model.

    Raises:
        DataError: fewer than 20 questions that the models share, fewer than three models, an unknown name.
    """
    for name in (*dears, *cheaps):
        if name not in found:
            hint = f"there are: {', '.join(sorted(found))}"
            raise DataError(explain("no priced answers of this model", value=name, hint=hint))
    most = max((len(by) for by in found.values()), default=0)
    models = [name for name, by in found.items() if len(by) >= _LEAST_SHARE * most]
    shared = sorted(set.intersection(*(set(found[name]) for name in models))) if models else []
    if len(models) < 3 or len(shared) < 20:
        value = f"{len(models)} models, {len(shared)} questions"
        raise DataError(explain("too few models or questions", value=value, hint="3 models with prices, 20 questions"))
    random.Random(seed).shuffle(shared)
    half = len(shared) // 2
    parts = [[[found[name][at] for at in part] for name in models] for part in (shared[:half], shared[half:])]
    choose, report = (dict(zip(models, part, strict=True)) for part in parts)
    lines = []
    for dear in dears or models:
        cost = _mean(answer.cost for answer in choose.get(dear, []))
        cheaper = [name for name in cheaps or models if name in choose and name != dear]
        cheaper = [name for name in cheaper if _mean(answer.cost for answer in choose[name]) < cost]
        if dear in choose and len(cheaper) >= 2:
            lines.append(_line(dear, sorted(cheaper), choose, report, max_loss, seed))
    return {
        "chosen_on": half,
        "reported": len(shared) - half,
        "seed": seed,
        "max_loss": max_loss,
        "left_out": sorted(set(found) - set(models)),
        "models": [
            {
                "model": name,
                "accuracy": _mean(answer.correct for answer in report[name]),
                "cost": _mean(answer.cost for answer in report[name]),
            }
            for name in sorted(models, key=lambda name: -_mean(answer.correct for answer in report[name]))
        ],
        "lines": lines,
    }


def _line(
    dear: str,
    cheaper: list[str],
    choose: Mapping[str, list[_Answer]],
    report: Mapping[str, list[_Answer]],
    max_loss: float,
    seed: int,
) -> dict[str, Any]:
    singles = [(name,) for name in cheaper]
    # The answer that is taken is the cheaper model's.
    paid = {name: _mean(answer.cost for answer in choose[name]) for name in cheaper}
    pairs = [tuple(sorted(pair, key=lambda name: paid[name])) for pair in itertools.combinations(cheaper, 2)]
    line: dict[str, Any] = {
        "dear": dear,
        "accuracy": _mean(answer.correct for answer in report[dear]),
        "cost": _mean(answer.cost for answer in report[dear]),
        "pair": None,
        "single": None,
    }
    for kind, candidates in (("pair", pairs), ("single", singles)):
        best = _best(candidates, dear, choose, max_loss)
        if best is not None:
            line[kind] = {"models": list(best), **_judged(_run(best, dear, report), report[dear], seed)}
    return line


def _best(
    candidates: Sequence[tuple[str, ...]], dear: str, choose: Mapping[str, list[_Answer]], max_loss: float
) -> tuple[str, ...] | None:
    """The cheapest that keeps the accuracy and costs less than the dear model; None = none does."""
    least = _mean(answer.correct for answer in choose[dear]) - max_loss
    lowest, best = _mean(answer.cost for answer in choose[dear]), None
    for candidate in candidates:
        run = _run(candidate, dear, choose)
        if _mean(run.cost) < lowest and _mean(run.correct) >= least - 1e-12:
            lowest, best = _mean(run.cost), candidate
    return best


def _run(models: tuple[str, ...], dear: str, by_model: Mapping[str, list[_Answer]]) -> _Found:
    """One model's answers as they are; two models', and the dear one's where they differ or say nothing."""
    first = by_model[models[0]]
    if len(models) == 1:
        return _Found([one.cost for one in first], [one.correct for one in first], [True] * len(first))
    run = _Found([], [], [])
    for one, two, last in zip(first, by_model[models[1]], by_model[dear], strict=True):
        agreed = one.said is not None and one.said == two.said
        run.cost.append(one.cost + two.cost + (0.0 if agreed else last.cost))
        run.correct.append(one.correct if agreed else last.correct)
        run.agreed.append(agreed)
    return run


def _judged(run: _Found, dear: list[_Answer], seed: int) -> dict[str, Any]:
    paid, right = [answer.cost for answer in dear], [answer.correct for answer in dear]
    indices = range(len(dear))

    def saved(drawn: Sequence[int]) -> float:
        whole = sum(paid[at] for at in drawn)
        return 1 - sum(run.cost[at] for at in drawn) / whole if whole > 0 else 0.0

    def difference(drawn: Sequence[int]) -> float:
        return sum(run.correct[at] - right[at] for at in drawn) / len(drawn)

    draw = random.Random(seed)
    draws = [draw.choices(indices, k=len(indices)) for _ in range(_ROUNDS)]
    return {
        "agreed": _mean(run.agreed),
        "accuracy": _mean(run.correct),
        "cost": _mean(run.cost),
        "saved": _interval(saved, indices, draws),
        "difference": _interval(difference, indices, draws),
    }


def _interval(
    of: Callable[[Sequence[int]], float], all_of_them: Sequence[int], draws: list[list[int]]
) -> dict[str, float]:
    drawn = sorted(map(of, draws))
    low, high = (drawn[round((len(drawn) - 1) * share)] for share in (0.025, 0.975))
    return {"value": of(all_of_them), "low": low, "high": high}


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed) if listed else 0.0


def shown(found: Mapping[str, Any]) -> str:
    """A comparison as text."""
    lines = [
        f"pairs and single models chosen on {found['chosen_on']:,} questions "
        f"(at most {found['max_loss']:.1%} below the "
        "dear model there),",
        f"reported on {found['reported']:,} others; 95 % intervals by the bootstrap, seed {found['seed']}",
    ]
    if found["left_out"]:
        lines.append(f"left out, for they answered too few of the questions: {', '.join(found['left_out'])}")
    lines += ["", f"{'alone':<36}{'right':>8}{'USD / 1,000':>14}"]
    lines += [f"{one['model']:<36}{one['accuracy']:>8.1%}{1000 * one['cost']:>14.4g}" for one in found["models"]]
    for line in found["lines"]:
        lines += ["", f"{line['dear']}: {line['accuracy']:.1%} right, {1000 * line['cost']:.4g} USD / 1,000"]
        for kind, what in (("pair", "two that agree, else it"), ("single", "one cheaper model alone")):
            one = line[kind]
            if one is None:
                lines.append(f"  {what}: none keeps the accuracy and costs less")
                continue
            agreed = f", agree on {one['agreed']:.1%}" if kind == "pair" else ""
            lines.append(f"  {what}: {' + '.join(one['models'])}{agreed}")
            lines.append(f"    saved {_percent(one['saved'])}, right {_percent(one['difference'], '+')}")
    return "\n".join(lines)


def _percent(interval: Mapping[str, float], sign: str = "") -> str:
    value, low, high = (format(interval[key], f"{sign}.1%") for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"
