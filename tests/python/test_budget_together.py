"""Budgets in a cache file: several processes spend from one, also those that are killed; and what if the file fails."""

from __future__ import annotations

import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from conftest import Face
from test_budget import COST, PRICE, Bill, line
from test_disk import cli, sql, wait_until
from test_disk_faults import Tool
from test_process import run, start, unix
from upstream import Reply, Upstream, answer, chat

import farthing
from farthing import Budget, BudgetExceeded, FarthingError, FarthingWarning, Policy

pytestmark = pytest.mark.once

_numbers = iter(range(1, 10**9))


@contextmanager
def locked(path: Path) -> Iterator[None]:
    tool = Tool(path, "BEGIN IMMEDIATE")
    try:
        yield
    finally:
        tool.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "answers.db"


def policy(path: Path, *budgets: Budget, **more: Any) -> Policy:
    """Another size makes it an engine of its own, as a new process has."""
    cache = farthing.Cache(path=path, max_bytes=10**8 + next(_numbers))
    return Policy(cache=cache, models={"test-model": PRICE}, budgets=budgets, **more)


SCRIPT = """
    policy = {{"cache": {{"path": {path!r}}}, "models": {{"m": {{"input": 10, "output": 20}}}},
               "budget": [{{"limit": "{limit}"}}]}}
    client = sync(policy=policy)
    def call(text, most=50):
        try:
            ask(client, text, max_tokens=most)
            return "answered"
        except farthing.BudgetExceeded:
            return "blocked"
"""


def script(path: Path, limit: object, rest: str) -> str:
    return SCRIPT.format(path=str(path), limit=limit) + rest


def test_the_books_go_on_after_a_restart(face: Face, upstream: Upstream, path: Path) -> None:
    for number in range(3):
        # Another budget of the same name is the same account: a limit may be changed.
        client = face.client(upstream, policy=policy(path, Budget("0.0025", at="0.5"), Budget(number + 1, per="day")))
        face.chat(client, max_tokens=50, seed=number)
        assert line(client, name="total").spent == (number + 1) * COST
        client.cache.flush()
    with pytest.raises(BudgetExceeded):
        face.chat(client, max_tokens=80)
    assert "total" in cli("report", path) and "0.000450" in cli("report", path)


def test_what_others_hold_counts(upstream: Upstream, path: Path) -> None:
    face = Face(False)
    go = threading.Event()
    upstream.script = lambda seen, number: (go.wait(20), answer(seen))[1] if number == 1 else answer(seen)
    one, two = (face.client(upstream, policy=policy(path, Budget("0.0025"))) for _ in range(2))
    first = threading.Thread(target=lambda: face.chat(one, max_tokens=50))
    first.start()
    wait_until(lambda: upstream.calls == 1)
    assert line(two).reserved > COST
    with pytest.raises(BudgetExceeded):
        face.chat(two, max_tokens=50, seed=1)
    go.set()
    first.join()
    face.chat(two, max_tokens=50, seed=1)
    assert line(one).spent == line(two).spent == 2 * COST


@unix
def test_what_a_killed_process_held_is_free_again(upstream: Upstream, path: Path) -> None:
    upstream.script = lambda seen, number: Reply(body=chat(), delay=60) if number == 1 else answer(seen)
    held = script(path, "0.0025", '    print(call("first"))')
    process = start(upstream, held)
    wait_until(lambda: upstream.calls == 1)
    face = Face(False)
    client = face.client(upstream, policy=policy(path, Budget("0.0025")))
    reserved = line(client).reserved
    assert reserved > COST
    with pytest.raises(BudgetExceeded):
        face.chat(client, max_tokens=50)
    process.send_signal(signal.SIGKILL)
    process.wait()
    face.chat(client, max_tokens=50)
    row = line(client)
    assert (row.spent, row.reserved, row.unknown, row.expired) == (COST, 0, 0, reserved)


@unix
def test_a_process_that_cannot_be_seen_has_an_hour(upstream: Upstream, path: Path) -> None:
    face = Face(False)
    client = face.client(upstream, policy=policy(path, Budget("0.0025")))
    face.chat(client, max_tokens=50)
    client.cache.flush()
    # As from another container: the same machine, another table of processes.
    boot = Path("/proc/sys/kernel/random/boot_id")
    if not boot.exists():
        pytest.skip("no /proc")
    owner = f"{boot.read_text().strip()}:pid[1]:1:1"
    insert = "INSERT INTO reservation VALUES ('total', '', '{}', 1, 2000000000, {})"
    sql(path, insert.format(owner, "(strftime('%s') + 60) * 1000"))
    with pytest.raises(BudgetExceeded):
        face.chat(client, max_tokens=50, seed=1)
    sql(path, "UPDATE reservation SET until = (strftime('%s') - 60) * 1000")
    face.chat(client, max_tokens=50, seed=1)
    assert line(client).expired == Decimal("0.002")


