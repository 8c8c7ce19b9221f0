"""The drop-in: classes, wrapping, copies, aliases, other http clients, mocks, the bill."""

from __future__ import annotations

import inspect
import json
import socket
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import openai
import pytest
from conftest import MESSAGES, Face
from openai import _base_client
from upstream import Reply, Seen, Upstream, answer

import farthing
from farthing import Cache, ModelPrice, Policy

httpx: Any = getattr(_base_client, "httpx2", None) or _base_client.httpx


def outcome(thing: Any) -> Any:
    receipt = farthing.receipt(thing)
    return receipt and receipt.outcome


@pytest.mark.parametrize("name", ["OpenAI", "AsyncOpenAI", "AzureOpenAI", "AsyncAzureOpenAI"])
def test_the_classes_are_the_sdks(name: str) -> None:
    ours, theirs = getattr(farthing, name), getattr(openai, name)
    assert issubclass(ours, theirs)
    assert ours.__name__ == theirs.__name__, "the User-Agent is made of it"
    for method in ("__init__", "copy", "with_options"):
        mine, original = inspect.signature(getattr(ours, method)), inspect.signature(getattr(theirs, method))
        assert list(mine.parameters) == [*original.parameters, "policy", "reload"]


@pytest.mark.parametrize("version", ["0.28.1", "1.109.1", "2.30.0", "4.0.0"])
def test_another_sdk_is_refused_by_name(version: str) -> None:
    """Before anything that such a version may not have is asked for; `make versions` does it with real ones."""
    older = "import openai, sys; openai.__version__ = sys.argv[1]; sys.modules['openai._base_client'] = None; "
    command = [sys.executable, "-c", older + "from farthing import OpenAI", version]
    said = subprocess.run(command, capture_output=True, text=True).stderr
    assert f"UnsupportedSDKError: farthing cannot sit on this version of the OpenAI SDK in openai: {version}" in said
    assert said.rstrip().endswith('hint: pip install "openai>=2.31,<4"')


def test_the_headers_are_the_sdks(face: Face, upstream: Upstream) -> None:
    for plain in (True, False):
        face.chat(face.client(upstream, plain=plain, organization="org", default_headers={"x-mine": "1"}))
    one, two = (seen.headers for seen in upstream.seen)
    ignored = {"connection", "accept-encoding", "host"}
    assert {k: v for k, v in two.items() if k not in ignored} == {k: v for k, v in one.items() if k not in ignored}
    assert upstream.seen[0].json == upstream.seen[1].json
    assert upstream.seen[0].path == upstream.seen[1].path


def test_wrap(face: Face, upstream: Upstream) -> None:
    original = face.client(upstream, plain=True)
    original.chat.completions  # noqa: B018 a resource that holds the old client
    client = farthing.wrap(original, policy={"cache": {"name": upstream.url}})
    assert isinstance(client, type(original))
    assert type(client).__name__ == type(original).__name__
    assert [outcome(face.chat(client)) for _ in range(2)] == ["miss", "hit"]
    assert outcome(face.chat(original)) is None
    assert upstream.calls == 2
    assert client.api_key == original.api_key


def test_wrap_of_a_users_own_subclass(face: Face, upstream: Upstream) -> None:
    base: Any = openai.AsyncOpenAI if face.is_async else openai.OpenAI

    class Mine(base):  # type: ignore[misc]
        def hello(self) -> str:
            return "hello"

    client: Any = farthing.wrap(Mine(base_url=upstream.url, api_key="k"), policy={"cache": {"name": upstream.url}})
    assert (client.hello(), type(client).__name__) == ("hello", "Mine")
    assert [outcome(face.chat(c)) for c in (client, client.with_options(timeout=9))] == ["miss", "hit"]


