"""Upstreams of the policy: what each server receives, whose key it was, and what is answered from where."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from conftest import MESSAGES, Face, text
from openai import _base_client
from upstream import Reply, Upstream, answer

import farthing
from farthing import Adapt, Alias, ModelPrice, Policy, PolicyError

httpx: Any = getattr(_base_client, "httpx2", None) or _base_client.httpx
SECRETS = ("sk-client", "sk-other", "org-client", "project-client", "azure-client", "default-header")


@pytest.fixture
def other() -> Iterator[Upstream]:
    """The server behind the upstream that the policy names."""
    server = Upstream(lambda seen, number: answer(seen, f"other {number}"))
    yield server
    server.close()


_numbers = iter(range(10**9))


def policy(other: Upstream, **more: Any) -> dict[str, Any]:
    parts = {
        "cache": {"name": f"upstreams-{next(_numbers)}"},
        "upstreams": {"other": {"base_url": other.url, "api_key": "sk-other", "headers": {"x-own": "1"}}},
        "aliases": {"fast": {"model": "real-model", "upstream": "other"}},
    }
    return {**parts, **more}


def client(face: Face, upstream: Upstream, other: Upstream, **more: Any) -> Any:
    options = {
        "api_key": "sk-client",
        "organization": "org-client",
        "project": "project-client",
        "default_headers": {"x-secret": "default-header"},
        "policy": policy(other),
        **more,
    }
    return face.client(upstream, **options)


def leaks(upstream: Upstream, secrets: tuple[str, ...]) -> list[str]:
    """The secrets among what a server received."""
    received = "\n".join(f"{seen.path} {seen.headers} {seen.body!r}" for seen in upstream.seen)
    return [secret for secret in secrets if secret in received]


def chat(face: Face, client: Any, **arguments: Any) -> str:
    content: str = face.chat(client, **{"model": "fast", **arguments}).choices[0].message.content
    return content


Use = Callable[[Face, Any], str]


def _raw(face: Face, client: Any) -> str:
    create = client.chat.completions.with_raw_response.create
    made = face.run(lambda: create(model="fast", messages=MESSAGES)).parse()
    return str(made.choices[0].message.content)


def _streaming_response(face: Face, client: Any) -> str:
    create = client.chat.completions.with_streaming_response.create
    if not face.is_async:
        with create(model="fast", messages=MESSAGES) as response:
            return str(response.parse().choices[0].message.content)

    async def main() -> str:
        async with create(model="fast", messages=MESSAGES) as response:
            return str((await response.parse()).choices[0].message.content)

    return str(face.run(main))


def _parse(face: Face, client: Any) -> str:
    made = face.run(lambda: client.chat.completions.parse(model="fast", messages=MESSAGES))
    return str(made.choices[0].message.content)


def _typed(face: Face, client: Any) -> str:
    from openai.types.chat import ChatCompletionMessage

    said = ChatCompletionMessage(role="assistant", content="before")
    return chat(face, client, messages=[*MESSAGES, said, *MESSAGES])


def _responses(face: Face, client: Any) -> str:
    return str(face.run(lambda: client.responses.create(model="fast", input="ping")).output_text)


def _embeddings(face: Face, client: Any) -> str:
    made = face.run(lambda: client.embeddings.create(model="fast", input="ping"))
    assert made.data[0].embedding == [0.25, -1.5, 3.0]
    return "other"


USES: dict[str, Use] = {
    "plain": chat,
    "stream": lambda face, client: text(face.stream(client, model="fast")),
    "raw": _raw,
    "streaming response": _streaming_response,
    "parse": _parse,
    "typed": _typed,
    "extra header": lambda face, client: chat(face, client, extra_headers={"x-extra": "2"}),
    "extra body": lambda face, client: chat(face, client, extra_body={"top_k": 4}),
    "responses": _responses,
    "embeddings": _embeddings,
    "named by extra body": lambda face, client: chat(face, client, model="x", extra_body={"model": "fast"}),
}


@pytest.mark.parametrize("http", ["rust", "sdk", "own"])
@pytest.mark.parametrize("use", USES)
def test_an_alias_goes_to_its_upstream(
    face: Face, upstream: Upstream, other: Upstream, use: str, http: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    more: dict[str, Any] = {}
    if http == "sdk":
        monkeypatch.setenv("FARTHING_HTTP", "sdk")
    elif http == "own":
        kind = httpx.AsyncClient if face.is_async else httpx.Client
        more["http_client"] = kind(headers={"x-secret": "default-header"}, auth=("sk-client", "sk-client"))
    made = client(face, upstream, other, **more)
    assert USES[use](face, made).startswith("other")
    assert (upstream.calls, other.calls) == (0, 1)
    seen = other.seen[0]
    assert seen.json["model"] == "real-model"
    assert (seen.headers["authorization"], seen.headers["x-own"]) == ("Bearer sk-other", "1")
    assert not leaks(other, tuple(s for s in SECRETS if s != "sk-other"))
    # And what was stored comes from there; the client's own upstream is asked for everything else.
    USES[use](face, made)
    assert other.calls == 1
    face.chat(made)
    assert upstream.calls == 1 and upstream.seen[0].headers["authorization"].startswith(("Bearer sk-client", "Basic"))
    assert not leaks(upstream, ("sk-other",))


def test_keys_that_a_call_brings_along_stay(face: Face, upstream: Upstream, other: Upstream) -> None:
    theirs = {"Authorization": "Bearer sk-client", "api-key": "azure-client", "OpenAI-Project": "project-client"}
    chat(face, client(face, upstream, other), extra_headers={**theirs, "x-trace": "7"})
    assert other.seen[0].headers["authorization"] == "Bearer sk-other"
    assert other.seen[0].headers["x-trace"] == "7"
    assert not leaks(other, ("sk-client", "azure-client", "project-client"))


# fmt: off
HEADERS = [
    "X-Portkey-Api-Key", "x-auth-token", "X-Client-Secret", "x-auth", "Ocp-Apim-Subscription-Key",
    "cf-aig-authorization", "X-Jwt", "X-Session", "X-Signature", "x-portkey-virtual-key", "X-Goog-Api-Key",
    "Helicone-Auth", "set-cookie",
]
# fmt: on


@pytest.mark.parametrize("name", HEADERS)
def test_keys_in_headers_of_other_names_stay(face: Face, upstream: Upstream, other: Upstream, name: str) -> None:
    parts = policy(other, models={"test-model": {"fallback": ["fast"]}})
    made = client(face, upstream, other, policy=parts)
    upstream.script = lambda seen, number: Reply(503, {"error": {"message": "no"}})
    for model in ("fast", "test-model"):
        chat(face, made, model=model, extra_headers={name: "sk-client"}, seed=1)
    assert upstream.seen[0].headers[name.lower()] == "sk-client"
    assert other.calls == 2 and not leaks(other, ("sk-client",))


def test_keys_in_the_query_stay(face: Face, upstream: Upstream, other: Upstream) -> None:
    parts = policy(other, models={"test-model": {"fallback": ["fast"]}})
    made = client(face, upstream, other, policy=parts)
    upstream.script = lambda seen, number: Reply(503, {"error": {"message": "no"}})
    for model in ("fast", "test-model"):
        said = face.chat(made, model=model, extra_query={"key": "sk-client"}, seed=1)
        noted = farthing.receipt(said)
        assert noted is not None and noted.notes[0] == 'extra_query was left out for upstream "other"'
    assert "key=sk-client" in upstream.seen[0].path
    assert other.calls == 2 and not leaks(other, ("sk-client",)) and "?" not in other.seen[0].path


@pytest.mark.parametrize("tier", ["fast", "test-model"])
def test_keys_in_the_query_of_a_routed_call_stay(face: Face, upstream: Upstream, other: Upstream, tier: str) -> None:
    route = {"models": ["auto"], "tiers": {"one": "fast", "two": "test-model"}, "by": lambda request: named[tier]}
    named = {"fast": "one", "test-model": "two"}
    made = client(face, upstream, other, policy=policy(other, route=route))
    face.chat(made, model="auto", extra_query={"key": "sk-client"})
    asked = other if tier == "fast" else upstream
    assert asked.calls == 1 and not leaks(other, ("sk-client",))
    assert tier == "fast" or "key=sk-client" in upstream.seen[0].path


def test_a_query_for_an_upstream_does_not_go_back_to_the_clients_own(
    face: Face, upstream: Upstream, other: Upstream
) -> None:
    aliases = {"fast": {"model": "real-model", "upstream": "other", "fallback": ["test-model"]}}
    other.script = lambda seen, number: Reply(503, {"error": {"message": "no"}})
    chat(face, client(face, upstream, other, policy=policy(other, aliases=aliases)), extra_query={"key": "sk-call"})
    assert upstream.calls == 1 and not leaks(upstream, ("sk-call",))


def test_a_key_for_an_upstream_does_not_go_back_to_the_clients_own(
    face: Face, upstream: Upstream, other: Upstream
) -> None:
    aliases = {"fast": {"model": "real-model", "upstream": "other", "fallback": ["test-model"]}}
    other.script = lambda seen, number: Reply(503, {"error": {"message": "no"}})
    made = client(face, upstream, other, policy=policy(other, aliases=aliases))
    chat(face, made, extra_headers={"Authorization": "Bearer sk-of-the-call", "x-trace": "7"})
    assert upstream.seen[0].headers["authorization"] == "Bearer sk-client"
    assert upstream.seen[0].headers["x-trace"] == "7"
    assert not leaks(other, ("sk-of-the-call",)) and not leaks(upstream, ("sk-of-the-call",))


def test_what_the_environment_says_is_the_clients(
    face: Face, upstream: Upstream, other: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_ADMIN_KEY"):
        monkeypatch.setenv(name, "sk-client")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "x-secret: sk-client")
    parts = policy(other)
    del parts["upstreams"]["other"]["api_key"]
    chat(face, client(face, upstream, other, policy=parts))
    assert "authorization" not in other.seen[0].headers and not leaks(other, ("sk-client",))


@pytest.mark.parametrize("use", ["plain", "stream", "parse", "responses", "embeddings"])
def test_from_an_azure_client(face: Face, upstream: Upstream, other: Upstream, use: str) -> None:
    kind = farthing.AsyncAzureOpenAI if face.is_async else farthing.AzureOpenAI
    made = kind(
        azure_endpoint=upstream.url,
        api_key="azure-client",
        api_version="2024-06-01",
        policy=policy(other),
        max_retries=0,
    )
    assert USES[use](face, made).startswith("other")
    assert other.seen[0].headers["authorization"] == "Bearer sk-other"
    assert other.seen[0].path in ("/v1/chat/completions", "/v1/responses", "/v1/embeddings")
    assert not leaks(other, ("azure-client", "api-version", "deployments"))
    face.chat(made, model="deployed")
    assert "/deployments/deployed/" in upstream.seen[0].path
    assert upstream.seen[0].headers["api-key"] == "azure-client"


def test_with_a_token_of_azures(face: Face, upstream: Upstream, other: Upstream) -> None:
    kind = farthing.AsyncAzureOpenAI if face.is_async else farthing.AzureOpenAI
    made = kind(
        azure_endpoint=upstream.url,
        azure_ad_token_provider=lambda: "azure-client",
        api_version="2024-06-01",
        policy=policy(other),
        max_retries=0,
    )
    assert chat(face, made).startswith("other") and not leaks(other, ("azure-client",))


def test_with_a_key_of_the_clients_that_changes(face: Face, upstream: Upstream, other: Upstream) -> None:
    async def later() -> str:
        return "sk-client"

    made = client(face, upstream, other, api_key=later if face.is_async else lambda: "sk-client")
    assert chat(face, made).startswith("other") and not leaks(other, ("sk-client",))
    face.chat(made)
    assert upstream.seen[0].headers["authorization"] == "Bearer sk-client"


def signing(face: Face, upstream: Upstream) -> Any:
    """A provider, as the SDK's Bedrock is one: it signs requests below what farthing sees."""
    provider = pytest.importorskip("openai._provider")

    def sign(request: Any) -> None:
        request.headers["authorization"] = "Bearer sk-client"

    async def sign_async(request: Any) -> None:
        sign(request)

    class Definition:
        name = "signing"

        def configure(self) -> Any:
            return provider._ProviderRuntime(
                "signing", upstream.url, prepare_request=sign, prepare_async_request=sign_async
            )

    return provider._create_provider(Definition())


