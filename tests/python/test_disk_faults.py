"""A cache file that is broken, closed, full, too new, locked, of yesterday: the calls go on, and say so once."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import textwrap
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
from conftest import MESSAGES, Face
from test_disk import cli, outcome, policy, sql, wait_until
from upstream import Upstream

import farthing
from farthing import CacheError
from farthing.exceptions import FarthingError, FarthingWarning

# What the SDK's way of sending has nothing to do with.
pytestmark = pytest.mark.once

unix = pytest.mark.skipif(sys.platform == "win32", reason="rights as on Unix")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "answers.db"


@pytest.fixture
def face() -> Face:
    return Face(False)


class Tool:
    """Another program that has the file locked."""

    def __init__(self, path: Path, *statements: str) -> None:
        script = """
import sqlite3, sys
tables = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)
for statement in sys.argv[2:]:
    tables.execute(statement)
print("locked", flush=True)
sys.stdin.read()
"""
        command = [sys.executable, "-c", script, str(path), *statements]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "locked\n"

    def close(self) -> None:
        self.process.communicate("")


def filled(face: Face, upstream: Upstream, path: Path, count: int = 1) -> None:
    client = face.client(upstream, policy=policy(path))
    for seed in range(count):
        face.chat(client, seed=seed)
    client.cache.flush()
    sql(path, "PRAGMA wal_checkpoint(TRUNCATE)")


def opened(face: Face, upstream: Upstream, path: Path, **more: Any) -> tuple[Any, list[str]]:
    """A client, and what was warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        client = face.client(upstream, policy={**policy(path), **more})
    return client, [str(w.message) for w in caught if issubclass(w.category, FarthingWarning)]


