"""One cache file under many processes: written together, killed, forked, spawned, ended in each state."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_disk import report, sql
from test_process import run, start, unix
from upstream import Reply, Seen, Upstream, answer

pytestmark = pytest.mark.once

SHARED = """
import multiprocessing, random
PATH = {path!r}
def shared(**more):
    return sync(policy={{"cache": {{"path": PATH, **more}}}})
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "answers.db"


@pytest.fixture
def echo(upstream: Upstream) -> Upstream:
    """Each answer names its question, so that a wrong one is seen."""
    upstream.script = lambda seen, number: answer(seen, "re: " + seen.json["messages"][0]["content"])
    return upstream


def shared(path: Path, script: str) -> str:
    import textwrap

    return SHARED.format(path=str(path)) + textwrap.dedent(script)


WORK = """
client = shared()
rng = random.Random(os.getpid())
end = time.time() + float({seconds})
while time.time() < end:
    question = f"q{{rng.randrange(400)}} " + "x" * rng.randrange(3000)
    question = question[: 5 + hash(question[:4]) % 2000]
    made = ask(client, question)
    assert made.choices[0].message.content == "re: " + question, "another's answer"
print(client.savings().calls, client.savings().misses, dict(client.savings().faults))
"""


def test_eight_processes(echo: Upstream, path: Path) -> None:
    seconds = float(os.environ.get("SECONDS", 4))
    running = [start(echo, shared(path, WORK.format(seconds=seconds))) for _ in range(8)]
    calls = misses = 0
    for process in running:
        out, err = process.communicate(timeout=seconds + 90)
        assert (process.returncode, err) == (0, ""), out + err
        one, two, faults = out.strip().split(" ", 2)
        calls, misses = calls + int(one), misses + int(two)
        assert faults == "{}"
    bill = report(path)
    assert (bill.calls, bill.misses, bill.errors) == (calls, misses, 0)
    assert bill.misses == echo.calls
    assert bill.hits + bill.misses + bill.joined == bill.calls
    # No entry was lost.
    asked = {seen.json["messages"][0]["content"] for seen in echo.seen}
    assert sql(path, "SELECT count(*) FROM entry") == [[len(asked)]]
    assert sql(path, "PRAGMA integrity_check") == [["ok"]]


KILLED = """
client = shared()
print("ready", flush=True)
number = 0
while True:
    ask(client, f"{os.getpid()} {number}")
    number += 1
"""


@unix
def test_killed_again_and_again(echo: Upstream, path: Path) -> None:
    rng = random.Random(7)
    times: list[float] = []
    script = echo.script

    def timed(seen: Seen, number: int) -> Reply:
        times.append(time.monotonic())
        return script(seen, number)

    echo.script = timed
    late = 0
    for _ in range(10):
        process = start(echo, shared(path, KILLED))
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0.2, 1.5))
        process.kill()
        killed = time.monotonic()
        process.communicate()
        # A second of writing behind; a second of a machine that is busy with other tests.
        late += sum(killed - 2 < moment for moment in times)
        times.clear()
        assert sql(path, "PRAGMA integrity_check") == [["ok"]]
    bill = report(path)
    assert echo.calls - late <= bill.misses <= echo.calls
    (kept,) = sql(path, "SELECT count(*) FROM entry")
    assert echo.calls - late <= kept[0] <= echo.calls


@unix
@pytest.mark.parametrize("how", ["fork", "spawn", "forkserver"])
def test_children(echo: Upstream, path: Path, tmp_path: Path, how: str) -> None:
    from test_process import HERE, PRELUDE

    script = PRELUDE.format(here=HERE, url=echo.url) + shared(
        path,
        f"""
        def work(number):
            client = shared()
            return [ask(client, f"{{number % 3}} {{seed}}").choices[0].message.content for seed in range(5)]
        if __name__ == "__main__":
            client = shared()
            ask(client, "the parent's")
            with multiprocessing.get_context({how!r}).Pool(4) as pool:
                made = pool.map(work, range(24))
                pool.close()
                pool.join()
            assert made == [[f"re: {{number % 3}} {{seed}}" for seed in range(5)] for number in range(24)]
            assert outcome(ask(client, "the parent's")) == "hit"
            client.cache.flush()
            print("ok")
        """,
    )
    # Spawned children import the script.
    file = tmp_path / "script.py"
    file.write_text(script)
    done = subprocess.run([sys.executable, file], capture_output=True, text=True, timeout=100)
    assert (done.stdout, done.returncode) == ("ok\n", 0), done.stderr
    bill = report(path)
    assert bill.calls == 24 * 5 + 2
    assert bill.misses == echo.calls
    assert sql(path, "SELECT count(*) FROM entry") == [[16]]


