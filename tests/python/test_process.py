"""What happens to the process: Ctrl-C, fork, exit, garbage, many loops. Each in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from upstream import Reply, Upstream, answer, chat_events, late

HERE = str(Path(__file__).parent)
PRELUDE = """
import asyncio, gc, os, signal, sys, threading, time
sys.path.insert(0, {here!r})
import openai, farthing
from farthing import OpenAI, AsyncOpenAI
URL = {url!r}
MESSAGES = [{{"role": "user", "content": "ping"}}]
def sync(**options): return OpenAI(base_url=URL, api_key="k", max_retries=0, **options)
def asynchronous(**options): return AsyncOpenAI(base_url=URL, api_key="k", max_retries=0, **options)
def ask(client, text="ping", **options):
    messages = [{{"role": "user", "content": text}}]
    return client.chat.completions.create(model="m", messages=messages, **options)
def outcome(made): return farthing.receipt(made).outcome
"""
unix = pytest.mark.skipif(sys.platform == "win32", reason="fork and signals as on Unix")


def start(upstream: Upstream, script: str, **more: str) -> subprocess.Popen[str]:
    source = PRELUDE.format(here=HERE, url=upstream.url) + textwrap.dedent(script)
    environment = {
        **os.environ,
        "PYTHONWARNINGS": "ignore::DeprecationWarning",
        "PYTHONUNBUFFERED": "1",
        "PYTHONFAULTHANDLER": "1",
        **more,
    }
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-c", source],
        stdout=pipe,
        stderr=pipe,
        text=True,
        env=environment,
        start_new_session=True,
    )


def run(upstream: Upstream, script: str, seconds: float = 30, **more: str) -> str:
    """What the script printed; it ended well, in time and without a word on stderr."""
    process = start(upstream, script, **more)
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        # With its children, who hold the pipes open; each says where it stood.
        os.killpg(process.pid, signal.SIGABRT)
        out, err = process.communicate(timeout=10)
        pytest.fail(f"hung; printed {out!r}\n{err[-20_000:]}")
    assert (process.returncode, err) == (0, ""), out + err
    return out.strip()


@pytest.fixture
def hanging(upstream: Upstream) -> Upstream:
    upstream.script = lambda seen, number: (
        Reply(body={}, delay=60) if "hang" in seen.body.decode() else answer(seen, f"pong {number}")
    )
    return upstream


@unix
@pytest.mark.parametrize(
    "call",
    [
        'ask(sync(), "hang")',
        'asyncio.run(ask(asynchronous(), "hang"))',
        'ask(sync(http_client=openai.DefaultHttpxClient()), "hang")',
        "list(ask(sync(), stream=True))",
    ],
)
def test_ctrl_c(hanging: Upstream, call: str) -> None:
    hanging_script = hanging.script
    hanging.script = lambda seen, number: (
        Reply(pieces=chat_events("slow"), pause=60)
        if b'"stream":true' in seen.body.replace(b" ", b"")
        else hanging_script(seen, number)
    )
    process = start(
        hanging,
        f"""
        print("ready")
        try:
            {call}
        except KeyboardInterrupt:
            print(f"{{time.time()}}")
        """,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    end = time.monotonic() + 20
    while not hanging.calls and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(0.3)
    sent = time.time()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    # 100 ms is what it may take; the rest is for a machine that is busy with other tests.
    assert float(out) - sent < 2
    assert hanging.aborted.wait(5) or "http_client" in call


@unix
def test_fork_with_a_live_client(hanging: Upstream) -> None:
    out = run(
        hanging,
        """
        client = sync()
        ask(client)
        busy = threading.Thread(target=ask, args=(client, "hang"), daemon=True)
        busy.start()
        while client.cache.stats()["in_flight"] == 0: time.sleep(0.01)
        pid = os.fork()
        if pid == 0:
            print("child", outcome(ask(client, "from the child")), outcome(ask(client, "from the child")))
            print("child", client.savings().calls, client.cache.stats()["in_flight"])
            sys.stdout.flush()
            del client
            gc.collect()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        print("parent", outcome(ask(client)), client.savings().calls, client.cache.stats()["in_flight"])
        """,
    )
    assert out.splitlines() == ["child miss hit", "child 2 0", "parent hit 2 1"]


@unix
@pytest.mark.parametrize("chance", range(4))
def test_forks_during_the_first_hit(upstream: Upstream, chance: int) -> None:
    """What a thread has half made for the first time, the child makes itself. Half of the runs caught it."""
    out = run(
        upstream,
        """
        client = sync()
        ask(client, "a")
        first = threading.Thread(target=ask, args=(client, "a"))
        children = []
        first.start()
        while first.is_alive():
            pid = os.fork()
            if pid == 0:
                os._exit(0 if [outcome(ask(client, "b")) for _ in range(2)] == ["miss", "hit"] else 1)
            children.append(pid)
        print({os.waitpid(pid, 0)[1] for pid in children} <= {0})
        """,
    )
    assert out == "True"


@unix
def test_fork_in_the_middle_of_a_stream(upstream: Upstream) -> None:
    upstream.script = lambda seen, number: Reply(pieces=chat_events("a long answer"), pause=0.02)
    out = run(
        upstream,
        """
        client = sync()
        stream = ask(client, stream=True)
        next(stream)
        pid = os.fork()
        if pid == 0:
            try:
                list(stream)
            except Exception as error:
                print("child", type(error).__name__, "fork" in str(error), flush=True)
            os._exit(0)
        os.waitpid(pid, 0)
        print("parent", "".join(c.choices[0].delta.content or "" for c in stream))
        """,
    )
    assert out.splitlines() == ["child FarthingError True", "parent a long answer"]


@unix
def test_multiprocessing_by_fork(upstream: Upstream) -> None:
    out = run(
        upstream,
        """
        import multiprocessing
        client = sync()
        ask(client)
        def work(number): return ask(client, str(number % 3)).choices[0].message.content.split()[0]
        with multiprocessing.get_context("fork").Pool(3) as pool:
            print(pool.map(work, range(12)))
        """,
    )
    assert out == str(["pong"] * 12)


@unix
def test_fork_under_a_running_loop(upstream: Upstream) -> None:
    out = run(
        upstream,
        """
        async def main():
            client = asynchronous()
            await ask(client)
            pid = os.fork()
            if pid == 0:
                # asyncio does not carry a running loop into a child; a new one works there.
                print("child", outcome(asyncio.run(ask(client, "child"))), flush=True)
                os._exit(0)
            os.waitpid(pid, 0)
            print("parent", outcome(await ask(client)))
        asyncio.run(main())
        """,
    )
    assert out.splitlines() == ["child miss", "parent hit"]


@pytest.mark.parametrize(
    "flight",
    [
        'threading.Thread(target=ask, args=(sync(), "hang"), daemon=True).start()',
        "stream = ask(sync(), stream=True); next(stream)",
        'loop = asyncio.new_event_loop(); task = loop.create_task(ask(asynchronous(), "hang")); '
        "loop.run_until_complete(asyncio.sleep(0.2))",
        "client = sync(http_client=openai.DefaultHttpxClient()); "
        'threading.Thread(target=ask, args=(client, "hang"), daemon=True).start()',
    ],
    ids=["thread", "stream", "task", "own http client"],
)
def test_exit_with_calls_in_flight(hanging: Upstream, flight: str) -> None:
    process = start(hanging, f"{flight}\ntime.sleep(0.3)\nprint('end')")
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (0, "end\n"), err
    assert "panic" not in err
    assert "Fatal" not in err


def test_exit_at_once(upstream: Upstream) -> None:
    assert run(upstream, "ask(sync()); print('end')") == "end"


def test_a_client_collected_while_a_call_runs(upstream: Upstream) -> None:
    upstream.script = late(0.3)
    out = run(
        upstream,
        """
        async def main():
            client = asynchronous()
            task = asyncio.ensure_future(ask(client))
            await asyncio.sleep(0.1)
            del client
            gc.collect()
            print((await task).choices[0].message.content)
        asyncio.run(main())
        stream = ask(sync(), "s", stream=True)
        gc.collect()
        print(sum(1 for _ in stream) > 3)
        """,
    )
    assert out.splitlines() == ["pong 1", "True"]


def test_the_thread_that_used_it_first_is_gone(upstream: Upstream) -> None:
    """The core's allocator may take the thread that loads it for the main one, and later threads get its number."""
    source = PRELUDE.format(here=HERE, url=upstream.url).replace("from farthing import OpenAI, AsyncOpenAI", "")
    script = """
    def work():
        from farthing import OpenAI
        ask(OpenAI(base_url=URL, api_key="k"))
    for _ in range(20):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    print(farthing.savings().calls)
    """
    command = [sys.executable, "-c", source + textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, "20"), done.stderr


