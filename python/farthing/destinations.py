"""One upstream of the policy, as requests are made for it: its key, its headers, its times, and the SDK client that
builds its requests. Which calls go there is `upstreams.py`'s; nothing is sent here.
"""

from __future__ import annotations

import inspect
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import openai

from .exceptions import PolicyError, explain
from .routes import httpx_of
from .upstream_policy import SECRET_HEADERS, Timeouts, Upstream

if TYPE_CHECKING:
    from .upstreams import Route

__all__ = ["Destination", "Keys", "is_secret", "keys_now", "keys_soon", "limits_of"]

# What says who asks: never taken from one upstream to another.
_CREDENTIALS = frozenset(
    ("authorization", "api-key", "x-api-key", "cookie", "openai-organization", "openai-project", "proxy-authorization")
)
_POLL = 1.0

Keys = Mapping["Destination", str]
"""The keys of those upstreams whose key is a function's, for one call."""


class _Text:
    """A key or a header: the text itself, or where it is."""

    def __init__(self, given: str | Mapping[str, str], what: str) -> None:
        self._what = what
        self.file = given["file"] if isinstance(given, Mapping) and "file" in given else None
        self._seen: tuple[int, int] | None = None
        self._looked = 0.0
        if isinstance(given, str):
            self.text = given
        elif "env" in given:
            self.text = self._checked(os.environ.get(given["env"], ""), given["env"])
        else:
            self.refresh()

    def refresh(self) -> None:
        """Reads the file again when it has changed; looks at most once a second."""
        now = time.monotonic()
        if self.file is None or (self._seen is not None and now - self._looked < _POLL):
            return
        self._looked = now
        try:
            found = os.stat(self.file)
            if self._seen == (found.st_mtime_ns, found.st_size):
                return
            with open(self.file, encoding="utf-8") as file:
                text = self._checked(file.read(), self.file)
        except (OSError, UnicodeDecodeError, PolicyError) as error:
            if self._seen is not None:  # what was there goes on: it is gone, or just being written
                return
            if isinstance(error, PolicyError):
                raise
            reason = getattr(error, "strerror", None) or "not a text"
            raise PolicyError(explain(f"cannot read {self._what}", where=self.file, value=reason)) from None
        self.text, self._seen = text, (found.st_mtime_ns, found.st_size)

    def _checked(self, text: str, where: str) -> str:
        text = text.strip()
        if text and text.isprintable() and text.isascii():
            return text
        # The text is not shown.
        raise PolicyError(explain(f"{self._what} is {'not a key' if text else 'not set'}", where=where))


