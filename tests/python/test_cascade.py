"""`farthing cascade`: answers of several models in, what two that agree would save out."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from farthing.cascade import Columns, answers, compare, prices
from farthing.cli import cli
from farthing.exceptions import DataError

pytestmark = pytest.mark.once

PRICES = {"one": (0.0, 1.0), "two": (0.0, 2.0), "dear": (0.0, 20.0)}


def rows(count: int = 400, **changes: Any) -> list[dict[str, Any]]:
    """Two cheap models that are right on the easy half, and each wrong in its own way on the other; a dear one that is
    always right."""
    draw = random.Random(3)
    found = []
    for number in range(count):
        easy = draw.random() < 0.5
        for model in PRICES:
            right = easy or model == "dear"
            said = f"{number}.0" if model == "two" else str(number)
            row = {"question": f"q{number}", "model": model, "answer": said if right else f"wrong {model}"}
            found.append({**row, "correct": right, "output_tokens": 1000, **changes})
    return found


def run(path: Path, found: list[dict[str, Any]], *arguments: str) -> Result:
    path.write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")
    given = [f"--price={name}={into},{out}" for name, (into, out) in PRICES.items()]
    return CliRunner().invoke(cli, ["cascade", str(path), *given, *arguments])


def compared(found: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
    return compare(answers(found, Columns(), PRICES), **options)


def test_two_that_agree_save_what_the_dear_one_need_not_answer() -> None:
    found = compared(rows())
    (line,) = found["lines"]
    assert (found["chosen_on"], found["reported"]) == (200, 200)
    assert (line["dear"], line["accuracy"], line["single"]) == ("dear", 1.0, None)
    pair = line["pair"]
    # 12 and 12.0 are one answer; the taken one is the cheaper model's.
    assert pair["models"] == ["one", "two"]
    assert pair["difference"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    # Half are agreed on at 3 of 20; the others cost 23.
    assert pair["saved"]["value"] == pytest.approx(pair["agreed"] - 3 / 20)
    assert pair["saved"]["low"] < pair["saved"]["value"] < pair["saved"]["high"]


def test_a_single_model_that_is_as_good_is_named() -> None:
    (line,) = compared(rows(correct=True))["lines"]
    assert line["single"]["models"] == ["one"]
    assert line["single"]["saved"]["value"] == pytest.approx(0.95)
    assert line["single"]["saved"]["value"] > line["pair"]["saved"]["value"]


def test_models_that_agree_on_nothing_or_on_what_is_wrong_are_no_pair() -> None:
    assert compared(rows(answer=None))["lines"][0]["pair"] is None
    assert compared([row | {"answer": "7"} for row in rows()])["lines"][0]["pair"] is None


@pytest.mark.parametrize(
    ("one", "two", "agree"),
    [
        ("12", "12.0", True),
        ("1,000", "1000", True),
        (" a  b ", "a b", True),
        ("'a'", "'A'", False),
        ("caf\u00e9", "cafe", False),
        ("1" * 5000, "1" * 5000 + ".0", False),
        ("1e999999", "1e999999", True),
        ("NaN", "NaN", True),
        ("", "", False),
        (None, None, False),
        ("[1, 2]", "[1,2]", False),
    ],
)
def test_which_answers_agree(one: str | None, two: str | None, agree: bool) -> None:
    found = [row | {"answer": one if row["model"] == "one" else two, "correct": True} for row in rows(40)]
    assert (compared(found)["lines"][0]["pair"] is not None) == agree


def test_what_it_prints(tmp_path: Path) -> None:
    done = run(tmp_path / "rows.jsonl", rows())
    assert done.exit_code == 0, done.output
    assert "chosen on 200 questions" in done.output and "reported on 200 others" in done.output
    assert "two that agree, else it: one + two" in done.output
    assert "one cheaper model alone: none keeps" in done.output
    done = run(tmp_path / "rows.jsonl", rows(), "--json", "--dear", "dear", "--cheap", "one", "--cheap", "two")
    assert [line["dear"] for line in json.loads(done.output)["lines"]] == ["dear"]
    assert compared(rows()) == compared(rows())


def test_a_model_that_answered_little_is_left_out_and_said(tmp_path: Path) -> None:
    some = [row | {"model": "few"} for row in rows(100) if row["model"] == "one"]
    done = run(tmp_path / "rows.jsonl", rows() + some, "--price", "few=1,1")
    assert "left out, for they answered too few of the questions: few" in done.output


@pytest.mark.parametrize(
    ("change", "arguments", "said"),
    [
        ({}, ["--answer", "none"], "no such column in row 1: none"),
        ({}, ["--dear", "none"], "no priced answers of this model: none"),
        ({}, ["--price", "x=1"], "not a price"),
        ({}, ["--price", "x=1,nan"], "not a price"),
        ({}, ["--price", "1,2"], "not a price"),
        ({}, ["--prices", "/no/such/file"], "cannot read the prices"),
        ({"output_tokens": -1}, [], "must be a number of tokens"),
        ({"correct": 3}, [], "correct must be 0 to 1"),
        ({"question": "one"}, [], "too few models or questions"),
        ({"model": "one"}, [], "too few models or questions"),
        ({"output_tokens": None}, [], "too few models or questions"),
    ],
)
def test_what_cannot_be_compared(tmp_path: Path, change: dict[str, Any], arguments: list[str], said: str) -> None:
    done = run(tmp_path / "rows.jsonl", rows(**change), *arguments)
    assert done.exit_code == 1
    assert said in done.output


def test_prices_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "prices.json"
    path.write_text('{"a": [1, 2], "b": [3, 4]}')
    assert prices(str(path), ["b=5,6"]) == {"a": (1.0, 2.0), "b": (5.0, 6.0)}
    for text in ("[]", "{", '{"a": 1}', '{"a": [1, 2, 3]}'):
        path.write_text(text)
        with pytest.raises(DataError):
            prices(str(path), [])
