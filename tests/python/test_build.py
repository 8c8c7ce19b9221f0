"""What is made without the SDK's own construct is what that makes: objects, raw responses, chunks, requests, errors.

Every case runs through the plain SDK and through farthing against one scripted upstream, and everything that a caller
can see of the two results is compared.
"""

from __future__ import annotations

import asyncio
import base64
import copy
import json
import struct
import warnings
from collections.abc import Callable
from typing import Any

import openai
import pydantic
import pytest
from conftest import MESSAGES, Face
from hypothesis import given
from hypothesis import strategies as st
from openai import _base_client
from openai._models import BaseModel, construct_type
from openai.types import CreateEmbeddingResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from upstream import Reply, Seen, Upstream, answer, chat, chat_events, embedding, event, response, response_events

import farthing
from farthing.resources.chat import CHAT
from farthing.resources.embeddings import EMBEDDINGS
from farthing.resources.responses import RESPONSES

pytestmark = pytest.mark.once

httpx: Any = getattr(_base_client, "httpx2", None) or _base_client.httpx

# What two equal answers may differ in.
PASSING = ("date", "server")


# What can be seen of a result.


def deep(value: Any) -> Any:
    """A value with the type of everything in it, and what its models count as set and as extra."""
    if isinstance(value, pydantic.BaseModel):
        fields = type(value).model_fields
        shown = {name: deep(item) for name, item in vars(value).items() if name in fields}
        order = [name for name in vars(value) if name in fields]
        extra = value.model_extra
        return type(value), order, shown, set(value.model_fields_set), extra if extra is None else deep(extra)
    if isinstance(value, dict):
        return type(value), [(deep(name), deep(item)) for name, item in value.items()]
    if isinstance(value, (list, tuple)):
        return type(value), [deep(item) for item in value]
    # repr() tells NaN from NaN, 1 from 1.0 and 1 from True.
    return type(value), repr(value)


def outcome(call: Callable[[], Any]) -> Any:
    """What a call returns, or what it raises."""
    try:
        return "returned", call()
    except Exception as error:
        return "raised", failed(error)


def failed(error: BaseException) -> dict[str, Any]:
    names = ("message", "body", "code", "param", "type", "status_code", "request_id")
    known = {name: getattr(error, name) for name in names if hasattr(error, name)}
    if hasattr(error, "response"):
        known["text"] = error.response.text
    cause = error.__cause__
    return {"class": type(error), "text": str(error), "cause": cause and type(cause), **known}


