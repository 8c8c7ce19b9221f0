"""The ladder of `[escalate]`: whose answer the caller gets, as what, what is stored, and what the books say."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from conftest import Face, text
from ladder import (
    ERROR,
    JUDGE,
    LARGE,
    MIDDLE,
    QUESTION,
    REFUSAL,
    SMALL,
    WAYS,
    World,
    ask,
    balances,
    good,
    read,
    until,
)
from openai import _base_client
from upstream import Reply, Seen, answer, chat_events

import farthing
from farthing import Budget, BudgetExceeded, PolicyError

pytestmark = [pytest.mark.once, pytest.mark.filterwarnings("ignore::farthing.FarthingWarning")]

httpx: Any = getattr(_base_client, "httpx2", None) or _base_client.httpx
REFUSED = [("small", False), ("large", True)]


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.server.close()


def two_thirds(draft: farthing.Draft) -> float:
    """Better than the middle's, and good enough for nobody."""
    return {"small": 0.6, "middle": 0.3}.get(draft.rung, 1.0)


# ---- up the ladder ----


def test_three_rungs(face: Face, world: World) -> None:
    world.says |= {"small": REFUSAL, "middle": ""}
    client = world.client(face, ladder=["small", "middle", "large"], thresholds=[0.7, 0.8])
    said = ask(face, client)
    assert said.rungs == [("small", False), ("middle", False), ("large", True)] and said.text == good("large")
    assert (said.receipt.overhead, said.receipt.cost) == (SMALL + MIDDLE, SMALL + MIDDLE + LARGE)
    assert [a.model for a in said.receipt.attempts] == ["small", "middle", "large"]
    bill = client.savings()
    assert (bill.calls, bill.misses, bill.escalations, bill.overhead) == (1, 1, 2, SMALL + MIDDLE)
    balances(client, world)


def test_a_threshold_for_each_rung(face: Face, world: World) -> None:
    client = world.client(
        face, ladder=["small", "middle", "large"], thresholds=[0.7, 0.9], scorer=lambda draft: 0.8, cache=False
    )
    assert ask(face, client).rungs == [("small", True)]
    client = world.client(face, ladder=["small", "middle", "large"], thresholds=[0.85, 0.9], scorer=lambda draft: 0.87)
    assert ask(face, client).rungs == [("small", True)]
    client = world.client(
        face, ladder=["small", "middle", "large"], thresholds=[0.9, 0.95], scorer=lambda d: 0.96 * (d.rung != "small")
    )
    assert ask(face, client).rungs == [("small", False), ("middle", True)]


@pytest.mark.parametrize("says", [Reply(500, ERROR), Reply(404, ERROR), Reply(cut_before=True), Reply(200, b"<html>")])
def test_a_rung_that_fails(face: Face, world: World, says: Reply) -> None:
    world.says["small"] = says
    client = world.client(face)
    for way in WAYS:
        said = ask(face, client, f"{QUESTION} {way}", way)
        assert said.rungs == REFUSED and said.text == good("large") and said.receipt.rungs[0].reasons
    assert client.savings().escalations == len(WAYS)


def test_other_models_are_left_alone(face: Face, world: World) -> None:
    world.says["small"] = REFUSAL
    said = ask(face, world.client(face), model="small")
    assert (said.text, said.rungs, world.models) == (REFUSAL, [], ["small"])


def test_what_acts_on_a_server_is_asked_once(face: Face, world: World) -> None:
    world.says["small"] = REFUSAL
    said = ask(face, world.client(face), store=True)
    assert said.text == good("large") and world.models == ["large"]


# ---- the best draft, for want of a better answer ----


