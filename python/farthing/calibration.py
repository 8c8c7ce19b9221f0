"""`farthing calibrate`: labelled drafts in, a map from score to P(good), a threshold and what a ladder is worth.

Reads a file of rows, or the labels that own traffic left in a cache file, and prints; the work is the core's
(`src/evaluate/calibrate.rs`). What is written is read by `calibrate.py`. No model is called.
"""

from __future__ import annotations

import json
import os
import random
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from . import _core
from .calibrate import VERSION, validate
from .evaluate import cost, quality, read
from .exceptions import DataError, explain

__all__ = [
    "Columns",
    "Drafts",
    "calibrate",
    "calibration",
    "check_place",
    "is_cache_file",
    "of_labels",
    "of_rows",
    "policy_lines",
    "read_drafts",
    "write",
]

# Below this, a quarter of the rows is no part to fit or to report.
LEAST_ROWS = 40
_STRUCTURAL = frozenset({"structural"})
# Score, quality of the draft and of the dear answer, its costs, whether it stands for the traffic.
_Draft = tuple[float, float, "float | None", "tuple[float, float, float] | None", bool]


@dataclass(frozen=True)
class Columns:
    """Which columns hold what. `score`, `good` and `dear` are 0 to 1, or true and false; costs are numbers of one unit.

    None = the column of the field's own name, if there is one.
    """

    score: str = "score"
    good: str = "good"
    dear: str | None = None
    rung: str | None = None
    prompt: str | None = None
    cost: str | None = None
    dear_cost: str | None = None
    scorer_cost: str | None = None

    def of(self, row: Mapping[str, Any]) -> dict[str, str | None]:
        """The names of the columns that this row has.

        Raises:
            DataError: one that was asked for is not there.
        """
        names: dict[str, str | None] = {}
        for key in ("score", "good", "dear", "rung", "prompt", "cost", "dear_cost", "scorer_cost"):
            asked = getattr(self, key)
            if asked is not None and asked not in row:
                hint = f"there are: {', '.join(map(str, row))}"
                raise DataError(explain("no such column", where="row 1", value=asked, hint=hint))
            names[key] = asked if asked is not None else key if key in row else None
        return names


@dataclass
class Drafts:
    """Drafts by their rung, in the order in which the rungs came, and what was not taken."""

    rungs: dict[str, list[_Draft]] = field(default_factory=dict)
    unlabelled: int = 0
    repeated: int = 0
    scorers: tuple[str, ...] | None = None
    """Whose scores they are; None = nobody says."""
    notes: list[str] = field(default_factory=list)


def of_rows(rows: Iterable[Mapping[str, Any]], columns: Columns) -> Drafts:
    """The drafts of a file. Rows without a score or a quality are left out and counted; of rows of one prompt in
    one rung the first is taken, because the bound rests on rows that are independent (and repeated calls are the
    cache's).

    Raises:
        DataError: a column that is not there, a score or a quality that is none.
    """
    drafts = Drafts()
    names: dict[str, str | None] = {}
    seen: set[tuple[str, str]] = set()
    for number, row in enumerate(rows, 1):
        names = names or columns.of(row)
        row = {**dict.fromkeys(filter(None, names.values())), **row}
        score, good = (quality(row[name], name, number) for name in (columns.score, columns.good))
        dear = None if names["dear"] is None else quality(row[names["dear"]], names["dear"], number)
        if score is None or good is None or (names["dear"] is not None and dear is None):
            drafts.unlabelled += 1
            continue
        rung = "" if names["rung"] is None or row[names["rung"]] is None else str(row[names["rung"]])
        if names["prompt"] is not None and row[names["prompt"]] is not None:
            one = (rung, str(row[names["prompt"]]))
            if one in seen:
                drafts.repeated += 1
                continue
            seen.add(one)
        costs = None
        if names["cost"] is not None and names["dear_cost"] is not None:
            paid = [cost(row, names[key], number) for key in ("cost", "dear_cost", "scorer_cost")]
            costs = (paid[0], paid[1], paid[2])
        drafts.rungs.setdefault(rung, []).append((score, good, dear, costs, True))
    return drafts


