"""`make soak`: one cache file under many processes, kills, forks and full disks at random; at the end the books agree.

What the upstream billed, what the ledger in the file says and what the cache serves are compared, to the last call and
the last unit of money; nobody may be told that the file is locked, and the strict only that the disk is full. A killed
process may lose its last second, and nothing else may be lost. One process lives from the beginning to the end and says
how its memory grew. SECONDS says how long (600); SEED repeats a run. What the processes do is in `soak_worker.py`.

The disk is really full from time to time where this may mount one (as root, on Linux); elsewhere, and besides, a limit
of the process plays that.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "python"))

from upstream import Reply, Seen, Upstream, chat  # noqa: E402

# How late a killed process's books may be: the second that is promised, and one for a busy machine.
LATE = 2.0
# Different questions; more than the file may hold answers to, so that some are evicted.
QUESTIONS = 3000
MOST_BYTES = 4_500_000
# In USD per million tokens; a call has 9 and 3 of them.
PRICE = {"input": 1, "output": 2}
COST = Decimal("0.000015")
WARM_UP = 20_000
DISK_BYTES = 64 << 20
POLICY: dict[str, Any] = {"models": {"test-model": PRICE}}


@contextmanager
def a_disk(folder: str) -> Iterator[bool]:
    """A small disk of its own at `folder`; False where none may be mounted."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", folder]
    try:
        own = subprocess.run(mount, capture_output=True).returncode == 0
    except OSError:
        own = False
    try:
        yield own
    finally:
        if own:
            subprocess.run(["umount", "--lazy", folder], check=True)


class Disk:
    """Fills the disk for a second or two from time to time."""

    def __init__(self, folder: Path, rng: random.Random) -> None:
        self._waste = folder / "waste"
        self._rng = rng
        self._until = 0.0
        self._next = time.monotonic() + rng.uniform(2, 10)
        # When it was full, from and to.
        self.phases: list[list[float]] = []

    def turn(self, *, ends: bool = False) -> None:
        now = time.monotonic()
        if self._until and (now > self._until or ends):
            self._waste.unlink()
            self._until = 0.0
            self.phases[-1][1] = time.monotonic()
            self._next = now + self._rng.uniform(5, 20)
        elif not self._until and now > self._next and not ends:
            self.phases.append([now, float("inf")])
            self._until = now + self._rng.uniform(0.5, 2.5)
            with self._waste.open("wb", buffering=0) as waste:
                for size in (1 << 20, 1 << 12):
                    try:
                        while waste.write(bytes(size)) == size:
                            pass
                    except OSError:
                        continue

    def late(self, moment: float) -> float:
        """How late the books of a process may be that was killed then."""
        for start, stop in self.phases:
            if start <= moment <= stop + LATE:
                return moment - start + LATE
        return LATE


