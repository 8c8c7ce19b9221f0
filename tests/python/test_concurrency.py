"""Servers, pools, test runners, loops and notebooks around one client: the frameworks themselves, not their primitives.

fork, spawn and signals by themselves are in `test_process.py` and `test_processes.py`, event loops in `test_hub.py`.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_process import HERE, PRELUDE, run, unix
from upstream import Reply, Seen, Upstream, answer, chat_events, late


def echo(seen: Seen, number: int) -> Reply:
    return answer(seen, "re: " + str(seen.json["messages"][0]["content"]))


# gunicorn.

APPLICATION = """
client = sync(policy={{"cache": {{"path": {path!r}}}}})
ask(client, "preloaded")
client.cache.flush()
threading.Thread(target=lambda: [ask(client, f"busy {{n}}") for n in range(100000)], daemon=True).start()

def app(environ, start_response):
    question = environ["PATH_INFO"][1:]
    made = ask(client, question)
    start_response("200 OK", [("x-pid", str(os.getpid())), ("x-outcome", outcome(made))])
    return [made.choices[0].message.content.encode()]
"""


@contextlib.contextmanager
def gunicorn(upstream: Upstream, folder: Path, *options: str) -> Iterator[int]:
    """The port of a server whose client was made, and is busy, before it forks; it ends well and says nothing bad."""
    pytest.importorskip("gunicorn")
    source = PRELUDE.format(here=HERE, url=upstream.url) + APPLICATION.format(path=str(folder / "answers.db"))
    (folder / "served.py").write_text(source)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "gunicorn", "--preload", "-b", f"127.0.0.1:{port}", *options, "served:app"]
    with open(folder / "log", "w+") as log:
        server = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
        try:
            end = time.monotonic() + 60
            while time.monotonic() < end and server.poll() is None:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                time.sleep(0.05)
            yield port
        finally:
            server.send_signal(signal.SIGTERM)
            try:
                code = server.wait(30)
            except subprocess.TimeoutExpired:
                server.kill()
                code = None
            log.seek(0)
            said = log.read()
    assert code == 0, said[-3000:]
    for word in ("panic", "Traceback", "FarthingWarning", "CRITICAL", "ERROR"):
        assert word not in said, said[-3000:]


def get(port: int, path: str) -> tuple[str, str, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/" + path)
    response = connection.getresponse()
    said = response.read().decode()
    assert response.status == 200, said
    return said, response.headers["x-pid"], response.headers["x-outcome"]


@unix
@pytest.mark.once
@pytest.mark.parametrize("kind", ["sync", "gthread"])
def test_gunicorn_with_a_client_made_before_the_fork(upstream: Upstream, tmp_path: Path, kind: str) -> None:
    upstream.script = echo
    threads = ["--threads", "4"] if kind == "gthread" else []
    with gunicorn(upstream, tmp_path, "-w", "3", "-k", kind, *threads) as port:
        assert get(port, "preloaded")[::2] == ("re: preloaded", "hit")
        seen = [get(port, f"q{number % 10}") for number in range(60)]
    assert [said for said, *_ in seen] == [f"re: q{number % 10}" for number in range(60)]
    # What one worker asks is in the file a second later, so that another may ask it as well; none asks twice.
    outcomes: dict[tuple[str, str], list[str]] = {}
    for said, pid, result in seen:
        outcomes.setdefault((said, pid), []).append(result)
    assert all(result == "hit" for results in outcomes.values() for result in results[1:])


@unix
@pytest.mark.once
def test_gunicorn_whose_workers_are_renewed(upstream: Upstream, tmp_path: Path) -> None:
    """Each worker ends after a few requests, and the master forks again, many times."""
    upstream.script = echo
    with gunicorn(upstream, tmp_path, "-w", "2", "--max-requests", "3") as port:
        seen = [get(port, f"q{number}") for number in range(30)]
    assert [said for said, *_ in seen] == [f"re: q{number}" for number in range(30)]
    assert len({pid for _, pid, _ in seen}) > 4


# Pools.


@pytest.mark.once
@pytest.mark.parametrize("how", ["fork", "spawn", "forkserver"])
def test_a_pool_of_processes(upstream: Upstream, tmp_path: Path, how: str) -> None:
    """`concurrent.futures`, with a client of the module, which a forked worker inherits and another makes anew."""
    if how != "spawn" and sys.platform == "win32":
        pytest.skip("processes as on Unix")
    upstream.script = echo
    file = tmp_path / "script.py"
    file.write_text(
        PRELUDE.format(here=HERE, url=upstream.url)
        + textwrap.dedent(
            f"""
            import concurrent.futures, multiprocessing
            client = sync()
            async_client = asynchronous()
            def work(number):
                said = ask(client, f"q{{number}}").choices[0].message.content
                again = asyncio.run(ask(async_client, f"q{{number}}"))
                return said, again.choices[0].message.content, outcome(again)
            if __name__ == "__main__":
                ask(client, "the parent's")
                asyncio.run(ask(async_client, "the parent's"))
                context = multiprocessing.get_context({how!r})
                with concurrent.futures.ProcessPoolExecutor(3, mp_context=context) as pool:
                    for number, made in enumerate(pool.map(work, range(12))):
                        assert made == (f"re: q{{number}}", f"re: q{{number}}", "hit"), made
                with concurrent.futures.ThreadPoolExecutor(8) as pool:
                    made = [each[0] for each in pool.map(work, range(40))]
                    assert made == [f"re: q{{number}}" for number in range(40)]
                print(outcome(ask(client, "the parent's")))
            """
        )
    )
    done = subprocess.run([sys.executable, file], capture_output=True, text=True, timeout=100)
    assert (done.stdout, done.returncode) == ("hit\n", 0), done.stderr


def test_clients_pickle_as_the_sdks_do(upstream: Upstream) -> None:
    """Which is to say, not at all: a pool says so at once."""
    out = run(
        upstream,
        """
        import pickle
        for client in (openai.OpenAI(api_key="k"), sync()):
            try: pickle.dumps(client)
            except Exception as error: print(type(error).__name__)
        """,
    )
    first, second = out.splitlines()
    assert first == second


# pytest-xdist.


@pytest.mark.once
def test_pytest_xdist_with_one_cache_file(upstream: Upstream, tmp_path: Path) -> None:
    """The first run asks each question about once, the second not at all."""
    pytest.importorskip("xdist")
    upstream.script = echo
    path = tmp_path / "answers.db"
    (tmp_path / "test_suite.py").write_text(
        PRELUDE.format(here=HERE, url=upstream.url)
        + textwrap.dedent(
            f"""
            import pytest
            @pytest.fixture(scope="session")
            def client():
                return sync(policy={{"cache": {{"path": {str(path)!r}}}}})
            @pytest.mark.parametrize("number", range(40))
            def test_it(client, number):
                assert ask(client, f"q{{number % 8}}").choices[0].message.content == f"re: q{{number % 8}}"
            """
        )
    )
    command = [sys.executable, "-m", "pytest", "-q", "-n", "3", "-p", "no:cacheprovider", "-c", os.devnull]
    asked = []
    for _ in range(2):
        done = subprocess.run([*command, str(tmp_path)], cwd=tmp_path, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "40 passed" in done.stdout
        asked.append(upstream.calls)
    assert 8 <= asked[0] <= 3 * 8, "each worker asks a question once, at most"
    assert asked[1] == asked[0]


# trio and anyio.


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_anyio(upstream: Upstream, backend: str) -> None:
    """All that works under the SDK works: calls, streams, errors, raw responses, task groups, time limits."""
    pytest.importorskip("trio")
    upstream.script = lambda seen, number: (
        Reply(body={}, delay=30)
        if b"hang" in seen.body
        else Reply(404, {"error": {"message": "no"}})
        if b"wrong" in seen.body
        else answer(seen)
    )
    out = run(
        upstream,
        f"""
        import anyio
        async def main(client):
            said = []
            said.append((await ask(client)).choices[0].message.content)
            pieces = [p async for p in await ask(client, "s", stream=True)]
            said.append("".join(p.choices[0].delta.content or "" for p in pieces if p.choices))
            raw = await client.chat.completions.with_raw_response.create(model="m", messages=MESSAGES)
            said.append(raw.parse().choices[0].message.content)
            said.append((await client.responses.create(model="m", input="x")).output_text)
            said.append((await client.embeddings.create(model="m", input="x")).data[0].embedding)
            try: await ask(client, "wrong")
            except openai.NotFoundError as error: said.append(str(error.code))
            try: await ask(client, "hang", timeout=0.3)
            except openai.APITimeoutError: said.append("timeout")
            with anyio.move_on_after(0.3) as scope: await ask(client, "hang")
            said.append(scope.cancelled_caught)
            async with client.chat.completions.stream(model="m", messages=MESSAGES) as stream:
                said.append((await stream.get_final_completion()).choices[0].message.content)
            got = []
            async def one(number): got.append((await ask(client, str(number))).choices[0].message.content)
            async with anyio.create_task_group() as group:
                for number in range(10): group.start_soon(one, number)
            said.append(len(got))
            await client.close()
            return said
        plain = openai.AsyncOpenAI(base_url=URL, api_key="k", max_retries=0)
        one, two = (anyio.run(main, client, backend={backend!r}) for client in (plain, asynchronous()))
        print(one == two, one)
        """,
    )
    assert out.startswith("True"), out
    assert upstream.aborted.wait(5)


def test_trio_finds_what_others_stored(upstream: Upstream) -> None:
    pytest.importorskip("trio")
    out = run(
        upstream,
        """
        import trio
        ask(sync())
        async def main():
            client = asynchronous()
            print(outcome(await ask(client)))
            stream = await ask(client, stream=True)
            print("".join([p.choices[0].delta.content or "" async for p in stream if p.choices]), outcome(stream))
            raw = await client.chat.completions.with_raw_response.create(model="m", messages=MESSAGES)
            print(raw.headers["x-farthing-cache"])
        trio.run(main)
        """,
    )
    assert out.splitlines() == ["hit", "pong 1 hit", "hit"]
    assert upstream.calls == 1


# Notebooks: a loop runs already.


@pytest.mark.parametrize("http", ["", "sdk"])
def test_a_sync_client_in_a_running_loop(upstream: Upstream, http: str) -> None:
    out = run(
        upstream,
        """
        async def main():
            client, later = sync(), asynchronous()
            print(outcome(ask(client, "a")), outcome(await ask(later, "a")))
            print(outcome(await ask(later, "b")), outcome(ask(client, "b")))
            print(len(list(ask(client, "c", stream=True))) > 3, outcome(await ask(later, "c")))
            print(outcome(await asyncio.to_thread(ask, client, "d")), outcome(ask(client, "d")))
        asyncio.run(main())
        """,
        FARTHING_HTTP=http,
    )
    assert out.splitlines() == ["miss hit", "miss hit", "True hit", "miss hit"]


HELD_UP = {
    "a sync call": "said = ask(client)",
    "a sync stream": "said = ask(client, stream=True)",
    "a sync call of a thread": "said = threads.submit(ask, client).result()",
    "another loop": "said = threads.submit(asyncio.run, ask(asynchronous(timeout=None))).result()",
}
"""How a coroutine holds up its own loop."""


@pytest.mark.parametrize("how", HELD_UP)
@pytest.mark.parametrize("sender", ["", "sdk", "hooks"])
def test_what_holds_a_loop_up_does_not_wait_for_it(upstream: Upstream, sender: str, how: str) -> None:
    """An equal call is in flight on this very loop, and may be able to go on only when the other is done. With hooks
    its own http client sends it, and Rust the other one."""
    upstream.script = late(0.3)
    out = run(
        upstream,
        f"""
        from concurrent.futures import ThreadPoolExecutor
        threads = ThreadPoolExecutor(1)
        async def seen(request): pass
        async def main():
            client, later = sync(timeout=None), asynchronous(timeout=None)
            if {sender == "hooks"}: later._client.event_hooks["request"].append(seen)
            task = asyncio.create_task(ask(later))
            await asyncio.sleep(0.1)
            {HELD_UP[how]}
            if isinstance(said, openai.Stream): print(sum(1 for _ in said) > 2)
            else: print(said.choices[0].message.content.startswith("pong"))
            print((await task).choices[0].message.content.startswith("pong"), client.cache.stats()["in_flight"])
        asyncio.run(main())
        """,
        FARTHING_HTTP=sender.replace("hooks", ""),
    )
    assert out.splitlines() == ["True", "True 0"]


def test_loops_in_loops(upstream: Upstream) -> None:
    """`nest_asyncio`, as notebooks and some frameworks have it: a loop is run again while it runs."""
    pytest.importorskip("nest_asyncio2")
    upstream.script = echo
    out = run(
        upstream,
        """
        import nest_asyncio2
        nest_asyncio2.apply()
        client = asynchronous()
        def inner(text):
            return asyncio.get_event_loop().run_until_complete(ask(client, text)).choices[0].message.content
        async def main():
            outer = asyncio.ensure_future(ask(client, "outer"))
            said = [inner(f"inner {n}") for n in range(3)] + [inner("inner 1"), asyncio.run(ask(client, "run")).model]
            said.append((await outer).choices[0].message.content)
            stream = await ask(client, "s", stream=True)
            said.append("".join([p.choices[0].delta.content or "" async for p in stream if p.choices]))
            return said
        print(asyncio.run(main()))
        """,
    )
    said = ["re: inner 0", "re: inner 1", "re: inner 2", "re: inner 1", "test-model", "re: outer", "re: s"]
    assert out == str(said)


@pytest.mark.parametrize("http", ["", "sdk"])
def test_gevent_goes_the_sdks_way(upstream: Upstream, http: str) -> None:
    """Its threads are one: whoever blocks there holds all of them up."""
    pytest.importorskip("gevent")
    upstream.script = late(0.3, echo)
    code = """
    from gevent import monkey; monkey.patch_all()
    import gevent, farthing, sys
    client = farthing.OpenAI(base_url=sys.argv[1], api_key="k", max_retries=0, timeout=20)
    turns = []
    def turn():
        while True: turns.append(1); gevent.sleep(0.01)
    def ask(text):
        messages = [{"role": "user", "content": text}]
        return client.chat.completions.create(model="m", messages=messages).choices[0].message.content
    gevent.spawn(turn)
    jobs = [gevent.spawn(ask, str(number)) for number in range(5)]
    gevent.joinall(jobs)
    print([job.value for job in jobs], len(turns) > 5)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), upstream.url]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, env={**os.environ, "FARTHING_HTTP": http}
    )
    assert (done.returncode, done.stdout.strip()) == (0, f"{[f're: {n}' for n in range(5)]} True"), done.stderr


def test_uvloop_is_cancelled_in_the_middle_of_a_stream(upstream: Upstream) -> None:
    pytest.importorskip("uvloop")
    upstream.script = lambda seen, number: Reply(pieces=chat_events("a long answer"), pause=0.2)
    out = run(
        upstream,
        """
        import uvloop
        async def main():
            client, got = asynchronous(), []
            async def read():
                async for piece in await ask(client, stream=True): got.append(piece)
            task = asyncio.create_task(read())
            while not got: await asyncio.sleep(0.01)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            print(task.cancelled(), client.cache.stats()["stored"])
            for _ in range(500):
                if not client.cache.stats()["in_flight"]: break
                await asyncio.sleep(0.01)
            print(client.cache.stats()["in_flight"])
        uvloop.run(main())
        """,
    )
    assert out.splitlines() == ["True 0", "0"]
    assert upstream.aborted.wait(5)
