"""A repeated request costs nothing, in whatever form it comes, and only good answers are kept."""

from __future__ import annotations

import copy
import json
import pickle
import time
from typing import Any

import openai
import pytest
from conftest import MESSAGES, Face, text
from openai import _base_client
from pydantic import BaseModel
from upstream import Reply, Seen, Upstream, answer, chat, chat_events, event, response, response_events

import farthing

httpx: Any = getattr(_base_client, "httpx2", None) or _base_client.httpx


def outcome(thing: Any) -> str | None:
    receipt = farthing.receipt(thing)
    assert receipt is not None
    return receipt.outcome


def test_the_second_call_is_a_hit(face: Face, upstream: Upstream) -> None:
    client = face.client(upstream)
    first, second, third = (face.chat(client) for _ in range(3))
    assert upstream.calls == 1
    assert [outcome(r) for r in (first, second, third)] == ["miss", "hit", "hit"]
    assert first == second == third
    assert second.to_dict() == first.to_dict()
    assert second._request_id == first._request_id == "req_1"
    assert type(second) is type(first)


def test_a_hit_is_what_the_plain_sdk_builds(face: Face, upstream: Upstream) -> None:
    plain = face.chat(face.client(upstream, plain=True))
    client = face.client(upstream)
    upstream.seen.clear()
    for _ in range(3):
        ours = face.chat(client)
        assert type(ours) is type(plain)
        assert repr(ours) == repr(plain)
        assert ours.model_dump() == plain.model_dump()
        assert ours.model_fields_set == plain.model_fields_set
        assert ours.model_extra == plain.model_extra


def test_each_hit_is_a_fresh_object(face: Face, upstream: Upstream) -> None:
    client = face.client(upstream)
    face.chat(client)
    spoilt = face.chat(client)
    spoilt.choices[0].message.content = "spoilt"
    spoilt.choices.append(spoilt.choices[0])
    spoilt.x_unknown["kept"] = False
    again = face.chat(client)
    assert again.choices[0].message.content == "pong 1"
    assert len(again.choices) == 1
    assert again.x_unknown == {"kept": True}


def test_the_first_answer_may_be_changed_by_its_owner(face: Face, upstream: Upstream) -> None:
    client = face.client(upstream)
    first = face.chat(client)
    first.choices[0].message.content = "spoilt"
    assert face.chat(client).choices[0].message.content == "pong 1"


@pytest.mark.parametrize("usage", [False, True])
def test_streamed_then_plain(face: Face, upstream: Upstream, usage: bool) -> None:
    client = face.client(upstream)
    options = {"stream_options": {"include_usage": True}} if usage else {}
    chunks = face.stream(client, **options)
    assert text(chunks) == "pong 1"
    assert [bool(c.usage) for c in chunks][-1] is usage
    plain = face.chat(client)
    assert upstream.calls == 1
    assert outcome(plain) == "hit"
    assert plain.choices[0].message.content == "pong 1"
    assert plain.choices[0].finish_reason == "stop"
    assert plain.usage.total_tokens == 12
    assert plain.service_tier == "default"


@pytest.mark.parametrize("usage", [False, True])
def test_plain_then_streamed(face: Face, upstream: Upstream, usage: bool) -> None:
    client = face.client(upstream)
    face.chat(client)
    options = {"stream_options": {"include_usage": True}} if usage else {}
    for _ in range(2):
        stream = face.chat(client, stream=True, **options)
        assert isinstance(stream, openai.AsyncStream if face.is_async else openai.Stream)
        chunks = face.items(stream)
        assert text(chunks) == "pong 1"
        assert chunks[0].choices[0].delta.role == "assistant"
        assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
        assert bool(chunks[-1].usage) is usage
        assert outcome(stream) == "hit"
        assert stream.response.headers["x-farthing-cache"] == "hit"
    assert upstream.calls == 1


def test_a_stream_hit_hands_out_fresh_chunks(face: Face, upstream: Upstream) -> None:
    client = face.client(upstream)
    face.chat(client)
    face.stream(client)[1].choices[0].delta.content = "spoilt"
    assert text(face.stream(client)) == "pong 1"


