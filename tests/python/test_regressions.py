"""Bugs that were found from outside, each with the test that would have found it."""

from __future__ import annotations

import asyncio
import os
import pickle
import socket
import subprocess
import sys
import threading
import time
import warnings
from decimal import Decimal
from pathlib import Path
from typing import Any

import openai
import pytest
from conftest import MESSAGES, Face, text
from upstream import Reply, Seen, Upstream, answer, chat, chat_events, late

import farthing
from farthing.routes import HTTPX


def outcome(response: Any) -> str | None:
    receipt = farthing.receipt(response)
    return None if receipt is None else receipt.outcome


# What was not stored is not handed out.


@pytest.mark.parametrize("mode", ["off", "read_only", "write_only"])
def test_an_answer_of_another_call_does_not_get_into_an_entry(face: Face, upstream: Upstream, mode: Any) -> None:
    """The entry has no object yet, as its answer was streamed: only its own answer may become that object."""
    client = face.client(upstream)
    face.stream(client)
    bad = chat(
        "BAD",
        choices=[{"index": 0, "message": {"role": "assistant", "content": "BAD"}, "finish_reason": "content_filter"}],
    )
    upstream.script = lambda seen, number: Reply(body=bad)
    with farthing.options(cache=mode, ttl=0.001 if mode == "read_only" else None):
        time.sleep(0.01)
        face.chat(client)
    again = face.chat(client)
    assert outcome(again) == "hit"
    assert again.choices[0].message.content == "pong 1"


def test_arguments_that_change_while_a_call_runs(upstream: Upstream) -> None:
    def script(seen: Seen, number: int) -> Reply:
        reply = answer(seen, f"to {len(seen.json['messages'])}")
        reply.delay = 0.2
        return reply

    upstream.script = script
    client = farthing.AsyncOpenAI(base_url=upstream.url, api_key="k", policy={"cache": {"name": "changing"}})

    async def main() -> None:
        async for _ in await client.chat.completions.create(model="m", messages=[*MESSAGES, *MESSAGES], stream=True):
            pass
        messages = [*MESSAGES]
        task = asyncio.create_task(client.chat.completions.create(model="m", messages=messages))
        await asyncio.sleep(0.1)
        messages.append(MESSAGES[0])
        await task
        hit = await client.chat.completions.create(model="m", messages=[*MESSAGES, *MESSAGES])
        assert hit.choices[0].message.content == "to 2"

    asyncio.run(main())


def test_a_late_copy_does_not_bring_back_an_old_answer(upstream: Upstream) -> None:
    """A hit builds its object from the old entry while a refresh stores a new one."""
    client = Face(False).client(upstream)
    ask = lambda: client.chat.completions.create(model="m", messages=MESSAGES)  # noqa: E731
    ask()
    built = client._process_response_data

    def refresh_first(**arguments: Any) -> Any:
        with farthing.options(cache="refresh"):
            vars(client).pop("_process_response_data", None)
            ask()
        return built(**arguments)

    # Not what `validate_json` takes, so that the SDK's own builder is called.
    upstream.script = lambda seen, number: Reply(body=chat(f"pong {number}", created="now"))
    with farthing.options(cache="refresh"):
        ask()
    vars(client)["_process_response_data"] = refresh_first
    ask()
    vars(client).pop("_process_response_data", None)
    assert ask().choices[0].message.content == "pong 3"


# Whose answer is it?


def test_a_clients_default_options(face: Face, upstream: Upstream) -> None:
    policy = {"cache": {"name": f"defaults {face.is_async}"}}
    face.chat(face.client(upstream, policy=policy))
    for headers, expected in (
        ({"x-farthing-cache": "off"}, "bypass"),
        ({"x-farthing-sample": "1"}, "miss"),
        ({"X-Farthing-Tag": "t"}, "hit"),
    ):
        client = face.client(upstream, policy=policy, default_headers=headers)
        for _ in range(2):
            made = face.chat(client)
            assert outcome(made) == expected
            expected = "hit" if expected == "miss" else expected
    assert farthing.receipt(made).tag == "t"  # type: ignore[union-attr]
    refreshed = face.client(upstream, policy=policy).with_options(default_headers={"x-farthing-cache": "refresh"})
    assert outcome(face.chat(refreshed)) == "miss"


