"""Budgets: what is refused, warned of, sent elsewhere; what is reserved meanwhile; and that nothing is spent beyond."""

from __future__ import annotations

import asyncio
import logging
import pickle
import threading
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import openai
import pytest
from conftest import MESSAGES, Face
from upstream import Reply, Seen, Upstream, answer, chat, chat_events

import farthing
from farthing import Budget, BudgetExceeded, BudgetLine, ModelPrice, Policy, PolicyError

_numbers = iter(range(1, 10**9))
# USD per million tokens: a token in is 1e-5, one out 2e-5. An answer of `upstream.chat` (9 and 3 tokens) costs 0.00015.
PRICE = ModelPrice(10, 20)
CHEAP = ModelPrice(1, 2)
COST = Decimal("0.00015")


def policy(*budgets: Budget, **more: Any) -> Policy:
    """Equal policies share their budgets: each gets something that makes it unlike the others."""
    models = {"test-model": PRICE, "gpt-4o": PRICE, "cheap": CHEAP, **more.pop("models", {})}
    models = {name: price for name, price in models.items() if price is not None}
    return Policy(**more, models={**models, f"unused-{next(_numbers)}": PRICE}, budgets=budgets)


def line(client: Any, **wanted: Any) -> BudgetLine:
    found = [row for row in client.budget() if all(getattr(row, n) == v for n, v in wanted.items())]
    assert len(found) == 1, client.budget()
    return found[0]


def nothing_is_in_flight(client: Any) -> None:
    """Streams that were let go, and cancelled calls, settle a moment later."""
    end = threading.Event()
    for _ in range(1000):
        if all(row.reserved == 0 for row in client.budget()):
            return
        end.wait(0.01)
    pytest.fail(str(client.budget()))


