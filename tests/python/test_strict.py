"""`strict = true`: a stage that cannot do its part fails the call, where it would go on without."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from conftest import Face
from upstream import Reply, Seen, Upstream, chat

import farthing

pytestmark = [pytest.mark.once, pytest.mark.filterwarnings("ignore::farthing.FarthingWarning")]
PRICES = {name: {"input": number, "output": number} for number, name in enumerate(("small", "judge", "large"), 1)}
HI: list[Any] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]


def raises(_: Any) -> str:
    raise RuntimeError("boom")


async def raises_later(_: Any) -> str:
    raise RuntimeError("boom")


ROUTE = {"models": ["auto"], "tiers": {"easy": "small", "hard": "large"}, "default": "hard"}
LADDER = {"models": ["auto"], "ladder": ["small", "large"], "thresholds": [0.5]}

STAGES: dict[str, tuple[dict[str, Any], str, list[str]]] = {
    "a router": ({"route": {**ROUTE, "by": raises}}, "route: the function failed: RuntimeError: boom", []),
    "an async router": ({"route": {**ROUTE, "by": raises_later}}, "route: the function failed: RuntimeError: boom", []),
    "no tier": ({"route": {**ROUTE, "by": lambda _: "who?"}}, "route: the function returned", []),
    "a classifier": (
        {"route": {**ROUTE, "by": "llm", "llm": {"model": "judge"}}},
        "route: judge answered with status 500",
        ["judge"],
    ),
    "a scorer": (
        {"escalate": {**LADDER, "scorer": raises}},
        "escalate: callable failed: RuntimeError: boom",
        ["small"],
    ),
    "a judge": (
        {"escalate": {**LADDER, "scorer": "judge", "judge": {"model": "judge"}}},
        "escalate: judge failed: judge answered with status 500",
        ["small", "judge"],
    ),
    "a compressor": (
        {"compress": {"models": ["auto"], "methods": [raises], "parts": ["system"], "min_chars": 1}},
        "compress: the function failed: RuntimeError: boom",
        [],
    ),
}


def answers(seen: Seen, number: int) -> Reply:
    model = seen.json["model"]
    return Reply(500, {"error": {"message": "no"}}) if model == "judge" else Reply(body=chat("pong", model=model))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_that_fails_fails_the_call(face: Face, upstream: Upstream, stage: str, stream: bool) -> None:
    parts, said, asked = STAGES[stage]
    upstream.script = answers
    policy: dict[str, Any] = {"cache": None, "models": PRICES, "aliases": {"auto": "large"}, **parts}
    client = face.client(upstream, policy={**policy, "strict": True}, max_retries=0)
    with pytest.raises(farthing.FarthingError, match=said):
        face.chat(client, model="auto", messages=HI, stream=stream)
    assert [seen.json["model"] for seen in upstream.seen] == asked, "nobody else is asked"
    bill = client.savings()
    assert (bill.calls, bill.errors) == (1, 1)
    # Without it, the call goes on.
    client = face.client(upstream, policy=policy, max_retries=0)
    assert face.chat(client, model="auto", messages=HI).choices[0].message.content == "pong"


def test_calls_from_inside_a_function_go_on(face: Face, upstream: Upstream) -> None:
    """Functions are not called from inside one: strict or not, that is no failure."""
    upstream.script = answers
    made: list[Any] = []
    clients: list[Any] = []

    def asks(request: farthing.RouteRequest) -> str:
        made.append(clients[0].chat.completions.create(model="auto", messages=request.messages))
        return "easy"

    async def asks_later(request: farthing.RouteRequest) -> str:
        made.append(await clients[0].chat.completions.create(model="auto", messages=request.messages))
        return "easy"

    function: Callable[..., Any] = asks_later if face.is_async else asks
    policy = {"cache": None, "models": PRICES, "route": {**ROUTE, "by": function}, "strict": True}
    clients.append(face.client(upstream, policy=policy))
    answer = face.chat(clients[0], model="auto", messages=HI)
    assert (answer.model, made[0].model) == ("small", "large")