@unix
def test_forks_with_an_open_store(echo: Upstream, path: Path) -> None:
    """100 of 100, with threads that read and write the file at the time of the fork."""
    out = run(
        echo,
        shared(
            path,
            """
            client = shared(max_bytes=20_000)
            # Not in the threads: Python 3.11 guards a first use (cached_property) by a lock that a child would inherit.
            ask(client, "first")
            stop = threading.Event()
            def busy(name):
                number = 0
                while not stop.is_set():
                    ask(client, f"{name} {number % 50}")
                    number += 1
            threads = [threading.Thread(target=busy, args=(n,), daemon=True) for n in range(3)]
            for thread in threads: thread.start()
            good = 0
            for number in range(100):
                pid = os.fork()
                if pid == 0:
                    made = [ask(client, f"child {number}"), ask(client, f"child {number - 1}")]
                    client.cache.flush()
                    right = [m.choices[0].message.content for m in made]
                    right = right == [f"re: child {number}", f"re: child {number - 1}"]
                    os._exit(0 if right and (number == 0 or outcome(made[1]) == "hit") else 1)
                assert ask(client, f"parent {number}").choices[0].message.content == f"re: parent {number}"
                good += os.waitpid(pid, 0)[1] == 0
            stop.set()
            for thread in threads: thread.join()
            client.cache.flush()
            print(good, dict(client.savings().faults))
            """,
        ),
        seconds=100,
    )
    assert out == "100 {}"
    assert report(path).misses == echo.calls
    assert sql(path, "PRAGMA integrity_check") == [["ok"]]


@unix
def test_a_fork_in_a_thread_with_calls_in_flight(echo: Upstream, path: Path) -> None:
    script = echo.script

    def slow(seen: Seen, number: int) -> Reply:
        reply = script(seen, number)
        reply.delay = 0.5 if b"slow" in seen.body else 0
        return reply

    echo.script = slow
    out = run(
        echo,
        shared(
            path,
            """
            client = shared()
            said = []
            flight = threading.Thread(target=lambda: said.append(ask(client, "slow").choices[0].message.content))
            flight.start()
            while client.cache.stats()["in_flight"] == 0: time.sleep(0.01)
            def fork():
                pid = os.fork()
                if pid == 0:
                    made = ask(client, "slow")
                    client.cache.flush()
                    os._exit(0 if made.choices[0].message.content == "re: slow" else 1)
                said.append(os.waitpid(pid, 0)[1])
            thread = threading.Thread(target=fork)
            thread.start(), thread.join(), flight.join()
            client.cache.flush()
            print(sorted(map(str, said)), outcome(ask(client, "slow")))
            """,
        ),
    )
    assert out == "['0', 're: slow'] hit"
    assert report(path).calls == 3


EXITS = {
    "at the end": "",
    "by sys.exit": "sys.exit(0)",
    "by an atexit handler": "import atexit; atexit.register(lambda: ask(client, 'late'))",
    "with the client deleted": "del client; gc.collect()",
    "in a thread's middle": """
threading.Thread(target=lambda: [ask(client, f"t{n}") for n in range(10**6)], daemon=True).start()
time.sleep(0.3)
""",
}


@pytest.mark.parametrize("state", EXITS)
def test_exits(echo: Upstream, path: Path, state: str) -> None:
    process = start(echo, shared(path, 'client = shared()\nask(client, "asked")\nprint("end")\n') + EXITS[state])
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, "end\n"), err
    assert "panic" not in err
    bill = report(path)
    assert bill.misses >= 1
    asked = 2 if "handler" in state else 1
    assert sql(path, "SELECT count(*) FROM entry")[0][0] >= asked


@unix
def test_killed_by_a_signal_that_python_handles(echo: Upstream, path: Path) -> None:
    process = start(
        echo, shared(path, 'client = shared()\nask(client, "asked")\nprint("on", flush=True)\ntime.sleep(60)')
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert report(path).misses == 1


@unix
def test_a_fork_behind_pythons_back(echo: Upstream, path: Path) -> None:
    """As uwsgi does it: the child is told, its parent was not. The file is left alone, the calls go on."""
    out = run(
        echo,
        shared(
            path,
            """
            from farthing import _core
            client = shared()
            ask(client, "first")
            client.cache.flush()
            # What a fork in C leaves out.
            _core.after_fork_in_child()
            import warnings
            warnings.simplefilter("ignore")
            print(outcome(ask(client, "first")), outcome(ask(client, "first")), dict(client.savings().faults))
            """,
        ),
    )
    assert out == "miss hit {'cache file: forked': 1}"