@pytest.mark.parametrize("says", [Reply(500, ERROR), Reply(429, ERROR), Reply(cut_before=True)])
@pytest.mark.parametrize("way", WAYS)
def test_the_last_rung_fails(face: Face, world: World, way: str, says: Reply) -> None:
    world.says["large"] = says
    client = world.client(face, ladder=["small", "middle", "large"], scorer=two_thirds)
    for round_ in (1, 2):
        said = ask(face, client, way=way)
        # Not stored: the ladder is climbed each time.
        assert world.models == ["small", "middle", "large"] * round_
        assert said.text == good("small") and said.rungs == [("small", True), ("middle", False)]
        assert [note for note in said.receipt.notes if "large" in note]
        assert (said.receipt.overhead, said.receipt.cost) == (MIDDLE, SMALL + MIDDLE)
    bill = client.savings()
    assert (bill.spent, bill.overhead, bill.hits) == (2 * (SMALL + MIDDLE), 2 * MIDDLE, 0)


def test_all_rungs_fail(face: Face, world: World) -> None:
    world.says |= {"small": Reply(500, ERROR), "large": Reply(429, ERROR)}
    client = world.client(face)
    with pytest.raises(openai.RateLimitError):
        ask(face, client)
    assert (client.savings().errors, client.savings().spent) == (1, 0)


@pytest.mark.parametrize(("way", "by_call"), [*zip(WAYS, (False, True, True, False), strict=True)])
def test_the_deadline(face: Face, world: World, way: str, by_call: bool) -> None:
    world.says |= {"small": REFUSAL, "large": Reply(delay=30)}
    client = world.client(face, deadline=3600 if by_call else 0.4)
    with farthing.options(deadline=0.4 if by_call else None):
        said = ask(face, client, way=way)
    assert said.text == REFUSAL and said.rungs == [("small", True)] and said.receipt.notes
    assert said.receipt.overhead == 0
    world.says["large"] = good("large")
    # It was not stored.
    with farthing.options(deadline=3600):
        assert ask(face, client, way=way).text == good("large")
    assert len(world.asked("small")) == 2


@pytest.mark.parametrize("scorer", ["judge", "function"])
def test_the_deadline_of_the_judging(face: Face, world: World, scorer: str) -> None:
    async def stuck(draft: farthing.Draft) -> float:
        await asyncio.sleep(3600)
        return 1.0

    world.says["judge"] = Reply(delay=60)
    scorers = {"judge": "judge", "function": stuck}
    client = world.client(face, scorer=scorers[scorer], judge={"model": "judge"}, timeout=60, deadline=0.3)
    said = ask(face, client)
    assert said.text == good("small") and said.rungs == [("small", True)] and "large" not in world.models
    assert said.receipt.rungs[0].score is None and "deadline" in said.reasons and said.receipt.notes
    assert client.savings().spent == SMALL
    # It was not stored.
    ask(face, client)
    assert len(world.asked("small")) == 2


@pytest.mark.parametrize(("way", "by_call"), [*zip(WAYS, (False, True, True, False), strict=True)])
def test_max_cost(face: Face, world: World, way: str, by_call: bool) -> None:
    world.says["small"] = REFUSAL
    limit = {"max_output_tokens": 20} if way.startswith("responses") else {"max_tokens": 20}
    client = world.client(face, max_cost="1" if by_call else "0.0005")
    for count in (1, 2):
        with farthing.options(max_cost="0.0005" if by_call else None):
            said = ask(face, client, way=way, **limit)
        assert said.text == REFUSAL and said.rungs == [("small", True)] and world.models == ["small"] * count
        assert [note for note in said.receipt.notes if "max_cost" in note]
    with farthing.options(max_cost="0.5"):
        assert ask(face, client, way=way, **limit).text == good("large")


# ---- the cache ----


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("is_good", [True, False])
def test_what_is_stored(face: Face, world: World, way: str, is_good: bool) -> None:
    world.says["small"] = good("small") if is_good else REFUSAL
    client = world.client(face)
    first = ask(face, client, way=way)
    seen = list(world.models)
    for again in WAYS[:2] if way in WAYS[:2] else WAYS[2:]:
        said = ask(face, client, way=again)
        assert said.text == first.text == good("small" if is_good else "large")
        assert (said.receipt.outcome, said.receipt.cost, said.receipt.overhead) == ("hit", 0, 0)
    assert world.models == seen == (["small"] if is_good else ["small", "large"])
    balances(client, world)


