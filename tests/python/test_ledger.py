"""The bill as a user reads it: exact money, tables that line up, nothing shown as 0 that is not 0."""

from __future__ import annotations

import json
import pickle
import re
import unicodedata
from dataclasses import fields
from decimal import Decimal, localcontext
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.ledger import Line, Savings, money

REPORT: dict[str, Any] = {
    "calls": 60,
    "hits": 20,
    "joined": 4,
    "misses": 33,
    "bypassed": 2,
    "errors": 1,
    "prompt_tokens": 12345,
    "completion_tokens": 678,
    "cached_tokens": 300,
    "saved_prompt_tokens": 5000,
    "saved_completion_tokens": 900,
    "spent": "0.030000000001",
    "saved": "0.011",
    "overhead": "0.001",
    "estimated_spent": "0.0000002",
    "estimated_saved": "0",
    "by_model": {
        "dear": {"calls": 30, "hits": 12, "prompt_tokens": 12600, "spent": "0.03", "saved": "0.01"},
        "cheap": {"calls": 29, "hits": 12, "prompt_tokens": 345, "saved_tokens": 5900, "spent": "0.000000045"},
        "home": {"calls": 1, "spent": None, "saved": None},
    },
    "by_tag": {"faq": {"calls": 60, "spent": "12.5", "saved": "1234.5"}},
    "by_stage": {},
    "unknown_prices": ["home"],
}


