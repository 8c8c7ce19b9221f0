"""The demo: its workload, its run against a scripted upstream, its bill."""

from __future__ import annotations

import json
import threading
from decimal import Decimal

import pytest
from packs import questions as questions_of
from upstream import Reply, Seen, Upstream, chat, chat_events

from farthing.demo import bill
from farthing.demo.run import Line, Outage, outage, run
from farthing.demo.workload import Ask, steps

# What the SDK's way of sending has nothing to do with.
pytestmark = pytest.mark.once


def asks() -> list[Ask]:
    return [ask for step in steps() for ask in step]


def test_the_workload() -> None:
    work = asks()
    different = {(ask.system, ask.user) for ask in work}
    assert 55 <= len(work) <= 65
    assert 0.4 < len(different) / len(work) < 0.7, "repeats, as real traffic has them"
    assert any(len(step) > 1 for step in steps())
    assert {ask.stream for ask in work} == {True, False}
    assert {ask.tag for ask in work} == {"support", "docs", "orders", "nightly"}
    for ask in work:
        assert ask.is_right(ask.expected), ask
        assert ask.is_right(f"{ask.expected.capitalize()}."), ask
        assert not ask.is_right(""), ask
        assert not ask.is_right("nonsense"), ask


@pytest.mark.parametrize(
    ("expected", "answer", "right"),
    [
        ("room", "The answer is room", True),
        ("room", "room or food", False),
        ("room", "bedroom", False),
        ("room", "rooms", False),
    ],
)
def test_labels(expected: str, answer: str, right: bool) -> None:
    ask = next(ask for ask in asks() if ask.expected == expected)
    assert ask.is_right(answer) is right


@pytest.mark.parametrize(("answer", "right"), [("4", True), ("4 times", True), ("45", False), ("6.4", False)])
def test_values(answer: str, right: bool) -> None:
    ask = next(ask for ask in asks() if ask.expected == "4")
    assert ask.is_right(answer) is right


def test_a_run(upstream: Upstream) -> None:
    """An upstream that knows every answer when it is dear, and one of two when it is cheap."""
    right = {(ask.system, ask.user): ask.expected for ask in asks()}
    questions = list(right)

    def script(seen: Seen, number: int) -> Reply:
        body = seen.json
        if packed := questions_of(body):
            answers = {str(at): right[body["messages"][0]["content"], asked] for at, asked in enumerate(packed, 1)}
            return Reply(body=chat(json.dumps(answers), model=body["model"]))
        place = (body["messages"][0]["content"], body["messages"][1]["content"])
        wrong = body["model"] == "cheap" and place in right and questions.index(place) % 2
        said = "nonsense" if wrong else right.get(place, "ready")
        if body.get("stream"):
            return Reply(pieces=chat_events(said, usage=True, model=body["model"]))
        return Reply(body=chat(said, model=body["model"]))

    upstream.script = script
    shown: list[tuple[str, int, int]] = []
    lines = run(upstream.url, "cheap", "dear", lambda *step: shown.append(step))
    plain, ours, route, escalate, compress, batch, cheap = lines
    total = len(asks())
    assert [line.requests for line in lines] == [total] * 7
    assert (plain.upstream, ours.upstream, cheap.upstream) == (total, len(right), total)
    assert (plain.right, ours.right) == (total, total)
    assert 0 < cheap.right < total
    # Nine prompt tokens and three completion tokens a call.
    assert plain.cost == Decimal("2.50") * 12 * total / 1_000_000
    assert ours.cost == Decimal("2.50") * 12 * len(right) / 1_000_000
    assert cheap.cost == Decimal("0.01") * 12 * total / 1_000_000
    assert ours.prompt_tokens == 9 * len(right)
    # All questions are easy by their looks; drafts come without logprobs here, and nothing else speaks against them.
    for line in (route, escalate):
        assert (line.upstream, line.right, line.cost) == (len(right), cheap.right, cheap.cost * len(right) / total)
    # The upstream here bills nine tokens, however long a prompt is.
    assert (compress.upstream, compress.right, compress.cost) == (len(right), total, ours.cost)
    # The night's first eight reviews come in one request; of two more, a pack does not pay.
    assert (batch.upstream, batch.right) == (len(right) - 7, total) and batch.cost < ours.cost
    beginnings = 4 * (5 + 2 * 2)
    assert upstream.calls == 2 * total + 4 * len(right) + batch.upstream + beginnings, (
        "and four to begin each line with, for each model"
    )
    assert shown[-1] == ("openai, cheap model", total, total)


def test_an_upstream_dies_and_nobody_notices(upstream: Upstream) -> None:
    right = {(ask.system, ask.user): ask.expected for ask in asks()}

    def script(seen: Seen, number: int) -> Reply:
        body = seen.json
        said = right[(body["messages"][0]["content"], body["messages"][1]["content"])]
        if body.get("stream"):
            return Reply(pieces=chat_events(said, usage=True, model=body["model"]))
        return Reply(body=chat(said, model=body["model"]))

    upstream.script = script
    dead = threading.Event()
    first = Upstream(lambda seen, number: Reply(cut_before=True) if dead.is_set() else script(seen, number))
    found = outage(first.url, upstream.url, "cheap", dead.set, lambda *step: None)
    first.close()
    total = len(asks())
    assert (found.requests, found.answered, found.right) == (total, total, total)
    assert first.calls >= total / 2 and 0 < upstream.calls == found.fallbacks < total


LINES = [
    Line("openai, dear model", "dear", 60, 60, 8000, 183, Decimal("0.0204575"), 22.8, 58),
    Line("farthing, dear model", "dear", 60, 31, 4000, 213, Decimal("0.0105325"), 11.4, 58),
    Line("openai, cheap model", "cheap", 60, 60, 8000, 182, Decimal("0.00008182"), 12.3, 45),
]


def test_the_bill_as_text() -> None:
    assert bill.as_text(LINES).splitlines() == [
        "                      requests  upstream  tokens         USD  seconds     right",
        "openai, dear model          60        60   8,183     $0.0205     22.8  58 of 60",
        "farthing, dear model        60        31   4,213     $0.0105     11.4  58 of 60",
        "openai, cheap model         60        60   8,182  $0.0000818     12.3  45 of 60",
        "",
        "farthing saved 48.5 % of the money and 50 % of the time",
        "models: dear = dear, cheap = cheap",
        "prices: cheap 0.01, dear 2.50 USD per million tokens",
    ]


def test_the_bill_says_what_each_stage_saved() -> None:
    chosen = Line("farthing, escalate", "auto", 60, 54, 7000, 183, Decimal("0.00511438"), 12.0, 57)
    said = bill.as_text([*LINES[:2], chosen, LINES[2]]).splitlines()
    assert said[7] == "with the stage escalate: 75.0 % of the money, 57 right"
    assert said[8] == "models: dear = dear, cheap = cheap"


def test_the_bill_of_an_outage() -> None:
    died = Outage("an upstream dies halfway", "cheap", 60, 60, 29, 45)
    assert bill.as_text(LINES, died).splitlines()[4:8] == [
        "",
        "                          requests  answered  fallbacks     right",
        "an upstream dies halfway        60        60         29  45 of 60",
        "",
    ]
    assert json.loads(bill.as_json(LINES, died))[-1]["fallbacks"] == 29


def test_the_bill_as_json() -> None:
    parsed = json.loads(bill.as_json(LINES))
    assert [line["cost"] for line in parsed] == ["0.0204575", "0.0105325", "0.00008182"]
    assert parsed[1]["upstream"] == 31
