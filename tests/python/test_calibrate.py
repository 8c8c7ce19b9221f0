"""`farthing calibrate`: labelled drafts in, a map and a threshold out, and a file that a policy can trust."""

from __future__ import annotations

import csv
import errno
import json
import random
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from farthing.calibrate import load, validate
from farthing.calibration import Columns, calibrate, calibration, of_labels, of_rows, policy_lines
from farthing.cli import cli
from farthing.exceptions import DataError, PolicyError

pytestmark = pytest.mark.once


def drafts(count: int = 4000, **more: Any) -> list[dict[str, Any]]:
    """P(good) = score ** 0.3."""
    draw = random.Random(4)
    scores = [draw.random() for _ in range(count)]
    return [{"score": score, "good": int(draw.random() < score**0.3), **more} for score in scores]


def table(path: Path, rows: list[dict[str, Any]]) -> str:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["calibrate", *arguments])


PAID = {"cost": 0.1, "dear_cost": 1.0, "scorer_cost": 0.05}


def rung(rows: list[dict[str, Any]], max_loss: float = 0.05, **columns: str) -> dict[str, Any]:
    found: dict[str, Any] = calibrate(of_rows(rows, Columns(**columns)), max_loss)["rungs"][""]
    return found


def test_a_threshold_keeps_what_it_promises_and_no_row_is_used_twice() -> None:
    found = rung(drafts(8000))
    assert (found["fitted"], found["chosen_on"], found["reported"]) == (2000, 4000, 2000)
    assert found["chosen"]["bound"] <= 0.05
    assert 0.3 < found["chosen"]["coverage"] < 0.7
    point = found["at_threshold"]
    assert point["loss"]["low"] <= 0.05
    # Over all answers less is lost than among those that were accepted.
    assert point["loss"]["value"] < point["risk"]["value"]
    # The map: P(good) at a score of 0.5 is 0.81.
    middle = min(found["points"], key=lambda pair: abs(pair[0] - 0.5))
    assert middle[1] == pytest.approx(0.81, abs=0.08)


def test_the_same_rows_and_seed_give_the_same_figures() -> None:
    assert rung(drafts(500)) == rung(drafts(500))


def test_a_file_is_written_that_load_takes(tmp_path: Path) -> None:
    data, out = table(tmp_path / "drafts.csv", drafts()), tmp_path / "calibration.json"
    done = run(data, "--max-loss", "0.05", "--write", str(out))
    assert done.exit_code == 0, done.output
    read = load(out)["rungs"][""]
    assert (read["max_loss"], read["confidence"], read["rows"]) == (0.05, 0.95, 4000)
    assert f"thresholds = [{read['threshold']:g}]" in done.output
    assert "loss over all answers" in done.output and "risk among accepted" in done.output
    assert f"calibration = {json.dumps(str(out))}" in done.output
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_too_few_rows_for_a_small_loss_are_told_how_many_it_takes(tmp_path: Path) -> None:
    rows = [{"score": 0.9, "good": 1}] * 500
    done = run(table(tmp_path / "drafts.csv", rows), "--write", str(tmp_path / "out.json"))
    assert done.exit_code == 0, done.output
    assert "250 rows can never show" in done.output and "takes 299" in done.output and "598 or more" in done.output
    assert load(tmp_path / "out.json")["rungs"][""]["threshold"] is None
    assert "[escalate]" not in done.output
    rows = [{"score": 0.9, "good": 1}] * 600
    assert rung(rows, 0.01)["chosen"]["loss"] == 0


def test_without_a_threshold_the_ladder_cannot_pay(tmp_path: Path) -> None:
    rows = [row | PAID | {"good": 0} for row in drafts(1000)]
    done = run(table(tmp_path / "drafts.csv", rows))
    assert "not one can be shown" in done.output
    assert "The ladder does not pay: without a threshold" in done.output


