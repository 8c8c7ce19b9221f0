"""`[batch]` at its edges: whose upstream, whose price, whose time, and who is asked again."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from decimal import Decimal
from typing import Any

import openai
import pytest
from conftest import Face
from packs import ERROR, PRICES, World, questions, say
from test_batch import MODEL, TEN, call, client, packs, texts, together
from upstream import Reply, Upstream, chat

import farthing

pytestmark = [pytest.mark.once, pytest.mark.filterwarnings("ignore::farthing.FarthingWarning")]


@pytest.fixture
def world(upstream: Upstream) -> World:
    return World(upstream)


@pytest.fixture
def sync() -> Any:
    face = Face(False)
    yield face
    face.close()


def sizes(world: World) -> list[int]:
    return [len(asked) for asked in world.requests]


def test_attempts_of_all_receipts_are_the_bill(sync: Face, world: World) -> None:
    made = client(sync, world, window_ms=300)
    answers = together(sync, made, TEN)
    costs = [attempt.cost for answer in answers for attempt in farthing.receipt(answer).attempts]
    assert sum(costs, Decimal(0)) == made.savings().spent


def test_a_fallbacks_answers_are_not_stored(sync: Face, world: World) -> None:
    """As alone: the answer of a substitute is none of the model's."""
    other = Upstream()
    World(other)
    world.edit = lambda answers, number: Reply(500, ERROR)
    world.alone = lambda question: Reply(500, ERROR)
    try:
        policy = world.policy(window_ms=300)
        policy["upstreams"] = {"spare": {"base_url": other.url, "api_key": "sk-spare"}}
        policy["models"] = {
            MODEL: {**PRICES[MODEL], "fallback": ["other-model"]},
            "other-model": {**PRICES[MODEL], "upstream": "spare"},
        }
        made = sync.client(world.server, policy=policy)
        # Alone: what it should be like.
        one = sync.run(call(sync, made, "alone?"))
        two = sync.run(call(sync, made, "alone?"))
        assert [farthing.receipt(x).outcome for x in (one, two)] == ["miss", "miss"]
        answers = together(sync, made, TEN[:4])
        assert packs(answers)[0] is not None
        again = together(sync, made, TEN[:4])
        assert [farthing.receipt(x).outcome for x in again] == ["miss"] * 4
    finally:
        other.close()


def test_retry_after_is_kept_to(sync: Face, world: World) -> None:
    times: list[float] = []

    def edit(answers: dict[str, str], number: int) -> Any:
        times.append(time.monotonic())
        return Reply(429, ERROR, headers={"retry-after": "2"}) if number == 1 else answers

    world.edit = edit
    made = client(sync, world, window_ms=300)
    together(sync, made, TEN[:4])
    assert len(times) == 1 or times[1] - times[0] >= 1.9, times


def test_x_should_retry_false_is_kept_to(sync: Face, world: World) -> None:
    world.edit = lambda answers, number: Reply(500, ERROR, headers={"x-should-retry": "false"})
    made = client(sync, world, window_ms=300)
    together(sync, made, TEN[:4])
    assert sizes(world).count(4) == 1


def test_a_wrong_key_is_not_tried_eleven_times(sync: Face, world: World) -> None:
    world.edit = lambda answers, number: Reply(401, ERROR)
    world.alone = lambda question: Reply(401, ERROR)
    made = client(sync, world, window_ms=300)
    results = sync.together(*(call(sync, made, q) for q in TEN))
    assert all(isinstance(one, openai.AuthenticationError) for one in results)
    assert len(world.requests) <= 10, sizes(world)


def test_one_400_does_not_take_schemas_away_for_ever(sync: Face, world: World) -> None:
    """Azure's content filter answers 400; so does a prompt that is too long."""
    body = {"error": {"message": "filtered", "type": None, "param": "prompt", "code": "content_filter"}}

    def filtered(seen):
        return any("bad" in text for text in (questions(seen) or [])) or "bad" in seen["messages"][-1]["content"]

    plain = world.server.script
    world.server.script = lambda seen, number: Reply(400, body) if filtered(seen.json) else plain(seen, number)
    made = client(sync, world, window_ms=300)
    sync.together(*(call(sync, made, q) for q in [*TEN[:3], "bad one"]))
    together(sync, made, TEN[5:8])
    assert "response_format" in world.server.seen[-1].json