WAYS: dict[str, Callable[[Face, Any, dict[str, Any]], Any]] = {
    "plain": lambda face, client, more: face.chat(client, **more),
    "streamed": lambda face, client, more: face.stream(client, **more),
    "raw": lambda face, client, more: face.run(
        lambda: client.chat.completions.with_raw_response.create(model="test-model", messages=MESSAGES, **more)
    ),
    "the SDK's": lambda face, client, more: face.chat(client, extra_query={"a": "b"}, **more),
    "responses": lambda face, client, more: face.run(
        lambda: client.responses.create(model="test-model", input="ping", max_output_tokens=more["max_tokens"])
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_call_that_does_not_fit_does_not_leave(face: Face, upstream: Upstream, way: str) -> None:
    client = face.client(upstream, policy=policy(Budget("0.005"), cache=None))
    WAYS[way](face, client, {"max_tokens": 20})
    cost = client.savings().spent
    assert line(client).spent == cost > 0
    with pytest.raises(BudgetExceeded) as caught:
        WAYS[way](face, client, {"max_tokens": 1000})
    assert upstream.calls == 1
    error = caught.value
    assert (error.budget, error.subject, error.model) == ("total", "", "test-model")
    assert (error.limit, error.spent, error.reserved, error.unknown) == (Decimal("0.005"), cost, 0, 0)
    assert error.cost is not None and Decimal("0.02") < error.cost < Decimal("0.03")
    assert 'the budget "total" has no room' in str(error) and "hint:" in str(error)
    receipt = farthing.receipt(error)
    assert receipt is not None and (receipt.outcome, receipt.attempts) == ("error", ())
    again = pickle.loads(pickle.dumps(error))
    assert (again.budget, again.cost, str(again)) == ("total", error.cost, str(error))
    WAYS[way](face, client, {"max_tokens": 20})
    assert (upstream.calls, line(client).spent, line(client).left) == (2, 2 * cost, Decimal("0.005") - 2 * cost)
    assert client.savings().errors == 1


def test_a_client_with_an_http_client_of_its_own(face: Face, upstream: Upstream) -> None:
    own = openai.DefaultAsyncHttpxClient() if face.is_async else openai.DefaultHttpxClient()
    client = face.client(upstream, policy=policy(Budget("0.005"), cache=None), http_client=own)
    face.chat(client, max_tokens=50)
    with pytest.raises(BudgetExceeded):
        face.chat(client, max_tokens=1000)
    assert (upstream.calls, line(client).spent, line(client).reserved) == (1, COST, 0)


def test_what_is_known_costs_nothing(face: Face, upstream: Upstream) -> None:
    client = face.client(upstream, policy=policy(Budget("0.003")))
    first = face.chat(client, max_tokens=50)
    with pytest.raises(BudgetExceeded):
        face.chat(client, max_tokens=500)
    assert face.chat(client, max_tokens=50) == first
    assert face.stream(client, max_tokens=50)
    assert (upstream.calls, line(client).spent) == (1, COST)
    # The error counts as a call that failed, and left no attempt behind.
    assert (client.savings().errors, client.savings().hits) == (1, 2)


def test_a_joined_call_is_not_counted(face: Face, upstream: Upstream) -> None:
    upstream.script = lambda seen, number: Reply(body=chat(), delay=0.3)
    # Room for one at a time.
    client = face.client(upstream, policy=policy(Budget("0.003")))
    arguments: dict[str, Any] = {"model": "test-model", "messages": MESSAGES, "max_tokens": 50}
    made = face.together(*[lambda: client.chat.completions.create(**arguments)] * 5)
    assert not [error for error in made if isinstance(error, Exception)]
    assert (upstream.calls, line(client).spent) == (1, COST)


def test_calls_of_other_budgets_do_not_join(face: Face, upstream: Upstream) -> None:
    """The one goes to a cheaper model, the other has room for what it asked."""
    upstream.script = lambda seen, number: Reply(body=chat(seen.json["model"]), delay=0.3)
    client = face.client(upstream, policy=policy(Budget("0.001", tag="poor", action="downgrade", to="cheap")))

    def call(tag: str) -> Callable[[], Any]:
        headers = {"x-farthing-tag": tag}
        arguments: dict[str, Any] = {"model": "test-model", "messages": MESSAGES, "max_tokens": 50}
        return lambda: client.chat.completions.create(**arguments, extra_headers=headers)

    made = face.together(*map(call, ("poor", "rich", "poor", "rich")))
    said = [one.choices[0].message.content for one in made]
    assert said == ["cheap", "test-model"] * 2
    assert upstream.calls == 2


def test_what_nobody_can_bound_is_blocked(face: Face, upstream: Upstream) -> None:
    def blocked(client: Any, **more: Any) -> str:
        with pytest.raises(BudgetExceeded) as caught:
            face.chat(client, **more)
        assert caught.value.cost is None
        return str(caught.value)

    client = face.client(upstream, policy=policy(Budget(1)))
    assert "whose price is unknown: another" in blocked(client, model="another", max_tokens=5)
    message = blocked(client)
    assert "whose longest answer is unknown: test-model" in message and "max_output" in message
    audio = [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}]}]
    assert "whose cost nobody can bound: audio" in blocked(client, messages=audio, max_tokens=5)
    assert upstream.calls == 0
    said = face.client(upstream, policy=policy(Budget(1), models={"test-model": ModelPrice(10, 20, max_output=100)}))
    face.chat(said)
    # OpenAI's own models are in the table, with what they answer at most.
    known = face.client(
        "https://api.openai.com/v1", policy=policy(Budget("0.1"), models={"gpt-4o": None}), timeout=0.001
    )
    with pytest.raises(BudgetExceeded) as caught:
        face.chat(known, model="gpt-4o")
    # 16,384 tokens at the price of the priority tier, which nobody excluded.
    assert caught.value.cost is not None and Decimal("0.16") < caught.value.cost < Decimal("0.3")


def test_as_many_answers_as_it_may_ask_for(face: Face, upstream: Upstream) -> None:
    """However their number is written, and whatever a server of another kind would keep to."""
    client = face.client(upstream, policy=policy(Budget("0.002")))

    def ask(**more: Any) -> str:
        with pytest.raises(BudgetExceeded) as caught:
            face.chat(client, max_tokens=50, **more)
        return str(caught.value)

    assert ask(n=3) == ask(n=3.0) == ask(extra_body={"best_of": 2.5})
    assert "whose longest answer is unknown" in ask(extra_body={"n": "3"})
    with pytest.raises(BudgetExceeded, match="whose longest answer is unknown"):
        face.run(lambda: client.responses.create(model="test-model", input="ping", extra_body={"max_tokens": 1}))
    assert upstream.calls == 0


