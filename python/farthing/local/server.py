"""One base_url for several local models: a child process a model, and a small dispatcher on `model` before them.

An OpenAI-compatible endpoint on loopback, for trying things and for tests; not for production. It counts what it
answers (`GET /farthing/stats`), so that a bill can be checked against the upstream's own books.
"""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import select
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from ..exceptions import LocalModelsError, explain

__all__ = ["LocalServer"]

_START_SECONDS = 120
_MOST_BODY = 64 << 20


class _Child:
    """A model's process."""

    def __init__(self, name: str, path: Path, threads: int) -> None:
        self.name = name
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 closed with the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", "farthing.local.child", str(path), name, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )
        self.host, self.port = "", 0

    def wait(self) -> None:
        """Until it listens."""
        assert self._process.stdout is not None
        end = time.monotonic() + _START_SECONDS
        while time.monotonic() < end:
            line = self._line(self._process.stdout)
            if line.startswith(b"{"):
                address = urlsplit(json.loads(line)["address"])
                self.host, self.port = address.hostname or "", address.port or 0
                return
            if self._process.poll() is not None:
                break
        self._log.seek(0)
        said = self._log.read().decode("utf-8", "replace").strip().splitlines() or ["nothing"]
        self.close()
        raise LocalModelsError(
            explain("a local model did not start", value=f"{self.name}: {said[-1]}", hint="is there memory for it?")
        )

    def _line(self, pipe: IO[bytes]) -> bytes:
        if sys.platform != "win32" and not select.select([pipe], [], [], 0.5)[0]:
            return b""
        return pipe.readline()

    def is_running(self) -> bool:
        return self._process.poll() is None

    def close(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._log.close()


class LocalServer:
    """Serves models by name.

    Args:
        models: (name, path of a GGUF file) pairs.
        port: of the dispatcher, on loopback; 0 = any that is free.

    Raises:
        LocalModelsError: the package xllamacpp is missing, a model does not start, the port is taken.
    """

    def __init__(self, models: Sequence[tuple[str, Path]], port: int = 0) -> None:
        if importlib.util.find_spec("xllamacpp") is None:
            raise LocalModelsError(
                explain("local models need the package xllamacpp", hint='pip install "farthing[local]"')
            )
        self._stats: dict[str, dict[str, int]] = {
            name: {"calls": 0, "prompt_tokens": 0, "completion_tokens": 0} for name, _ in models
        }
        self._lock = threading.Lock()
        threads = os.cpu_count() or 1
        self._children: dict[str, _Child] = {}
        try:
            self._server = _Server(("127.0.0.1", port), _handler(self))
        except OSError as error:
            hint = "another port, or --port 0 for any that is free"
            raise LocalModelsError(
                explain("cannot listen", value=f"port {port}: {error.strerror}", hint=hint)
            ) from error
        try:
            for name, path in models:
                self._children[name] = _Child(name, path, threads)
            for child in self._children.values():
                child.wait()
        except BaseException:
            self._close_children()
            self._server.server_close()
            raise
        threading.Thread(target=self._server.serve_forever, args=(0.1,), name="farthing-local", daemon=True).start()

    @property
    def base_url(self) -> str:
        """For `OpenAI(base_url=...)`; any text will do as the key."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    @property
    def models(self) -> list[str]:
        return list(self._children)

    def stats(self) -> dict[str, dict[str, int]]:
        """By model: calls answered, prompt_tokens, completion_tokens."""
        with self._lock:
            return {name: dict(counts) for name, counts in self._stats.items()}

    def close(self) -> None:
        """Ends the server and its models. May be called twice."""
        self._server.shutdown()
        self._server.server_close()
        self._close_children()

    def _close_children(self) -> None:
        for child in self._children.values():
            child.close()

    def __enter__(self) -> LocalServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _child(self, name: object) -> _Child | None:
        return self._children.get(name) if isinstance(name, str) else None

    def _count(self, name: str, usage: Any) -> None:
        usage = usage if isinstance(usage, dict) else {}
        with self._lock:
            counts = self._stats[name]
            counts["calls"] += 1
            counts["prompt_tokens"] += usage.get("prompt_tokens") or usage.get("input_tokens") or 0
            counts["completion_tokens"] += usage.get("completion_tokens") or usage.get("output_tokens") or 0


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that hung up is no news."""


def _handler(local: LocalServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # With it, each small event of a stream would wait for the one before to be confirmed.
        disable_nagle_algorithm = True

        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            if path == "/farthing/stats":
                self._json(200, local.stats())
            elif path.rstrip("/") == "/v1/models":
                data = [{"id": name, "object": "model", "created": 0, "owned_by": "local"} for name in local.models]
                self._json(200, {"object": "list", "data": data})
            else:
                self._error(404, f"no such path: {path}", "not_found")

        def do_POST(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            if length > _MOST_BODY:
                self.close_connection = True
                self._error(413, "the request is too large", "too_large")
                return
            body = self.rfile.read(length)
            try:
                model = json.loads(body)["model"]
            except (ValueError, KeyError, TypeError):
                self._error(400, "the body is no JSON object with a model", "invalid_request")
                return
            child = local._child(model)
            if child is None:
                names = ", ".join(local.models)
                self._error(404, f"no such model: {model}; there are: {names}", "model_not_found")
                return
            self._pass_on(child, body)

        def _pass_on(self, child: _Child, body: bytes) -> None:
            connection = http.client.HTTPConnection(child.host, child.port)
            try:
                try:
                    connection.request("POST", self.path, body, {"content-type": "application/json"})
                    answer = connection.getresponse()
                except (OSError, http.client.HTTPException) as error:
                    state = "hung up" if child.is_running() else "has ended"
                    self._error(502, f"the model {child.name} {state}: {error}", "bad_gateway")
                    return
                kind = answer.headers.get("content-type", "application/json")
                if kind.startswith("text/event-stream"):
                    self._stream(child, answer, kind)
                else:
                    text = answer.read()
                    if answer.status == 200:
                        local._count(child.name, _usage(text))
                    self._send(answer.status, kind, text)
            finally:
                # Also when the caller has hung up: the model then stops writing.
                connection.close()

        def _stream(self, child: _Child, answer: http.client.HTTPResponse, kind: str) -> None:
            self.send_response(answer.status)
            self.send_header("content-type", kind)
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            counted, tail = False, b""
            try:
                while piece := answer.read1(1 << 16):
                    *lines, tail = (tail + piece).split(b"\n")
                    for line in lines:
                        usage = _usage(line.partition(b":")[2]) if b'"usage"' in line and not counted else None
                        # Before it is passed on: who has read the answer finds it counted.
                        if usage:
                            local._count(child.name, usage)
                            counted = True
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                self.wfile.write(b"0\r\n\r\n")
            finally:
                if not counted:
                    local._count(child.name, None)

        def _json(self, status: int, value: Any) -> None:
            self._send(status, "application/json", json.dumps(value).encode())

        def _error(self, status: int, message: str, code: str) -> None:
            error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
            self._json(status, {"error": error})

        def _send(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler


def _usage(text: bytes) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    if not isinstance(value, dict):
        return None
    response = value.get("response")
    return value.get("usage") or (response.get("usage") if isinstance(response, dict) else None)
