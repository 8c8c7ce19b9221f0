"""Budgets where the policy has other upstreams: each attempt is booked by itself, and a reload forgets nothing."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import openai
import pytest
from conftest import MESSAGES, Face, text
from test_fallback import World, fails
from test_reload import File
from upstream import Reply, Seen, chat, chat_events

import farthing
from farthing import BudgetExceeded

DEAR = {"input": 10, "output": 20}
CHEAP = {"input": 1, "output": 2}
COST = Decimal("0.00015")
ASK: dict[str, Any] = {"model": "test-model", "messages": MESSAGES, "max_tokens": 500}


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    for server in (made.first, made.second, made.third):
        server.script = lambda seen, number: Reply(body=chat(model=seen.json["model"]))
    yield made
    made.close()


@pytest.fixture
def file(tmp_path: Any) -> File:
    return File(tmp_path / "farthing.toml")


def client_of(world: World, face: Face, *budgets: dict[str, Any]) -> Any:
    models = {"test-model": {**DEAR, "fallback": ["model-2"]}, "real-2": CHEAP}
    return world.client(face, policy=world.policy(budget=budgets, models=models, cache=False))


def by_subject(client: Any) -> dict[str, tuple[Decimal, Decimal, Decimal]]:
    return {line.subject: (line.spent, line.reserved, line.unknown) for line in client.budget()}


def test_a_fallback_is_booked_as_what_it_is(face: Face, world: World) -> None:
    world.first.script = fails(500)
    client = client_of(world, face, {"limit": 1, "per": "model"})
    made = face.chat(client, max_tokens=50)
    assert made.model == "real-2"
    assert by_subject(client) == {"model=test-model": (0, 0, 0), "model=real-2": (COST / 10, 0, 0)}


def test_a_budget_is_no_reason_for_a_fallback(face: Face, world: World) -> None:
    client = client_of(world, face, {"limit": "0.001"})
    with pytest.raises(BudgetExceeded):
        face.chat(client, max_tokens=500)
    assert world.calls == (0, 0, 0)


def test_a_fallback_that_does_not_fit_is_not_asked(face: Face, world: World) -> None:
    world.first.script = fails(503)
    client = client_of(world, face, {"limit": "0.00001", "model": "real-2"})
    with pytest.raises(openai.InternalServerError):
        face.chat(client, max_tokens=50)
    assert world.calls == (1, 0, 0)


def down(to: str, limit: str = "0.002") -> dict[str, Any]:
    return {"limit": limit, "action": "downgrade", "to": to}


def test_a_cheaper_model_at_the_same_upstream(face: Face, world: World) -> None:
    models = {"real-2": DEAR, "small-2": {**CHEAP, "upstream": "second"}}
    client = world.client(face, policy=world.policy(budget=[down("small-2")], models=models, cache=False))
    made = face.chat(client, model="model-2", max_tokens=500)
    assert made.model == "small-2" and world.calls == (0, 1, 0)
    assert world.keys() == {"second: Bearer sk-second"}


@pytest.mark.parametrize("stream", [False, True])
def test_a_cheaper_model_at_another_upstream(face: Face, world: World, stream: bool) -> None:
    """It is asked there, with the key and in the words of that upstream, and paid for at its price."""
    if stream:
        world.second.script = lambda seen, number: Reply(pieces=chat_events("pong", model="real-2"))
    aliases = {"cheap": {"model": "real-2", "upstream": "second", "parameters": {"temperature": 0}}}
    models = {"test-model": DEAR, "real-2": CHEAP}
    policy = world.policy(budget=[down("cheap")], models=models, aliases=aliases, cache={"name": f"down {stream}"})
    client = world.client(face, policy=policy)
    made = face.run(lambda: client.chat.completions.create(**ASK, stream=stream))
    if stream:
        assert text(face.items(made)) == "pong"
    assert world.calls == (0, 1, 0)
    assert world.keys() == {"second: Bearer sk-second"}
    asked = world.second.seen[0].json
    assert (asked["model"], asked["temperature"]) == ("real-2", 0)
    receipt = farthing.receipt(made)
    assert receipt is not None and receipt.answered is not None
    assert (receipt.upstream, receipt.answered.model) == ("second", "real-2")
    assert receipt.notes[0] == 'the budget "total" has no room for test-model: real-2 was asked'
    assert client.budget()[0].spent == receipt.cost and receipt.cost is not None and receipt.cost < COST
    # It is not test-model's answer for anybody else.
    face.run(lambda: client.chat.completions.create(**ASK, stream=stream))
    assert world.calls == (0, 2, 0)


def test_a_cheaper_model_at_the_clients_own_upstream(face: Face, world: World) -> None:
    models = {"real-2": DEAR, "small": CHEAP}
    client = world.client(face, policy=world.policy(budget=[down("small")], models=models, cache=False))
    made = face.chat(client, model="model-2", max_tokens=500)
    assert made.model == "small" and world.calls == (1, 0, 0)
    assert world.keys() == {"first: Bearer sk-first"}


def test_a_cheaper_model_elsewhere_that_does_not_fit_either(face: Face, world: World) -> None:
    models = {"test-model": DEAR, "real-2": {**CHEAP, "upstream": "second"}}
    client = world.client(face, policy=world.policy(budget=[down("real-2", "0.0001")], models=models, cache=False))
    with pytest.raises(BudgetExceeded):
        face.chat(client, max_tokens=500)
    assert world.calls == (0, 0, 0)
    assert [(line.spent, line.reserved, line.unknown) for line in client.budget()] == [(0, 0, 0)]


def test_two_budgets_that_name_each_others_models(face: Face, world: World) -> None:
    """Nobody goes in a circle."""
    models = {"test-model": DEAR, "real-2": {**DEAR, "upstream": "second"}}
    there = {**down("real-2", "0.00001"), "model": "test-model"}
    back = {**down("test-model", "0.00001"), "model": "real-2"}
    client = world.client(face, policy=world.policy(budget=[there, back], models=models, cache=False))
    with pytest.raises(BudgetExceeded):
        face.chat(client, max_tokens=500)
    assert world.calls == (0, 0, 0)


@pytest.mark.parametrize("more", [{}, {"extra_query": {"a": "b"}}], ids=["plain", "the SDK's"])
def test_a_name_beside_a_cheaper_model_elsewhere(face: Face, world: World, more: dict[str, Any]) -> None:
    """An alias that is nothing but a name is resolved, whatever a budget may do with the call."""
    aliases = {"chat": "real-1", "cheap": {"model": "real-2", "upstream": "second"}}
    policy = world.policy(budget=[down("cheap", "1")], aliases=aliases, models={"real-1": DEAR, "real-2": CHEAP})
    client = world.client(face, policy=policy)
    assert face.chat(client, model="chat", max_tokens=50, **more).model == "real-1"
    assert world.calls == (1, 0, 0) and world.first.seen[0].json["model"] == "real-1"


def test_a_cheaper_model_has_its_own_price(face: Face, world: World) -> None:
    """Not that of the name that was asked for, if it has one under its own name in the policy only."""
    aliases, models = {"small": "real-s"}, {"test-model": DEAR, "small": CHEAP}
    client = world.client(
        face, policy=world.policy(budget=[down("small")], aliases=aliases, models=models, cache=False)
    )
    made = face.chat(client, max_tokens=500)
    receipt = farthing.receipt(made)
    assert made.model == "real-s" and receipt is not None and receipt.cost == COST / 10
    assert client.budget()[0].spent == COST / 10


def test_a_cheaper_model_in_place_of_a_fallback(face: Face, world: World) -> None:
    """It is asked in its own words, not in those of the fallback that had no room."""
    world.first.script = fails(503)
    adapt = {"rename": {"max_tokens": "max_completion_tokens"}, "roles": {"user": "developer"}, "drop": ["seed"]}
    policy = world.policy(
        aliases={
            "big": {"model": "real-2", "upstream": "second", "adapt": adapt, "parameters": {"reasoning_effort": "low"}},
            "cheap": {"model": "real-3", "upstream": "third"},
        },
        models={"test-model": {**CHEAP, "fallback": ["big"]}, "real-2": DEAR, "real-3": CHEAP},
        budget=[down("cheap")],
        cache=False,
    )
    made = face.chat(world.client(face, policy=policy), max_tokens=500, seed=1)
    assert made.model == "real-3" and world.calls == (1, 0, 1)
    assert world.third.seen[0].json == {"model": "real-3", "messages": MESSAGES, "max_tokens": 500, "seed": 1}


@pytest.mark.parametrize("elsewhere", [False, True])
def test_the_budget_of_a_model_holds_for_what_takes_its_place(face: Face, world: World, elsewhere: bool) -> None:
    there = {"upstream": "second"} if elsewhere else {}
    models = {"test-model": DEAR, "real-2": {**CHEAP, **there}}
    budget = {**down("real-2", "0.0012"), "model": "test-model"}
    client = world.client(face, policy=world.policy(budget=[budget], models=models, cache=False))
    face.chat(client, max_tokens=500)
    assert client.budget()[0].spent == COST / 10
    with pytest.raises(BudgetExceeded):
        face.chat(client, max_tokens=5000)
    assert sum(world.calls) == 1


def test_a_cheaper_model_whose_key_does_not_come(face: Face, world: World) -> None:
    """Nobody else is asked for it."""

    def key() -> str:
        raise RuntimeError("no key")

    policy = world.policy(
        upstreams={"second": {"base_url": world.second.url, "api_key": key}},
        aliases={"cheap": {"model": "real-2", "upstream": "second"}},
        models={"test-model": DEAR, "real-2": CHEAP},
        budget=[down("cheap")],
        cache=False,
    )
    with pytest.raises(BudgetExceeded):
        face.chat(world.client(face, policy=policy), max_tokens=500)
    assert world.calls == (0, 0, 0)


def test_a_reload_forgets_nothing(face: Face, world: World, file: File) -> None:
    def text(limit: str) -> str:
        prices = "[models.test-model]\ninput = 10\noutput = 20\n"
        return f"{prices}[[budget]]\nlimit = {limit}\n"

    file.write(text("0.005"))
    client = face.client(world.first, policy=str(file.path))
    face.chat(client, max_tokens=50)
    file.write(text("0.0001"))
    client.reload()
    assert [(line.spent, line.limit) for line in client.budget()] == [(COST, Decimal("0.0001"))]
    with pytest.raises(BudgetExceeded):
        face.chat(client, max_tokens=50, seed=1)
    file.write(text("0.01"))
    client.reload()
    face.chat(client, max_tokens=50, seed=1)
    assert client.budget()[0].spent == 2 * COST


def test_a_reload_with_another_cache_forgets_nothing(face: Face, world: World, file: File) -> None:
    def text(ttl: str) -> str:
        return f'[models.test-model]\ninput = 10\noutput = 20\n[[budget]]\nlimit = 1\n[cache]\nttl = "{ttl}"\n'

    file.write(text("1h"), cache="")
    client = face.client(world.first, policy=str(file.path))
    face.chat(client, max_tokens=50)
    spent = client.budget()[0].spent
    file.write(text("2h"), cache="")
    client.reload()
    assert spent >= COST and client.budget()[0].spent == spent


def test_calls_are_not_lost_when_they_are_many(face: Face, world: World) -> None:
    """Over two upstreams, one of which fails every second time: what was billed is what was booked."""
    billed = {"first": 0, "second": 0}

    def flaky(seen: Seen, number: int) -> Reply:
        if number % 2:
            return Reply(500, {"error": {"message": "no"}}, {"retry-after-ms": "1"})
        billed["first"] += 1
        return Reply(body=chat(model=seen.json["model"]))

    def steady(seen: Seen, number: int) -> Reply:
        billed["second"] += 1
        return Reply(body=chat(model=seen.json["model"]))

    world.first.script, world.second.script = flaky, steady
    client = client_of(world, face, {"limit": 1})

    def call(number: int) -> Any:
        return lambda: client.chat.completions.create(model="test-model", messages=MESSAGES, max_tokens=50, seed=number)

    made = face.together(*map(call, range(64)))
    assert not [one for one in made if isinstance(one, Exception)]
    line = client.budget()[0]
    assert line.spent == billed["first"] * COST + billed["second"] * COST / 10
    assert (line.reserved, line.unknown) == (0, 0)
