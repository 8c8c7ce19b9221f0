"""HTTP as it comes over the wire, side by side with the plain SDK: the same answer or the same exception, with the same
in it, after as many attempts.

What an upstream says in good HTTP is in `test_faults.py` and `test_build.py`; here are the bytes, the connections, the
proxies and the certificates.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import os
import socket
import ssl
import struct
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest
from conftest import MESSAGES, Face, text
from upstream import Reply, Seen, Upstream, answer, chat, chat_events

from farthing.routes import HTTPX

BODY = json.dumps(chat()).encode()
JSON = b"content-type: application/json\r\n"
OK = b"HTTP/1.1 200 OK\r\n" + JSON
EVENTS = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
CHUNKED = b"transfer-encoding: chunked\r\n\r\n"
STALL, RESET, CLOSE = "stall", "reset", "close"


def sized(body: bytes = BODY, head: bytes = OK, length: int | None = None) -> bytes:
    return head + b"content-length: %d\r\n\r\n" % (len(body) if length is None else length) + body


def chunked(*pieces: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + end


class Wire:
    """A server that writes what it is told, byte for byte: `steps` of bytes and of what happens between them."""

    def __init__(self, steps: Callable[[int], list[Any]], context: ssl.SSLContext | None = None) -> None:
        self.steps = steps
        self.requests = 0
        self.heads: list[bytes] = []
        self.connections = 0
        self.gone = threading.Event()
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        scheme = "http" if self._context is None else "https"
        return f"{scheme}://127.0.0.1:{self.address[1]}/v1"

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self._listener.getsockname()[1]

    def close(self) -> None:
        self._listener.close()
        for connection in self._open:
            connection.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(connection)
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            if self._context is not None:
                connection = self._context.wrap_socket(connection, server_side=True)
                self._open.append(connection)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while self._request(connection):
                self.requests += 1
                for step in self.steps(self.requests):
                    if isinstance(step, bytes):
                        connection.sendall(step)
                    elif step == STALL:
                        while connection.recv(65536):
                            pass
                        self.gone.set()
                        return
                    elif step == RESET:
                        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        connection.close()
                        return
                    else:
                        connection.shutdown(socket.SHUT_RDWR)
                        connection.close()
                        return
        except OSError:
            self.gone.set()

    def _request(self, connection: socket.socket) -> bool:
        """Reads one; False at the end of the connection."""
        read = b""
        while b"\r\n\r\n" not in read:
            more = connection.recv(65536)
            if not more:
                return False
            read += more
        head, _, body = read.partition(b"\r\n\r\n")
        length = next(
            (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
        )
        while len(body) < length:
            body += connection.recv(65536)
        self.heads.append(head)
        return True


def facts(error: BaseException) -> Any:
    """All that a user may look at, two causes deep."""
    shown: dict[str, Any] = {"type": type(error).__name__, "text": str(error)}
    for name in ("status_code", "message", "body", "code", "param", "request_id"):
        if hasattr(error, name):
            shown[name] = getattr(error, name)
    if isinstance(error, openai.APIError):
        shown["request"] = (error.request.method, str(error.request.url))
    cause = error.__cause__
    shown["cause"] = None if cause is None else type(cause).__name__
    return shown


def heard(face: Face, client: Any, **more: Any) -> Any:
    """The answer, or the pieces of one and what ended them."""
    pieces: list[Any] = []
    try:
        made = face.run(
            lambda: (
                client.chat.completions.with_raw_response.create(model="m", messages=MESSAGES, **more)
                if not more.get("stream")
                else client.chat.completions.create(model="m", messages=MESSAGES, **more)
            )
        )
        if not more.get("stream"):
            unlike = ("date", "server", "content-encoding", "content-length", "transfer-encoding")
            headers = [pair for pair in made.headers.multi_items() if pair[0] not in unlike]
            return made.status_code, sorted(headers), made.http_response.http_version, made.parse().to_dict()

        async def read() -> None:
            async for chunk in made:
                pieces.append(chunk)

        if face.is_async:
            face.run(read)
        else:
            for chunk in made:
                pieces.append(chunk)
        return text(pieces)
    except Exception as error:
        return text(pieces), facts(error)


DIFFERS = {
    "HTTP/1.0": "a raw response of farthing's always says HTTP/1.1",
    "another HTTP": "the SDK takes a status line of HTTP/2 for one of HTTP/1.1",
    "junk": "farthing drops a connection that says what was not asked for; the SDK's next call runs into it",
    "cut": "to the SDK, half of a compressed body is a whole body",
    "raw deflate": "farthing wants deflate as HTTP defines it, with zlib's header",
    "no URL": "farthing takes a redirect to what is no URL for the answer; the SDK says that it cannot connect",
}
"""Why farthing may differ; whoever mends one takes it from here."""


def same(ours: Any, plain: Any, why: str | None = None) -> None:
    if why is None:
        assert ours == plain
    else:
        assert ours != plain, "no difference any more"
        pytest.xfail(DIFFERS[why])


def both(
    face: Face, steps: Callable[[int], list[Any]], *, calls: int = 1, context: Any = None, **how: Any
) -> tuple[Any, Any]:
    """What the SDK and farthing come to against the same bytes, with the number of requests that it took."""
    results = []
    options = {name: how.pop(name) for name in ("max_retries", "timeout", "http_client") if name in how}
    for plain in (True, False):
        wire = Wire(steps, context)
        made = {**options, "http_client": options["http_client"]()} if "http_client" in options else options
        client = face.client(wire.url, plain=plain, cached=False, **made)
        said = []
        for _ in range(calls):
            said.append(heard(face, client, **how))
            # For what comes after an answer to come.
            time.sleep(0.05 if calls > 1 else 0)
        face.run(client.close)
        # The port is no difference.
        results.append((json.loads(json.dumps(said).replace(wire.url, "URL")), wire.requests))
        wire.close()
    return results[0], results[1]


# Bytes of one answer.

ANSWERS: dict[str, list[Any]] = {
    "whole": [sized()],
    "byte by byte": [bytes([byte]) for byte in sized()],
    "chunked": [OK + CHUNKED + chunked(BODY[:10], BODY[10:11], BODY[11:])],
    "chunks with extensions and a trailer": [
        OK + CHUNKED + b"%x;a=b\r\n%s\r\n0\r\nx-trailer: 1\r\n\r\n" % (len(BODY), BODY)
    ],
    "until the connection ends": [OK + b"\r\n" + BODY, CLOSE],
    "HTTP/1.0": [sized(head=b"HTTP/1.0 200 OK\r\n" + JSON), CLOSE],
    "without a reason": [sized(head=b"HTTP/1.1 200\r\n" + JSON)],
    "after 100 Continue": [b"HTTP/1.1 100 Continue\r\n\r\n" + sized()],
    "after 103 Early Hints": [b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n", sized()],
    "lines that end in LF": [sized().replace(b"\r\n", b"\n")],
    "one name twice": [sized(head=OK + b"x-a: 1\r\nx-a: 2\r\nX-A: 3\r\n")],
    "a header in Latin-1": [sized(head=OK + "x-a: café\r\n".encode("latin-1"))],
    "a header in UTF-8": [sized(head=OK + "x-a: café\r\n".encode())],
    "a header without a value": [sized(head=OK + b"x-a:\r\n")],
    "a folded header": [sized(head=OK + b"x-a: 1\r\n  2\r\n")],
    "99 headers": [sized(head=OK + b"".join(b"x-%d: 1\r\n" % n for n in range(97)))],
    "300 headers": [sized(head=OK + b"".join(b"x-%d: 1\r\n" % n for n in range(300)))],
    "a header of 60 kB": [sized(head=OK + b"x-a: " + b"a" * 60_000 + b"\r\n")],
    "no content type": [sized(head=b"HTTP/1.1 200 OK\r\n")],
    "201": [sized(head=b"HTTP/1.1 201 Created\r\n" + JSON)],
    "204": [b"HTTP/1.1 204 No Content\r\n\r\n"],
    "304": [b"HTTP/1.1 304 Not Modified\r\n\r\n"],
    "nothing": [CLOSE],
    "a reset": [RESET],
    "cut in the head": [sized()[:30], CLOSE],
    "reset in the head": [sized()[:30], RESET],
    "cut in the body": [sized()[:-10], CLOSE],
    "reset in the body": [sized()[:-10], RESET],
    "cut after the head": [sized(b"", length=10), CLOSE],
    "cut in a chunk": [OK + CHUNKED + chunked(BODY)[:-20], CLOSE],
    "reset in a chunk": [OK + CHUNKED + chunked(BODY)[:-20], RESET],
    "cut between chunks": [OK + CHUNKED + chunked(BODY, end=b""), CLOSE],
    "a chunk without a length": [OK + CHUNKED + b"zz\r\n" + BODY + b"\r\n0\r\n\r\n"],
    "no HTTP": [b"SSH-2.0-OpenSSH_9.2\r\n", CLOSE],
    "another HTTP": [b"HTTP/2.0 200 OK\r\n" + JSON + b"\r\n" + BODY, CLOSE],
    "a length that is none": [OK + b"content-length: many\r\n\r\n" + BODY, CLOSE],
    "two lengths": [OK + b"content-length: 10\r\n" + b"content-length: %d\r\n\r\n" % len(BODY) + BODY, CLOSE],
    "a header's name with a space in it": [sized(head=OK + b"x a: 1\r\n"), CLOSE],
    "a line without a colon": [sized(head=OK + b"nonsense\r\n"), CLOSE],
    "an error that is cut": [sized(b"{}", head=b"HTTP/1.1 400 Bad Request\r\n" + JSON, length=50), CLOSE],
    "an error that is reset": [sized(b"{}", head=b"HTTP/1.1 500 Oh\r\nretry-after-ms: 1\r\n" + JSON, length=9), RESET],
}


@pytest.mark.parametrize("retries", [0, 1])
@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_on_the_wire(face: Face, name: str, retries: int) -> None:
    plain, ours = both(face, lambda number: ANSWERS[name], max_retries=retries)
    same(ours, plain, name if name in DIFFERS else None)


@pytest.mark.parametrize("name", ["stall in the head", "stall in the body", "stall in a chunk", "stall before all"])
def test_a_stall_on_the_wire(face: Face, name: str) -> None:
    steps = {
        "stall before all": [STALL],
        "stall in the head": [sized()[:30], STALL],
        "stall in the body": [sized()[:-10], STALL],
        "stall in a chunk": [OK + CHUNKED + chunked(BODY)[:-20], STALL],
    }[name]
    plain, ours = both(face, lambda number: steps, max_retries=1, timeout=HTTPX.Timeout(5, read=0.3))
    assert ours == plain
    assert plain[0][0][1]["type"] == "APITimeoutError" and plain[1] == 2


STREAM = chat_events("pong", usage=True)
STREAMS: dict[str, list[Any]] = {
    "whole": [EVENTS + CHUNKED + chunked(*STREAM)],
    "with a length": [sized(b"".join(STREAM), head=EVENTS)],
    "until the connection ends": [EVENTS + b"\r\n" + b"".join(STREAM), CLOSE],
    "byte by byte": [EVENTS + CHUNKED, *[chunked(bytes([byte]), end=b"") for byte in b"".join(STREAM)], b"0\r\n\r\n"],
    "without its last word": [EVENTS + CHUNKED + chunked(*STREAM[:-1])],
    "cut after the head": [EVENTS + CHUNKED, CLOSE],
    "cut between events": [EVENTS + CHUNKED + chunked(*STREAM[:3], end=b""), CLOSE],
    "cut in an event": [EVENTS + CHUNKED + chunked(*STREAM[:3], STREAM[3][:20], end=b""), CLOSE],
    "cut in a chunk": [EVENTS + CHUNKED + chunked(*STREAM[:3], end=b"") + b"ff\r\ndata: {", CLOSE],
    "cut where a length was said": [sized(b"".join(STREAM[:3]), head=EVENTS, length=9999), CLOSE],
    "reset before an event": [EVENTS + CHUNKED, RESET],
    "a chunk without a length": [EVENTS + CHUNKED + chunked(*STREAM[:3], end=b"") + b"zz\r\n", CLOSE],
    "an answer that is no stream": [sized()],
    "a page": [sized(b"<html>busy</html>", head=b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n")],
}


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_on_the_wire(face: Face, name: str) -> None:
    plain, ours = both(face, lambda number: STREAMS[name], max_retries=1, stream=True)
    assert ours == plain


def test_a_stream_that_stalls_on_the_wire(face: Face) -> None:
    steps = [EVENTS + CHUNKED + chunked(*STREAM[:3], end=b""), STALL]
    plain, ours = both(face, lambda number: steps, max_retries=1, stream=True, timeout=HTTPX.Timeout(5, read=0.3))
    assert ours == plain


# Codings.


def coded(coding: str, body: bytes) -> bytes:
    if coding == "gzip":
        return gzip.compress(body)
    if coding == "deflate":
        return zlib.compress(body)
    if coding == "raw deflate":
        squeeze = zlib.compressobj(wbits=-15)
        return squeeze.compress(body) + squeeze.flush()
    if coding == "br":
        made: bytes = pytest.importorskip("brotli").compress(body)
        return made
    if coding == "zstd":
        module = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
        made = pytest.importorskip(module).compress(body)
        return made
    return body


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("how", ["whole", "in pieces", "cut", "spoiled"])
@pytest.mark.parametrize("coding", ["identity", "gzip", "deflate", "raw deflate", "br", "zstd", "unheard-of"])
def test_codings(face: Face, coding: str, how: str, stream: bool) -> None:
    body = coded(coding, b"".join(STREAM) if stream else BODY)
    if how == "cut":
        body = body[: len(body) // 2]
    if how == "spoiled":
        if coding in ("identity", "unheard-of"):
            pytest.skip("nothing to spoil")
        body = body[:4] + b"\x00\xff" * 8 + body[20:]
    head = (EVENTS if stream else OK) + b"content-encoding: " + coding.split()[-1].encode() + b"\r\n"
    steps = [head + CHUNKED + chunked(body)]
    if how == "in pieces":
        steps = [head + CHUNKED, *[chunked(body[at : at + 7], end=b"") for at in range(0, len(body), 7)], b"0\r\n\r\n"]
    plain, ours = both(face, lambda number: steps, stream=stream)
    why = "cut" if how == "cut" and coding not in ("identity", "unheard-of", "zstd") else None
    same(ours, plain, "raw deflate" if coding == "raw deflate" and how != "spoiled" else why)


# Connections.

CONNECTIONS: dict[str, Callable[[int], list[Any]]] = {
    "kept": lambda number: [sized()],
    "closed after each answer": lambda number: [sized(), CLOSE],
    "closed after each answer, as announced": lambda number: [sized(head=OK + b"connection: close\r\n"), CLOSE],
    "reset after each answer": lambda number: [sized(), RESET],
    "closed when the second request is read": lambda number: [CLOSE] if number == 2 else [sized()],
    "reset when the second request is read": lambda number: [RESET] if number == 2 else [sized()],
    "cut in the second answer": lambda number: [sized()[:-10], CLOSE] if number == 2 else [sized()],
    "a farewell after the first answer": lambda number: (
        [sized(), b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n", CLOSE]
        if number == 1
        else [sized()]
    ),
    "junk": lambda number: [sized() + b"junk" if number == 1 else sized()],
    "an error, then kept": lambda number: (
        [sized(b"{}", head=b"HTTP/1.1 400 Bad Request\r\n" + JSON)] if number == 1 else [sized()]
    ),
}


@pytest.mark.parametrize("retries", [0, 1])
@pytest.mark.parametrize("name", CONNECTIONS)
def test_a_connection_that_is_used_again(face: Face, name: str, retries: int) -> None:
    plain, ours = both(face, CONNECTIONS[name], calls=3, max_retries=retries)
    same(ours, plain, name if name in DIFFERS else None)


def redirect(status: int, to: str) -> bytes:
    return b"HTTP/1.1 %d Elsewhere\r\nlocation: %s\r\ncontent-length: 0\r\n\r\n" % (status, to.encode())


@pytest.mark.parametrize("where", ["here", "another host", "for ever", "nowhere", "no URL"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects(face: Face, status: int, where: str) -> None:
    """The same method, and the same secrets, to the same place."""
    results = []
    for plain in (True, False):
        second = Wire(lambda number: [sized()])
        to = {
            "here": "/elsewhere",
            "another host": second.url.replace("127.0.0.1", "localhost") + "/elsewhere",
            "for ever": "/v1/chat/completions",
            "nowhere": "",
            "no URL": "http://[nonsense",
        }[where]
        steps = lambda number: [redirect(status, to)] if number == 1 or where == "for ever" else [sized()]  # noqa: E731, B023
        first = Wire(steps)
        client = face.client(first.url, plain=plain, cached=False)
        said = heard(face, client)
        face.run(client.close)
        sent = []
        for head in [*first.heads, *second.heads]:
            line, *headers = head.lower().decode().split("\r\n")
            named = {header.partition(":")[0]: header.partition(":")[2] for header in headers}
            sent.append((line, named.get("authorization"), "content-length" in named))
        results.append((json.dumps(said).replace(first.url, "URL"), sent))
        first.close()
        second.close()
    same(results[1], results[0], where if where in DIFFERS else None)


# Timeouts by phase; that of writing is in test_regressions.py.


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="a listener that is full as on Linux")
def test_a_connection_that_does_not_come_about(face: Face) -> None:
    """What a listener's queue does not hold, it does not answer."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        timeout = HTTPX.Timeout(30, connect=0.3)
        said = [heard(face, face.client(url, plain=plain, timeout=timeout)) for plain in (True, False)]
    assert said[0][1]["cause"] == "ConnectTimeout"
    assert said[1] == said[0]