def test_a_warning_lets_everything_pass(face: Face, upstream: Upstream, caplog: pytest.LogCaptureFixture) -> None:
    budget = Budget("0.004", action="warn", at=0.5)
    client = face.client(upstream, policy=policy(budget, cache=None))
    with caplog.at_level(logging.WARNING, "farthing"):
        face.chat(client, max_tokens=20)
        early = face.chat(client, max_tokens=100)
        face.chat(client, max_tokens=100)
        full = face.chat(client, max_tokens=1000)
        face.chat(client, max_tokens=1000)
    said = [record.getMessage() for record in caplog.records if record.name == "farthing"]
    assert len(said) == 2
    assert "is nearly used up" in said[0] and said[0] in farthing.receipt(early).notes
    assert "is used up" in said[1] and said[1] in farthing.receipt(full).notes
    assert line(client).spent == 5 * COST
    # What has no price passes as well, and is counted.
    receipt = farthing.receipt(face.chat(client, model="another", max_tokens=5))
    assert any("nothing was reserved" in note for note in receipt.notes)
    # It was answered as test-model, which has one.
    assert receipt.cost == COST
    upstream.script = lambda seen, number: Reply(body=chat(model="another"))
    face.chat(client, model="another", max_tokens=5)
    assert (line(client).unpriced, line(client).spent) == (1, 6 * COST)


@pytest.mark.parametrize("stream", [False, True])
def test_a_cheaper_model_takes_over(face: Face, upstream: Upstream, stream: bool) -> None:
    upstream.script = lambda seen, number: (
        answer(seen) if seen.json["model"] != "cheap" else answer(seen, f"cheap {number}")
    )
    budget = Budget("0.004", action="downgrade", to="small")
    client = face.client(upstream, policy=policy(budget, aliases={"small": "cheap"}))

    def ask(**more: Any) -> Any:
        return face.stream(client, **more) if stream else face.chat(client, **more)

    ask(max_tokens=50)
    ask(max_tokens=500)
    assert [seen.json["model"] for seen in upstream.seen] == ["test-model", "cheap"]
    if not face.is_async:
        receipt = client.last_receipt()
        assert receipt.model_asked == "test-model" and receipt.attempts[0].model == "cheap"
        assert any("no room for test-model: cheap was asked" in note for note in receipt.notes)
    # It is not stored: who has room again gets the model that was asked for.
    ask(max_tokens=500)
    assert upstream.calls == 3
    with pytest.raises(BudgetExceeded) as caught:
        ask(max_tokens=5000)
    assert (caught.value.model, upstream.calls) == ("cheap", 3)


def test_whose_budget_it_is(face: Face, upstream: Upstream) -> None:
    budgets = [
        Budget("0.0011", per="tag", name="each tag"),
        Budget(1, per=("model", "day"), name="each model and day"),
        Budget(1, tag="b", model="gpt-4o"),
        Budget(1, per="client", name="each client"),
        Budget(1, per="day", model="small", name="alias"),
    ]
    aliases = {"small": "gpt-4o"}
    client = face.client(upstream, policy=policy(*budgets, cache=None, aliases=aliases))
    upstream.script = lambda seen, number: Reply(body=chat(model=seen.json["model"]))
    other = face.client(upstream, policy=client.policy)

    def ask(who: Any, tag: str, model: str) -> None:
        with farthing.options(tag=tag):
            face.chat(who, model=model, max_completion_tokens=5)

    ask(client, "a", "test-model")
    with pytest.raises(BudgetExceeded, match=r'"each tag" \(tag=a\)'):
        ask(client, "a", "gpt-4o")
        ask(client, "a", "test-model")
    ask(other, "b", "small")
    assert {row.subject: row.spent for row in client.budget() if row.name == "each tag"} == {
        "tag=a": 2 * COST,
        "tag=b": COST,
    }
    by_model = {row.subject: row for row in client.budget() if row.name == "each model and day"}
    assert {name: row.spent for name, row in by_model.items()} == {"model=test-model": COST, "model=gpt-4o": 2 * COST}
    assert by_model["model=gpt-4o"].period is not None
    assert line(client, name="total tag=b model=gpt-4o").spent == COST
    assert line(client, name="alias").spent == COST
    assert line(client, name="each client").spent == 2 * COST
    assert line(other, name="each client").spent == COST