def test_streams_are_context_managers_and_may_be_left_early(face: Face, upstream: Upstream) -> None:
    client = face.client(upstream)
    for _ in range(2):

        def use() -> Any:
            if not face.is_async:
                with client.chat.completions.create(model="m", messages=MESSAGES, stream=True) as stream:
                    return next(iter(stream))

            async def main() -> Any:
                async with await client.chat.completions.create(model="m", messages=MESSAGES, stream=True) as stream:
                    async for chunk in stream:
                        return chunk

            return main()

        assert face.run(use).choices[0].delta.role == "assistant"


def test_responses(face: Face, upstream: Upstream) -> None:
    client = face.client(upstream)

    def ask(**options: Any) -> Any:
        return face.run(lambda: client.responses.create(model="m", input="ping", **options))

    assert ask().output_text == "pong 1"
    assert ask().output_text == "pong 1"
    events = face.items(ask(stream=True))
    assert events[0].type == "response.created"
    assert events[-1].type == "response.completed"
    assert events[-1].response.output_text == "pong 1"
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == "pong 1"
    assert [e.sequence_number for e in events] == list(range(len(events)))
    assert upstream.calls == 1


def test_streamed_responses_then_plain(face: Face, upstream: Upstream) -> None:
    client = face.client(upstream)
    events = face.items(face.run(lambda: client.responses.create(model="m", input="ping", stream=True)))
    plain = face.run(lambda: client.responses.create(model="m", input="ping"))
    assert plain.output_text == events[-1].response.output_text
    assert plain.usage.input_tokens == 9
    assert upstream.calls == 1


@pytest.mark.parametrize("encoding", [{}, {"encoding_format": "float"}, {"encoding_format": "base64"}])
def test_embeddings(face: Face, upstream: Upstream, encoding: dict[str, Any]) -> None:
    client = face.client(upstream)

    def ask(client: Any) -> Any:
        return face.run(lambda: client.embeddings.create(model="m", input=["a", "b"], **encoding))

    plain = ask(face.client(upstream, plain=True))
    answers = [ask(client) for _ in range(3)]
    assert upstream.calls == 2
    assert [outcome(r) for r in answers] == ["miss", "hit", "hit"]
    for ours in answers:
        assert ours.data[0].embedding == plain.data[0].embedding
        assert type(ours.data[0].embedding) is type(plain.data[0].embedding)
    answers[1].data[0].embedding = []
    assert ask(client).data[0].embedding == plain.data[0].embedding


def test_embeddings_by_the_two_encodings_are_two_requests(face: Face, upstream: Upstream) -> None:
    client = face.client(upstream)
    for encoding in ({}, {"encoding_format": "float"}):
        face.run(lambda encoding=encoding: client.embeddings.create(model="m", input="a", **encoding))
    assert upstream.calls == 2
    face.run(lambda: client.embeddings.create(model="m", input="a", encoding_format="base64"))
    assert upstream.calls == 2, "base64 is what the SDK asks for by itself"


def test_raw_responses(face: Face, upstream: Upstream) -> None:
    client = face.client(upstream)
    raws = [
        face.run(lambda: client.chat.completions.with_raw_response.create(model="test-model", messages=MESSAGES))
        for _ in range(3)
    ]
    assert upstream.calls == 1
    assert [outcome(r) for r in raws] == ["miss", "hit", "hit"]
    for raw in raws:
        assert raw.status_code == 200
        assert raw.request_id == "req_1"
        assert raw.headers["content-type"] == "application/json"
        assert raw.http_request.headers["x-stainless-lang"] == "python"
        assert raw.parse().choices[0].message.content == "pong 1"
        assert json.loads(raw.text)["x_unknown"] == {"kept": True}
        assert outcome(raw.parse()) == outcome(raw)
    assert raws[1].headers["x-farthing-cache"] == "hit"
    assert face.chat(client) == raws[1].parse()
    assert upstream.calls == 1


def test_raw_streams(face: Face, upstream: Upstream) -> None:
    client = face.client(upstream)
    for _ in range(2):
        raw = face.run(
            lambda: client.chat.completions.with_raw_response.create(model="m", messages=MESSAGES, stream=True)
        )
        assert text(face.items(raw.parse())) == "pong 1"
    assert upstream.calls == 1


