"""Faults of the upstream, side by side with the plain SDK: the same exception, with the same in it, as many calls."""

from __future__ import annotations

import gzip
import json
import socket
import time
from collections.abc import Callable
from typing import Any

import openai
import pytest
from conftest import MESSAGES, Face, text
from openai import _base_client
from upstream import Reply, Seen, Upstream, answer, chat, chat_events, event

import farthing

httpx: Any = getattr(_base_client, "httpx2", None) or _base_client.httpx
ERROR = {"error": {"message": "no", "type": "kind", "param": "model", "code": "why"}}


def attempt(face: Face, client: Any, **arguments: Any) -> BaseException:
    with pytest.raises(openai.OpenAIError) as caught:
        face.chat(client, **arguments)
    return caught.value


def facts(error: Any) -> dict[str, Any]:
    names = ("status_code", "message", "body", "code", "param", "type", "request_id")
    known = {name: getattr(error, name, None) for name in names}
    if hasattr(error, "response"):
        known["headers"] = {k: v for k, v in error.response.headers.items() if k not in ("date", "server")}
        known["text"] = error.response.text
    cause = error.__cause__
    return {"type_": type(error), "text_": str(error), "cause": cause and type(cause).__mro__[1], **known}


def both(
    face: Face, upstream: Upstream, script: Callable[[Seen, int], Reply], use: Callable[[Any], Any], **options: Any
) -> tuple[Any, Any]:
    """What a call comes to with the SDK and with farthing, and that both asked as often."""
    results, calls = [], []
    for plain in (True, False):
        upstream.seen.clear()
        upstream.script = script
        results.append(use(face.client(upstream, plain=plain, **options)))
        calls.append(upstream.calls)
    assert calls[0] == calls[1]
    return results[0], results[1]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 409, 413, 422, 429, 500, 502, 503, 529])
def test_statuses(face: Face, upstream: Upstream, status: int) -> None:
    script = lambda seen, number: Reply(status, ERROR, {"x-request-id": "req_9", "x-extra": "1"})  # noqa: E731
    plain, ours = both(face, upstream, script, lambda client: facts(attempt(face, client)))
    assert ours == plain


@pytest.mark.parametrize("body", [b"", b"<html>busy</html>", b"[1, 2]", b'{"error": "text"}', b"\xff\xfe", b"null"])
@pytest.mark.parametrize("status", [400, 500])
def test_odd_error_bodies(face: Face, upstream: Upstream, status: int, body: bytes) -> None:
    plain, ours = both(
        face, upstream, lambda seen, number: Reply(status, body), lambda client: facts(attempt(face, client))
    )
    assert ours == plain


def test_streamed_calls_fail_the_same_way(face: Face, upstream: Upstream) -> None:
    script = lambda seen, number: Reply(429, ERROR)  # noqa: E731
    plain, ours = both(face, upstream, script, lambda client: facts(attempt(face, client, stream=True)))
    assert ours == plain


@pytest.mark.parametrize("retries", [0, 1, 3])
@pytest.mark.parametrize("status", [400, 408, 409, 429, 500, 503])
def test_retries(face: Face, upstream: Upstream, status: int, retries: int) -> None:
    script = lambda seen, number: Reply(status, ERROR, {"retry-after-ms": "1"})  # noqa: E731
    both(face, upstream, script, lambda client: attempt(face, client), max_retries=retries)
    counts = [seen.headers["x-stainless-retry-count"] for seen in upstream.seen]
    assert counts == [str(n) for n in range(len(counts))]
    assert len(counts) == (1 if status == 400 else retries + 1)


@pytest.mark.parametrize(
    "headers",
    [
        {"x-should-retry": "true", "retry-after-ms": "1"},
        {"x-should-retry": "false"},
        {"retry-after": "0.01"},
        {"retry-after": "100000"},
        {"retry-after": "nonsense", "retry-after-ms": "1"},
    ],
    ids=str,
)
@pytest.mark.parametrize("status", [400, 429])
def test_what_the_upstream_wishes(face: Face, upstream: Upstream, status: int, headers: dict[str, str]) -> None:
    if headers.get("retry-after") == "100000" and not hasattr(_base_client, "MAX_RETRY_AFTER_DELAY"):
        pytest.skip("the SDK's 2.x tries again at once")
    both(
        face,
        upstream,
        lambda seen, number: Reply(status, ERROR, headers),
        lambda client: attempt(face, client),
        max_retries=1,
    )


