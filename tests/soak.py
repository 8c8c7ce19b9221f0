"""`make soak`: one cache file under many processes, kills, forks and full disks at random; at the end the books agree.

What the upstream billed, what the ledger in the file says and what the cache serves are compared. A killed process may
lose its last second, and nothing else may be lost. SECONDS says how long (600); the seed is printed, SEED repeats it.
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
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "python"))

from upstream import Reply, Seen, Upstream, answer  # noqa: E402

# How late a killed process's books may be: the second that is promised, and one for a busy machine.
LATE = 2.0

WORKER = """
import os, random, resource, sys, time, warnings
warnings.simplefilter("ignore")
import farthing
url, path, seconds, full = sys.argv[1], sys.argv[2], float(sys.argv[3]), sys.argv[4] == "full"
client = farthing.OpenAI(base_url=url, api_key="k", max_retries=0,
                         policy={"cache": {"path": path, "max_bytes": 400_000, "max_disk_bytes": "64MiB"}})
rng = random.Random(os.urandom(8))
def ask():
    question = f"{rng.randrange(3000)}"
    made = client.chat.completions.create(model="gpt-4.1", messages=[{"role": "user", "content": question}],
                                          extra_headers={"idempotency-key": str(os.getpid())})
    said = made.choices[0].message.content
    assert said.split(" ", 1)[0] == question, (question, said[:20])
def memory():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() if sys.platform == "linux" else 0
ask()
end = time.time() + seconds
count = warm = 0
while time.time() < end:
    ask()
    count += 1
    if count == 20_000:
        warm = memory()
    if full and count % 200 == 0:
        size = os.path.getsize(path)
        soft = size if rng.random() < 0.5 else resource.RLIM_INFINITY
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, resource.RLIM_INFINITY))
    elif not full and rng.random() < 0.0005:
        pid = os.fork()
        if pid == 0:
            for _ in range(20): ask()
            client.cache.flush()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0, "a forked child failed"
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
time.sleep(2.5 if full else 0)
client.cache.flush()
print(count, memory() - warm if warm else 0)
"""


def main() -> None:
    seconds = float(os.environ.get("SECONDS", 600))
    seed = int(os.environ.get("SEED", time.time_ns() % 10**6))
    rng = random.Random(seed)
    print(f"soak of {seconds:g} seconds, seed {seed}", flush=True)
    billed: list[tuple[float, int]] = []
    lock = threading.Lock()

    def script(seen: Seen, number: int) -> Reply:
        with lock:
            billed.append((time.monotonic(), int(seen.headers["idempotency-key"])))
        question = seen.json["messages"][0]["content"]
        return answer(seen, f"{question} " + "word " * (int(question) % 700))

    upstream = Upstream(script)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "answers.db"
        killed: dict[int, float] = {}
        running: list[tuple[subprocess.Popen[str], float | None]] = []
        calls = growth = kills = 0
        end = time.monotonic() + seconds
        while time.monotonic() < end or running:
            while len(running) < 6 and time.monotonic() < end:
                left = max(end - time.monotonic(), 1)
                lives = rng.uniform(min(5, left), left)
                dies = time.monotonic() + rng.uniform(1, 8) if rng.random() < 0.5 else None
                kind = "full" if rng.random() < 0.3 else "plain"
                command = [sys.executable, "-c", WORKER, upstream.url, str(path), str(lives), kind]
                running.append((subprocess.Popen(command, stdout=subprocess.PIPE, text=True), dies))
            time.sleep(0.05)
            for process, dies in list(running):
                if dies is not None and time.monotonic() > dies and process.poll() is None:
                    process.kill()
                    killed[process.pid] = time.monotonic()
                    kills += 1
                if process.poll() is not None:
                    out, _ = process.communicate()
                    running.remove((process, dies))
                    if process.pid not in killed:
                        assert process.returncode == 0, "a worker failed"
                        count, grown = map(int, out.split())
                        calls, growth = calls + count, max(growth, grown)
        compare(path, billed, killed, upstream)
    print(
        f"{calls:,} calls of workers that lived, {len(billed):,} billed, {kills} kills, memory grew by {growth:,} bytes"
    )
    assert growth < 10_000_000, "memory is not flat"
    print("the books agree")


def compare(path: Path, billed: list[tuple[float, int]], killed: dict[int, float], upstream: Upstream) -> None:
    def cli(*arguments: str) -> Any:
        command = [sys.executable, "-m", "farthing", *arguments, "--json"]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    bill = cli("report", str(path))
    lost = sum(pid in killed and moment > killed[pid] - LATE for moment, pid in billed)
    print(f"billed {len(billed):,}; the ledger says {bill['misses']:,}; of killed ones' last seconds {lost:,}")
    assert len(billed) - lost <= bill["misses"] <= len(billed), "the ledger is not what was billed"
    assert bill["calls"] == bill["hits"] + bill["misses"] + bill["joined"] + bill["errors"] + bill["bypassed"]
    # What the cache serves: every answer is that of its question, and none is asked for twice.
    import farthing

    client = farthing.OpenAI(base_url=upstream.url, api_key="k", max_retries=0, policy={"cache": {"path": str(path)}})
    entries = client.cache.stats()["disk_entries"]
    hits = 0
    for number in range(3000):
        messages: Any = [{"role": "user", "content": str(number)}]
        made = client.chat.completions.create(
            model="gpt-4.1", messages=messages, extra_headers={"idempotency-key": "0"}
        )
        assert (made.choices[0].message.content or "").split(" ", 1)[0] == str(number)
        hits += farthing.receipt(made).outcome == "hit"
    assert hits == entries, f"{entries} entries, {hits} hits"
    check = "import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute('PRAGMA integrity_check').fetchone()[0])"
    done = subprocess.run([sys.executable, "-c", check, str(path)], capture_output=True, text=True)
    assert done.stdout == "ok\n", done.stdout + done.stderr


if __name__ == "__main__":
    main()
