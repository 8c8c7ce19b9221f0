"""`client.farthing.map()`: many questions, an answer to each in its place, and what is left after errors and Ctrl-C.

How calls share a request is not in here: to these tests it is one ordinary call a question, which carries a session.
"""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import contextvars
import io
import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import openai
import pytest
from conftest import Face
from test_process import run, start, unix
from upstream import Reply, Seen, Upstream, answer

import farthing
from farthing import Batch, Policy, QuestionsError, _core
from farthing.call_options import current

pytestmark = [pytest.mark.once]

ERROR = {"error": {"message": "no", "type": "kind", "param": None, "code": "why"}}
PRICES = {"test-model": {"input": 1, "output": 2}}
ONE = Decimal("0.000015")
"""What the upstream's 9 and 3 tokens cost, USD."""


def asked(seen: Seen) -> str:
    return str(seen.json["messages"][-1]["content"])


def echo(seen: Seen, number: int) -> Reply:
    """An error for what is "bad", late answers for what is "late"."""
    if "bad" in asked(seen):
        return Reply(400, ERROR, delay=0.3 if "late" in asked(seen) else 0)
    reply = answer(seen, f"re: {asked(seen)}")
    reply.delay = 0.3 if "late" in asked(seen) else 0
    return reply


@pytest.fixture
def server(upstream: Upstream) -> Upstream:
    upstream.script = echo
    return upstream


def ask(face: Face, client: Any, questions: Any, **more: Any) -> list[Any]:
    made: list[Any] = face.run(lambda: client.farthing.map(questions, **{"model": "test-model", **more}))
    return made


def said(made: list[Any]) -> list[str]:
    return [one if isinstance(one, Exception) else one.choices[0].message.content for one in made]  # type: ignore[misc]


def outcomes(made: list[Any]) -> list[str | None]:
    receipts = [farthing.receipt(one) for one in made]
    return [receipt and receipt.outcome for receipt in receipts]


# Answers


def test_each_answer_is_in_its_place(face: Face, server: Upstream) -> None:
    def backwards(seen: Seen, number: int) -> Reply:
        reply = answer(seen, f"re: {asked(seen)}")
        reply.delay = 0.2 - int(asked(seen)) / 100
        return reply

    server.script = backwards
    made = ask(face, face.client(server), [str(number) for number in range(20)])
    assert said(made) == [f"re: {number}" for number in range(20)]
    assert all(type(one) is openai.types.chat.ChatCompletion for one in made)


def test_receipts_add_up_to_the_bill(face: Face, server: Upstream) -> None:
    client = face.client(server, policy={"cache": {"name": "map-bill"}, "models": PRICES})
    made = ask(face, client, ["a", "b", "c", "a"])
    costs = [receipt.cost for receipt in map(farthing.receipt, made) if receipt is not None]
    assert costs == [ONE, ONE, ONE, 0] and client.savings().spent == 3 * ONE
    assert client.savings().calls == 4


@pytest.mark.parametrize("wrapped", [False, True])
def test_three_hundred_questions(face: Face, server: Upstream, wrapped: bool) -> None:
    client = face.client(server)
    if wrapped:
        client = farthing.wrap(face.client(server, plain=True), policy={"cache": {"name": "map-wrapped"}})
    questions = [f"question {number}" for number in range(300)]
    for calls in (300, 300):
        made = ask(face, client, questions)
        assert said(made) == [f"re: {question}" for question in questions] and server.calls == calls
    assert set(outcomes(made)) == {"hit"}


def test_at_most_so_many_at_a_time(face: Face, server: Upstream) -> None:
    running, most, lock = 0, 0, threading.Lock()

    def count(seen: Seen, number: int) -> Reply:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.05)
        with lock:
            running -= 1
        return answer(seen, "ok")

    server.script = count
    # Too short for packs to pay: the questions go alone, and no more of them at a time.
    ask(face, face.client(server), [str(number) for number in range(24)], max_per_request=3, concurrency=2)
    assert most == 2