def test_a_retry_that_succeeds(face: Face, upstream: Upstream) -> None:
    def script(seen: Seen, number: int) -> Reply:
        return Reply(503, ERROR, {"retry-after-ms": "1"}) if number < 3 else answer(seen)

    client = face.client(upstream, max_retries=2)
    upstream.script = script
    raw = face.run(lambda: client.chat.completions.with_raw_response.create(model="m", messages=MESSAGES))
    assert raw.parse().choices[0].message.content == "pong"
    assert raw.retries_taken == 2
    receipt = farthing.receipt(raw)
    assert receipt is not None
    assert [(made.ending, made.status) for made in receipt.attempts] == [("refused", 503)] * 2 + [("answered", 200)]
    assert [made.cost for made in receipt.attempts] == [0, 0, receipt.cost]
    assert client.savings().retries == 2


def test_an_answer_that_never_came_may_be_on_the_bill(face: Face, upstream: Upstream) -> None:
    client = face.client(upstream, max_retries=0, timeout=0.2)
    upstream.script = lambda seen, number: Reply(body=chat(), delay=5)
    with pytest.raises(openai.APITimeoutError):
        face.chat(client)
    assert (client.savings().unanswered, client.savings().spent) == (1, 0)


def test_what_never_left_is_on_no_bill(face: Face) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    client = face.client(f"http://127.0.0.1:{port}/v1", max_retries=1)
    with pytest.raises(openai.APIConnectionError):
        face.chat(client)
    assert (client.savings().unanswered, client.savings().retries) == (0, 1)


def test_retry_after_is_waited_for(face: Face, upstream: Upstream) -> None:
    times: list[float] = []

    def script(seen: Seen, number: int) -> Reply:
        times.append(time.monotonic())
        return Reply(429, ERROR, {"retry-after": "0.3"}) if number == 1 else answer(seen)

    upstream.script = script
    face.chat(face.client(upstream, max_retries=1))
    assert times[1] - times[0] >= 0.3


def test_max_retries_of_one_call(face: Face, upstream: Upstream) -> None:
    script = lambda seen, number: Reply(500, ERROR, {"retry-after-ms": "1"})  # noqa: E731
    both(face, upstream, script, lambda client: attempt(face, client.with_options(max_retries=2)))
    assert upstream.calls == 3


def test_an_unreachable_upstream(face: Face, upstream: Upstream) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
    plain = attempt(face, face.client(url, plain=True))
    ours = attempt(face, face.client(url))
    assert type(ours) is type(plain) is openai.APIConnectionError
    assert str(ours) == str(plain)
    assert isinstance(ours.__cause__, Exception)
    assert ours.request.url == plain.request.url  # type: ignore[attr-defined]


def test_an_unknown_host(face: Face) -> None:
    assert type(attempt(face, face.client("http://farthing.invalid/v1"))) is openai.APIConnectionError


@pytest.mark.parametrize("stream", [False, True])
def test_timeouts(face: Face, upstream: Upstream, stream: bool) -> None:
    script = lambda seen, number: Reply(body=chat(), delay=5)  # noqa: E731
    plain, ours = both(
        face, upstream, script, lambda client: attempt(face, client, stream=stream, timeout=0.2), max_retries=1
    )
    assert type(ours) is type(plain) is openai.APITimeoutError
    assert str(ours) == str(plain)
    assert upstream.calls == 2
    assert upstream.aborted.wait(5), "the connection is closed"


def test_a_slow_answer_is_no_timeout_while_it_moves(face: Face, upstream: Upstream) -> None:
    upstream.script = lambda seen, number: Reply(pieces=chat_events("0123456789"), pause=0.2)
    assert text(face.stream(face.client(upstream), timeout=1.5)) == "0123456789"