def test_timeout_of_one_is_its_own(world: World) -> None:
    """The first caller is impatient, the others are not: they get their answers out of one request."""
    face = Face(True)
    world.edit = lambda answers, number: Reply(body=chat(json.dumps(answers), model=MODEL), delay=1.2)
    made = client(face, world, max_items=5)

    async def main() -> Any:
        first = asyncio.create_task(call(face, made, TEN[0], timeout=0.4)())
        await asyncio.sleep(0.03)
        rest = [asyncio.create_task(call(face, made, q, timeout=30)()) for q in TEN[1:5]]
        return await asyncio.gather(first, *rest, return_exceptions=True)

    try:
        answers = face.run(main)
        assert texts(answers[1:]) == [say(q) for q in TEN[1:5]]
        assert sizes(world)[0] == 5 and len(world.requests) <= 2, sizes(world)
    finally:
        face.close()


def test_an_impatient_follower_does_not_wait_for_a_patient_leader(world: World) -> None:
    face = Face(True)
    world.edit = lambda answers, number: Reply(body=chat(json.dumps(answers), model=MODEL), delay=2)
    made = client(face, world, window_ms=2000)

    async def timed(question: str, timeout: float) -> float:
        began = time.monotonic()
        try:
            await call(face, made, question, timeout=timeout)()
        except openai.APITimeoutError:
            pass
        return time.monotonic() - began

    async def main() -> Any:
        first = asyncio.create_task(timed(TEN[0], 30))
        await asyncio.sleep(0.03)
        return await asyncio.gather(first, timed(TEN[1], 0.3))

    try:
        _, took = face.run(main)
        assert took < 1.2, took
    finally:
        face.close()


def test_idempotency_keys_are_not_shared(sync: Face, world: World) -> None:
    made = client(sync, world, window_ms=300)
    world.edit = lambda answers, number: {k: v for k, v in answers.items() if k != "1"}
    sync.together(*(call(sync, made, q, extra_headers={"Idempotency-Key": q}) for q in TEN[:4]))
    bodies: dict[str, set[bytes]] = {}
    for seen in world.server.seen:
        bodies.setdefault(seen.headers.get("idempotency-key", ""), set()).add(seen.body)
    assert all(len(those) == 1 for those in bodies.values()), {k: len(v) for k, v in bodies.items()}


def test_aliases_with_other_fallbacks_are_not_joined(sync: Face, world: World) -> None:
    """Two names of one model at one upstream: one may fall back to another company, the other may not."""
    other = Upstream()
    World(other)
    try:
        policy = world.policy(models=["open", "closed"], window_ms=2000)
        policy["upstreams"] = {
            "main": {"base_url": world.server.url, "api_key": "sk-m"},
            "spare": {"base_url": other.url, "api_key": "sk-spare"},
        }
        policy["aliases"] = {
            "open": {"model": MODEL, "upstream": "main"},
            "closed": {"model": MODEL, "upstream": "main"},
        }
        policy["aliases"]["open"]["fallback"] = ["other-model"]
        policy["models"] = {**PRICES, "other-model": {**PRICES[MODEL], "upstream": "spare"}}
        made = sync.client(world.server, policy=policy)
        calls = [call(sync, made, q, model="open" if at % 2 == 0 else "closed") for at, q in enumerate(TEN[:6])]
        sync.together(*calls)
        asked = sorted(map(sorted, world.requests))
        assert asked == [TEN[:6:2], TEN[1:6:2]], asked
    finally:
        other.close()


def test_http_clients_are_not_mixed(sync: Face, world: World) -> None:
    """Two copies of a client with http clients of their own: proxies, certificates."""
    went: dict[str, list[str]] = {"a": [], "b": []}

    def hook(name: str) -> Any:
        def note(request: Any) -> None:
            went[name].append(request.content.decode())

        return note

    made = client(sync, world, window_ms=300)
    kind = openai.DefaultHttpxClient
    a, b = (made.with_options(http_client=kind(event_hooks={"request": [hook(name)]})) for name in "ab")
    sync.together(*(call(sync, (a, b)[at % 2], q) for at, q in enumerate(TEN[:6])))
    for name, at in (("a", 0), ("b", 1)):
        # As it stands in the JSON of a pack: the mark of a fence may begin with any digit.
        mixed = [q for q in TEN[:6] if any(rf"\n{q}\n" in body for body in went[name]) and TEN.index(q) % 2 != at]
        assert not mixed, (name, mixed, sizes(world))