@pytest.mark.parametrize("strict", [False, True])
def test_without_a_cache(face: Face, world: World, strict: bool) -> None:
    world.says["small"] = REFUSAL
    client = world.client(face, cache=False, more={"strict": strict})
    for way in WAYS:
        said = ask(face, client, way=way)
        assert said.rungs == REFUSED and said.text == good("large") and said.receipt.outcome == "bypass"
    assert world.models == ["small", "large"] * len(WAYS)
    balances(client, world)


# ---- streams ----


@pytest.mark.parametrize("way", [WAYS[1], WAYS[3]])
def test_a_draft_is_replayed(face: Face, world: World, way: str) -> None:
    _, judged = read(face, world.client(face), way=way)
    _, plain = read(face, face.client(world.server, plain=True), way=way, model="small")
    assert [one.model_dump() for one in judged] == [one.model_dump() for one in plain]


@pytest.mark.parametrize("is_good", [True, False])
def test_usage_only_if_asked_for(face: Face, world: World, is_good: bool) -> None:
    world.says["small"] = good("small") if is_good else REFUSAL
    client = world.client(face)
    said = ask(face, client, way="streamed")
    assert all(item.usage is None and item.choices for item in said.items)
    assert [c.finish_reason for i in said.items for c in i.choices if c.finish_reason] == ["stop"]
    said = ask(face, client, QUESTION + " Please.", "streamed", stream_options={"include_usage": True})
    assert said.items[-1].usage.total_tokens == 12 and said.items[-1].choices == []
    balances(client, world)


def test_the_last_rung_streams_live(face: Face, world: World) -> None:
    go_on = threading.Event()

    def pieces() -> Iterator[bytes]:
        told = chat_events("one two", usage=True)
        yield from told[:3]
        assert go_on.wait(30)
        yield from told[3:]

    world.says |= {"small": REFUSAL, "large": lambda seen, number: Reply(pieces=pieces())}
    client = world.client(face)
    messages = [{"role": "user", "content": QUESTION}]
    stream = face.run(lambda: client.chat.completions.create(model="auto", messages=messages, stream=True))
    first = next(iter(stream)) if not face.is_async else face.run(lambda: anext(stream))
    assert first.choices and not go_on.is_set()
    go_on.set()
    assert text([first, *face.items(stream)]) == "one two"
    receipt = farthing.receipt(stream)
    assert receipt is not None and receipt.complete and receipt.cost == SMALL + LARGE
    balances(client, world)


def test_a_last_rung_that_breaks_off(face: Face, world: World) -> None:
    """What the caller has seen cannot be taken back: he gets the error, and the draft was in vain."""
    told = chat_events("one two", usage=True)[:5]
    world.says |= {"small": REFUSAL, "large": lambda seen, number: Reply(pieces=told, cut=True)}
    client = world.client(face)
    with pytest.raises((openai.APIError, httpx.HTTPError)):
        ask(face, client, way="streamed")
    until(lambda: client.savings().overhead == SMALL)
    world.says["large"] = good("large")
    assert ask(face, client, way="streamed").text == good("large")


def test_a_draft_that_breaks_off(face: Face, world: World) -> None:
    world.says["small"] = lambda seen, number: Reply(pieces=chat_events("Water boils")[:4], cut=True)
    said = ask(face, world.client(face), way="streamed")
    assert said.rungs == REFUSED and said.text == good("large")


# ---- tools ----

CALL = ("call_1", "weather", '{"city": "Bonn"}')
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}]