def asked(face: Face, client: Any, **arguments: Any) -> tuple[str, list[str]]:
    """The outcome of a call, and what was warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        made = face.chat(client, **arguments)
    return outcome(made), [str(w.message) for w in caught if issubclass(w.category, FarthingWarning)]


def told(face: Face, client: Any) -> list[str]:
    """Asks until it is warned of something."""
    said: list[str] = []

    def hears() -> bool:
        said.extend(asked(face, client, seed=random.randrange(10**9))[1])
        time.sleep(0.1)
        return bool(said)

    wait_until(hears)
    return said


def faults(client: Any) -> dict[str, int]:
    return dict(client.savings().faults)


@pytest.mark.parametrize("spoiled", ["garbage", "cut short", "another head"])
def test_corrupt(face: Face, upstream: Upstream, path: Path, spoiled: str) -> None:
    filled(face, upstream, path, 30)
    whole = path.read_bytes()
    for ending in ("-wal", "-shm"):
        Path(f"{path}{ending}").unlink(missing_ok=True)
    if spoiled == "garbage":
        path.write_bytes(b"no database " * 5000)
    elif spoiled == "cut short":
        path.write_bytes(whole[:6000])
    else:
        path.write_bytes(b"\xff" * 100 + whole[100:])
    client, said = opened(face, upstream, path)
    assert len(said) == 1
    assert "corrupt" in said[0]
    assert "moved aside" in said[0]
    (aside,) = (file for file in path.parent.glob("answers.db.corrupt-*") if not file.name.endswith("-wal"))
    assert str(aside) in said[0]
    assert asked(face, client, seed=1) == ("miss", [])
    assert asked(face, client, seed=1) == ("hit", [])
    client.cache.flush()
    assert faults(client) == {"cache file: corrupt": 1}
    other, said = opened(face, upstream, path)
    assert (asked(face, other, seed=1), said) == (("hit", []), [])
    assert "farthing failed and went on: cache file: corrupt (1)" in cli("report", path)


def test_corrupt_while_in_use(face: Face, upstream: Upstream, path: Path) -> None:
    filled(face, upstream, path, 300)
    client, said = opened(face, upstream, path)
    assert (asked(face, client, seed=0), said) == (("hit", []), [])
    # All but the first page, which is looked at when the file is opened. By another program: a file that is closed in a
    # process takes the locks with it that SQLite has on it there.
    count = path.stat().st_size // 4096 - 1
    subprocess.run(
        ["dd", "if=/dev/urandom", f"of={path}", "bs=4096", "seek=1", f"count={count}", "conv=notrunc"], check=True
    )
    outcomes, told = set(), []
    for seed in range(1, 300):
        how, said = asked(face, client, seed=seed)
        outcomes.add(how)
        told += said
    wait_until(lambda: bool(list(path.parent.glob("answers.db.corrupt-*"))))
    client.cache.flush()
    assert outcomes <= {"hit", "miss"}
    assert asked(face, client, seed=1000)[0] == "miss"
    client.cache.flush()
    other, _ = opened(face, upstream, path)
    assert asked(face, other, seed=1000)[0] == "hit"
    assert len(told) == len(set(told)) >= 1, "each is said once"


@pytest.mark.parametrize("column", ["body", "head", "model", "usage", "cost", "stored", "expires", "tag", "digest"])
def test_a_damaged_row_is_no_answer(face: Face, upstream: Upstream, path: Path, column: str) -> None:
    filled(face, upstream, path)
    new = {"stored": "stored - 1", "expires": "expires + 1", "digest": "zeroblob(16)"}
    blob = column in ("body", "head")
    value = new.get(column, f"CAST({column} || 'x' AS BLOB)" if blob else f"coalesce({column}, '') || 'x'")
    sql(path, f"UPDATE entry SET {column} = {value}")
    client, said = opened(face, upstream, path)
    assert said == []
    how, said = asked(face, client, seed=0)
    assert how == "miss"
    assert len(said) == 1
    assert "damaged" in said[0]
    client.cache.flush()
    assert faults(client) == {"cache file: damaged entry": 1}
    other, _ = opened(face, upstream, path)
    assert asked(face, other, seed=0) == ("hit", [])


def test_a_newer_file_is_left_alone(face: Face, upstream: Upstream, path: Path) -> None:
    filled(face, upstream, path)
    sql(path, "PRAGMA user_version = 99")
    before = path.read_bytes()
    client, said = opened(face, upstream, path)
    assert len(said) == 1
    assert "newer farthing" in said[0]
    assert "99" in said[0]
    assert [asked(face, client, seed=0)[0] for _ in range(2)] == ["miss", "hit"]
    with pytest.raises(CacheError):
        client.cache.flush()
    assert faults(client) == {"cache file: of a newer farthing": 1}
    assert path.read_bytes() == before
    with pytest.raises(AssertionError, match="newer farthing"):
        cli("report", path)


def test_a_strangers_database_is_left_alone(face: Face, upstream: Upstream, path: Path) -> None:
    sql(path, "CREATE TABLE entry (id INTEGER PRIMARY KEY, body BLOB)")
    before = path.read_bytes()
    client, said = opened(face, upstream, path)
    assert "not farthing's" in said[0]
    assert asked(face, client)[0] == "miss"
    assert path.read_bytes() == before


def test_a_folder(face: Face, upstream: Upstream, path: Path) -> None:
    path.mkdir()
    client, said = opened(face, upstream, path)
    assert "not that of a file" in said[0]
    assert asked(face, client) == ("miss", [])


def test_locked_by_another_tool(face: Face, upstream: Upstream, path: Path) -> None:
    filled(face, upstream, path)
    client, _ = opened(face, upstream, path)
    assert asked(face, client, seed=0)[0] == "hit"
    tool = Tool(path, "BEGIN IMMEDIATE")
    assert asked(face, client, seed=1) == ("miss", [])
    assert asked(face, client, seed=2) == ("miss", [])
    assert "locked" in told(face, client)[0]
    assert faults(client) == {"cache file: locked": 1}
    assert asked(face, client, seed=2) == ("hit", [])
    # What waited is written when the lock is gone.
    tool.close()
    client.cache.flush()
    other, _ = opened(face, upstream, path)
    assert [asked(face, other, seed=seed)[0] for seed in range(3)] == ["hit"] * 3


def test_locked_when_it_is_opened(face: Face, upstream: Upstream, path: Path) -> None:
    """The salt is not known until the lock is gone; then the keys are those of the file."""
    child(upstream, path, "c = client(); ask(c, 0)")
    # A salt that this process does not have.
    sql(path, "UPDATE meta SET value = randomblob(32) WHERE name = 'salt'")
    tool = Tool(path, "PRAGMA locking_mode = EXCLUSIVE", "BEGIN EXCLUSIVE", "DELETE FROM invalidation")
    client, said = opened(face, upstream, path)
    assert (asked(face, client, seed=7), said) == (("miss", []), [])
    assert "locked" in told(face, client)[0]
    tool.close()
    wait_until(lambda: client.cache.stats()["disk_entries"] >= 1)
    face.chat(client, seed=8)
    client.cache.flush()
    other, _ = opened(face, upstream, path)
    assert asked(face, other, seed=8)[0] == "hit"


def test_the_clock_was_set_back(face: Face, upstream: Upstream, path: Path) -> None:
    filled(face, upstream, path, 2)
    client, _ = opened(face, upstream, path)
    # As if the clock had been a day ahead when all that was written.
    later = ", ".join(f"{column} = {column} + 86400000" for column in ("stored", "expires", "used"))
    sql(path, "UPDATE meta SET value = value + 86400000 WHERE name = 'clock'", f"UPDATE entry SET {later}")
    # Its digest is not that of the row any more, which is why the row alone would do; the clock is looked at as well.
    assert asked(face, client, seed=0)[0] == "miss"
    client.cache.flush()
    face.chat(client, seed=1)
    face.chat(client, seed=1)
    assert "cache file: clock set back" in faults(client)
    late = int((time.time() + 3600) * 1000)
    assert sql(path, f"SELECT count(*) FROM entry WHERE stored > {late} OR used > {late}") == [[0]]


def test_deleted_while_in_use(face: Face, upstream: Upstream, path: Path) -> None:
    client, _ = opened(face, upstream, path)
    assert asked(face, client, seed=0)[0] == "miss"
    client.cache.flush()
    for file in path.parent.iterdir():
        file.unlink()
    assert asked(face, client, seed=1)[0] == "miss"
    client.cache.flush()
    other, _ = opened(face, upstream, path)
    assert [asked(face, other, seed=seed)[0] for seed in (1, 0)] == ["hit", "miss"]


PRELUDE = """
import os, resource, sys, warnings
warnings.simplefilter("always")
import farthing
from farthing.exceptions import FarthingError
URL, PATH, STRICT = sys.argv[1], sys.argv[2], sys.argv[3] == "strict"
def client(**more):
    return farthing.OpenAI(base_url=URL, api_key="k", max_retries=0,
                           policy={"cache": {"path": PATH, **more}, "strict": STRICT})