def test_escalations_are_weighted_by_what_they_cost() -> None:
    """Half the calls escalate, but they are the dear ones."""
    rows = []
    for row in drafts(4000):
        easy = row["score"] > 0.5
        rows.append({"score": row["score"], "good": int(easy), "cost": 0.3, "dear_cost": 0.2 if easy else 1.8})
    bill = rung(rows, 0.02)["bill"]
    assert bill["escalated"] == pytest.approx(0.5, abs=0.05)
    assert bill["escalated_cost"] == pytest.approx(0.9, abs=0.05)
    assert bill["break_even"] == pytest.approx(0.7, abs=0.05)
    assert bill["saved"]["high"] < 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (PAID, "The ladder pays: it saves"),
        ({}, "cannot be said without costs"),
        (PAID | {"cost": 1.0}, "The ladder cannot pay"),
        (PAID | {"cost": 0.7}, "The ladder does not pay: it costs"),
        (PAID | {"good": 1}, "the cheap model alone keeps the loss"),
        (PAID | {"good": 0, "dear": 0}, "the cheap model alone is as good"),
    ],
)
def test_what_is_said_of_the_ladder(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    rows = [row | change for row in drafts()]
    done = run(table(tmp_path / "drafts.csv", rows), "--max-loss", "0.05")
    assert said in done.output.splitlines()[-1], done.output


def test_a_dear_answer_that_is_wrong_as_well_is_no_loss() -> None:
    rows = [row | {"better": row["good"]} for row in drafts(1000)]
    found = rung(rows, dear="better")
    assert found["cheap_loss"]["value"] == 0
    assert found["chosen"]["coverage"] == 1
    assert found["quality"]["difference"]["value"] == 0


def test_partial_losses_are_bounded_as_such() -> None:
    """Their bound is not that of rounded losses, and holds."""
    rows = [row | {"good": 0.97} for row in drafts(4000)]
    found = rung(rows, 0.05)
    assert 0.03 < found["cheap_bound"] < 0.05
    assert found["chosen"]["loss"] == pytest.approx(0.03)


def test_each_rung_has_its_own_and_small_ones_are_named(tmp_path: Path) -> None:
    rows = [row | {"rung": "small"} for row in drafts()]
    rows += [row | {"rung": "mid", "good": 1} for row in drafts(1000)]
    rows += [row | {"rung": "rare"} for row in drafts(5)]
    found = calibrate(of_rows(rows, Columns()), 0.05)
    assert list(found["rungs"]) == ["small", "mid"]
    assert found["too_few"] == {"rare": 5}
    # Not with a rung missing: the thresholds would be at wrong places.
    assert policy_lines(found, "c.json") == ""
    found = calibrate(of_rows(rows[:-5], Columns()), 0.05)
    assert 'calibration = "c.json"' in policy_lines(found, "c.json")
    assert list(calibration(found)["rungs"]) == ["small", "mid"]
    done = run(table(tmp_path / "drafts.csv", rows), "--max-loss", "0.05")
    assert "rung 'rare': 5 rows" in done.output


def test_rows_that_say_nothing_or_the_same_again_are_counted() -> None:
    rows = [row | {"prompt": f"caf\u00e9 {number // 2}"} for number, row in enumerate(drafts(200))]
    rows += [{"score": "", "good": 1, "prompt": "x"}, {"score": 0.5, "good": None, "prompt": "y"}]
    found = of_rows(rows, Columns())
    assert (len(found.rungs[""]), found.unlabelled, found.repeated) == (100, 2, 100)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("points,good\n1,1\n", "no such column in row 1: score"),
        ("score,good\n1.2,1\n", "score must be 0 to 1"),
        ("score,good\ninf,1\n", "score must be 0 to 1"),
        ("score,good\n0.5,maybe\n", "good must be 0 to 1"),
        ("score,good,cost,dear_cost\n0.5,1,-1,1\n", "cost must be a number >= 0"),
        ("score,good\n0.5,1\n", "too few labelled drafts: 1"),
        ("", "too few labelled drafts: 0"),
    ],
)
def test_files_that_are_none(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "drafts.csv").write_text(text)
    done = run(str(tmp_path / "drafts.csv"))
    assert done.exit_code == 1
    assert said in done.output and "\nhint: " in done.output


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("none.csv", None, "cannot read: "),
        ("latin.csv", b"score,good\n0.5,\xe9\n", "cannot read: "),
        ("lines.jsonl", b'{"score": 0.5, "good": 1}\n[1,\n', "not a line of JSON in "),
        ("deep.jsonl", b"[" * 200_000, "not a line of JSON in "),
        ("list.jsonl", b"[1]\n", "not a JSON object in "),
        ("broken.db", b"SQLite format 3\0" + b"x" * 5000, "cannot read: "),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, name: str, content: bytes | None, said: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    done = run(str(tmp_path / name))
    assert done.exit_code == 1 and done.output.startswith(f"error: {said}") and "\nhint: " in done.output