def test_what_cannot_have_been_billed_is_free_again(face: Face, upstream: Upstream) -> None:
    client = face.client(upstream, policy=policy(Budget("0.005"), cache=None), max_retries=2)
    headers = {"retry-after-ms": "1"}
    upstream.script = lambda seen, number: (
        Reply(status=500 if number == 1 else 429, body={}, headers=headers) if number < 3 else answer(seen)
    )
    face.chat(client, max_tokens=50)
    assert (upstream.calls, line(client).spent, line(client).unknown) == (3, COST, 0)
    nobody = face.client("http://127.0.0.1:9/v1", policy=client.policy)
    with pytest.raises(Exception, match="Connection error"):
        face.chat(nobody, max_tokens=50)
    assert (line(client).spent, line(client).unknown, line(client).reserved) == (COST, 0, 0)


def test_what_may_have_been_billed_counts(face: Face, upstream: Upstream) -> None:
    upstream.script = lambda seen, number: Reply(body=chat(), delay=5) if number == 1 else answer(seen)
    client = face.client(upstream, policy=policy(Budget("0.005"), cache=None), timeout=0.3)
    with pytest.raises(Exception, match="timed out"):
        face.chat(client, max_tokens=50)
    nothing_is_in_flight(client)
    unknown = line(client).unknown
    assert Decimal("0.001") < unknown < Decimal("0.003")
    face.chat(client, max_tokens=50)
    assert (line(client).spent, line(client).unknown) == (COST, unknown)
    with pytest.raises(BudgetExceeded, match=f"unknown {unknown}"):
        face.chat(client, max_tokens=150)


def test_a_stream_that_breaks_is_booked_by_estimate(face: Face, upstream: Upstream) -> None:
    upstream.script = lambda seen, number: Reply(pieces=chat_events("one two three four", usage=False)[:3], cut=True)
    client = face.client(upstream, policy=policy(Budget("0.005"), cache=None))
    with pytest.raises(Exception, match=r"Connection error|closed|peer"):
        face.stream(client, max_tokens=50)
    nothing_is_in_flight(client)
    assert Decimal(0) < line(client).spent < COST
    assert line(client).unknown == 0
    assert client.savings().estimated_spent == line(client).spent


def test_a_stream_holds_its_reservation_until_it_ends(upstream: Upstream) -> None:
    face = Face(False)
    client = face.client(upstream, policy=policy(Budget("0.0025"), cache=None))
    upstream.script = lambda seen, number: (
        Reply(pieces=chat_events("one two three four", usage=True), pause=0.05) if number == 1 else answer(seen)
    )
    stream = client.chat.completions.create(model="test-model", messages=MESSAGES, max_tokens=50, stream=True)
    assert line(client).reserved > COST
    with pytest.raises(BudgetExceeded):
        face.chat(client, max_tokens=50)
    list(stream)
    nothing_is_in_flight(client)
    face.chat(client, max_tokens=50)


def test_cancelled(upstream: Upstream) -> None:
    upstream.script = lambda seen, number: Reply(body=chat(), delay=5)
    client = farthing.AsyncOpenAI(
        base_url=upstream.url, api_key="k", max_retries=0, policy=policy(Budget("0.005"), cache=None)
    )

    async def main() -> None:
        call = client.chat.completions.create(model="test-model", messages=MESSAGES, max_tokens=50)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(call, 0.2)

    asyncio.run(main())
    nothing_is_in_flight(client)
    assert line(client).unknown > COST


class Bill:
    """A server that uses all that it is allowed to, and adds up what it bills."""

    def __init__(self, upstream: Upstream) -> None:
        self.sum = Decimal(0)
        self.lock = threading.Lock()
        upstream.script = self.answer

    def answer(self, seen: Seen, number: int) -> Reply:
        most = seen.json["max_tokens"]
        with self.lock:
            self.sum += 9 * Decimal("0.00001") + most * Decimal("0.00002")
        usage = {"prompt_tokens": 9, "completion_tokens": most, "total_tokens": 9 + most}
        if number % 7 == 0:
            with self.lock:
                self.sum -= 9 * Decimal("0.00001") + most * Decimal("0.00002")
            return Reply(status=500, body={})
        return Reply(body=chat(usage=usage), delay=0.01)