def is_cache_file(path: str) -> bool:
    """Whether it is an SQLite file, by its first bytes."""
    try:
        with open(path, "rb") as file:
            return file.read(16) == b"SQLite format 3\0"
    except OSError:
        return False


def of_labels(path: str, shadow: float | None, seed: int = 0, scorers: Iterable[str] | None = None) -> Drafts:
    """The labels that own traffic left in a cache file.

    Rejected drafts are labelled always, accepted ones only when they were shadowed. So that the rows stand for the
    traffic, only a share of the rejected ones, drawn at random, chooses and reports; the others teach the map.

    For a process that has no client with this file open: on POSIX, a second SQLite library that closes a file takes the
    locks of the first with it.

    Args:
        shadow: the policy's `shadow`, above 0 and at most 1; needed when there are labels of both kinds.
        scorers: the names of the policy's scorers; None = those of most labels. Labels that lack the score of one, or
            have another's, are left out: their score is another kind of score.

    Raises:
        DataError: it cannot be read, has no usable labels, or `shadow` is needed.
    """
    usable, unlabelled = [], 0
    for row in _labels(path):
        if _is_share(row["score"]) and _is_share(row["good"]):
            usable.append(row)
        else:
            unlabelled += 1
    if not usable:
        what = "there are no labels" if not unlabelled else f"none of the {unlabelled:,} labels has both score and good"
        hint = "drafts that escalate, and those that `shadow` compares, leave labels: docs/calibrate.md"
        raise DataError(explain(f"{what} in this cache file", value=path, hint=hint))
    said = [_names(row["scores"]) for row in usable]
    wanted = frozenset(scorers or _most([(names, row["score"]) for names, row in zip(said, usable, strict=True)]))
    alike = [row for row, names in zip(usable, said, strict=True) if _is_of(names, wanted, row["score"])]
    others = len(usable) - len(alike)
    if not alike:
        hint = f"labels have scores of: {'; '.join(sorted({', '.join(sorted(names)) for names in said}))[:200]}"
        raise DataError(explain("no label is of these scorers", value=", ".join(sorted(wanted)), hint=hint))
    usable = alike
    # The last word on a prompt counts.
    latest = {(row["rung"], bytes(row["prompt"]), row["kind"]): row for row in usable}
    drafts = Drafts(unlabelled=unlabelled, repeated=len(usable) - len(latest))
    drafts.scorers = tuple(sorted(wanted)) or None
    if others:
        drafts.notes.append(
            f"{others:,} labels left out: their scores are not of all of {', '.join(sorted(wanted))}; such drafts "
            "escalate under a calibration"
        )
    kinds = {row["kind"] for row in latest.values()}
    if kinds == {"escalation", "shadow"} and shadow is None:
        hint = "give the policy's shadow: --shadow 0.02"
        raise DataError(explain("which share of the accepted drafts was compared is not known", value=path, hint=hint))
    if kinds == {"escalation"}:
        drafts.notes.append(
            "careful: every label is of a draft that was judged on the way up, none of a shadowed one. What drafts "
            "that were accepted are worth is not in them; the figures hold for traffic like these rows only"
        )
    elif kinds == {"shadow"}:
        drafts.notes.append(
            "every label is of a draft that was accepted: coverage and loss are of those, not of all calls"
        )
    draw = random.Random(seed)
    kept = 1.0 if shadow is None or len(kinds) == 1 else shadow
    thinned = 0
    for row in latest.values():
        is_typical = row["kind"] == "shadow" or draw.random() < kept
        thinned += not is_typical
        paid = [_money(row[key]) for key in ("cost", "dear_cost", "overhead")]
        costs = None if paid[0] is None or paid[1] is None else (paid[0], paid[1], paid[2] or 0.0)
        drafts.rungs.setdefault(row["rung"], []).append((row["score"], row["good"], None, costs, is_typical))
    if thinned:
        drafts.notes.append(
            f"{thinned:,} rejected drafts teach the map only: {kept:.3g} of the rejected ones choose and report, as "
            "many as of the accepted ones were compared"
        )
    return drafts


