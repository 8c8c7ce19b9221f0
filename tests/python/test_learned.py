"""`farthing calibrate --router`: what a router learned, and whether it is worth anything."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from farthing.cli import cli
from farthing.evaluate import Columns
from farthing.learned import learn, verdict, weights

pytestmark = pytest.mark.once

COLUMNS = Columns(prompt="prompt", cheap="small", dear="large")


def outcomes(count: int = 800, hardness: bool = True) -> list[dict[str, Any]]:
    """A cheap model that fails on proofs; or anywhere, whatever is asked."""
    draw = random.Random(4)
    rows = []
    for number in range(count):
        hard = draw.random() < 0.5
        prompt = f"Prove theorem {number} step by step" if hard else f"What is the capital of country {number}?"
        fails = hard if hardness else draw.random() < 0.5
        rows.append({"prompt": prompt, "small": not fails, "large": draw.random() < 0.95})
    return rows


def run(path: Path, rows: list[dict[str, Any]], *more: str) -> Result:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = ["calibrate", str(path), "--router", "--cheap", "small", "--dear", "large", *more]
    return CliRunner().invoke(cli, asked)


def test_a_router_that_learned_something(tmp_path: Path) -> None:
    out = tmp_path / "router.json"
    done = run(tmp_path / "rows.jsonl", outcomes(), "--write", str(out))
    assert done.exit_code == 0, done.output
    assert done.output.startswith("learned from 600 questions, reported on 200 others")
    written = json.loads(out.read_text())
    assert list(written) == ["version", "cheap", "dear"]
    assert written["version"] == 1
    assert list(written["cheap"]) == ["bias", "features", "words"]
    assert out.stat().st_size < 100_000
    assert json.loads(run(tmp_path / "rows.jsonl", outcomes(), "--json").output)["fitted"] == 600


def test_a_router_that_is_no_better_than_random_is_said(tmp_path: Path) -> None:
    done = run(tmp_path / "rows.jsonl", outcomes(hardness=False))
    assert "no better than random" in done.output.splitlines()[-1]


def test_a_dear_model_that_is_no_better_is_said(tmp_path: Path) -> None:
    rows = [row | {"large": row["small"]} for row in outcomes()]
    assert "nothing to route for" in run(tmp_path / "rows.jsonl", rows).output.splitlines()[-1]


def test_no_prompt_is_learned_from_and_reported_on() -> None:
    rows = outcomes(100)
    found = learn([*rows, *rows, {**rows[0], "small": None}], COLUMNS)
    assert found["fitted"] + found["report"]["rows"] == 100
    assert (found["repeated"], found["report"]["left_out"]) == (100, 1)
    assert weights(found) == weights(learn(rows, COLUMNS))


def interval(low: float, value: float, high: float) -> dict[str, float]:
    return {"low": low, "value": value, "high": high}


@pytest.mark.parametrize(
    ("learned", "length", "said"),
    [
        (interval(0.4, 0.6, 0.8), 0.5, "no better than random"),
        (interval(0.2, 0.3, 0.4), 0.5, "worse than random"),
        (interval(0.6, 0.7, 0.8), 0.75, "not better than sending the longest"),
        (interval(0.6, 0.7, 0.8), 0.55, "The router is better than random."),
    ],
)
def test_the_verdict(learned: dict[str, float], length: float, said: str) -> None:
    lines = [
        {"name": "learned", "measures": {"apgr": learned}},
        {"name": "prompt length", "measures": {"apgr": interval(length, length, length)}},
    ]
    assert said in verdict({"gain": interval(0.1, 0.2, 0.3), "lines": lines})


@pytest.mark.parametrize("arguments", [["--router"], ["--cheap", "small"]])
def test_router_and_cheap_go_together(tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "rows.csv").write_text("prompt,small,large\n")
    assert CliRunner().invoke(cli, ["calibrate", str(tmp_path / "rows.csv"), *arguments]).exit_code == 2


def test_too_few(tmp_path: Path) -> None:
    done = run(tmp_path / "rows.jsonl", outcomes(10) * 20)
    assert done.exit_code == 1
    assert "too few prompts to learn from: 10" in done.output
