"""`[compress]` where calls fail, come at the same time or lose money: what was sent stays, what costs rests."""

from __future__ import annotations

import json
import threading
from decimal import Decimal

import openai
import pytest
from conftest import Face
from test_compress import (
    DISCOUNT,
    LONG,
    MODEL,
    PRICES,
    Agent,
    assistant,
    halve,
    notes,
    policy,
    receipt,
    sent,
    system,
    tool,
    user,
)
from upstream import Reply, Seen, Upstream, answer, chat, with_calls

import farthing

pytestmark = [pytest.mark.once, pytest.mark.filterwarnings("ignore::farthing.FarthingWarning")]
RULES = " ".join(f"Rule {number}: always check item {number * 7} twice." for number in range(300))
ROWS = " ".join(f"Row {number} has value {number * 13}." for number in range(100))


def failing_once(upstream: Upstream) -> None:
    left = [True]

    def script(seen: Seen, number: int) -> Reply:
        if left and left.pop():
            return Reply(status=500, body={"error": {"message": "no"}})
        return answer(seen, "ok")

    upstream.script = script


def test_a_mark_is_never_sent_without_the_tool(face: Face, upstream: Upstream) -> None:
    """The tool would not pay: it changes the beginning of a prompt that the provider has."""
    client = face.client(
        upstream, policy=policy(models=DISCOUNT, parts=["tools"], methods=[halve], recoverable=True), max_retries=0
    )
    face.chat(client, messages=[system(RULES), user("hi")])
    failing_once(upstream)
    messages = [system(RULES), user("look it up"), *tool(ROWS)]
    with pytest.raises(openai.InternalServerError):
        face.chat(client, messages=messages)
    for _ in range(2):
        face.chat(client, messages=messages)
        messages += [assistant("ok"), user("and?")]
    for seen in upstream.seen[1:]:
        assert ("farthing_restore id=" in seen.body.decode()) == ("tools" in seen.json)
        assert seen.json["messages"][3]["content"] == ROWS


def test_a_decision_outlives_the_call_that_failed(face: Face, upstream: Upstream) -> None:
    """Shortened, this system prompt would be too short for the provider's cache."""
    empty = "   \n \n  \n \n  \n   \n"
    text = "\n".join(f"Rule {number}: always check item {number * 7} twice. {empty}" for number in range(70))
    client = face.client(
        upstream, policy=policy(models=DISCOUNT, parts=["system"], methods=["structural"]), max_retries=0
    )
    failing_once(upstream)
    with pytest.raises(openai.InternalServerError):
        face.chat(client, messages=[system(text), user("a")])
    face.chat(client, messages=[system(text), user("b")])
    assert [seen.json["messages"][0]["content"] for seen in upstream.seen] == [text, text]


def test_many_conversations_begin_alike(face: Face, upstream: Upstream) -> None:
    animals = [f"animal{number}" for number in range(40)]
    document = "\n\n".join(
        f"The {animal} lives in room {number}. It is fed at noon, and sleeps for most of the day, as all of them do."
        for number, animal in enumerate(animals)
    )
    client = face.client(upstream, policy=policy(parts=["documents"], methods=["extractive"], keep=0.3))
    begin = [user(f"<document>{document}</document>"), assistant("I have read it.")]
    talks = [[*begin, user(f"Where does the {animal} live?")] for animal in animals]
    for _ in range(2):
        for talk in talks:
            face.chat(client, messages=talk)
            talk += [assistant("ok"), user("And what does it eat?")]
    documents = [seen.json["messages"][0]["content"] for seen in upstream.seen]
    assert documents[: len(talks)] == documents[len(talks) :]
    assert len(set(documents)) == len(talks)