def test_a_stream_that_stalls(face: Face, upstream: Upstream) -> None:
    def use(client: Any) -> Any:
        with pytest.raises(Exception) as caught:
            face.stream(client, timeout=1)
        return type(caught.value)

    script = lambda seen, number: Reply(pieces=chat_events("0123456789"), pause=5)  # noqa: E731
    plain, ours = both(face, upstream, script, use)
    assert ours is plain


def test_a_stream_that_breaks_off(face: Face, upstream: Upstream) -> None:
    def use(client: Any) -> Any:
        stream = face.chat(client, stream=True)
        with pytest.raises(Exception) as caught:
            face.items(stream)
        return type(caught.value).__mro__[1]

    script = lambda seen, number: Reply(pieces=chat_events("pong")[:4], cut=True)  # noqa: E731
    plain, ours = both(face, upstream, script, use)
    # The SDK's 2.x lets the transport's own error through, of which there are several kinds.
    assert issubclass(ours, plain) or issubclass(plain, ours)


def test_what_came_before_the_break_is_seen(face: Face, upstream: Upstream) -> None:
    upstream.script = lambda seen, number: Reply(pieces=chat_events("pong")[:4], pause=0.05, cut=True)
    client = face.client(upstream)
    stream = face.chat(client, stream=True)
    seen: list[Any] = []

    def read() -> Any:
        if not face.is_async:
            for chunk in stream:
                seen.append(chunk)
            return None

        async def main() -> None:
            async for chunk in stream:
                seen.append(chunk)

        return main()

    with pytest.raises((openai.APIConnectionError, httpx.TransportError)):
        face.run(read)
    assert text(seen) == "pon"
    receipt = farthing.receipt(stream)
    assert receipt is not None
    assert receipt.complete
    assert client.savings().errors == 1


def test_an_error_in_the_stream(face: Face, upstream: Upstream) -> None:
    def use(client: Any) -> Any:
        with pytest.raises(openai.APIError) as caught:
            face.stream(client)
        return facts(caught.value)

    script = lambda seen, number: Reply(pieces=[*chat_events("pong")[:3], event(ERROR)])  # noqa: E731
    plain, ours = both(face, upstream, script, use)
    assert ours == plain


@pytest.mark.parametrize("body", [b"{", b"", b"plain text", b"[]", b'"x"', b"null", b'{"choices": 1}'])
@pytest.mark.parametrize("kind", ["application/json", "text/plain"])
def test_an_answer_that_is_none(face: Face, upstream: Upstream, body: bytes, kind: str) -> None:
    def use(client: Any) -> Any:
        try:
            made = face.chat(client)
        except Exception as error:
            return type(error), str(error)
        return type(made), repr(made)

    script = lambda seen, number: Reply(200, body, {"content-type": kind})  # noqa: E731
    plain, ours = both(face, upstream, script, use)
    assert ours == plain
    client = face.client(upstream)
    upstream.seen.clear()
    assert use(client) == use(client) == plain
    assert upstream.calls == 2, "it is not stored"


def test_compressed_answers(face: Face, upstream: Upstream) -> None:
    body = gzip.compress(json.dumps(chat("pong")).encode())
    upstream.script = lambda seen, number: Reply(200, body, {"content-encoding": "gzip"})
    client = face.client(upstream)
    for _ in range(2):
        assert face.chat(client).choices[0].message.content == "pong"


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_streams_cut_at_any_byte(face: Face, upstream: Upstream, size: int) -> None:
    whole = b"".join(chat_events("pöng 🎉", usage=True)).replace(b"\\u", b"\\u")
    pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
    upstream.script = lambda seen, number: Reply(pieces=pieces)
    client = face.client(upstream)
    assert text(face.stream(client)) == "pöng 🎉"
    assert face.chat(client).choices[0].message.content == "pöng 🎉"
    assert upstream.calls == 1


# Bad input.


class Odd:
    pass