def test_questions_that_stand_there_again_are_asked_once(face: Face, server: Upstream) -> None:
    client = face.client(server)
    lists = [[{"role": "user", "content": "b"}], [{"content": "b", "role": "user"}]]
    made = ask(face, client, ["a", "late b", "a", *lists, "a", "late b"])
    assert said(made) == ["re: a", "re: late b", "re: a", "re: b", "re: b", "re: a", "re: late b"]
    assert server.calls == 3 and client.savings().calls == 7
    assert outcomes(made) == ["miss", "miss", "hit", "miss", "hit", "hit", "hit"]


def test_without_a_cache_each_is_asked(face: Face, server: Upstream) -> None:
    made = ask(face, face.client(server, cached=False), ["a"] * 5)
    assert server.calls == 5 and outcomes(made) == ["bypass"] * 5


# What a question may be

USER, ANSWER, SYSTEM = ({"role": role, "content": role} for role in ("user", "assistant", "system"))


def test_lists_of_messages(face: Face, server: Upstream) -> None:
    client = face.client(server)
    said_before = face.chat(client).choices[0].message
    ask(face, client, ["text", [USER, ANSWER, USER], (SYSTEM, USER), [USER, said_before, USER]], concurrency=1)
    bodies = {len(seen.json["messages"]): seen.json["messages"] for seen in server.seen[1:]}
    texts = [seen.json["messages"] for seen in server.seen[1:]]
    assert [{"role": "user", "content": "text"}] in texts and [USER, ANSWER, USER] in texts and [SYSTEM, USER] in texts
    assert [message["role"] for message in bodies[3]] == ["user", "assistant", "user"] and len(texts) == 4


def test_a_system_message_for_all(face: Face, server: Upstream) -> None:
    ask(face, face.client(server), ["text", [USER, ANSWER, USER]], system="be brief", temperature=0, max_tokens=5)
    first = {"role": "system", "content": "be brief"}
    bodies = sorted((seen.json for seen in server.seen), key=lambda body: len(body["messages"]))
    assert [body["messages"] for body in bodies] == [
        [first, {"role": "user", "content": "text"}],
        [first, USER, ANSWER, USER],
    ]
    assert all(body["temperature"] == 0 and body["max_tokens"] == 5 for body in bodies)


class Series:
    """As pandas has it: no sequence, and no texts of Python's own in it."""

    class Text(str):
        pass

    def __iter__(self) -> Iterator[Any]:
        return iter([self.Text("a"), self.Text("b")])


@pytest.mark.parametrize(
    "questions",
    [["a", "b"], ("a", "b"), Series(), {"a": 1, "b": 2}.keys(), collections.deque("ab"), (c for c in "ab"), iter("ab")],
)
def test_iterables(questions: Any, server: Upstream) -> None:
    with farthing.OpenAI(base_url=server.url, api_key="k", policy={"cache": {"name": "map-iterables"}}) as client:
        assert said(client.farthing.map(questions, model="test-model")) == ["re: a", "re: b"]


@pytest.mark.parametrize("questions", [[], (), iter(()), {}.keys()])
def test_nothing_to_ask(face: Face, server: Upstream, questions: Any) -> None:
    assert ask(face, face.client(server), questions, progress=True) == [] and server.calls == 0


@pytest.mark.parametrize("more", [{"stream": False}, {"n": 1}, {"tools": []}, {"stream": openai.omit, "n": None}])
def test_what_says_nothing_is_taken(face: Face, server: Upstream, more: dict[str, Any]) -> None:
    assert said(ask(face, face.client(server), ["a"], **more)) == ["re: a"]


class Frame:
    columns = ("question",)
    itertuples = __iter__ = lambda self: iter(self.columns)


TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}
WHERE = " in client.farthing.map()"
# fmt: off
REFUSED: list[tuple[Any, dict[str, Any], str, str]] = [
    ("question", {}, "questions must be many: 'question'", "questions = [question]"),
    (b"question", {}, "questions must be many: b'question'", "questions = [question]"),
    ({"a": "b"}, {}, "questions must be a list: results have its order: {'a': 'b'}", "list(questions.values())"),
    ({"a"}, {}, "questions must be in an order: results have it: {'a'}", "sorted(questions)"),
    (Frame(), {}, "questions must be one column: 'Frame'", 'questions = frame["question"]'),
    (5, {}, "questions must be a list of texts, or of lists of messages: 5", ""),
    (["a", 5], {}, "questions[1] must be a text or a list of messages: 5", ""),
    (["a", float("nan")], {}, "questions[1] must be a text or a list of messages: nan", "series.dropna()"),
    (["a", None], {}, "questions[1] must be a text or a list of messages: None", "series.dropna()"),
    ([USER], {}, "questions[0] must be a list of messages, not one: {'role'", "[[message, ...], ...]"),
    ([[]], {}, "questions[0] must end with a message of the user: []", ""),
    ([[USER, ANSWER]], {}, "questions[0] must end with a message of the user: 'assistant'", ""),
    (["a", [USER, "b"]], {}, "questions[1][1] must be a message with a role: 'b'", '{"role": "user"'),
    ([[{"content": "a"}]], {}, "questions[0][0] must be a message with a role: {'content': 'a'}", '{"role": "user"'),
    (["a", [SYSTEM, USER]], {"system": "s"}, "questions[1] has a system message, and system is given as well",
     "leave system out"),
    ([[{"role": "developer", "content": "d"}, USER]], {"system": "s"}, "questions[0] has a system message", ""),
    (["a"], {"system": 5}, "system must be a text: 5", ""),
    (["a"], {"model": ""}, "model must be the name of a model: ''", ""),
    (["a"], {"model": None}, "model must be the name of a model: None", ""),
    (["a"], {"max_per_request": 0}, "max_per_request must be a whole number from 1 to 1000: 0", ""),
    (["a"], {"max_per_request": 2.5}, "max_per_request must be a whole number from 1 to 1000: 2.5", ""),
    (["a"], {"concurrency": 0}, "concurrency must be a whole number from 1 to 1000: 0", ""),
    (["a"], {"concurrency": None}, "concurrency must be a whole number from 1 to 1000: None", ""),
    (["a"], {"stream": True}, "stream is not for many questions: True", "client.chat.completions.create"),
    (["a"], {"extra_body": {"stream": True}}, "stream is not for many questions: True", "one question at a time"),
    (["a"], {"n": 2}, "n must be 1: 2", "farthing.options(sample=i)"),
    (["a"], {"tools": [TOOL]}, "tools are not for many questions", "one question at a time"),
    (["a"], {"functions": [{"name": "f"}]}, "functions are not for many questions", "one question at a time"),
    (["a"], {"messages": [USER]}, "messages are what the questions are", "map(["),
    (["a"], {"temprature": 0}, "unknown argument: temprature", 'did you mean "temperature"?'),
    (["a"], {"max_per_requests": 5}, "unknown argument: max_per_requests", 'did you mean "max_per_request"?'),
    (["a"], {"xyzzyx": 5}, "unknown argument: xyzzyx", ""),
]
# fmt: on


@pytest.mark.parametrize(("questions", "more", "what", "hint"), REFUSED)
def test_what_is_refused(
    face: Face, server: Upstream, questions: Any, more: dict[str, Any], what: str, hint: str
) -> None:
    with pytest.raises(QuestionsError) as caught:
        ask(face, face.client(server), questions, **more)
    message, _, hinted = str(caught.value).partition("\nhint: ")
    assert WHERE in message and message.replace(WHERE, "").startswith(what) and hint in hinted
    assert isinstance(caught.value, ValueError) and isinstance(caught.value, openai.OpenAIError)
    assert server.calls == 0


def test_everything_is_read_before_anything_is_asked(face: Face, server: Upstream) -> None:
    def questions() -> Iterator[str]:
        yield "a"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ask(face, face.client(server), questions())
    assert server.calls == 0


# Errors


def test_exceptions_in_their_places(face: Face, server: Upstream) -> None:
    made = ask(face, face.client(server), ["a", "bad b", "c", "late d"], return_exceptions=True)
    assert said([made[0], *made[2:]]) == ["re: a", "re: c", "re: late d"]
    assert isinstance(made[1], openai.BadRequestError) and server.calls == 4