def noted(call: Callable[[], Any]) -> Any:
    """The outcome of a call, and what it warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = outcome(call)
    # Not what the garbage collector happens to say meanwhile.
    return result, [str(w.message) for w in caught if w.category is UserWarning]


def seen_of(value: Any) -> dict[str, Any]:
    """All that a caller can see of an object."""
    known = {"deep": deep(value), "repr": repr(value), "str": str(value)}
    if isinstance(value, BaseModel):
        known["id"] = outcome(lambda: value._request_id)
        known["dump"] = noted(lambda: deep(value.model_dump()))
        known["dump set"] = noted(lambda: deep(value.model_dump(exclude_unset=True)))
        known["dump as JSON"] = noted(lambda: deep(value.model_dump(mode="json", exclude_none=True)))
        known["dict"] = noted(lambda: deep(value.to_dict()))
        known["json"] = noted(value.to_json)
        known["text"] = noted(lambda: value.model_dump_json(exclude_defaults=True))
        known["hidden"] = value.__pydantic_private__
    return known


def raw_of(raw: Any) -> dict[str, Any]:
    """All that a caller can see of a raw response."""
    inner = raw.http_response
    return {
        "type": type(raw),
        "parse": outcome(lambda: seen_of(raw.parse())),
        "same": outcome(lambda: raw.parse() is raw.parse()),
        "json": outcome(lambda: deep(inner.json())),
        "headers": {name: value for name, value in raw.headers.items() if name not in PASSING},
        "text": raw.text,
        "content": raw.content,
        "status": raw.status_code,
        "id": raw.request_id,
        "retries": raw.retries_taken,
        "method": raw.method,
        "path": raw.url.path,
        "closed": raw.is_closed,
        "version": raw.http_version,
        "reason": inner.reason_phrase,
        "encoding": inner.encoding,
        "sent": json.loads(raw.http_request.content),
    }


def differences(ours: Any, theirs: Any, path: str = "") -> list[str]:
    """Where two descriptions differ: the whole of both is too much to read."""
    if ours == theirs:
        return []
    if isinstance(ours, dict) and isinstance(theirs, dict) and ours.keys() == theirs.keys():
        return [line for name in ours for line in differences(ours[name], theirs[name], f"{path}.{name}")]
    if isinstance(ours, (list, tuple)) and isinstance(theirs, (list, tuple)) and len(ours) == len(theirs):
        pairs = enumerate(zip(ours, theirs, strict=True))
        return [line for n, (mine, their) in pairs for line in differences(mine, their, f"{path}[{n}]")]
    return [f"{path}: ours {str(ours)[:200]} theirs {str(theirs)[:200]}"]


def same(ours: Any, theirs: Any, note: str = "") -> None:
    found = differences(ours, theirs)
    assert not found, f"{note}: " + "\n".join(found[:8])


Case = Callable[[Any], Any]


def ask_chat(client: Any, **more: Any) -> Any:
    return client.chat.completions.create(**{"model": "test-model", "messages": MESSAGES, **more})


def ask_response(client: Any, **more: Any) -> Any:
    return client.responses.create(**{"model": "test-model", "input": "ping", **more})


def ask_embedding(client: Any, **more: Any) -> Any:
    return client.embeddings.create(**{"model": "test-model", "input": ["ping"], **more})


def raw_chat(client: Any, **more: Any) -> Any:
    return client.chat.completions.with_raw_response.create(**{"model": "test-model", "messages": MESSAGES, **more})


def raw_response(client: Any, **more: Any) -> Any:
    return client.responses.with_raw_response.create(**{"model": "test-model", "input": "ping", **more})


def raw_embedding(client: Any, **more: Any) -> Any:
    return client.embeddings.with_raw_response.create(**{"model": "test-model", "input": ["ping"], **more})


def compare(face: Face, upstream: Upstream, ask: Any, raw: Any, reply: Reply, **more: Any) -> None:
    """One body, as an object and raw, asked for twice: the second time may come from the cache."""
    reply.headers = {"x-request-id": "req_1", "openai-processing-ms": "7", **reply.headers}
    upstream.script = lambda seen, number: reply

    def get(client: Any) -> tuple[Any, Any]:
        made = outcome(lambda: face.run(lambda: ask(client, **more)))
        return made[1], seen_of(made[1]) if made[0] == "returned" else made

    plain, client = face.client(upstream, plain=True), face.client(upstream)
    (made, theirs), (again, _) = get(plain), get(plain)
    for turn in ("first", "second", "third"):
        mine, ours = get(client)
        same(ours, theirs, turn)
        # No two NaN are equal, unless they are one object.
        if isinstance(made, BaseModel) and made == again and "nan" not in repr(made):
            assert mine == made and made == mine, turn
    raws = outcome(lambda: raw_of(face.run(lambda: raw(plain, **more))))
    client = face.client(upstream)
    for turn in ("first raw", "second raw"):
        ours = outcome(lambda: raw_of(face.run(lambda: raw(client, **more))))
        if ours[0] == "returned" and ours[1]["headers"].pop("x-farthing-cache", None):
            # A hit keeps the headers that say something of the answer, and no more; all that is stored is JSON.
            kept = ours[1]["headers"]
            if kept["content-type"] == "application/json":
                kept.pop("content-type")
            assert kept.keys() >= {"x-request-id", "openai-processing-ms"}
            same(kept, {name: raws[1]["headers"].get(name) for name in kept}, turn)
            ours[1].update({name: raws[1][name] for name in ("headers", "encoding")})
        same(ours, raws, turn)
    same(get(client)[1], theirs, "after the raw ones")


# Chat completions, as providers write them.


def change(body: Any, *path: Any, **more: Any) -> Any:
    """A copy with more in it, at the path."""
    body = copy.deepcopy(body)
    at = body
    for step in path:
        at = at[step]
    at.update(more)
    return body


def message(**more: Any) -> Any:
    """A good answer with these fields in its message."""
    return change(chat(), "choices", 0, "message", **more)


def choice(**more: Any) -> Any:
    return change(chat(), "choices", 0, **more)


def without(*path: Any, body: Any = None) -> Any:
    body = copy.deepcopy(body if body is not None else chat())
    at = body
    for step in path[:-1]:
        at = at[step]
    del at[path[-1]]
    return body


def said(text: Any = "pong", **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


def chosen(message: Any, finish: Any = "stop", **more: Any) -> dict[str, Any]:
    return {"index": 0, "message": message, "finish_reason": finish, **more}


def completion(choices: Any, usage: Any, **more: Any) -> dict[str, Any]:
    frame = {"id": "chatcmpl-7", "object": "chat.completion", "created": 1_700_000_001, "model": "test-model"}
    return {**frame, "choices": choices, "usage": usage, **more}


def tokens(prompt: int = 11, answered: int = 5, **more: Any) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": answered,
        "total_tokens": prompt + answered,
        **more,
    }


CALL = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"where": "here"}'}}
CUSTOM = {"id": "call_2", "type": "custom", "custom": {"name": "run", "input": "ls"}}
CITATION = {"type": "url_citation", "url_citation": {"start_index": 0, "end_index": 4, "title": "T", "url": "http://t"}}
FILTERED = {
    "hate": {"filtered": False, "severity": "safe"},
    "self_harm": {"filtered": False, "severity": "safe"},
    "jailbreak": {"filtered": False, "detected": False},
    "protected_material_code": {
        "filtered": False,
        "detected": False,
        "citation": {"URL": "http://c", "license": "MIT"},
    },
}
LOGPROB = {
    "token": "pong",
    "logprob": -0.25,
    "bytes": [112, 111],
    "top_logprobs": [
        {"token": "pong", "logprob": -0.25, "bytes": None},
        {"token": "x", "logprob": -9999.0, "bytes": []},
    ],
}
OPENAI_USAGE = tokens(
    prompt_tokens_details={"cached_tokens": 4, "audio_tokens": 0, "cache_write_tokens": 0},
    completion_tokens_details={
        "reasoning_tokens": 2,
        "audio_tokens": 0,
        "accepted_prediction_tokens": 0,
        "rejected_prediction_tokens": 0,
    },
)

PROVIDERS: dict[str, Any] = {
    "openai": completion(
        [chosen(said(refusal=None, annotations=[CITATION]), logprobs=None)],
        OPENAI_USAGE,
        service_tier="default",
        system_fingerprint="fp_44709d6fcb",
    ),
    "openai, stored": completion(
        [chosen(said(refusal=None, annotations=[]))],
        OPENAI_USAGE,
        service_tier="flex",
        metadata={"team": "a"},
        request_id="req_x",
        tool_choice=None,
        seed=12,
        top_p=1.0,
        temperature=1.0,
        input_user=None,
        tools=None,
        response_format=None,
    ),
    "azure": completion(
        [chosen(said(refusal=None, annotations=[]), content_filter_results=FILTERED, logprobs=None)],
        OPENAI_USAGE,
        prompt_filter_results=[{"prompt_index": 0, "content_filter_results": FILTERED}],
        system_fingerprint="fp_1",
    ),
    "azure, a tool": completion(
        [
            chosen(
                said(None, refusal=None, annotations=[], tool_calls=[CALL]),
                "tool_calls",
                content_filter_results={},
                logprobs=None,
            )
        ],
        OPENAI_USAGE,
        prompt_filter_results=[{"prompt_index": 0, "content_filter_results": {"error": {"code": "x", "message": "y"}}}],
    ),
    "anthropic": {
        "id": "msg_01",
        "choices": [{"finish_reason": "stop", "index": 0, "message": {"content": "pong", "role": "assistant"}}],
        "created": 1_700_000_000,
        "model": "claude-test",
        "object": "chat.completion",
        "usage": tokens(completion_tokens_details=None, prompt_tokens_details=None),
        "service_tier": None,
        "system_fingerprint": None,
    },
    "deepseek": completion(
        [chosen(said("pong", reasoning_content="Let me think."), logprobs=None)],
        tokens(
            prompt_tokens_details={"cached_tokens": 0},
            completion_tokens_details={"reasoning_tokens": 4},
            prompt_cache_hit_tokens=3,
            prompt_cache_miss_tokens=8,
        ),
        system_fingerprint="fp_ollama",
    ),
    "deepseek, a tool": completion(
        [chosen(said("", reasoning_content="So.", tool_calls=[{"index": 0, **CALL}]), "tool_calls", logprobs=None)],
        tokens(prompt_cache_hit_tokens=0, prompt_cache_miss_tokens=11),
    ),
    "mistral": {
        "id": "cmpl-e5cc70bb28c444948073e77776eb30ef",
        "created": 1_702_256_327,
        "model": "mistral-small-latest",
        "usage": {
            "prompt_tokens": 16,
            "total_tokens": 50,
            "completion_tokens": 34,
            "prompt_tokens_details": None,
            "prompt_audio_seconds": {},
            "num_cached_tokens": None,
        },
        "object": "chat.completion",
        "choices": [
            {"index": 0, "finish_reason": "stop", "message": said("pong", tool_calls=None, prefix=False)},
        ],
    },
    "mistral, a tool": completion(
        [
            chosen(
                said(
                    "",
                    tool_calls=[{"id": "D681PevKs", "function": {"name": "look", "arguments": '{"a": 1}'}, "index": 0}],
                ),
                "tool_calls",
            )
        ],
        tokens(),
    ),
    "mistral, parts": completion(
        [
            chosen(
                said(
                    [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "p"}]
                )
            )
        ],
        tokens(),
    ),
    "groq": completion(
        [chosen(said(), logprobs=None)],
        tokens(queue_time=0.037493756, prompt_time=0.000680594, completion_time=0.463333333, total_time=0.464013927),
        system_fingerprint="fp_179b0f92c9",
        x_groq={"id": "req_01jbd6g2qdfw2adyrt2az8hz4w", "seed": 1},
        service_tier="on_demand",
        usage_breakdown=None,
    ),
    "groq, reasoning": completion(
        [chosen(said(reasoning="because", executed_tools=[{"index": 0, "type": "search", "arguments": "{}"}]))],
        tokens(queue_time=1, total_time=2, completion_tokens_details={"reasoning_tokens": 3}),
        x_groq={"id": "req_1"},
        service_tier="on_demand",
    ),
    "ollama": completion([chosen(said())], tokens(), system_fingerprint="fp_ollama", model="qwen2.5:0.5b"),
    "ollama, a tool": completion(
        [chosen(said("", tool_calls=[{**CALL, "index": 0}]), "tool_calls")], tokens(), system_fingerprint="fp_ollama"
    ),
    "llama.cpp": {
        "choices": [{"finish_reason": "stop", "index": 0, "message": {"role": "assistant", "content": "pong"}}],
        "created": 1_745_000_000,
        "model": "gpt-3.5-turbo",
        "system_fingerprint": "b5150-abc",
        "object": "chat.completion",
        "usage": {"completion_tokens": 3, "prompt_tokens": 9, "total_tokens": 12},
        "id": "chatcmpl-NZT5qZ",
        "timings": {"prompt_n": 9, "prompt_ms": 32.1, "prompt_per_second": 280.0, "predicted_n": 3, "cache_n": 0},
        "__verbose": {"index": 0, "tokens": [], "generation_settings": {"seed": 4294967295, "dynatemp": 0.0}},
    },
    "vllm": completion(
        [
            chosen(
                said(refusal=None, annotations=None, audio=None, function_call=None, tool_calls=[], reasoning="hm"),
                logprobs=None,
                stop_reason=151643,
                token_ids=None,
            )
        ],
        tokens(prompt_tokens_details=None),
        service_tier=None,
        system_fingerprint=None,
        prompt_logprobs=None,
        prompt_token_ids=None,
        kv_transfer_params=None,
    ),
    "vllm, older": completion(
        [chosen(said(reasoning_content=None, tool_calls=[]), logprobs=None, stop_reason=None, matched_stop=2)],
        tokens(),
        prompt_logprobs=[None, {"5": {"logprob": -1.5, "rank": 1, "decoded_token": "x"}}],
    ),
    "openrouter": {
        "id": "gen-1",
        "provider": "DeepInfra",
        "model": "deepseek/deepseek-r1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "choices": [
            {
                "logprobs": None,
                "finish_reason": "stop",
                "native_finish_reason": "STOP",
                "index": 0,
                "message": said(
                    refusal=None,
                    reasoning="because",
                    reasoning_details=[{"type": "reasoning.text", "text": "because", "format": "unknown", "index": 0}],
                ),
            }
        ],
        "usage": tokens(
            cost=0.00014,
            is_byok=False,
            prompt_tokens_details={"cached_tokens": 0, "audio_tokens": 0, "video_tokens": 0},
            cost_details={"upstream_inference_cost": None, "upstream_inference_prompt_cost": 1.1e-05},
            completion_tokens_details={"reasoning_tokens": 2, "image_tokens": 0},
        ),
    },
    "gemini": {
        "choices": [{"index": 0, "message": {"content": "pong", "role": "assistant"}}],
        "created": 1_700_000_000,
        "id": "GQ1oaNn",
        "model": "gemini-2.5-flash",
        "object": "chat.completion",
        "usage": {"completion_tokens": 1, "prompt_tokens": 2, "total_tokens": 40},
    },
    "gemini, a thought": completion(
        [
            chosen(
                said(
                    extra_content={"google": {"thought_signature": "Cg=="}}, tool_calls=[{**CALL, "extra_content": {}}]
                )
            )
        ],
        {"completion_tokens": 1, "prompt_tokens": 2, "total_tokens": 40},
    ),
    "together": {
        "id": "oAz1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "meta-llama/Llama-3-8b",
        "prompt": [],
        "choices": [
            {
                "finish_reason": "stop",
                "seed": 6014293190321066000,
                "logprobs": None,
                "index": 0,
                "message": said(tool_calls=[]),
            }
        ],
        "usage": {"prompt_tokens": 2, "completion_tokens": 1, "total_tokens": 3, "cached_tokens": 0},
        "metadata": {"weight_version": "default"},
    },
    "together, eos": completion([chosen(said(tool_calls=[]), "eos", seed=1)], tokens(), prompt=[]),
    "cohere": {
        "id": "d6f7",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "pong"}}],
        "created": 1_700_000_000,
        "model": "command-a",
        "object": "chat.completion",
        "usage": {"prompt_tokens": 2, "completion_tokens": 1, "total_tokens": 3},
    },
    "xai": completion(
        [chosen(said(refusal=None, reasoning_content="hm"))],
        tokens(
            prompt_tokens_details={"text_tokens": 31, "audio_tokens": 0, "image_tokens": 0, "cached_tokens": 6},
            completion_tokens_details={
                "reasoning_tokens": 9,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
            num_sources_used=0,
            cost_in_usd_ticks=158500,
        ),
        system_fingerprint="fp_156d35dcaa",
        citations=["http://a"],
        service_tier="default",
    ),
    "perplexity": completion(
        [chosen(said(), delta={"role": "assistant", "content": ""})],
        tokens(search_context_size="low", cost={"input_tokens_cost": 1e-05, "request_cost": 0.005}),
        citations=["http://a"],
        search_results=[{"title": "A", "url": "http://a", "date": None}],
    ),
}

MODERATION: Any = {
    "input": {
        "type": "moderation_results",
        "model": "omni",
        "results": [
            {
                "categories": {"hate": False},
                "category_applied_input_types": {"hate": ["text"]},
                "category_scores": {"hate": 0, "violence": 1e-05},
                "flagged": False,
                "model": "omni",
                "type": "moderation_result",
                "x_new": {"y": 1},
            }
        ],
        "x_new": 1,
    },
    "output": {"type": "error", "code": "c", "message": "m"},
    "x_new": [1],
}

EVERY_LEVEL = completion(
    [
        chosen(
            said(
                "pong",
                x_message={"a": [1, {"b": None}]},
                annotations=[{**CITATION, "x_a": 1, "url_citation": {**CITATION["url_citation"], "x_u": 1}}],  # type: ignore[dict-item]
                audio={"id": "a", "data": "", "expires_at": 1, "transcript": "", "x_audio": 1},
                function_call={"name": "f", "arguments": "{}", "x_call": 1},
                tool_calls=[
                    {**CALL, "x_call": 1, "function": {**CALL["function"], "x_function": 1}},  # type: ignore[dict-item]
                    {**CUSTOM, "x_call": 1, "custom": {**CUSTOM["custom"], "x_custom": 1}},  # type: ignore[dict-item]
                ],
            ),
            logprobs={"content": [{**LOGPROB, "x_token": 1}], "refusal": None, "x_logprobs": 1},
            x_choice=1,
        )
    ],
    tokens(
        x_usage=1.5,
        prompt_tokens_details={"cached_tokens": 1, "x_details": 1},
        completion_tokens_details={"reasoning_tokens": 1, "x_details": {}},
    ),
    moderation=MODERATION,
    x_top={"z": 1, "a": 2},
)


def nothing(value: Any, keep: int) -> Any:
    """The same shape with nulls for all leaves below so many levels."""
    if isinstance(value, dict):
        return {name: nothing(item, keep - 1) for name, item in value.items()} if keep > 0 else None
    if isinstance(value, list):
        return [nothing(item, keep - 1) for item in value] if keep > 0 else None
    return None


TEXT = json.dumps(chat("@")).encode()


def inside(replacement: bytes, what: bytes = b'"@"') -> bytes:
    assert TEXT.count(what) == 1
    return TEXT.replace(what, replacement)


ODD: dict[str, Any] = {
    "no id": without("id"),
    "no choices": without("choices"),
    "no model": without("model"),
    "no object": without("object"),
    "no created": without("created"),
    "no usage": without("usage"),
    "no message": without("choices", 0, "message"),
    "no role": without("choices", 0, "message", "role"),
    "no content": without("choices", 0, "message", "content"),
    "no index": without("choices", 0, "index"),
    "no total": without("usage", "total_tokens"),
    "no finish reason": without("choices", 0, "finish_reason"),
    "unknown finish reason": choice(finish_reason="eos"),
    "null finish reason": choice(finish_reason=None),
    "a cut answer": choice(finish_reason="length"),
    "a filtered answer": choice(finish_reason="content_filter"),
    "other object": chat(object="text_completion"),
    "int id": chat(id=17),
    "float created": chat(created=1_700_000_000.0),
    "fractional created": chat(created=1_700_000_000.25),
    "text created": chat(created="1700000000"),
    "bool created": chat(created=True),
    "text index": choice(index="0"),
    "null choices": chat(choices=None),
    "empty choices": chat(choices=[]),
    "choices of nulls": chat(choices=[None]),
    "choices of numbers": chat(choices=[1, 2]),
    "choices as an object": chat(choices={"0": {"index": 0}}),
    "choices as text": chat(choices="none"),
    "nested choices": chat(choices=[[{"index": 0, "message": said()}]]),
    "message as text": choice(message="pong"),
    "message as a list": choice(message=[said()]),
    "message null": choice(message=None),
    "usage null": chat(usage=None),
    "usage empty": chat(usage={}),
    "usage as a list": chat(usage=[tokens()]),
    "usage as text": chat(usage="12"),
    "usage of texts": chat(usage={"prompt_tokens": "9", "completion_tokens": "3", "total_tokens": "12"}),
    "usage of floats": chat(usage={"prompt_tokens": 9.0, "completion_tokens": 3.0, "total_tokens": 12.0}),
    "usage of fractions": chat(usage=tokens(total_tokens=1.5)),
    "usage of bools": chat(usage=tokens(total_tokens=True)),
    "usage of nulls": chat(usage={"prompt_tokens": None, "completion_tokens": None, "total_tokens": None}),
    "details empty": chat(usage=tokens(prompt_tokens_details={}, completion_tokens_details={})),
    "details of nulls": chat(usage=tokens(prompt_tokens_details={"cached_tokens": None})),
    "details as a number": chat(usage=tokens(prompt_tokens_details=5)),
    "service tier unknown": chat(service_tier="on_demand"),
    "service tier a number": chat(service_tier=3),
    "fingerprint a number": chat(system_fingerprint=3),
    "metadata of numbers": chat(metadata={"a": 1}),
    "metadata null": chat(metadata=None),
    "a tool": message(content=None, tool_calls=[CALL]),
    "a tool, more in it": message(tool_calls=[{**CALL, "x_new": {"a": 1}}]),
    "a custom tool": message(content=None, tool_calls=[CUSTOM]),
    "both tools": message(content=None, tool_calls=[CALL, CUSTOM]),
    "an unknown tool": message(content=None, tool_calls=[{"id": "c", "type": "mcp", "mcp": {"name": "x"}}]),
    "a known and an unknown tool": message(tool_calls=[CALL, {"id": "c", "type": "mcp", "mcp": {}}]),
    "a tool without type": message(tool_calls=[{"id": "c", "function": {"name": "f", "arguments": ""}}]),
    "a tool with null type": message(
        tool_calls=[{"id": "c", "type": None, "function": {"name": "f", "arguments": ""}}]
    ),
    "a tool with an object": message(tool_calls=[{"id": "c", "type": "function", "function": {"arguments": {"a": 1}}}]),
    "a tool that is both": message(tool_calls=[{**CALL, **CUSTOM, "type": "custom"}]),
    "a tool that is both, the other way": message(tool_calls=[{**CUSTOM, **CALL}]),
    "tools null": message(tool_calls=None),
    "tools empty": message(tool_calls=[]),
    "tools of nulls": message(tool_calls=[None]),
    "tools as an object": message(tool_calls={"0": CALL}),
    "logprobs": choice(logprobs={"content": [LOGPROB], "refusal": None}),
    "logprobs of ints": choice(
        logprobs={"content": [{"token": "a", "logprob": 0, "bytes": None, "top_logprobs": []}], "refusal": []}
    ),
    "logprobs of ints, deeper": choice(
        logprobs={
            "content": [
                {
                    "token": "a",
                    "logprob": -1,
                    "top_logprobs": [{"token": "a", "logprob": -1, "bytes": [1]}],
                    "bytes": [],
                }
            ]
        }
    ),
    "logprobs of huge ints": choice(
        logprobs={"content": [{"token": "a", "logprob": -9007199254740992, "bytes": None, "top_logprobs": []}]}
    ),
    "logprobs older": choice(logprobs={"tokens": ["a"], "token_logprobs": [-0.5], "top_logprobs": [None]}),
    "logprobs empty": choice(logprobs={}),
    "function call": message(content=None, function_call={"name": "f", "arguments": "{}"}),
    "function call, more in it": message(function_call={"name": "f", "arguments": "{}", "x_new": 1}),
    "refusal": message(content=None, refusal="I cannot."),
    "audio null": message(audio=None),
    "audio": message(content=None, audio={"id": "a", "data": "AA==", "expires_at": 1, "transcript": "pong"}),
    "annotations null": message(annotations=None),
    "annotations unknown": message(annotations=[{"type": "file", "file": {"name": "x"}}]),
    "other role": message(role="model"),
    "three": chat(choices=[{**chosen(said(f"pong {n}")), "index": n, "logprobs": None} for n in range(3)]),
    "three, one odd": chat(choices=[chosen(said()), chosen(said(), "eos"), chosen(said(7))]),
    "unknown at every level": EVERY_LEVEL,
    "unknown at every level, and one odd": change(EVERY_LEVEL, service_tier="other"),
    "unknown at every level, and one odd message": change(EVERY_LEVEL, "choices", 0, "message", role="other"),
    "moderation": chat(moderation=MODERATION),
    "moderation of ints": change(chat(moderation=MODERATION), "moderation", output=MODERATION["input"]),
    "nulls at the top": nothing(EVERY_LEVEL, 1),
    "nulls below": nothing(EVERY_LEVEL, 3),
    "nulls deep below": nothing(EVERY_LEVEL, 5),
    "nulls everywhere": nothing(EVERY_LEVEL, 9),
    "unicode": chat("naïve 😀 \u2028 \x00 \x7f ‮"),
    "unicode, unescaped": json.dumps(chat("naïve 😀 \u2028"), ensure_ascii=False).encode(),
    "surrogate pair": inside(b'"\\ud83d\\ude00"'),
    "lone surrogate": inside(b'"\\ud83d"'),
    "lone surrogate in a name": inside(b'"@", "x\\ud83d": 1'),
    "wrong surrogates": inside(b'"\\ude00\\ud83d"'),
    "escapes": inside(b'"\\u0000\\/\\b\\f\\n\\r\\t\\\\\\""'),
    "big ints": chat(created=2**63, x_big=10**40, x_negative=-(2**64)),
    "many digits": inside(b'"@", "x_big": ' + b"9" * 5000),
    "exponent": TEXT.replace(b"1700000000", b"1.7e9"),
    "exponent in tokens": TEXT.replace(b'"total_tokens": 12', b'"total_tokens": 1.2e1'),
    "exponent in the unknown": inside(b'"@", "x": [1e3, 1E+2, -0.0, -0, 1e-7, 1e400, 0.1, 5e-324]'),
    "exponent in logprobs": json.dumps(choice(logprobs={"content": [{**LOGPROB, "logprob": -0.5}]}))
    .replace("-0.5", "-5E+1")
    .encode(),
    "a name twice": inside(b'"@", "content": "later"'),
    "an unknown name twice": inside(b'"@", "x": 1, "y": 2, "x": 3'),
    "an id twice": TEXT.replace(b'"created"', b'"id": 5, "id": "chatcmpl-2", "created"'),
    "choices twice": TEXT.replace(b'"usage"', b'"choices": [], "usage"'),
    "usage twice": TEXT.replace(b'"service_tier"', b'"usage": null, "service_tier"'),
    "NaN in the unknown": inside(b'"@", "x": NaN'),
    "infinity in the unknown": inside(b'"@", "x": [Infinity, -Infinity]'),
    "NaN in logprobs": json.dumps(choice(logprobs={"content": [{**LOGPROB, "logprob": float("nan")}]})).encode(),
    "infinity in logprobs": json.dumps(choice(logprobs={"content": [{**LOGPROB, "logprob": -float("inf")}]})).encode(),
    "minus NaN": inside(b'"@", "x": -NaN'),
    "nan in small letters": inside(b'"@", "x": nan'),
    "a comma too many": inside(b'"@",'),
    "a comment": inside(b'"@" /* no */'),
    "a tab in a text": inside(b'"a\tb"'),
    "bytes that are no UTF-8": inside(b'"a\xffb"'),
    "a surrogate in UTF-8": inside(b'"a\xed\xa0\x80b"'),
    "a leading zero": inside(b'"@", "x": 01'),
    "a bare point": inside(b'"@", "x": 1.'),
    "white space around": b" \r\n\t" + TEXT + b"\n\n",
    "keep-alive lines before": b"\n" * 500 + TEXT,
    "something after": TEXT + b"{}",
    "a BOM": b"\xef\xbb\xbf" + TEXT,
    "UTF-16": TEXT.decode().encode("utf-16"),
    "cut": TEXT[:-20],
    "deep": inside(b'"@", "x": ' + b"[" * 210 + b"]" * 210),
    "empty": b"",
    "null": b"null",
    "a list": b"[]",
    "a list of bodies": b"[" + TEXT + b"]",
    "a number": b"5",
    "a text": b'"pong"',
    "false": b"false",
    "an empty object": b"{}",
    "an error as a success": {"error": {"message": "no", "code": 400}},
    "an error and nothing": chat(choices=None, error={"message": "no"}),
    "html": b"<html>busy</html>",
    "names of Python": chat(model_config={"a": 1}, self=1, cls=2, copy=3, model_fields_set=[1], json="x", __dict__={}),
    "names of Python below": message(model_extra={"a": 1}, self=1, __class__="x", _request_id="mine", to_dict=1),
    "a request id in the body": chat(_request_id="mine", request_id="theirs"),
    "an empty name": message(**{"": 1, " ": 2, "a.b": 3, "ä": 4}),
}


@pytest.mark.parametrize("name", PROVIDERS)
def test_chat_of_a_provider(face: Face, upstream: Upstream, name: str) -> None:
    compare(face, upstream, ask_chat, raw_chat, Reply(body=PROVIDERS[name]))


@pytest.mark.parametrize("name", ODD)
def test_odd_chat(face: Face, upstream: Upstream, name: str) -> None:
    compare(face, upstream, ask_chat, raw_chat, Reply(body=ODD[name]))


@pytest.mark.parametrize(
    "kind",
    [
        "application/json; charset=utf-8",
        "application/json; charset=latin-1",
        "APPLICATION/JSON",
        "application/vnd.api+json",
        "application/problem+json",
        "text/json",
        "text/plain",
        "text/html; charset=latin-1",
        "text/event-stream",
        "",
        "json",
    ],
)
@pytest.mark.parametrize("ask", ["chat", "responses", "embeddings"])
def test_content_types(face: Face, upstream: Upstream, kind: str, ask: str) -> None:
    body = {"chat": chat("naïve"), "responses": response("naïve"), "embeddings": embedding()}[ask]
    calls: Any = {
        "chat": (ask_chat, raw_chat),
        "responses": (ask_response, raw_response),
        "embeddings": (ask_embedding, raw_embedding),
    }[ask]
    text = json.dumps(body, ensure_ascii=False).encode()
    compare(face, upstream, *calls, Reply(body=text, headers={"content-type": kind}))


@pytest.mark.parametrize("status", [201, 202, 203, 206])
def test_other_statuses_of_success(face: Face, upstream: Upstream, status: int) -> None:
    compare(face, upstream, ask_chat, raw_chat, Reply(status, chat()))


@pytest.mark.parametrize("headers", [{"x-request-id": ""}, {"set-cookie": "a=b"}, {"x-odd": "na\xefve"}], ids=str)
def test_headers_of_an_answer(face: Face, upstream: Upstream, headers: dict[str, str]) -> None:
    compare(face, upstream, ask_chat, raw_chat, Reply(body=chat(), headers=headers))


# Embeddings.


def packed(*numbers: float) -> str:
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


def vectors(*items: Any, **more: Any) -> dict[str, Any]:
    data = [{"object": "embedding", "index": index, "embedding": item} for index, item in enumerate(items)]
    return {
        "object": "list",
        "data": data,
        "model": "test-model",
        "usage": {"prompt_tokens": 5, "total_tokens": 5},
        **more,
    }


VECTOR = packed(0.1, -1.5, 3.0)
EMBEDDED: dict[str, Any] = {
    "one": vectors(VECTOR),
    "many": vectors(*[packed(n, 0.5, -n) for n in range(40)]),
    "floats": vectors([0.1, -1.5, 3.0]),
    "mixed": vectors(VECTOR, [0.1, 2.5], packed(7.0)),
    "ints": vectors([1, 0, -2]),
    "ints and floats": vectors([1, 0.5, -2]),
    "texts": vectors(["1", "2.5"]),
    "nulls": vectors([None, 1.0]),
    "nested": vectors([[0.1], [0.2]]),
    "an empty vector": vectors([]),
    "an empty text": vectors(""),
    "no data": vectors(),
    "data null": vectors(data=None),
    "data missing": without("data", body=vectors()),
    "data of nulls": vectors(data=[None]),
    "data as an object": vectors(data={}),
    "data as text": vectors(data="x"),
    "embedding missing": vectors(data=[{"object": "embedding", "index": 0}]),
    "embedding null": vectors(None),
    "embedding a number": vectors(5),
    "embedding an object": vectors({"dense": [1.0]}),
    "invalid base64": vectors("!!!!"),
    "base64 with noise": vectors(VECTOR[:4] + "\n " + VECTOR[4:]),
    "base64 in URL letters": vectors(VECTOR.replace("+", "-").replace("/", "_")),
    "base64 in URL letters, which matter": vectors(base64.urlsafe_b64encode(b"\xfb\xff\xbf\x3f").decode()),
    "base64 without padding": vectors(packed(0.1).rstrip("=")),
    "base64 with more after": vectors(packed(0.1) + "AAAA"),
    "base64 of three bytes": vectors("AAAA"),
    "base64 of odd length": vectors("AAAAA"),
    "base64 with trailing bits": vectors("AAAAAB=="),
    "base64, one of two invalid": vectors(VECTOR, "AAA"),
    "base64 of odd floats": vectors(packed(float("nan"), float("inf"), -0.0, 1e-45)),
    "base64, escaped": json.dumps(vectors(packed(-1.9, 2.7e18, 1.0e-5))).replace("/", "\\/").encode(),
    "base64, in \\u": json.dumps(vectors("@")).replace("@", "\\u0041AAAAA==").encode(),
    "extra fields": {
        **vectors(data=[{"object": "embedding", "index": 0, "embedding": VECTOR, "x_new": {"embedding": "AAAA"}}]),
        "x_top": [{"embedding": VECTOR}],
        "usage": {"prompt_tokens": 5, "total_tokens": 5, "x_usage": 1, "prompt_tokens_details": {"a": None}},
    },
    "extra fields, floats": {
        **vectors(data=[{"object": "embedding", "index": 0, "embedding": [0.5], "x_new": 1}]),
        "usage": {"prompt_tokens": 5, "total_tokens": 5, "x_usage": 1},
    },
    "usage missing": without("usage", body=vectors(VECTOR)),
    "usage null": vectors(VECTOR, usage=None),
    "usage empty": vectors(VECTOR, usage={}),
    "usage without total": vectors(VECTOR, usage={"prompt_tokens": 1}),
    "index missing": vectors(data=[{"object": "embedding", "embedding": VECTOR}]),
    "index a text": vectors(data=[{"object": "embedding", "index": "0", "embedding": VECTOR}]),
    "object other": vectors(VECTOR, object="embeddings"),
    "mistral": {"id": "e1", **vectors([0.5, -0.25]), "usage": {**tokens(5, 0), "request_count": 1}},
    "cohere": {**vectors([0.5, -0.25]), "id": "x", "meta": {"api_version": {"version": "2"}}},
    "embedding twice": json.dumps(vectors(VECTOR))
    .replace('"embedding": "', '"embedding": [1.0], "embedding": "')
    .encode(),
    "data twice": json.dumps(vectors(VECTOR)).replace('"model"', '"data": [], "model"').encode(),
    "NaN": vectors([float("nan"), float("inf")]),
    "empty": b"",
    "null": b"null",
    "a list": b"[]",
    "an error": {"error": {"message": "no"}},
    "html": b"<html>",
}


@pytest.mark.parametrize("asked", [{}, {"encoding_format": "float"}, {"encoding_format": "base64"}], ids=str)
@pytest.mark.parametrize("name", EMBEDDED)
def test_embeddings(face: Face, upstream: Upstream, name: str, asked: dict[str, Any]) -> None:
    compare(face, upstream, ask_embedding, raw_embedding, Reply(body=EMBEDDED[name]), **asked)


@pytest.mark.parametrize(
    "asked", [{"dimensions": 2}, {"dimensions": 2, "encoding_format": "float"}, {"user": "u"}], ids=str
)
def test_more_of_embeddings(face: Face, upstream: Upstream, asked: dict[str, Any]) -> None:
    body = vectors([1.0]) if "encoding_format" in asked else vectors(VECTOR)
    compare(face, upstream, ask_embedding, raw_embedding, Reply(body=body), **asked)


# Responses.


def output(*items: Any, **more: Any) -> Any:
    return response(output=list(items), **more)


def spoken(*annotations: Any, **more: Any) -> Any:
    part = {"type": "output_text", "text": "pong", "annotations": list(annotations), "logprobs": [], **more}
    return {"id": "msg_1", "type": "message", "status": "completed", "role": "assistant", "content": [part]}


URL = {"type": "url_citation", "start_index": 0, "end_index": 4, "url": "http://t", "title": "T"}
FILE = {"type": "file_citation", "index": 0, "file_id": "f", "filename": "a.pdf"}
REASONED = {"id": "rs_1", "type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}
FUNCTION = {
    "id": "fc_1",
    "type": "function_call",
    "status": "completed",
    "arguments": "{}",
    "call_id": "c",
    "name": "f",
}
SEARCHED = {"id": "ws_1", "type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "x"}}
FOUND = {"id": "fs_1", "type": "file_search_call", "status": "completed", "queries": ["x"], "results": None}

RESPONDED: dict[str, Any] = {
    "a message": response(),
    "a message, all of OpenAI's fields": response(
        background=False,
        billing={"payer": "developer"},
        completed_at=1_700_000_001,
        frequency_penalty=0.0,
        max_output_tokens=None,
        max_tool_calls=None,
        presence_penalty=0,
        previous_response_id=None,
        prompt_cache_key=None,
        prompt_cache_retention=None,
        reasoning={"effort": None, "summary": None},
        safety_identifier=None,
        service_tier="default",
        store=False,
        text={"format": {"type": "text"}, "verbosity": "medium"},
        top_logprobs=0,
        truncation="disabled",
        user=None,
    ),
    "a message with logprobs": output(
        spoken(logprobs=[{"token": "p", "bytes": [112], "logprob": -1, "top_logprobs": [], "x_new": 1}])
    ),
    "reasoning": output({**REASONED, "encrypted_content": None, "status": None}, spoken()),
    "reasoning, encrypted": output({**REASONED, "summary": [], "encrypted_content": "gAAA"}, spoken()),
    "reasoning with content": output({**REASONED, "content": [{"type": "reasoning_text", "text": "hm"}]}, spoken()),
    "a function call": output(FUNCTION),
    "a function call and more in it": output({**FUNCTION, "x_new": {"a": 1}, "parsed_arguments": None}),
    "a custom tool call": output(
        {"id": "ct_1", "type": "custom_tool_call", "call_id": "c", "name": "n", "input": "ls"}
    ),
    "a web search": output(SEARCHED, spoken(URL)),
    "a web search, newer": output({**SEARCHED, "action": {"type": "hop", "query": 1}}, spoken(URL)),
    "a web search that opens": output({**SEARCHED, "action": {"type": "open_page", "url": "http://t"}}, spoken()),
    "a web search that finds": output({**SEARCHED, "action": {"type": "find_in_page", "url": "u", "pattern": "p"}}),
    "a web search without action": output(without("action", body=SEARCHED), spoken(URL)),
    "a web search with sources": output(
        {
            **SEARCHED,
            "action": {"type": "search", "queries": ["a"], "query": "a", "sources": [{"type": "url", "url": "u"}]},
        }
    ),
    "a file search": output(FOUND, spoken(FILE)),
    "a file search with results": output(
        {**FOUND, "results": [{"attributes": {"a": 1, "b": "x", "c": True, "d": 1.5}, "file_id": "f", "score": 1}]}
    ),
    "a file path": output(spoken({"type": "file_path", "file_id": "f", "index": 0})),
    "a container file": output(
        spoken(
            {
                "type": "container_file_citation",
                "container_id": "c",
                "file_id": "f",
                "filename": "n",
                "start_index": 0,
                "end_index": 1,
            }
        )
    ),
    "an unknown annotation": output(spoken({"type": "place_citation", "place": "here"})),
    "a citation with more": output(spoken({**URL, "x_new": 1}, {**FILE, "x_new": 2})),
    "a citation without title": output(spoken(without("title", body=URL))),
    "code interpreter": output(
        {
            "id": "ci",
            "type": "code_interpreter_call",
            "status": "completed",
            "code": "1",
            "container_id": "c",
            "outputs": None,
        }
    ),
    "code interpreter with outputs": output(
        {
            "id": "ci",
            "type": "code_interpreter_call",
            "status": "completed",
            "code": None,
            "container_id": "c",
            "outputs": [{"type": "logs", "logs": "x"}, {"type": "image", "url": "u"}, {"type": "other"}],
        }
    ),
    "mcp": output(
        {
            "id": "mcp",
            "type": "mcp_call",
            "arguments": "{}",
            "name": "n",
            "server_label": "s",
            "output": "x",
            "error": None,
        },
        {"id": "l", "type": "mcp_list_tools", "server_label": "s", "tools": [{"name": "t", "input_schema": {"a": 1}}]},
    ),
    "image generation": output({"id": "ig", "type": "image_generation_call", "status": "completed", "result": "AA=="}),
    "a computer call": output(
        {
            "id": "cu",
            "type": "computer_call",
            "call_id": "c",
            "status": "completed",
            "pending_safety_checks": [],
            "action": {"type": "click", "button": "left", "x": 1, "y": 2},
        }
    ),
    "a refusal": output({**spoken(), "content": [{"type": "refusal", "refusal": "no"}]}),
    "an empty message": output({**spoken(), "content": []}),
    "an unknown part": output({**spoken(), "content": [{"type": "output_video", "url": "u"}]}),
    "a message with more in it": output({**spoken(x_new=1), "x_new": {"a": 1}, "phase": None}),
    "a message without status": output(without("status", body=spoken())),
    "a message without id": output(without("id", body=spoken())),
    "a message without role": output(without("role", body=spoken())),
    "a message without annotations": output({**spoken(), "content": [{"type": "output_text", "text": "pong"}]}),
    "a message with null annotations": output(
        {**spoken(), "content": [{"type": "output_text", "text": "pong", "annotations": None, "logprobs": None}]}
    ),
    "incomplete": response(status="incomplete", incomplete_details={"reason": "max_output_tokens"}),
    "incomplete, unknown": response(status="incomplete", incomplete_details={"reason": "tired", "x_new": 1}),
    "failed": output(status="failed", error={"code": "server_error", "message": "no"}, usage=None),
    "failed, unknown": output(status="failed", error={"code": "other", "message": "no", "x_new": 1}),
    "queued": output(status="queued", usage=None),
    "an unknown status": response(status="done"),
    "an unknown item": output({"type": "hologram", "id": "h", "depth": 3}),
    "an unknown item among known": output(REASONED, {"type": "hologram", "id": "h"}, spoken()),
    "an item without type": output({"id": "x", "content": []}),
    "an item that is null": output(None),
    "output null": response(output=None),
    "output missing": without("output", body=response()),
    "output text": response(output_text="pong"),
    "no usage": without("usage", body=response()),
    "usage null": response(usage=None),
    "usage without details": response(usage={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}),
    "usage with null details": response(
        usage={
            "input_tokens": 1,
            "output_tokens": 2,
            "total_tokens": 3,
            "input_tokens_details": None,
            "output_tokens_details": None,
        }
    ),
    "usage with more": change(change(response(), "usage", x_new=1), "usage", "input_tokens_details", x_new=1),
    "few fields": {"id": "r", "object": "response", "created_at": 1, "model": "m", "output": [spoken()]},
    "int times": response(created_at=1_700_000_000, temperature=1, top_p=1),
    "text times": response(created_at="2024-01-01T00:00:00Z"),
    "null temperature": response(temperature=None, top_p=None),
    "text temperature": response(temperature="1.5"),
    "tools": response(
        tools=[
            {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True, "description": None},
            {
                "type": "web_search",
                "filters": None,
                "search_context_size": "medium",
                "user_location": {"type": "approximate"},
            },
            {"type": "custom", "name": "c", "format": {"type": "text"}, "x_new": 1},
        ],
        tool_choice={"type": "function", "name": "f"},
    ),
    "an unknown tool": response(tools=[{"type": "hologram"}], tool_choice="perhaps"),
    "a tool without strict": response(tools=[{"type": "function", "name": "f", "parameters": None}]),
    "tool choice allowed": response(
        tool_choice={"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]}
    ),
    "tool choice hosted": response(tool_choice={"type": "web_search_preview", "x_new": 1}),
    "json schema": response(
        text={"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True, "x_new": 1}}
    ),
    "json schema, odd": response(
        text={"format": {"type": "json_schema", "schema": {"type": "object"}}, "verbosity": "x"}
    ),
    "json object": response(text={"format": {"type": "json_object"}}),
    "instructions": response(instructions="be brief"),
    "instructions as items": response(
        instructions=[{"type": "message", "role": "system", "content": [{"type": "input_text", "text": "be brief"}]}]
    ),
    "instructions, easy": response(instructions=[{"role": "developer", "content": "be brief"}]),
    "metadata": response(metadata={"a": "b"}),
    "metadata of numbers": response(metadata={"a": 1}),
    "metadata missing": without("metadata", body=response()),
    "reasoning settings": response(
        reasoning={"effort": "low", "summary": "auto", "generate_summary": None, "x_new": 1}
    ),
    "a newer effort": response(reasoning={"effort": "extreme"}),
    "conversation": response(conversation={"id": "conv_1", "x_new": 1}),
    "prompt": response(
        prompt={"id": "p", "variables": {"a": "x", "b": {"type": "input_text", "text": "y"}}, "version": "2"}
    ),
    "a newer model": response(model="gpt-99"),
    "model null": response(model=None),
    "unknown fields": response(x_new={"a": [1]}, cost=0.5),
    "nulls everywhere": nothing(response(), 9),
    "nulls at the top": nothing(response(), 1),
    "empty": b"",
    "null": b"null",
    "an empty object": b"{}",
    "a list": b"[]",
    "an error": {"error": {"message": "no"}},
    "a chat completion": chat(),
}


def complete(body: Any) -> Any:
    """The same with all that the SDK's newest models require of the usage: only such a body is taken as it is."""
    if isinstance(body, dict) and body.get("usage") and body["usage"].get("input_tokens_details"):
        return change(body, "usage", "input_tokens_details", cache_write_tokens=0)
    return body