def test_from_a_client_that_signs(face: Face, upstream: Upstream, other: Upstream) -> None:
    kind = farthing.AsyncOpenAI if face.is_async else farthing.OpenAI
    parts = policy(other)
    parts["aliases"]["back"] = {"model": "m", "upstream": "other", "fallback": ["test-model"]}
    made = kind(provider=signing(face, upstream), policy=parts, max_retries=0)
    for use in ("plain", "stream", "parse"):
        assert USES[use](face, made).startswith("other")
    assert face.chat(made).choices[0].message.content.startswith("pong")
    assert upstream.seen[0].headers["authorization"] == "Bearer sk-client"
    # The other way round nobody could sign it: not tried.
    other.script = lambda seen, number: Reply(503, {"error": {}})
    with pytest.raises(openai.InternalServerError):
        face.chat(made, model="back", seed=2)
    assert not leaks(other, ("sk-client",)) and upstream.calls == 1


def test_another_host_gets_no_key_by_a_redirect(face: Face, upstream: Upstream, other: Upstream) -> None:
    third = Upstream(lambda seen, number: answer(seen, "third"))
    other.script = lambda seen, number: Reply(307, b"", {"location": f"{third.url}/chat/completions"})
    parts = policy(other)
    parts["upstreams"]["other"]["headers"] = {"api-key": "sk-other", "x-portkey-api-key": "sk-other"}
    assert chat(face, client(face, upstream, other, policy=parts)) == "third"
    assert leaks(other, ("sk-other",)) and not leaks(third, ("sk-other", "sk-client"))
    third.close()