@pytest.mark.parametrize("how", ["property", "wrapped", "in place"])
def test_headers_that_change_between_calls(face: Face, upstream: Upstream, how: str) -> None:
    user = ["a"]
    own = {"x-user": "a"}
    module: Any = openai if how == "wrapped" else farthing
    base: Any = module.AsyncOpenAI if face.is_async else module.OpenAI

    class Mine(base):  # type: ignore[misc]
        @property
        def default_headers(self) -> Any:
            return {**super().default_headers, "x-user": user[0]}

    options: dict[str, Any] = {"base_url": upstream.url, "api_key": "k"}
    if how == "in place":
        client = face.client(upstream, default_headers=own)
    else:
        client = Mine(**options)
        if how == "wrapped":
            client = farthing.wrap(client, policy={"cache": {"name": f"users {face.is_async}"}})
    assert face.chat(client).choices[0].message.content == "pong 1"
    user[0] = own["x-user"] = "b"
    assert face.chat(client).choices[0].message.content == "pong 2", "another user's answer"
    assert upstream.seen[-1].headers["x-user"] == "b"


# Nobody waits for ever.


@pytest.mark.parametrize("end", ["cancelled", "loop ended"])
def test_the_leader_leaves_while_its_own_http_client_sends(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    monkeypatch.setenv("FARTHING_HTTP", "sdk")

    upstream.script = late(0.5)
    policy = {"cache": {"name": f"leaving {end}"}}
    options: dict[str, Any] = {"base_url": upstream.url, "api_key": "k", "max_retries": 0, "policy": policy}
    leader, follower = farthing.AsyncOpenAI(**options), farthing.OpenAI(**options)
    got: list[Any] = []

    def follow() -> None:
        got.append(follower.chat.completions.create(model="m", messages=MESSAGES, timeout=10))

    async def main() -> threading.Thread:
        task = asyncio.create_task(leader.chat.completions.create(model="m", messages=MESSAGES))
        await asyncio.sleep(0.15)
        thread = threading.Thread(target=follow)
        thread.start()
        await asyncio.sleep(0.15)
        if end == "cancelled":
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        return thread

    asyncio.run(main()).join(20)
    assert got and got[0].choices[0].message.content.startswith("pong")
    assert follower.cache.stats()["in_flight"] == 0


def test_a_sync_leader_that_leaves_early_leaves_the_work_running(upstream: Upstream) -> None:
    """Less patient than who joined it: the work goes on, on a thread that nobody's call occupies."""

    upstream.script = late(1.0)
    client = Face(False).client(upstream)
    results: dict[str, Any] = {}

    def ask(name: str, timeout: float) -> None:
        try:
            results[name] = client.chat.completions.create(model="m", messages=MESSAGES, timeout=timeout)
        except openai.APITimeoutError as error:
            results[name] = error

    leader = threading.Thread(target=ask, args=("leader", 0.5))
    leader.start()
    time.sleep(0.15)
    follower = threading.Thread(target=ask, args=("follower", 30))
    follower.start()
    leader.join(10)
    follower.join(10)
    assert isinstance(results["leader"], openai.APITimeoutError)
    assert results["follower"].choices[0].message.content == "pong 1"
    assert upstream.calls == 1


def test_more_threads_than_there_are_runtimes_for(upstream: Upstream) -> None:
    upstream.script = lambda seen, number: answer(seen, seen.json["messages"][0]["content"])
    client = Face(False).client(upstream)
    wrong: list[Any] = []

    def work(thread: int) -> None:
        for n in range(5):
            asked = f"{thread} {n}"
            made = client.chat.completions.create(model="m", messages=[{"role": "user", "content": asked}])
            if made.choices[0].message.content != asked:
                wrong.append((asked, made))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong and upstream.calls == 200


def test_an_upstream_that_does_not_take_the_request(face: Face) -> None:
    """A large body, and a server that never reads: it is the write that times out, as in the SDK."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    listener.bind(("127.0.0.1", 0))
    listener.listen(8)
    timeout = HTTPX.Timeout(30, write=0.3)
    messages = [{"role": "user", "content": "x" * 20_000_000}]
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    for plain in (True, False):
        client = face.client(url, plain=plain, timeout=timeout)
        with pytest.raises(openai.APITimeoutError) as caught:
            face.chat(client, messages=messages)
        assert type(caught.value.__cause__).__name__ == "WriteTimeout"
    listener.close()


# What upstreams refuse.


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, {"error": {"message": "unsupported parameter"}}),
        (422, {"detail": [{"type": "extra_forbidden", "loc": ["body", "stream_options"]}]}),
    ],
)
def test_an_upstream_that_refuses_to_be_asked_for_usage(
    face: Face, upstream: Upstream, status: int, error: Any
) -> None:
    def script(seen: Seen, number: int) -> Reply:
        return Reply(status, error) if "stream_options" in seen.json else answer(seen)

    upstream.script = script
    client = face.client(upstream)
    assert text(face.stream(client)) == "pong"
    assert upstream.calls == 2
    assert text(face.stream(client, model="another")) == "pong"
    assert upstream.calls == 3, "it is remembered"


def test_a_request_that_is_wrong_anyway(face: Face, upstream: Upstream) -> None:
    upstream.script = lambda seen, number: Reply(400, {"error": {"message": "no such model"}})
    with pytest.raises(openai.BadRequestError, match="no such model"):
        face.stream(face.client(upstream))


def test_streams_are_as_if_usage_had_not_been_asked_for(face: Face, upstream: Upstream) -> None:
    upstream.script = lambda seen, number: answer(seen)
    plain = [chunk.to_dict() for chunk in face.stream(face.client(upstream, plain=True))]
    ours = [chunk.to_dict() for chunk in face.stream(face.client(upstream))]
    assert ours == plain


# The bill.


def test_a_joined_call_is_booked_under_the_model_that_answered(face: Face, upstream: Upstream) -> None:
    def script(seen: Seen, number: int) -> Reply:
        return Reply(body=chat(model="answers"), delay=0.3)

    upstream.script = script
    client = face.client(upstream, policy={"models": {"answers": {"input": 1, "output": 1}}, "cache": {"name": "bill"}})
    client.cache.clear()
    made = face.together(*[lambda: client.chat.completions.create(model="asked", messages=MESSAGES)] * 3)
    assert set(client.savings().by_model) == {"answers"}
    assert {farthing.receipt(each).model_answered for each in made} == {"answers"}  # type: ignore[union-attr]


def test_a_price_under_an_aliass_name(face: Face, upstream: Upstream) -> None:
    policy = {
        "aliases": {"chat": "real"},
        "models": {"chat": {"input": 1, "output": 2}},
        "cache": {"name": f"alias price {face.is_async}"},
    }
    made = face.chat(face.client(upstream, policy=policy), model="chat")
    assert farthing.receipt(made).cost == Decimal(9 + 2 * 3) / 1_000_000  # type: ignore[union-attr]


def test_an_alias_in_the_extra_body(face: Face, upstream: Upstream) -> None:
    client = face.client(upstream, policy={"aliases": {"chat": "real"}})
    face.chat(client, extra_body={"model": "chat"})
    assert upstream.seen[-1].json["model"] == "real"


def test_who_joins_a_call_that_stores_nothing_may_store(face: Face, upstream: Upstream) -> None:
    upstream.script = lambda seen, number: Reply(body=chat(f"pong {number}"), delay=0.3)
    client = face.client(upstream)

    def ask(mode: str) -> Any:
        headers = {"x-farthing-cache": mode}
        return lambda: client.chat.completions.create(model="m", messages=MESSAGES, extra_headers=headers)

    face.together(ask("read_only"), ask("on"), ask("read_only"))
    assert outcome(face.chat(client, model="m")) == "hit"
    assert upstream.calls == 1


# Receipts.


def test_the_receipt_of_a_failed_call(face: Face, upstream: Upstream) -> None:
    good, bad, gone = face.client(upstream), face.client(upstream), face.client("http://127.0.0.1:9/v1")
    assert good.last_receipt() is None

    def receipts() -> Any:
        if not face.is_async:
            good.chat.completions.create(model="m", messages=MESSAGES)
            upstream.script = lambda seen, number: Reply(500, {})
            for client in (bad, gone):
                with pytest.raises(openai.APIError):
                    client.chat.completions.create(model="m", messages=MESSAGES)
            return [client.last_receipt() for client in (good, bad, gone)]

        async def main() -> Any:
            await good.chat.completions.create(model="m", messages=MESSAGES)
            upstream.script = lambda seen, number: Reply(500, {})
            for client in (bad, gone):
                with pytest.raises(openai.APIError):
                    await client.chat.completions.create(model="m", messages=MESSAGES)
            return [client.last_receipt() for client in (good, bad, gone)]

        return main()

    made = face.run(receipts)
    assert [receipt.outcome for receipt in made] == ["miss", "error", "error"]


def test_the_receipt_of_a_stream_helper(upstream: Upstream) -> None:
    upstream.script = lambda seen, number: answer(seen)
    client = Face(False).client(upstream)
    with client.chat.completions.stream(model="m", messages=MESSAGES) as stream:
        stream.until_done()
        receipt = farthing.receipt(stream)
    assert receipt is not None and receipt.outcome == "miss" and receipt.complete


# As the SDK does it.


def test_what_a_connection_failed_at(face: Face, upstream: Upstream) -> None:
    def cut(seen: Seen, number: int) -> Reply:
        return Reply(pieces=[], cut=True)

    upstream.script = cut
    for url in ("http://127.0.0.1:9/v1", upstream.url):
        causes = []
        for plain in (True, False):
            with pytest.raises(openai.APIConnectionError) as caught:
                face.chat(face.client(url, plain=plain))
            causes.append(type(caught.value.__cause__).__name__)
        assert causes[0] == causes[1]


@pytest.mark.parametrize("headers", [{"a": "x\ny"}, {"": "x"}, {"a b": "x"}])
def test_headers_that_http_does_not_allow(face: Face, upstream: Upstream, headers: dict[str, str]) -> None:
    failures = []
    for plain in (True, False):
        try:
            face.chat(face.client(upstream, plain=plain), extra_headers=headers)
            failures.append(None)
        except Exception as error:
            failures.append(type(error))
    assert failures[0] == failures[1]


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_odd_timeouts(face: Face, upstream: Upstream, timeout: float) -> None:
    failures = []
    for plain in (True, False):
        try:
            face.chat(face.client(upstream, plain=plain), timeout=timeout)
            failures.append(None)
        except Exception as error:
            failures.append(type(error))
    assert failures[0] == failures[1]


# The C library takes a port modulo 65536: of this one no server of another test is there.
@pytest.mark.parametrize("url", ["ftp://127.0.0.1/v1", "http://127.0.0.1:66000/v1"])
def test_odd_urls(face: Face, url: str) -> None:
    failures = []
    for plain in (True, False):
        with warnings.catch_warnings():
            warnings.simplefilter("error", farthing.FarthingWarning)
            try:
                face.chat(face.client(url, plain=plain))
            except Exception as error:
                failures.append((type(error), str(error)))
    assert failures[0] == failures[1]


def test_a_user_in_the_url(face: Face, upstream: Upstream) -> None:
    url = upstream.url.replace("http://", "http://user:secret@")
    for plain in (True, False):
        face.chat(face.client(url, plain=plain))
    sent = [seen.headers["authorization"] for seen in upstream.seen]
    assert sent[0] == sent[1] and sent[0].startswith("Basic ")


def test_a_hit_looks_like_an_answer(face: Face, upstream: Upstream) -> None:
    client = face.client(upstream)
    for _ in range(2):
        raw = face.run(lambda: client.chat.completions.with_raw_response.create(model="m", messages=MESSAGES))
        assert raw.elapsed.total_seconds() >= 0
        assert b'"ping"' in raw.http_response.request.content
        assert raw.http_request.url.path.endswith("/chat/completions")
    assert raw.headers["x-farthing-cache"] == "hit"
    stream = face.chat(client, model="m", stream=True)
    assert stream.response.headers["content-type"].startswith("text/event-stream")
    assert stream.response.elapsed.total_seconds() >= 0


def test_a_raw_response_pickles(upstream: Upstream) -> None:
    client = Face(False).client(upstream)
    raw = client.chat.completions.with_raw_response.create(model="m", messages=MESSAGES)
    twin = pickle.loads(pickle.dumps(raw.http_response))
    assert type(twin) is HTTPX.Response
    assert twin.json() == raw.http_response.json()


@pytest.mark.once
def test_what_is_pickled_opens_where_farthing_is_not(upstream: Upstream) -> None:
    """Workers, stores and notebooks that have the SDK alone; here, the receipt is still on it."""
    client = Face(False).client(upstream)
    ask = client.chat.completions
    made = [
        ask.create(model="m", messages=MESSAGES),
        ask.create(model="m", messages=MESSAGES),
        list(ask.create(model="m", messages=MESSAGES, stream=True)),
        client.embeddings.create(model="m", input="x"),
        ask.with_raw_response.create(model="m", messages=MESSAGES).http_response,
        ask.with_raw_response.create(model="n", messages=MESSAGES).http_response,
        client.post("/chat/completions", body={"model": "o", "messages": MESSAGES}, cast_to=HTTPX.Response),
    ]
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        pickled = pickle.dumps(made, protocol)
        assert [outcome(twin) for twin in pickle.loads(pickled)[:2]] == ["miss", "hit"]
        code = """
import pickle, sys
sys.modules["farthing"] = None
made = pickle.load(sys.stdin.buffer)
print(*(type(one).__name__ for one in made), made[-1].json() == made[-1].json(), made[0].model_copy() == made[0])
"""
        opened = subprocess.run([sys.executable, "-c", code], input=pickled, capture_output=True, timeout=60)
        said = b"ChatCompletion ChatCompletion list CreateEmbeddingResponse Response Response Response True True"
        assert opened.stdout.strip() == said, opened.stderr.decode()


def test_what_counts_as_a_stream(face: Face, upstream: Upstream) -> None:
    upstream.script = lambda seen, number: Reply(pieces=chat_events("pong"), pause=0.05)
    client = face.client(upstream)

    def first() -> Any:
        if not face.is_async:
            return next(iter(client.chat.completions.create(model="m", messages=MESSAGES, stream=1)))

        async def main() -> Any:
            async for chunk in await client.chat.completions.create(model="m", messages=MESSAGES, stream=1):
                return chunk

        return main()

    assert face.run(first).choices[0].delta.role == "assistant"


# Which calls are never cached.


@pytest.mark.parametrize(
    "arguments",
    [
        {"model": "gpt-4o-search-preview"},
        {"model": "perplexity/sonar-pro"},
        {"model": "openai/gpt-4o:online"},
        {"extra_body": {"plugins": [{"id": "web"}]}},
        {"extra_body": {"search_parameters": {"mode": "on"}}},
    ],
)
def test_calls_that_search_the_web(face: Face, upstream: Upstream, arguments: dict[str, Any]) -> None:
    client = face.client(upstream)
    face.chat(client, **arguments)
    face.chat(client, **arguments)
    assert upstream.calls == 2


def test_items_that_the_server_holds(face: Face, upstream: Upstream) -> None:
    client = face.client(upstream)
    items = [{"type": "item_reference", "id": "msg_1"}]
    for _ in range(2):
        face.run(lambda: client.responses.create(model="m", input=items))
    assert upstream.calls == 2


@pytest.mark.parametrize("function", [{"name": "f", "arguments": "[1]"}, {"name": "", "arguments": "{}"}])
def test_calls_of_functions_that_make_no_sense(face: Face, upstream: Upstream, function: dict[str, str]) -> None:
    message = {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "1", "type": "function", "function": function}],
    }
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
    upstream.script = lambda seen, number: Reply(body=chat(choices=[choice]))
    client = face.client(upstream)
    face.chat(client)
    face.chat(client)
    assert upstream.calls == 2


# The clients.


def test_a_transport_around_a_real_one_is_cached(upstream: Upstream) -> None:
    class Retrying(HTTPX.BaseTransport):  # type: ignore[misc]
        def __init__(self) -> None:
            self.inner = HTTPX.HTTPTransport()
            self.sent = 0

        def handle_request(self, request: Any) -> Any:
            self.sent += 1
            return self.inner.handle_request(request)

    transport = Retrying()
    client = Face(False).client(upstream, http_client=HTTPX.Client(transport=transport))
    for _ in range(3):
        client.chat.completions.create(model="m", messages=MESSAGES)
    assert (transport.sent, client.savings().calls, client.savings().hits) == (1, 3, 2)


def test_wrap_says_when_it_loses_a_patch(upstream: Upstream) -> None:
    original = openai.OpenAI(base_url=upstream.url, api_key="k")
    original.chat.completions.create = lambda **_: None  # type: ignore[assignment,misc]
    with pytest.warns(farthing.FarthingWarning, match=r"chat\.completions\.create"):
        farthing.wrap(original)


@pytest.mark.once
def test_types(tmp_path: Path) -> None:
    """What editors see: the face of ours, also on what wrap() and with_options() return, and the SDK's arguments."""
    code = f"""
import openai, farthing
import {HTTPX.__name__} as httpx
w = farthing.wrap(openai.OpenAI(api_key="k"))
w.savings(); w.cache.clear()
w.with_options(policy=None, timeout=3).savings()
a = farthing.wrap(openai.AsyncOpenAI(api_key="k"), policy={{"strict": True}})
reveal_type(a)
c = farthing.OpenAI(
    api_key="k", base_url=httpx.URL("http://h"), http_client=httpx.Client(), timeout=httpx.Timeout(1),
    _strict_response_validation=True,
)
c.copy(base_url=httpx.URL("http://h"), set_default_headers={{"a": "b"}}, max_retries=openai.NOT_GIVEN)
c.with_options(timeout="1")  # type: ignore[arg-type]
c.with_options(retries=1)  # type: ignore[call-arg]
farthing.OpenAI(api_key=1)  # type: ignore[arg-type]
reveal_type(farthing.OpenAI(api_key="k").with_options(max_retries=1))
"""
    (tmp_path / "uses.py").write_text(code)
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--no-incremental", "--warn-unused-ignores", "uses.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "MYPYPATH": str(Path(farthing.__file__).parents[1])},
    )
    assert checked.returncode == 0, checked.stdout
    assert "farthing.client.AsyncOpenAI" in checked.stdout and "farthing.client.OpenAI" in checked.stdout


