"""`farthing.count_tokens`: what it takes, what it says, and what an answer without usage is booked as."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import threading
from decimal import Decimal
from typing import Any

import pytest
from conftest import Face
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletionMessage
from upstream import Reply, Upstream, chat, chat_events, response

import farthing
from farthing import TokenCount, count_tokens

# What the SDK's way of sending has nothing to do with.
pytestmark = pytest.mark.once

SEARCH = {
    "type": "function",
    "function": {
        "name": "get_current_weather",
        "description": "Get the current weather in a given location",
        "parameters": {
            "type": "object",
            "properties": {
                "location": {"type": "string", "description": "The city and state, e.g. San Francisco, CA"},
                "unit": {
                    "type": "string",
                    "description": "The unit of temperature to return",
                    "enum": ["celsius", "fahrenheit"],
                },
            },
            "required": ["location"],
        },
    },
}
WEATHER = [
    {"role": "system", "content": "You are a helpful assistant that can answer to questions about the weather."},
    {"role": "user", "content": "What's the weather like in San Francisco?"},
]


@pytest.mark.parametrize(("model", "tokens"), [("gpt-4o", 101), ("gpt-4o-mini", 101), ("gpt-4", 105)])
def test_a_prompt_with_tools_as_it_is_billed(model: str, tokens: int) -> None:
    """The example of OpenAI's cookbook, with the tokens that its API billed."""
    count = count_tokens(WEATHER, model=model, tools=[SEARCH])
    assert (count, count.tokens, count.estimated) == (tokens, tokens, False)


def test_a_text() -> None:
    count = count_tokens("tiktoken is great!", model="gpt-4")
    assert count == 6 and not count.estimated
    assert count_tokens("", model="gpt-4o") == 0
    # What looks like a special token is text.
    assert count_tokens("<|endoftext|>", model="gpt-4o") > 1
    assert count_tokens("a lone \ud800 surrogate", model="gpt-4o") > 3


def test_what_is_not_known_is_an_estimate() -> None:
    assert count_tokens("hello", model="llama-3.1-8b").estimated
    assert not count_tokens("hello", model="ft:gpt-4o-mini:acme::abc").estimated
    image = {"type": "image_url", "image_url": {"url": "https://example.com/x.png"}}
    shown = count_tokens([{"role": "user", "content": [{"type": "text", "text": "see"}, image]}], model="gpt-4o")
    assert shown.estimated and shown > 700


def test_messages_in_all_their_forms() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    plain: list[Any] = [
        {"role": "user", "content": [{"type": "text", "text": "hello"}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "done"},
    ]
    typed = [plain[0], ChatCompletionMessage.model_validate(plain[1]), plain[2]]
    counts = [count_tokens(messages, model="gpt-4o") for messages in (plain, typed, iter(plain), tuple(plain))]
    assert len(set(counts)) == 1 and counts[0].estimated


@pytest.mark.parametrize("wrong", [b"text", {"role": "user"}, 3, None, [object()], [1], [None], ["text"]])
def test_what_it_does_not_take(wrong: Any) -> None:
    with pytest.raises(TypeError):
        count_tokens(wrong, model="gpt-4o")


def test_more_that_it_does_not_take() -> None:
    deep: Any = "x"
    for _ in range(300):
        deep = [deep]
    with pytest.raises(ValueError, match="recursion"):
        count_tokens([{"role": "user", "content": deep}], model="gpt-4o")
    with pytest.raises(ValueError, match="tools"):
        count_tokens("text", model="gpt-4o", tools=[SEARCH])
    with pytest.raises(ValueError, match="no JSON"):
        count_tokens([{"role": "user", "content": float("nan")}], model="gpt-4o")
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(ValueError, match="nested too deep"):
        count_tokens([{"role": "user", "content": deep}], model="gpt-4o")
    nobody: Any = None
    with pytest.raises(TypeError, match="name of a model: NoneType"):
        count_tokens("text", model=nobody)


@pytest.mark.parametrize("tools", ["search", SEARCH, [None], 5])
def test_tools_that_are_none(tools: Any) -> None:
    with pytest.raises(TypeError, match="tool"):
        count_tokens([{"role": "user", "content": "hello"}], model="gpt-4o", tools=tools)


def test_a_count_is_a_number() -> None:
    count = count_tokens("hello world", model="x")
    for again in (pickle.loads(pickle.dumps(count)), copy.copy(count), copy.deepcopy(count)):
        assert (again, again.estimated, type(again)) == (2, True, TokenCount)
    assert sum([count, count]) == 4 and f"{count:,}" == "2" and repr(count) == "TokenCount(2, estimated=True)"


@given(st.text(max_size=300), st.text(max_size=300))
def test_two_texts_together(one: str, two: str) -> None:
    whole, parts = count_tokens(one + two, model="gpt-4o"), [count_tokens(t, model="gpt-4o") for t in (one, two)]
    # Where they meet, words may fall apart, or come together.
    assert whole <= sum(parts) + 8
    assert max(parts) - 8 <= whole or whole >= sum(parts) / 4
    assert whole <= len((one + two).encode("utf-8", "replace"))


def test_long_runs_do_not_take_for_ever() -> None:
    """And other threads go on meanwhile."""
    counted = threading.Event()
    turns = 0

    def count() -> None:
        assert count_tokens("a" * (8 << 20), model="gpt-4o") == 1 << 20
        counted.set()

    thread = threading.Thread(target=count)
    thread.start()
    while not counted.is_set():
        turns += 1
        counted.wait(0.001)
    thread.join()
    assert turns > 1


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_without_usage_is_booked_by_its_tokens(face: Face, upstream: Upstream, stream: bool) -> None:
    said = "The quick brown fox jumps over the lazy dog. " * 20
    body = chat(said)
    del body["usage"]
    upstream.script = lambda seen, number: Reply(pieces=chat_events(said)) if stream else Reply(body=body)
    policy = {"cache": False, "models": {"test-model": {"input": 10, "output": 20}}}
    client = face.client(upstream, policy=policy)
    messages = [{"role": "user", "content": "Tell me of the fox. " * 50}]
    face.stream(client, messages=messages) if stream else face.chat(client, messages=messages)
    prompt = count_tokens(messages, model="test-model")
    answer = count_tokens(said, model="test-model")
    bill = client.savings()
    assert abs(bill.prompt_tokens - prompt) <= 1 and abs(bill.completion_tokens - answer) <= 5
    assert bill.estimated_spent == bill.spent > Decimal("0.005")


def test_a_response_without_usage(face: Face, upstream: Upstream) -> None:
    said = "The quick brown fox jumps over the lazy dog. " * 20
    upstream.script = lambda seen, number: Reply(body={**response(said), "usage": None})
    client = face.client(upstream, policy={"cache": False, "models": {"test-model": {"input": 10, "output": 20}}})
    face.run(lambda: client.responses.create(model="test-model", input="Tell me of the fox."))
    assert abs(client.savings().completion_tokens - count_tokens(said, model="test-model")) <= 5


def test_offline() -> None:
    """Nothing of it is fetched: the names of hosts are not even looked up."""
    script = """
import socket
def refuse(*_, **__): raise AssertionError("network")
socket.getaddrinfo = socket.create_connection = refuse
import farthing
print(farthing.count_tokens("hello world", model="gpt-4o"), farthing.count_tokens("hello world", model="gpt-4"))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("2 2", "")
    assert farthing.TokenCount is TokenCount