@pytest.mark.parametrize(
    "scorer", ["structural", "logprob", lambda draft: float(draft.tool_calls[0]["name"] == "weather")]
)
@pytest.mark.parametrize("way", WAYS)
def test_calls_of_tools(face: Face, world: World, way: str, scorer: Any) -> None:
    world.says["small"] = lambda seen, number: answer(seen, "", [CALL])
    is_chat = way in WAYS[:2]
    tools: list[Any] = TOOLS if is_chat else [{"type": "function", **TOOLS[0]["function"]}]  # type: ignore[dict-item]
    client = world.client(face, scorer=scorer)
    for outcome in ("miss", "hit"):
        said = ask(face, client, "How warm is it in Bonn?", way, tools=tools)
        dumped = json.dumps([item.model_dump(mode="json") for item in said.items])
        assert said.receipt.outcome == outcome and '"weather"' in dumped and "Bonn" in dumped
    assert world.models == ["small"]


@pytest.mark.parametrize("way", WAYS[:2])
@pytest.mark.parametrize(
    ("call", "why"), [("wetter", "a call of an unknown tool"), ("weather", "against their schema")]
)
def test_calls_that_cannot_be_made(face: Face, world: World, way: str, call: str, why: str) -> None:
    world.says["small"] = lambda seen, number: answer(seen, "", [("call_1", call, '{"town": "Bonn"}')])
    said = ask(face, world.client(face), "How warm is it in Bonn?", way, tools=TOOLS)
    assert said.rungs == REFUSED and why in said.reasons


# ---- together ----


def echo(model: str) -> Any:
    def say(seen: Seen, number: int) -> Reply:
        prompt = seen.json["messages"][-1]["content"]
        told = (
            REFUSAL if model == "small" and "hard" in prompt else f"{good(model)} That was number {prompt.split()[-1]}."
        )
        return answer(seen, told)

    return say


