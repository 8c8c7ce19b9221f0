"""What the tests of all libraries share: the same use with the SDK's client and with farthing's, side by side.

Run by `make integrations`, in environments that have the libraries; elsewhere each file is skipped.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Face
from upstream import Assistant, Seen, Upstream

from farthing.local import LocalServer

DOCS = Path(__file__).parents[3] / "docs" / "integrations.md"
MODEL = "smollm2-135m"

# What libraries would ask the network for: a newer table of prices, where to report to.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
os.environ["DEEPEVAL_TELEMETRY_OPT_OUT"] = "1"


def library(name: str) -> Any:
    """The module; where it is not installed, the test file is skipped."""
    return pytest.importorskip(name, reason="not in this environment; run: make integrations")


def agree(face: Face, upstream: Upstream, use: Callable[[Any], Any], script: Any = None, **options: Any) -> Any:
    """What `use(client)` gives: the same with the SDK's client as with farthing's, by the same requests; and again, now
    without any request."""
    upstream.script = script or Assistant()
    beside = Upstream(upstream.script)
    try:
        plain = use(face.client(beside, plain=True, **options))
    finally:
        beside.close()
    client = face.client(upstream, **options)
    first = use(client)
    assert first == plain
    assert [_asked(seen) for seen in upstream.seen] == [_asked(seen) for seen in beside.seen]
    assert upstream.calls > 0
    assert repeated(client, lambda: use(client), lambda: upstream.calls) == first
    return first


def repeated(client: Any, use: Callable[[], Any], count: Callable[[], int]) -> Any:
    """What a use gives that was made before: nothing is asked, and the bill says so."""
    asked, before = count(), client.savings()
    again = use()
    after = client.savings()
    assert count() == asked
    assert after.hits - before.hits == after.calls - before.calls > 0
    assert after.saved_tokens > before.saved_tokens
    assert client.last_receipt() is None or client.last_receipt().hit
    return again


def agree_locally(face: Face, server: LocalServer, use: Callable[[Any], Any]) -> Any:
    """The same with a real model, which must be asked for determinism by `use`."""
    plain = use(face.client(server.base_url, plain=True))
    client = face.client(server.base_url)
    first = use(client)
    assert first == plain
    assert first
    assert repeated(client, lambda: use(client), lambda: server.stats()[MODEL]["calls"]) == first
    return first


def _asked(seen: Seen) -> Any:
    """A request, but for what farthing adds on purpose: it asks each stream for its usage."""
    body = seen.json
    if body.get("stream"):
        body.pop("stream_options", None)
    return seen.path, seen.headers.get("user-agent"), seen.headers.get("authorization"), body


def snippet(name: str) -> Any:
    """The code under a library's heading in docs/integrations.md."""
    sections = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", DOCS.read_text("utf-8"), re.MULTILINE | re.DOTALL))
    (code,) = re.findall(r"^```python\n(.*?)^```$", sections[name], re.MULTILINE | re.DOTALL)
    return compile(code, f"{DOCS.name}, {name}", "exec")


def run_snippet(name: str, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names that a snippet leaves, run as a user would: the environment says where the endpoint is."""
    monkeypatch.setenv("OPENAI_BASE_URL", upstream.url)
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    names: dict[str, Any] = {}
    exec(snippet(name), names)
    return names
