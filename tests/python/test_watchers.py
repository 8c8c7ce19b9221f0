"""Those who watch the SDK (OpenTelemetry, langfuse, langsmith, braintrust): they record what they record with the SDK.

`make watchers` runs this in an environment that has them; each in a process of its own, because they patch classes.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import subprocess
import sys
from typing import Any

import openai
import pytest
from conftest import MESSAGES
from upstream import Reply, Seen, Upstream, answer

import farthing

PRELUDE = """
import asyncio, json, os, sys, warnings
import openai
PLAIN, ASYNC, LATE = {plain}, {is_async}, {late}
URL = {url!r}
if not PLAIN:
    import farthing

def make():
    module = openai if PLAIN else farthing
    kind = module.AsyncOpenAI if ASYNC else module.OpenAI
    return kind(base_url=URL, api_key="sk-secret", max_retries=0)

loop = asyncio.new_event_loop()
def wait(result):
    return loop.run_until_complete(result) if ASYNC else result

async def read(stream):
    return [item async for item in stream]

def said(chunks):
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)

def use(client, name="ping"):
    \"\"\"What a program would do; each call twice, so that the second is a hit with farthing.\"\"\"
    messages = [{{"role": "user", "content": name}}]
    create = client.chat.completions.create
    heard = []
    for _ in range(2):
        heard.append(wait(create(model="m", messages=messages)).choices[0].message.content)
        stream = wait(create(model="m", messages=[*messages, *messages], stream=True))
        heard.append(said(wait(read(stream)) if ASYNC else list(stream)))
        raw = wait(client.chat.completions.with_raw_response.create(model="m", messages=messages, temperature=0))
        heard.append(raw.parse().choices[0].message.content)
        heard.append(wait(client.responses.create(model="m", input=name)).output_text)
        heard.append(wait(client.embeddings.create(model="m", input=name)).data[0].embedding)
        try:
            wait(create(model="wrong", messages=messages))
        except openai.NotFoundError as error:
            heard.append(error.code)
    return heard

def run(start, collect):
    client = None
    if LATE:
        client = make()
        use(client, "before")
    client = start(client or make()) or client or make()
    heard = use(client)
    receipts = [] if PLAIN else [client.savings().hits]
    print(json.dumps({{"heard": heard, "spans": collect(), "hits": receipts}}, default=str))
"""

SPANS = """
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
spans = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(spans))
def collect():
    found = []
    for span in spans.get_finished_spans():
        attributes = {name: str(value) for name, value in span.attributes.items() if "time" not in name}
        # A stored answer is replayed in fewer chunks than it came in.
        events = {(event.name, event.attributes.get("exception.type")) for event in span.events}
        found.append([span.name, attributes, span.status.status_code.name, sorted(events, key=str)])
    return found
"""

WATCHERS = {
    "opentelemetry.instrumentation.openai": SPANS
    + """
from opentelemetry.instrumentation.openai import OpenAIInstrumentor
run(lambda client: OpenAIInstrumentor().instrument(tracer_provider=provider), collect)
""",
    "opentelemetry.instrumentation.openai_v2": SPANS
    + """
from opentelemetry.instrumentation.openai_v2 import OpenAIInstrumentor
run(lambda client: OpenAIInstrumentor().instrument(tracer_provider=provider), collect)
""",
    "langfuse": SPANS
    + """
from langfuse import Langfuse
langfuse = Langfuse(public_key="pk", secret_key="sk", host="http://127.0.0.1:9", span_exporter=spans)
def start(client):
    import langfuse.openai
def collected():
    langfuse.flush()
    return collect()
run(start, collected)
""",
    "langsmith": """
os.environ["LANGSMITH_TRACING"] = "true"
from langsmith import Client
from langsmith.wrappers import wrap_openai
runs = {}
class Recorder(Client):
    def __init__(self):
        super().__init__(api_url="http://127.0.0.1:9", api_key="k", auto_batch_tracing=False, info={})
    def create_run(self, name, inputs, run_type, **more):
        runs[str(more["id"])] = [name, run_type, inputs, None, None]
        if more.get("outputs"):
            runs[str(more["id"])][3:] = [more.get("outputs"), None]
    def update_run(self, run_id, **more):
        runs[str(run_id)][3:] = [more.get("outputs"), (more.get("error") or "").partition("Traceback")[0]]
def start(client):
    return wrap_openai(client, tracing_extra={"client": Recorder()})
run(start, lambda: list(runs.values()))
""",
    "braintrust": """
import braintrust
from braintrust import logger
from braintrust.test_helpers import simulate_login
simulate_login()
def start(client):
    return braintrust.wrap_openai(client)
with logger._internal_with_memory_background_logger() as log:
    braintrust.init_logger(project="p", project_id="p")
    def collect():
        found = []
        for row in log.pop():
            metrics = sorted(name for name in row.get("metrics", {}) if name not in ("start", "end"))
            attributes = {k: v for k, v in row["span_attributes"].items() if k != "exec_counter"}
            found.append([attributes, row.get("input"), row.get("output"), metrics, (row.get("error") or "")[:60]])
        return found
    run(start, collect)
""",
}


def watched(watcher: str, **how: Any) -> dict[str, Any]:
    source = PRELUDE.format(**how) + WATCHERS[watcher]
    environment = {
        **os.environ,
        "PYTHONWARNINGS": "ignore",
        "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "true",
        "OTEL_SEMCONV_STABILITY_OPT_IN": "gen_ai_latest_experimental",
    }
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=100, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def script(seen: Seen, number: int) -> Reply:
    if seen.json["model"] == "wrong":
        return Reply(404, {"error": {"message": "no such model", "code": "unknown", "type": "t", "param": None}})
    return answer(seen)


def is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


@pytest.mark.parametrize("late", [False, True], ids=["before the client", "after the client"])
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("watcher", WATCHERS)
def test_what_a_watcher_records(upstream: Upstream, watcher: str, is_async: bool, late: bool) -> None:
    if not is_there(watcher):
        pytest.skip(f"{watcher} is not installed: make watchers")
    upstream.script = script
    plain, ours = [
        watched(watcher, plain=plain, is_async=is_async, late=late, url=upstream.url) for plain in (True, False)
    ]
    assert ours["heard"] == plain["heard"]
    assert plain["spans"], "it records nothing with the SDK either"
    if late:
        # The SDK's `with_raw_response` keeps the method that it found when it was first used, and is not watched then.
        for span in plain["spans"]:
            ours["spans"].remove(span)
    else:
        assert ours["spans"] == plain["spans"]
    assert ours["hits"][0] >= 5, "farthing answered what it knew"


@pytest.mark.parametrize("watcher", ["langsmith", "braintrust"])
def test_wrapping_a_client_that_is_watched(upstream: Upstream, watcher: str) -> None:
    """What the watcher set on the client's resources holds that client: it is said that it is not called."""
    if not is_there(watcher):
        pytest.skip(f"{watcher} is not installed: make watchers")
    upstream.script = script
    wrap_openai: Any = importlib.import_module("langsmith.wrappers" if watcher == "langsmith" else watcher).wrap_openai
    watched = wrap_openai(openai.OpenAI(base_url=upstream.url, api_key="k"))
    with pytest.warns(farthing.FarthingWarning, match="wrap first, then patch what wrap"):
        client = farthing.wrap(watched)
    for _ in range(2):
        made = client.chat.completions.create(model="m", messages=MESSAGES)
        assert made.choices[0].message.content == "pong"
    assert upstream.calls == 1