def test_the_clients_own_http_client_follows_none(face: Face, upstream: Upstream, other: Upstream) -> None:
    third = Upstream()
    other.script = lambda seen, number: Reply(307, b"", {"location": f"{third.url}/chat/completions"})
    http = (httpx.AsyncClient if face.is_async else httpx.Client)(follow_redirects=True)
    with pytest.raises(openai.APIStatusError):
        chat(face, client(face, upstream, other, http_client=http))
    assert third.calls == 0
    third.close()


def test_the_same_host_may_redirect(face: Face, upstream: Upstream, other: Upstream) -> None:
    def script(seen: Any, number: int) -> Reply:
        if number == 1:
            return Reply(307, b"", {"location": f"{other.url}/elsewhere/chat/completions"})
        return answer(seen, "other")

    other.script = script
    assert chat(face, client(face, upstream, other)) == "other"
    assert other.seen[1].headers["authorization"] == "Bearer sk-other"


def test_mocks_see_the_alias_resolved(face: Face, upstream: Upstream, other: Upstream) -> None:
    requests: list[Any] = []

    def handle(request: Any) -> Any:
        requests.append(request)
        return httpx.Response(200, json=json.loads(json.dumps(answer_body())))

    kind = httpx.AsyncClient if face.is_async else httpx.Client
    made = client(face, upstream, other, http_client=kind(transport=httpx.MockTransport(handle)))
    assert chat(face, made) == "mocked"
    (request,) = requests
    assert str(request.url) == f"{other.url}/chat/completions"
    assert json.loads(request.content)["model"] == "real-model"
    assert request.headers["authorization"] == "Bearer sk-other"