def test_the_first_error_is_raised_and_what_was_not_begun_is_dropped(face: Face, server: Upstream) -> None:
    client = face.client(server)
    questions = ["a", "b", "bad c", "d", "e"]
    with pytest.raises(openai.BadRequestError):
        ask(face, client, questions, max_per_request=1, concurrency=1)
    assert [asked(seen) for seen in server.seen] == ["a", "b", "bad c"]
    server.script = lambda seen, number: answer(seen, f"now: {asked(seen)}")
    made = ask(face, client, questions, max_per_request=1, concurrency=1)
    assert said(made) == ["re: a", "re: b", "now: bad c", "now: d", "now: e"]
    assert outcomes(made) == ["hit", "hit", "miss", "miss", "miss"] and server.calls == 6


def test_the_first_error_in_time_and_what_was_under_way_ends(face: Face, server: Upstream) -> None:
    client = face.client(server)
    with pytest.raises(openai.BadRequestError) as caught:
        ask(face, client, ["late bad a", "late b", "bad c"])
    assert caught.value.response.status_code == 400
    receipt = farthing.receipt(caught.value.response)
    assert receipt is not None and receipt.attempts[0].seconds < 0.25, "of the one that failed at once"
    made = ask(face, client, ["late b"])
    assert outcomes(made) == ["hit"] and server.calls == 3


def test_a_copy_of_what_failed_is_no_other_call(face: Face, server: Upstream) -> None:
    made = ask(face, face.client(server), ["bad", "bad"], return_exceptions=True)
    assert [type(one) for one in made] == [openai.BadRequestError] * 2
    with pytest.raises(openai.BadRequestError):
        ask(face, face.client(server), ["bad", "bad"])
    assert server.calls == 3


def test_an_upstream_that_is_gone(face: Face) -> None:
    client = face.client("http://127.0.0.1:9/v1")
    with pytest.raises(openai.APIConnectionError):
        ask(face, client, ["a", "b"])
    made = ask(face, client, ["a", "b"], return_exceptions=True)
    assert [type(one) for one in made] == [openai.APIConnectionError] * 2


# What holds where it is called


def test_options_of_the_caller_hold(face: Face, server: Upstream) -> None:
    client = face.client(server)
    with farthing.options(tag="faq", sample=1):
        made = ask(face, client, ["a", "b"])
    receipts = [receipt for receipt in map(farthing.receipt, made) if receipt is not None]
    assert [receipt.tag for receipt in receipts] == ["faq", "faq"] and current().tag is None
    assert outcomes(ask(face, client, ["a"])) == ["miss"], "of another sample"
    assert [line.calls for tag, line in client.savings().by_tag.items() if tag == "faq"] == [2]


def test_variables_of_the_caller_reach_the_calls(face: Face, server: Upstream) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="lost")
    client, found = face.client(server), []
    spied(client, lambda arguments: found.append(variable.get()))
    variable.set("kept")
    ask(face, client, ["a", "b"])
    assert found == ["kept", "kept"]


def test_a_sync_client_under_a_running_loop(server: Upstream) -> None:
    async def cell() -> list[Any]:
        with farthing.OpenAI(base_url=server.url, api_key="k", policy={"cache": {"name": "map-cell"}}) as client:
            return client.farthing.map(["a", "late b"], model="test-model")

    assert said(asyncio.run(cell())) == ["re: a", "re: late b"]


def test_an_async_client_under_trio(server: Upstream) -> None:
    trio = pytest.importorskip("trio")

    async def main() -> list[Any]:
        async with farthing.AsyncOpenAI(base_url=server.url, api_key="k", policy={"cache": False}) as client:
            return await client.farthing.map(["a", "b"], model="test-model")

    assert said(trio.run(main)) == ["re: a", "re: b"]


def test_two_maps_at_a_time(face: Face, server: Upstream) -> None:
    client = face.client(server)
    questions = [f"late {number}" for number in range(6)]
    one, two = face.together(*[lambda: client.farthing.map(questions, model="test-model")] * 2)
    assert said(one) == said(two) == [f"re: {question}" for question in questions] and server.calls == 6