def ask(client, seed):
    made = client.chat.completions.create(model="test-model", seed=seed, messages=[{"role": "user", "content": "ping"}])
    return farthing.receipt(made).outcome
"""


# Root may write everywhere. What is loaded late is loaded before: the interpreter may be out of others' reach.
NOBODY = """
import farthing.cache_file
one = farthing.OpenAI(base_url=URL, api_key="k", policy={"cache": {"name": "first"}})
ask(one, 0), ask(one, 0), one.savings()
if os.geteuid() == 0: os.setuid(65534)
"""


def child(
    upstream: Upstream, path: Path, script: str, *, strict: bool = False, nobody: bool = False
) -> tuple[str, str]:
    """What a process printed, and what it said on stderr."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            PRELUDE + (NOBODY if nobody else "") + textwrap.dedent(script),
            upstream.url,
            str(path),
            "strict" if strict else "",
        ],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), done.stderr


@unix
@pytest.mark.parametrize("there", [True, False])
def test_a_read_only_folder(face: Face, upstream: Upstream, tmp_path: Path, there: bool) -> None:
    folder = Path("/tmp") / f"farthing-{os.getpid()}-{there}"
    folder.mkdir()
    path = folder / "answers.db"
    try:
        if there:
            filled(face, upstream, path)
            path.chmod(0o444)
        folder.chmod(0o555)
        script = """
        c = client()
        print(ask(c, 5), ask(c, 5))
        try:
            c.cache.flush()
        except farthing.CacheError:
            print("not written")
        print(dict(c.savings().faults))
        """
        out, said = child(upstream, path, script, nobody=True)
        assert out.splitlines()[0] == "miss hit"
        assert "not written" in out
        assert "cache file: read-only" in out
        assert said.count("FarthingWarning") == 1
        assert "hint: give this user the right" in said
        strict = """
        try:
            c = client()
            ask(c, 6), c.cache.flush(), ask(c, 7)
        except FarthingError as error:
            print(type(error).__name__, "cannot be written" in str(error))
        """
        assert child(upstream, path, strict, nobody=True, strict=True)[0] == "CacheError True"
    finally:
        folder.chmod(0o755)
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()


FULL = """
c = client()
assert ask(c, 0) == "miss"
c.cache.flush()
size = os.path.getsize(PATH + "-wal") + 20_000
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
"""


@unix
def test_a_full_disk(face: Face, upstream: Upstream, path: Path) -> None:
    script = f"""
{FULL}
outcomes = [ask(c, seed) for seed in range(1, 400) for _ in range(2)]
try:
    c.cache.flush()
except farthing.CacheError as error:
    print("not written")
print(set(outcomes), sorted(c.savings().faults))
"""
    out, said = child(upstream, path, script)
    assert "not written" in out
    assert "{'miss', 'hit'}" in out or "{'hit', 'miss'}" in out
    assert "cache file:" in out
    assert said.count("FarthingWarning") >= 1
    # What was written is whole, and more can be.
    assert sql(path, "PRAGMA integrity_check") == [["ok"]]
    client, said_here = opened(face, upstream, path)
    assert said_here == []
    face.chat(client, seed=9999)
    client.cache.flush()


