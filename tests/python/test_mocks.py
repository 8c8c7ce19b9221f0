"""How users mock: each style with the plain SDK and with farthing, and the same comes of it.

A mocked answer is numbered, so that an answer out of the cache would be seen; and when the mock is gone, nothing that
it said may be left. A style that does not work with the installed SDK either is skipped, with what the SDK did.
"""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import openai
import pytest
from conftest import MESSAGES, Face
from openai import _base_client
from openai.resources import chat as sdk_chat
from openai.resources.chat import completions as sdk_completions
from openai.types.chat import ChatCompletion
from test_process import run
from upstream import Upstream, chat

import farthing
from farthing.routes import HTTPX

# What is mocked goes the SDK's way in any case.
pytestmark = pytest.mark.once

ASK = {"model": "test-model", "messages": MESSAGES}


class Stage:
    """Where a style is played: with whose clients, and what its mock was asked."""

    def __init__(self, face: Face, upstream: Upstream, *, plain: bool, folder: Path, fixtures: Any) -> None:
        self.face = face
        self.upstream = upstream
        self.plain = plain
        self.folder = folder
        self.fixtures = fixtures
        self.patch: pytest.MonkeyPatch = fixtures.getfixturevalue("monkeypatch")
        self.seen = 0
        self.given: list[int] = []
        self.client: Any = None

    def make(self, **options: Any) -> None:
        self.client = self.face.client(self.upstream, plain=self.plain, **options)

    @property
    def url(self) -> str:
        return f"{self.upstream.url}/chat/completions"

    @property
    def sdk(self) -> Any:
        """The SDK's own class."""
        return openai.AsyncOpenAI if self.face.is_async else openai.OpenAI

    @property
    def ours(self) -> Any:
        """The class that the user imports."""
        module: Any = openai if self.plain else farthing
        return module.AsyncOpenAI if self.face.is_async else module.OpenAI

    @property
    def base(self) -> Any:
        """The class above the SDK's."""
        return _base_client.AsyncAPIClient if self.face.is_async else _base_client.SyncAPIClient

    def of(self, module: Any, name: str) -> Any:
        return getattr(module, f"Async{name}" if self.face.is_async else name)

    def body(self) -> Any:
        self.seen += 1
        return chat(f"mocked {self.seen}")

    def said(self, *given: Any, **_: Any) -> Any:
        self.given.append(len(given))
        return ChatCompletion.model_validate(self.body())

    def http(self, library: Any) -> Callable[..., Any]:
        """A handler of the http library's, sync or async."""

        def handle(*arguments: Any, **_: Any) -> Any:
            return library.Response(200, json=self.body(), request=arguments[-1])

        return self.awaited(handle)

    def awaited(self, function: Callable[..., Any]) -> Callable[..., Any]:
        if not self.face.is_async:
            return function

        async def wait(*arguments: Any, **keywords: Any) -> Any:
            return function(*arguments, **keywords)

        return wait


Style = Callable[[Stage], "contextlib.AbstractContextManager[None]"]
STYLES: dict[str, Style] = {}


def style(function: Callable[[Stage], Iterator[None]]) -> Callable[[Stage], Iterator[None]]:
    STYLES[function.__name__] = contextlib.contextmanager(function)
    return function


def legacy() -> Any:
    return pytest.importorskip("httpx")


def client_with(stage: Stage, library: Any, **options: Any) -> Any:
    return stage.of(library, "Client")(**options)


# Libraries that mock HTTP.


def respx_answers(stage: Stage, router: Any, library: Any) -> None:
    router.post(stage.url).mock(side_effect=lambda request: library.Response(200, json=stage.body()))


@style
def respx_and_the_sdks_client(stage: Stage) -> Iterator[None]:
    respx = pytest.importorskip("respx")
    stage.make()
    with respx.mock(assert_all_called=False) as router:
        respx_answers(stage, router, legacy())
        yield


@style
def respx_and_a_client_of_httpx(stage: Stage) -> Iterator[None]:
    respx = pytest.importorskip("respx")
    stage.make(http_client=client_with(stage, legacy()))
    with respx.mock(assert_all_called=False) as router:
        respx_answers(stage, router, legacy())
        yield