class Destination:
    """One upstream of the policy, as requests are made for it."""

    def __init__(self, name: str, upstream: Upstream, number: int) -> None:
        self.name = name
        self.base_url = upstream.base_url
        self.max_retries = upstream.max_retries
        self.timeout: Any = upstream.timeout
        if isinstance(upstream.timeout, Timeouts):
            times = upstream.timeout
            self.timeout = openai.Timeout(times.read, connect=times.connect, read=times.read, write=times.write)
        what = f'the api_key of upstream "{name}"'
        self._key: _Text | None = None
        self.ask_key: Callable[[], Any] | None = None
        if callable(upstream.api_key):
            self.ask_key = upstream.api_key
        elif upstream.api_key is not None:
            self._key = _Text(upstream.api_key, what)
        self._headers = {n: _Text(v, f'header {n} of upstream "{name}"') for n, v in upstream.headers.items()}
        self._files = [text for text in (self._key, *self._headers.values()) if text is not None and text.file]
        # A key that is new for each request does not say whose answers these are.
        self.owner = b"upstream %d" % number if self.ask_key is not None else b""
        self._twins: dict[tuple[str, bool], Any] = {}
        self._lock = threading.Lock()

    def stamp(self) -> tuple[str, ...]:
        """Changes when a file with a key or a header of this upstream does."""
        for text in self._files:
            text.refresh()
        return tuple(text.text for text in self._files)

    def finish(self, request: Any, key: str | None) -> None:
        """Puts this upstream's own key into a request of its twin's."""
        if "authorization" in self._headers:
            return
        key = key if self._key is None else self._key.text
        if key is None:
            del request.headers["authorization"]
        else:
            request.headers["authorization"] = f"Bearer {key}"

    def headers(self, given: Any) -> dict[str, Any]:
        """The headers of one call without those that say who asks: these are this upstream's own."""
        taken = {name: value for name, value in given.items()} if isinstance(given, Mapping) else {}
        return {n: v for n, v in taken.items() if not is_secret(n.lower()) and n.lower() not in self._headers}

    def twin(self, client: Any) -> Any:
        """An SDK client that builds this upstream's requests, and never sends one."""
        httpx, is_async = httpx_of(client), isinstance(client, openai.AsyncOpenAI)
        known = self._twins.get((httpx.__name__, is_async))
        if known is not None:
            known._custom_headers = {name: text.text for name, text in self._headers.items()}
            return known
        with self._lock:
            transport = httpx.MockTransport(_never)
            http = (httpx.AsyncClient if is_async else httpx.Client)(transport=transport, trust_env=False)
            kind: Any = openai.AsyncOpenAI if is_async else openai.OpenAI
            made = kind(api_key="none", base_url=self.base_url, http_client=http, max_retries=0)
            # What the environment says is meant for the user's own upstream.
            made.organization = made.project = None
            made.admin_api_key = None
            made._custom_query = {}
            made._custom_headers = {name: text.text for name, text in self._headers.items()}
            self._twins[(httpx.__name__, is_async)] = made
            return made

    def limits(self, client: Any) -> tuple[float | None, float | None, float | None, int]:
        """Seconds to connect, read and write, and retries."""
        return limits_of(client.timeout if self.timeout is None else self.timeout, self.max_retries, client)


def is_secret(name: str) -> bool:
    """Whether a header (in lower case) says who asks."""
    return name in _CREDENTIALS or SECRET_HEADERS.fullmatch(name) is not None


def _never(request: Any) -> Any:
    raise RuntimeError("a twin does not send")


def limits_of(timeout: Any, retries: int | None, client: Any) -> tuple[float | None, float | None, float | None, int]:
    """Seconds to connect, read and write, and retries, of a timeout as the SDK takes it."""
    times = [timeout] * 3
    if hasattr(timeout, "connect"):
        times = [timeout.connect, timeout.read, timeout.write]
    known = [float(time) if isinstance(time, int | float) and time > 0 else None for time in times]
    most = client.max_retries if retries is None else retries
    return known[0], known[1], known[2], most if isinstance(most, int) and 0 <= most < 2**32 else 0


def keys_now(route: Route) -> dict[Destination, str]:
    """The keys that functions give, for a sync client; a fallback whose key does not come is left out.

    Raises:
        PolicyError: the first upstream's function is async, or gave no key.
        Exception: what that function raises.
    """
    keys: dict[Destination, str] = {}
    for destination in route.dynamic():
        try:
            assert destination.ask_key is not None
            given = destination.ask_key()
            if inspect.iscoroutine(given):
                given.close()
                what = f'the api_key of upstream "{destination.name}" is async'
                raise PolicyError(explain(what, hint="a sync client needs a function that gives the key at once"))
            keys[destination] = _key(destination, given)
        except Exception:
            if destination is route.destination:
                raise
    return keys


async def keys_soon(route: Route) -> dict[Destination, str]:
    """The same for an async client, whose functions may be async too."""
    keys: dict[Destination, str] = {}
    for destination in route.dynamic():
        try:
            assert destination.ask_key is not None
            given = destination.ask_key()
            keys[destination] = _key(destination, await given if inspect.isawaitable(given) else given)
        except Exception:
            if destination is route.destination:
                raise
    return keys


def _key(destination: Destination, given: Any) -> str:
    if isinstance(given, str) and given and given.isprintable() and given.isascii():
        return given
    what = f'the api_key of upstream "{destination.name}" gave no key'
    raise PolicyError(explain(what, value=type(given).__name__))