def test_streaming_responses(face: Face, upstream: Upstream) -> None:
    client = face.client(upstream)

    def use() -> Any:
        made = client.chat.completions.with_streaming_response.create(model="m", messages=MESSAGES)
        if not face.is_async:
            with made as raw:
                assert not raw.is_closed
                return b"".join(raw.iter_bytes())

        async def main() -> bytes:
            async with made as raw:
                return b"".join([piece async for piece in raw.iter_bytes()])

        return main()

    assert json.loads(face.run(use)) == json.loads(face.run(use))
    assert upstream.calls == 1


class Capital(BaseModel):
    city: str


def test_parse(face: Face, upstream: Upstream) -> None:
    upstream.script = lambda seen, number: answer(seen, '{"city": "Bern"}')
    client = face.client(upstream)
    parsed = [
        face.run(lambda: client.chat.completions.parse(model="m", messages=MESSAGES, response_format=Capital))
        for _ in range(2)
    ]
    assert [p.choices[0].message.parsed for p in parsed] == [Capital(city="Bern")] * 2
    assert [outcome(p) for p in parsed] == ["miss", "hit"]
    assert upstream.calls == 1


def test_the_stream_helper(face: Face, upstream: Upstream) -> None:
    client = face.client(upstream)

    def use() -> Any:
        manager = client.chat.completions.stream(model="m", messages=MESSAGES)
        if not face.is_async:
            with manager as stream:
                for _ in stream:
                    pass
                return stream.get_final_completion()

        async def main() -> Any:
            async with manager as stream:
                async for _ in stream:
                    pass
                return await stream.get_final_completion()

        return main()

    finals = [face.run(use) for _ in range(2)]
    assert [f.choices[0].message.content for f in finals] == ["pong 1"] * 2
    assert upstream.calls == 1


def test_sync_and_async_clients_share_answers(upstream: Upstream) -> None:
    policy = {"cache": {"name": "shared by sync and async"}}
    one, two = Face(False), Face(True)
    first = one.chat(one.client(upstream, policy=policy))
    second = two.chat(two.client(upstream, policy=policy))
    two.close()
    assert upstream.calls == 1
    assert first == second


def test_one_name_is_one_cache_and_two_are_two(face: Face, upstream: Upstream) -> None:
    for name in ("one", "two", "one"):
        face.chat(face.client(upstream, policy={"cache": {"name": f"{name} of {upstream.url}"}}))
    assert upstream.calls == 2


# Modes, times, tags, samples.


def test_modes(face: Face, upstream: Upstream) -> None:
    client = face.client(upstream)

    def ask(mode: str) -> tuple[str, str | None]:
        with farthing.options(cache=mode):  # type: ignore[arg-type]
            made = face.chat(client)
        return made.choices[0].message.content, outcome(made)

    assert ask("read_only") == ("pong 1", "miss")
    assert ask("read_only") == ("pong 2", "miss")
    assert ask("off") == ("pong 3", "bypass")
    assert ask("write_only") == ("pong 4", "miss")
    assert ask("read_only") == ("pong 4", "hit")
    assert ask("refresh") == ("pong 5", "miss")
    assert ask("on") == ("pong 5", "hit")


def test_headers_say_the_same_and_never_go_upstream(face: Face, upstream: Upstream) -> None:
    client = face.client(upstream)
    for name, value in (("cache", "refresh"), ("ttl", "5m"), ("tag", "faq"), ("sample", "3")):
        face.chat(client, extra_headers={f"X-Farthing-{name}": value})
    assert not [h for seen in upstream.seen for h in seen.headers if h.startswith("x-farthing")]
    assert upstream.calls == 2, "refresh asks, sample is a request of its own, ttl and tag are hits"
    assert client.savings().by_tag["faq"].hits == 1


def test_default_headers_say_it_for_a_client(face: Face, upstream: Upstream) -> None:
    client = face.client(upstream, default_headers={"x-farthing-cache": "off"})
    assert [outcome(face.chat(client)) for _ in range(2)] == ["bypass", "bypass"]
    assert "x-farthing-cache" not in upstream.seen[0].headers