def test_clients_do_not_leak(upstream: Upstream) -> None:
    out = run(
        upstream,
        """
        import weakref
        clients = weakref.WeakSet()
        for number in range(50):
            client = sync(policy={"cache": {"name": f"{number % 3}"}})
            clients.add(client)
            ask(client, str(number))
        del client
        gc.collect()
        print(len(clients))
        """,
    )
    assert out == "0"


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
def test_several_loops(upstream: Upstream, kind: str) -> None:
    if kind == "uvloop":
        pytest.importorskip("uvloop")
    out = run(
        upstream,
        f"""
        import {kind}
        client = asynchronous()
        def work(number):
            loop = {kind}.new_event_loop()
            made = loop.run_until_complete(asyncio.wait_for(ask(client, str(number)), 10))
            loop.close()
            return made
        threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        for number in range(8): assert outcome(work(number)) == "hit"
        print(client.savings().calls)
        """,
    )
    assert out == "16"


def test_a_loop_closed_with_a_call_in_flight(hanging: Upstream) -> None:
    out = run(
        hanging,
        """
        import warnings
        warnings.simplefilter("ignore")
        client = asynchronous()
        loop = asyncio.new_event_loop()
        task = loop.create_task(ask(client, "hang"))
        loop.run_until_complete(asyncio.sleep(0.2))
        task.cancel()
        loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
        loop.close()
        print(outcome(asyncio.run(ask(client))))
        """,
    )
    assert out == "miss"
    assert hanging.aborted.wait(5)


def test_trio_goes_the_sdks_way(upstream: Upstream) -> None:
    pytest.importorskip("trio")
    out = run(
        upstream,
        """
        import trio
        async def main():
            client = asynchronous()
            return [(await ask(client)).choices[0].message.content for _ in range(2)]
        print(trio.run(main))
        """,
    )
    assert out == "['pong 1', 'pong 1']" or out == "['pong 1', 'pong 2']"


def test_import_is_light(upstream: Upstream) -> None:
    out = run(
        upstream,
        """
        import subprocess
        script = "import farthing, sys; print('openai' in sys.modules, 'farthing._core' in sys.modules)"
        print(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout.strip())
        """,
    )
    assert out == "False False"


@pytest.mark.parametrize("version", ["1.99.0", "2.30.9", "4.0.0"])
def test_an_sdk_that_is_too_old(version: str) -> None:
    script = f"""
import openai
openai.__version__ = {version!r}
import farthing
try:
    farthing.OpenAI
except ImportError as error:
    print(isinstance(error, openai.OpenAIError), "openai>=2.31" in str(error), {version!r} in str(error))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("True True True\n", "")
