"""The way up the ladder: which answer the caller gets, what is stored, what is booked, and what own traffic teaches."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
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
    PRICES,
    QUESTION,
    REFUSAL,
    SMALL,
    WAYS,
    Said,
    World,
    ask,
    balances,
    good,
    read,
    until,
)
from upstream import Reply, Seen, answer, chat, chat_events

import farthing
from farthing import BudgetExceeded, PolicyError

pytestmark = [pytest.mark.once, pytest.mark.filterwarnings("ignore::farthing.FarthingWarning")]
DEAD = {
    "500": Reply(500, ERROR),
    "429": Reply(429, ERROR),
    "401": Reply(401, ERROR),
    "closed": Reply(cut_before=True),
}
LIMIT = {"max_tokens": 10}


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.server.close()


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Holds replies back until it is set, at the latest when the test is over."""
    event = threading.Event()
    yield event
    event.set()


def held(gate: threading.Event, says: str) -> Callable[[Seen, int], Reply]:
    def say(seen: Seen, number: int) -> Reply:
        gate.wait(30)
        return answer(seen, says)

    return say


def scores(**by_rung: float) -> Callable[[farthing.Draft], float]:
    return lambda draft: by_rung[draft.rung]


def limit(way: str, tokens: int = 10) -> dict[str, int]:
    return {"max_output_tokens" if way.startswith("responses") else "max_tokens": tokens}


def dumped(items: list[Any]) -> list[Any]:
    return [item.model_dump() for item in items]


def notes(said: Said) -> str:
    return "; ".join(said.receipt.notes)


def call(face: Face, client: Any, prompt: str, *, streamed: bool = False, **more: Any) -> Callable[[], Any]:
    """A call for `face.together`, whose result is the answer's text."""
    arguments = {"model": "auto", "messages": [{"role": "user", "content": prompt}], **more}
    create = client.chat.completions.create

    def plain() -> str:
        if streamed:
            return text(list(create(**arguments, stream=True)))
        return str(create(**arguments).choices[0].message.content)

    async def later() -> str:
        if streamed:
            return text([chunk async for chunk in await create(**arguments, stream=True)])
        return str((await create(**arguments)).choices[0].message.content)

    return later if face.is_async else plain


def comes(face: Face, condition: Callable[[], Any]) -> None:
    """As `until`, while the caller's event loop runs: where the SDK sends, that is where it does."""
    if not face.is_async:
        return until(condition)

    async def main() -> None:
        await asyncio.to_thread(until, condition)

    face.run(main)


def ask_together(face: Face, *calls: Callable[[], Any]) -> list[Any]:
    results = face.together(*calls)
    for error in (one for one in results if isinstance(one, BaseException)):
        raise error
    return results


# ---- the best draft, for want of a better answer ----


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("failure", DEAD)
def test_the_last_rung_fails(face: Face, world: World, failure: str, way: str) -> None:
    world.says |= {"small": REFUSAL, "large": DEAD[failure]}
    client = world.client(face)
    said = ask(face, client, way=way)
    assert said.text == REFUSAL and said.rungs == [("small", True)] and "large" in notes(said)
    assert (said.receipt.cost, said.receipt.overhead) == (SMALL, 0)
    # It was not good enough to be kept for others.
    assert ask(face, client, way=way).text == REFUSAL and world.models == ["small", "large"] * 2
    assert client.savings().spent == 2 * SMALL and client.savings().overhead == 0
    world.says["large"] = good("large")
    assert ask(face, client, way=way).text == good("large")
    assert client.savings().overhead == SMALL
    assert ask(face, client, way=way).receipt.hit and len(world.models) == 6


@pytest.mark.parametrize("way", WAYS[:2])
def test_the_best_of_two_drafts(face: Face, world: World, way: str) -> None:
    world.says["large"] = Reply(500, ERROR)
    rungs = {"ladder": ["small", "middle", "large"], "scorer": scores(small=0.5, middle=0.3)}
    client = world.client(face, **rungs)
    said = ask(face, client, way=way)
    assert said.text == good("small") and said.rungs == [("small", True), ("middle", False)]
    assert (said.receipt.cost, said.receipt.overhead) == (SMALL + MIDDLE, MIDDLE)
    assert (client.savings().spent, client.savings().overhead) == (SMALL + MIDDLE, MIDDLE)
    # Of two that are equally good the dearer model's is taken.
    client = world.client(face, ladder=["small", "middle", "large"], scorer=scores(small=0.5, middle=0.5))
    assert ask(face, client, way=way).text == good("middle")