def test_a_wrong_header_is_an_error(face: Face, upstream: Upstream) -> None:
    with pytest.raises(farthing.OptionsError, match="x-farthing-cache"):
        face.chat(face.client(upstream), extra_headers={"x-farthing-cahce": "off"})
    assert upstream.calls == 0


def test_ttl(face: Face, upstream: Upstream) -> None:
    client = face.client(upstream)
    with farthing.options(ttl=0.2):
        face.chat(client)
    assert outcome(face.chat(client)) == "hit"
    time.sleep(0.25)
    assert outcome(face.chat(client)) == "miss"
    time.sleep(0.05)
    with farthing.options(ttl=0.01):
        assert outcome(face.chat(client)) == "miss", "older than this caller takes"


def test_tags_and_control(face: Face, upstream: Upstream) -> None:
    client = face.client(upstream)
    for tag, content in (("faq", "a"), ("faq", "b"), ("other", "c")):
        with farthing.options(tag=tag):
            face.chat(client, messages=[{"role": "user", "content": content}])
    stats = client.cache.stats()
    assert (stats["entries"], stats["misses"], stats["stored"], stats["hits"]) == (3, 3, 3, 0)
    assert 0 < stats["bytes"] <= stats["max_bytes"]
    assert client.cache.invalidate(tag="faq") == 2
    assert client.cache.invalidate(tag="faq") == 0
    assert client.cache.stats()["entries"] == 1
    client.cache.clear()
    assert client.cache.stats()["entries"] == 0
    with farthing.options(tag="other"):
        assert outcome(face.chat(client, messages=[{"role": "user", "content": "c"}])) == "miss"


def test_samples_are_independent(face: Face, upstream: Upstream) -> None:
    client = face.client(upstream)

    def ask(sample: int | str) -> str:
        with farthing.options(sample=sample):
            return str(face.chat(client).choices[0].message.content)

    assert len({ask(0), ask(1), ask("1")}) == 3
    assert ask(1) == "pong 2"
    assert upstream.calls == 3


def test_deterministic_only(face: Face, upstream: Upstream) -> None:
    client = face.client(upstream, policy={"cache": {"deterministic_only": True, "name": upstream.url}})
    for options in ({}, {"temperature": 0.5}, {"temperature": 0}, {"temperature": 0.0}, {"seed": 7, "top_p": 0.5}):
        face.chat(client, **options)
        again = outcome(face.chat(client, **options))
        assert again == ("hit" if "seed" in options or options.get("temperature") == 0 else "bypass"), options


def test_bounded_by_bytes(face: Face, upstream: Upstream) -> None:
    client = face.client(upstream, policy={"cache": {"max_bytes": "64KiB", "name": upstream.url}})
    for number in range(60):
        face.chat(client, messages=[{"role": "user", "content": f"{number}"}])
        face.chat(client, messages=[{"role": "user", "content": f"{number}"}])
    stats = client.cache.stats()
    assert stats["bytes"] <= stats["max_bytes"] == 65536
    assert 0 < stats["entries"] < 60


def test_no_cache_at_all(face: Face, upstream: Upstream) -> None:
    client = face.client(upstream, cached=False)
    assert [outcome(face.chat(client)) for _ in range(2)] == ["bypass", "bypass"]
    with farthing.options(cache="on"):
        assert outcome(face.chat(client)) == "bypass"
    assert client.savings().bypassed == 3


# What may be stored.