def test_no_connection_is_free(face: Face, upstream: Upstream) -> None:
    """A limit of the client's own http client."""
    release = threading.Event()

    def script(seen: Seen, number: int) -> Reply:
        if b"long" in seen.body:
            release.wait(20)
        return answer(seen)

    upstream.script = script
    kinds = []
    for plain in (True, False):
        release.clear()
        kind: Any = openai.DefaultAsyncHttpxClient if face.is_async else openai.DefaultHttpxClient
        http = kind(limits=HTTPX.Limits(max_connections=1), timeout=HTTPX.Timeout(20, pool=0.3))
        client = face.client(upstream, plain=plain, http_client=http, timeout=HTTPX.Timeout(20, pool=0.3))

        def long(client: Any = client) -> Any:
            return client.chat.completions.create(model="m", messages=[{"role": "user", "content": "long"}])

        def short(client: Any = client) -> Any:
            if face.is_async:

                async def later() -> Any:
                    await asyncio.sleep(0.3)
                    try:
                        return await client.chat.completions.create(model="m", messages=MESSAGES)
                    finally:
                        release.set()

                return later()
            time.sleep(0.3)
            try:
                return client.chat.completions.create(model="m", messages=MESSAGES)
            finally:
                release.set()

        first, second = face.together(long, short)
        assert first.choices[0].message.content == "pong"
        kinds.append((type(second), str(second), type(second.__cause__).__name__))
    assert kinds[0] == kinds[1]
    assert kinds[0][2] == "PoolTimeout"