def test_many_at_once(face: Face, world: World) -> None:
    """Half of them are equal, a third is hard."""
    world.says |= {"small": echo("small"), "large": echo("large")}
    client = world.client(face)
    count = 64 if face.is_async else 32
    numbers = [n % (count // 2) for n in range(count)]
    prompts = {n: f"{'hard' if n % 3 == 0 else 'easy'}: at what temperature does water boil? {n}" for n in numbers}
    create = client.chat.completions.create
    calls = [lambda n=n: create(model="auto", messages=[{"role": "user", "content": prompts[n]}]) for n in numbers]
    for n, made in zip(numbers, face.together(*calls), strict=True):
        assert made.choices[0].message.content == f"{good('small' if n % 3 else 'large')} That was number {n}."
    hard = sum(n % 3 == 0 for n in prompts)
    assert (world.models.count("small"), world.models.count("large")) == (len(prompts), hard)
    bill = client.savings()
    assert (bill.calls, bill.misses, bill.hits + bill.joined) == (count, len(prompts), count - len(prompts))
    assert (bill.overhead, bill.escalations) == (hard * SMALL, hard)
    balances(client, world)


def test_many_streams_with_judges(face: Face, world: World) -> None:
    world.says |= {"small": echo("small"), "large": echo("large"), "judge": "9"}
    client = world.client(face, scorer=["structural", "judge"], judge={"model": "judge"}, cache=False)
    count = 64 if face.is_async else 32

    def streamed(n: int) -> Any:
        messages = [{"role": "user", "content": f"{'hard' if n % 2 else 'easy'}: when does water boil? {n}"}]
        made = client.chat.completions.create(model="auto", messages=messages, stream=True)
        if not face.is_async:
            return text(list(made))

        async def read_on() -> str:
            return text([chunk async for chunk in await made])

        return read_on()

    told = face.together(*(lambda n=n: streamed(n) for n in range(count)))
    assert told == [f"{good('large' if n % 2 else 'small')} That was number {n}." for n in range(count)]
    bill = client.savings()
    # A refusal is 0.1: it is judged all the same.
    assert bill.overhead == count // 2 * SMALL + world.models.count("judge") * JUDGE
    balances(client, world)


# ---- callers who leave ----


def test_a_cancelled_caller(world: World) -> None:
    """Cancelled while the draft is judged, and while the last rung is asked: the draft is paid for in vain."""
    face = Face(True)
    for slow in ("judge", "large"):
        world.says = {"small": REFUSAL, "judge": "0", slow: Reply(delay=30)}
        client = world.client(face, scorer="judge", judge={"model": "judge"}, timeout=60)
        messages = [{"role": "user", "content": f"{QUESTION} {slow}"}]

        known = len(world.models)

        async def main(client: Any = client, messages: Any = messages, slow: str = slow, known: int = known) -> None:
            task = asyncio.create_task(client.chat.completions.create(model="auto", messages=messages))
            while slow not in world.models[known:]:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        face.run(main)
        judged = JUDGE if slow == "large" else 0
        until(lambda client=client, judged=judged: client.savings().overhead == SMALL + judged)
        assert client.savings().spent == SMALL + judged
        world.says = {}
        assert ask(face, client, f"{QUESTION} And now?").text
    face.close()


def test_a_stream_that_is_closed(face: Face, world: World) -> None:
    for says, overhead in ((good("small"), 0), (REFUSAL, SMALL)):
        world.says["small"] = says
        world.says["large"] = lambda seen, number: Reply(pieces=chat_events("one two", usage=True), pause=0.02)
        client = world.client(face)
        messages = [{"role": "user", "content": QUESTION}]
        stream = face.run(lambda c=client, m=messages: c.chat.completions.create(model="auto", messages=m, stream=True))
        if face.is_async:
            face.run(lambda s=stream: anext(s))
        else:
            next(stream)
        face.run(stream.close)
        until(lambda c=client: c.savings().calls == 1)
        bill = client.savings()
        assert bill.overhead == overhead and bill.spent >= SMALL
        world.says["large"] = good("large")
        assert ask(face, client).text == (good("large") if overhead else says)


# ---- calibration ----

POINTS = [[0.0, 0.1], [0.5, 0.4], [1.0, 0.95]]
MAP = {"points": POINTS, "threshold": 0.9, "max_loss": 0.05, "confidence": 0.95, "rows": 100}


@pytest.mark.parametrize("kind", ["table", "file"])
def test_calibration(face: Face, world: World, kind: str, tmp_path: Path) -> None:
    found = {"version": 1, "made": "2026-11-26", "rungs": {"": MAP}}
    given: Any = found
    if kind == "file":
        given = tmp_path / "calibration.json"
        given.write_text(json.dumps(found))
    scores = {"small": 1.0}
    client = world.client(face, thresholds=None, calibration=given, scorer=(scorer := lambda draft: scores[draft.rung]))
    said = ask(face, client)
    assert said.rungs == [("small", True)] and said.receipt.rungs[0].score == pytest.approx(0.95)
    assert "score 1.000" in said.reasons and said.receipt.rungs[0].scores == {"callable": 1.0}
    scores["small"] = 0.5
    said = ask(face, client, QUESTION + " Please.")
    assert said.rungs == REFUSED and said.receipt.rungs[0].score == pytest.approx(0.4)
    # Thresholds of the policy win, and are of P(good) as well.
    client = world.client(face, thresholds=0.3, calibration=given, scorer=scorer)
    assert ask(face, client).rungs == [("small", True)]


# ---- policies that cannot be ----


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ladder": []}, "ladder"),
        ({"ladder": ["small"]}, "two rungs"),
        ({"ladder": ["small", "small"]}, "ladder"),
        ({"ladder": ["small", "middle", "large"], "thresholds": [0.9, 0.8]}, "thresholds"),
        ({"ladder": ["small", "middle", "large"], "thresholds": [0.8, 0.9, 0.95]}, "thresholds"),
        ({"thresholds": None}, "thresholds"),
        ({"thresholds": 1.5}, "thresholds"),
        ({"scorer": "structual"}, "structural"),
        ({"scorer": []}, "scorer"),
        ({"scorer": ["structural", "structural"]}, "twice"),
        ({"scorer": [("structural", 0)]}, "weight"),
        ({"scorer": "judge"}, "judge"),
        ({"scorer": "agreement"}, "agreement"),
        ({"scorer": "agreement", "agreement": {}}, "compares with nothing"),
        ({"models": []}, "models"),
        ({"calibration": "/nowhere/calibration.json"}, "calibration"),
        ({"shadow": 2}, "shadow"),
        ({"labels": "all"}, "labels"),
        ({"max_cost": 0}, "max_cost"),
        ({"deadline": 0}, "deadline"),
    ],
    ids=str,
)
def test_policies_that_cannot_be(world: World, change: dict[str, Any], said: str) -> None:
    with pytest.raises(PolicyError) as caught:
        world.client(Face(False), **change)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        ({"ladder": []}, "from cheap to dear"),
        ({"ladder": ["small"]}, "from cheap to dear"),
        ({"ladder": ["small", "middle", "large"], "thresholds": [0.9, 0.8]}, "cheap to dear"),
        ({"thresholds": [0.8, 0.9]}, "2 rungs need 1"),
        ({"thresholds": None}, "calibration"),
        ({"scorer": "structual"}, 'did you mean "structural"?'),
        ({"scorer": []}, "structural"),
        ({"scorer": "judge"}, "judge = {"),
        ({"scorer": "agreement"}, "agreement = {"),
        ({"scorer": "agreement", "agreement": {}}, "samples"),
        ({"calibration": "/nowhere/calibration.json"}, "farthing calibrate"),
    ],
    ids=str,
)
def test_what_to_do_about_it(world: World, change: dict[str, Any], hint: str) -> None:
    with pytest.raises(PolicyError) as caught:
        world.client(Face(False), **change)
    assert hint in str(caught.value).partition("hint:")[2]