@pytest.mark.parametrize("value", [Odd(), {1, 2}, b"bytes", 1j, object], ids=lambda v: type(v).__name__)
def test_arguments_that_are_not_json(face: Face, upstream: Upstream, value: Any) -> None:
    def use(client: Any) -> Any:
        with pytest.raises(Exception) as caught:
            face.chat(client, extra_body={"x": value})
        return type(caught.value), str(caught.value)

    plain, ours = both(face, upstream, lambda seen, number: answer(seen), use)
    assert ours == plain


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800", "a\udfffb"], ids=repr)
def test_values_that_json_cannot_carry(face: Face, upstream: Upstream, value: Any) -> None:
    """What the SDK does with them, farthing does; and it caches nothing."""

    def use(client: Any) -> Any:
        try:
            return face.chat(client, extra_body={"x": value}).choices[0].message.content
        except Exception as error:
            return type(error)

    plain, ours = both(face, upstream, lambda seen, number: answer(seen), use)
    assert ours == plain
    client = face.client(upstream)
    upstream.seen.clear()
    use(client)
    first = upstream.calls
    use(client)
    assert upstream.calls == 2 * first


def test_a_large_prompt(face: Face, upstream: Upstream) -> None:
    client = face.client(upstream)
    messages = [{"role": "user", "content": "five megabytes " * 350_000}]
    for _ in range(2):
        face.chat(client, messages=messages)
    assert upstream.calls == 1
    assert upstream.seen[0].json["messages"] == messages
    assert client.cache.stats()["bytes"] < 100_000, "the prompt itself is not kept"


def test_deep_nesting(face: Face, upstream: Upstream) -> None:
    deep: Any = []
    for _ in range(200):
        deep = [deep]
    client = face.client(upstream)
    for _ in range(2):
        face.chat(client, extra_body={"x": deep})
    assert upstream.calls == 2, "too deep for a key: passed on, not cached"


def test_missing_arguments(face: Face, upstream: Upstream) -> None:
    client = face.client(upstream)
    with pytest.raises(TypeError, match="messages"):
        face.run(lambda: client.chat.completions.create(model="m"))
    with pytest.raises(TypeError, match="nonsense"):
        face.run(lambda: client.chat.completions.create(model="m", messages=MESSAGES, nonsense=1))
    with pytest.raises(TypeError):
        face.run(lambda: client.chat.completions.create("m", MESSAGES))
    assert upstream.calls == 0


def test_a_wrong_argument_is_an_error_also_when_it_would_be_a_hit(face: Face, upstream: Upstream) -> None:
    client = face.client(upstream)
    upstream.script = lambda seen, number: answer(seen)
    for _ in range(2):
        face.chat(client, extra_body={"nonsense": 1})
    with pytest.raises(TypeError, match="nonsense"):
        face.chat(client, nonsense=1)


def test_a_client_closed_twice(face: Face, upstream: Upstream) -> None:
    client = face.client(upstream)
    face.chat(client)
    for _ in range(2):
        face.run(client.close)
    assert client.is_closed()
    plain = face.client(upstream, plain=True)
    face.run(plain.close)
    errors = []
    for closed in (plain, client):
        with pytest.raises(Exception) as caught:
            face.chat(closed, messages=[{"role": "user", "content": "after"}])
        errors.append((type(caught.value), str(caught.value)))
    assert errors[0] == errors[1]


def test_a_broken_core_is_not_a_broken_call(face: Face, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    from farthing import _core

    class Broken:
        def __getattr__(self, name: str) -> Any:
            def fail(*_: Any, **__: Any) -> Any:
                raise _core.CoreError("out of order")

            return fail

    client = face.client(upstream)
    real = client._farthing.current
    monkeypatch.setattr(_core, "Place", Broken().place)
    client._farthing.current = (Broken(), None)
    with pytest.warns(farthing.FarthingWarning, match="out of order"):
        assert face.chat(client).choices[0].message.content == "pong 1"
    assert face.chat(client).choices[0].message.content == "pong 2", "warned once"
    client._farthing.current = real

    strict = face.client(upstream, policy={"strict": True})
    strict._farthing.current = (Broken(), None)
    with pytest.raises(farthing.FarthingError, match="out of order"):
        face.chat(strict)