@pytest.mark.parametrize("made_by", ["copy", "with_options", "wrap", "azure"])
def test_every_client_has_it(face: Face, server: Upstream, made_by: str) -> None:
    client = face.client(server)
    if made_by == "wrap":
        client = farthing.wrap(face.client(server, plain=True), policy={"cache": False})
    elif made_by == "azure":
        kind = farthing.AsyncAzureOpenAI if face.is_async else farthing.AzureOpenAI
        client = kind(azure_endpoint=server.url, api_key="k", api_version="1", max_retries=0, policy={"cache": False})
    else:
        client = getattr(client, made_by)(timeout=20)
    assert said(ask(face, client, ["a"])) == ["re: a"]


# The progress bar


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_that_is_asked_for(face: Face, server: Upstream, capsys: pytest.CaptureFixture[str]) -> None:
    ask(face, face.client(server), ["a", "b", "c", "a"], progress=True)
    assert "4/4" in capsys.readouterr().err
    with pytest.raises(openai.BadRequestError):
        ask(face, face.client(server), ["bad"], progress=True)
    assert "1/1" in capsys.readouterr().err


def test_a_bar_where_somebody_looks(face: Face, server: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    for screen, more, shown in (
        (Screen(), {}, True),
        (Screen(), {"progress": False}, False),
        (io.StringIO(), {}, False),
    ):
        monkeypatch.setattr(sys, "stderr", screen)
        ask(face, face.client(server), ["a", "b"], **more)
        assert ("2/2" in screen.getvalue()) == shown
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=1)))
    ask(face, face.client(server), ["a", "b"])
    assert "2/2" in screen.getvalue()