@style
def respx_for_httpx2(stage: Stage) -> Iterator[None]:
    pytest.importorskip("pytest_httpx2")
    respx = pytest.importorskip("respx")
    stage.make()
    with respx.mock(using="httpcore2", assert_all_called=False) as router:
        respx_answers(stage, router, legacy())
        yield


@style
def respx_for_httpx2_and_a_client_of_ones_own(stage: Stage) -> Iterator[None]:
    pytest.importorskip("pytest_httpx2")
    respx = pytest.importorskip("respx")
    stage.make(http_client=client_with(stage, HTTPX))
    with respx.mock(using="httpcore2", assert_all_called=False) as router:
        respx_answers(stage, router, legacy())
        yield


@style
def a_respx_transport(stage: Stage) -> Iterator[None]:
    respx = pytest.importorskip("respx")
    router = respx.Router(assert_all_called=False)
    respx_answers(stage, router, legacy())
    transport = legacy().MockTransport(router.async_handler if stage.face.is_async else router.handler)
    stage.make(http_client=client_with(stage, legacy(), transport=transport))
    yield


@contextlib.contextmanager
def pytest_httpx_patches(stage: Stage) -> Iterator[None]:
    """The fixture comes once in a test, and is needed twice: its patches are put in place by hand."""
    pytest.importorskip("pytest_httpx")
    node = stage.fixtures.node
    if not hasattr(node, "patches"):
        node.mocked = stage.fixtures.getfixturevalue("httpx_mock")
        sync, asynchronous = legacy().HTTPTransport, legacy().AsyncHTTPTransport
        known = [(sync, "handle_request"), (asynchronous, "handle_async_request")]
        node.patches = [(kind, name, vars(kind)[name]) for kind, name in known]
        stage.patch.undo()
    node.mocked.reset()
    answers = lambda request: legacy().Response(200, json=stage.body())  # noqa: E731
    node.mocked.add_callback(answers, is_reusable=True, is_optional=True)
    with contextlib.ExitStack() as stack:
        for patch in node.patches:
            stack.enter_context(mock.patch.object(*patch))
        yield


@style
def pytest_httpx_and_the_sdks_client(stage: Stage) -> Iterator[None]:
    stage.make()
    with pytest_httpx_patches(stage):
        yield


@style
def pytest_httpx_and_a_client_of_httpx(stage: Stage) -> Iterator[None]:
    stage.make(http_client=client_with(stage, legacy()))
    with pytest_httpx_patches(stage):
        yield


def cassette(stage: Stage) -> Iterator[None]:
    """The second of two equal calls is played from what the first left."""
    vcr = pytest.importorskip("vcr")
    tape = str(stage.folder / "tape.yaml")
    with vcr.use_cassette(tape, record_mode="new_episodes", allow_playback_repeats=True) as it:
        yield
        stage.seen = len(it.requests) + it.play_count


@style
def vcr_records(stage: Stage) -> Iterator[None]:
    stage.make()
    yield from cassette(stage)


@style
def vcr_records_a_client_of_ones_own(stage: Stage) -> Iterator[None]:
    stage.make(http_client=client_with(stage, HTTPX))
    yield from cassette(stage)


@style
def vcr_records_a_client_of_httpx(stage: Stage) -> Iterator[None]:
    stage.make(http_client=client_with(stage, legacy()))
    yield from cassette(stage)


@style
def vcr_records_aiohttp(stage: Stage) -> Iterator[None]:
    pytest.importorskip("aiohttp")
    if not stage.face.is_async:
        pytest.skip("aiohttp is async")
    stage.make(http_client=openai.DefaultAioHttpClient())
    yield from cassette(stage)
    stage.face.run(stage.client.close)


@style
def vcr_plays(stage: Stage) -> Iterator[None]:
    vcr = pytest.importorskip("vcr")
    tape = str(stage.folder / "tape.yaml")
    with vcr.use_cassette(tape):
        stage.face.chat(stage.face.client(stage.upstream, plain=True))
    stage.upstream.seen.clear()
    stage.make()
    with vcr.use_cassette(tape, record_mode="none", allow_playback_repeats=True) as it:
        yield
        stage.seen = it.play_count


