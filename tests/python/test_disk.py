"""The cache on disk: what a new process finds there, what is in the file, and what keeps it small."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import MESSAGES, Face, text
from upstream import Reply, Upstream, answer, chat

import farthing
from farthing import CacheError
from farthing.ledger import Savings

pytestmark = pytest.mark.once

KEY = "sk-a-secret-that-must-not-be-kept"
_numbers = iter(range(1, 10**9))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "answers.db"


def policy(path: Path, **cache: Any) -> dict[str, Any]:
    """Equal policies share memory: another size makes it a cache of its own, as a new process has."""
    return {"cache": {"path": str(path), "max_bytes": 10**8 + next(_numbers), **cache}}


def outcome(made: Any) -> str:
    return farthing.receipt(made).outcome or ""


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def sql(path: Path, *statements: str) -> list[Any]:
    """Runs SQL on the file, as another program would; the rows of the last statement.

    In a process of its own: locks belong to processes, so a second SQLite in ours would break those of the first.
    """
    script = """
import json, sqlite3, sys
tables = sqlite3.connect(sys.argv[1], timeout=30)
for statement in sys.argv[2:]:
    rows = tables.execute(statement).fetchall()
tables.commit()
print(json.dumps(rows))
"""
    done = subprocess.run([sys.executable, "-c", script, path, *statements], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout))


def cli(*arguments: object, given: str | None = None) -> str:
    command = [sys.executable, "-m", "farthing", *map(str, arguments)]
    done = subprocess.run(command, input=given, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_found_by_the_next_process(face: Face, upstream: Upstream, path: Path) -> None:
    first = face.client(upstream, policy=policy(path))
    said = face.chat(first).choices[0].message.content
    first.cache.flush()
    second = face.client(upstream, policy=policy(path))
    made = face.chat(second)
    assert (outcome(made), made.choices[0].message.content, upstream.calls) == ("hit", said, 1)
    assert made._request_id == "req_1"
    assert farthing.receipt(made).age > 0
    assert second.cache.stats()["disk_hits"] == 1
    # From memory the second time.
    assert (outcome(face.chat(second)), second.cache.stats()["disk_hits"]) == ("hit", 1)
    assert text(face.stream(second)) == said
    raw = face.run(lambda: second.chat.completions.with_raw_response.create(model="test-model", messages=MESSAGES))
    assert raw.headers["x-farthing-cache"] == "hit"
    assert upstream.calls == 1


def test_the_sdks_way_finds_it_too(upstream: Upstream, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    face = Face(False)
    first = face.client(upstream, policy=policy(path))
    face.chat(first)
    first.cache.flush()
    monkeypatch.setenv("OPENAI_LOG", "")
    second = face.client(upstream, policy=policy(path))
    made = second.chat.completions.with_streaming_response.create(model="test-model", messages=MESSAGES)
    with made as response:
        assert json.loads(response.read())["choices"][0]["message"]["content"] == "pong 1"
    assert upstream.calls == 1


def test_other_endpoints(face: Face, upstream: Upstream, path: Path) -> None:
    for _ in range(2):
        client = face.client(upstream, policy=policy(path))
        vectors = face.run(lambda: client.embeddings.create(model="e", input=["a", "b"]))  # noqa: B023
        said = face.run(lambda: client.responses.create(model="r", input="ping"))  # noqa: B023
        assert vectors.data[1].embedding == [0.25, -1.5, 3.0]
        assert said.output_text.startswith("pong")
        client.cache.flush()
    assert upstream.calls == 2


def test_no_secret_is_in_the_file(face: Face, upstream: Upstream, path: Path) -> None:
    client = face.client(upstream, policy=policy(path), api_key=KEY, organization="org-secret")
    face.chat(client, extra_headers={"x-session": "a-secret-session"})
    client.cache.flush()
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
        for secret in (KEY, "Bearer", "org-secret", "a-secret-session", upstream.url):
            assert secret.encode() not in file.read_bytes()
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_file_that_others_may_read_is_closed_to_them(upstream: Upstream, path: Path) -> None:
    path.parent.mkdir()
    path.touch(0o644)
    farthing.OpenAI(base_url=upstream.url, api_key="k", policy=policy(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_tenants_are_apart(face: Face, upstream: Upstream, path: Path) -> None:
    face.chat(face.client(upstream, policy=policy(path), api_key="sk-1"))
    assert outcome(face.chat(face.client(upstream, policy=policy(path), api_key="sk-2"))) == "miss"


def test_names_are_apart(upstream: Upstream, path: Path) -> None:
    face = Face(False)
    one, two = (face.client(upstream, policy=policy(path, name=name)) for name in ("one", "two"))
    assert [outcome(face.chat(client)) for client in (one, two, one)] == ["miss", "miss", "hit"]
    one.cache.flush(), two.cache.flush()
    one.cache.clear()
    again = [face.client(upstream, policy=policy(path, name=name)) for name in ("one", "two")]
    assert [outcome(face.chat(client)) for client in again] == ["miss", "hit"]


@pytest.mark.parametrize("length", [10, 1023, 1024, 100_000])
def test_sizes(upstream: Upstream, path: Path, length: int) -> None:
    words = "".join(chr(0x20 + n * n % 0x2000) for n in range(length))
    upstream.script = lambda seen, number: answer(seen, words)
    face = Face(False)
    first = face.client(upstream, policy=policy(path))
    face.chat(first)
    first.cache.flush()
    made = face.chat(face.client(upstream, policy=policy(path)))
    assert (outcome(made), made.choices[0].message.content) == ("hit", words)


def test_large_answers_are_compressed(upstream: Upstream, path: Path) -> None:
    upstream.script = lambda seen, number: answer(seen, "the same words again " * 10_000)
    client = Face(False).client(upstream, policy=policy(path))
    Face(False).chat(client)
    client.cache.flush()
    [[size, kept]] = sql(path, "SELECT size, length(body) FROM entry")
    assert size > 200_000
    assert kept < size / 20


def test_tags(face: Face, upstream: Upstream, path: Path) -> None:
    client, other = (face.client(upstream, policy=policy(path)) for _ in range(2))
    with farthing.options(tag="faq"):
        face.chat(client)
    face.chat(client, seed=1)
    client.cache.flush()
    # In another process' memory by now.
    assert outcome(face.chat(other)) == outcome(face.chat(other, seed=1)) == "hit"
    assert client.cache.invalidate(tag="faq") == 1
    assert outcome(face.chat(client, seed=1)) == "hit"
    wait_until(lambda: other.cache.stats()["entries"] == 1)
    assert outcome(face.chat(other, seed=1)) == "hit"
    assert outcome(face.chat(other)) == "miss"


def test_clear(face: Face, upstream: Upstream, path: Path) -> None:
    client = face.client(upstream, policy=policy(path))
    face.chat(client)
    client.cache.clear()
    assert (client.cache.stats()["entries"], client.cache.stats()["disk_entries"]) == (0, 0)
    assert [outcome(face.chat(client)) for _ in range(2)] == ["miss", "hit"]


def test_a_cleared_cache_keeps_what_comes_after(upstream: Upstream, path: Path) -> None:
    face = Face(False)
    client = face.client(upstream, policy=policy(path))
    for number in range(20):
        client.cache.clear()
        assert [outcome(face.chat(client, seed=number)) for _ in range(2)] == ["miss", "hit"]
        client.cache.flush()
        assert outcome(face.chat(client, seed=number)) == "hit"


def test_time_to_live(face: Face, upstream: Upstream, path: Path) -> None:
    client = face.client(upstream, policy=policy(path, ttl=3600))
    face.chat(client)
    face.chat(client, seed=1)
    client.cache.flush()
    assert sql(path, "SELECT max(expires - stored) FROM entry") == [[3_600_000]]
    with farthing.options(ttl="1ms"):
        assert outcome(face.chat(face.client(upstream, policy=policy(path)))) == "miss"
    # What another policy stored for longer is too old for one that is stricter.
    time.sleep(0.01)
    assert outcome(face.chat(face.client(upstream, policy=policy(path, ttl="5ms")), seed=1)) == "miss"


def test_modes(face: Face, upstream: Upstream, path: Path) -> None:
    client = face.client(upstream, policy=policy(path, mode="read_only"))
    face.chat(client)
    client.cache.flush()
    assert client.cache.stats()["disk_entries"] == 0
    writes = face.client(upstream, policy=policy(path, mode="write_only"))
    face.chat(writes), face.chat(writes)
    writes.cache.flush()
    assert (upstream.calls, writes.cache.stats()["disk_entries"]) == (3, 1)
    assert outcome(face.chat(client)) == "hit"
    with farthing.options(cache="refresh"):
        assert outcome(face.chat(client)) == "miss"
    client.cache.flush()
    made = face.chat(face.client(upstream, policy=policy(path)))
    assert made.choices[0].message.content == "pong 4"


def test_the_bound(upstream: Upstream, path: Path) -> None:
    face = Face(False)
    body = os.urandom(2000).hex()
    upstream.script = lambda seen, number: answer(seen, body + seen.json["messages"][0]["content"])
    client = face.client(upstream, policy=policy(path, max_disk_bytes="1MiB"))
    ask = lambda client, n: face.chat(client, messages=[{"role": "user", "content": str(n)}])  # noqa: E731
    for number in range(600):
        ask(client, number)
        if number % 100 == 50:
            client.cache.flush()
            # Answered by memory; the file hears of it before it lets go of what was not used for longest.
            assert outcome(ask(client, 0)) == "hit"
    client.cache.flush()
    client.cache.flush()
    stats = client.cache.stats()
    assert stats["disk_bytes"] < 1.3 * 2**20
    assert 100 < stats["disk_entries"] < 600
    again = face.client(upstream, policy=policy(path, max_disk_bytes="1MiB"))
    assert [outcome(ask(again, number)) for number in (599, 0, 1)] == ["hit", "hit", "miss"]


def test_closing_writes(upstream: Upstream, path: Path) -> None:
    client = farthing.OpenAI(base_url=upstream.url, api_key="k", policy=policy(path))
    client.chat.completions.create(model="test-model", messages=MESSAGES)
    client.close()
    assert sql(path, "SELECT count(*) FROM entry") == [[1]]


def test_relative_paths_and_home(upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert farthing.Cache(path="a.db").path == str(tmp_path / "a.db")
    assert farthing.Cache(path=Path("~/a.db")).path == str(tmp_path / "home" / "a.db")
    for wrong in ("", "folder/", 7, b"a.db", "a\0b"):
        with pytest.raises(farthing.PolicyError, match="path"):
            farthing.Cache(path=wrong)  # type: ignore[arg-type]


# The ledger.


def report(path: Path, *options: str) -> Savings:
    return Savings.from_json(cli("report", path, "--json", *options))


def test_the_ledger_stays(face: Face, upstream: Upstream, path: Path) -> None:
    prices = {"models": {"test-model": {"input": 1, "output": 2}}}
    bills = []
    for _ in range(2):
        client = face.client(upstream, policy={**policy(path), **prices})
        for _ in range(3):
            with farthing.options(tag="faq"):
                face.chat(client)
        client.cache.flush()
        bills.append(client.savings())
    whole = report(path)
    assert whole == sum(bills)
    assert (whole.calls, whole.misses, whole.hits) == (6, 1, 5)
    assert whole.spent > 0
    assert whole.saved == 5 * whole.spent
    assert whole.by_tag["faq"].calls == 6
    assert report(path, "--since", "2h") == whole
    assert report(path, "--since", "2999-01-01") == Savings()
    assert "test-model" in cli("report", path)
    assert "6" in cli("report", path, "--by", "day").splitlines()[1]


def test_copies_share_the_ledger_and_count_once(upstream: Upstream, path: Path) -> None:
    client = farthing.OpenAI(base_url=upstream.url, api_key="k", policy=policy(path))
    copy = client.with_options(policy=policy(path))
    for seed, one in enumerate((client, copy, client, copy)):
        one.chat.completions.create(model="test-model", messages=MESSAGES, seed=seed)
    copy.cache.flush(), client.cache.flush()
    assert report(path).calls == client.savings().calls == 4


def test_the_ledger_of_a_client_that_is_gone(upstream: Upstream, path: Path) -> None:
    settings = policy(path)
    for number in range(10):
        client = farthing.OpenAI(base_url=upstream.url, api_key="k", policy=settings)
        client.chat.completions.create(model="test-model", messages=MESSAGES, seed=number)
    del client
    farthing.OpenAI(base_url=upstream.url, api_key="k", policy=settings).cache.flush()
    assert report(path).calls == 10


def test_without_a_cache_the_mode_off_keeps_the_ledger(upstream: Upstream, path: Path) -> None:
    client = farthing.OpenAI(base_url=upstream.url, api_key="k", policy=policy(path, mode="off"))
    for _ in range(2):
        client.chat.completions.create(model="test-model", messages=MESSAGES)
    client.cache.flush()
    assert (report(path).bypassed, client.cache.stats()["disk_entries"]) == (2, 0)


def test_old_hours_become_days(upstream: Upstream, path: Path) -> None:
    settings = policy(path)
    client = farthing.OpenAI(base_url=upstream.url, api_key="k", policy=settings)
    client.chat.completions.create(model="test-model", messages=MESSAGES)
    client.cache.flush()
    # Forty days with two hours each, and one hour of today.
    sql(
        path,
        """WITH RECURSIVE day(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM day WHERE n < 40)
           INSERT INTO ledger SELECT span, start / 86400 * 86400 - n * 86400 + part * 3600, report
           FROM ledger, day, (SELECT 3 AS part UNION SELECT 20)""",
        "DELETE FROM meta WHERE name = 'maintained'",
    )
    assert report(path).calls == 81
    days = cli("report", path, "--by", "day")
    # Whoever has the file open next folds them, and nobody sees that in the sums.
    farthing.OpenAI(base_url=upstream.url, api_key="k", policy=policy(path))
    wait_until(lambda: sql(path, "SELECT count(*) FROM ledger WHERE span = 86400")[0][0] > 0)
    spans = dict(sql(path, "SELECT span, count(*) FROM ledger GROUP BY span"))
    assert spans[86400] in (32, 33)
    assert spans[3600] == 1 + 2 * (40 - spans[86400])
    assert report(path).calls == 81
    assert cli("report", path, "--by", "day") == days


def test_expired_answers_leave_the_file(upstream: Upstream, path: Path) -> None:
    client = farthing.OpenAI(base_url=upstream.url, api_key="k", policy=policy(path, ttl=0.2))
    for seed in range(10):
        client.chat.completions.create(model="test-model", messages=MESSAGES, seed=seed)
    client.cache.flush()
    time.sleep(0.3)
    sql(path, "DELETE FROM meta WHERE name = 'maintained'")
    farthing.OpenAI(base_url=upstream.url, api_key="k", policy=policy(path))
    wait_until(lambda: sql(path, "SELECT count(*) FROM entry")[0][0] == 0)


# The command line.


def test_command_line(upstream: Upstream, path: Path) -> None:
    face = Face(False)
    client = face.client(upstream, policy=policy(path))
    with farthing.options(tag="faq"):
        face.chat(client)
    face.chat(client, model="another")
    face.chat(client, model="another", seed=1)
    client.cache.flush()
    assert cli("cache", path).splitlines()[0] == "answers    3, 0 of them expired"
    assert json.loads(cli("cache", path, "stats", "--json"))["entries"] == 3
    listed = json.loads(cli("cache", path, "list", "--json", "--tag", "faq"))
    assert [entry["tag"] for entry in listed] == ["faq"]
    assert len(cli("cache", path, "list", "--model", "test-model").splitlines()) == 4
    shown = json.loads(cli("cache", path, "show", listed[0]["entry"][:9]))
    assert shown["body"]["choices"][0]["message"]["content"] == "pong 1"
    assert cli("cache", path, "invalidate", "--entry", listed[0]["entry"]) == "removed 1 answer\n"
    assert cli("cache", path, "invalidate", "--model", "test-model") == "removed 2 answers\n"
    # The client is told as well.
    wait_until(lambda: client.cache.stats()["entries"] == 0)
    assert "bytes" in cli("cache", path, "vacuum")
    assert outcome(face.chat(client)) == "miss"


def test_export_and_import(upstream: Upstream, path: Path, tmp_path: Path) -> None:
    face = Face(False)
    upstream.script = lambda seen, number: answer(seen, f"{number}\n äö\U0001f600 " + "x" * 50 * number)
    client = face.client(upstream, policy=policy(path))
    said = [face.chat(client, seed=seed).choices[0].message.content for seed in range(600)]
    client.cache.flush()
    lines = cli("cache", path, "export")
    assert len(lines.splitlines()) == 601
    copy = tmp_path / "copy.db"
    assert cli("cache", copy, "import", "-", given=lines) == "took in 600 answers\n"
    again = face.client(upstream, policy=policy(copy))
    assert [face.chat(again, seed=seed).choices[0].message.content for seed in range(600)] == said
    assert upstream.calls == 600
    # Twice is once.
    cli("cache", copy, "import", "-", given=lines)
    assert json.loads(cli("cache", copy, "stats", "--json"))["entries"] == 600
    # A file with a salt of its own would never find them.
    other = tmp_path / "other.db"
    stranger = face.client(upstream, policy=policy(other))
    face.chat(stranger)
    stranger.cache.flush()
    sql(other, "UPDATE meta SET value = randomblob(32) WHERE name = 'salt'")
    with pytest.raises(AssertionError, match="another salt"):
        cli("cache", other, "import", "-", given=lines)
    with pytest.raises(AssertionError, match="its first line has no salt"):
        cli("cache", copy, "import", "-", given='{"key": 1}')


@pytest.mark.parametrize("arguments", [["report"], ["cache"]])
def test_no_such_file(tmp_path: Path, arguments: list[str]) -> None:
    with pytest.raises(AssertionError, match="no such cache file"):
        cli(*arguments, tmp_path / "none.db")


def test_no_file_is_made_by_looking(tmp_path: Path) -> None:
    from farthing import cache_file

    with pytest.raises(CacheError):
        cache_file.stats(str(tmp_path / "none.db"), False)
    assert not list(tmp_path.iterdir())


def test_bad_answers_are_not_stored(face: Face, upstream: Upstream, path: Path) -> None:
    cut = chat("cut")
    cut["choices"][0]["finish_reason"] = "length"
    upstream.script = lambda seen, number: Reply(body=cut)
    client = face.client(upstream, policy=policy(path))
    face.chat(client)
    client.cache.flush()
    assert client.cache.stats()["disk_entries"] == 0