# A proxy from the environment.


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    wire = Wire(lambda number: [sized()])
    yield wire
    wire.close()


def through(face: Face, url: str, proxy: Wire) -> list[Any]:
    """For the SDK and for farthing: what came of it, and what the proxy was asked for."""
    results = []
    for plain in (True, False):
        proxy.heads.clear()
        client = face.client(url, plain=plain, cached=False)
        said = heard(face, client)
        face.run(client.close)
        heads = []
        for head in proxy.heads:
            line, *headers = head.split(b"\r\n")
            named = {header.partition(b":")[0].lower(): header.partition(b":")[2] for header in headers}
            heads.append([line, *(named.get(name) for name in (b"proxy-authorization", b"authorization", b"host"))])
        results.append((said, heads))
    return results


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("user", ["", "user:secret@"])
def test_a_proxy_from_the_environment(
    face: Face, proxy: Wire, monkeypatch: pytest.MonkeyPatch, name: str, user: str
) -> None:
    monkeypatch.setenv(name, proxy.url.replace("http://", f"http://{user}").removesuffix("/v1"))
    plain, ours = through(face, "http://upstream.invalid/v1", proxy)
    assert plain[0][0] == 200
    assert plain[1][0][0] == b"POST http://upstream.invalid/v1/chat/completions HTTP/1.1"
    assert ours == plain