# The http library's own means.


@style
def a_mock_transport(stage: Stage) -> Iterator[None]:
    transport = HTTPX.MockTransport(stage.http(HTTPX))
    stage.make(http_client=client_with(stage, HTTPX, transport=transport))
    yield


@style
def a_mock_transport_of_httpx(stage: Stage) -> Iterator[None]:
    transport = legacy().MockTransport(stage.http(legacy()))
    stage.make(http_client=client_with(stage, legacy(), transport=transport))
    yield


@style
def a_mock_transport_in_the_sdks_default_client(stage: Stage) -> Iterator[None]:
    kind: Any = openai.DefaultAsyncHttpxClient if stage.face.is_async else openai.DefaultHttpxClient
    stage.make(http_client=kind(transport=HTTPX.MockTransport(stage.http(HTTPX))))
    yield


@style
def a_mounted_mock(stage: Stage) -> Iterator[None]:
    mounts = {"all://": HTTPX.MockTransport(stage.http(HTTPX))}
    stage.make(http_client=client_with(stage, HTTPX, mounts=mounts))
    yield


@style
def an_application_in_the_transport(stage: Stage) -> Iterator[None]:
    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        body = json.dumps(stage.body()).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": body})

    def wsgi(environment: Any, start: Any) -> Any:
        start("200 OK", [("content-type", "application/json")])
        return [json.dumps(stage.body()).encode()]

    transport = HTTPX.ASGITransport(app=asgi) if stage.face.is_async else HTTPX.WSGITransport(app=wsgi)
    stage.make(http_client=client_with(stage, HTTPX, transport=transport))
    yield


@style
def a_transport_class_of_ones_own(stage: Stage) -> Iterator[None]:
    base = HTTPX.AsyncBaseTransport if stage.face.is_async else HTTPX.BaseTransport
    name = "handle_async_request" if stage.face.is_async else "handle_request"
    kind = type("Fake", (base,), {name: stage.http(HTTPX)})
    stage.make(http_client=client_with(stage, HTTPX, transport=kind()))
    yield


@style
def a_stock_transport_overridden(stage: Stage) -> Iterator[None]:
    base = stage.of(HTTPX, "HTTPTransport")
    name = "handle_async_request" if stage.face.is_async else "handle_request"
    kind = type("Fake", (base,), {name: stage.http(HTTPX)})
    stage.make(http_client=client_with(stage, HTTPX, transport=kind()))
    yield


@style
def the_transport_class_patched(stage: Stage) -> Iterator[None]:
    stage.make()
    name = "handle_async_request" if stage.face.is_async else "handle_request"
    with mock.patch.object(stage.of(HTTPX, "HTTPTransport"), name, stage.http(HTTPX)):
        yield


@style
def the_clients_transport_patched(stage: Stage) -> Iterator[None]:
    stage.make()
    name = "handle_async_request" if stage.face.is_async else "handle_request"
    with mock.patch.object(stage.client._client._transport, name, stage.http(HTTPX)):
        yield


@style
def the_clients_transport_replaced(stage: Stage) -> Iterator[None]:
    stage.make()
    with mock.patch.object(stage.client._client, "_transport", HTTPX.MockTransport(stage.http(HTTPX))):
        yield


@style
def send_of_the_http_class(stage: Stage) -> Iterator[None]:
    stage.make()
    handle = stage.http(HTTPX)

    def send(self: Any, request: Any, **_: Any) -> Any:
        return handle(request)

    with mock.patch.object(stage.of(HTTPX, "Client"), "send", send):
        yield


@style
def send_of_the_http_client(stage: Stage) -> Iterator[None]:
    stage.make()
    with mock.patch.object(stage.client._client, "send", stage.http(HTTPX)):
        yield


@style
def the_clients_http_client_replaced(stage: Stage) -> Iterator[None]:
    stage.make()
    fake = client_with(stage, HTTPX, transport=HTTPX.MockTransport(stage.http(HTTPX)))
    with mock.patch.object(stage.client, "_client", fake):
        yield