@pytest.mark.parametrize("name", RESPONDED)
def test_responses(face: Face, upstream: Upstream, name: str) -> None:
    compare(face, upstream, ask_response, raw_response, Reply(body=RESPONDED[name]))


@pytest.mark.parametrize("name", [name for name, body in RESPONDED.items() if complete(body) is not body])
def test_complete_responses(face: Face, upstream: Upstream, name: str) -> None:
    compare(face, upstream, ask_response, raw_response, Reply(body=complete(RESPONDED[name])))


@pytest.mark.parametrize("name", ["a message", "a function call", "a web search", "an empty message", "few fields"])
def test_the_text_of_a_response(face: Face, upstream: Upstream, name: str) -> None:
    """A property that walks through the object."""
    upstream.script = lambda seen, number: Reply(body=RESPONDED[name])
    plain, ours = (
        outcome(lambda c=client: face.run(lambda: ask_response(c)).output_text)  # type: ignore[misc]
        for client in (face.client(upstream, plain=True), face.client(upstream))
    )
    assert ours == plain


# Streams.


def chunk(delta: Any, finish: Any = None, *, usage: Any = ..., **more: Any) -> dict[str, Any]:
    frame = {"id": "chatcmpl-7", "object": "chat.completion.chunk", "created": 1_700_000_001, "model": "test-model"}
    made: dict[str, Any] = {**frame, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}
    return made if usage is ... else {**made, "usage": usage}