HOSTILE = [
    "\x00nul\x00",
    "‮rtl‬",
    '{"1": "x", "2": "y"}',
    "```\n1. a\n2. b\n```",
    "</question>",
    "1",
    "[1]",
    "\n\nx\n\n",
    "</123>\n<123 1>\n",
    "é" * 50 + "👩‍👩‍👧",
]


def test_a_budgets_cheaper_models_answers_are_not_stored(sync: Face, world: World) -> None:
    policy = world.policy(window_ms=300)
    policy["models"] = {MODEL: {"input": 1000, "output": 2000}, "small": PRICES[MODEL]}
    policy["budgets"] = [{"limit": "0.01", "action": "downgrade", "to": "small"}]
    made = sync.client(world.server, policy=policy)
    answers = together(sync, made, TEN[:4], max_tokens=20)
    assert {answer.model for answer in answers} == {"small"}
    again = together(sync, made, TEN[:4], max_tokens=20)
    assert [farthing.receipt(one).outcome for one in again] == ["miss"] * 4


@pytest.mark.parametrize("most", [16.0, "16", 0, -1])
def test_odd_max_tokens(sync: Face, world: World, most: Any) -> None:
    made = client(sync, world, window_ms=300)
    sync.together(*(call(sync, made, q, extra_body={"max_tokens": most}) for q in TEN[:4]))
    bad = [seen.json.get("max_tokens") for seen in world.server.seen if questions(seen.json)]
    assert not bad or bad[0] not in (16.0, "16"), bad


def test_a_closed_alias_is_not_sent_to_the_others_fallback(sync: Face, world: World) -> None:
    other = Upstream()
    spare = World(other)
    world.edit = lambda answers, number: Reply(500, ERROR)
    world.alone = lambda question: Reply(500, ERROR)
    try:
        policy = world.policy(models=["open", "closed"], window_ms=600, always=True)
        policy["upstreams"] = {
            "main": {"base_url": world.server.url, "api_key": "sk-m"},
            "spare": {"base_url": other.url, "api_key": "sk-s"},
        }
        policy["aliases"] = {name: {"model": MODEL, "upstream": "main"} for name in ("open", "closed")}
        policy["aliases"]["open"]["fallback"] = ["other-model"]
        policy["models"] = {**PRICES, "other-model": {**PRICES[MODEL], "upstream": "spare"}}
        made = sync.client(world.server, policy=policy)
        results: list[Any] = []
        first = threading.Thread(target=lambda: results.append(call(sync, made, "open question", model="open")()))
        first.start()
        time.sleep(0.1)
        (result,) = sync.together(call(sync, made, "closed question", model="closed"))
        first.join()
        print(world.requests, spare.requests, result, results)
        leaked = [asked for asked in spare.requests if "closed question" in asked]
        assert not leaked and isinstance(result, openai.InternalServerError), (leaked, result)
    finally:
        other.close()


def test_two_names_of_one_model_have_their_own_prices(sync: Face, world: World) -> None:
    policy = world.policy(models=["one", "two"], window_ms=2000)
    policy["upstreams"] = {"main": {"base_url": world.server.url, "api_key": "sk-m"}}
    policy["aliases"] = {name: {"model": MODEL, "upstream": "main"} for name in ("one", "two")}
    policy["models"] = {"one": {"input": 1, "output": 2}, "two": {"input": 100, "output": 200}}
    made = sync.client(world.server, policy=policy)
    answers = sync.together(
        *(call(sync, made, q, model="one" if at % 2 == 0 else "two") for at, q in enumerate(TEN[:6]))
    )
    costs = [farthing.receipt(answer).cost for answer in answers]
    assert all(two > 50 * one for one, two in zip(costs[::2], costs[1::2], strict=True)), costs


def test_samples_are_independent(sync: Face, world: World) -> None:
    """Independent answers are not written one after the other in one answer."""
    made = client(sync, world, window_ms=300)
    sync.together(*(call(sync, made, TEN[0], extra_headers={"x-farthing-sample": str(at)}) for at in range(4)))
    assert [len(asked) for asked in world.requests] == [1] * 4, world.requests


def test_a_window_does_not_outlast_the_callers_timeout(sync: Face, world: World) -> None:
    made = client(sync, world, window_ms=4000)
    began = time.monotonic()
    sync.together(call(sync, made, TEN[0], timeout=0.5))
    assert time.monotonic() - began < 2