# The SDK's methods.


def patched(stage: Stage, owner: Callable[[Stage], Any], name: str) -> Iterator[None]:
    stage.make()
    with mock.patch.object(owner(stage), name, stage.awaited(stage.said)):
        yield


PATCHED: dict[str, tuple[Callable[[Stage], Any], str]] = {
    "create_of_the_client": (lambda stage: stage.client.chat.completions, "create"),
    "create_of_the_class": (lambda stage: stage.of(sdk_completions, "Completions"), "create"),
    "post_of_the_client": (lambda stage: stage.client, "post"),
    "post_of_the_sdks_class": (lambda stage: stage.sdk, "post"),
    "post_of_the_class": (lambda stage: stage.ours, "post"),
    "post_of_the_base_class": (lambda stage: stage.base, "post"),
    "request_of_the_client": (lambda stage: stage.client, "request"),
    "request_of_the_sdks_class": (lambda stage: stage.sdk, "request"),
    "request_of_the_class": (lambda stage: stage.ours, "request"),
    "post_of_the_resource": (lambda stage: stage.client.chat.completions, "_post"),
}
"""Whose attribute a mock is put in place of."""

for _name, (_owner, _attribute) in PATCHED.items():
    STYLES[_name] = contextlib.contextmanager(functools.partial(patched, owner=_owner, name=_attribute))


@style
def create_of_the_class_by_its_path(stage: Stage) -> Iterator[None]:
    stage.make()
    kind = "AsyncCompletions" if stage.face.is_async else "Completions"
    with mock.patch(f"openai.resources.chat.completions.{kind}.create") as create:
        create.side_effect = stage.awaited(stage.said)
        yield


@style
def create_of_the_class_by_its_other_path(stage: Stage) -> Iterator[None]:
    stage.make()
    kind = "AsyncCompletions" if stage.face.is_async else "Completions"
    with mock.patch(f"openai.resources.chat.{kind}.create", autospec=True) as create:
        create.side_effect = stage.awaited(stage.said)
        yield


@style
def a_resource_of_the_client(stage: Stage) -> Iterator[None]:
    stage.make()
    fake = mock.Mock()
    fake.create = stage.awaited(stage.said)
    with mock.patch.object(stage.client.chat, "completions", fake):
        yield


@style
def chat_of_the_client(stage: Stage) -> Iterator[None]:
    stage.make()
    fake = mock.Mock()
    fake.completions.create = stage.awaited(stage.said)
    with mock.patch.object(stage.client, "chat", fake):
        yield


@style
def chat_of_the_sdks_class(stage: Stage) -> Iterator[None]:
    stage.make()
    fake = mock.Mock()
    fake.completions.create = stage.awaited(stage.said)
    with mock.patch.object(stage.sdk, "chat", new_callable=mock.PropertyMock, return_value=fake):
        yield


@style
def completions_of_the_sdks_class(stage: Stage) -> Iterator[None]:
    stage.make()
    fake = mock.Mock()
    fake.create = stage.awaited(stage.said)
    kind = stage.of(sdk_chat, "Chat")
    with mock.patch.object(kind, "completions", new_callable=mock.PropertyMock, return_value=fake):
        yield


@style
def the_class_itself(stage: Stage) -> Iterator[None]:
    """Where the code under test makes the client."""
    module = openai if stage.plain else farthing
    with mock.patch.object(module, stage.ours.__name__) as kind:
        kind.return_value.chat.completions.create = stage.awaited(stage.said)
        stage.client = stage.of(module, "OpenAI")(api_key="k")
        yield


@style
def an_autospecced_client(stage: Stage) -> Iterator[None]:
    stage.client = mock.create_autospec(stage.ours, instance=True)
    stage.client.chat = mock.Mock()
    assert isinstance(stage.client, stage.sdk)
    stage.client.chat.completions.create = stage.awaited(stage.said)
    yield