def last(usage: Any, **more: Any) -> dict[str, Any]:
    return {**chunk({}, usage=usage), "choices": [], **more}


DONE = event("[DONE]")
ROLE = chunk({"role": "assistant", "content": ""})
WORD = chunk({"content": "pong"})
STOP = chunk({}, "stop")


def events(*chunks: Any) -> list[bytes]:
    return [c if isinstance(c, bytes) else event(c) for c in chunks]


def called(**more: Any) -> dict[str, Any]:
    return chunk({"tool_calls": [{"index": 0, **more}]})


STREAMS: dict[str, list[bytes]] = {
    "openai": chat_events(usage=True),
    "openai, obfuscated": events(
        chunk(
            {"role": "assistant", "content": "", "refusal": None}, usage=None, obfuscation="xYz", service_tier="default"
        ),
        chunk({"content": "pong"}, usage=None, obfuscation="x"),
        chunk({}, "stop", usage=None, obfuscation=""),
        last(OPENAI_USAGE, obfuscation="aB"),
        DONE,
    ),
    "azure": events(
        {
            "choices": [],
            "created": 0,
            "id": "",
            "model": "",
            "object": "",
            "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": FILTERED}],
        },
        ROLE,
        change(WORD, "choices", 0, content_filter_results=FILTERED, logprobs=None),
        change(STOP, "choices", 0, content_filter_results={}),
        {
            **chunk({}),
            "choices": [{"content_filter_offsets": {"check_offset": 1}, "finish_reason": None, "index": 0}],
        },
        DONE,
    ),
    "role only": events(chunk({"role": "assistant"}), WORD, STOP, DONE),
    "role in each": events(*(chunk({"role": "assistant", "content": c}) for c in "pong"), STOP, DONE),
    "deepseek": events(
        chunk({"role": "assistant", "content": None, "reasoning_content": ""}),
        chunk({"content": None, "reasoning_content": "hm"}),
        chunk({"content": "pong", "reasoning_content": None}),
        chunk({"content": "", "reasoning_content": None}, "stop", usage=tokens(prompt_cache_hit_tokens=1)),
        DONE,
    ),
    "openrouter": events(
        b": OPENROUTER PROCESSING\n\n",
        b": OPENROUTER PROCESSING\n\n",
        change(
            chunk({"role": "assistant", "content": "", "reasoning": "hm", "reasoning_details": [{"a": 1}]}),
            provider="X",
        ),
        change(chunk({"role": "assistant", "content": "pong"}), provider="X"),
        change(chunk({"content": ""}, "stop"), "choices", 0, native_finish_reason="STOP", logprobs=None),
        {**chunk({"role": "assistant", "content": ""}), "usage": tokens(cost=0.1, cost_details={"a": None})},
        DONE,
    ),
    "groq": events(
        chunk({"role": "assistant", "content": ""}, x_groq={"id": "req_1", "seed": 2}, system_fingerprint="fp"),
        WORD,
        chunk({}, "stop", x_groq={"id": "req_1", "usage": tokens(queue_time=0.1, total_time=1)}),
        last(tokens(queue_time=0.1)),
        DONE,
    ),
    "mistral": events(
        chunk({"role": "assistant", "content": ""}, p="abc"),
        chunk({"content": "pong"}, p="abcd"),
        chunk({"content": "", "tool_calls": [{"id": "D1", "function": {"name": "f", "arguments": "{}"}, "index": 0}]}),
        chunk({"content": ""}, "stop", usage=tokens()),
        DONE,
    ),
    "mistral, parts": events(chunk({"content": [{"type": "text", "text": "p"}]}), STOP, DONE),
    "vllm": events(
        chunk(
            {"role": "assistant", "content": "", "reasoning_content": None}, usage=tokens(11, 0), prompt_token_ids=None
        ),
        change(WORD, "choices", 0, logprobs=None, token_ids=None),
        change(STOP, "choices", 0, stop_reason=None),
        last(tokens()),
        DONE,
    ),
    "llama.cpp": events(
        chunk({"role": "assistant", "content": None}),
        WORD,
        chunk({}, "stop", timings={"prompt_n": 1, "prompt_ms": 2.5}),
        last(tokens(), timings={"prompt_n": 1}),
        DONE,
    ),
    "ollama": events(
        chunk({"role": "assistant", "content": "pong"}, system_fingerprint="fp_ollama"),
        chunk({"role": "assistant", "content": ""}, "stop", system_fingerprint="fp_ollama"),
        DONE,
    ),
    "gemini": events(
        chunk({"role": "assistant", "content": "po"}, usage=tokens()),
        chunk({"role": "assistant", "content": "ng"}, "stop", usage=tokens()),
        DONE,
    ),
    "together": events(
        change(chunk({"token_id": 5, "role": "assistant", "content": "pong"}), "choices", 0, text="pong", seed=None),
        change(chunk({"content": ""}, "eos", usage=tokens()), "choices", 0, text="", seed=1),
        DONE,
    ),
    "xai": events(chunk({"role": "assistant", "content": "pong"}, citations=None), STOP, last(OPENAI_USAGE), DONE),
    "cohere": events(chunk({"role": "assistant", "content": "pong"}), chunk({}, "stop", usage=tokens()), DONE),
    "a tool": events(
        chunk({"role": "assistant", "content": None, "refusal": None}),
        called(id="call_1", type="function", function={"name": "look", "arguments": ""}),
        called(function={"arguments": '{"where": '}),
        called(function={"arguments": '"here"}'}, x_new=1),
        chunk({}, "tool_calls"),
        DONE,
    ),
    "a tool, odd": events(
        called(id="call_1", type="custom", custom={"name": "x", "input": "y"}),
        chunk({"tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}),
        called(id=None, type=None, function=None),
        called(function={"name": None, "arguments": {"a": 1}}),
        chunk({"tool_calls": [None]}),
        chunk({"tool_calls": []}),
        chunk({"function_call": {"name": "f", "arguments": "{", "x_new": 1}}),
        chunk({}, "function_call"),
        DONE,
    ),
    "logprobs": events(
        change(WORD, "choices", 0, logprobs={"content": [LOGPROB], "refusal": None}),
        change(WORD, "choices", 0, logprobs={"content": [{**LOGPROB, "logprob": 0}], "x_new": 1}),
        change(WORD, "choices", 0, logprobs={"content": []}),
        change(WORD, "choices", 0, logprobs={"tokens": ["x"]}),
        STOP,
        DONE,
    ),
    "three choices": events(
        *({**WORD, "choices": [{"index": n, "delta": {"content": "x"}, "finish_reason": None}]} for n in range(3)),
        *({**WORD, "choices": [{"index": n, "delta": {}, "finish_reason": "stop"}]} for n in range(3)),
        DONE,
    ),
    "audio": events(
        chunk({"audio": {"id": "a", "data": "AA==", "x_new": 1}}), chunk({"audio": {"expires_at": 1}}), STOP, DONE
    ),
    "moderation": events(WORD, chunk({}, "stop", moderation=MODERATION), DONE),
    "unknown fields": events(
        change(chunk({"content": "p", "x_delta": {"a": 1}}, x_top=1), "choices", 0, x_choice=[1]), DONE
    ),
    "missing fields": events({"choices": [{"delta": {"content": "p"}}]}, {"id": "x"}, {}, DONE),
    "nulls": events(nothing(WORD, 1), nothing(WORD, 9), chunk(None), chunk({"role": None}), DONE),
    "other types": events({**WORD, "id": 5, "created": "now"}, chunk("text"), chunk([]), {**WORD, "choices": {}}, DONE),
    "not objects": events(b"data: [1]\n\n", b"data: 5\n\n", b'data: "text"\n\n', b"data: true\n\n", WORD, DONE),
    "null between": events(WORD, b"data: null\n\n", WORD, DONE),
    "null first": events(b"data: null\n\n", WORD, DONE),
    "null last": events(WORD, b"data: null\n\n"),
    "false and zero": events(
        b"data: false\n\n", b"data: 0\n\n", b'data: ""\n\n', b"data: {}\n\n", b"data: []\n\n", DONE
    ),
    "an error in the middle": events(ROLE, WORD, {"error": {"message": "busy", "type": "t", "code": 503}}, WORD, DONE),
    "an error with all": events(WORD, {"error": {"message": "no", "type": "t", "code": "c", "param": "p", "x": 1}}),
    "an error first": events({"error": {"message": "busy"}}, WORD, DONE),
    "an error as text": events(WORD, {"error": "busy"}, DONE),
    "an error without message": events(WORD, {"error": {"code": 1}}, DONE),
    "an error with an odd message": events(WORD, {"error": {"message": {"a": 1}}}, DONE),
    "an error that is null": events(change(WORD, error=None), DONE),
    "an error that is empty": events(change(WORD, error={}), change(WORD, error=""), DONE),
    "an error inside": events(chunk({"content": '{"error": {"message": "quoted"}}'}), STOP, DONE),
    "an error inside, unescaped": events(change(WORD, "choices", 0, "delta", error={"message": "deep"}), STOP, DONE),
    "an error in a finished chunk": events(change(STOP, error={"message": "late", "code": 502}), DONE),
    "an error with an escape": [event(WORD), b'data: {"err\\u006fr": {"message": "busy"}}\n\n', event(WORD), DONE],
    "an error in a list": [event(WORD), b'data: [{"error": {"message": "busy"}}]\n\n', DONE],
    "an error event": [event(WORD), event({"error": {"message": "busy", "code": "c"}}, "error"), event(WORD), DONE],
    "an error event without error": [event(WORD), event({"message": "busy", "code": "c"}, "error"), event(WORD), DONE],
    "an error event of text": [event(WORD), event("busy", "error"), DONE],
    "named events": [event(ROLE, "chunk"), event(WORD, "message"), event(STOP, "ping"), DONE],
    "events of threads": [event(WORD), event(WORD, "thread.message.delta"), DONE],
    "an error of threads": [event(WORD), event({"error": {"message": "m"}}, "thread.error"), DONE],
    "no JSON": [event(WORD), b"data: oops\n\n", event(WORD), DONE],
    "no JSON at first": [b"data: <html>\n\n", DONE],
    "cut JSON": [event(WORD), b'data: {"id": "x", \n\n', DONE],
    "NaN": [b'data: {"id": "x", "choices": [], "x_new": NaN}\n\n', DONE],
    "a name twice": [
        b'data: {"id": "x", "id": "y", "choices": [], "choices": [{"index": 0}], "a": 1, "a": 2}\n\n',
        DONE,
    ],
    "lone surrogate": [b'data: {"id": "\\ud83d", "choices": []}\n\n', DONE],
    "many digits": [b'data: {"id": "x", "choices": [], "x_new": ' + b"9" * 5000 + b"}\n\n", DONE],
    "unicode": [
        event(json.dumps(chunk({"content": "naïve 😀 \u2028\u2029\x85\x0b\x0c\x1c"}), ensure_ascii=False)),
        DONE,
    ],
    "bytes that are no UTF-8": [event(WORD), b'data: {"id": "a\xffb", "choices": []}\n\n', event(WORD), DONE],
    "a surrogate in UTF-8": [event(WORD), b'data: {"id": "a\xed\xa0\x80b", "choices": []}\n\n', DONE],
    "a BOM": [b"\xef\xbb\xbf" + event(WORD), event(STOP), DONE],
    "comments": [b": hello\n\n", event(WORD), b":\n\n:x\n", event(STOP), b": keep-alive\n\n", DONE],
    "comments inside": [b": a\ndata: " + json.dumps(WORD).encode() + b"\n: b\n\n", event(STOP), DONE],
    "empty lines": [b"\n\n\n", event(WORD), b"\n\n", event(STOP), b"\n", DONE],
    "a ping without data": [event(WORD), b"event: ping\n\n", event(STOP), DONE],
    "a ping with data": [event(WORD), b'event: ping\ndata: {"type": "ping"}\n\n', event(STOP), DONE],
    "an empty name": [event(WORD), b"event:\n\n", event(STOP), DONE],
    "empty data": [event(WORD), b"data:\n\n", event(STOP), DONE],
    "data without colon": [event(WORD), b"data\n\n", event(STOP), DONE],
    "ids": [b"id: 1\n" + event(WORD), b"id: 2\n" + event(STOP), DONE],
    "an id with zero": [b"id: \x00\n\n", event(WORD), DONE],
    "retry": [b"retry: 100\n" + event(WORD), event(STOP), DONE],
    "retry, odd": [event(WORD), b"retry: soon\n\n", b"x: y\n\n", event(STOP), DONE],
    "no space": [
        event(WORD).replace(b"data: ", b"data:"),
        event(STOP).replace(b"data: ", b"data:"),
        b"data:[DONE]\n\n",
    ],
    "two spaces": [event(WORD).replace(b"data: ", b"data:  "), event(STOP), b"data:  [DONE]\n\n"],
    "a space before": [b" " + event(WORD), event(STOP), DONE],
    "capitals": [event(WORD).replace(b"data", b"DATA"), event(STOP), DONE],
    "lines of data": [b'data: {"id": "x",\ndata: "choices": []}\n\n', event(STOP), DONE],
    "two in one": [b"data: " + json.dumps(WORD).encode() + b"\ndata: " + json.dumps(STOP).encode() + b"\n\n", DONE],
    "CRLF": [piece.replace(b"\n", b"\r\n") for piece in events(b": x\n\n", ROLE, WORD, STOP, DONE)],
    "CR": [piece.replace(b"\n", b"\r") for piece in events(ROLE, WORD, STOP, DONE)],
    "mixed ends": [
        event(ROLE),
        event(WORD).replace(b"\n\n", b"\r\n\n"),
        event(STOP).replace(b"\n\n", b"\n\r"),
        b"\n",
        DONE,
    ],
    "no end": events(ROLE, WORD, STOP),
    "no end and no finish": events(ROLE, WORD),
    "no empty line at the end": [event(ROLE), event(WORD)[:-1]],
    "no line end at the end": [event(ROLE), event(WORD)[:-2]],
    "half an event at the end": [event(ROLE), event(WORD)[:40]],
    "the end without empty line": [event(WORD), event(STOP), b"data: [DONE]\n"],
    "the end without line end": [event(WORD), event(STOP), b"data: [DONE]"],
    "more after the end": events(WORD, STOP, DONE, WORD, b"data: oops\n\n"),
    "more in the end": events(WORD, STOP, b"data: [DONE] bye\n\n", WORD),
    "the end twice": events(WORD, STOP, DONE, DONE),
    "the end first": events(DONE, WORD),
    "the end with a name": [event(WORD), b"event: done\ndata: [DONE]\n\n", event(WORD)],
    "an end in capitals": events(WORD, b"data: [done]\n\n"),
    "nothing": [],
    "only comments": [b": x\n\n", b": y\n\n"],
    "many in one piece": [b"".join(chat_events("a long answer"))],
    "json instead": [json.dumps(chat()).encode()],
    "html instead": [b"<html>\n<body>busy</body>\n</html>\n"],
}


def read(face: Face, stream: Any, use: Callable[[Any], Any] | None = None) -> tuple[list[Any], Any]:
    """What a stream gives until it ends, and how it ends."""
    items: list[Any] = []
    end = None
    try:
        if use is not None:
            use(items)
        elif face.is_async:

            async def walk() -> None:
                async for item in stream:
                    items.append(item)

            face.run(walk)
        else:
            for item in stream:
                items.append(item)
    except Exception as error:
        end = failed(error)
    return [seen_of(item) for item in items], end


def compare_streams(face: Face, upstream: Upstream, ask: Any, pieces: list[bytes], **more: Any) -> None:
    upstream.script = lambda seen, number: Reply(pieces=pieces, headers={"x-request-id": "req_1"})
    kind = openai.AsyncStream if face.is_async else openai.Stream
    results = []
    for options in ({"plain": True}, {}, {"cached": False}):
        client = face.client(upstream, **options)  # type: ignore[arg-type]
        stream = face.run(lambda c=client: ask(c, stream=True, **more))  # type: ignore[misc]
        assert isinstance(stream, kind)
        known = {
            "headers": {n: v for n, v in stream.response.headers.items() if n not in PASSING},
            "status": stream.response.status_code,
        }
        results.append((*read(face, stream), known))
    theirs, ours, uncached = results
    for other in (ours, uncached):
        same(other[1:], theirs[1:], "the end")
        assert len(other[0]) == len(theirs[0])
        same(other[0], theirs[0])


@pytest.mark.parametrize("name", STREAMS)
def test_chunks(face: Face, upstream: Upstream, name: str) -> None:
    compare_streams(face, upstream, ask_chat, STREAMS[name], stream_options={"include_usage": True})


def test_chunks_when_usage_was_not_asked_for(face: Face, upstream: Upstream) -> None:
    """An upstream sends a usage chunk only to who asked for it: farthing asks, and its caller sees none either.

    The `usage: null` that OpenAI then writes into each chunk may be seen: to a reader of `chunk.usage` it is no news.
    """
    upstream.script = lambda seen, number: answer(seen)
    plain, ours = (face.stream(face.client(upstream, plain=plain)) for plain in (True, False))
    assert [chunk.model_dump() for chunk in ours] == [chunk.model_dump() for chunk in plain]


RESPONSE_STREAM = response_events()
AT = {"item_id": "msg_1", "output_index": 0, "sequence_number": 3}
DELTA = {"type": "response.output_text.delta", **AT, "content_index": 0, "delta": "p", "logprobs": []}


def told(*bodies: dict[str, Any]) -> list[bytes]:
    return [event(body, body.get("type")) for body in bodies]


RESPONSE_STREAMS: dict[str, list[bytes]] = {
    "openai": RESPONSE_STREAM,
    "obfuscated": told({**DELTA, "obfuscation": "xYz12"}),
    "with logprobs": told(
        {
            **DELTA,
            "logprobs": [{"token": "p", "logprob": -1, "top_logprobs": [{"token": "x", "logprob": -2}], "bytes": [1]}],
        }
    ),
    "without logprobs": told(without("logprobs", body=DELTA)),
    "without number": told(without("sequence_number", body=DELTA)),
    "without names": [piece.partition(b"\n")[2] for piece in RESPONSE_STREAM],
    "reasoning": told(
        {
            "type": "response.reasoning_summary_part.added",
            **AT,
            "summary_index": 0,
            "part": {"type": "summary_text", "text": ""},
        },
        {"type": "response.reasoning_summary_text.delta", **AT, "summary_index": 0, "delta": "hm", "obfuscation": "x"},
        {"type": "response.reasoning_summary_text.done", **AT, "summary_index": 0, "text": "hm"},
        {"type": "response.reasoning_text.delta", **AT, "content_index": 0, "delta": "hm"},
        {
            "type": "response.output_item.done",
            "output_index": 0,
            "sequence_number": 4,
            "item": {**REASONED, "x_new": 1},
        },
    ),
    "a function call": told(
        {
            "type": "response.output_item.added",
            "output_index": 0,
            "sequence_number": 1,
            "item": {**FUNCTION, "arguments": ""},
        },
        {"type": "response.function_call_arguments.delta", **AT, "delta": "{}"},
        {"type": "response.function_call_arguments.done", **AT, "arguments": "{}", "name": "f"},
        {"type": "response.function_call_arguments.done", **AT, "arguments": "{}"},
        {"type": "response.output_item.done", "output_index": 0, "sequence_number": 4, "item": FUNCTION},
    ),
    "a custom call": told(
        {"type": "response.custom_tool_call_input.delta", **AT, "delta": "ls"},
        {"type": "response.custom_tool_call_input.done", **AT, "input": "ls"},
    ),
    "a web search": told(
        {"type": "response.web_search_call.in_progress", **AT},
        {"type": "response.web_search_call.searching", **AT},
        {"type": "response.web_search_call.completed", **AT, "x_new": 1},
        {
            "type": "response.output_text.annotation.added",
            **AT,
            "content_index": 0,
            "annotation_index": 0,
            "annotation": {**URL, "x_new": 1},
        },
    ),
    "an unknown event": told({"type": "response.hologram.delta", **AT, "depth": 1}, DELTA),
    "an event without type": [event({"sequence_number": 1, "delta": "x"}), *told(DELTA)],
    "an unknown item": told(
        {"type": "response.output_item.added", "output_index": 0, "sequence_number": 1, "item": {"type": "hologram"}}
    ),
    "an unknown part": told(
        {"type": "response.content_part.added", **AT, "content_index": 0, "part": {"type": "video"}}
    ),
    "a part of reasoning": told(
        {
            "type": "response.content_part.added",
            **AT,
            "content_index": 0,
            "part": {"type": "reasoning_text", "text": ""},
        }
    ),
    "failed": told(
        {
            "type": "response.failed",
            "sequence_number": 2,
            "response": response(
                status="failed", error={"code": "server_error", "message": "no"}, output=[], usage=None
            ),
        }
    ),
    "incomplete": told(
        {
            "type": "response.incomplete",
            "sequence_number": 2,
            "response": response(status="incomplete", incomplete_details={"reason": "max_output_tokens"}),
        }
    ),
    "few fields": told({"type": "response.completed", "response": {"id": "r", "output": [spoken(x_new=1)]}}),
    "unknown fields": told(
        {"type": "response.completed", "sequence_number": 1, "response": response(x_new=1, output=[])}
    ),
    "complete": told({"type": "response.completed", "sequence_number": 1, "response": complete(response())}),
    "complete, unknown fields": told(
        {"type": "response.completed", "sequence_number": 1, "response": complete(response(x_new=1)), "x_new": 1}
    ),
    "unknown fields in usage": told(
        {"type": "response.completed", "sequence_number": 1, "response": change(response(), "usage", x_new=1)}
    ),
    "an error event": told({"type": "error", "code": "c", "message": "no", "param": None, "sequence_number": 1}, DELTA),
    "an error event, odd": told(
        {"type": "error", "error": {"code": "c", "message": "no"}, "sequence_number": 1}, DELTA
    ),
    "an error": [event({"error": {"message": "busy", "code": "c"}}), *told(DELTA)],
    "an error with a name": [*told(DELTA), event({"error": {"message": "busy"}}, "error"), *told(DELTA)],
    "no JSON": [*told(DELTA), b"event: x\ndata: oops\n\n", *told(DELTA)],
    "null": [*told(DELTA), b"data: null\n\n", *told(DELTA)],
    "the end as in chat": [*RESPONSE_STREAM, DONE],
    "the end as in chat, and more": [*told(DELTA), DONE, *told(DELTA)],
    "more after the end": [*RESPONSE_STREAM, *told(DELTA)],
    "no end": RESPONSE_STREAM[:-1],
    "a ping": [*told(DELTA), b": ping\n\n", b'event: ping\ndata: {"type": "ping"}\n\n', *told(DELTA)],
    "keepalive": [*told(DELTA), event({"type": "keepalive", "sequence_number": 2}, "keepalive"), *told(DELTA)],
    "CRLF": [piece.replace(b"\n", b"\r\n") for piece in RESPONSE_STREAM],
    "events of threads": [event(DELTA, "thread.message.delta")],
    "nulls": told(*({**DELTA, name: None} for name in DELTA if name != "type")),
    "texts for numbers": told({**DELTA, "output_index": "0", "content_index": 1.0}),
    "nothing": [],
}


@pytest.mark.parametrize("name", RESPONSE_STREAMS)
def test_events_of_responses(face: Face, upstream: Upstream, name: str) -> None:
    compare_streams(face, upstream, ask_response, RESPONSE_STREAMS[name])


SPLIT = {
    "LF": b"".join(events(b": x\n\n", chunk({"content": "\u00e4\U0001f600"}), STOP, DONE)),
    "CRLF": b"".join([*events(ROLE, WORD), b"id: 1\n", *events(STOP, DONE)]).replace(b"\n", b"\r\n"),
    "an error": b"".join(events(WORD, {"error": {"message": "na\u00efve"}}, WORD)),
}
# As text rather than as escapes, so that a split can fall into a character.
SPLIT["LF"] = SPLIT["LF"].replace(b"\\u00e4\\ud83d\\ude00", "\u00e4\U0001f600".encode())


@pytest.mark.parametrize("name", SPLIT)
def test_a_split_at_every_position(face: Face, upstream: Upstream, name: str) -> None:
    whole = SPLIT[name]
    usage = {"include_usage": True}

    def script(seen: Seen, number: int) -> Reply:
        at = int(seen.json["messages"][0]["content"])
        # The pause keeps the halves from being read together.
        return Reply(pieces=[whole[:at], whole[at:]] if 0 < at < len(whole) else [whole], pause=0.001)

    upstream.script = script
    ask = lambda client, at: read(  # noqa: E731
        face, face.chat(client, stream=True, stream_options=usage, messages=[{"role": "user", "content": str(at)}])
    )
    theirs = ask(face.client(upstream, plain=True), 0)
    client = face.client(upstream)
    assert theirs[0]
    for at in range(len(whole)):
        same(ask(client, at), theirs, f"split before {whole[at : at + 10]!r}")


def test_single_bytes(face: Face, upstream: Upstream) -> None:
    for whole in SPLIT.values():
        pieces = [whole[n : n + 1] for n in range(len(whole))]
        compare_streams(face, upstream, ask_chat, pieces, stream_options={"include_usage": True})


# Ways to read a stream.


def by_next(face: Face, stream: Any) -> Callable[[list[Any]], None]:
    def use(items: list[Any]) -> None:
        if not face.is_async:
            items.append(next(stream))
            items += iter(lambda: next(stream, ...), ...)
            with pytest.raises(StopIteration):
                next(stream)
            assert list(stream) == []
            return

        async def walk() -> None:
            items.append(await stream.__anext__())
            while (item := await anext(stream, ...)) is not ...:
                items.append(item)
            with pytest.raises(StopAsyncIteration):
                await stream.__anext__()
            assert [item async for item in stream] == []

        face.run(walk)

    return use


def by_with(face: Face, stream: Any) -> Callable[[list[Any]], None]:
    def use(items: list[Any]) -> None:
        if not face.is_async:
            with stream as entered:
                assert entered is stream
                items.extend(entered)
            return

        async def walk() -> None:
            async with stream as entered:
                assert entered is stream
                async for item in entered:
                    items.append(item)

        face.run(walk)

    return use


def by_two_loops(face: Face, stream: Any) -> Callable[[list[Any]], None]:
    def use(items: list[Any]) -> None:
        if not face.is_async:
            for item in stream:
                items.append(item)
                if len(items) == 2:
                    break
            items.append("pause")
            items.extend(stream)
            return

        async def walk() -> None:
            async for item in stream:
                items.append(item)
                if len(items) == 2:
                    break
            items.append("pause")
            async for item in stream:
                items.append(item)

        face.run(walk)

    return use


def by_parts_and_close(face: Face, stream: Any) -> Callable[[list[Any]], None]:
    def use(items: list[Any]) -> None:
        if not face.is_async:
            for item in stream:
                items.append(item)
                break
            stream.close()
            stream.close()
            items.append(stream.response.is_closed)
            return

        async def walk() -> None:
            async for item in stream:
                items.append(item)
                break
            await stream.close()
            await stream.close()
            items.append(stream.response.is_closed)

        face.run(walk)

    return use


def by_response(face: Face, stream: Any) -> Callable[[list[Any]], None]:
    """Past the stream, through its response."""

    def use(items: list[Any]) -> None:
        if not face.is_async:
            items.append(stream.response.read())
            return
        items.append(face.run(stream.response.aread))

    return use


def by_closed(face: Face, stream: Any) -> Callable[[list[Any]], None]:
    """Closed before it is read."""

    def use(items: list[Any]) -> None:
        face.run(stream.close)
        if not face.is_async:
            items.extend(stream)
            return

        async def walk() -> None:
            async for item in stream:
                items.append(item)

        face.run(walk)

    return use


def by_end(face: Face, stream: Any) -> Callable[[list[Any]], None]:
    """What the response says of itself when all is read."""

    def use(items: list[Any]) -> None:
        items.extend(face.items(stream))
        response = stream.response
        items.append((response.is_closed, response.is_stream_consumed, response.http_version, response.request.method))

    return use


WAYS = [by_next, by_with, by_two_loops, by_parts_and_close, by_response, by_closed, by_end]


@pytest.mark.parametrize("kind", ["chat", "responses"])
@pytest.mark.timeout(20)
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_ways_to_read(face: Face, upstream: Upstream, way: Any, kind: str) -> None:
    pieces = chat_events("a longer answer", usage=True) if kind == "chat" else response_events("a longer answer")
    upstream.script = lambda seen, number: Reply(pieces=pieces, pause=0.001)
    ask, more = (ask_chat, {"stream_options": {"include_usage": True}}) if kind == "chat" else (ask_response, {})
    results = []
    for plain in (True, False):
        client = face.client(upstream, plain=plain)
        stream = face.run(lambda c=client: ask(c, stream=True, **more))  # type: ignore[misc]
        results.append(read(face, stream, way(face, stream)))
    same(results[1], results[0])


@pytest.mark.parametrize(
    "name", ["openai", "an error in the middle", "no JSON", "an error with a name", "the end as in chat"]
)
def test_streams_through_the_raw_response(face: Face, upstream: Upstream, name: str) -> None:
    table: dict[str, list[bytes]] = STREAMS
    call, more = raw_chat, {"stream_options": {"include_usage": True}}
    if name not in STREAMS:
        table, call, more = RESPONSE_STREAMS, raw_response, {}
    upstream.script = lambda seen, number: Reply(pieces=table[name], headers={"x-request-id": "req_1"})
    results = []
    for plain in (True, False):
        client = face.client(upstream, plain=plain)
        raw = face.run(lambda c=client: call(c, stream=True, **more))  # type: ignore[misc]
        headers = {n: v for n, v in raw.headers.items() if n not in PASSING}
        results.append((headers, raw.status_code, raw.request_id, raw.retries_taken, read(face, raw.parse())))
    same(results[1], results[0])


# What goes out.

CALLS: dict[str, Case] = {
    "chat": ask_chat,
    "chat stream": lambda client, **more: ask_chat(client, stream=True, **more),
    "chat stream, asked for usage": lambda client, **more: ask_chat(
        client, stream=True, stream_options={"include_usage": True}, **more
    ),
    "responses": ask_response,
    "responses stream": lambda client, **more: ask_response(client, stream=True, **more),
    "embeddings": ask_embedding,
    "embeddings of floats": lambda client, **more: ask_embedding(client, encoding_format="float", **more),
    "raw chat": raw_chat,
    "raw chat stream": lambda client, **more: raw_chat(client, stream=True, **more),
    "raw responses": raw_response,
    "raw embeddings": raw_embedding,
    "odd arguments": lambda client, **more: ask_chat(
        client,
        **{
            "temperature": 0,
            "top_p": 0.1,
            "seed": 2**60,
            "stop": ["a", "ä"],
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
            "logit_bias": {"50256": -100},
            "metadata": {},
            "user": "",
            "max_tokens": None,
            "messages": [{"role": "user", "content": [{"type": "text", "text": "naïve 😀 \u2028 \x00 </script>"}]}],
            **more,
        },
    ),
}


def with_streaming(client: Any, **more: Any) -> Any:
    manager = client.chat.completions.with_streaming_response.create(model="test-model", messages=MESSAGES, **more)
    if not hasattr(manager, "__aenter__"):
        with manager as raw:
            return raw.read()

    async def walk() -> Any:
        async with manager as raw:
            return await raw.read()

    return walk()


CALLS["streaming raw chat"] = with_streaming


def use_up(face: Face, result: Any) -> None:
    result = result.parse() if hasattr(result, "parse") and not isinstance(result, BaseModel) else result
    if isinstance(result, (openai.Stream, openai.AsyncStream)):
        face.items(result)


PER_CALL: dict[str, dict[str, Any]] = {
    "nothing": {},
    "timeout": {"timeout": 5},
    "timeout of float": {"timeout": 5.5},
    "timeout object": {"timeout": httpx.Timeout(10.0, connect=2.0, read=7.5)},
    "timeout object, nothing to read": {"timeout": httpx.Timeout(10.0, read=None)},
    "no timeout": {"timeout": None},
    "timeout not given": {"timeout": openai.NOT_GIVEN},
    "user agent": {"extra_headers": {"User-Agent": "mine/1.0"}},
    "x-request-id": {"extra_headers": {"X-Request-ID": "r1"}},
    "idempotency key": {"extra_headers": {"Idempotency-Key": "k1"}},
    "idempotency key, in small": {"extra_headers": {"idempotency-key": "k1", "traceparent": "00-ab-cd-01"}},
    "own headers": {"extra_headers": {"x-mine": "1", "Accept": "text/plain"}},
    "a header away": {"extra_headers": {"x-stainless-lang": openai.Omit()}},
    "own key": {"extra_headers": {"Authorization": "Bearer other"}},
    "own read timeout header": {"extra_headers": {"x-stainless-read-timeout": "9", "user-agent": "a"}, "timeout": 3},
    "headers empty": {"extra_headers": {}},
    "headers none": {"extra_headers": None},
    "query": {"extra_query": {"a": "1", "b": ["x", "y"]}},
    "query empty": {"extra_query": {}},
    "body": {"extra_body": {"top_k": 5, "chat_template_kwargs": {"thinking": False}}},
    "body that replaces": {"extra_body": {"model": "other-model"}},
    "body empty": {"extra_body": {}},
    "body none": {"extra_body": None},
    "body with floats": {
        "extra_body": {"a": 1.0, "b": 1e-7, "c": 1e22, "d": -0.0, "e": 123456789012345678901234567890}
    },
    "all": {"extra_body": {"top_k": 5}, "extra_headers": {"User-Agent": "m"}, "extra_query": {"a": "1"}, "timeout": 5},
}

PER_CLIENT: dict[str, dict[str, Any]] = {
    "organization": {"organization": "org-1", "project": "proj-1"},
    "headers": {"default_headers": {"X-Mine": "1", "User-Agent": "mine/2"}},
    "query": {"default_query": {"api-version": "v1", "b": ["x", "y"]}},
    "timeout": {"timeout": 12},
    "timeout object": {"timeout": httpx.Timeout(10.0, read=3)},
    "no timeout": {"timeout": None},
    "retries": {"max_retries": 3},
    "an odd key": {"api_key": "sk ~!#"},
}


def sent(upstream: Upstream) -> list[Any]:
    """What arrived. HTTP/1.1 keeps a connection alive whether or not a header says so."""
    ignored = ("host", "content-length", "connection")
    return [
        (seen.path, {n: v for n, v in seen.headers.items() if n not in ignored}, seen.json) for seen in upstream.seen
    ]


def compare_sent(face: Face, upstream: Upstream, makes: list[Callable[[], Any]], ask: Case) -> None:
    results = []
    for make in makes:
        upstream.seen.clear()
        client = make()
        ended = outcome(lambda c=client: use_up(face, face.run(lambda: ask(c))))  # type: ignore[misc]
        results.append((ended, sent(upstream)))
    (theirs_end, theirs), (ours_end, ours) = results
    same(ours_end, theirs_end)
    assert len(ours) == len(theirs)
    for mine, their in zip(ours, theirs, strict=True):
        asked = mine[2].pop("stream_options", None) if "stream_options" not in their[2] else None
        assert asked in (None, {"include_usage": True})
        assert mine[0] == their[0]
        assert mine[2] == their[2]
        assert json.dumps(mine[2], sort_keys=True) == json.dumps(their[2], sort_keys=True), "1 is not 1.0"
        assert {n: v for n, v in mine[1].items() if their[1].get(n) != v} == {}, "headers that ours adds or changes"
        assert their[1].keys() - mine[1].keys() == set(), "headers that ours lacks"


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", PER_CALL)
def test_what_a_call_sends(face: Face, upstream: Upstream, call: str, name: str) -> None:
    makes = [lambda plain=plain: face.client(upstream, plain=plain) for plain in (True, False)]
    compare_sent(face, upstream, makes, lambda client: CALLS[call](client, **PER_CALL[name]))


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", PER_CLIENT)
def test_what_a_client_sends(face: Face, upstream: Upstream, call: str, name: str) -> None:
    makes = [lambda plain=plain: face.client(upstream, plain=plain, **PER_CLIENT[name]) for plain in (True, False)]
    compare_sent(face, upstream, makes, CALLS[call])


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    "options", [{}, {"azure_deployment": "mine"}, {"azure_ad_token": "t", "api_key": None}], ids=str
)
def test_what_azure_is_sent(face: Face, upstream: Upstream, call: str, options: dict[str, Any]) -> None:
    def make(module: Any) -> Any:
        kind = module.AsyncAzureOpenAI if face.is_async else module.AzureOpenAI
        given = {"api_key": "k", "api_version": "2024-10-21", "azure_endpoint": upstream.url[:-3], "max_retries": 0}
        return kind(**{**given, **options})

    compare_sent(face, upstream, [lambda: make(openai), lambda: make(farthing)], CALLS[call])