@pytest.mark.parametrize("http", ["rust", "sdk"])
@pytest.mark.parametrize("way", WAYS[:2])
def test_a_draft_that_fails_is_passed_over(
    face: Face, world: World, way: str, http: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FARTHING_HTTP", http)
    for name, reply in (*DEAD.items(), ("no answer", Reply(body={"what": "is this"}))):
        world.says["small"] = reply
        client = world.client(face)
        said = ask(face, client, way=way)
        assert said.text == good("large") and said.rungs == [("small", False), ("large", True)], name
        assert said.reasons and said.receipt.rungs[0].score is None
        assert ask(face, client, way=way).receipt.hit


@pytest.mark.parametrize("way", WAYS)
def test_a_draft_that_breaks_off_is_passed_over(face: Face, world: World, way: str) -> None:
    def breaks(seen: Seen, number: int) -> Reply:
        whole = answer(seen, good("small"))
        if whole.pieces is None:
            return Reply(cut_before=True)
        return replace(whole, pieces=list(whole.pieces)[:6], cut=True)

    world.says["small"] = breaks
    said = ask(face, world.client(face), way=way)
    assert said.text == good("large") and said.rungs == [("small", False), ("large", True)]


@pytest.mark.parametrize("way", WAYS[:2])
def test_where_all_fail_the_last_failure_is_the_calls(face: Face, world: World, way: str) -> None:
    world.says |= {"small": Reply(500, ERROR), "large": Reply(429, ERROR)}
    client = world.client(face)
    with pytest.raises(openai.RateLimitError):
        read(face, client, way=way)
    assert world.models == ["small", "large"] and client.savings().errors == 1
    world.says["large"] = Reply(cut_before=True)
    with pytest.raises(openai.APIConnectionError):
        read(face, client, way=way)
    world.says["small"] = good("small")
    assert ask(face, client, way=way).text == good("small")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("place", ["policy", "options", "header"])
def test_a_deadline(face: Face, world: World, gate: threading.Event, place: str, way: str) -> None:
    world.says |= {"small": REFUSAL, "large": held(gate, good("large"))}
    client = world.client(face, **({"deadline": "200ms"} if place == "policy" else {}))
    headers = {"extra_headers": {"x-farthing-deadline": "200ms"}} if place == "header" else {}
    with farthing.options(deadline=0.2) if place == "options" else contextlib.nullcontext():
        said = ask(face, client, way=way, **headers)
    assert said.text == REFUSAL and said.rungs == [("small", True)] and notes(said)
    gate.set()
    with farthing.options(deadline=60):
        said = ask(face, client, way=way)
    assert said.text == good("large") and said.receipt.outcome == "miss"
    assert ask(face, client, way=way).receipt.hit


def test_a_deadline_that_is_over_before_the_next_is_asked(face: Face, world: World) -> None:
    def slow(draft: farthing.Draft) -> float:
        threading.Event().wait(0.8)
        return 0.1

    said = ask(face, world.client(face, scorer=slow, deadline=0.5, timeout=60))
    assert said.text == good("small") and world.models == ["small"] and "deadline" in notes(said)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("place", ["policy", "options", "header"])
@pytest.mark.parametrize("http", ["rust", "sdk"])
def test_a_deadline_before_there_is_a_draft(
    face: Face,
    world: World,
    gate: threading.Event,
    place: str,
    way: str,
    http: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FARTHING_HTTP", http)
    world.says["small"] = held(gate, good("small"))
    client = world.client(face, **({"deadline": "400ms"} if place == "policy" else {}), options={"max_retries": 2})
    headers = {"extra_headers": {"x-farthing-deadline": "400ms"}} if place == "header" else {}
    per_call = farthing.options(deadline=0.4) if place == "options" else contextlib.nullcontext()
    with per_call, pytest.raises(openai.APITimeoutError):
        ask(face, client, way=way, **headers)
    # Once: a time that is over is over for another attempt as well. On a busy machine, not even that.
    assert world.models in (["small"], [])
    gate.set()
    with farthing.options(deadline=60):
        assert ask(face, client, way=way).text == good("small")


def test_a_deadline_that_no_failed_draft_outlasts(face: Face, world: World) -> None:
    world.says["small"] = Reply(500, ERROR, delay=0.3)
    with pytest.raises(openai.APITimeoutError):
        ask(face, world.client(face, deadline=0.2))
    assert "large" not in world.models


@pytest.mark.parametrize("way", ["streamed", "responses, streamed"])
@pytest.mark.parametrize("has_draft", [True, False])
def test_the_first_token_of_the_last_rung_is_in_time_or_not(
    face: Face, world: World, gate: threading.Event, has_draft: bool, way: str
) -> None:
    def stalls(seen: Seen, number: int) -> Reply:
        whole = answer(seen, good("large"))

        def pieces() -> Iterator[bytes]:
            gate.wait(30)
            yield from whole.pieces or ()

        return replace(whole, pieces=pieces())

    world.says |= {"small": REFUSAL if has_draft else Reply(500, ERROR), "large": stalls}
    client = world.client(face, deadline=0.3)
    if has_draft:
        assert ask(face, client, way=way).text == REFUSAL
        return
    with pytest.raises(openai.APITimeoutError):
        ask(face, client, way=way)


@pytest.mark.parametrize("way", ["streamed", "responses, streamed"])
def test_a_stream_that_began_in_time_may_go_on(face: Face, world: World, way: str) -> None:
    def slow(seen: Seen, number: int) -> Reply:
        whole = answer(seen, good("large"))

        def pieces() -> Iterator[bytes]:
            for number, piece in enumerate(whole.pieces or ()):
                if number == 5:
                    threading.Event().wait(0.6)
                yield piece

        return replace(whole, pieces=pieces())

    world.says |= {"small": REFUSAL, "large": slow}
    assert ask(face, world.client(face, deadline=0.4), way=way).text == good("large")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("place", ["policy", "options", "header"])
def test_a_limit_of_money(face: Face, world: World, place: str, way: str) -> None:
    world.says["small"] = REFUSAL
    client = world.client(face, **({"max_cost": "0.0005"} if place == "policy" else {}))
    more: dict[str, Any] = limit(way)
    if place == "header":
        more["extra_headers"] = {"x-farthing-max-cost": "0.0005"}
    for _ in range(2):
        with farthing.options(max_cost="0.0005") if place == "options" else contextlib.nullcontext():
            said = ask(face, client, way=way, **more)
        assert said.text == REFUSAL and said.receipt.outcome == "miss" and "max_cost" in notes(said)
    assert world.models == ["small", "small"] and client.savings().spent == 2 * SMALL
    with farthing.options(max_cost="1"):
        assert ask(face, client, way=way, **limit(way)).text == good("large")
    balances(client, world)


def test_a_limit_of_money_where_nobody_knows_what_it_may_cost(face: Face, world: World) -> None:
    world.says["small"] = REFUSAL
    client = world.client(face, max_cost="1")
    # Without a limit on its length, no answer can be bounded: neither the first draft nor any other.
    with pytest.raises(BudgetExceeded, match=r"max_cost.*longest answer is unknown: small") as caught:
        ask(face, client)
    assert not world.models and (caught.value.budget, caught.value.limit) == ("max_cost", 1)
    models = {name: {**price, **({} if name == "large" else {"max_output": 100})} for name, price in PRICES.items()}
    said = ask(face, world.client(face, max_cost="1", more={"models": models}))
    assert said.text == REFUSAL and world.models == ["small"] and "large" in notes(said) and "max_cost" in notes(said)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("place", ["policy", "options", "header"])
def test_a_first_draft_beyond_the_limit_of_money(face: Face, world: World, place: str, way: str) -> None:
    client = world.client(face, **({"max_cost": "0.0005"} if place == "policy" else {}))
    more: dict[str, Any] = limit(way, 1000)
    if place == "header":
        more["extra_headers"] = {"x-farthing-max-cost": "0.0005"}
    per_call = farthing.options(max_cost="0.0005") if place == "options" else contextlib.nullcontext()
    with per_call, pytest.raises(BudgetExceeded, match="max_cost"):
        ask(face, client, way=way, **more)
    assert not world.models and client.savings().spent == 0 and client.savings().escalations == 0
    assert ask(face, client, way=way, **limit(way, 2)).text == good("small")


def test_what_was_not_answered_counts_against_the_limit_of_money(face: Face, world: World) -> None:
    world.says["small"] = Reply(cut_before=True)
    client = world.client(face, max_cost="0.0002", options={"max_retries": 5})
    # Each attempt may have been billed: 0.000118 at most, whatever became of it.
    with pytest.raises(BudgetExceeded):
        ask(face, client, **LIMIT)
    assert world.models == ["small"]


def test_a_judge_has_to_fit_in_the_limit_of_money(face: Face, world: World) -> None:
    client = world.client(face, scorer="judge", judge={"model": "judge"}, max_cost="0.0002")
    said = ask(face, client, **LIMIT)
    assert said.text == good("small") and world.models == ["small"]
    assert "max_cost" in "; ".join(said.receipt.rungs[0].reasons)


def test_a_limit_of_money_where_route_chose_no_rung(face: Face, world: World) -> None:
    route = {"models": ["auto"], "tiers": {"easy": "other", "hard": "large"}, "default": "easy", "by": lambda _: "easy"}
    client = world.client(face, max_cost="0.0005", deadline=0.3, more={"route": route})
    with pytest.raises(BudgetExceeded):
        ask(face, client, max_tokens=1000)
    assert not world.models
    world.says["other"] = Reply(delay=30)
    with pytest.raises(openai.APITimeoutError):
        ask(face, client, max_tokens=2)


def test_a_shadow_is_no_part_of_what_the_call_may_cost(face: Face, world: World) -> None:
    client = world.client(face, max_cost="0.0005", shadow=1.0)
    assert ask(face, client, **LIMIT).text == good("small")
    comes(face, lambda: client.savings().shadowed)
    assert world.models == ["small", "large"]


def test_a_limit_of_money_beside_a_budget(face: Face, world: World) -> None:
    world.says["small"] = REFUSAL
    client = world.client(face, max_cost="0.0005", more={"budget": [{"limit": 1}]})
    assert ask(face, client, **LIMIT).text == REFUSAL
    # What did not leave holds nothing.
    (line,) = client.budget()
    assert (line.spent, line.reserved, line.unknown) == (SMALL, 0, 0)


def test_what_is_said_for_a_call_does_not_hold_for_the_next(face: Face, world: World) -> None:
    world.says["small"] = REFUSAL
    client = world.client(face)
    with farthing.options(max_cost="0.0005"):
        ask(face, client, **LIMIT)
    assert ask(face, client, **LIMIT).text == good("large")


# ---- what is stored ----


@pytest.mark.parametrize("way", WAYS)
def test_what_is_stored(face: Face, world: World, way: str) -> None:
    client = world.client(face)
    first = ask(face, client, way=way)
    again = ask(face, client, way=way)
    assert first.text == again.text == good("small") and world.models == ["small"]
    assert (again.receipt.hit, again.receipt.rungs, again.receipt.cost) == (True, (), 0)
    world.says["small"] = REFUSAL
    prompt = QUESTION + " And on a mountain?"
    assert ask(face, client, prompt, way).text == good("large")
    assert ask(face, client, prompt, way).receipt.hit and world.models == ["small", "small", "large"]
    # The rejected draft is nobody's: not of a call for its own model either.
    assert ask(face, client, prompt, way, model="small").text == REFUSAL
    assert len(world.models) == 4
    balances(client, world)


def test_models_of_other_names_are_left_alone(face: Face, world: World) -> None:
    world.says |= {"small": REFUSAL, "other": REFUSAL}
    client = world.client(face)
    for model in ("small", "other"):
        said = ask(face, client, model=model)
        assert said.text == REFUSAL and said.rungs == []


@pytest.mark.parametrize("way", WAYS)
def test_without_a_cache(face: Face, world: World, way: str) -> None:
    world.says["small"] = REFUSAL
    client = world.client(face, cache=False)
    for _ in range(2):
        said = ask(face, client, way=way)
        assert said.text == good("large") and said.rungs == [("small", False), ("large", True)]
    assert world.models == ["small", "large"] * 2
    balances(client, world)


@pytest.mark.parametrize("way", WAYS)
def test_strict(face: Face, world: World, way: str) -> None:
    """A scorer that fails fails the call; a rung that fails is no failure of farthing's."""

    def broken(draft: farthing.Draft) -> float:
        raise ValueError("no")

    with pytest.raises(farthing.FarthingError, match="ValueError: no"):
        ask(face, world.client(face, more={"strict": True}, scorer=broken), way=way)
    world.says["small"] = Reply(500, ERROR)
    assert ask(face, world.client(face, more={"strict": True}), way=way).text == good("large")


# ---- streams ----


@pytest.mark.parametrize("usage", [False, True])
@pytest.mark.parametrize("says", [{}, {"small": REFUSAL}, {"small": REFUSAL, "large": Reply(500, ERROR)}])
def test_a_stream_is_what_the_model_sent(face: Face, world: World, says: dict[str, Any], usage: bool) -> None:
    world.says |= says
    more = {"stream_options": {"include_usage": True}} if usage else {}
    client = world.client(face)
    said = ask(face, client, way="streamed", **more)
    direct = face.client(world.server, plain=True)
    answered = "large" if list(says) == ["small"] else "small"
    _, items = read(face, direct, way="streamed", model=answered, **more)
    assert dumped(said.items) == dumped(items)
    assert [chunk.usage is not None for chunk in said.items] == [False] * (len(items) - usage) + [True] * usage
    assert said.receipt.prompt_tokens == 9 and said.receipt.completion_tokens == 3


def test_a_stream_of_responses_is_what_the_model_sent(face: Face, world: World) -> None:
    for says in ({}, {"small": REFUSAL}):
        world.says |= says
        said = ask(face, world.client(face), way="responses, streamed")
        direct = face.client(world.server, plain=True)
        _, items = read(face, direct, way="responses, streamed", model="large" if says else "small")
        assert dumped(said.items) == dumped(items)


def test_the_last_rung_streams_live(face: Face, world: World, gate: threading.Event) -> None:
    world.says["small"] = REFUSAL
    seen_in_time: list[bool] = []

    def say(seen: Seen, number: int) -> Reply:
        def pieces() -> Iterator[bytes]:
            *first, last, done = chat_events(good("large"))
            yield from first
            seen_in_time.append(gate.wait(30))
            yield from (last, done)

        return Reply(pieces=pieces())

    world.says["large"] = say
    client = world.client(face)

    async def live() -> str:
        told = ""
        async for chunk in await client.chat.completions.create(**arguments):
            gate.set()
            told += chunk.choices[0].delta.content or ""
        return told

    arguments: dict[str, Any] = {"model": "auto", "messages": [{"role": "user", "content": QUESTION}], "stream": True}
    if face.is_async:
        told = face.run(live)
    else:
        told = ""
        for chunk in client.chat.completions.create(**arguments):
            gate.set()
            told += chunk.choices[0].delta.content or ""
    assert told == good("large") and seen_in_time == [True]


def test_a_last_rung_that_breaks_off_while_it_streams(face: Face, world: World) -> None:
    """What was shown cannot be taken back: the failure is the caller's."""
    world.says["small"] = REFUSAL
    world.says["large"] = lambda seen, number: Reply(pieces=chat_events(good("large"))[:8], cut=True)
    client = world.client(face)
    with pytest.raises(openai.APIConnectionError):
        read(face, client, way="streamed")
    assert client.savings().overhead == SMALL
    world.says["large"] = good("large")
    assert ask(face, client, way="streamed").text == good("large")


# ---- tools ----

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
CALLS = [("call_1", "weather", '{"city": "Oslo"}'), ("call_2", "weather", '{"city": "Zürich"}')]


def tools(way: str, choice: str = "auto") -> dict[str, Any]:
    function = {"name": "weather", "parameters": PARAMETERS}
    tool = {"type": "function", **(function if way.startswith("responses") else {"function": function})}
    return {"tools": [tool], "tool_choice": choice}


def with_tool_calls(seen: Seen, number: int) -> Reply:
    return answer(seen, calls=CALLS)


def called(items: list[Any]) -> list[tuple[str, str, str]]:
    """The calls that an answer, or a stream, asks for."""
    found: dict[int, list[str]] = {}
    for item in dumped(items):
        for choice in item.get("choices", ()):
            for at, one in enumerate((choice.get("message") or choice.get("delta")).get("tool_calls") or ()):
                parts = found.setdefault(one.get("index", at), ["", "", ""])
                told = (one["id"], one["function"]["name"], one["function"]["arguments"])
                parts[:] = [part + (new or "") for part, new in zip(parts, told, strict=True)]
        whole = item.get("response") if item.get("type") == "response.completed" else item
        for at, one in enumerate((whole or {}).get("output") or ()):
            found[at] = [one["call_id"], one["name"], one["arguments"]]
    return [(id, name, given) for id, name, given in found.values()]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("choice", ["auto", "required"])
def test_calls_of_tools_come_as_they_are(face: Face, world: World, choice: str, way: str) -> None:
    world.says["small"] = with_tool_calls
    client = world.client(face)
    made, items = read(face, client, way=way, **tools(way, choice))
    direct = face.client(world.server, plain=True)
    _, wanted = read(face, direct, way=way, model="small", **tools(way, choice))
    assert dumped(items) == dumped(wanted) and world.models == ["small", "small"]
    receipt = farthing.receipt(made)
    assert receipt and [(rung.model, rung.accepted) for rung in receipt.rungs] == [("small", True)]
    _, again = read(face, client, way=way, **tools(way, choice))
    assert called(again) == called(wanted) == CALLS and len(world.models) == 2


@pytest.mark.parametrize("way", WAYS)
def test_a_draft_without_the_call_that_was_required(face: Face, world: World, way: str) -> None:
    world.says["large"] = with_tool_calls
    client = world.client(face)
    made, items = read(face, client, way=way, **tools(way, "required"))
    _, wanted = read(face, face.client(world.server, plain=True), way=way, model="large", **tools(way, "required"))
    assert dumped(items) == dumped(wanted)
    receipt = farthing.receipt(made)
    assert receipt and [(rung.model, rung.accepted) for rung in receipt.rungs] == [("small", False), ("large", True)]
    assert "a tool call is missing" in receipt.rungs[0].reasons


# ---- many at once ----


@pytest.mark.parametrize("streamed", [False, True])
def test_equal_calls_together_climb_once(face: Face, world: World, streamed: bool) -> None:
    world.says["small"] = REFUSAL
    client = world.client(face)
    calls = [call(face, client, QUESTION, streamed=streamed) for _ in range(64 if face.is_async else 32)]
    assert set(ask_together(face, *calls)) == {good("large")}
    assert world.models == ["small", "large"]
    until(lambda: client.savings().calls == len(calls))
    bill = client.savings()
    assert (bill.spent, bill.overhead, bill.escalations) == (SMALL + LARGE, SMALL, 1)
    assert bill.hits + bill.joined == len(calls) - 1
    balances(client, world)


@pytest.mark.parametrize("streamed", [False, True])
def test_different_calls_together(face: Face, world: World, streamed: bool) -> None:
    def small(seen: Seen, number: int) -> Reply:
        prompt = seen.json["messages"][-1]["content"]
        return answer(seen, REFUSAL if "hard" in prompt else f"The answer to the {prompt.split()[-1]} is 100 degrees.")

    world.says["small"] = small
    world.says["large"] = lambda seen, number: answer(seen, seen.json["messages"][-1]["content"][::-1])
    client = world.client(face)
    count = 64 if face.is_async else 32
    prompts = [f"What is {'hard' if n % 4 == 0 else 'easy'}, number-{n}" for n in range(count)]
    told = ask_together(face, *(call(face, client, prompt, streamed=streamed) for prompt in prompts))
    for n, (prompt, said) in enumerate(zip(prompts, told, strict=True)):
        assert said == (prompt[::-1] if n % 4 == 0 else f"The answer to the number-{n} is 100 degrees.")
    assert (world.models.count("small"), world.models.count("large")) == (count, count // 4)
    until(lambda: client.savings().calls == count)
    bill = client.savings()
    assert (bill.overhead, bill.escalations) == (count // 4 * SMALL, count // 4)
    assert bill.spent == count * SMALL + count // 4 * LARGE
    assert (bill.by_stage["escalate"].spent, bill.by_stage["upstream"].spent) == (
        bill.overhead,
        bill.spent - bill.overhead,
    )
    balances(client, world)
    assert len(client.labels()) == count // 4


def test_equal_calls_together_where_the_last_rung_fails(face: Face, world: World) -> None:
    world.says |= {"small": REFUSAL, "large": Reply(500, ERROR)}
    client = world.client(face)
    calls = [call(face, client, QUESTION) for _ in range(16)]
    assert set(ask_together(face, *calls)) == {REFUSAL}
    assert client.savings().spent == world.models.count("small") * SMALL


# ---- callers that go away ----


@pytest.mark.parametrize("at", ["small", "scorer", "large"])
def test_a_cancelled_caller(world: World, gate: threading.Event, at: str) -> None:
    reached = threading.Event()

    def slow(says: str) -> Callable[[Seen, int], Reply]:
        def say(seen: Seen, number: int) -> Reply:
            reached.set()
            return held(gate, says)(seen, number)

        return say

    async def judge(draft: farthing.Draft) -> float:
        if at == "scorer" and "again" not in draft.prompt:
            reached.set()
            await asyncio.Event().wait()
        return 0.1

    if at != "scorer":
        world.says[at] = slow(good(at))
    face = Face(True)
    client = world.client(face, scorer=judge, timeout=60)

    async def main() -> None:
        task = asyncio.create_task(call(face, client, QUESTION)())
        await asyncio.to_thread(reached.wait, 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    try:
        face.run(main)
        charged = 0 if at == "small" else SMALL
        until(lambda: client.savings().overhead == charged)
        # Before the reply may come, the call has to be given up.
        until(lambda: client.savings().unanswered == (at != "scorer"))
        assert client.savings().spent == charged
        gate.set()
        world.says.clear()
        before = client.savings()
        assert ask(face, client, QUESTION + " again").text == good("large")
        after = client.savings()
        assert (after.spent - before.spent, after.overhead - before.overhead) == (SMALL + LARGE, SMALL)
    finally:
        face.close()


def test_one_of_two_callers_is_cancelled(world: World, gate: threading.Event) -> None:
    world.says |= {"small": REFUSAL, "large": held(gate, good("large"))}
    face = Face(True)
    client = world.client(face)

    async def main() -> str:
        first, second = (asyncio.create_task(call(face, client, QUESTION)()) for _ in range(2))
        while "large" not in world.models:
            await asyncio.sleep(0.01)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        gate.set()
        return await second

    try:
        assert face.run(main) == good("large")
        assert world.models == ["small", "large"]
        until(lambda: client.savings().spent == SMALL + LARGE)
        assert client.savings().overhead == SMALL
    finally:
        face.close()


@pytest.mark.parametrize("escalates", [False, True])
def test_a_stream_that_is_closed_early(face: Face, world: World, gate: threading.Event, escalates: bool) -> None:
    def large(seen: Seen, number: int) -> Reply:
        def pieces() -> Iterator[bytes]:
            whole = chat_events(good("large"))
            yield from whole[:3]
            gate.wait(30)
            yield from whole[3:]

        return Reply(pieces=pieces())

    world.says["large"] = large
    if escalates:
        world.says["small"] = REFUSAL
    client = world.client(face)
    arguments: dict[str, Any] = {"model": "auto", "messages": [{"role": "user", "content": QUESTION}], "stream": True}

    async def main() -> None:
        stream = await client.chat.completions.create(**arguments)
        async for _ in stream:
            break
        await stream.close()

    if face.is_async:
        face.run(main)
    else:
        stream = client.chat.completions.create(**arguments)
        next(iter(stream))
        stream.close()
    gate.set()
    # What was written until then is billed once the upstream's connection has gone.
    until(lambda: client.savings().calls == 1 and (client.savings().spent > SMALL or not escalates))
    bill = client.savings()
    assert bill.overhead == (SMALL if escalates else 0)
    assert bill.spent >= SMALL
    world.says.clear()
    assert ask(face, client, QUESTION + " Again.", "streamed").text == good("small")
    assert client.savings().spent - bill.spent == SMALL


def test_a_caller_that_no_longer_waits_for_the_last_rung(face: Face, world: World, gate: threading.Event) -> None:
    """The SDK's time-out is the upstream's: what there is is the answer."""
    world.says |= {"small": REFUSAL, "large": held(gate, good("large"))}
    client = world.client(face, options={"timeout": 1.0})
    said = ask(face, client)
    assert said.text == REFUSAL and said.rungs == [("small", True)]


# ---- calibration ----

CALIBRATION: dict[str, Any] = {
    "version": 1,
    "made": "2026-11-26",
    "rungs": {
        "": {
            "points": [[0.2, 0.1], [0.9, 0.95]],
            "threshold": 0.8,
            "max_loss": 0.05,
            "confidence": 0.95,
            "rows": 500,
        }
    },
}


def calibrated(threshold: float | None) -> dict[str, Any]:
    return {**CALIBRATION, "rungs": {"": {**CALIBRATION["rungs"][""], "threshold": threshold}}}


@pytest.mark.parametrize("is_file", [False, True])
def test_a_calibration(face: Face, world: World, tmp_path: Path, is_file: bool) -> None:
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps(CALIBRATION), encoding="utf-8")
    given: Any = str(path) if is_file else CALIBRATION
    for score, chance, is_good in ((0.9, 0.95, True), (1.0, 0.95, True), (0.2, 0.1, False), (0.0, 0.1, False)):
        client = world.client(face, thresholds=None, calibration=given, scorer=scores(small=score))
        said = ask(face, client)
        (rung, *_) = said.receipt.rungs
        assert rung.score == pytest.approx(chance) and rung.scores == {"callable": score}
        assert rung.accepted is is_good and said.text == good("small" if is_good else "large")
        assert f"score {score:.3f}" in said.reasons
    # A threshold of the policy's is compared with P(good), too.
    client = world.client(face, thresholds=0.96, calibration=given, scorer=scores(small=1.0))
    assert ask(face, client).text == good("large")
    # Labels have the score as it was given: it is what the next calibration is made of.
    assert [label.score for label in client.labels()] == [1.0]


def test_a_calibration_of_each_rung(face: Face, world: World) -> None:
    own = {**CALIBRATION["rungs"][""], "threshold": 0.2}
    given = {**CALIBRATION, "rungs": {"middle": own, **CALIBRATION["rungs"]}}
    ladder = ["small", "middle", "large"]
    judge = scores(small=0.4, middle=0.4)
    client = world.client(face, ladder=ladder, thresholds=None, calibration=given, scorer=judge)
    assert ask(face, client).rungs == [("small", False), ("middle", True)]


def test_a_calibration_without_a_threshold(face: Face, world: World, tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="no threshold for a rung") as error:
        world.client(face, thresholds=None, calibration=calibrated(None))
    assert "hint: give thresholds of P(good)" in str(error.value)
    client = world.client(face, thresholds=0.9, calibration=calibrated(None), scorer=scores(small=0.9))
    assert ask(face, client).text == good("small")
    with pytest.raises(PolicyError, match="hint: thresholds ="):
        world.client(face, thresholds=None)
    with pytest.raises(PolicyError, match="cannot read the calibration"):
        world.client(face, thresholds=None, calibration=str(tmp_path / "none.json"))
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(PolicyError):
        world.client(face, thresholds=None, calibration=str(tmp_path / "bad.json"))


def test_a_calibration_of_other_scorers(world: World) -> None:
    def policy(scorer: Any, scorers: list[str] | None) -> farthing.Policy:
        given = CALIBRATION if scorers is None else {**CALIBRATION, "scorers": scorers}
        judge = {"model": "judge"}
        return farthing.Policy.from_dict(world.policy(thresholds=0.9, calibration=given, scorer=scorer, judge=judge))

    def one(draft: farthing.Draft) -> float:
        return 1.0

    def two(draft: farthing.Draft) -> float:
        return 1.0

    policy({"judge": 2, "structural": 1}, ["structural", "judge"])
    policy([one, "structural", two], ["callable", "callable 2", "structural"])
    policy("judge", None)
    for scorer, scorers in (("judge", ["structural"]), ([one, "judge"], ["judge"]), (one, ["callable", "callable 2"])):
        with pytest.raises(PolicyError, match="calibration is of other scorers than the policy's") as error:
            policy(scorer, scorers)
        assert "hint: calibrate with scores of " in str(error.value)


def test_a_calibrated_score_is_of_all_scorers(face: Face, world: World) -> None:
    def nothing(draft: farthing.Draft) -> float | None:
        return None

    why = "the calibration is of all scorers together, and callable had nothing to go by"
    for scorer in (nothing, ["structural", nothing]):
        client = world.client(face, thresholds=None, calibration=CALIBRATION, scorer=scorer)
        said = ask(face, client)
        assert said.text == good("large") and why in said.reasons and said.receipt.rungs[0].score is None
        # Without a calibration the others decide, and structural where there are none.
        said = ask(face, world.client(face, thresholds=0.8, scorer=scorer))
        assert said.text == good("small") and said.receipt.rungs[0].score == 1.0
    # The map of another rung is not this one's.
    given = {**CALIBRATION, "rungs": {"middle": CALIBRATION["rungs"][""]}}
    ladder = ["small", "middle", "large"]
    client = world.client(face, ladder=ladder, thresholds=0.8, calibration=given, scorer=["structural", nothing])
    assert ask(face, client).text == good("small")
    # What is left unasked is not paid for.
    scorer = ["logprob", "judge"]
    client = world.client(face, thresholds=None, calibration=CALIBRATION, scorer=scorer, judge={"model": "judge"})
    ask(face, client)
    assert "judge" not in world.models


@pytest.mark.parametrize("how", ["reload", "on change"])
def test_new_thresholds_hold(face: Face, world: World, tmp_path: Path, monkeypatch: Any, how: str) -> None:
    monkeypatch.setattr("farthing.session._POLL", 0.0)
    path = tmp_path / "farthing.toml"

    def write(thresholds: str) -> None:
        prices = "\n".join(f"{name} = {{ input = {p['input']}, output = {p['output']} }}" for name, p in PRICES.items())
        ladder = f'models = ["auto"]\nladder = ["small", "large"]\n{thresholds}\n'
        path.write_text(f'cache = false\n[models]\n{prices}\n[escalate]\n{ladder}scorer = "reference"\n')

    write("thresholds = [0.999]")
    options = {"reload": True} if how == "on change" else {}
    client = face.client(world.server, policy=str(path), **options)
    with farthing.options(reference="The small model says that water boils at about 100 degrees."):
        assert ask(face, client).text == good("large")
        write("thresholds = [0.3]")
        if how == "reload":
            client.reload()
        assert ask(face, client).text == good("small")
        made = tmp_path / "calibration.json"
        made.write_text(json.dumps(calibrated(0.951)))
        write(f'calibration = "{made.as_posix()}"')
        if how == "reload":
            client.reload()
        said = ask(face, client)
        assert said.text == good("large") and said.receipt.rungs[0].score is not None
        assert said.receipt.rungs[0].score <= 0.95
        # The policy names the file as before; what is in it is another calibration.
        made.write_text(json.dumps(calibrated(0.2)))
        client.reload()
        assert ask(face, client).text == good("small")
        # A calibration that nobody can read leaves what holds.
        made.write_text("{")
        with pytest.raises(PolicyError):
            client.reload()
        assert ask(face, client).text == good("small")


# ---- what own traffic teaches ----


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("large", "is_good"), [("It is 100.", 1.0), ("It is 99.", 0.0)])
def test_a_shadow(face: Face, world: World, gate: threading.Event, large: str, is_good: float, way: str) -> None:
    world.says |= {"small": "It is 100.", "large": held(gate, large)}
    client = world.client(face, shadow=1.0)
    said = ask(face, client, way=way)
    # The caller has its answer, and nobody has heard the dear model yet.
    assert said.text == "It is 100." and said.rungs == [("small", True)] and client.savings().shadowed == 0
    assert (said.receipt.cost, said.receipt.overhead) == (SMALL, 0)
    gate.set()
    comes(face, lambda: client.labels())
    (label,) = client.labels()
    assert (label.kind, label.rung, label.model, label.good) == ("shadow", "small", "small", is_good)
    assert (label.score, label.scores, label.text) == (1.0, {"structural": 1.0}, None)
    assert (label.cost, label.dear_cost, label.overhead) == (SMALL, LARGE, 0)
    assert len(label.prompt) == 64 and label.features
    bill = client.savings()
    assert (bill.shadowed, bill.shadowed_good, bill.calls) == (1, int(is_good), 1)
    assert "quality" in str(bill) and "1 compared" in str(bill)
    assert (bill.spent, bill.overhead, bill.by_stage["shadow"].spent) == (SMALL + LARGE, LARGE, LARGE)
    balances(client, world)
    # What comes from the cache is not compared again; the dear model's answer is nobody's.
    assert ask(face, client, way=way).receipt.hit and world.models == ["small", "large"]
    assert not any(seen.json.get("stream") for seen in world.server.seen if seen.json["model"] == "large")


def test_a_shadow_of_long_answers_is_judged(face: Face, world: World) -> None:
    long = "It depends on the height of the place and on the weather of the day, and there is more to say of it. " * 3
    world.says |= {"small": long, "large": long.upper() + " Not at all.", "judge": "E"}
    client = world.client(face, shadow=1.0, judge={"model": "judge"})
    ask(face, client)
    comes(face, lambda: client.labels())
    (label,) = client.labels()
    assert (label.kind, label.good) == ("shadow", 1.0) and client.savings().shadowed_good == 1
    assert client.savings().overhead == LARGE + JUDGE
    balances(client, world)


@pytest.mark.parametrize("large", [Reply(500, ERROR), Reply(cut_before=True)], ids=["500", "closed"])
def test_a_shadow_that_fails_is_nobodys_business(face: Face, world: World, large: Reply) -> None:
    world.says["large"] = large
    client = world.client(face, shadow=1.0)
    assert ask(face, client).text == good("small")
    comes(face, lambda: "large" in world.models)
    assert ask(face, client).receipt.hit
    assert (client.labels(), client.savings().shadowed, client.savings().errors) == ([], 0, 0)
    assert client.savings().spent == SMALL


@pytest.mark.parametrize("keep", ["features", "text", "off", False])
def test_what_is_kept(face: Face, world: World, keep: Any) -> None:
    world.says |= {"small": "It is 100.", "large": "It is 100."}
    client = world.client(face, shadow=1.0, labels=keep)
    ask(face, client)
    comes(face, lambda: client.savings().shadowed == 1)
    comes(face, lambda: client.labels() or keep in ("off", False))
    world.says |= {"small": REFUSAL}
    ask(face, client, QUESTION + " Please.")
    found = client.labels()
    if keep in ("off", False):
        assert found == []
    else:
        assert [label.kind for label in found] == ["shadow", "escalation"]
        texts = [QUESTION, QUESTION + " Please."] if keep == "text" else [None, None]
        assert [label.text for label in found] == texts
        assert found[0].prompt != found[1].prompt


LONG = "Water boils when the pressure of its steam is that of the air around it, which depends on the height. "


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("small", "large", "is_good"),
    [
        ("It is 100.", "It is 100.", 1.0),
        ("It is 98.", "It is 100.", 0.0),
        (LONG * 2, LONG + "It is lower there.", None),
    ],
)
def test_a_label_of_a_rejected_draft(
    face: Face, world: World, small: str, large: str, is_good: float | None, way: str
) -> None:
    world.says |= {"small": small, "large": large}
    client = world.client(face, scorer=scores(small=0.25))
    assert ask(face, client, way=way).text == large
    (label,) = client.labels()
    assert (label.kind, label.rung, label.score, label.good) == ("escalation", "small", 0.25, is_good)
    assert (label.scores, label.cost, label.overhead) == ({"callable": 0.25}, SMALL, 0)
    assert label.dear_cost == LARGE
    assert client.savings().shadowed == 0


def test_a_label_of_a_draft_that_nothing_better_came_for(face: Face, world: World) -> None:
    world.says |= {"small": REFUSAL, "large": Reply(500, ERROR)}
    client = world.client(face)
    ask(face, client)
    assert client.labels() == []


# ---- with other parts of a policy ----


@pytest.mark.parametrize("way", WAYS[:2])
def test_a_fallback_of_a_rung(face: Face, world: World, way: str) -> None:
    models = {**PRICES, "small": {**PRICES["small"], "fallback": ["other"]}}
    world.says["small"] = Reply(500, ERROR)
    client = world.client(face, more={"models": models})
    said = ask(face, client, way=way)
    assert said.text == good("other") and said.rungs == [("small", True)] and world.models == ["small", "other"]
    assert said.receipt.cost == JUDGE == client.savings().spent
    # What a fallback says is not stored; it is judged as what it stands for.
    world.says["other"] = REFUSAL
    said = ask(face, client, way=way)
    assert said.text == good("large") and world.models == ["small", "other"] * 2 + ["large"]
    assert said.receipt.overhead == JUDGE == client.savings().overhead


@pytest.mark.parametrize("way", WAYS[:2])
def test_a_fallback_of_the_last_rung(face: Face, world: World, way: str) -> None:
    models = {**PRICES, "large": {**PRICES["large"], "fallback": ["other"]}}
    world.says |= {"small": REFUSAL, "large": Reply(500, ERROR)}
    client = world.client(face, more={"models": models})
    said = ask(face, client, way=way)
    assert said.text == good("other") and world.models == ["small", "large", "other"]
    assert said.receipt.overhead == SMALL and said.receipt.cost == SMALL + JUDGE
    world.says["other"] = Reply(500, ERROR)
    assert ask(face, client, way=way).text == REFUSAL


@pytest.mark.parametrize("way", WAYS)
def test_a_budget_of_the_dear_rung(face: Face, world: World, way: str) -> None:
    world.says["small"] = REFUSAL
    budget = {"limit": "0.0005", "model": "large", "name": f"dear-{id(world)}-{way}"}
    client = world.client(face, more={"budgets": [budget]})
    said = ask(face, client, way=way, **limit(way))
    assert said.text == REFUSAL and said.rungs == [("small", True)] and "budget" in notes(said)
    assert world.models == ["small"]
    assert ask(face, client, way=way, **limit(way)).receipt.outcome == "miss"
    # Without a draft the refusal is the caller's.
    world.says["small"] = Reply(500, ERROR)
    with pytest.raises(BudgetExceeded):
        read(face, client, way=way, **limit(way))
    assert "large" not in world.models
    assert all(line.reserved == 0 for line in client.budget())


def test_a_budget_of_a_middle_rung(face: Face, world: World) -> None:
    world.says["small"] = REFUSAL
    budget = {"limit": "0.00001", "model": "middle", "name": f"middle-{id(world)}-{face.is_async}"}
    client = world.client(face, ladder=["small", "middle", "large"], more={"budgets": [budget]})
    said = ask(face, client, **LIMIT)
    assert said.text == REFUSAL and world.models == ["small"] and "budget" in notes(said)


def test_a_budget_counts_drafts(face: Face, world: World) -> None:
    world.says["small"] = REFUSAL
    client = world.client(face, more={"budgets": [{"limit": "1", "name": f"all-{id(world)}-{face.is_async}"}]})
    for way in WAYS[:2]:
        ask(face, client, f"{QUESTION} {way}", way, **LIMIT)
    (line,) = client.budget()
    assert (line.spent, line.reserved) == (2 * (SMALL + LARGE), 0)


def test_embeddings_go_to_the_last_rung(face: Face, world: World) -> None:
    client = world.client(face)
    made = face.run(lambda: client.embeddings.create(model="auto", input="water"))
    assert world.models == ["large"] and len(made.data[0].embedding) == 3
    receipt = farthing.receipt(made)
    assert receipt and receipt.rungs == ()


def several(*texts: str) -> Reply:
    body = chat()
    choice = body["choices"][0]
    choices = [
        {**choice, "index": index, "message": {**choice["message"], "content": said}}
        for index, said in enumerate(texts)
    ]
    return Reply(body={**body, "choices": choices})


def test_several_answers_of_one_call(face: Face, world: World) -> None:
    world.says["small"] = several(good("small"), good("small") + " Or so.")
    client = world.client(face, shadow=1.0)
    (made,) = read(face, client, n=2)[1]
    assert [choice.message.content for choice in made.choices] == [good("small"), good("small") + " Or so."]
    # One of them is poor: so is the draft.
    world.says |= {"small": several(good("small"), REFUSAL), "large": several(good("large"), good("large"))}
    (made,) = read(face, client, QUESTION + " Please.", n=2)[1]
    assert [choice.message.content for choice in made.choices] == [good("large")] * 2
    assert world.models == ["small", "small", "large"] and client.savings().shadowed == 0


@pytest.mark.parametrize("way", WAYS)
def test_what_changes_something_is_asked_once(face: Face, world: World, way: str) -> None:
    world.says["small"] = REFUSAL
    client = world.client(face, shadow=1.0)
    said = ask(face, client, way=way, store=True)
    assert said.text == good("large") and world.models == ["large"]
    world.says["large"] = Reply(500, ERROR)
    with pytest.raises(openai.InternalServerError):
        read(face, client, way=way, store=True)
    assert world.models == ["large", "large"]


@pytest.mark.parametrize("way", WAYS)
def test_a_rung_elsewhere(face: Face, world: World, way: str) -> None:
    elsewhere = World()
    try:
        more = {
            "upstreams": {"second": {"base_url": elsewhere.server.url, "api_key": "sk-second"}},
            "aliases": {"big": {"model": "large", "upstream": "second"}},
        }
        world.says["small"] = REFUSAL
        client = world.client(face, ladder=["small", "big"], more=more)
        said = ask(face, client, way=way)
        assert said.text == good("large") and said.rungs == [("small", False), ("big", True)]
        assert (world.models, elsewhere.models) == (["small"], ["large"])
        keys = [one.server.seen[0].headers["authorization"] for one in (world, elsewhere)]
        assert keys == ["Bearer sk-test", "Bearer sk-second"]
        assert (said.receipt.upstream, said.receipt.cost) == ("second", SMALL + LARGE)
        # And the other way round.
        elsewhere.says["large"] = REFUSAL
        client = world.client(face, ladder=["big", "small"], more=more)
        world.says["small"] = good("small")
        assert ask(face, client, way=way).text == good("small")
    finally:
        elsewhere.server.close()


IMAGE = [
    {"type": "text", "text": QUESTION},
    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
]


def routed(by: Any, **models: dict[str, Any]) -> dict[str, Any]:
    known = {name: {**price, **models.get(name, {})} for name, price in PRICES.items()}
    tiers = {"easy": "small", "normal": "middle", "hard": "large"}
    return {"models": known, "route": {"models": ["auto"], "tiers": tiers, "by": [by]}}


def test_route_picks_the_rung_to_start_from(face: Face, world: World) -> None:
    world.says |= {"small": REFUSAL, "middle": REFUSAL}
    ladder = ["small", "middle", "large"]
    wanted = {"easy": ["small", "middle", "large"], "normal": ["middle", "large"], "hard": ["large"]}
    for tier, models in wanted.items():
        client = world.client(face, ladder=ladder, more=routed(lambda request, tier=tier: (tier, 0.9)))
        before = len(world.models)
        said = ask(face, client)
        assert said.text == good("large") and world.models[before:] == models
        assert said.receipt.route and said.receipt.route.tier == tier
        balanced = client.savings()
        costs = {"small": SMALL, "middle": MIDDLE, "large": LARGE}
        assert balanced.spent == sum(costs[model] for model in models)
        assert balanced.overhead == balanced.spent - LARGE == said.receipt.overhead


def test_route_and_escalate_where_nothing_fits(face: Face, world: World) -> None:
    never = {"cannot": ["images"]}
    more = routed(lambda request: ("easy", 0.9), small=never, middle=never, large=never)
    client = world.client(face, ladder=["small", "middle", "large"], more=more)
    said = ask(face, client, IMAGE)
    assert said.text == good("large") and world.models == ["large"]
    assert said.receipt.route and said.receipt.route.tier == "hard"


def test_rungs_that_cannot_serve_are_not_asked(face: Face, world: World) -> None:
    models = {**PRICES, "middle": {**PRICES["middle"], "can": ["images"]}}
    client = world.client(face, ladder=["small", "middle", "large"], more={"models": models})
    said = ask(face, client, IMAGE)
    assert said.text == good("middle") and world.models == ["middle"]
    assert said.rungs == [("small", False), ("middle", True)] and "not asked: images" in said.reasons
    # If nobody says that it can, it is the last one's.
    assert ask(face, world.client(face), IMAGE).text == good("large")


# ---- functions that ask the client again ----


@pytest.mark.parametrize("streamed", [False, True])
def test_scorers_that_ask_the_ladder_again_together(face: Face, world: World, streamed: bool) -> None:
    """Eight callers wait for eight scorers, each of which asks for the same name: no deadlock, and no recursion."""
    clients: list[Any] = []
    judged: list[str] = []

    def plain(draft: farthing.Draft) -> float:
        judged.append(draft.prompt)
        return float(good("large") == call(face, clients[0], f"Is this right? {draft.prompt}", streamed=streamed)())

    async def later(draft: farthing.Draft) -> float:
        judged.append(draft.prompt)
        told = await call(face, clients[0], f"Is this right? {draft.prompt}", streamed=streamed)()
        return float(told == good("large"))

    clients.append(world.client(face, scorer=later if face.is_async else plain, timeout=30))
    prompts = [f"{QUESTION} {n}" for n in range(8)]
    told = ask_together(face, *(call(face, clients[0], prompt, streamed=streamed) for prompt in prompts))
    assert len(told) == 8 and sorted(judged) == prompts
    # Nobody may judge a draft from inside a scorer: the last rung is asked at once.
    assert set(told) == {good("small")}
    assert (world.models.count("small"), world.models.count("large")) == (8, 8)
    until(lambda: clients[0].savings().calls == 16)
    balances(clients[0], world)


@pytest.mark.parametrize("way", WAYS[:2])
@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("kind", ["raises", "late", "nonsense", "out of range"])
def test_a_scorer_that_fails_says_why(
    face: Face, world: World, gate: threading.Event, kind: str, is_async: bool, way: str
) -> None:
    said_why = {
        "raises": "ZeroDivisionError",
        "late": "within 0.2 seconds",
        "nonsense": "neither a number",
        "out of range": "not from 0 to 1",
    }

    def plain(draft: farthing.Draft) -> Any:
        if kind == "late":
            gate.wait(30)
        return {"nonsense": {"score": 1}, "out of range": 7}.get(kind) or 1 / 0

    async def later(draft: farthing.Draft) -> Any:
        if kind == "late":
            await asyncio.sleep(60)
        return plain(draft)

    patience = "200ms" if kind == "late" else "30s"
    client = world.client(face, scorer=["structural", later if is_async else plain], timeout=patience)
    said = ask(face, client, way=way)
    assert said.text == good("large") and said.rungs == [("small", False), ("large", True)]
    assert "callable failed" in said.reasons and said_why[kind] in said.reasons
    assert said.receipt.rungs[0].score is None and said.receipt.overhead == SMALL
    (label,) = client.labels()
    assert (label.kind, label.score) == ("escalation", None)
    # A draft that nobody could judge is still better than no answer.
    world.says["large"] = Reply(500, ERROR)
    gate.set()
    assert ask(face, client, QUESTION + " Please.", way).text == good("small")


def test_money_is_decimal_to_the_last_digit(face: Face, world: World) -> None:
    world.says["small"] = REFUSAL
    client = world.client(face)
    said = ask(face, client)
    assert said.receipt.cost == Decimal("0.000165") and said.receipt.saved == Decimal("-0.000015")
    assert sum(made.cost or 0 for made in said.receipt.attempts) == said.receipt.cost
    assert [made.model for made in said.receipt.attempts] == ["small", "large"]
    bill = client.savings()
    assert bill.net == bill.saved - bill.overhead == -SMALL


def test_a_price_that_nobody_knows(face: Face, world: World) -> None:
    world.says["small"] = REFUSAL
    models = {name: price for name, price in PRICES.items() if name != "small"}
    client = world.client(face, more={"models": models})
    said = ask(face, client)
    assert said.text == good("large")
    assert (said.receipt.cost, said.receipt.overhead, said.receipt.saved) == (None, None, None)
    assert client.savings().spent == LARGE and client.savings().unknown_prices
    # A limit of money cannot be kept where nobody knows what is spent.
    with farthing.options(max_cost="1"), pytest.raises(BudgetExceeded, match="price is unknown: small"):
        ask(face, client, QUESTION + " Please.", **LIMIT)


def test_a_tag_has_what_its_drafts_cost(face: Face, world: World) -> None:
    world.says["small"] = REFUSAL
    client = world.client(face)
    ask(face, client)
    with farthing.options(cache="refresh", tag="faq"):
        assert ask(face, client).receipt.outcome == "miss"
    assert ask(face, client).receipt.hit and world.models == ["small", "large"] * 2
    assert [client.savings().by_tag[tag].spent for tag in ("", "faq")] == [SMALL + LARGE] * 2


# ---- the client's other ways ----


@pytest.mark.parametrize("says", [{}, {"small": REFUSAL}], ids=["accepted", "rejected"])
def test_raw_responses_and_the_sdks_helpers(face: Face, world: World, says: dict[str, Any]) -> None:
    world.says |= says
    client = world.client(face)
    wanted = good("large" if says else "small")
    completions = client.chat.completions
    arguments: Any = {"model": "auto", "messages": [{"role": "user", "content": QUESTION}]}
    raw = face.run(lambda: completions.with_raw_response.create(**arguments))
    assert raw.parse().choices[0].message.content == wanted
    assert raw.headers["content-length"] == str(len(raw.content)) and raw.headers["x-request-id"]
    receipt = farthing.receipt(raw)
    assert receipt and receipt.rungs[-1].model == ("large" if says else "small")

    async def helper() -> Any:
        async with completions.stream(**arguments, seed=1) as stream:
            return [event async for event in stream][-1], await stream.get_final_completion()

    if face.is_async:
        _, made = face.run(helper)
    else:
        with completions.stream(**arguments, seed=1) as stream:
            list(stream)
            made = stream.get_final_completion()
    assert made.choices[0].message.content == wanted
    parsed = face.run(lambda: completions.parse(**arguments, seed=2))
    assert parsed.choices[0].message.content == wanted
    assert world.models == (["small", "large"] if says else ["small"]) * 3
    balances(client, world)


@pytest.mark.parametrize("failure", ["500", "429", "closed"])
def test_retries_are_each_rungs_own(face: Face, world: World, failure: str) -> None:
    reply = replace(DEAD[failure], headers={"retry-after-ms": "1"})
    world.says["small"] = reply
    client = world.client(face, options={"max_retries": 1})
    assert ask(face, client).text == good("large") and world.models == ["small", "small", "large"]
    world.says |= {"small": REFUSAL, "large": reply}
    assert ask(face, client, QUESTION + " Please.").text == REFUSAL
    assert world.models[3:] == ["small", "large", "large"]


def test_a_silent_first_rung(face: Face, world: World, gate: threading.Event) -> None:
    """The client's time-out is each rung's, and not the whole way's."""
    world.says["small"] = held(gate, good("small"))
    said = ask(face, world.client(face, options={"timeout": 1.0}))
    assert said.text == good("large") and "timeout" in said.reasons


def test_the_name_of_the_dear_model_itself(face: Face, world: World) -> None:
    """The application changes nothing: what it asks for is the top of the ladder."""
    client = world.client(face, models=["large"])
    said = ask(face, client, model="large")
    assert said.text == good("small") and said.receipt.saved == LARGE - SMALL
    assert ask(face, client, model="large").receipt.hit
    world.says["small"] = REFUSAL
    said = ask(face, client, QUESTION + " Please.", model="large")
    assert said.text == good("large") and said.receipt.saved == -SMALL
    balances(client, world)


BODIES: list[Any] = [{**chat(), "choices": []}, [], None, "text", b"", b"{", b"\xff\xfe"]


@pytest.mark.parametrize("body", BODIES, ids=lambda body: repr(body)[:10])
def test_a_draft_that_is_no_answer(face: Face, world: World, body: Any) -> None:
    world.says["small"] = Reply(body=body)
    said = ask(face, world.client(face))
    assert said.text == good("large") and said.rungs == [("small", False), ("large", True)] and said.reasons


@pytest.mark.parametrize("messages", [[], [{"role": "user", "content": ""}], [{"role": "user", "content": []}], [{}]])
def test_questions_of_nothing(face: Face, world: World, messages: Any) -> None:
    client = world.client(face)
    made = face.run(lambda: client.chat.completions.create(model="auto", messages=messages))
    assert made.choices[0].message.content in (good("small"), good("large"))


def test_a_stream_that_nobody_reads(face: Face, world: World) -> None:
    client = world.client(face)

    async def main() -> None:
        await (await client.chat.completions.create(**arguments)).close()

    arguments: Any = {"model": "auto", "messages": [{"role": "user", "content": QUESTION}], "stream": True}
    if face.is_async:
        face.run(main)
    else:
        client.chat.completions.create(**arguments).close()
    assert client.savings().spent == SMALL
    # Whoever leaves at once may be gone before the answer is stored; then it is asked for again.
    said = ask(face, client)
    assert said.text == good("small") and world.models == ["small"] * (1 if said.receipt.hit else 2)
    balances(client, world)
