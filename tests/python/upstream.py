"""A scripted upstream on loopback: counts calls, keeps what was sent, and misbehaves on demand.

For faults and for counting; what real models do is tested with real models (`test_local.py`).
"""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Seen:
    """One request as it arrived."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Reply:
    """What to answer. `pieces` are written one by one, `pause` seconds apart; `cut` drops the connection after them,
    `cut_before` drops it before anything is said, `linger` keeps it open for so many seconds."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    pieces: Iterable[bytes] | None = None
    delay: float = 0.0
    pause: float = 0.0
    cut: bool = False
    cut_before: bool = False
    linger: float = 0.0


Script = Callable[[Seen, int], Reply]
Call = tuple[str, str, str]
"""Of a function: its id, name, and arguments as JSON."""


def chat(text: str = "pong", *, model: str = "test-model", **more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": text, "refusal": None, "annotations": []}
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": {
            "prompt_tokens": 9,
            "completion_tokens": 3,
            "total_tokens": 12,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
        },
        "service_tier": "default",
        "system_fingerprint": "fp_1",
        "x_unknown": {"kept": True},
    }
    return {**body, **more}


def response(text: str = "pong", *, model: str = "test-model", **more: Any) -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    item = {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": [part]}
    body = {
        "id": "resp_1",
        "object": "response",
        "created_at": 1_700_000_000.0,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": model,
        "output": [item],
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": {
            "input_tokens": 9,
            "input_tokens_details": {"cached_tokens": 4},
            "output_tokens": 3,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 12,
        },
    }
    return {**body, **more}


def with_calls(body: dict[str, Any], calls: Sequence[Call]) -> dict[str, Any]:
    """An answer, of either endpoint, that calls functions in place of saying something."""
    if body["object"] == "response":
        items = [{"type": "function_call", "id": f"fc_{id}", "call_id": id} for id, _, _ in calls]
        named = [{"name": name, "arguments": given, "status": "completed"} for _, name, given in calls]
        return {**body, "output": [{**item, **more} for item, more in zip(items, named, strict=True)]}
    functions = [{"id": id, "type": "function", "function": {"name": n, "arguments": a}} for id, n, a in calls]
    choice = body["choices"][0]
    message = {**choice["message"], "content": None, "tool_calls": functions}
    return {**body, "choices": [{**choice, "message": message, "finish_reason": "tool_calls"}]}


def embedding(count: int = 1, *, base64: bool = True) -> dict[str, Any]:
    import base64 as b64

    vector = [0.25, -1.5, 3.0]
    packed: Any = b64.b64encode(struct.pack("<3f", *vector)).decode() if base64 else vector
    data = [{"object": "embedding", "index": index, "embedding": packed} for index in range(count)]
    usage = {"prompt_tokens": 5, "total_tokens": 5}
    return {"object": "list", "data": data, "model": "test-model", "usage": usage}


def event(data: Any, name: str | None = None) -> bytes:
    text = data if isinstance(data, str) else json.dumps(data)
    return (f"event: {name}\n" if name else "").encode() + f"data: {text}\n\n".encode()


def chat_events(
    text: str = "pong", *, usage: bool = False, model: str = "test-model", calls: Sequence[Call] = ()
) -> list[bytes]:
    """A chat stream as OpenAI sends it: the role, the words or the calls, the finish, the usage, the sentinel."""
    whole = chat(text, model=model)
    frame = {name: whole[name] for name in ("id", "created", "model", "service_tier", "system_fingerprint")}
    frame["object"] = "chat.completion.chunk"

    def chunk(delta: Any, finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return event({**frame, "choices": [choice], **({"usage": None} if usage else {})})

    pieces = [chunk({"role": "assistant", "content": None if calls else "", "refusal": None})]
    pieces += [chunk({"content": letter}) for letter in ("" if calls else text)]
    for index, (id, name, given) in enumerate(calls):
        begun = {"id": id, "type": "function", "function": {"name": name, "arguments": ""}}
        pieces.append(chunk({"tool_calls": [{"index": index, **begun}]}))
        for part in (given[:5], given[5:]):
            pieces.append(chunk({"tool_calls": [{"index": index, "function": {"arguments": part}}]}))
    pieces.append(chunk({}, "tool_calls" if calls else "stop"))
    if usage:
        pieces.append(event({**frame, "choices": [], "usage": whole["usage"]}))
    return [*pieces, event("[DONE]")]


def response_events(
    text: str = "pong", *, calls: Sequence[Call] = (), echo: Mapping[str, Any] | None = None
) -> list[bytes]:
    whole = {**(with_calls(response(text), calls) if calls else response(text)), **(echo or {})}
    item = whole["output"][0]
    begun = {**whole, "status": "in_progress", "output": [], "usage": None}
    if calls:
        return _in_order([{"type": "response.created", "response": begun}, *_call_events(whole)])
    at = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": begun},
        {"type": "response.output_item.added", "output_index": 0, "item": {**item, "content": []}},
        {"type": "response.content_part.added", **at, "part": part},
        *({"type": "response.output_text.delta", **at, "delta": letter, "logprobs": []} for letter in text),
        {"type": "response.output_text.done", **at, "text": text, "logprobs": []},
        {"type": "response.content_part.done", **at, "part": item["content"][0]},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": whole},
    ]
    return _in_order(events)