@pytest.mark.parametrize("call", ["chat", "chat stream", "responses", "embeddings"])
def test_what_options_of_a_copy_send(face: Face, upstream: Upstream, call: str) -> None:
    more = {"organization": "o", "default_headers": {"x-copy": "1"}, "timeout": 9, "max_retries": 1}
    makes = [lambda plain=plain: face.client(upstream, plain=plain).with_options(**more) for plain in (True, False)]
    compare_sent(face, upstream, makes, CALLS[call])


def test_headers_that_change_between_calls(face: Face, upstream: Upstream) -> None:
    """What a place is made from is looked at again for each call."""

    def both(client: Any) -> None:
        for n in range(3):
            client.api_key = f"sk-{n}"
            client.organization = f"org-{n}"
            face.chat(client, seed=n)

    for plain in (True, False):
        both(face.client(upstream, plain=plain))
    everything = sent(upstream)
    assert everything[3:] == everything[:3]


# The pieces themselves, with what no provider sends.

GROUND: list[Any] = [PROVIDERS["openai"], PROVIDERS["deepseek, a tool"], PROVIDERS["groq"], EVERY_LEVEL]
LEAVES: list[Any] = [
    None,
    True,
    0,
    -1,
    7,
    1.5,
    3.0,
    1e300,
    # Not 2**53 + 1: src/py/build.rs says what becomes of it where a float is declared.
    2**53 - 1,
    2**70,
    "",
    "text",
    "5",
    "1.5",
    "true",
    "stop",
    "function",
    "custom",
    "message",
    "error",
    [],
    [None],
    [1, "a"],
    [[]],
    [{}],
    {},
    {"a": 1},
    {"type": "function"},
    {"type": "custom", "x": None},
    {"id": "i", "type": "function", "function": {"name": "n", "arguments": "a", "new": 1}},
]
NAMES = [
    "x_new",
    "type",
    "id",
    "index",
    "refusal",
    "tool_calls",
    "usage",
    "logprobs",
    "metadata",
    "moderation",
    "content",
]