def test_a_share_of_shadows_is_of_a_cache_file(tmp_path: Path) -> None:
    done = run(table(tmp_path / "drafts.csv", drafts(50)), "--shadow", "0.1")
    assert done.exit_code == 1 and "--shadow is given, and this is no cache file: " in done.output
    assert "\nhint: leave it out" in done.output


@pytest.mark.parametrize("option", [("--max-loss", "0"), ("--confidence", "1"), ("--shadow", "nan"), ("--seed", "-1")])
def test_options_out_of_range(tmp_path: Path, option: tuple[str, str]) -> None:
    assert run(table(tmp_path / "drafts.csv", drafts(50)), *option).exit_code == 2


def test_a_place_that_cannot_be_written_is_said_before_the_work(tmp_path: Path, monkeypatch: Any) -> None:
    def says(place: Path, why: str) -> None:
        # There is no such data: whoever looked at it first would say so.
        for more in ([], ["--router", "--cheap", "small"]):
            done = run(str(tmp_path / "none.csv"), "--write", str(place), *more)
            assert done.exit_code == 1
            assert done.output.startswith(f"error: cannot write: {place}: {why}") and "\nhint: " in done.output

    says(tmp_path / "no" / "c.json", f"there is no folder {tmp_path / 'no'}")
    says(tmp_path, "it is a folder")
    monkeypatch.setattr("os.access", lambda *_: False)
    says(tmp_path / "c.json", f"the folder {tmp_path} takes no files from you")