def _call_events(whole: dict[str, Any]) -> Iterable[dict[str, Any]]:
    for index, item in enumerate(whole["output"]):
        at = {"item_id": item["id"], "output_index": index}
        begun = {**item, "arguments": "", "status": "in_progress"}
        yield {"type": "response.output_item.added", "output_index": index, "item": begun}
        for part in (item["arguments"][:5], item["arguments"][5:]):
            yield {"type": "response.function_call_arguments.delta", **at, "delta": part}
        given = {"name": item["name"], "arguments": item["arguments"]}
        yield {"type": "response.function_call_arguments.done", **at, **given}
        yield {"type": "response.output_item.done", "output_index": index, "item": item}
    yield {"type": "response.completed", "response": whole}


def _in_order(events: Iterable[dict[str, Any]]) -> list[bytes]:
    return [event({**e, "sequence_number": n}, e["type"]) for n, e in enumerate(events)]


def answer(seen: Seen, text: str = "pong", calls: Sequence[Call] = ()) -> Reply:
    """A good answer to any of the three endpoints, streamed if that was asked."""
    body = seen.json
    stream = bool(body.get("stream"))
    if seen.path.partition("?")[0].endswith("/embeddings"):
        count = len(body["input"]) if isinstance(body["input"], list) else 1
        return Reply(body=embedding(count, base64=body.get("encoding_format") == "base64"))
    if seen.path.partition("?")[0].endswith("/responses"):
        echo = {name: body[name] for name in ("text", "tools") if name in body}
        if stream:
            return Reply(pieces=response_events(text, calls=calls, echo=echo))
        return Reply(body={**(with_calls(response(text), calls) if calls else response(text)), **echo})
    if stream:
        usage = bool((body.get("stream_options") or {}).get("include_usage"))
        return Reply(pieces=chat_events(text, usage=usage, calls=calls))
    return Reply(body=with_calls(chat(text), calls) if calls else chat(text))


def numbered(seen: Seen, number: int) -> Reply:
    """Good answers that differ from call to call."""
    return answer(seen, f"pong {number}")


def late(seconds: float, script: Script = numbered) -> Script:
    """What `script` answers, so much later."""
    return lambda seen, number: replace(script(seen, number), delay=seconds)


@dataclass
class Assistant:
    """A script that does what a model does for a library: calls each function of `functions` that it is offered, once;
    then says what the last of them gave; fills in a schema with `fields`; else says `text` and the number of the call,
    so that no two answers are the same."""

    text: str = "pong"
    functions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, seen: Seen, number: int) -> Reply:
        body = seen.json
        offered = [tool.get("function", tool).get("name") for tool in body.get("tools") or ()]
        said = body.get("messages") or body.get("input") or ()
        items = [item for item in said if isinstance(item, dict)]
        called = {item.get("name") for item in items if item.get("type") == "function_call"}
        called |= {call["function"]["name"] for item in items for call in item.get("tool_calls") or ()}
        for name, given in self.functions.items():
            if name in offered and name not in called:
                return answer(seen, calls=[(f"call_{number}", name, json.dumps(given))])
        form = body.get("response_format") or (body.get("text") or {}).get("format") or {}
        if form.get("type") in ("json_schema", "json_object"):
            return answer(seen, json.dumps(self.fields))
        last = items[-1] if items else {}
        if last.get("role") == "tool" or last.get("type") == "function_call_output":
            return answer(seen, f"it says: {last.get('content') or last.get('output')}")
        return answer(seen, f"{self.text} {number}")


class Upstream:
    """The server. `script(seen, number)` answers; number counts from 1."""

    def __init__(self, script: Script = numbered) -> None:
        self.script = script
        self.seen: list[Seen] = []
        self.aborted = threading.Event()
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                body = self.rfile.read(length)
                seen = Seen(self.path, {k.lower(): v for k, v in self.headers.items()}, body)
                with outer._lock:
                    outer.seen.append(seen)
                    number = len(outer.seen)
                try:
                    outer._reply(self, outer.script(seen, number))
                except (BrokenPipeError, ConnectionResetError):
                    outer.aborted.set()
                    self.close_connection = True

            do_GET = do_POST

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 512

            def handle_error(self, *_: Any) -> None:
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    @property
    def calls(self) -> int:
        return len(self.seen)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _reply(self, handler: Any, reply: Reply) -> None:
        self._wait(handler, reply.delay)
        if reply.cut_before:
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            handler.connection.close()
            handler.close_connection = True
            return
        stream = reply.pieces is not None
        body = b"" if stream else reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        headers = {
            "content-type": "text/event-stream; charset=utf-8" if stream else "application/json",
            "x-request-id": f"req_{len(self.seen)}",
            **reply.headers,
        }
        handler.send_response(reply.status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header(*(("transfer-encoding", "chunked") if stream else ("content-length", str(len(body)))))
        handler.end_headers()
        if not stream:
            handler.wfile.write(body)
            return
        for piece in reply.pieces or ():
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            handler.wfile.flush()
            self._wait(handler, reply.pause)
        if reply.cut:
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            handler.connection.close()
            handler.close_connection = True
            return
        self._wait(handler, reply.linger)
        handler.wfile.write(b"0\r\n\r\n")

    def _wait(self, handler: Any, seconds: float) -> None:
        """Sleeps, and notices when the caller hangs up."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.01))
            handler.connection.setblocking(False)
            try:
                if handler.connection.recv(1, socket.MSG_PEEK) == b"":
                    raise ConnectionResetError
            except BlockingIOError:
                pass
            finally:
                handler.connection.setblocking(True)