def main() -> None:
    seconds = float(os.environ.get("SECONDS", 600))
    seed = int(os.environ.get("SEED", time.time_ns() % 10**6))
    rng = random.Random(seed)
    print(f"soak of {seconds:g} seconds, seed {seed}", flush=True)
    billed: list[tuple[float, int]] = []
    lock = threading.Lock()
    words = {n: " ".join(f"{random.Random(n + i).randrange(10**6)}" for i in range(n % 200)) for n in range(QUESTIONS)}

    def script(seen: Seen, number: int) -> Reply:
        with lock:
            billed.append((time.monotonic(), int(seen.headers["idempotency-key"])))
        question = seen.json["messages"][0]["content"]
        return Reply(body=chat(f"{question} {words[int(question)]}"))

    upstream = Upstream(script)
    with tempfile.TemporaryDirectory() as folder, a_disk(folder) as own_disk:
        print("a disk of its own, full at times" if own_disk else "no disk may be mounted: a limit plays full disks")
        path = Path(folder) / "answers.db"
        disk = Disk(Path(folder), rng)
        killed: dict[int, float] = {}
        calls = 0
        end = time.monotonic() + seconds

        def begin(kind: str, lives: float, least: int = 0) -> subprocess.Popen[str]:
            cache = {"path": str(path), "max_bytes": 400_000, "max_disk_bytes": MOST_BYTES}
            task = {
                "url": upstream.url,
                "policy": {"cache": cache, "strict": kind == "strict", **POLICY},
                "kind": kind,
                "seconds": lives,
                "least": least,
                "warm_up": WARM_UP,
                "questions": QUESTIONS,
            }
            command = [sys.executable, str(HERE / "soak_worker.py"), json.dumps(task)]
            return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

        def said(process: subprocess.Popen[str]) -> tuple[int, int]:
            out, _ = process.communicate()
            assert process.returncode == 0, "a worker failed"
            count, grown = map(int, out.split())
            return count, grown

        # In a whole soak it goes on until it has seen enough to be called flat.
        steady = begin("steady", seconds, WARM_UP + 1_000_000 if seconds >= 600 else 0)
        running: list[tuple[subprocess.Popen[str], float]] = []
        while time.monotonic() < end or running:
            while len(running) < 5 and time.monotonic() < end:
                left = max(end - time.monotonic(), 1)
                dies = time.monotonic() + rng.uniform(1, 8) if rng.random() < 0.5 else float("inf")
                kind = rng.choice(["plain", "forking", "limited", "strict"])
                running.append((begin(kind, rng.uniform(min(5, left), left)), dies))
            time.sleep(0.05)
            if own_disk:
                disk.turn(ends=time.monotonic() > end)
            for process, dies in list(running):
                if process.poll() is not None:
                    running.remove((process, dies))
                    calls += said(process)[0]
                elif time.monotonic() > dies:
                    process.kill()
                    killed[process.pid] = time.monotonic()
                    process.communicate()
                    running.remove((process, dies))
        count, grown = said(steady)
        missing = compare(path, billed, killed, disk, upstream)
    print(
        f"{calls + count:,} calls of workers that lived, {len(billed):,} billed, {len(killed)} kills which lost "
        f"{missing:,} of them, {len(disk.phases)} full disks"
    )
    print(f"the steady one: {count:,} calls, memory grew by {grown:,} bytes after the first {WARM_UP:,}")
    assert grown < 10_000_000, "memory is not flat"
    print("the books agree")


def compare(
    path: Path, billed: list[tuple[float, int]], killed: dict[int, float], disk: Disk, upstream: Upstream
) -> int:
    def cli(*arguments: str) -> Any:
        command = [sys.executable, "-m", "farthing", *arguments, "--json"]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    bill = cli("report", str(path))
    before = [killed[pid] - moment for moment, pid in billed if pid in killed]
    may_miss = sum(pid in killed and moment > killed[pid] - disk.late(killed[pid]) for moment, pid in billed)
    noted = bill["misses"] + bill["bypassed"]
    missing = len(billed) - noted
    print(f"billed {len(billed):,}; the ledger says {noted:,}; {may_miss:,} were in last seconds of killed processes")
    if 0 < missing <= len(before):
        print(f"as many were billed in the last {sorted(before)[missing - 1]:.2f} s before a kill")
    assert 0 <= missing <= may_miss, "the ledger is not what was billed"
    assert bill["calls"] == bill["hits"] + bill["misses"] + bill["joined"] + bill["errors"] + bill["bypassed"]
    for what, count in (("spent", noted), ("saved", bill["hits"] + bill["joined"])):
        assert Decimal(bill[what]) == count * COST, f"{what} {bill[what]}, not {count * COST}"
    # What the cache serves: every answer is that of its question, and none that is kept is asked for again.
    import farthing

    policy = {"cache": {"path": str(path)}, **POLICY}
    client = farthing.OpenAI(base_url=upstream.url, api_key="k", max_retries=0, policy=policy)
    entries = client.cache.stats()["disk_entries"]
    hits = 0
    for number in range(QUESTIONS):
        messages: Any = [{"role": "user", "content": str(number)}]
        made = client.chat.completions.create(
            model="test-model", messages=messages, extra_headers={"idempotency-key": "0"}
        )
        assert (made.choices[0].message.content or "").split(" ", 1)[0] == str(number)
        hits += farthing.receipt(made).outcome == "hit"
    print(f"{entries:,} answers in the file, all of them served")
    assert hits == entries > 100, f"{entries} entries, {hits} hits"
    client.close()
    check = "import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute('PRAGMA integrity_check').fetchone()[0])"
    done = subprocess.run([sys.executable, "-c", check, str(path)], capture_output=True, text=True)
    assert done.stdout == "ok\n", done.stdout + done.stderr
    moved = [name for name in os.listdir(path.parent) if "corrupt" in name]
    assert not moved, moved
    return missing


if __name__ == "__main__":
    main()
