"""Several on one cache file: policies, clients, processes; what one of them does, and what the others see of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import MESSAGES, Face
from test_disk import cli, outcome, policy, report, sql, wait_until
from test_process import HERE, PRELUDE, run, unix
from upstream import Upstream, answer

import farthing

# What the SDK's way of sending has nothing to do with.
pytestmark = pytest.mark.once


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "answers.db"


# Policies.


@pytest.mark.parametrize("stream", [False, True])
def test_who_wants_determinism_gets_it(face: Face, upstream: Upstream, path: Path, stream: bool) -> None:
    asked = [{"temperature": 1.0}, {"temperature": 0}, {"seed": 3}]
    lax = face.client(upstream, policy=policy(path))
    for more in asked:
        face.chat(lax, **more)
    lax.cache.flush()
    strict = face.client(upstream, policy=policy(path, deterministic_only=True))
    before = upstream.calls
    for more in asked:
        face.items(face.chat(strict, stream=True, **more)) if stream else face.chat(strict, **more)
    assert upstream.calls == before + 1
    assert strict.savings().hits == 2


def test_a_call_may_want_an_answer_to_live_longer_than_the_policy_says(
    face: Face, upstream: Upstream, path: Path
) -> None:
    with farthing.options(ttl="1h"):
        client = face.client(upstream, policy=policy(path, ttl=0.3))
        face.chat(client, seed=1)
    face.chat(client, seed=2)
    client.cache.flush()
    time.sleep(0.4)
    again = face.client(upstream, policy=policy(path, ttl=0.3))
    assert [outcome(face.chat(again, seed=seed)) for seed in (1, 2)] == ["hit", "miss"]


def test_a_renewed_answer_is_taken_from_the_file(face: Face, upstream: Upstream, path: Path) -> None:
    one, two = (face.client(upstream, policy=policy(path)) for _ in range(2))
    face.chat(one)
    time.sleep(0.5)
    with farthing.options(cache="refresh"):
        face.chat(two)
    two.cache.flush()
    with farthing.options(ttl=0.45):
        made = face.chat(one)
    assert outcome(made) == "hit"
    assert made.choices[0].message.content == "pong 2"


def test_each_file_has_its_own_book(upstream: Upstream, tmp_path: Path) -> None:
    first, second = tmp_path / "first.db", tmp_path / "second.db"
    client = farthing.OpenAI(base_url=upstream.url, api_key="k", policy=policy(first))
    copy = client.with_options(policy=policy(second))
    for number in range(5):
        client.chat.completions.create(model="test-model", messages=MESSAGES, seed=number)
        if number < 2:
            copy.chat.completions.create(model="test-model", messages=MESSAGES, seed=number)
    client.cache.flush(), copy.cache.flush()
    assert (report(first).calls, report(second).calls, client.savings().calls) == (5, 2, 7)


def test_one_fault_is_counted_once(upstream: Upstream, path: Path) -> None:
    path.write_bytes(b"no database " * 1000)
    settings = policy(path)
    with pytest.warns(farthing.FarthingWarning, match="corrupt"):
        clients = [farthing.OpenAI(base_url=upstream.url, api_key="k", policy=settings) for _ in range(10)]
    for number, client in enumerate(clients):
        client.chat.completions.create(model="test-model", messages=MESSAGES, seed=number)
    clients[0].cache.flush()
    assert report(path).faults == {"cache file: corrupt": 1}


def test_the_strict_are_told_as_long_as_it_goes_on(upstream: Upstream, path: Path) -> None:
    sql(path, "CREATE TABLE users (name)")
    settings = {**policy(path), "strict": True}
    for _ in range(3):
        with pytest.raises(farthing.CacheError, match="not farthing's"):
            farthing.OpenAI(base_url=upstream.url, api_key="k", policy=settings)


@unix
def test_a_strangers_database_keeps_its_mode(upstream: Upstream, path: Path) -> None:
    sql(path, "CREATE TABLE users (name)")
    path.chmod(0o664)
    with pytest.warns(farthing.FarthingWarning, match="left alone"):
        farthing.OpenAI(base_url=upstream.url, api_key="k", policy=policy(path))
    assert path.stat().st_mode & 0o777 == 0o664


def test_what_is_large_does_not_push_out_the_rest(upstream: Upstream, path: Path) -> None:
    def script(seen: Any, number: int) -> Any:
        return answer(seen, os.urandom(1_000_000 if seen.json["seed"] == -1 else 1500).hex())

    upstream.script = script
    client = farthing.OpenAI(base_url=upstream.url, api_key="k", policy=policy(path, max_disk_bytes="2MiB"))
    for seed in [*range(150), -1, 150]:
        client.chat.completions.create(model="test-model", messages=MESSAGES, seed=seed)
    client.cache.flush()
    assert client.cache.stats()["disk_entries"] == 151


@pytest.mark.parametrize("length", [200, 100_000])
def test_eviction_takes_what_is_old_and_little_more(upstream: Upstream, path: Path, length: int) -> None:
    upstream.script = lambda seen, number: answer(seen, os.urandom(length).hex())
    client = farthing.OpenAI(base_url=upstream.url, api_key="k", policy=policy(path, max_disk_bytes="2MiB"))
    ask = client.chat.completions.create
    entries, seed = [], 0
    for _ in range(6):
        for _ in range(800 if length == 200 else 8):
            seed += 1
            ask(model="test-model", messages=MESSAGES, seed=seed)
        client.cache.flush(), client.cache.flush()
        wait_until(lambda: client.cache.stats()["disk_bytes"] < 1.4 * 2 * 2**20)
        entries.append(client.cache.stats()["disk_entries"])
    assert max(entries) < seed
    # Some 100 KB each, as compressed; and some 1 KB.
    assert min(entries[3:]) >= (12 if length == 100_000 else 900)
    kept = client.cache.stats()["disk_entries"]
    again = farthing.OpenAI(base_url=upstream.url, api_key="k", policy=policy(path, max_disk_bytes="2MiB"))
    for number in (seed, seed - 1, seed - kept // 2):
        made = again.chat.completions.create(model="test-model", messages=MESSAGES, seed=number)
        assert outcome(made) == "hit"


# Processes.


class Other:
    """A client in another process, which asks what it is told."""

    def __init__(self, upstream: Upstream, path: Path) -> None:
        script = (
            PRELUDE.format(here=HERE, url=upstream.url)
            + f"""
