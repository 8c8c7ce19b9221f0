"""`farthing evaluate`: files of outcomes in, measures out."""

from __future__ import annotations

import csv
import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from farthing.cli import cli
from farthing.evaluate import Columns, compare, read
from farthing.exceptions import DataError

pytestmark = pytest.mark.once

COLUMNS = Columns(prompt="prompt", cheap="small", dear="large")
ASK = ["--cheap", "small", "--dear", "large", "--labels", "100"]


def outcomes(count: int = 400) -> list[dict[str, Any]]:
    """A cheap model that fails on proofs, where the dear one does not."""
    draw = random.Random(4)
    rows = []
    for number in range(count):
        hard = draw.random() < 0.5
        prompt = f"Prove theorem {number} step by step" if hard else f"What is the capital of country {number}?"
        rows.append({"prompt": prompt, "small": not hard or draw.random() < 0.2, "large": draw.random() < 0.95})
    return rows


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        with gzip.open(path, "wt") if path.suffix == ".gz" else path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return str(path)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv", "rows.csv.gz"])
def test_a_router_learns_what_the_cheap_model_cannot(tmp_path: Path, name: str) -> None:
    found = compare(read(write(tmp_path / name, outcomes())), COLUMNS, [100, 10_000])
    measured = {(line["name"], line["labels"]): line["measures"]["apgr"]["value"] for line in found["lines"]}
    assert measured["random", 0] == pytest.approx(0.5)
    assert measured["learned", 100] > 0.7
    # No more labels than there are in the other folds.
    assert measured["learned", 320] > 0.7
    assert measured["oracle", 0] > measured["learned", 320]
    assert (found["rows"], found["left_out"]) == (400, 0)


def test_the_same_rows_give_the_same_figures() -> None:
    assert compare(outcomes(), COLUMNS, [50]) == compare(outcomes(), COLUMNS, [50])


def test_rows_without_an_outcome_are_counted_and_left_out() -> None:
    rows = outcomes(50)
    rows[3]["small"] = None
    rows[4]["large"] = ""
    found = compare(rows, COLUMNS, [])
    assert (found["rows"], found["left_out"]) == (48, 2)


def test_costs_are_on_the_curve() -> None:
    rows = [row | {"pay": 1, "pay_more": "10"} for row in outcomes()]
    found = compare(rows, Columns("prompt", "small", "large", None, "pay", "pay_more"), [])
    assert [round(point["cost"], 6) for point in found["lines"][0]["curve"]] == [1 + 0.9 * n for n in range(11)]


def test_what_it_prints(tmp_path: Path) -> None:
    file = write(tmp_path / "rows.jsonl", outcomes())
    done = CliRunner().invoke(cli, ["evaluate", file, *ASK])
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert lines[0] == "400 questions; 95 % intervals by the bootstrap"
    assert any(line.startswith("learned            100  0.") for line in lines)
    done = CliRunner().invoke(cli, ["evaluate", file, *ASK, "--json"])
    assert json.loads(done.output)["rows"] == 400


def test_a_dear_model_that_is_no_better_is_said(tmp_path: Path) -> None:
    rows = [row | {"large": row["small"]} for row in outcomes(100)]
    done = CliRunner().invoke(cli, ["evaluate", write(tmp_path / "rows.csv", rows), *ASK])
    assert "nothing to route for" in done.output
    assert "never" in done.output


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("rows.xlsx", "", "unknown kind of file"),
        ("rows.jsonl", '{"prompt": 1', "line 1"),
        ("rows.jsonl", "[1]", "not a JSON object"),
        ("rows.csv", "prompt,small\nx,1\n", "no such column in row 1: large"),
        ("rows.csv", "prompt,small,large\nx,1,7\n", "large must be 0 to 1"),
        ("rows.csv", "prompt,small,large\nx,1,maybe\n", "large must be 0 to 1"),
        ("rows.csv", "prompt,small,large\nx,1,1\n", "too few rows"),
        ("rows.csv", "", "too few rows"),
        ("rows.csv.gz", "no gzip", "cannot read"),
        ("rows.parquet", "no parquet", "parquet"),
    ],
)
def test_files_that_are_none(tmp_path: Path, name: str, text: str, said: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    done = CliRunner().invoke(cli, ["evaluate", str(path), *ASK])
    assert done.exit_code == 1
    assert said in done.output
    with pytest.raises(DataError):
        compare(read(str(path)), COLUMNS, [])


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["evaluate", str(tmp_path / "rows.csv"), *ASK])
    assert done.exit_code == 1
    assert "No such file" in done.output
