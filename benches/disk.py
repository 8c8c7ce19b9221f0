"""`make bench ARGS=disk`: the cache file beside memory, and beside what SQLite itself takes for a look-up.

A file of 1,000,000 answers is made by copying rows within SQLite; those that are looked up were written by farthing.
"""

from __future__ import annotations

import itertools
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

COUNT = 2000


def asked(n: int) -> dict[str, Any]:
    return {"model": "gpt-4.1", "messages": [{"role": "user", "content": f"What is a farthing? ({n})"}]}


def client(url: str, path: str, **cache: Any) -> Any:
    import farthing

    policy = {"cache": {"path": path, "max_disk_bytes": "64GiB", **cache}}
    return farthing.OpenAI(base_url=url, api_key="sk-bench", max_retries=0, policy=policy)


def times(ask: Any, count: int) -> float:
    marks = [time.perf_counter()]
    for n in range(count):
        ask(n)
        marks.append(time.perf_counter())
    return statistics.median(b - a for a, b in itertools.pairwise(marks))


def fill(url: str, path: str, count: int) -> None:
    """Write throughput: what the writer's thread takes, behind calls that are misses."""
    ours = client(url, path)
    ours.chat.completions.create(**asked(-1))
    started = time.perf_counter()
    for n in range(count):
        ours.chat.completions.create(**asked(n))
    asked_for = time.perf_counter() - started
    ours.cache.flush()
    waited = time.perf_counter() - started - asked_for
    print(f"{asked_for / count * 1e6:.1f} {count / (asked_for + waited):.0f} {waited * 1e3:.1f}")


def hit(url: str, path: str, count: int) -> None:
    """Hits from disk in a new process, then the same from memory."""
    ours = client(url, path)
    once = lambda n: ours.chat.completions.create(**asked(n))  # noqa: E731
    once(-1)
    disk = times(once, count)
    assert ours.cache.stats()["disk_hits"] >= count
    times(once, count)
    print(f"{disk * 1e6:.1f} {times(once, count) * 1e6:.1f}")


def floor(_: str, path: str, count: int) -> None:
    """SQLite alone: the same rows by their place, with Python's own module."""
    tables = sqlite3.connect(path)
    places = [row[0] for row in tables.execute("SELECT id FROM entry ORDER BY used DESC LIMIT ?", (count,))]
    look = lambda n: tables.execute("SELECT * FROM entry WHERE id = ?", (places[n],)).fetchone()  # noqa: E731
    print(f"{times(look, len(places)) * 1e6:.1f}")


def start_up(url: str, path: str, _: int) -> None:
    """From no client to the first answer, the imports and a first client left out."""
    import openai

    import farthing

    plain = farthing.OpenAI(base_url=url, api_key="sk-bench", policy={"cache": {"name": "warm"}})
    plain.chat.completions.create(**asked(-2)), plain.chat.completions.create(**asked(-2))
    started = time.perf_counter()
    ours = client(url, path)
    made = time.perf_counter() - started
    answer = ours.chat.completions.create(**asked(0))
    first = time.perf_counter() - started
    assert farthing.receipt(answer).outcome == "hit", openai.__version__
    print(f"{made * 1e3:.1f} {first * 1e3:.1f}")


def grow(path: str, entries: int) -> None:
    """Copies rows until there are so many."""
    tables = sqlite3.connect(path)
    (there,) = tables.execute("SELECT count(*) FROM entry").fetchone()
    tables.execute("CREATE TEMP TABLE one AS SELECT * FROM entry LIMIT 1")
    tables.execute("UPDATE one SET used = 0, expires = NULL")
    names = [row[1] for row in tables.execute("PRAGMA table_info(entry)") if row[1] not in ("id", "key")]
    listed = ", ".join(names)
    tables.execute(
        f"""WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {max(entries - there, 1)})
            INSERT OR IGNORE INTO entry (id, key, {listed}) SELECT random(), randomblob(32), {listed} FROM n, one"""
    )
    tables.commit()
    tables.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    tables.close()


def report(url: str, scale: float) -> None:
    def run(part: str, path: str, count: int) -> list[str]:
        done = subprocess.run([sys.executable, __file__, part, url, path, str(count)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    print(
        f"\n{'cache file':<38}{'hit disk us':>14}{'hit memory us':>14}{'SQLite us':>14}{'start ms':>14}{'first ms':>14}"
    )
    count = max(int(COUNT * scale), 50)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "answers.db")
        miss, rate, waited = run("fill", path, count)
        for entries in (count, 100_000, 1_000_000):
            if entries > count:
                grow(path, entries)
            (disk, memory), (least,), (made, first) = (run(part, path, count) for part in ("hit", "floor", "start_up"))
            cells = (disk, memory, least, made, first)
            more = "  reach start <= 50" if entries == 1_000_000 else ""
            print(f"{f'{entries:,} answers':<38}" + "".join(f"{cell:>14}" for cell in cells) + more, flush=True)
        megabytes = Path(path).stat().st_size / 1e6
        print(
            f"misses {miss} us each, written {rate} a second with the call; last wait {waited} ms; {megabytes:,.0f} MB"
        )


if __name__ == "__main__":
    part, url, path, count = sys.argv[1:]
    {"fill": fill, "hit": hit, "floor": floor, "start_up": start_up}[part](url, path, int(count))
