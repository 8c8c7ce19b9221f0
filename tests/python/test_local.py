"""Real models behind real HTTP: the smallest one, through the dispatcher, with farthing in front."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time

import openai
import pytest
from conftest import Face, text

import farthing
from farthing.local import LocalServer

pytestmark = pytest.mark.local
pytest.importorskip("xllamacpp", reason='pip install "farthing[local]"')
NAME = "smollm2-135m"
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture
def server(local_server: LocalServer) -> LocalServer:
    return local_server


@pytest.mark.parametrize("plain_first", [True, False])
def test_a_real_model(face: Face, server: LocalServer, plain_first: bool) -> None:
    policy = {
        "models": {NAME: {"input": 1, "output": 2}},
        "cache": {"name": f"{server.base_url} {plain_first} {face.is_async}"},
    }
    client = face.client(server.base_url, policy={**policy, "aliases": {"chat": NAME}})
    asked = {"model": "chat", "messages": QUESTION, "temperature": 0, "seed": 1, "max_tokens": 10}
    before = server.stats()[NAME]
    if plain_first:
        answer = face.chat(client, **asked).choices[0].message.content
        again = text(face.stream(client, **asked))
    else:
        answer = text(face.stream(client, **asked))
        again = face.chat(client, **asked).choices[0].message.content
    assert answer == again
    assert answer
    after = server.stats()[NAME]
    bill = client.savings()
    assert after["calls"] == before["calls"] + 1
    assert bill.prompt_tokens == after["prompt_tokens"] - before["prompt_tokens"]
    assert bill.completion_tokens == after["completion_tokens"] - before["completion_tokens"]
    assert bill.spent == bill.saved > 0
    assert bill.estimated_spent == 0


def test_equal_questions_at_once(face: Face, server: LocalServer) -> None:
    client = face.client(server.base_url)
    before = server.stats()[NAME]["calls"]
    asked = {"model": NAME, "messages": QUESTION, "max_tokens": 8, "temperature": 0}
    answers = face.together(*[lambda: client.chat.completions.create(**asked)] * 6)
    assert len({a.choices[0].message.content for a in answers}) == 1
    assert server.stats()[NAME]["calls"] == before + 1


@pytest.mark.parametrize("form", ["json", "lines"])
def test_packs_of_a_real_model(face: Face, server: LocalServer, form: str) -> None:
    """A model that small keeps to a pack badly: each question has an answer all the same, and each token its payer."""
    batch = {"models": [NAME], "window_ms": 0, "format": form, "always": True}
    cache = {"name": f"packs {form} {face.is_async}"}
    policy = {"models": {NAME: {"input": 1, "output": 2}}, "batch": batch, "cache": cache}
    client = face.client(server.base_url, policy=policy)
    before = server.stats()[NAME]
    system = "Answer each question with one word."
    capitals = [f"What is the capital of {country}?" for country in ("France", "Spain", "Italy", "Egypt")]

    async def later() -> list[openai.types.chat.ChatCompletion]:
        answers: list[openai.types.chat.ChatCompletion] = await client.farthing.map(capitals, **asked)
        return answers

    asked = {"model": NAME, "system": system, "temperature": 0, "seed": 1, "max_tokens": 8, "progress": False}
    answers = face.run(later) if face.is_async else client.farthing.map(capitals, **asked)
    assert len(answers) == 4 and all(answer.choices[0].message.content for answer in answers)
    after, bill = server.stats()[NAME], client.savings()
    assert bill.prompt_tokens == after["prompt_tokens"] - before["prompt_tokens"]
    assert bill.completion_tokens == after["completion_tokens"] - before["completion_tokens"]
    receipts = [farthing.receipt(answer) for answer in answers]
    assert sum(receipt.cost for receipt in receipts if receipt and receipt.cost) == bill.spent > 0


def test_responses_of_a_real_model(face: Face, server: LocalServer) -> None:
    client = face.client(server.base_url)
    asked = {"model": NAME, "input": "Say hello.", "max_output_tokens": 8, "temperature": 0}
    first, second = (face.run(lambda: client.responses.create(**asked)) for _ in range(2))
    assert first.output_text == second.output_text != ""
    events = face.items(face.run(lambda: client.responses.create(**asked, stream=True)))
    assert events[-1].response.output_text == first.output_text


def test_the_dispatchers_errors(face: Face, server: LocalServer) -> None:
    client = face.client(server.base_url)
    with pytest.raises(openai.NotFoundError, match="no such model: nonsense; there are: smollm2-135m") as caught:
        face.chat(client, model="nonsense")
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError):
        face.run(lambda: client.post("/chat/completions", body=["no object"], cast_to=object))
    with pytest.raises(openai.NotFoundError):
        face.run(lambda: client.get("/nonsense", cast_to=object))
    assert [m.id for m in face.run(client.models.list).data] == [NAME]


def test_the_models_end_with_the_program() -> None:
    """However it ends: nobody wants a gigabyte to stay behind."""
    script = f"""
    import os, signal, sys
    from farthing.local import MODELS, LocalServer, fetch
    server = LocalServer([({NAME!r}, fetch(MODELS[{NAME!r}]))])
    print(server._children[{NAME!r}]._process.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
    """
    ran = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True)
    pid = int(ran.stdout)
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        try:
            with open(f"/proc/{pid}/stat") as file:
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    return
        except OSError:
            return
        time.sleep(0.05)
    os.kill(pid, 9)
    pytest.fail("the model's process is still there")


def test_a_model_that_does_not_start(tmp_path: object) -> None:
    from pathlib import Path

    path = Path(str(tmp_path)) / "broken.gguf"
    path.write_bytes(b"not a model")
    with pytest.raises(farthing.LocalModelsError, match="did not start: broken"):
        LocalServer([("broken", path)])


def test_a_port_that_is_taken(server: LocalServer) -> None:
    port = int(server.base_url.split(":")[2].split("/")[0])
    with pytest.raises(farthing.LocalModelsError, match=f"cannot listen: port {port}"):
        LocalServer([], port)