@pytest.mark.parametrize("exempt", ["127.0.0.1", "*", "localhost,127.0.0.1", "other.example"])
def test_hosts_without_a_proxy(
    face: Face, upstream: Upstream, proxy: Wire, monkeypatch: pytest.MonkeyPatch, exempt: str
) -> None:
    upstream.script = lambda seen, number: Reply(body=chat(), headers={"x-request-id": "r"})
    monkeypatch.setenv("HTTP_PROXY", proxy.url.removesuffix("/v1"))
    monkeypatch.setenv("NO_PROXY", exempt)
    plain, ours = through(face, upstream.url, proxy)
    assert ours == plain
    assert len(plain[1]) == (exempt == "other.example")


def test_a_proxy_that_is_not_there(face: Face, proxy: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    plain, ours = through(face, "http://upstream.invalid/v1", proxy)
    assert plain[0][1]["type"] == "APIConnectionError"
    assert ours == plain


def test_a_proxy_in_the_environment_of_a_client_that_is_there(
    face: Face, upstream: Upstream, proxy: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The SDK looks when the client is made, and never again."""
    for plain in (True, False):
        client = face.client(upstream, plain=plain, cached=False)
        with monkeypatch.context() as patch:
            patch.setenv("HTTP_PROXY", proxy.url.removesuffix("/v1"))
            face.chat(client)
    assert (upstream.calls, proxy.requests) == (2, 0)


# A certificate authority of one's own.


@pytest.fixture(scope="module")
def authority() -> Any:
    return pytest.importorskip("trustme").CA()


def https(authority: Any, name: str = "127.0.0.1") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


def trusting(authority: Any) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.mark.parametrize("how", ["by nobody", "by the environment", "by the http client", "for another name"])
def test_a_private_authority(
    face: Face, authority: Any, how: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    options: dict[str, Any] = {}
    if how in ("by the environment", "for another name"):
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    if how == "by the http client":
        kind: Any = openai.DefaultAsyncHttpxClient if face.is_async else openai.DefaultHttpxClient
        options["http_client"] = lambda: kind(verify=trusting(authority))
    context = https(authority, "other.example" if how == "for another name" else "127.0.0.1")
    plain, ours = both(face, lambda number: [sized()], context=context, **options)
    assert ours == plain
    if how in ("by nobody", "for another name"):
        assert plain[0][0][1]["cause"] == "ConnectError"
    else:
        assert plain[0][0][0] == 200


# Both: TLS through a proxy.


class Tunnel:
    """A proxy that knows CONNECT and nothing else; whatever host is asked for, `wire` is at the other end."""

    def __init__(self, wire: Wire, refusal: bytes = b"") -> None:
        self.heads: list[bytes] = []
        self._to = wire
        self._refusal = refusal
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        threading.Thread(target=self._accept, daemon=True).start()

    def url(self, user: str = "") -> str:
        return f"http://{user}127.0.0.1:{self._listener.getsockname()[1]}"

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            more = near.recv(65536)
            if not more:
                return
            head += more
        self.heads.append(head)
        if self._refusal:
            near.sendall(self._refusal)
            near.close()
            return
        far = socket.create_connection(self._to.address)
        near.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        threading.Thread(target=self._carry, args=(far, near), daemon=True).start()
        self._carry(near, far)

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(65536):
                target.sendall(piece)
            target.shutdown(socket.SHUT_WR)


REFUSALS = {
    "taken": b"",
    "a password is wanted": b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n",
    "forbidden": b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno",
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n",
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("where", ["in the environment", "in the http client"])
@pytest.mark.parametrize("name", REFUSALS)
def test_tls_through_a_proxy(
    face: Face,
    proxy: Wire,
    authority: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Any,
    name: str,
    where: str,
    stream: bool,
) -> None:
    """The proxy sees where to and its own password; it does not see the key."""
    wire = Wire(
        lambda number: [EVENTS + CHUNKED + chunked(*chat_events())] if stream else [sized()],
        https(authority, "upstream.invalid"),
    )
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    results = []
    for plain in (True, False):
        tunnel = Tunnel(wire, REFUSALS[name])
        options: dict[str, Any] = {}
        with monkeypatch.context() as patch:
            if where == "in the environment":
                patch.setenv("HTTPS_PROXY", tunnel.url("user:secret@"))
                patch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
            else:
                kind: Any = openai.DefaultAsyncHttpxClient if face.is_async else openai.DefaultHttpxClient
                options["http_client"] = kind(proxy=tunnel.url("user:secret@"), verify=trusting(authority))
            client = face.client("https://upstream.invalid/v1", plain=plain, cached=False, **options)
            said = [heard(face, client, stream=stream) for _ in range(2)]
            face.run(client.close)
        heads = [head.split(b"\r\n") for head in tunnel.heads]
        # The SDK leaves a connection after the last event of a stream; farthing reads its end, and uses it again.
        results.append((said, heads[:1] if stream else heads))
        tunnel.close()
        assert b"sk-test" not in b"".join(tunnel.heads)
        assert all(b"Bearer sk-test" in head for head in wire.heads)
    wire.close()
    assert results[1] == results[0]
    said, heads = results[0]
    assert heads[0][0] == b"CONNECT upstream.invalid:443 HTTP/1.1"
    assert b"Proxy-Authorization: Basic dXNlcjpzZWNyZXQ=" in heads[0]
    if name == "taken":
        assert said[0] == ("pong" if stream else said[1])
        assert len(wire.heads) == 4
    else:
        assert said[0][1]["type"] == "APIConnectionError"


# Cancellation.


@pytest.mark.parametrize("where", ["before the head", "in the body", "in a stream"])
@pytest.mark.parametrize("how", ["cancel", "wait_for", "anyio"])
def test_cancelled_in_the_middle(where: str, how: str) -> None:
    """The same exception, one request, and the upstream sees that nobody waits any more."""
    import anyio

    face = Face(True)
    steps = {
        "before the head": [STALL],
        "in the body": [sized()[:-10], STALL],
        "in a stream": [EVENTS + CHUNKED + chunked(*STREAM[:3], end=b""), STALL],
    }[where]
    kinds = []
    for plain in (True, False):
        wire = Wire(lambda number: steps)
        client = face.client(wire.url, plain=plain, max_retries=2)
        pieces: list[Any] = []

        async def work(client: Any = client, pieces: Any = pieces) -> None:
            stream = where == "in a stream"
            made = await client.chat.completions.create(model="m", messages=MESSAGES, stream=stream)
            async for piece in made:
                pieces.append(piece)

        async def main(work: Any = work) -> Any:
            if how == "anyio":
                with anyio.move_on_after(0.5) as scope:
                    await work()
                return scope.cancelled_caught
            task = asyncio.ensure_future(work())
            try:
                if how == "wait_for":
                    await asyncio.wait_for(task, 0.5)
                else:
                    await asyncio.sleep(0.5)
                    task.cancel()
                    await task
            except BaseException as error:
                return type(error)

        kinds.append((face.run(main), wire.requests, len(pieces), wire.gone.wait(5)))
        wire.close()
    face.close()
    assert kinds[1] == kinds[0]
    assert kinds[0][3], "the upstream knows"


def test_a_stream_that_is_left_in_the_middle(face: Face) -> None:
    steps = [EVENTS + CHUNKED + chunked(*STREAM[:3], end=b""), STALL]
    for plain in (True, False):
        wire = Wire(lambda number: steps)
        stream = face.chat(face.client(wire.url, plain=plain), stream=True)
        face.run(stream.close)
        assert wire.gone.wait(5)
        wire.close()


# What is in an exception.


def test_the_request_in_an_exception(face: Face, upstream: Upstream) -> None:
    upstream.script = lambda seen, number: Reply(404, {"error": {"message": "no"}}, {"x-a": "1"})
    shown = []
    for plain in (True, False):
        with pytest.raises(openai.NotFoundError) as caught:
            face.chat(face.client(upstream, plain=plain), extra_headers={"x-mine": "1"})
        error = caught.value
        assert error.request is error.response.request
        headers = dict(error.request.headers)
        shown.append((headers, error.request.content, error.response.json(), error.response.headers["x-a"]))
    assert shown[1] == shown[0]


@pytest.mark.parametrize("ago", [-5, 1])
def test_a_date_to_try_again_at(face: Face, upstream: Upstream, ago: int) -> None:
    from email.utils import formatdate

    def script(seen: Seen, number: int) -> Reply:
        when = formatdate(time.time() + ago, usegmt=True)
        return Reply(429, {}, {"retry-after": when}) if number == 1 else answer(seen)

    upstream.script = script
    for plain in (True, False):
        upstream.seen.clear()
        assert face.chat(face.client(upstream, plain=plain, max_retries=1)).choices[0].message.content == "pong"
        assert upstream.calls == 2