def answer_body() -> Any:
    from upstream import chat as body

    return body("mocked")


def test_the_key_of_the_cache_is_that_of_the_upstream(face: Face, upstream: Upstream, other: Upstream) -> None:
    parts = policy(other)
    first = client(face, upstream, other, policy=parts)
    chat(face, first)
    # Whoever asks the same upstream with its key gets the same answers, under whatever name and with whatever client.
    same = client(face, upstream, other, policy=parts, api_key="sk-another", organization=None)
    chat(face, same)
    assert other.calls == 1
    parts["aliases"]["quick"] = parts["aliases"]["fast"]
    # A policy of its own has a cache of its own; with another key in it, the entry is another's in the same cache.
    moved = {**parts, "upstreams": {"other": {**parts["upstreams"]["other"], "api_key": "sk-else"}}}
    del moved["aliases"]["quick"]
    chat(face, client(face, upstream, other, policy=moved))
    assert other.calls == 2


@pytest.mark.parametrize("where", ["env", "file"])
def test_where_a_key_is(
    face: Face, upstream: Upstream, other: Upstream, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "key").write_text("sk-kept\n")
    monkeypatch.setenv("OTHER_KEY", "sk-kept")
    place = {"env": "OTHER_KEY"} if where == "env" else {"file": str(tmp_path / "key")}
    parts = policy(other)
    parts["upstreams"]["other"].update(api_key=place, headers={"x-team": place})
    chat(face, client(face, upstream, other, policy=parts))
    assert (other.seen[0].headers["authorization"], other.seen[0].headers["x-team"]) == ("Bearer sk-kept", "sk-kept")