@pytest.mark.parametrize("on_disk", [False, True])
def test_256_at_a_time_do_not_overshoot(face: Face, upstream: Upstream, tmp_path: Path, on_disk: bool) -> None:
    limit = Decimal("0.4")
    bill = Bill(upstream)
    cache = farthing.Cache(path=tmp_path / "budget.db") if on_disk else None
    client = face.client(upstream, policy=policy(Budget(limit), Budget(limit, per="day"), cache=cache))

    def call(number: int) -> Callable[[], Any]:
        content = [{"role": "user", "content": f"ping {number}"}]
        return lambda: client.chat.completions.create(model="test-model", messages=content, max_tokens=100 + number)

    made = face.together(*map(call, range(256)))
    answered = [one for one in made if not isinstance(one, Exception)]
    blocked = [one for one in made if isinstance(one, BudgetExceeded)]
    failed = [one for one in made if type(one).__name__ == "InternalServerError"]
    assert len(answered) + len(blocked) + len(failed) == 256
    assert answered and blocked
    assert 0 < bill.sum <= limit
    for row in client.budget():
        assert (row.spent, row.reserved, row.unknown) == (bill.sum, 0, 0)
    assert client.savings().spent == bill.sum


def test_clients_with_one_policy_share_it(upstream: Upstream) -> None:
    face = Face(False)
    shared = policy(Budget("0.005"), cache=None)
    one, two = (face.client(upstream, policy=shared) for _ in range(2))
    face.chat(one, max_tokens=50)
    face.chat(two, max_tokens=50)
    assert line(one).spent == line(two).spent == 2 * COST
    assert face.client(upstream, policy=policy(cache=None)).budget() == ()


TOML = """
[[budget]]
limit = 5.00
per = "day"
at = 0.8

[[budget]]
limit = 0.50
per = ["tag", "day"]
model = "gpt-4o"
action = "downgrade"
to = "gpt-4o-mini"
"""


def test_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "farthing.toml"
    path.write_text(TOML)
    made = Policy.from_toml(path)
    assert made.budgets == (
        Budget("5", per="day", at="0.8"),
        Budget(Decimal("0.5"), per=("day", "tag"), model="gpt-4o", action="downgrade", to="gpt-4o-mini"),
    )
    assert [budget.name for budget in made.budgets] == ["day", "day tag model=gpt-4o"]
    assert pickle.loads(pickle.dumps(made)) == made and hash(made) == hash(Policy.from_toml(path))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({}, "missing key in the policy: budgets.limit"),
        ({"limit": -1}, "budgets.limit must be USD"),
        ({"limit": 1, "per": "week"}, "budgets.per must be one of"),
        ({"limit": 1, "action": "stop"}, "budgets.action must be one of"),
        ({"limit": 1, "action": "downgrade"}, "budgets.to is missing"),
        ({"limit": 1, "to": "cheap"}, "budgets.to has no meaning"),
        ({"limit": 1, "at": 1}, "budgets.at must be more than 0 and less than 1"),
        ({"limit": 1, "tags": "x"}, 'did you mean "budgets.tag"'),
    ],
)
def test_a_budget_that_cannot_be(row: dict[str, Any], message: str) -> None:
    with pytest.raises(PolicyError) as caught:
        Policy.from_dict({"budget": [row]})
    assert message in str(caught.value)


def test_which_of_several_budgets_cannot_be() -> None:
    with pytest.raises(PolicyError, match=r"budgets\[2\]\.limit must be USD"):
        Policy.from_dict({"budget": [{"limit": 1}, {"limit": -1, "name": "second"}]})
    with pytest.raises(PolicyError, match=r"budgets\[3\]\.to is missing"):
        Policy.from_dict({"budget": [{"limit": 1}, {"limit": 1, "name": "b"}, {"limit": 1, "action": "downgrade"}]})


def test_two_of_one_name() -> None:
    with pytest.raises(PolicyError, match="two budgets have one name"):
        Policy(budgets=(Budget(1), Budget(2)))
    Policy(budgets=(Budget(1), Budget(2, name="second")))
    with pytest.raises(PolicyError, match="needs the model"):
        Budget(1, action="downgrade")