def _labels(path: str) -> Iterator[sqlite3.Row]:
    place = Path(path).expanduser().resolve().as_uri()
    try:
        with closing(sqlite3.connect(f"{place}?mode=ro", uri=True, timeout=5)) as tables:
            tables.row_factory = sqlite3.Row
            if tables.execute("SELECT 1 FROM sqlite_master WHERE name = 'labels'").fetchone() is None:
                return
            columns = "rung, kind, prompt, score, scores, good, cost, dear_cost, overhead"
            kinds = "kind IN ('escalation', 'shadow') AND typeof(prompt) = 'blob' AND typeof(rung) = 'text'"
            yield from tables.execute(f"SELECT {columns} FROM labels WHERE {kinds} ORDER BY id")
    except (sqlite3.Error, UnicodeDecodeError) as error:
        hint = "it must be a whole cache file of farthing, and readable"
        raise DataError(explain("cannot read", value=f"{path}: {error}", hint=hint)) from None


def _names(scores: object) -> frozenset[str]:
    """Whose scores a label has."""
    try:
        found = json.loads(scores) if isinstance(scores, str) else None
    except (ValueError, RecursionError):
        found = None
    return frozenset(found) if isinstance(found, dict) else frozenset()


def _most(said: list[tuple[frozenset[str], float]]) -> frozenset[str]:
    """The scorers of most labels; what `structural` called unusable may be of any policy with it."""
    counted = Counter(names for names, score in said if names != _STRUCTURAL or score != 0)
    return max(counted, key=lambda names: (counted[names], sorted(names)), default=_STRUCTURAL)


def _is_of(names: frozenset[str], wanted: frozenset[str], score: float) -> bool:
    """What `structural` calls unusable is shown to no other scorer: its score is 0, whoever else there is."""
    return names == wanted or (names == _STRUCTURAL < wanted and score == 0)


def _is_share(value: object) -> bool:
    return isinstance(value, (int, float)) and 0 <= value <= 1


def _money(value: object) -> float | None:
    try:
        paid = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return paid if 0 <= paid < float("inf") else None


def calibrate(drafts: Drafts, max_loss: float = 0.01, confidence: float = 0.95, seed: int = 0) -> dict[str, Any]:
    """A calibration for each rung.

    Args:
        max_loss: what accepted drafts may lose, over all calls that come to the rung; between 0 and 1.
        confidence: of the bound, for each rung alone; between 0 and 1.
        seed: of the split and of the bootstrap, at least 0.

    Returns:
        `{"rungs": {name: found}, "too_few": {name: rows}, ...}`; the fields of `found` are those of `Calibration` in
        `src/evaluate/calibrate.rs`.

    Raises:
        DataError: no rung has as many as 40 rows that stand for the traffic.
    """
    counted = {name: sum(draft[4] for draft in rows) for name, rows in drafts.rungs.items()}
    too_few = {name: count for name, count in counted.items() if count < LEAST_ROWS}
    if len(too_few) == len(counted):
        value = ", ".join(f"{count:,} of rung {name!r}" if name else f"{count:,}" for name, count in too_few.items())
        hint = f"{LEAST_ROWS} or more, each with a score and a quality"
        raise DataError(explain("too few labelled drafts", value=value or "0", hint=hint))
    rungs = {
        name: json.loads(_core.calibrate_drafts(rows, max_loss, confidence, seed))
        for name, rows in drafts.rungs.items()
        if name not in too_few
    }
    return {
        "max_loss": max_loss,
        "confidence": confidence,
        "seed": seed,
        "unlabelled": drafts.unlabelled,
        "repeated": drafts.repeated,
        "scorers": None if drafts.scorers is None else list(drafts.scorers),
        "notes": drafts.notes,
        "too_few": too_few,
        "rungs": rungs,
    }