def test_processes_do_not_overshoot(upstream: Upstream, path: Path) -> None:
    bill = Bill(upstream)
    limit = Decimal("0.05")
    rest = """
    from concurrent.futures import ThreadPoolExecutor
    import collections
    def one(number):
        try:
            return call(f"{os.getpid()} {number}", 50 + number)
        except openai.InternalServerError:
            return "failed"
    with ThreadPoolExecutor(16) as pool:
        counts = collections.Counter(pool.map(one, range(40)))
    assert sum(counts.values()) == 40
    print(counts["answered"], counts["blocked"])
    """
    processes = [start(upstream, script(path, limit, rest)) for _ in range(3)]
    said = [process.communicate(timeout=100) for process in processes]
    assert [err for _, err in said] == [""] * 3
    answered = sum(int(out.split()[0]) for out, _ in said)
    assert answered and sum(int(out.split()[1]) for out, _ in said)
    client = Face(False).client(upstream, policy=policy(path, Budget(limit)))
    row = line(client)
    assert 0 < bill.sum <= limit
    assert (row.spent, row.reserved, row.unknown) == (bill.sum, 0, 0)


@unix
def test_a_forked_child_spends_from_the_same(upstream: Upstream, path: Path) -> None:
    rest = """
    print(call("parent"), flush=True)
    if os.fork() == 0:
        print(call("child"), flush=True)
        os._exit(0)
    os.wait()
    print(call("parent again"), client.budget()[0].spent)
    """
    # Room for two: a call may cost 0.0018, and costs 0.00015.
    said = run(upstream, script(path, "0.00215", rest)).split("\n")
    assert said == ["answered", "answered", "answered 0.00045"]


def test_a_file_that_is_locked(face: Face, upstream: Upstream, path: Path) -> None:
    client = face.client(upstream, policy=policy(path, Budget("0.0025")))
    face.chat(client, max_tokens=50)
    client.cache.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FarthingWarning)
        with locked(path):
            # Memory goes on with what it has seen of the file.
            face.chat(client, max_tokens=50, seed=1)
            with pytest.raises(BudgetExceeded):
                face.chat(client, max_tokens=90, seed=2)
        wait_until(lambda: line(client).spent == 2 * COST)
        other = face.client(upstream, policy=policy(path, Budget("0.0025")))
        # What was spent meanwhile is in the file when it is there again.
        wait_until(lambda: bool(client.budget()) and line(other).spent == 2 * COST)


def test_what_was_reserved_while_the_file_was_locked(upstream: Upstream, path: Path) -> None:
    """The file is told of it when it is there again, and for as long as the call is in flight."""
    goes_on = threading.Event()
    upstream.script = lambda seen, number: (
        answer(seen) if seen.json.get("seed") != 7 or goes_on.wait(60) else Reply(500)
    )
    face = Face(False)
    client = face.client(upstream, policy=policy(path, Budget("0.005")))
    face.chat(client, max_tokens=50)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FarthingWarning)
        with locked(path):
            late = threading.Thread(target=lambda: face.chat(client, max_tokens=200, seed=7))
            late.start()
            wait_until(lambda: upstream.calls == 2)
        other = face.client(upstream, policy=policy(path, Budget("0.005")))
        wait_until(lambda: bool(client.budget()) and line(other).reserved > 0)
        for spender in (client, other):
            with pytest.raises(BudgetExceeded):
                face.chat(spender, max_tokens=190, seed=3)
        goes_on.set()
        late.join()
        wait_until(lambda: (line(other).reserved, line(other).spent) == (0, 2 * COST))
    assert (line(client).reserved, line(client).spent) == (0, 2 * COST)


def test_strict_and_locked(upstream: Upstream, path: Path) -> None:
    face = Face(False)
    client = face.client(upstream, policy=policy(path, Budget("0.0025"), strict=True))
    face.chat(client, max_tokens=50)
    client.cache.flush()
    with locked(path):
        for _ in range(2):
            with pytest.raises(FarthingError, match="locked"):
                face.chat(client, max_tokens=50, seed=1)
    assert upstream.calls == 1


def test_a_file_that_is_none(face: Face, upstream: Upstream, path: Path) -> None:
    path.write_bytes(b"SQLite format 3\0" + b"x" * 5000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FarthingWarning)
        client = face.client(upstream, policy=policy(path, Budget("0.0025")))
        face.chat(client, max_tokens=50)
        with pytest.raises(BudgetExceeded):
            face.chat(client, max_tokens=100)
    assert line(client).spent == COST


def test_a_folder_in_its_place(face: Face, upstream: Upstream, path: Path) -> None:
    path.mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FarthingWarning)
        client = face.client(upstream, policy=policy(path, Budget("0.0025")))
        face.chat(client, max_tokens=50)
        with pytest.raises(BudgetExceeded):
            face.chat(client, max_tokens=100)
    assert line(client).spent == COST