def choice(**more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": "pong", **more.pop("message", {})}
    return {"choices": [{"index": 0, "message": message, "finish_reason": "stop", **more}]}


def call(arguments: str) -> dict[str, Any]:
    function = {"name": "f", "arguments": arguments}
    return {"content": None, "tool_calls": [{"id": "c1", "type": "function", "function": function}]}


NOT_STORED = {
    "content_filter": chat(**choice(finish_reason="content_filter")),
    "length": chat(**choice(finish_reason="length")),
    "no finish": chat(**choice(finish_reason=None)),
    "empty": chat(**choice(message={"content": ""})),
    "nothing": chat(**choice(message={"content": None})),
    "refused": chat(**choice(message={"refusal": "no"})),
    "no choices": chat(choices=[]),
    "bad arguments": chat(**choice(message=call('{"a": '), finish_reason="tool_calls")),
    "an error in a good answer": chat(error={"message": "overloaded"}),
}
STORED = {
    "tool call": chat(**choice(message=call('{"a": 1}'), finish_reason="tool_calls")),
    "a call without arguments": chat(**choice(message=call(""), finish_reason="tool_calls")),
}


@pytest.mark.parametrize("case", [*NOT_STORED, *STORED])
def test_only_good_answers_are_stored(face: Face, upstream: Upstream, case: str) -> None:
    upstream.script = lambda seen, number: Reply(body=(NOT_STORED | STORED)[case])
    client = face.client(upstream)
    for _ in range(2):
        face.chat(client)
    assert upstream.calls == (1 if case in STORED else 2)


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
def test_a_cut_answer_is_stored_when_the_user_set_the_limit(face: Face, upstream: Upstream, limit: str) -> None:
    upstream.script = lambda seen, number: Reply(body=NOT_STORED["length"])
    client = face.client(upstream)
    for _ in range(2):
        face.chat(client, **{limit: 5})
    assert upstream.calls == 1


EFFECTS: list[dict[str, Any]] = [
    {"store": True},
    {"web_search_options": {}},
    {"modalities": ["text", "audio"], "audio": {"voice": "ash", "format": "mp3"}},
    {"tools": [{"type": "web_search"}]},
]


@pytest.mark.parametrize("arguments", EFFECTS, ids=str)
def test_calls_with_effects_are_not_cached(face: Face, upstream: Upstream, arguments: dict[str, Any]) -> None:
    client = face.client(upstream)
    assert [outcome(face.chat(client, **arguments)) for _ in range(2)] == ["bypass", "bypass"]
    assert upstream.calls == 2


@pytest.mark.parametrize(
    "arguments",
    [
        {"store": True},
        {"previous_response_id": "resp_0"},
        {"conversation": "conv_1"},
        {"background": True},
        {"tools": [{"type": "web_search_preview"}]},
        {"tools": [{"type": "mcp", "server_label": "x", "server_url": "https://x"}]},
        {"prompt": {"id": "pmpt_1"}},
    ],
    ids=str,
)
def test_responses_with_effects_are_not_cached(face: Face, upstream: Upstream, arguments: dict[str, Any]) -> None:
    client = face.client(upstream)
    for _ in range(2):
        made = face.run(lambda: client.responses.create(model="m", input="ping", **arguments))
        assert outcome(made) == "bypass"
    assert upstream.calls == 2


def test_function_tools_are_cached(face: Face, upstream: Upstream) -> None:
    client = face.client(upstream)
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    assert [outcome(face.chat(client, tools=[tool])) for _ in range(2)] == ["miss", "hit"]


@pytest.mark.parametrize("how", ["cut", "no end", "error event", "not json"])
def test_broken_streams_are_not_stored(face: Face, upstream: Upstream, how: str) -> None:
    pieces = chat_events("pong")

    def script(seen: Seen, number: int) -> Reply:
        if how == "cut":
            return Reply(pieces=pieces[:4], cut=True)
        if how == "no end":
            return Reply(pieces=pieces[:-1])
        if how == "error event":
            return Reply(pieces=[*pieces[:4], event({"error": {"message": "overloaded"}})])
        return Reply(pieces=[*pieces[:4], event("{"), *pieces[4:]])

    upstream.script = script
    client = face.client(upstream)
    for _ in range(2):
        if how == "no end":
            face.stream(client)
        else:
            with pytest.raises((openai.APIError, json.JSONDecodeError, httpx.TransportError)):
                face.stream(client)
        # The rest of the first may still be coming in, and then the second is one with it.
        end = time.monotonic() + 10
        while client.cache.stats()["in_flight"] and time.monotonic() < end:
            time.sleep(0.01)
    assert upstream.calls == 2
    assert client.cache.stats()["entries"] == 0


def test_streams_left_early_are_not_stored(face: Face, upstream: Upstream) -> None:
    upstream.script = lambda seen, number: Reply(pieces=chat_events("a long answer"), pause=0.02)
    client = face.client(upstream)

    def use() -> Any:
        if not face.is_async:
            with client.chat.completions.create(model="m", messages=MESSAGES, stream=True) as stream:
                next(iter(stream))
            return None

        async def main() -> None:
            async with await client.chat.completions.create(model="m", messages=MESSAGES, stream=True) as stream:
                async for _ in stream:
                    break

        return main()

    face.run(use)
    assert upstream.aborted.wait(5), "the connection is closed"
    assert client.cache.stats()["entries"] == 0


def test_an_answer_is_stored_when_its_last_event_has_come(face: Face, upstream: Upstream) -> None:
    """The SDK stops reading at the sentinel, the connection may end later."""
    upstream.script = lambda seen, number: Reply(pieces=chat_events("pong"), linger=0.5)
    client = face.client(upstream)
    for _ in range(3):
        assert text(face.stream(client)) == "pong"
    assert upstream.calls == 1
    bill = client.savings()
    assert (bill.calls, bill.misses, bill.hits) == (3, 1, 2)


def test_incomplete_responses(face: Face, upstream: Upstream) -> None:
    cut = response(status="incomplete", incomplete_details={"reason": "max_output_tokens"})
    upstream.script = lambda seen, number: Reply(body=cut)
    client = face.client(upstream)
    for _ in range(2):
        face.run(lambda: client.responses.create(model="m", input="ping"))
    assert upstream.calls == 2
    for _ in range(2):
        face.run(lambda: client.responses.create(model="m", input="ping", max_output_tokens=5))
    assert upstream.calls == 3


def test_a_failed_response_stream_is_not_stored(face: Face, upstream: Upstream) -> None:
    failed = event({"type": "response.failed", "response": response(status="failed")}, "response.failed")
    upstream.script = lambda seen, number: Reply(pieces=[*response_events()[:3], failed])
    client = face.client(upstream)
    for _ in range(2):
        face.items(face.run(lambda: client.responses.create(model="m", input="ping", stream=True)))
    assert upstream.calls == 2


# Usage that was not asked for, and receipts.


def test_usage_is_asked_for_and_hidden_again(face: Face, upstream: Upstream) -> None:
    client = face.client(upstream)
    stream = face.chat(client, stream=True)
    chunks = face.items(stream)
    assert upstream.seen[0].json["stream_options"] == {"include_usage": True}
    assert all(c.choices for c in chunks), "the chunk that farthing asked for is not the user's"
    receipt = farthing.receipt(stream)
    assert receipt is not None
    assert (receipt.prompt_tokens, receipt.completion_tokens, receipt.estimated) == (9, 3, False)


def test_an_upstream_that_does_not_take_the_option(face: Face, upstream: Upstream) -> None:
    def script(seen: Seen, number: int) -> Reply:
        if "stream_options" in seen.json:
            return Reply(400, {"error": {"message": "unknown field: stream_options"}})
        return answer(seen, f"pong {number}")

    upstream.script = script
    client = face.client(upstream)
    stream = face.chat(client, stream=True)
    assert text(face.items(stream)) == "pong 2"
    receipt = farthing.receipt(stream)
    assert receipt is not None
    assert receipt.estimated
    assert receipt.completion_tokens > 0
    face.stream(client, messages=[{"role": "user", "content": "other"}])
    assert upstream.calls == 3, "it is asked once"
    with pytest.raises(openai.BadRequestError):
        face.stream(client, stream_options={"include_usage": True}, messages=[{"role": "user", "content": "own"}])


def test_receipts_survive_copies_and_stay_out_of_dumps(face: Face, upstream: Upstream) -> None:
    made = face.chat(face.client(upstream))
    assert "farthing" not in made.model_dump_json()
    assert "farthing" not in repr(made)
    for twin in (copy.copy(made), copy.deepcopy(made), made.model_copy(), pickle.loads(pickle.dumps(made))):
        assert outcome(twin) == "miss"
        assert twin == made


def test_last_receipt(face: Face, upstream: Upstream) -> None:
    client = face.client(upstream)

    def use() -> Any:
        if not face.is_async:
            client.chat.completions.create(model="m", messages=MESSAGES)
            return client.last_receipt()

        async def main() -> Any:
            await client.chat.completions.create(model="m", messages=MESSAGES)
            return client.last_receipt()

        return main()

    assert [face.run(use).outcome for _ in range(2)] == ["miss", "hit"]