def places(value: Any) -> list[Any]:
    """The containers in a value."""
    if isinstance(value, dict):
        return [value, *(found for item in value.values() for found in places(item))]
    if isinstance(value, list):
        return [value, *(found for item in value for found in places(item))]
    return []


@st.composite
def mutated(draw: Any, ground: list[Any]) -> bytes:
    body = copy.deepcopy(draw(st.sampled_from(ground)))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.sampled_from(places(body)))
        value = copy.deepcopy(draw(st.sampled_from(LEAVES)))
        known = list(at) if isinstance(at, dict) else list(range(len(at)))
        action = draw(st.sampled_from(["drop", "set", "set", "add", "repeat"]))
        if action == "add" or not known:
            if isinstance(at, dict):
                at[draw(st.sampled_from(NAMES))] = value
            else:
                at.append(value)
        elif action == "drop":
            del at[draw(st.sampled_from(known))]
        elif action == "repeat" and isinstance(at, list):
            at.append(copy.deepcopy(draw(st.sampled_from(at))))
        else:
            at[draw(st.sampled_from(known))] = value
    return json.dumps(body).encode()


def check(builder: Any, kind: Any, body: bytes) -> None:
    made = builder.build(body)
    if made is None:
        # Then the SDK's construct is asked, and there is nothing to compare.
        return
    theirs = construct_type(type_=kind, value=json.loads(body))
    same(deep(made), deep(theirs))
    assert repr(made) == repr(theirs)
    assert made == theirs
    assert noted(lambda: made.to_dict()) == noted(lambda: theirs.to_dict())  # type: ignore[attr-defined]


