"""Runs the demo's workload once for each line of the bill. A later stage adds a line in `plan`."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal
from itertools import groupby
from typing import Any

import openai

from .. import client as faces
from ..batch_policy import Batch
from ..call_options import options as call_options
from ..compress_policy import Compress
from ..escalate_policy import Escalate
from ..exceptions import LocalModelsError, explain
from ..policy import Cache, ModelPrice, Policy
from ..receipts import receipt
from ..route_policy import Route
from ..upstream_policy import Alias, Upstream
from .workload import Ask, jobs, steps

__all__ = ["PRICES", "Line", "Outage", "outage", "plan", "run"]

# USD per million tokens, prompt and completion alike.
PRICES = {"cheap": Decimal("0.01"), "middle": Decimal("0.25"), "dear": Decimal("2.50")}
_MOST_TOKENS = 12
# The name that the applications ask for where farthing chooses the model.
_AUTO = "auto"
# Score of its tokens' probabilities from which a draft of the cheap model is taken. Found on other rows than these:
# messages of BANKING77, see docs/stages/escalate.md.
_SURE = 0.74
Progress = Callable[[str, int, int], None]
"""Called with the line's name, the requests answered and the requests in all."""


@dataclass(frozen=True)
class Line:
    """One way to run the workload.

    Attributes:
        name: what is compared.
        model: the model asked for.
        requests: that the applications made.
        upstream: of these, how many reached the upstream.
        prompt_tokens, completion_tokens: billed by the upstream.
        cost: USD.
        seconds: wall time.
        right: requests whose answer was right.
    """

    name: str
    model: str
    requests: int
    upstream: int
    prompt_tokens: int
    completion_tokens: int
    cost: Decimal
    seconds: float
    right: int


@dataclass(frozen=True)
class Outage:
    """The workload while an upstream dies.

    Attributes:
        name: what happens.
        model: the model asked for, at both upstreams.
        requests: that the applications made.
        answered: of these, how many had an answer.
        fallbacks: requests that went on to the second upstream.
        right: requests whose answer was right.
    """

    name: str
    model: str
    requests: int
    answered: int
    fallbacks: int
    right: int


@dataclass(frozen=True)
class _Plan:
    name: str
    model: str
    price: Decimal
    policy: Policy | None
    """None = without farthing."""
    maps: bool = False
    """The nightly job asks for all of its answers at once."""


def plan(cheap: str, dear: str) -> Sequence[_Plan]:
    """The lines of the bill, in the order in which they are run and printed."""
    prices = {cheap: ModelPrice(PRICES["cheap"], PRICES["cheap"]), dear: ModelPrice(PRICES["dear"], PRICES["dear"])}
    # A cache of its own: a demo in a notebook must not find what an earlier one stored.
    own = Cache(name=f"farthing demo {time.time_ns()}")
    route = Route(models=_AUTO, tiers={"easy": cheap, "hard": dear})
    escalate = Escalate(models=_AUTO, ladder=(cheap, dear), thresholds=_SURE, scorer="logprob")

    def chosen(**stages: Any) -> Policy:
        return Policy(models=prices, cache=Cache(name=f"farthing demo {time.time_ns()}"), **stages)

    return (
        _Plan("openai, dear model", dear, PRICES["dear"], None),
        _Plan("farthing, dear model", dear, PRICES["dear"], Policy(models=prices, cache=own)),
        _Plan("farthing, route", _AUTO, PRICES["dear"], chosen(route=route)),
        _Plan("farthing, escalate", _AUTO, PRICES["dear"], chosen(escalate=escalate)),
        _Plan("farthing, compress", dear, PRICES["dear"], chosen(compress=Compress(models=dear))),
        _Plan("farthing, batch", dear, PRICES["dear"], chosen(batch=Batch(models=dear, window_ms=0)), maps=True),
        _Plan("openai, cheap model", cheap, PRICES["cheap"], None),
    )


def run(base_url: str, cheap: str, dear: str, progress: Progress) -> list[Line]:
    """Runs every line of the plan against one endpoint.

    Raises:
        LocalModelsError: the endpoint does not answer.
    """
    options: dict[str, Any] = {"base_url": base_url, "api_key": os.environ.get("OPENAI_API_KEY") or "none"}
    try:
        plans = plan(cheap, dear)
        return [_line(each, options, progress, (cheap, dear)) for each in plans]
    except openai.APIError as error:
        hint = "are the address and the names of the models right?"
        raise LocalModelsError(explain("the endpoint failed", where=base_url, value=str(error), hint=hint)) from error