def test_a_full_disk_is_said_with_the_name_that_was_asked_for(tmp_path: Path, monkeypatch: Any) -> None:
    def full(one: str, other: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", one, None, other)

    monkeypatch.setattr("os.replace", full)
    place = tmp_path / "c.json"
    done = run(table(tmp_path / "drafts.csv", drafts(50)), "--write", str(place))
    assert done.exit_code == 1
    assert f"error: cannot write: {place}: No space left on device\nhint: " in done.output
    assert ".farthing-" not in done.output and [path.name for path in tmp_path.iterdir()] == ["drafts.csv"]


# Labels of own traffic.

LABELS = """
CREATE TABLE labels (
    id INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, model TEXT NOT NULL, rung TEXT NOT NULL,
    kind TEXT NOT NULL, prompt BLOB NOT NULL, features TEXT NOT NULL, score REAL, scores TEXT NOT NULL, good REAL,
    cost TEXT, dear_cost TEXT, overhead TEXT, size INTEGER NOT NULL, text TEXT)
"""


def cache_file(path: Path, rows: list[tuple[str, float | None, float | None]]) -> str:
    """Rows of kind, score, good."""
    with sqlite3.connect(path) as tables:
        tables.execute(LABELS)
        sql = (
            "INSERT INTO labels (at, model, rung, kind, prompt, features, score, scores, good, cost, dear_cost, "
            "overhead, size) VALUES (1, 'm', 'small', ?, ?, '{}', ?, '{}', ?, '0.0001', '0.001', NULL, 1)"
        )
        for number, (kind, score, good) in enumerate(rows):
            tables.execute(sql, (kind, number.to_bytes(32, "big"), score, good))
    tables.close()
    return str(path)


def with_scores(path: str, scores: dict[str, list[int]]) -> str:
    """Gives the labels with these ids the scores of these scorers, "a,b"; "=0" after them makes their score 0."""
    with sqlite3.connect(path) as tables:
        for names, ids in scores.items():
            names, _, score = names.partition("=")
            told = json.dumps(dict.fromkeys(names.split(","), 0.5))
            for id in ids:
                tables.execute("UPDATE labels SET scores = ? WHERE id = ?", (told, id))
                if score:
                    tables.execute("UPDATE labels SET score = 0 WHERE id = ?", (id,))
    tables.close()
    return path


def test_a_calibration_of_labels_says_whose_scores_they_are(tmp_path: Path) -> None:
    path = cache_file(tmp_path / "answers.db", [("shadow", row["score"], row["good"]) for row in drafts(400)])
    # 200 of both, 50 that structural called unusable, 100 without logprobs, 50 of another policy.
    with_scores(path, {"structural,logprob": [*range(1, 201)], "structural=0": [*range(201, 251)]})
    with_scores(path, {"structural": [*range(251, 351)], "judge": [*range(351, 401)]})
    done = run(path, "--write", str(tmp_path / "c.json"))
    assert "150 labels left out: their scores are not of all of logprob, structural" in done.output
    written = load(tmp_path / "c.json")
    assert written["scorers"] == ["logprob", "structural"] and written["rungs"]["small"]["rows"] == 250
    assert len(of_labels(path, None, scorers=["judge"]).rungs["small"]) == 50
    assert of_labels(path, None, scorers=["structural"]).scorers == ("structural",)
    done = run(path, "--scorer", "agreement")
    assert done.exit_code == 1 and "no label is of these scorers: agreement" in done.output
    assert "hint: labels have scores of: " in done.output


def test_a_calibration_of_rows_says_whose_scores_they_are(tmp_path: Path) -> None:
    rows, file = table(tmp_path / "drafts.csv", drafts(400)), str(tmp_path / "c.json")
    run(rows, "--write", file)
    assert "scorers" not in load(file)
    run(rows, "--write", file, "--scorer", "structural, callable 2,callable")
    assert load(file)["scorers"] == ["callable", "callable 2", "structural"]
    for wrong in ("judg", "judge,judge", "", "callable 1"):
        assert run(rows, "--scorer", wrong).exit_code == 2


@pytest.mark.parametrize("scorers", [[], "judge", [1], [""], ["judge", "judge"], {"judge": 1}])
def test_scorers_that_are_none(scorers: Any) -> None:
    with pytest.raises(PolicyError, match="scorers"):
        validate({"version": 1, "rungs": {"small": GOOD}, "scorers": scorers})


def traffic(count: int = 40_000, shadow: float = 0.25) -> list[tuple[str, float | None, float | None]]:
    """A ladder that accepted from 0.5 on, and compared a quarter of what it accepted."""
    rows: list[tuple[str, float | None, float | None]] = []
    draw = random.Random(2)
    for row in drafts(count):
        if row["score"] < 0.5:
            rows.append(("escalation", row["score"], row["good"]))
        elif draw.random() < shadow:
            rows.append(("shadow", row["score"], row["good"]))
    return rows


def test_labels_of_both_kinds_stand_for_the_traffic(tmp_path: Path) -> None:
    path = cache_file(tmp_path / "answers.db", traffic())
    with pytest.raises(DataError, match="--shadow"):
        of_labels(path, None)
    found = of_labels(path, 0.25)
    typical = [draft for draft in found.rungs["small"] if draft[4]]
    # As of all traffic: half is below 0.5, although the file has four times as many of these.
    assert sum(draft[0] < 0.5 for draft in typical) / len(typical) == pytest.approx(0.5, abs=0.03)
    done = run(path, "--shadow", "0.25", "--max-loss", "0.05", "--json")
    small = json.loads(done.output)["rungs"]["small"]
    # What all drafts lose in the world that they were drawn from: 1 - 1 / 1.3.
    assert small["cheap_loss"]["low"] < 1 - 1 / 1.3 < small["cheap_loss"]["high"]
    assert small["bill"]["break_even"] == pytest.approx(0.9)
    assert small["fitted"] > small["chosen_on"]


def test_labels_of_one_kind_are_taken_with_a_word_of_care(tmp_path: Path) -> None:
    rows = [row for row in traffic(2000) if row[0] == "escalation"]
    done = run(cache_file(tmp_path / "one.db", rows))
    assert done.exit_code == 0 and done.output.startswith("careful:")
    rows = [row for row in traffic(8000) if row[0] == "shadow"]
    assert "not of all calls" in run(cache_file(tmp_path / "two.db", rows)).output


def test_a_cache_file_without_labels_says_so(tmp_path: Path) -> None:
    done = run(cache_file(tmp_path / "none.db", []))
    assert done.exit_code == 1 and "there are no labels in this cache file" in done.output
    done = run(cache_file(tmp_path / "open.db", [("escalation", 0.5, None), ("shadow", None, 1.0)]))
    assert "none of the 2 labels has both" in done.output
    with sqlite3.connect(tmp_path / "other.db") as tables:
        tables.execute("CREATE TABLE x (y)")
    tables.close()
    assert "there are no labels" in run(str(tmp_path / "other.db")).output
    (tmp_path / "broken.db").write_bytes(b"SQLite format 3\0" + b"x" * 5000)
    assert "cannot read" in run(str(tmp_path / "broken.db")).output


def test_the_columns_are_those_of_the_core(tmp_path: Path) -> None:
    """The file that farthing itself makes can be read; in a process of its own, which has no other SQLite."""
    path = tmp_path / "answers.db"
    make = (
        "import sys; from farthing import Cache, OpenAI, Policy;"
        "OpenAI(api_key='k', policy=Policy(cache=Cache(path=sys.argv[1]))).labels()"
    )
    subprocess.run([sys.executable, "-c", make, str(path)], check=True)
    columns = {row[1] for row in sqlite3.connect(path).execute("PRAGMA table_info(labels)")}
    assert columns == {
        row[1] for row in sqlite3.connect(cache_file(tmp_path / "mine.db", [])).execute("PRAGMA table_info(labels)")
    }
    assert "there are no labels" in run(str(path)).output


# The file.

GOOD: dict[str, Any] = {
    "points": [[0.1, 0.2], [0.9, 1]],
    "threshold": 0.8,
    "max_loss": 0.01,
    "confidence": 0.95,
    "rows": 9,
}


def test_what_load_returns(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps({"version": 1, "made": "2026-11-26", "rungs": {"": GOOD}}))
    assert load(path)["rungs"][""]["points"] == [(0.1, 0.2), (0.9, 1.0)]
    assert load(str(path)) == validate(load(path))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"points": []}, "points must be a list with at least one pair"),
        ({"points": [[0.5, 0.9], [0.6, 0.8]]}, r"points\[1\] falls"),
        ({"points": [[0.5, 0.8], [0.4, 0.9]]}, r"points\[1\] falls"),
        ({"points": [[0.5, 1.1]]}, "must be a number from 0 to 1"),
        ({"points": [[-0.5, 1]]}, "must be a number from 0 to 1"),
        ({"points": [[float("nan"), 1]]}, "must be a number from 0 to 1"),
        ({"points": [[10**400, 1]]}, "must be a number from 0 to 1"),
        ({"points": [[True, 1]]}, "must be a number from 0 to 1"),
        ({"points": [[0.5]]}, "must be a pair"),
        ({"points": "ab"}, "points must be a list"),
        ({"threshold": 2}, "threshold must be"),
        ({"threshold": "0.5"}, "threshold must be"),
        ({"max_loss": 0}, "max_loss must be between 0 and 1"),
        ({"confidence": 1}, "confidence must be between 0 and 1"),
        ({"rows": 0}, "rows must be"),
        ({"rows": 1.5}, "rows must be"),
        ({"treshold": 0.5}, "unknown key"),
    ],
)
def test_rungs_that_are_none(change: dict[str, Any], said: str) -> None:
    with pytest.raises(PolicyError, match=said) as raised:
        validate({"version": 1, "rungs": {"small": {**GOOD, **change}}})
    assert "hint:" in str(raised.value)