# ---- learning ----


def test_shadow(face: Face, world: World) -> None:
    go_on = threading.Event()

    def large(seen: Seen, number: int) -> Reply:
        assert go_on.wait(30)
        return answer(seen, good("small"))

    world.says["large"] = large
    client = world.client(face, shadow=1.0)
    said = ask(face, client)
    # The caller does not wait for it.
    assert said.rungs == [("small", True)] and said.receipt.overhead == 0 and client.savings().shadowed == 0
    go_on.set()
    until(lambda: client.savings().shadowed)
    bill = client.savings()
    assert (bill.shadowed, bill.shadowed_good, bill.calls, bill.misses) == (1, 1, 1, 1)
    assert bill.by_stage["shadow"].spent == bill.overhead == LARGE
    until(client.labels)
    (label,) = client.labels()
    assert (label.kind, label.good, label.rung, label.cost, label.dear_cost) == ("shadow", 1, "small", SMALL, LARGE)
    balances(client, world)


def test_a_shadow_that_is_better(face: Face, world: World) -> None:
    world.says |= {"small": "The answer is 41.", "large": "The answer is 42."}
    client = world.client(face, shadow=1.0, labels="text")
    assert ask(face, client, way="streamed").text == "The answer is 41."
    until(client.labels)
    (label,) = client.labels()
    assert (label.good, label.text) == (0, QUESTION)
    assert (client.savings().shadowed, client.savings().shadowed_good) == (1, 0)


def test_a_shadow_that_fails(face: Face, world: World) -> None:
    world.says["large"] = Reply(500, ERROR)
    client = world.client(face, shadow=1.0)
    assert ask(face, client).text == good("small")
    until(lambda: "large" in world.models)
    assert (client.savings().shadowed, client.labels()) == (0, [])
    assert client.savings().errors == 0


@pytest.mark.parametrize("labels", ["features", "text", "off", False])
def test_labels_of_rejected_drafts(face: Face, world: World, labels: Any) -> None:
    world.says["small"] = "The answer is 41." * 30
    client = world.client(face, labels=labels, scorer=lambda draft: 0.25)
    ask(face, client)
    ask(face, client, QUESTION + " Please.", "streamed")
    if labels in ("off", False):
        assert client.labels() == []
        return
    until(lambda: len(client.labels()) == 2)
    for label, prompt in zip(client.labels(), (QUESTION, QUESTION + " Please."), strict=True):
        assert (label.kind, label.rung, label.score, label.scores) == ("escalation", "small", 0.25, {"callable": 0.25})
        assert label.text == (prompt if labels == "text" else None) and label.features["characters"] == len(prompt)
        assert (label.cost, label.dear_cost, len(label.prompt)) == (SMALL, LARGE, 64)