def outage(first: str, second: str, model: str, dies: Callable[[], None], progress: Progress) -> Outage:
    """Runs the workload with two upstreams that have one model; halfway, `dies` ends the first. Without a cache, so
    that every request needs one of them."""
    name = "an upstream dies halfway"
    policy = Policy(
        cache=None,
        upstreams={"first": Upstream(base_url=first, max_retries=0), "second": Upstream(base_url=second)},
        models={model: ModelPrice(PRICES["cheap"], PRICES["cheap"], upstream="first", fallback=["spare"])},
        aliases={"spare": Alias(model=model, upstream="second")},
    )
    work = list(steps())
    total, done, answered, right = sum(map(len, work)), 0, 0, 0
    ending: threading.Thread | None = None

    def ask(one: Ask) -> bool | None:
        try:
            return one.is_right(_answer(client, model, one)[0])
        except openai.APIError:
            return None

    with faces.OpenAI(base_url=first, api_key="none", policy=policy) as client, ThreadPoolExecutor(8) as pool:
        for step in work:
            if ending is None and done >= total / 2:
                # While the next requests are on their way to it.
                ending = threading.Thread(target=dies)
                ending.start()
            for found in pool.map(ask, step):
                done += 1
                answered += found is not None
                right += bool(found)
                progress(name, done, total)
        if ending is not None:
            ending.join()
        return Outage(name, model, total, answered, client.savings().fallbacks, right)


def _line(each: _Plan, options: dict[str, Any], progress: Progress, both: tuple[str, str]) -> Line:
    models = both if each.model == _AUTO else (each.model,)
    work = list(steps())
    total = sum(map(len, work))
    if each.maps:
        work = [job for is_job, group in groupby(work, _is_of_job) for job in (jobs(group) if is_job else group)]
    with openai.OpenAI(**options) as plain:
        # Each line begins with the same prefixes in the upstream's own cache, or the first one would pay for all.
        for ask in {ask.system: ask for step in work for ask in step}.values():
            for model in models:
                _answer(plain, model, Ask(ask.tag, ask.system, "Ready?", ""))
    client = faces.OpenAI(**options, policy=each.policy) if each.policy else openai.OpenAI(**options)
    right = prompt = completion = done = packed = 0
    started = time.perf_counter()
    with client, ThreadPoolExecutor(8) as pool:
        for step in work:
            if each.maps and _is_of_job(step):
                answers, packs = _mapped(client, each.model, step)
                packed += packs
            else:
                answers = list(pool.map(lambda ask: _answer(client, each.model, ask), step))
            for ask, (text, usage) in zip(step, answers, strict=True):
                right += ask.is_right(text)
                prompt += usage.prompt_tokens if usage else 0
                completion += usage.completion_tokens if usage else 0
                done += 1
                progress(each.name, done, total)
        seconds = time.perf_counter() - started
        upstream = total
        cost = each.price * (prompt + completion) / 1_000_000
        if isinstance(client, faces.OpenAI):
            bill = client.savings()
            upstream, cost = bill.misses + bill.bypassed + bill.escalations - bill.packed + packed, bill.spent
            prompt, completion = bill.prompt_tokens, bill.completion_tokens
    return Line(each.name, each.model, total, upstream, prompt, completion, cost, seconds, right)


def _is_of_job(step: Sequence[Ask]) -> bool:
    return all(ask.tag == "nightly" for ask in step)


def _mapped(client: Any, model: str, job: Sequence[Ask]) -> tuple[list[tuple[str, Any]], int]:
    """The answers to a whole job, and in how many shared requests they came."""
    with call_options(tag=job[0].tag):
        answers = client.farthing.map(
            [ask.user for ask in job], system=job[0].system, progress=False, **_request(model)
        )
    packs = [found.pack for answer in answers if (found := receipt(answer)) and found.pack]
    return [(answer.choices[0].message.content or "", answer.usage) for answer in answers], sum(
        pack.place == 1 for pack in packs
    )


def _request(model: str) -> dict[str, Any]:
    return {"model": model, "temperature": 0, "seed": 1, "max_tokens": _MOST_TOKENS}


def _messages(ask: Ask) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": ask.system},
        {"role": "user", "content": ask.user},
    ]
    if ask.result:
        call = {"id": "call_1", "type": "function", "function": {"name": ask.tag, "arguments": "{}"}}
        messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
        messages.append({"role": "tool", "tool_call_id": "call_1", "content": ask.result})
    return messages


def _answer(client: openai.OpenAI, model: str, ask: Ask) -> tuple[str, Any]:
    """The text, and the usage that the answer tells."""
    request: dict[str, Any] = {
        **_request(model),
        "messages": _messages(ask),
        "extra_headers": {"x-farthing-tag": ask.tag} if isinstance(client, faces.OpenAI) else None,
    }
    if not ask.stream:
        made = client.chat.completions.create(**request)
        return made.choices[0].message.content or "", made.usage
    text, usage = "", None
    for chunk in client.chat.completions.create(**request, stream=True, stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        if chunk.choices:
            text += chunk.choices[0].delta.content or ""
    return text, usage