@unix
def test_a_disk_that_is_really_full(upstream: Upstream, tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("no disk may be mounted here")
    try:
        script = """
        import time
        c = client()
        ask(c, 0), c.cache.flush()
        with open(os.path.join(os.path.dirname(PATH), "waste"), "wb", buffering=0) as waste:
            try:
                while waste.write(bytes(4096)): pass
            except OSError: pass
        outcomes = [ask(c, seed) for seed in range(1, 400) for _ in range(2)]
        try:
            c.cache.flush()
        except farthing.CacheError as error:
            print(str(error).split(":")[0])
        print(outcomes == ["miss", "hit"] * 399, ask(client(max_bytes=12345), 0), list(c.savings().faults))
        os.unlink(waste.name)
        for attempt in range(100):
            ask(c, 500 + attempt)
            try:
                print("written", c.cache.flush()); break
            except farthing.CacheError: time.sleep(0.1)
        print(c.savings().calls)
        """
        out, said = child(upstream, folder / "answers.db", script)
        full, calls, written, count = out.splitlines()
        assert full == "the disk of the cache file is full; new answers are not kept on it"
        assert calls == "True hit ['cache file: disk full']"
        assert written == "written None"
        assert said.count("FarthingWarning") == 1
        assert sql(folder / "answers.db", "PRAGMA integrity_check") == [["ok"]]
        assert json.loads(sql(folder / "answers.db", "SELECT report FROM ledger")[0][0])["calls"] == int(count) + 1
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@unix
def test_a_full_disk_is_an_error_when_strict(upstream: Upstream, path: Path) -> None:
    script = f"""
{FULL}
import time
try:
    for seed in range(1, 4000):
        ask(c, seed)
except FarthingError as error:
    print("raised", "cache file" in str(error) or "disk" in str(error))
"""
    assert child(upstream, path, script, strict=True)[0] == "raised True"


@pytest.mark.parametrize("fault", ["newer", "stranger", "folder"])
def test_strict(face: Face, upstream: Upstream, path: Path, fault: str) -> None:
    if fault == "folder":
        path.mkdir()
    else:
        ours = "PRAGMA application_id = 1718904935" if fault == "newer" else "SELECT 1"
        sql(path, "CREATE TABLE t (a)", ours, "PRAGMA user_version = 99")
    with pytest.raises(CacheError, match="hint:"):
        face.client(upstream, policy={**policy(path), "strict": True})


def test_strict_and_locked(face: Face, upstream: Upstream, path: Path) -> None:
    """Others may write, too: it is a fault when it lasts."""
    filled(face, upstream, path)
    tool = Tool(path, "BEGIN EXCLUSIVE")
    client = face.client(upstream, policy={**policy(path), "strict": True})
    face.chat(client, seed=1)
    with pytest.raises(CacheError, match="locked"):
        client.cache.flush()
    with pytest.raises(CacheError, match="locked"):
        told(face, client)
    tool.close()
    client.cache.flush()
    face.chat(client, seed=2)


def test_strict_raises_what_a_call_meets(face: Face, upstream: Upstream, path: Path) -> None:
    filled(face, upstream, path)
    sql(path, "UPDATE entry SET digest = zeroblob(16)")
    client = face.client(upstream, policy={**policy(path), "strict": True})
    with pytest.raises(FarthingError, match="damaged"):
        client.chat.completions.create(model="test-model", messages=MESSAGES, seed=0)


def test_an_old_file_is_brought_up(face: Face, upstream: Upstream, path: Path) -> None:
    """A file of version 1, which had no ledger and no labels."""
    filled(face, upstream, path)
    later = [f"DROP TABLE {table}" for table in ("ledger", "budget", "reservation", "labels")]
    sql(path, *later, "DELETE FROM meta WHERE name = 'label bytes'", "PRAGMA user_version = 1")
    client, said = opened(face, upstream, path)
    assert said == []
    assert asked(face, client, seed=0) == ("hit", [])
    client.cache.flush()
    assert sql(path, "PRAGMA user_version") == [[4]]
    assert farthing.ledger.Savings.from_json(cli("report", path, "--json")).calls == 1
