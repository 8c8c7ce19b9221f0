"""What drafts are compared by, what they teach, and what they cost: mistakes that a review found."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from conftest import Face
from ladder import LARGE, QUESTION, SMALL, World, ask, balances, until
from upstream import Reply, Seen, answer

import farthing

pytestmark = [pytest.mark.once, pytest.mark.filterwarnings("ignore::farthing.FarthingWarning")]

LONG = "Water boils at 100 degrees Celsius at sea level, and at less where the air is thinner, on a mountain say. " * 2
TOOLS = [{"type": "function", "function": {"name": "boil", "parameters": {"type": "object", "properties": {}}}}]


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.server.close()


def calls_tool(arguments: str) -> Any:
    return lambda seen, number: answer(seen, "", [("call_1", "boil", arguments)])


@pytest.mark.parametrize("dear", [LONG, LONG + "Salt changes that."])
def test_long_answers_have_no_quality_without_a_judge(face: Face, world: World, dear: str) -> None:
    """If only those that agree had one, all drafts would seem good."""
    world.says = {"small": LONG, "large": dear}
    client = world.client(face, shadow=1.0)
    ask(face, client)
    until(lambda: world.models == ["small", "large"] and client.savings().spent == SMALL + LARGE)
    assert client.savings().shadowed == 0 and client.labels() == []
    assert "quality" not in str(client.savings())


def test_long_answers_that_were_rejected_have_none_either(face: Face, world: World) -> None:
    world.says = {"small": LONG, "large": LONG}
    client = world.client(face, scorer=lambda draft: 0.1)
    ask(face, client)
    assert [label.good for label in client.labels()] == [None]


@pytest.mark.parametrize(("dear", "good"), [('{ "t": 1.0 }', 1.0), ('{"t": 2}', 0.0)])
def test_calls_of_tools_are_compared_by_what_they_ask_for(face: Face, world: World, dear: str, good: float) -> None:
    world.says = {"small": calls_tool('{"t": 1.0}'), "large": calls_tool(dear)}
    client = world.client(face, shadow=1.0)
    ask(face, client, tools=TOOLS)
    until(lambda: client.savings().shadowed == 1)
    assert client.savings().shadowed_good == good
    assert [label.good for label in client.labels()] == [good]


@pytest.mark.parametrize(("other", "accepted"), [('{"t": 1}', True), ('{"t": 2}', False)])
def test_models_agree_on_calls_of_tools(face: Face, world: World, other: str, accepted: bool) -> None:
    world.says = {name: calls_tool('{"t": 1}') for name in ("small", "large")} | {"other": calls_tool(other)}
    client = world.client(face, scorer="agreement", agreement={"models": ["other"]}, thresholds=1.0)
    assert ask(face, client, tools=TOOLS).rungs[0] == ("small", accepted)


def test_the_worst_of_several_answers_counts(face: Face, world: World) -> None:
    def two(seen: Seen, number: int) -> Reply:
        reply = answer(seen, "It boils at 100 degrees.")
        second = {**reply.body["choices"][0], "index": 1}
        second["message"] = {**second["message"], "content": "GARBAGE"}
        reply.body["choices"].append(second)
        return reply

    world.says = {
        "small": two,
        "large": two,
        "judge": lambda seen, _: answer(seen, "0" if "GARBAGE" in str(seen.json) else "9"),
    }
    client = world.client(face, scorer="judge", judge={"model": "judge"})
    said = ask(face, client, n=2)
    assert said.receipt.rungs[0].scores["judge"] == 0.0
    assert said.rungs == [("small", False), ("large", True)]
    assert len(said.items[0].choices) == 2


def test_agreement_asks_the_others_for_one_answer(face: Face, world: World) -> None:
    world.says = {"other": "It boils at 100 degrees."}
    client = world.client(face, scorer="agreement", agreement={"models": ["other"]})
    ask(face, client, n=3)
    assert [asked["n"] for asked in world.asked("other")] == [1]


@pytest.mark.parametrize("kind", ["no choices", "cut stream"])
def test_a_draft_that_fails_is_paid_for(face: Face, world: World, kind: str) -> None:
    def fails(seen: Seen, number: int) -> Reply:
        reply = answer(seen, "It boils")
        if kind == "no choices":
            reply.body["choices"] = []
            return reply
        assert reply.pieces is not None
        return Reply(pieces=list(reply.pieces)[:-2], cut=True)

    world.says = {"small": fails}
    client = world.client(face)
    said = ask(face, client, way="streamed" if kind == "cut stream" else "plain")
    bill = client.savings()
    assert said.rungs == [("small", False), ("large", True)]
    assert said.receipt.overhead == bill.overhead
    assert bill.overhead > 0
    assert said.receipt.cost == bill.spent


def test_agreement_is_not_asked_beyond_the_limit_of_money(face: Face, world: World) -> None:
    client = world.client(face, scorer="agreement", agreement={"models": [], "samples": 20}, max_cost="0.00011")
    said = ask(face, client, max_tokens=3)
    assert world.models == ["small"] and said.rungs == [("small", True)]
    assert said.receipt.cost == SMALL
    assert "max_cost" in "; ".join(said.receipt.notes)


def test_a_conversation_stays_with_the_rung_that_answered(face: Face, world: World) -> None:
    world.says = {"small": "I'm sorry, but I can't help with that."}
    route = {"models": ["auto"], "tiers": {"easy": "small", "hard": "large"}, "default": "easy"}
    client = world.client(face, more={"route": route})
    first = ask(face, client)
    world.says = {}
    messages = [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": first.text},
        {"role": "user", "content": "And on a mountain?"},
    ]
    made = face.run(lambda: client.chat.completions.create(model="auto", messages=messages))
    receipt = farthing.receipt(made)
    assert first.rungs[-1] == ("large", True)
    assert receipt is not None and receipt.route is not None
    assert (receipt.route.tier, receipt.route.by) == ("hard", "affinity")
    assert world.models == ["small", "large", "large"]
    balances(client, world)
    assert client.savings().overhead == Decimal(SMALL)
