"""The policy's file is read again: on demand, and when it has changed."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from conftest import Face
from upstream import Reply, Seen, Upstream, answer

import farthing
from farthing import FarthingWarning, PolicyError

_numbers = iter(range(10**9))


@pytest.fixture
def other() -> Iterator[Upstream]:
    server = Upstream(lambda seen, number: answer(seen, "other"))
    yield server
    server.close()


class File:
    def __init__(self, path: Path) -> None:
        self.path = path
        self._cache = f'[cache]\nname = "reload-{next(_numbers)}"\n'
        self._written = 0

    def write(self, text: str = "", *, cache: str | None = None) -> None:
        self.path.write_text((self._cache if cache is None else cache) + text)
        # Two edits within one tick of the file system's clock, and of the same size.
        self._written += 1
        os.utime(self.path, (self._written, self._written))


@pytest.fixture
def file(tmp_path: Path) -> File:
    made = File(tmp_path / "farthing.toml")
    made.write()
    return made


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("farthing.session._POLL", 0.0)


def to(other: Upstream) -> str:
    return f'[upstreams.other]\nbase_url = "{other.url}"\n[aliases.fast]\nmodel = "m"\nupstream = "other"\n'


def said(face: Face, client: Any, **arguments: Any) -> str:
    return str(face.chat(client, **arguments).choices[0].message.content)


def test_reload(face: Face, upstream: Upstream, other: Upstream, file: File) -> None:
    upstream.script = lambda seen, number: answer(seen, "own")
    client = face.client(upstream, policy=str(file.path))
    copy = client.with_options(timeout=9)
    assert said(face, client, model="fast") == "own"
    file.write(to(other))
    assert said(face, client, model="fast") == "own"
    client.reload()
    assert said(face, client, model="fast") == said(face, copy, model="fast") == "other"
    assert client.policy.upstreams["other"].base_url == other.url
    # Answers in memory stay where the cache is the same.
    assert said(face, client) == "own"
    calls = upstream.calls
    file.write()
    client.reload()
    assert said(face, client) == said(face, client, model="fast") == "own" and upstream.calls == calls
    file.write(cache='[cache]\nname = "another"\n')
    client.reload()
    said(face, client)
    assert upstream.calls == calls + 1


def test_a_mistake_keeps_the_running_policy(face: Face, upstream: Upstream, other: Upstream, file: File) -> None:
    file.write(to(other))
    client = face.client(upstream, policy=str(file.path))
    before = client.policy
    for text, message in (
        ("[cach]\n", "unknown key"),
        ("cache = \n", "invalid TOML"),
        ('[upstreams.other]\nbase_url = "http://a"\napi_key = { env = "NOT_SET" }\n', "is not set in NOT_SET"),
    ):
        file.write(text)
        with pytest.raises(PolicyError, match=message):
            client.reload()
        assert client.policy is before and said(face, client, model="fast") == "other"
    file.path.unlink()
    with pytest.raises(PolicyError, match="cannot read"):
        client.reload()
    assert client.policy is before


def test_a_policy_that_is_no_file(upstream: Upstream) -> None:
    client = Face(False).client(upstream, policy={"cache": False})
    with pytest.raises(PolicyError, match="was not read from a file"):
        client.reload()
    with pytest.raises(PolicyError, match="needs a policy in a file"):
        farthing.OpenAI(api_key="none", reload=True)


def test_on_change(face: Face, upstream: Upstream, other: Upstream, file: File) -> None:
    upstream.script = lambda seen, number: answer(seen, "own")
    client = face.client(upstream, policy=str(file.path), reload=True)
    assert said(face, client, model="fast") == "own"
    file.write(to(other))
    assert said(face, client, model="fast") == "other"
    stream = face.chat(client, model="fast", stream=True, seed=1)
    face.items(stream)
    # On the SDK's own way as well.
    file.write()
    parse = client.chat.completions.parse
    made = face.run(lambda: parse(model="fast", messages=[{"role": "user", "content": "?"}]))
    assert made.choices[0].message.content == "own"


def test_from_the_environment(
    face: Face, upstream: Upstream, other: Upstream, file: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FARTHING_POLICY", str(file.path))
    client = farthing.wrap(face.client(upstream, plain=True), reload=True)
    said(face, client)
    file.write(to(other))
    assert said(face, client, model="fast") == "other"


def test_a_mistake_is_warned_about_once(face: Face, upstream: Upstream, other: Upstream, file: File) -> None:
    file.write(to(other))
    client = face.client(upstream, policy=str(file.path), reload=True)
    file.write("[cach]\n")
    with pytest.warns(FarthingWarning, match=r"(?s)the policy stays as it was: unknown key.*did you mean"):
        assert said(face, client, model="fast") == "other"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert said(face, client, model="fast", seed=1) == "other"
        # Editors replace files: for a moment there is none.
        file.path.unlink()
        assert said(face, client, model="fast", seed=2) == "other"
        file.write()
        assert said(face, client, model="fast") != "other"


def test_without_being_asked_nothing_changes(face: Face, upstream: Upstream, other: Upstream, file: File) -> None:
    client = face.client(upstream, policy=str(file.path))
    said(face, client)
    file.write(to(other))
    assert said(face, client, model="fast") != "other" and other.calls == 0


def test_calls_in_flight_end_with_what_they_started_with(
    face: Face, upstream: Upstream, other: Upstream, file: File
) -> None:
    arrived, changed = threading.Event(), threading.Event()

    def script(seen: Seen, number: int) -> Reply:
        arrived.set()
        assert changed.wait(20)
        return answer(seen, "other")

    other.script = script
    file.write(to(other))
    client = face.client(upstream, policy=str(file.path))

    def change() -> None:
        assert arrived.wait(20)
        file.write(to(upstream))
        client.reload()
        changed.set()

    thread = threading.Thread(target=change)
    thread.start()
    assert said(face, client, model="fast") == "other"
    thread.join()
    assert said(face, client, model="fast", seed=1).startswith("pong")


def test_in_the_middle_of_a_first_call(
    face: Face, upstream: Upstream, other: Upstream, file: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call is of one policy, and so is what a client keeps of it, also if another one comes in the middle."""
    elsewhere = Upstream(lambda seen, number: answer(seen, "elsewhere"))
    file.write(to(other))
    client = face.client(upstream, policy=str(file.path))
    from farthing import places

    plain, reloads = places.owner_of, iter([True])

    def owner_of(*arguments: Any) -> Any:
        if next(reloads, False):
            file.write(to(elsewhere).replace('"m"', '"m-2"'))
            client.reload()
        return plain(*arguments)

    monkeypatch.setattr(places, "owner_of", owner_of)
    # Which one is another question: the SDK's own way looks again.
    assert said(face, client, model="fast", seed=1) in ("other", "elsewhere")
    assert said(face, client, model="fast", seed=2) == "elsewhere"
    assert {seen.json["model"] for seen in other.seen} <= {"m"}
    assert {seen.json["model"] for seen in elsewhere.seen} == {"m-2"}
    elsewhere.close()


def test_many_threads(upstream: Upstream, other: Upstream, file: File) -> None:
    """Each answer is of the one policy or the other, whoever reads the file meanwhile."""
    upstream.script = lambda seen, number: answer(seen, "own")
    face = Face(False)
    client = face.client(upstream, policy=str(file.path), reload=True)
    seen: list[str] = []
    failed: list[BaseException] = []
    stop = threading.Event()

    def call(number: int) -> None:
        seed = number * 100_000
        while not stop.is_set():
            seed += 1
            try:
                seen.append(said(face, client, model="fast", seed=seed))
            except openai.OpenAIError as error:
                failed.append(error)

    threads = [threading.Thread(target=call, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for number in range(20):
        file.write(to(other) if number % 2 == 0 else "")
        client.reload()
    stop.set()
    for thread in threads:
        thread.join()
    assert not failed and set(seen) <= {"own", "other"}