@given(mutated(GROUND))
def test_mutated_chat(body: bytes) -> None:
    check(CHAT.builder(), ChatCompletion, body)


RESPONSE_GROUND = [
    complete(RESPONDED[name])
    for name in (
        "a message",
        "a message, all of OpenAI's fields",
        "a message with more in it",
        "a citation with more",
        "a file search with results",
        "a web search with sources",
        "a function call and more in it",
        "code interpreter with outputs",
        "conversation",
        "instructions as items",
        "json schema",
        "mcp",
        "prompt",
        "reasoning with content",
        "tool choice allowed",
        "tools",
    )
]


@given(mutated(RESPONSE_GROUND))
def test_mutated_responses(body: bytes) -> None:
    check(RESPONSES.builder(), Response, body)


@given(mutated([vectors([0.1, 0.2], [1.5, 2.0])]))
def test_mutated_embeddings(body: bytes) -> None:
    check(EMBEDDINGS.builder(), CreateEmbeddingResponse, body)


def _chunks(streams: dict[str, list[bytes]], names: list[str]) -> list[Any]:
    texts = [piece.partition(b"data: ")[2] for name in names for piece in streams[name]]
    return [json.loads(text) for text in texts if text.startswith(b"{")]


@given(mutated(_chunks(STREAMS, ["openai", "azure", "deepseek", "a tool", "logprobs", "moderation", "groq"])))
def test_mutated_chunks(body: bytes) -> None:
    check(CHAT.chunk_builder(), ChatCompletionChunk, body)