def test_calls_at_the_same_time_send_the_same(upstream: Upstream) -> None:
    barrier = threading.Barrier(8)
    made: list[str] = []

    def count(request: farthing.CompressRequest) -> str:
        made.append(request.text)
        return f"{len(made)} " + request.text[:500]

    client = farthing.OpenAI(
        api_key="k", base_url=upstream.url, max_retries=0, policy=policy(parts=["system"], methods=[count])
    )

    def ask() -> None:
        barrier.wait()
        client.chat.completions.create(model=MODEL, messages=[system(), user("question")])

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    client.chat.completions.create(model=MODEL, messages=[system(), user("question"), assistant("ok"), user("and?")])
    assert len({seen.json["messages"][0]["content"] for seen in upstream.seen}) == 1


def test_what_the_models_ask_for_again_is_left_out_no_more(face: Face, upstream: Upstream) -> None:
    """Each call is asked twice, which costs more than the shorter result saves."""

    def script(seen: Seen, number: int) -> Reply:
        marked = str(seen.json["messages"][2]["content"]).rpartition("farthing_restore id=")[2].rstrip("]")
        calls = [("call_9", "farthing_restore", json.dumps({"id": marked}))]
        return Reply(body=with_calls(chat(), calls)) if len(marked) == 8 else answer(seen, "done")

    upstream.script = script
    client = face.client(upstream, policy=policy(parts=["tools"], methods=[halve], recoverable=True))
    asked = []
    for number in range(25):
        before = upstream.calls
        made = face.chat(client, messages=[user("look"), *tool(f"{number} {LONG}")])
        asked.append(upstream.calls - before)
    assert asked == [2] * 20 + [1] * 5
    assert "nothing is left out of new tool results for an hour" in notes(made)
    assert client.savings().faults == {"compress does not pay": 1}


@pytest.mark.parametrize("broken", [False, True])
def test_what_a_failed_call_has_spent_counts(face: Face, upstream: Upstream, broken: bool) -> None:
    """Summaries that are paid for, for calls that are never answered: it rests as where they are."""

    def script(seen: Seen, number: int) -> Reply:
        if seen.json["model"] == "writer":
            usage = {"prompt_tokens": 10_000, "completion_tokens": 10, "total_tokens": 10_010}
            return Reply(body=chat("The quick brown fox jumps over the dog. " * 20, model="writer", usage=usage))
        return Reply(cut_before=True) if broken else Reply(status=500, body={"error": {"message": "no"}})

    upstream.script = script
    how = {"model": "writer", "max_lost": 1.0, "uses": 1000}
    client = face.client(upstream, policy=policy(parts=["system"], methods=["summarise"], summarise=how), max_retries=0)
    for number in range(25):
        with pytest.raises(openai.APIError):
            face.chat(client, messages=[system(f"{LONG} Number {number}."), user("?")])
    writers = sum(seen.json["model"] == "writer" for seen in upstream.seen)
    assert writers == 20
    assert client.savings().faults["compress does not pay"] == 1


def test_a_server_without_tools_is_not_asked_twice_again(face: Face, upstream: Upstream) -> None:
    def script(seen: Seen, number: int) -> Reply:
        if "tools" in seen.json:
            return Reply(status=400, body={"error": {"message": "tools are not supported"}})
        return answer(seen, "ok")

    upstream.script = script
    client = face.client(upstream, policy=policy(parts=["tools"], methods=[halve], recoverable=True), max_retries=0)
    for number in range(3):
        face.chat(client, messages=[user("look"), *tool(f"{number} {LONG}")])
        assert sent(upstream)[2]["content"] == f"{number} {LONG}"
    assert ["tools" in seen.json for seen in upstream.seen] == [True, False, False, False]


def test_the_tool_counts_when_nothing_is_left_out_any_more(face: Face, upstream: Upstream) -> None:
    Agent(upstream)
    client = face.client(upstream, policy=policy(parts=["tools"], methods=[halve], recoverable=True))
    messages = [user("look"), *tool(LONG)]
    face.chat(client, messages=messages)
    made = receipt(face.chat(client, messages=[*messages, assistant("done"), user("and?")]))
    assert made.compress is not None
    # 90 tokens more than without.
    assert made.compress.saved == Decimal(-90 * PRICES[MODEL]["input"]) / 10**6
    assert made.saved == made.compress.saved
    assert json.loads(upstream.seen[-1].body)["tools"]