@pytest.mark.parametrize("broken", ["tqdm", "stderr"])
def test_a_bar_that_fails_costs_no_answer(
    face: Face, server: Upstream, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    client = face.client(server)
    if broken == "tqdm":
        monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    else:
        monkeypatch.setattr(sys, "stderr", None)
    assert said(ask(face, client, ["a", "b"], progress=True)) == ["re: a", "re: b"]
    assert said(ask(face, client, ["a", "b"])) == ["re: a", "re: b"]


# Ctrl-C

INTERRUPTED = """
client = {client}(policy={{"cache": {{"path": {path!r}}}}})
def work():
    made = client.farthing.map([f"question {{n}}" for n in range(30)], model="m", max_per_request=3, concurrency=2)
    return asyncio.run(made) if asyncio.iscoroutine(made) else made
print("ready")
try:
    made = work()
except KeyboardInterrupt:
    print(time.time())
    if {again!r}:
        made = work()
    else:
        raise
print(sum(outcome(one) == "hit" for one in made), made[29].choices[0].message.content)
"""


@unix
@pytest.mark.parametrize("client", ["sync", "asynchronous"])
@pytest.mark.parametrize("again", ["in the same process", ""])
def test_ctrl_c_and_again(upstream: Upstream, tmp_path: Path, client: str, again: str) -> None:
    gate = threading.Event()

    def script(seen: Seen, number: int) -> Reply:
        # Two are under way at a time; the first dozen is answered, then it hangs.
        if number > 12:
            gate.wait(30)
        return echo(seen, number)

    upstream.script = script
    path = str(tmp_path / "answers.db")
    process = start(upstream, INTERRUPTED.format(client=client, path=path, again=again))
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    end = time.monotonic() + 20
    while upstream.calls < 14 and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(0.3)
    sent = time.time()
    process.send_signal(signal.SIGINT)
    if again:
        assert process.stdout.readline()
        gate.set()
    out, err = process.communicate(timeout=20)
    if again:
        assert (process.returncode, err) == (0, ""), out + err
        hits, last = out.split(maxsplit=1)
    else:
        # 200 ms is what it may take, and then the end of the process; the rest is for a machine that is busy.
        assert float(out) - sent < 2 and time.time() - sent < 5
        assert err.rstrip().endswith("KeyboardInterrupt") and "Fatal" not in err and process.returncode != 0
        gate.set()
        hits, last = (
            run(upstream, INTERRUPTED.format(client=client, path=path, again="x")).splitlines()[-1].split(maxsplit=1)
        )
    assert int(hits) >= 12 and last.strip() == "re: question 29"
    # Those that were under way may have been asked again, the others were not.
    assert upstream.calls <= 36 and len({asked(seen) for seen in upstream.seen}) == 30


def test_cancelling_it_cancels_the_calls(upstream: Upstream) -> None:
    upstream.script = lambda seen, number: Reply(body={}, delay=60)

    async def main() -> None:
        async with farthing.AsyncOpenAI(base_url=upstream.url, api_key="k", policy={"cache": False}) as client:
            task = asyncio.create_task(client.farthing.map(["a", "b", "c"], model="test-model"))
            while upstream.calls < 3:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    began = time.monotonic()
    asyncio.run(main())
    assert time.monotonic() - began < 10 and upstream.aborted.wait(5)


# The session


class Session(_core.Packing):  # type: ignore[misc]
    """The core's, watched."""

    made: list[Session]

    def __init__(self, workers: int, requests: int, max_items: int | None) -> None:
        self.workers, self.max_items, self.left, self.is_drained = workers, max_items, 0, False
        self.made.append(self)

    def drained(self) -> None:
        self.is_drained = True
        super().drained()

    def leave(self) -> None:
        self.left += 1
        super().leave()


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> list[Session]:
    Session.made = []
    monkeypatch.setattr(_core, "Packing", Session)
    return Session.made


def spied(client: Any, look: Callable[[dict[str, Any]], object]) -> None:
    """Has `look` see the arguments of each call, where it is made."""
    real = client.chat.completions.create

    def create(**arguments: Any) -> Any:
        look(arguments)
        return real(**arguments)

    client.chat.completions.create = create


NAMED = {"models": ["test-model"], "window_ms": 0}


def test_the_calls_of_a_map_carry_one_session(face: Face, server: Upstream, sessions: list[Session]) -> None:
    client, carried = face.client(server, policy={"cache": {"name": "map-carried"}, "batch": NAMED}), []
    spied(client, lambda arguments: carried.append(current().packing))
    ask(face, client, ["a", "b", "c", "a", "b"], max_per_request=2, concurrency=1)
    (session,) = sessions
    assert (session.workers, session.max_items, session.left) == (2, 2, 2) and session.is_drained
    assert carried == [session] * 3 + [None] * 2, "copies do not wait in it"
    assert current().packing is None
    ask(face, client, [str(number) for number in range(99)])
    assert (sessions[1].workers, sessions[1].max_items, sessions[1].left) == (40, None, 40)
    face.chat(client)
    assert carried[-1] is None and len(set(map(id, carried))) == 3


@pytest.mark.parametrize("keeps", [False, True])
def test_each_worker_leaves_once_also_after_an_error(
    face: Face, server: Upstream, sessions: list[Session], keeps: bool
) -> None:
    try:
        made = ask(face, face.client(server), ["a", "bad b", "late c", "bad d", "e"] * 3, return_exceptions=keeps)
        assert keeps and len(made) == 15
    except openai.BadRequestError:
        assert not keeps
    assert [(session.workers, session.left) for session in sessions] == [(5, 5)]


def test_each_task_leaves_once_also_when_it_is_cancelled(upstream: Upstream, sessions: list[Session]) -> None:
    upstream.script = lambda seen, number: Reply(body={}, delay=60)

    async def main(calls: int) -> None:
        async with farthing.AsyncOpenAI(base_url=upstream.url, api_key="k", policy={"cache": False}) as client:
            task = asyncio.create_task(client.farthing.map(["a", "b", "c"], model="test-model"))
            while upstream.calls < calls:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    for calls in (3, 0):
        asyncio.run(main(calls))
    assert [(session.workers, session.left) for session in sessions] == [(3, 3)] * len(sessions)


def test_threads_that_cannot_be_had_leave(
    server: Upstream, sessions: list[Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, started = threading.Thread.start, []

    def begin(thread: threading.Thread) -> None:
        if thread.name.startswith("farthing-map"):
            if len(started) == most:
                raise RuntimeError("can't start new thread")
            started.append(thread)
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", begin)
    with farthing.OpenAI(base_url=server.url, api_key="k", policy={"cache": False}) as client:
        most = 2
        assert said(client.farthing.map(list("abcdef"), model="test-model")) == [f"re: {letter}" for letter in "abcdef"]
        started.clear()
        most = 0
        with pytest.raises(RuntimeError, match="can't start"):
            client.farthing.map(list("abcdef"), model="test-model")
    assert [(session.workers, session.left) for session in sessions] == [(6, 6), (6, 6)]


class Packs(Session):
    """What the core does, with threads: a request leaves when it is full, or when nobody could add to it."""

    def __init__(self, workers: int, requests: int, max_items: int | None) -> None:
        super().__init__(workers, requests, max_items)
        self.sizes: list[int] = []
        self._changed = threading.Condition()
        self._open: list[str] = []
        self._under_way = 0
        self._drained = False

    def _send_if_due(self) -> None:
        coming = self.workers - self.left - len(self._open) - self._under_way
        nobody = not coming and (self._drained or not self._under_way)
        if len(self._open) == (self.max_items or 10) or (self._open and nobody):
            self.sizes.append(len(self._open))
            self._under_way += len(self._open)
            self._open = []
            self._changed.notify_all()

    def ask(self, text: str) -> str:
        with self._changed:
            mine = self._open
            mine.append(text)
            self._send_if_due()
            assert self._changed.wait_for(lambda: self._open is not mine, 20), f"{mine} never left"
        time.sleep(0.1)
        with self._changed:
            self._under_way -= 1
        if "bad" in text:
            raise ZeroDivisionError
        return text

    def drained(self) -> None:
        with self._changed:
            self._drained = True
            self._send_if_due()

    def leave(self) -> None:
        with self._changed:
            super().leave()
            self._send_if_due()


@pytest.mark.parametrize(
    ("count", "more", "sizes"),
    [
        (1, {}, [1]),
        (10, {}, [10]),
        (15, {}, [10, 5]),
        (35, {}, [10, 10, 10, 5]),
        (15, {"concurrency": 1}, [10, 5]),
        (100, {"max_per_request": 7, "concurrency": 3}, [7] * 14 + [2]),
        (20, {"max_per_request": 1}, [1] * 20),
    ],
)
def test_requests_leave_full_or_when_nobody_comes(
    face: Face, server: Upstream, monkeypatch: pytest.MonkeyPatch, count: int, more: dict[str, Any], sizes: list[int]
) -> None:
    """With a core that does what it should; without one, there is nothing to see."""
    Packs.made = Session.made = []
    monkeypatch.setattr(_core, "Packing", Packs, raising=False)
    client = face.client(server)
    with concurrent.futures.ThreadPoolExecutor(64) as pool:
        packed(face, client, pool)
        questions = [f"question {number}" for number in range(count)]
        assert ask(face, client, questions, **more) == questions
        (packs,) = Packs.made
        # Who comes back from one request may find the next one open, or closed.
        assert isinstance(packs, Packs) and sum(packs.sizes) == count and max(packs.sizes) == sizes[0]
        assert len(packs.sizes) <= len(sizes) + 2
        with pytest.raises(ZeroDivisionError):
            ask(face, client, [*questions, "bad", "bad too", *(f"more {number}" for number in range(50))], **more)
        made = ask(face, client, [*questions, "bad", "z"], return_exceptions=True, **more)
        assert made[:count] == questions and isinstance(made[-2], ZeroDivisionError) and made[-1] == "z"
        assert all(packs.left == packs.workers for packs in Packs.made)


def packed(face: Face, client: Any, pool: concurrent.futures.Executor) -> None:
    """Has the session answer."""

    def create(*, messages: Any, **_: Any) -> Any:
        session: Any = current().packing
        text = messages[-1]["content"]
        return (
            asyncio.get_running_loop().run_in_executor(pool, session.ask, text) if face.is_async else session.ask(text)
        )

    client.chat.completions.create = create


@pytest.mark.parametrize("is_async", [False, True])
def test_what_a_function_of_the_policy_asks_is_not_in_it(
    face: Face, server: Upstream, sessions: list[Session], is_async: bool
) -> None:
    found: list[Any] = []

    def score(draft: farthing.Draft) -> float:
        found.append(current())
        return 1.0

    async def score_async(draft: farthing.Draft) -> float:
        return score(draft)

    scorer = score_async if is_async else score
    escalate = {"models": ["test-model"], "ladder": ["small", "large"], "thresholds": 0.5, "scorer": scorer}
    with farthing.options(tag="kept"):
        ask(face, face.client(server, policy={"cache": False, "escalate": escalate, "batch": NAMED}), ["a", "b"])
    assert [(options.tag, options.packing) for options in found] == [("kept", None)] * 2 and len(sessions) == 1


# Whose answers are whose


def test_what_was_asked_in_packs_is_no_answer_to_who_asks_alone(
    face: Face, server: Upstream, sessions: list[Session]
) -> None:
    """The policy does not name the model: the map is its only word on it."""
    client = face.client(server)
    for outcome in ("miss", "hit"):
        assert outcomes(ask(face, client, ["ping"])) == [outcome]
    assert outcomes([face.chat(client)]) == ["miss"] and server.calls == 2
    assert outcomes(ask(face, client, ["ping"], max_per_request=1)) == ["hit"], "alone, that is"
    assert client.savings().calls == 4 and client.cache.stats()["entries"] == 2
    client.cache.clear()
    assert outcomes(ask(face, client, ["ping"])) == ["miss"]


def test_a_policy_that_names_the_model_is_for_both(face: Face, server: Upstream, sessions: list[Session]) -> None:
    client = face.client(server, policy={"cache": {"name": "map-both"}, "batch": NAMED})
    assert outcomes(ask(face, client, ["ping"])) == ["miss"]
    assert outcomes([face.chat(client)]) == ["hit"]
    assert outcomes(ask(face, client, ["ping"], model="other-model")) == ["miss"]
    assert server.calls == 2


def test_a_mock_is_not_passed_by(face: Face, server: Upstream, sessions: list[Session]) -> None:
    client = face.client(server)
    mocked: list[Any] = []
    spied(client, mocked.append)
    ask(face, client, ["a"])
    assert len(mocked) == 1


def test_a_part_that_changes_what_is_asked_is_in_the_key(face: Face, server: Upstream, tmp_path: Path) -> None:
    def outcome(batch: Any, **more: Any) -> str | None:
        policy = {"cache": {"path": str(tmp_path / "answers.db")}, "batch": batch}
        client = face.client(server, policy=policy)
        made = face.chat(client, **more)
        client.cache.flush()
        return outcomes([made])[0]

    assert [outcome(False), outcome(False)] == ["miss", "hit"]
    assert [outcome(NAMED), outcome(NAMED)] == ["miss", "hit"]
    assert outcome({**NAMED, "max_items": 4}) == "miss" and outcome({**NAMED, "format": "lines"}) == "miss"
    assert outcome({**NAMED, "window_ms": 10, "check": 0.5}) == "hit"
    assert outcome({**NAMED, "models": ["other", "test-model"]}) == "hit"
    assert outcome({**NAMED, "models": ["other"]}) == "hit", "as without that part"
    assert outcome(NAMED, extra_headers={"x-other": "1"}) == "miss", "on the SDK's own way"
    assert outcome(NAMED, extra_headers={"x-other": "1"}) == "hit"


def test_a_named_model_keeps_its_place_and_its_ladder(face: Face, server: Upstream) -> None:
    policy = {
        "cache": {"name": "map-named"},
        "aliases": {"chat": "test-model"},
        "models": PRICES,
        "escalate": {"models": ["auto"], "ladder": ["small", "test-model"], "thresholds": 0},
        "batch": {"models": ["chat", "auto", "test-model"], "window_ms": 0},
    }
    client = face.client(server, policy=policy)
    made = [face.chat(client, model=model) for model in ("chat", "auto", "test-model")]
    assert [seen.json["model"] for seen in server.seen] == ["test-model", "small"]
    assert outcomes(made) == ["miss", "miss", "hit"]
    assert json.loads(Policy(batch=Batch(models="chat")).to_core())["batch"]["models"] == ["chat"]