def test_a_patch_in_place_when_a_resource_is_first_used(upstream: Upstream) -> None:
    """Resources are made when they are first used: a mock that is there then is called, and leaves no trace."""
    code = f"""
import functools
from unittest import mock
import farthing
from openai.resources.chat.completions import Completions

class Wrapper:  # as wrapt makes them
    def __init__(self, inner): self.inner, self.seen = inner, 0
    def __getattr__(self, name): return getattr(self.inner, name)
    def __get__(self, instance, owner): return functools.partial(self, instance)
    def __call__(self, *args, **kwargs):
        self.seen += 1
        return self.inner(*args, **kwargs)

def ask(**more):
    client = farthing.OpenAI(base_url={upstream.url!r}, api_key="k")
    return client.chat.completions.create(model="m", messages=[], **more)

with mock.patch.object(Completions, "create", return_value="mocked"):
    assert ask() == "mocked"
wrapper = Wrapper(Completions.create)
with mock.patch.object(Completions, "create", wrapper):
    ask()
    ask()
assert wrapper.seen == 2, wrapper.seen
assert farthing.receipt(ask()).outcome == "hit"
try:
    ask(unknown=1)
except TypeError as error:
    print(error)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert "unexpected keyword argument 'unknown'" in ran.stdout
    assert upstream.calls == 1