def calibration(found: Mapping[str, Any]) -> dict[str, Any]:
    """What `--write` writes and a policy reads; checked by `validate`, so that what is written can be read."""
    rungs = {
        name: {
            "points": rung["points"],
            "threshold": rung["chosen"] and rung["chosen"]["threshold"],
            "max_loss": found["max_loss"],
            "confidence": found["confidence"],
            "rows": rung["fitted"] + rung["chosen_on"] + rung["reported"],
        }
        for name, rung in found["rungs"].items()
    }
    made = datetime.now(timezone.utc).date().isoformat()
    scorers = {} if found.get("scorers") is None else {"scorers": found["scorers"]}
    return validate({"version": VERSION, "made": made, **scorers, "rungs": rungs}, where="what was fitted")


def policy_lines(found: Mapping[str, Any], file: str) -> str:
    """The lines of a policy that use it; "" when a rung has no threshold."""
    chosen = [rung["chosen"] for rung in found["rungs"].values()]
    if not all(chosen) or found["too_few"]:
        return ""
    thresholds = ", ".join(f"{one['threshold']:g}" for one in chosen)
    order = f"  # {', '.join(found['rungs'])}: in the ladder's order" if len(chosen) > 1 else ""
    return f"[escalate]\nthresholds = [{thresholds}]{order}\ncalibration = {json.dumps(file, ensure_ascii=False)}"


def check_place(path: str) -> None:
    """Says beforehand that a file cannot be written, so that nobody waits for what is lost then.

    Raises:
        DataError: its folder is not there or takes no files, or the path is a folder's.
    """
    place = os.path.abspath(os.path.expanduser(path))
    folder = os.path.dirname(place)
    if os.path.isdir(place):
        raise _unwritten(path, "it is a folder", "name a file in it")
    if not os.path.isdir(folder):
        raise _unwritten(path, f"there is no folder {folder}", "make the folder first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise _unwritten(path, f"the folder {folder} takes no files from you", "name a file in another folder")


def _unwritten(path: str, why: object, hint: str) -> DataError:
    return DataError(explain("cannot write", value=f"{path}: {why}", hint=hint))


def write(path: str, content: Mapping[str, Any]) -> None:
    """Writes JSON in one step: who reads the file meanwhile sees the old one or the new one.

    Raises:
        DataError: it cannot be written.
    """
    check_place(path)
    place = os.path.abspath(os.path.expanduser(path))
    beside = ""
    try:
        handle, beside = tempfile.mkstemp(prefix=".farthing-", dir=os.path.dirname(place))
        with open(handle, "w", encoding="utf-8") as file:
            json.dump(content, file, ensure_ascii=False, separators=(",", ":"))
            file.write("\n")
        # mkstemp's files are their owner's alone; this is no secret.
        os.chmod(beside, 0o644)
        os.replace(beside, place)
    except (OSError, ValueError) as error:
        if beside and os.path.exists(beside):
            os.unlink(beside)
        # The system's own words name the file beside it, which is gone.
        why = getattr(error, "strerror", None) or error
        raise _unwritten(path, why, "name a file in another folder, or make room there") from None


def read_drafts(
    path: str, columns: Columns, shadow: float | None, seed: int, scorers: tuple[str, ...] | None = None
) -> Drafts:
    """The drafts of a file, whichever kind it is.

    Raises:
        DataError: see `of_rows` and `of_labels`; `shadow` is given and the file is no cache file.
    """
    if is_cache_file(path):
        return of_labels(path, shadow, seed, scorers)
    drafts = of_rows(read(path), columns)
    if shadow is not None:
        hint = "leave it out: rows of a file count as they are; it is for the labels of a cache file"
        raise DataError(explain("--shadow is given, and this is no cache file", value=path, hint=hint))
    drafts.scorers = None if scorers is None else tuple(sorted(scorers))
    return drafts