# ---- with the other stages ----


@pytest.mark.parametrize("way", WAYS)
def test_route_says_where_to_begin(face: Face, world: World, way: str) -> None:
    tiers = {"easy": "small", "fair": "middle", "hard": "large"}
    route = {"models": ["auto"], "tiers": tiers, "by": lambda request: request.prompt.split(":")[0]}
    client = world.client(face, ladder=["small", "middle", "large"], more={"route": route})
    world.says["middle"] = REFUSAL
    said = {name: ask(face, client, f"{name}: {QUESTION}", way) for name in tiers}
    assert {name: one.rungs for name, one in said.items()} == {
        "easy": [("small", True)],
        "fair": [("middle", False), ("large", True)],
        "hard": [("large", True)],
    }
    assert world.models == ["small", "middle", "large", "large"]
    assert [one.receipt.route and one.receipt.route.tier for one in said.values()] == list(tiers)
    bill = client.savings()
    assert bill.overhead == MIDDLE and bill.escalations == 1
    balances(client, world)


def test_fallbacks(face: Face, world: World) -> None:
    """A rung's own fallbacks come before the next rung."""
    world.says["small"] = Reply(503, ERROR)
    models = {name: {"input": 1, "output": 2} for name in ("small", "spare", "large")}
    more = {"models": {**models, "small": {**models["small"], "fallback": ["spare"]}}}
    client = world.client(face, more=more)
    said = ask(face, client)
    assert world.models == ["small", "spare"] and said.rungs == [("small", True)] and said.text == good("spare")
    world.says["spare"] = Reply(503, ERROR)
    said = ask(face, client, QUESTION + " Please.")
    assert said.text == good("large") and said.rungs == REFUSED
    assert [a.model for a in said.receipt.attempts] == ["small", "spare", "large"]


@pytest.mark.parametrize("way", WAYS)
def test_a_budget_without_room_for_the_dear_rung(face: Face, world: World, way: str) -> None:
    world.says["small"] = REFUSAL
    limit = {"max_output_tokens": 20} if way.startswith("responses") else {"max_tokens": 20}
    client = world.client(face, more={"budgets": [Budget("0.0003")]})
    said = ask(face, client, way=way, **limit)
    assert said.text == REFUSAL and said.rungs == [("small", True)] and world.models == ["small"]
    assert [note for note in said.receipt.notes if "budget" in note]
    assert client.savings().spent == SMALL and client.budget()[0].spent == SMALL and client.budget()[0].reserved == 0


def test_a_budget_without_room_for_any(face: Face, world: World) -> None:
    client = world.client(face, more={"budgets": [Budget("0.00001")]})
    with pytest.raises(BudgetExceeded):
        ask(face, client, max_tokens=20)
    assert world.models == []


@pytest.mark.parametrize("count", [1, 2])
def test_embeddings(face: Face, world: World, count: int) -> None:
    """Nobody judges them: the dearest model makes them, as the ladder has no other word for it."""
    client = world.client(face)
    made = face.run(lambda: client.embeddings.create(model="auto", input=["a"] * count))
    assert len(made.data) == count and world.models == ["large"]


@pytest.mark.skipif(not hasattr(os, "fork") or sys.platform == "darwin", reason="fork as on Linux")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_after_a_fork(world: World) -> None:
    face = Face(False)
    client = world.client(face, scorer=["structural", two_thirds], thresholds=0.75)
    assert ask(face, client).rungs == [("small", True)]
    read_end, write_end = os.pipe()
    if (child := os.fork()) == 0:
        try:
            said = ask(face, client, QUESTION + " Please.")
            os.write(write_end, repr(said.rungs).encode())
        finally:
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as pipe:
        assert pipe.read() == "[('small', True)]"
    os.waitpid(child, 0)
    assert ask(face, client, QUESTION + " Now.").rungs == [("small", True)]