def test_wrap_of_a_subclass_with_methods_of_its_own(face: Face, upstream: Upstream) -> None:
    base: Any = openai.AsyncOpenAI if face.is_async else openai.OpenAI

    class Named(base):  # type: ignore[misc]
        def __init__(self, name: str, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.name = name

        def copy(self, **kwargs: Any) -> Any:
            key = kwargs.get("api_key", self.api_key)
            return type(self)(self.name, api_key=key, base_url=self.base_url, max_retries=0)

        def with_options(self, *, timeout: float) -> Any:
            return super().copy(timeout=timeout, _extra_kwargs={"name": self.name})

    original = Named("one", api_key="k", base_url=upstream.url, max_retries=0)
    client = farthing.wrap(original, policy={"cache": {"name": f"subclass {face.is_async}"}})
    copies: Any = [client.copy(api_key="k"), client.with_options(timeout=3.0), type(client)("two", api_key="k")]
    assert [copy.name for copy in copies] == ["one", "one", "two"]
    assert face.chat(client).id == face.chat(copies[0]).id == face.chat(copies[1]).id
    assert (upstream.calls, client.savings().hits) == (1, 2)
    assert list(inspect.signature(type(client)).parameters) == ["name", "policy", "reload", "kwargs"]


def test_wrap_of_something_else() -> None:
    with pytest.raises(TypeError, match="hint: wrap"):
        farthing.wrap(object())  # type: ignore[type-var]


def test_a_users_subclass_of_ours(face: Face, upstream: Upstream) -> None:
    base: Any = farthing.AsyncOpenAI if face.is_async else farthing.OpenAI

    class Mine(base):  # type: ignore[misc]
        def __init__(self, region: str, **options: Any) -> None:
            super().__init__(**options)
            self.region = region

    client = Mine("eu", base_url=upstream.url, api_key="k", policy={"cache": {"name": upstream.url}})
    assert [outcome(face.chat(client)) for _ in range(2)] == ["miss", "hit"]


def test_copies_share_cache_and_bill(face: Face, upstream: Upstream) -> None:
    client = face.client(upstream)
    face.chat(client)
    for copy in (client.copy(), client.with_options(timeout=3), client.with_options(max_retries=5)):
        assert type(copy) is type(client)
        assert outcome(face.chat(copy)) == "hit"
    assert client.savings().calls == 4
    other = client.with_options(policy={"cache": False})
    assert outcome(face.chat(other)) == "bypass"
    assert client.savings().calls == 5
    assert outcome(face.chat(client.with_options(api_key="other"))) == "miss"


def test_azure(face: Face, upstream: Upstream) -> None:
    kind: Any = farthing.AsyncAzureOpenAI if face.is_async else farthing.AzureOpenAI
    client = kind(
        azure_endpoint=upstream.url.removesuffix("/v1"),
        api_key="k",
        api_version="2024-10-21",
        policy={"cache": {"name": upstream.url}, "aliases": {"chat": "deployment"}},
    )
    made = [face.chat(client, model=model) for model in ("deployment", "deployment", "chat", "other")]
    assert [outcome(m) for m in made] == ["miss", "hit", "hit", "miss"]
    assert upstream.seen[0].path == "/openai/deployments/deployment/chat/completions?api-version=2024-10-21"
    assert upstream.seen[0].headers["api-key"] == "k"


def test_azures_key_goes_as_the_sdk_sends_it(face: Face, upstream: Upstream) -> None:
    """Also when the default headers have one of that name: which of them wins, the SDK decides."""
    ends = {"azure_endpoint": upstream.url.removesuffix("/v1"), "api_version": "2024-10-21", "api_key": "k"}
    for module, policy in ((openai, {}), (farthing, {"policy": {"cache": False}})):
        kind: Any = module.AsyncAzureOpenAI if face.is_async else module.AzureOpenAI
        for more in ({}, {"default_headers": {"api-key": "another"}}):
            face.chat(kind(**ends, **policy, **more))
    sent = [seen.headers["api-key"] for seen in upstream.seen]
    assert sent[2:] == sent[:2]


def test_aliases(face: Face, upstream: Upstream) -> None:
    policy = {"aliases": {"chat": "real-model"}, "cache": {"name": upstream.url}}
    client = face.client(upstream, policy=policy)
    first, second, third = (face.chat(client, model=model) for model in ("chat", "chat", "real-model"))
    assert upstream.seen[0].json["model"] == "real-model"
    assert [outcome(r) for r in (first, second, third)] == ["miss", "hit", "hit"]
    assert farthing.receipt(first).model_asked == farthing.receipt(second).model_asked == "chat"  # type: ignore[union-attr]
    assert farthing.receipt(third).model_asked == "real-model"  # type: ignore[union-attr]
    face.run(lambda: client.responses.create(model="chat", input="x"))
    face.run(lambda: client.embeddings.create(model="chat", input="x"))
    assert {seen.json["model"] for seen in upstream.seen} == {"real-model"}


def test_a_policy_from_the_environment(
    face: Face, upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "farthing.toml"
    path.write_text('cache = false\n[aliases]\nchat = "real-model"\n')
    monkeypatch.setenv("FARTHING_POLICY", str(path))
    for client in (face.client(upstream, policy=None), farthing.wrap(face.client(upstream, plain=True))):
        face.chat(client, model="chat")
        assert upstream.seen[-1].json["model"] == "real-model"
    path.write_text("[cahce]\n")
    with pytest.raises(farthing.PolicyError, match="hint: did you mean"):
        face.client(upstream, policy=None)


def test_other_calls_pass_untouched(face: Face, upstream: Upstream) -> None:
    client = face.client(upstream)
    upstream.script = lambda seen, number: Reply(body={"object": "list", "data": [], "id": "x"})
    face.run(client.models.list)
    face.run(lambda: client.post("/chat/other", body={"model": "m"}, cast_to=object))
    assert client.savings().calls == 0
    assert client.cache.stats()["misses"] == 0


def test_client_post_to_a_known_path_is_seen(face: Face, upstream: Upstream) -> None:
    client = face.client(upstream)
    body = {"model": "test-model", "messages": MESSAGES}
    for _ in range(2):
        face.run(lambda: client.post("/chat/completions", body=body, cast_to=object))
    assert outcome(face.chat(client)) == "hit"
    assert upstream.calls == 1


# Who sends.


def own_http(face: Face, **options: Any) -> Any:
    return (httpx.AsyncClient if face.is_async else httpx.Client)(**options)


def test_a_clients_own_http_client_sends(face: Face, upstream: Upstream) -> None:
    http = own_http(face, headers={"x-http": "mine"})
    client = face.client(upstream, http_client=http)
    assert [outcome(face.chat(client)) for _ in range(2)] == ["miss", "hit"]
    assert upstream.seen[0].headers["x-http"] == "mine"
    chunks = face.stream(client, messages=[{"role": "user", "content": "streamed"}])
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "pong 2"
    assert upstream.calls == 2


def test_with_it_errors_retries_and_flights_are_the_same(face: Face, upstream: Upstream) -> None:
    def script(seen: Seen, number: int) -> Reply:
        if number < 3:
            return Reply(503, {}, {"retry-after-ms": "1"}, delay=0.1)
        return answer(seen)

    upstream.script = script
    client = face.client(upstream, http_client=own_http(face), max_retries=2)
    made = face.together(*[lambda: client.chat.completions.create(model="m", messages=MESSAGES)] * 5)
    assert upstream.calls == 3
    assert sorted(map(outcome, made)) == ["joined"] * 4 + ["miss"]
    upstream.script = lambda seen, number: Reply(404, {"error": {"message": "no"}})
    with pytest.raises(openai.NotFoundError):
        face.chat(client, model="other")


def test_its_timeouts_are_the_sdks(face: Face, upstream: Upstream) -> None:
    upstream.script = lambda seen, number: Reply(body={}, delay=5)
    client = face.client(upstream, http_client=own_http(face))
    with pytest.raises(openai.APITimeoutError) as caught:
        face.chat(client, timeout=0.2)
    assert isinstance(caught.value.__cause__, httpx.ReadTimeout)


def test_the_sdks_transport_can_be_forced(face: Face, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FARTHING_HTTP", "sdk")
    client = face.client(upstream)
    assert [outcome(face.chat(client)) for _ in range(2)] == ["miss", "hit"]


def test_two_own_http_clients_share_nothing(face: Face, upstream: Upstream) -> None:
    """A client certificate or a proxy may decide who asks."""
    policy = {"cache": {"name": f"own http {upstream.url}"}}
    clients = [face.client(upstream, policy=policy, http_client=own_http(face)) for _ in range(2)]
    for client in clients:
        assert outcome(face.chat(client)) == "miss"


def test_mocks_see_every_call_and_are_not_cached(face: Face, upstream: Upstream) -> None:
    seen: list[Any] = []

    def handle(request: Any) -> Any:
        seen.append(request)
        return httpx.Response(200, json=answer(Seen("/v1/chat/completions", {}, request.content)).body)

    async def handle_async(request: Any) -> Any:
        return handle(request)

    transport = httpx.MockTransport(handle_async if face.is_async else handle)
    client = face.client(upstream, http_client=own_http(face, transport=transport))
    for _ in range(2):
        assert face.chat(client).choices[0].message.content == "pong"
    assert len(seen) == 2
    assert upstream.calls == 0
    assert client.cache.stats()["stored"] == 0


def test_a_patched_transport_sees_every_call(face: Face, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    client = face.client(upstream)
    face.chat(client)
    seen: list[Any] = []
    kind, name = (
        (httpx.AsyncHTTPTransport, "handle_async_request") if face.is_async else (httpx.HTTPTransport, "handle_request")
    )
    original = getattr(kind, name)

    if face.is_async:

        async def spy(self: Any, request: Any) -> Any:
            seen.append(request)
            return await original(self, request)
    else:

        def spy(self: Any, request: Any) -> Any:
            seen.append(request)
            return original(self, request)

    with monkeypatch.context() as patch:
        patch.setattr(kind, name, spy)
        face.chat(client)
        face.chat(client)
    assert len(seen) == 2
    assert outcome(face.chat(client)) == "hit"


@pytest.mark.parametrize("where", ["socket", "create_connection", "getaddrinfo", "socket.connect"])
def test_sockets_that_are_not_pythons_own(
    face: Face, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """As gevent, PySocks and pytest-socket leave them: Rust does not go past them."""
    client = face.client(upstream)
    face.chat(client)
    owner: Any = socket.socket if where == "socket.connect" else socket
    name = where.rpartition(".")[2]
    original = getattr(owner, name)
    patched: Any
    if where == "socket":
        patched = type("Other", (original,), {"__module__": "elsewhere"})
    else:

        def patched(*args: Any, **kwargs: Any) -> Any:
            return original(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, patched)
        assert [outcome(face.chat(client)) for _ in range(2)] == [None, None]
    assert upstream.calls == 3
    assert outcome(face.chat(client)) == "hit"


def test_a_tracer_sees_every_call(face: Face, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    from openai.resources.chat import completions

    kind: Any = completions.AsyncCompletions if face.is_async else completions.Completions
    client = face.client(upstream)
    face.chat(client)
    original, traced = kind.create, []

    def create(self: Any, *args: Any, **kwargs: Any) -> Any:
        traced.append(kwargs)
        return original(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(kind, "create", create)
        assert outcome(face.chat(client)) == "hit", "the transport answers it"
    assert len(traced) == 1


def test_event_hooks_and_auth_of_the_http_client_hold(face: Face, upstream: Upstream) -> None:
    events: list[str] = []

    async def note_async(_: Any) -> None:
        events.append("request")

    def note(_: Any) -> None:
        events.append("request")

    http = own_http(face, event_hooks={"request": [note_async if face.is_async else note]})
    face.chat(face.client(upstream, http_client=http))
    assert events == ["request"]


# The bill.

PRICES = {"test-model": ModelPrice(input=1, output=2)}
COST = Decimal("0.000015")  # 9 prompt tokens and 3 completion tokens


def test_the_bill(face: Face, upstream: Upstream) -> None:
    client = face.client(upstream, policy=Policy(models=PRICES, cache=Cache(name=upstream.url)))
    with farthing.options(tag="faq"):
        made = [face.chat(client) for _ in range(3)]
    face.chat(client, messages=[{"role": "user", "content": "x"}])
    bill = client.savings()
    assert (bill.calls, bill.hits, bill.misses) == (4, 2, 2)
    assert (bill.spent, bill.saved, bill.net) == (2 * COST, 2 * COST, 2 * COST)
    assert bill.by_model["test-model"].spent == 2 * COST
    assert bill.by_tag["faq"].saved == 2 * COST
    assert bill.by_stage["cache"].hits == 2
    assert bill.unknown_prices == ()
    first, second, _ = (farthing.receipt(m) for m in made)
    assert first is not None
    assert second is not None
    assert (first.cost, first.saved, second.cost, second.saved) == (COST, None, 0, COST)
    assert second.hit
    assert second.age is not None
    assert not first.hit
    assert dict(first.stages).keys() == {"cache", "upstream"}
    assert "test-model" in str(bill)
    assert "<table>" in bill._repr_html_()


def test_every_sum_reaches_the_bill(face: Face, upstream: Upstream) -> None:
    """The core and ledger.py name the sums alike."""
    client = face.client(upstream)
    face.chat(client)
    report = json.loads(client._farthing.ledger.report())
    bill = client.savings()
    names = set(bill.to_dict()) - {"net", "saved_tokens"}
    assert set(report) == names
    assert set(report["by_model"]["test-model"]) == set(bill.to_dict()["by_model"]["test-model"])


def test_unknown_prices_are_named(face: Face, upstream: Upstream) -> None:
    client = face.client(upstream)
    made = face.chat(client)
    assert farthing.receipt(made).cost is None  # type: ignore[union-attr]
    bill = client.savings()
    assert bill.unknown_prices == ("test-model",)
    assert bill.by_model["test-model"].spent is None
    assert "price unknown: test-model" in str(bill)


def test_the_model_that_answered_is_billed(face: Face, upstream: Upstream) -> None:
    upstream.script = lambda seen, number: Reply(body={**answer(seen).body, "model": "test-model-2024"})
    models = {"test-model": ModelPrice(1, 2), "test-model-2024": ModelPrice(10, 20)}
    client = face.client(upstream, policy=Policy(models=models))
    assert farthing.receipt(face.chat(client)).cost == 10 * COST  # type: ignore[union-attr]
    assert list(client.savings().by_model) == ["test-model-2024"]


def test_the_bill_of_the_process(face: Face, upstream: Upstream) -> None:
    before = farthing.savings()
    client = face.client(upstream)
    face.chat(client)
    assert farthing.savings().calls == before.calls + 1
    del client
    import gc

    gc.collect()
    assert farthing.savings().calls == before.calls + 1, "clients that are gone stay on the bill"


def test_failed_calls_are_on_the_bill(face: Face, upstream: Upstream) -> None:
    upstream.script = lambda seen, number: Reply(400, {})
    client = face.client(upstream)
    with pytest.raises(openai.BadRequestError):
        face.chat(client)
    bill = client.savings()
    assert (bill.calls, bill.errors, bill.spent) == (1, 1, 0)


def test_a_receipt_of_something_else() -> None:
    assert farthing.receipt(object()) is None
    assert farthing.receipt("text") is None


def test_the_names_of_the_package() -> None:
    for name in farthing.__all__:
        assert getattr(farthing, name) is not None
    assert set(farthing.__all__) <= set(dir(farthing))
    with pytest.raises(AttributeError, match="nonsense"):
        farthing.nonsense  # noqa: B018
