"""A ladder of scripted models, and the ways to ask it: what the tests of `[escalate]` share."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

import pytest
from conftest import Face, text
from upstream import Reply, Seen, Upstream, answer

import farthing

ERROR = {"error": {"message": "no", "type": "kind", "param": None, "code": "why"}}
PRICES = {
    "small": {"input": 1, "output": 2},
    "middle": {"input": 2, "output": 4},
    "large": {"input": 10, "output": 20},
    "auto": {"input": 10, "output": 20},
    "judge": {"input": 1, "output": 1},
    "other": {"input": 1, "output": 1},
}
SMALL, MIDDLE, LARGE, JUDGE = (Decimal(text) for text in ("0.000015", "0.00003", "0.00015", "0.000012"))
"""What the upstream's 9 and 3 tokens cost there, USD. "other" costs what the judge costs."""
QUESTION = "At what temperature does water boil at sea level?"
REFUSAL = "I'm sorry, but I can't help with that."
WAYS = ("plain", "streamed", "responses", "responses, streamed")

_numbers = iter(range(1, 10**9))

Says = str | Reply | Callable[[Seen, int], Reply]


class World:
    """An upstream where each model says what it is told to: a text, a reply, or what a function makes of it."""

    def __init__(self) -> None:
        self.says: dict[str, Says] = {}
        self.server = Upstream(self._script)

    def _script(self, seen: Seen, number: int) -> Reply:
        model = seen.json["model"]
        said = self.says.get(model, good(model))
        if isinstance(said, Reply):
            return said
        return answer(seen, said) if isinstance(said, str) else said(seen, number)

    def policy(self, *, cache: Any = None, more: Mapping[str, Any] | None = None, **escalate: Any) -> dict[str, Any]:
        """`more`: beside the table `escalate`."""
        escalate = {"models": ["auto"], "ladder": ["small", "large"], "thresholds": 0.8, **escalate}
        cache = {"name": f"ladder-{next(_numbers)}"} if cache is None else cache
        return {"cache": cache, "models": PRICES, "escalate": escalate, **(more or {})}

    def client(self, face: Face, *, options: Mapping[str, Any] | None = None, **policy: Any) -> Any:
        return face.client(self.server, policy=self.policy(**policy), **(options or {}))

    @property
    def models(self) -> list[str]:
        return [seen.json["model"] for seen in self.server.seen]

    def asked(self, model: str) -> list[Any]:
        return [seen.json for seen in self.server.seen if seen.json["model"] == model]


@dataclass
class Said:
    """An answer as the caller has it."""

    text: str
    receipt: farthing.Receipt
    items: list[Any] = field(default_factory=list)
    """One body, or what a stream brought."""

    @property
    def rungs(self) -> list[tuple[str, bool]]:
        return [(rung.model, rung.accepted) for rung in self.receipt.rungs]

    @property
    def reasons(self) -> str:
        """Of the first rung."""
        return "; ".join(self.receipt.rungs[0].reasons)


def good(model: str) -> str:
    return f"The {model} model says that water boils at 100 degrees."


def read(face: Face, client: Any, prompt: Any = QUESTION, way: str = "plain", **more: Any) -> tuple[Any, list[Any]]:
    """What a call for the model "auto" returned, read to the end: one body, or what a stream brought."""
    streams = {"stream": True} if "streamed" in way else {}
    if way.startswith("responses"):
        made = face.run(lambda: client.responses.create(**{"model": "auto", "input": prompt, **streams, **more}))
    else:
        arguments = {"model": "auto", "messages": [{"role": "user", "content": prompt}], **streams, **more}
        made = face.run(lambda: client.chat.completions.create(**arguments))
    return made, face.items(made) if streams else [made]


def ask(face: Face, client: Any, prompt: Any = QUESTION, way: str = "plain", **more: Any) -> Said:
    """Asks for the model "auto", and reads to the end."""
    made, items = read(face, client, prompt, way, **more)
    if way == "responses":
        told = made.output_text
    elif way == "plain":
        told = made.choices[0].message.content or ""
    elif way == "streamed":
        told = text(items)
    else:
        told = "".join(item.delta for item in items if item.type == "response.output_text.delta")
    receipt = farthing.receipt(made)
    assert receipt is not None and receipt.complete
    return Said(told, receipt, items)


def until(condition: Callable[[], Any]) -> None:
    """What happens in the background has happened."""
    pause = threading.Event()
    for _ in range(1000):
        if condition():
            return
        pause.wait(0.01)
    pytest.fail("it did not come to that")


def balances(client: Any, world: World) -> None:
    """The bill is what the upstream would charge for the calls that it saw, to the last digit."""
    costs = {"small": SMALL, "middle": MIDDLE, "large": LARGE, "judge": JUDGE, "other": JUDGE}
    bill = client.savings()
    assert bill.spent == sum(costs[model] for model in world.models)
    assert sum(line.spent for line in bill.by_stage.values()) == bill.spent
    assert not bill.unknown_prices


def edited(reply: Reply, edit: Callable[[Any], None]) -> Reply:
    """A reply, each JSON text of which went through `edit`."""
    if reply.pieces is None:
        body = json.loads(json.dumps(reply.body))
        edit(body)
        return replace(reply, body=body)

    def piece(raw: bytes) -> bytes:
        head, mark, data = raw.partition(b"data: ")
        if data.strip() == b"[DONE]":
            return raw
        body = json.loads(data)
        edit(body)
        return head + mark + json.dumps(body).encode() + b"\n\n"

    return replace(reply, pieces=[piece(raw) for raw in reply.pieces])


def cut_off(text: str) -> Says:
    """What is said, at the limit of the output."""

    def edit(body: dict[str, Any]) -> None:
        for choice in body.get("choices", ()):
            choice["finish_reason"] = choice["finish_reason"] and "length"
        if body.get("type") == "response.completed":
            body["type"] = "response.incomplete"
        whole = body.get("response", body)
        if whole.get("object") == "response" and whole["status"] == "completed":
            whole |= {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}

    def say(seen: Seen, number: int) -> Reply:
        reply = edited(answer(seen, text), edit)
        if reply.pieces is not None:
            renamed = (raw.replace(b"event: response.completed", b"event: response.incomplete") for raw in reply.pieces)
            reply = replace(reply, pieces=list(renamed))
        return reply

    return say


def wants_logprobs(body: Mapping[str, Any]) -> bool:
    return bool(body.get("logprobs")) or "message.output_text.logprobs" in (body.get("include") or ())


def sure(text: str, logprob: float, tops: Sequence[tuple[str, float]] = ()) -> Says:
    """What a model says that is so sure of each token, if it is asked for logprobs. `tops`: of each token."""

    def tokens(said: str) -> list[dict[str, Any]]:
        top = [{"token": token, "logprob": value, "bytes": None} for token, value in tops or ((said, logprob),)]
        return [{"token": said, "logprob": logprob, "bytes": None, "top_logprobs": top}]

    def edit(body: dict[str, Any]) -> None:
        for choice in body.get("choices", ()):
            said = (choice.get("message") or choice.get("delta") or {}).get("content")
            if said:
                choice["logprobs"] = {"content": tokens(said), "refusal": None}
        if str(body.get("type")).startswith("response.output_text"):
            body["logprobs"] = tokens(body.get("delta", body.get("text")))
        for item in body.get("response", body).get("output", ()):
            for part in item["content"]:
                part["logprobs"] = tokens(part["text"])

    def say(seen: Seen, number: int) -> Reply:
        reply = answer(seen, text)
        return edited(reply, edit) if wants_logprobs(seen.json) else reply

    return say