@pytest.mark.parametrize("missing", sorted(GOOD))
def test_rungs_that_lack_something(missing: str) -> None:
    with pytest.raises(PolicyError, match=f"has no {missing}"):
        validate({"version": 1, "rungs": {"small": {key: value for key, value in GOOD.items() if key != missing}}})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe{", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "a JSON object"),
        (b'{"version": 2, "rungs": {}}', "version must be 1"),
        (b'{"version": true, "rungs": {}}', "version must be 1"),
        (b'{"version": 1}', "at least one rung"),
        (b'{"version": 1, "rungs": {}}', "at least one rung"),
        (b'{"version": 1, "rungs": {"a": 1}}', "rungs.a must be an object"),
        (b'{"version": 1, "rungs": {}, "more": 1}', "unknown key"),
    ],
)
def test_files_that_are_no_calibration(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "calibration.json"
    path.write_bytes(content)
    with pytest.raises(PolicyError, match=said) as raised:
        load(path)
    assert "hint:" in str(raised.value)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path, "nul\0byte"):
        with pytest.raises(PolicyError, match="cannot read the calibration"):
            load(path)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.sampled_from(["version", "rungs", "points", "threshold", "a"]), inner)
        ),
    )
)
def test_nonsense_is_a_policy_error_whatever_it_is(content: Any) -> None:
    for found in (
        content,
        {"version": 1, "rungs": content},
        {"version": 1, "rungs": {"a": {**GOOD, "points": content}}},
    ):
        try:
            validate(found)
        except PolicyError:
            pass


def test_reading_a_calibration_imports_nothing_heavy() -> None:
    names = "sqlite3", "csv", "numpy", "pyarrow", "pandas"
    code = (
        "import sys, farthing.exceptions; had = set(sys.modules); import farthing.calibrate;"
        f"print([name for name in {names} if name in set(sys.modules) - had])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