DIFFERS = {
    ("a_stock_transport_overridden", False): "it may as well retry or log and send: README, Limits",
    ("a_stock_transport_overridden", True): "it may as well retry or log and send: README, Limits",
    ("chat_of_the_sdks_class", True): "a property on the class does not reach a client that was used before",
    ("completions_of_the_sdks_class", True): "a property on the class does not reach a client that was used before",
}


def play(stage: Stage, style: Style, *, warm: bool) -> dict[str, Any]:
    def say() -> Any:
        try:
            made = stage.face.chat(stage.client)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return made.choices[0].message.content

    stage.upstream.seen.clear()
    heard: dict[str, Any] = {}
    make = stage.make
    if warm:

        def made_and_asked(**options: Any) -> None:
            make(**options)
            heard["before"] = say()
            stage.seen = 0

        stage.make = made_and_asked  # type: ignore[method-assign]
    with style(stage):
        heard["during"] = [say(), say()]
    heard["mock's calls"] = stage.seen
    heard["positional arguments"] = list(stage.given)
    heard["upstream's calls"] = stage.upstream.calls
    heard["still mocked"] = str(say()).startswith("mocked")
    return heard


@pytest.mark.parametrize("warm", [False, True], ids=["new", "warm"])
@pytest.mark.parametrize("name", STYLES)
def test_a_style_of_mocking(
    face: Face, upstream: Upstream, tmp_path: Path, request: pytest.FixtureRequest, name: str, warm: bool
) -> None:
    heard = []
    for plain in (True, False):
        folder = tmp_path / str(plain)
        folder.mkdir()
        stage = Stage(face, upstream, plain=plain, folder=folder, fixtures=request)
        heard.append(play(stage, STYLES[name], warm=warm))
    theirs, ours = heard
    if theirs["mock's calls"] != 2:
        pytest.skip(f"does not work with openai {openai.__version__} either: {theirs}")
    why = DIFFERS.get((name, warm))
    if why is not None:
        assert ours != theirs, "no difference any more"
        pytest.xfail(why)
    assert ours == theirs


def test_a_patch_that_was_there_before_farthing(upstream: Upstream) -> None:
    """A recorder around the test in which farthing is first used: it sees the calls, and what it says is not kept."""
    out = run(
        upstream,
        """
        for name in [n for n in sys.modules if n.startswith("farthing")]: del sys.modules[name]
        from unittest import mock
        from openai import _base_client
        httpx = getattr(_base_client, "httpx2", None) or _base_client.httpx
        real, seen = httpx.HTTPTransport.handle_request, []
        def spy(self, request):
            seen.append(request)
            return real(self, request)
        with mock.patch.object(httpx.HTTPTransport, "handle_request", spy):
            import farthing
            client = farthing.OpenAI(base_url=URL, api_key="k")
            ask(client), ask(client)
        print(len(seen), ask(client).choices[0].message.content, farthing.receipt(ask(client)).outcome)
        """,
    )
    assert out == "2 pong 3 hit"


# The SDK's own log.


def test_the_sdks_log_shows_what_left_the_machine(face: Face, upstream: Upstream) -> None:
    """As `OPENAI_LOG=debug` has it: a line for each call that was sent, none for a hit, the key in none of them."""
    out = run(
        upstream,
        f"""
        def ask_twice(client):
            for _ in range(2):
                made = client.chat.completions.create(model="m", messages=MESSAGES, max_tokens=4)
                if {face.is_async}: loop.run_until_complete(made)
        import io, logging
        loop = asyncio.new_event_loop()
        for module in (openai, farthing):
            log = io.StringIO()
            logging.getLogger().handlers = [logging.StreamHandler(log)]
            kind = getattr(module, "AsyncOpenAI" if {face.is_async} else "OpenAI")
            ask_twice(kind(base_url=URL, api_key="sk-secret"))
            said = log.getvalue()
            print(said.count("Sending HTTP Request: POST"), said.count("200 OK"), "sk-secret" in said)
        """,
        OPENAI_LOG="debug",
    )
    plain, ours = out.splitlines()
    counts = [int(count) for count in plain.split()[:2]]
    assert counts[0] == 2
    assert ours == f"{counts[0] // 2} {counts[1] // 2} False"
    assert upstream.calls == 3