def test_a_file_with_a_new_key(
    face: Face, upstream: Upstream, other: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("farthing.destinations._POLL", 0.0)
    path = tmp_path / "key"
    path.write_text("sk-one")
    parts = policy(other)
    parts["upstreams"]["other"]["api_key"] = {"file": str(path)}
    made = client(face, upstream, other, policy=parts)
    chat(face, made)
    path.write_text("sk-second")
    chat(face, made)
    path.unlink()
    chat(face, made, temperature=1)
    # As it is for a moment while somebody writes it.
    path.write_text("")
    chat(face, made, temperature=2)
    keys = [seen.headers["authorization"] for seen in other.seen]
    assert keys == ["Bearer sk-one", *["Bearer sk-second"] * 3]


def test_a_key_that_a_function_gives(face: Face, upstream: Upstream, other: Upstream) -> None:
    given = iter(f"sk-{n}" for n in range(100))

    async def later() -> str:
        return next(given)

    parts = policy(other)
    parts["upstreams"]["other"]["api_key"] = later if face.is_async else lambda: next(given)
    made = client(face, upstream, other, policy=parts)
    chat(face, made)
    chat(face, made, temperature=1)
    assert [seen.headers["authorization"] for seen in other.seen] == ["Bearer sk-0", "Bearer sk-1"]
    # It says nothing of whose answers these are: what was stored under the last key is found with the next.
    chat(face, made)
    assert other.calls == 2


def test_a_function_that_gives_none(face: Face, upstream: Upstream, other: Upstream) -> None:
    def broken() -> str:
        raise RuntimeError("no vault")

    parts = policy(other)
    parts["upstreams"]["other"]["api_key"] = broken
    with pytest.raises(RuntimeError, match="no vault"):
        chat(face, client(face, upstream, other, policy=parts))
    parts["upstreams"]["other"]["api_key"] = lambda: 7
    with pytest.raises(PolicyError, match="gave no key: int"):
        chat(face, client(face, upstream, other, policy=parts))
    assert (upstream.calls, other.calls) == (0, 0)


def test_an_async_function_needs_an_async_client(upstream: Upstream, other: Upstream) -> None:
    async def later() -> str:
        return "sk-other"

    parts = policy(other)
    parts["upstreams"]["other"]["api_key"] = later
    face = Face(False)
    with pytest.raises(PolicyError, match="is async"):
        chat(face, client(face, upstream, other, policy=parts))


def test_the_upstreams_own_times_and_retries(face: Face, upstream: Upstream, other: Upstream) -> None:
    parts = policy(other)
    parts["upstreams"]["other"].update(max_retries=2, timeout=0.05)
    other.script = lambda seen, number: Reply(503, {"error": {}}, {"retry-after-ms": "1"})
    made = client(face, upstream, other, policy=parts, max_retries=0)
    with pytest.raises(openai.InternalServerError):
        chat(face, made)
    assert other.calls == 3 and other.seen[0].headers["x-stainless-read-timeout"] == "0.05"
    other.script = lambda seen, number: answer(seen, "late") if number > 6 else Reply(delay=30, body={})
    with pytest.raises(openai.APITimeoutError):
        chat(face, made)
    # What a call says itself wins.
    assert chat(face, made, timeout=60.0) == "late"


def test_a_model_belongs_to_an_upstream(face: Face, upstream: Upstream, other: Upstream) -> None:
    parts = policy(other, models={"llama": {"upstream": "other", "input": 1, "output": 2}})
    made = client(face, upstream, other, policy=parts)
    made_answer = face.chat(made, model="llama")
    receipt = farthing.receipt(made_answer)
    assert receipt is not None and [a.upstream for a in receipt.attempts] == ["other"]
    assert receipt.cost is not None and receipt.cost * 1_000_000 == 9 * 1 + 3 * 2
    last = farthing.receipt(face.chat(made))
    assert last is not None and last.attempts[0].upstream == "default"


@pytest.mark.parametrize("use", ["plain", "parse"])
def test_parameters_and_adaptation(face: Face, upstream: Upstream, other: Upstream, use: str) -> None:
    adapt = {
        "rename": {"max_tokens": "max_completion_tokens"},
        "roles": {"system": "developer"},
        "drop": ["logit_bias"],
    }
    alias = {"model": "o9", "upstream": "other", "parameters": {"temperature": 0, "top_p": 0.5}, "adapt": adapt}
    made = client(face, upstream, other, policy=policy(other, aliases={"fast": alias}))
    create = client_method(made, use)
    messages = [{"role": "system", "content": "brief"}, *MESSAGES]
    arguments = {"model": "fast", "messages": messages, "max_tokens": 5, "logit_bias": {"1": 1}, "top_p": 0.9}
    response = face.run(lambda: create(**arguments))
    sent = {name: value for name, value in other.seen[0].json.items() if name != "stream"}
    assert sent == {
        "model": "o9",
        "messages": [{"role": "developer", "content": "brief"}, *MESSAGES],
        "max_completion_tokens": 5,
        "temperature": 0,
        "top_p": 0.9,
    }
    assert farthing.receipt(response).notes == ("logit_bias was left out for fast",)  # type: ignore[union-attr]
    # As if the user had written it: the same answer is there for who does.
    written = {**sent, "model": "fast"}
    again = face.run(lambda: create(**written))
    assert other.calls == 1 and farthing.receipt(again).hit  # type: ignore[union-attr]


def client_method(client: Any, use: str) -> Any:
    return getattr(client.chat.completions, "create" if use == "plain" else use)


def test_both_layers_have_one_key(face: Face, upstream: Upstream, other: Upstream) -> None:
    alias = {"model": "gpt-5-mini", "upstream": "other", "parameters": {"temperature": 0}, "adapt": "auto"}
    made = client(face, upstream, other, policy=policy(other, aliases={"fast": alias}))
    for use in ("create", "parse", "create"):
        create = getattr(made.chat.completions, use)
        face.run(lambda create=create: create(model="fast", messages=MESSAGES, max_tokens=7))
    assert other.calls == 1
    assert other.seen[0].json["max_completion_tokens"] == 7 and "max_tokens" not in other.seen[0].json


def test_auto_knows_which_models(face: Face, upstream: Upstream, other: Upstream) -> None:
    names = {
        "o1": True,
        "o3-mini": True,
        "gpt-5": True,
        "gpt-5.1": True,
        "openai/o4-mini": True,
        "gpt-4o": False,
        "ox": False,
    }
    aliases = {f"a{i}": {"model": name, "upstream": "other", "adapt": "auto"} for i, name in enumerate(names)}
    made = client(face, upstream, other, policy=policy(other, aliases=aliases))
    for alias, renamed in zip(aliases, names.values(), strict=True):
        face.chat(made, model=alias, max_tokens=7)
        assert ("max_completion_tokens" in other.seen[-1].json) is renamed, other.seen[-1].json


def test_copies_and_wrapped_clients(face: Face, upstream: Upstream, other: Upstream) -> None:
    plain = face.client(upstream, plain=True, api_key="sk-client")
    wrapped = farthing.wrap(plain, policy=policy(other))
    assert chat(face, wrapped).startswith("other")
    assert chat(face, wrapped.with_options(timeout=9), temperature=1).startswith("other")
    assert not leaks(other, ("sk-client",))


def test_other_endpoints_go_there_too(face: Face, upstream: Upstream, other: Upstream) -> None:
    made = client(face, upstream, other)
    other.script = lambda seen, number: Reply(body={"id": "1", "object": "text_completion", "choices": []})
    face.run(lambda: made.completions.create(model="fast", prompt="ping"))
    assert other.seen[0].path == "/v1/completions" and other.seen[0].json["model"] == "real-model"
    assert other.seen[0].headers["authorization"] == "Bearer sk-other" and not leaks(other, ("sk-client",))


@pytest.mark.parametrize("use", ["plain", "parse"])
def test_the_clients_word_on_the_cache_holds(face: Face, upstream: Upstream, other: Upstream, use: str) -> None:
    made = client(face, upstream, other, default_headers={"x-farthing-cache": "off", "x-farthing-tag": "t"})
    for _ in range(2):
        USES[use](face, made)
    assert other.calls == 2 and not any("farthing" in name for name in other.seen[0].headers)
    assert set(made.savings().by_tag) == {"t"}


def test_secrets_are_not_shown(other: Upstream, tmp_path: Path) -> None:
    made = Policy.from_dict(policy(other))
    assert "sk-other" not in repr(made) and "sk-other" not in made.to_core() and "x-own" not in made.to_core()
    assert pickle.loads(pickle.dumps(made)) == made
    with pytest.raises(PolicyError) as caught:
        farthing.Upstream(base_url=other.url, api_key="sk-öther")
    assert "öther" not in str(caught.value)


def test_a_policy_without_upstreams_does_not_load_them() -> None:
    code = "import sys, farthing; farthing.OpenAI(api_key='none', policy={'aliases': {'a': 'b'}}); "
    code += "assert not [name for name in sys.modules if name.startswith('farthing.upstream')]"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_policy_is_shown_without_its_secrets(other: Upstream) -> None:
    parts = policy(other)
    parts["upstreams"]["more"] = {
        "base_url": "http://more/v1",
        "api_key": {"env": "MORE"},
        "headers": {"a": "sk-other"},
    }
    shown = json.dumps(Policy.from_dict(parts).to_show())
    assert "sk-other" not in shown and '{"env": "MORE"}' in shown and '"upstream": "other"' in shown


def toml(tmp_path: Path, text: str) -> Policy:
    path = tmp_path / "farthing.toml"
    path.write_text(text)
    return Policy.from_toml(path)


def test_a_file_has_no_secrets(tmp_path: Path) -> None:
    with pytest.raises(PolicyError) as caught:
        toml(tmp_path, '[upstreams.a]\nbase_url = "http://a/v1"\napi_key = "sk-written"')
    assert "upstreams.a.api_key is written out" in str(caught.value) and "sk-written" not in str(caught.value)
    assert '{ env = "NAME" }' in str(caught.value)
    with pytest.raises(PolicyError, match=r"upstreams\.a\.headers\.api-key is written out"):
        toml(tmp_path, '[upstreams.a]\nbase_url = "http://a/v1"\nheaders = { api-key = "sk-written" }')
    with pytest.raises(PolicyError, match="must have no user and password") as caught:
        toml(tmp_path, '[upstreams.a]\nbase_url = "http://me:sk-written@a/v1"')
    assert "sk-written" not in str(caught.value)


def test_everything_from_a_file(tmp_path: Path) -> None:
    made = toml(
        tmp_path,
        """
        [upstreams.near]
        base_url = "http://near/v1/"
        timeout = { connect = 1, read = 30.5 }
        max_retries = 1
        concurrency = 8
        requests_per_minute = 600
        tokens_per_minute = 90000
        headers = { X-Team = "blue" }
        [models."gpt-4.1"]
        upstream = "near"
        fallback = ["fast"]
        [aliases]
        plain = "gpt-4o"
        [aliases.fast]
        model = "gpt-4o-mini"
        upstream = "default"
        parameters = { temperature = 0.5, stop = ["x"] }
        adapt = { rename = { max_tokens = "max_completion_tokens" }, drop = ["logit_bias"] }
        fallback = ["plain"]
        [fallback]
        deadline = "1m"
        breaker = { failures = 0.25, minimum = 4 }
        hedge = { percentile = 90 }
        """,
    )
    near = made.upstreams["near"]
    assert (near.base_url, near.headers, near.max_retries) == ("http://near/v1", {"x-team": "blue"}, 1)
    assert near.timeout == farthing.Timeouts(connect=1, read=30.5) and near.concurrency == 8
    assert made.models["gpt-4.1"] == ModelPrice(upstream="near", fallback=["fast"])
    assert made.aliases["fast"] == Alias(
        model="gpt-4o-mini",
        upstream="default",
        parameters={"temperature": 0.5, "stop": ["x"]},
        adapt=Adapt(rename={"max_tokens": "max_completion_tokens"}, drop=["logit_bias"]),
        fallback=["plain"],
    )
    assert made.fallback == farthing.Fallback(
        deadline=60, breaker=farthing.Breaker(failures=0.25, minimum=4), hedge=farthing.Hedge(percentile=90)
    )
    assert pickle.loads(pickle.dumps(made)) == made and hash(made) == hash(pickle.loads(pickle.dumps(made)))


MISTAKES = {
    "upstreams.a must be a table": {"upstreams": {"a": "http://a"}},
    "missing key.*upstreams.a.base_url": {"upstreams": {"a": {}}},
    "upstreams.a.base_url must be an http": {"upstreams": {"a": {"base_url": "a/v1"}}},
    "must have no query": {"upstreams": {"a": {"base_url": "http://a/v1?x=1"}}},
    "must be an http or https URL": {"upstreams": {"a": {"base_url": "http://a b/v1"}}},
    "drop cannot leave out what a request is about": {"aliases": {"x": {"model": "m", "adapt": {"drop": ["model"]}}}},
    "rename cannot rename what a request is about": {
        "aliases": {"x": {"model": "m", "adapt": {"rename": {"prompt": "messages"}}}}
    },
    "cannot have this name.*default": {"upstreams": {"default": {"base_url": "http://a"}}},
    "must say one place": {"upstreams": {"a": {"base_url": "http://a", "api_key": {"env": "X", "file": "y"}}}},
    "api_key must be a key": {"upstreams": {"a": {"base_url": "http://a", "api_key": 7}}},
    "concurrency must be a whole number from 1": {"upstreams": {"a": {"base_url": "http://a", "concurrency": 0}}},
    "max_retries must be": {"upstreams": {"a": {"base_url": "http://a", "max_retries": -1}}},
    'did you mean "upstreams.a.timeout"': {"upstreams": {"a": {"base_url": "http://a", "timeouts": 1}}},
    "aliases.x.upstream is not among the upstreams in the policy: b": {
        "aliases": {"x": {"model": "m", "upstream": "b"}}
    },
    "models.m.upstream is not among the upstreams": {"models": {"m": {"upstream": "b"}}},
    "aliases.x.fallback names itself": {"aliases": {"x": {"model": "m", "fallback": ["x"]}}},
    "fallback names a model twice": {"aliases": {"x": {"model": "m", "fallback": ["y", "y"]}}},
    "must be a list of models": {"aliases": {"x": {"model": "m", "fallback": "y"}}},
    "aliases point to another alias": {"aliases": {"x": {"model": "y"}, "y": "m"}},
    "cannot set what a request is about": {"aliases": {"x": {"model": "m", "parameters": {"model": "n"}}}},
    "values that JSON has": {"aliases": {"x": {"model": "m", "parameters": {"seed": float("nan")}}}},
    "adapt must be one of auto": {"aliases": {"x": {"model": "m", "adapt": "auto-magic"}}},
    "missing key.*models.m.output": {"models": {"m": {"input": 1}}},
    "fallback.breaker.failures must be more than 0": {"fallback": {"breaker": {"failures": 0}}},
    "fallback.hedge.percentile must be": {"fallback": {"hedge": {"percentile": 101}}},
    "fallback.deadline must be more than 0": {"fallback": {"deadline": 0}},
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes(message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        Policy.from_dict(MISTAKES[message])


def test_a_key_in_a_url_is_not_shown() -> None:
    with pytest.raises(PolicyError) as caught:
        Policy.from_dict({"upstreams": {"a": {"base_url": "http://a/v1?key=sk-secret"}}})
    assert "sk-secret" not in str(caught.value)


def test_a_key_that_is_not_there(upstream: Upstream, other: Upstream, tmp_path: Path) -> None:
    parts = policy(other)
    parts["upstreams"]["other"]["api_key"] = {"env": "NOT_SET_ANYWHERE"}
    with pytest.raises(PolicyError, match='api_key of upstream "other" is not set in NOT_SET_ANYWHERE'):
        farthing.OpenAI(api_key="none", policy=parts)
    parts["upstreams"]["other"]["api_key"] = {"file": str(tmp_path / "none")}
    with pytest.raises(PolicyError, match="cannot read the api_key"):
        farthing.OpenAI(api_key="none", policy=parts)


def test_a_call_without_an_alias_is_as_before(face: Face, upstream: Upstream, other: Upstream, tmp_path: Path) -> None:
    """Its key does not change when the policy gets an upstream: what is in the file is found."""
    cache = {"path": str(tmp_path / "cache.db")}
    bare = face.client(upstream, policy={"cache": cache})
    face.chat(bare, model="plain")
    bare.cache.flush()
    face.chat(face.client(upstream, policy=policy(other, cache=cache)), model="plain")
    assert (upstream.calls, other.calls) == (1, 0)