def columns(text: str) -> int:
    """How wide a terminal shows it."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) > 0 for c in text)


def bill(**values: Any) -> Savings:
    return Savings.from_json(json.dumps(values))


def test_a_bill_from_the_ledgers_report() -> None:
    savings = bill(**REPORT)
    assert (savings.calls, savings.hits, savings.joined, savings.saved_tokens) == (60, 20, 4, 5900)
    assert savings.spent == Decimal("0.030000000001") and savings.net == Decimal("0.010")
    assert savings.by_model["cheap"] == Line(29, 12, 345, 0, 5900, Decimal("0.000000045"), Decimal(0))
    assert savings.by_model["home"].spent is None
    assert savings.unknown_prices == ("home",)


def test_how_it_prints() -> None:
    assert str(bill(**REPORT)).split("\n") == [
        "calls      60: 20 hits, 4 joined, 33 misses, 2 bypassed, 1 errors",
        "tokens     12,345 prompt (300 cached upstream), 678 completion, 5,900 saved",
        "spent      $0.0300 + unknown   $0.000000200 of it estimated",
        "saved      $0.0110",
        "overhead   $0.00100",
        "net        $0.0100",
        "",
        "model  calls  hits  tokens  saved tokens          spent    saved",
        "dear      30    12  12,600             0  $0.0300        $0.0100",
        "cheap     29    12     345         5,900  $0.0000000450  $0.00",
        "home       1     0       0             0        unknown  unknown",
        "",
        "tag  calls  hits  tokens  saved tokens   spent      saved",
        "faq     60     0       0             0  $12.50  $1,234.50",
        "",
        "price unknown: home",
        'hint: models."home" = { input = 0.15, output = 0.60 } in the policy, in USD per million tokens',
    ]


def test_an_empty_bill_prints_too() -> None:
    assert str(Savings()).startswith("calls      0: 0 hits") and "$0.00" in str(Savings())
    assert "%" not in str(Savings())


def test_the_share_is_of_what_it_would_have_cost() -> None:
    savings = bill(spent="3", saved="2", overhead="1")
    assert "net        $1.00   25.0 % of what it would have cost" in str(savings)
    assert "net        -$1.00   -33.3 %" in str(bill(spent="4", saved="1", overhead="2"))
    assert "%" not in str(bill(spent="3", saved="2", unknown_prices=["m"])), "a share of an unknown sum is no share"


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (None, "unknown"),
        ("0", "$0.00"),
        ("-0", "$0.00"),
        ("0.000000000001", "$0.00000000000100"),
        ("0.0000123456", "$0.0000123"),
        ("0.012345", "$0.0123"),
        ("0.5", "$0.5000"),
        ("0.99999", "$1.0000"),
        ("1", "$1.00"),
        ("1234567.895", "$1,234,567.90"),
        ("-0.002", "-$0.00200"),
        ("9" * 40, None),
    ],
)
def test_money(amount: str | None, text: str | None) -> None:
    with localcontext() as context:
        context.prec = 2  # a caller's decimal context does not round a bill
        shown = money(None if amount is None else Decimal(amount))
    assert shown == text if text else shown.replace(",", "") == f"${'9' * 40}.00"


@given(st.integers(-(10**24), 10**24))
def test_money_is_never_zero_for_what_is_not(pico: int) -> None:
    shown = money(Decimal(pico).scaleb(-12))
    assert (Decimal(shown.replace("$", "").replace(",", "")) == 0) == (pico == 0)


@pytest.mark.parametrize("name", ["x" * 300, "漢字" * 60, "a/" * 90, "e\u0301" * 90])
def test_tables_fit_into_100_columns_whatever_the_names(name: str) -> None:
    line = {"calls": 10**6, "hits": 10**6, "prompt_tokens": 10**9, "saved_tokens": 10**9}
    rows = {name: line | {"spent": "0.000000000001"}, "b": line | {"spent": "99999.99", "saved": "0.000012"}}
    text = str(bill(by_model=rows, by_tag=rows, unknown_prices=[f"model-{i}" for i in range(30)]))
    assert all(columns(row) <= 100 for row in text.split("\n"))
    assert "..." in text and "and 10 more" in text


def test_long_tables_are_summed_up() -> None:
    tags = {f"tag-{i:03}": {"calls": 1, "spent": "0.01"} for i in range(50)}
    rows = str(bill(by_tag=tags)).split("\n")
    assert rows[-1].split() == ["(30", "more)", "30", "0", "0", "0", "$0.3000", "$0.00"]
    assert len(bill(by_tag=tags).by_tag) == 50


def test_names_cannot_write_to_the_terminal_or_into_the_page() -> None:
    name = '<script>alert("1")</script>\x1b[31m\n&'
    savings = bill(by_model={name: {"calls": 1}}, by_tag={name: {}}, unknown_prices=[name])
    assert "\x1b" not in str(savings) and "?[31m?&" in str(savings)
    html = savings._repr_html_()
    assert "<script" not in html and "&lt;script&gt;" in html and html.count("<table") == 3 == html.count("</table>")
    assert re.search(r"<td[^>]*>\$0\.00</td>", html)


@pytest.mark.parametrize(
    "text",
    ["{}", '{"a_key_of_tomorrow": {}}', '{"spent": null, "by_model": null, "unknown_prices": null, "calls": null}']
    + ['{"spent": "x", "calls": "y", "by_model": [], "by_tag": {"a": 5}, "saved": "NaN", "unknown_prices": 5}'],
)
def test_a_report_of_another_version_is_read(text: str) -> None:
    savings = Savings.from_json(text)
    assert savings.calls == 0 and savings.spent == savings.saved == savings.net == 0
    assert str(savings)


@pytest.mark.parametrize("text", ["", "[]", "5", "{"])
def test_what_is_no_report(text: str) -> None:
    with pytest.raises(ValueError):
        Savings.from_json(text)


def test_a_number_in_the_report_is_not_rounded_either() -> None:
    assert Savings.from_json('{"saved": 123456789.000000000001}').saved == Decimal("123456789.000000000001")


COUNT = st.integers(0, 10**12)
MONEY = st.integers(0, 10**18).map(lambda n: str(Decimal(n).scaleb(-12)))
LINE = st.fixed_dictionaries({"calls": COUNT, "spent": st.none() | MONEY}, optional={"saved": MONEY, "hits": COUNT})
LINES = st.dictionaries(st.sampled_from(["a", "b", "c", ""]), LINE)
BILL = st.fixed_dictionaries(
    {"calls": COUNT, "spent": MONEY, "saved": MONEY, "overhead": MONEY},
    optional={
        "prompt_tokens": COUNT,
        "by_model": LINES,
        "by_tag": LINES,
        "unknown_prices": st.lists(st.sampled_from(["x", "y"])),
    },
).map(lambda values: bill(**values))


@given(BILL, BILL, BILL)
def test_bills_add_up_exactly(a: Savings, b: Savings, c: Savings) -> None:
    with localcontext() as context:
        context.prec = 1
        total = sum([a, b, c], Savings())
        assert (a + b) + c == a + (b + c) == total == sum([a, b, c])
        assert a + b == b + a and a + Savings() == a
    assert total.spent == a.spent + b.spent + c.spent and total.calls == a.calls + b.calls + c.calls
    assert set(total.unknown_prices) == {*a.unknown_prices, *b.unknown_prices, *c.unknown_prices}
    assert str(total) and total._repr_html_()


@given(BILL)
def test_to_dict_is_plain_and_reads_back(savings: Savings) -> None:
    values = savings.to_dict()
    assert Savings.from_json(json.dumps(values)) == savings == pickle.loads(pickle.dumps(savings))
    assert {f.name for f in fields(Savings)} | {"saved_tokens", "net"} == set(values)


def test_only_bills_can_be_added() -> None:
    with pytest.raises(TypeError):
        Savings() + 1  # type: ignore[operator]
    with pytest.raises(TypeError):
        1 + Savings()