@given(mutated(_chunks(RESPONSE_STREAMS, ["openai", "reasoning", "a function call", "a web search", "failed"])))
def test_mutated_events(body: bytes) -> None:
    check(RESPONSES.chunk_builder(), ResponseStreamEvent, body)


@pytest.mark.parametrize("value", LEAVES, ids=repr)
def test_each_value_at_each_place(value: Any) -> None:
    """Without luck: every leaf and every container of one body, replaced by each value."""
    paths: list[list[Any]] = []

    def walk(at: Any, path: list[Any]) -> None:
        for step in list(at) if isinstance(at, dict) else range(len(at)):
            paths.append([*path, step])
            if isinstance(at[step], (dict, list)):
                walk(at[step], [*path, step])

    walk(EVERY_LEVEL, [])
    wrong = []
    for path in paths:
        body = copy.deepcopy(EVERY_LEVEL)
        at = body
        for step in path[:-1]:
            at = at[step]
        at[path[-1]] = value
        text = json.dumps(body).encode()
        made = CHAT.builder().build(text)
        if made is not None and deep(made) != deep(construct_type(type_=ChatCompletion, value=json.loads(text))):
            wrong.append(path)
    assert not wrong


def test_most_bodies_are_built_here() -> None:
    """The comparison above says nothing if the builder always declines."""
    for name in ("openai", "azure", "anthropic", "deepseek", "ollama", "llama.cpp", "cohere", "xai"):
        assert CHAT.builder().build(json.dumps(PROVIDERS[name]).encode()) is not None, name
    assert RESPONSES.builder().build(json.dumps(complete(response())).encode()) is not None
    assert EMBEDDINGS.builder().build(json.dumps(vectors([0.5])).encode()) is not None


def test_two_answers_share_nothing(face: Face, upstream: Upstream) -> None:
    """What a caller does to one answer, the next does not see."""
    upstream.script = lambda seen, number: Reply(body=EVERY_LEVEL, headers={"x-request-id": "r"})
    client = face.client(upstream)
    for _ in range(3):
        made = face.chat(client)
        assert made.choices[0].message.content == "pong"
        assert made.x_top == {"z": 1, "a": 2}
        made.choices[0].message.content = "mine"
        made.x_top["z"] = 9
        made.choices[0].message.tool_calls.clear()
        made.usage.prompt_tokens_details.cached_tokens = 99
        made.choices[0].message.x_message["a"].append(5)
        made.choices.append(None)


def test_nested_loops_of_asyncio_debug() -> None:
    """The answer is the same in asyncio's debug mode, where futures are looked at more closely."""
    server = Upstream(lambda seen, number: Reply(body=PROVIDERS["openai"]))
    try:

        async def main() -> Any:
            client = farthing.AsyncOpenAI(api_key="k", base_url=server.url, max_retries=0)
            return await ask_chat(client)

        made = asyncio.run(main(), debug=True)
        assert deep(made) == deep(construct_type(type_=ChatCompletion, value=PROVIDERS["openai"]))
    finally:
        server.close()