client = sync(policy={{"cache": {{"path": {str(path)!r}}}}})
for line in sys.stdin:
    with farthing.options(tag="t"):
        print(outcome(ask(client, line.strip())), flush=True)
"""
        )
        pipe = subprocess.PIPE
        self.process = subprocess.Popen([sys.executable, "-c", script], stdin=pipe, stdout=pipe, text=True)

    def ask(self, text: str) -> str:
        assert self.process.stdin and self.process.stdout
        print(text, file=self.process.stdin, flush=True)
        return self.process.stdout.readline().strip()

    def close(self) -> None:
        self.process.communicate()


def test_what_waits_to_be_written_elsewhere_is_invalidated_too(upstream: Upstream, path: Path) -> None:
    face = Face(False)
    client = face.client(upstream, policy=policy(path))
    other = Other(upstream, path)
    other.ask("warm")
    for number in range(10):
        assert other.ask(f"q{number}") == "miss"
        client.cache.invalidate(tag="t")
    other.close()
    assert sql(path, "SELECT count(*) FROM live WHERE tag = 't'")[0][0] == 0


@unix
def test_a_parent_hears_what_its_child_invalidates(upstream: Upstream, path: Path) -> None:
    run(
        upstream,
        f"""
        client = sync(policy={{"cache": {{"path": {str(path)!r}}}}})
        with farthing.options(tag="t"):
            ask(client)
        client.cache.flush()
        pid = os.fork()
        if pid == 0:
            client.cache.invalidate(tag="t")
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        end = time.time() + 10
        while outcome(ask(client)) == "hit":
            assert time.time() < end
            time.sleep(0.05)
        """,
    )


@unix
def test_children_of_a_multiprocessing_that_was_imported_late(upstream: Upstream, path: Path) -> None:
    run(
        upstream,
        f"""
        client = sync(policy={{"cache": {{"path": {str(path)!r}}}}})
        ask(client, "parent")
        assert "multiprocessing.util" not in sys.modules
        import multiprocessing
        children = [multiprocessing.get_context("fork").Process(target=ask, args=(client, str(n))) for n in range(5)]
        for child in children: child.start()
        for child in children: child.join()
        """,
    )
    assert upstream.calls == report(path).misses == 6


# What comes in from elsewhere.


def test_an_import_stops_at_the_first_wrong_line_and_says_which(upstream: Upstream, path: Path, tmp_path: Path) -> None:
    client = farthing.OpenAI(base_url=upstream.url, api_key="k", policy=policy(path))
    client.chat.completions.create(model="test-model", messages=MESSAGES)
    client.cache.flush()
    first, line = cli("cache", path, "export").splitlines()
    good = [json.dumps({**json.loads(line), "key": f"{n:016x}{n:048x}"}) for n in range(1200)]
    wrong = {
        "no JSON": "{",
        "the body is no JSON object": json.dumps({**json.loads(line), "body": "hello"}),
        "the endpoint audio": json.dumps({**json.loads(line), "endpoint": "audio"}),
    }
    for number, (what, text) in enumerate(wrong.items()):
        copy = tmp_path / f"{number}.db"
        with pytest.raises(AssertionError, match="line 1202 cannot be taken") as raised:
            cli("cache", copy, "import", "-", given="\n".join([first, *good, text]))
        assert what == "no JSON" or what in str(raised.value)
        assert "the 1,000 answers of the lines before 1002 were taken in" in str(raised.value)
        assert json.loads(cli("cache", copy, "stats", "--json"))["entries"] == 1000


def test_an_import_does_not_make_answers_older(face: Face, upstream: Upstream, path: Path) -> None:
    client = face.client(upstream, policy=policy(path))
    face.chat(client)
    client.cache.flush()
    exported = cli("cache", path, "export")
    with farthing.options(cache="refresh"):
        face.chat(client)
    client.cache.flush()
    cli("cache", path, "import", "-", given=exported)
    made = face.chat(face.client(upstream, policy=policy(path)))
    assert made.choices[0].message.content == "pong 2"


def test_binary_is_no_export(tmp_path: Path) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(bytes(range(256)) * 10)
    with pytest.raises(AssertionError, match="its first line has no salt"):
        cli("cache", tmp_path / "answers.db", "import", binary)


def test_a_broken_page_of_the_ledger_leaves_the_answers(face: Face, upstream: Upstream, path: Path) -> None:
    client = face.client(upstream, policy=policy(path))
    face.chat(client)
    client.cache.flush()
    sql(path, "UPDATE ledger SET report = '{'")
    again = face.client(upstream, policy=policy(path))
    assert outcome(face.chat(again)) == "hit"
    again.cache.flush()
    assert report(path).hits == 1
    assert not list(path.parent.glob("*corrupt*"))


def test_a_broken_file_leaves_its_sums(face: Face, upstream: Upstream, path: Path) -> None:
    client = face.client(upstream, policy=policy(path))
    for seed in range(300):
        face.chat(client, seed=seed)
    client.cache.flush()
    (page,) = sql(path, "PRAGMA wal_checkpoint(TRUNCATE)", "SELECT rootpage FROM sqlite_schema WHERE name = 'entry'")
    command = ["dd", "if=/dev/urandom", f"of={path}", "bs=4096", f"seek={page[0] - 1}", "count=1", "conv=notrunc"]
    subprocess.run(command, check=True, capture_output=True)
    with pytest.warns(farthing.FarthingWarning, match="corrupt"):
        again = face.client(upstream, policy=policy(path))
        for seed in range(20):
            face.chat(again, seed=seed)
            time.sleep(0.05)
    again.cache.flush()
    assert list(path.parent.glob("*corrupt*"))
    assert report(path).calls == 320
