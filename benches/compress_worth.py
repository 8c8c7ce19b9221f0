"""What shorter prompts save in tokens and at list prices, and what is lost by it: real agent runs, replayed.

    python benches/compress_worth.py --data ../shared/data

200 runs of an airline agent (tau-bench, gpt-4o) go through a farthing client turn by turn, as they were, to a loopback
upstream that answers nothing of worth and bills as a provider does: prompt tokens are counted with
`farthing.count_tokens`, and what a prompt begins with and was sent before costs the cached rate, from 1,024 tokens on,
in steps of 128. Prices are those of the bundled list (`src/ledger/prices.json`). Answers are those of the run, so the
figures are about prompts alone.

What is lost is told by the values of tool results (5 characters or more) that the agent needed later, in the arguments
of its calls: the share that was still in the prompt of that turn. Truncation and random sentences have the same budget
of tokens for each result as `extractive`.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from upstream import Upstream, completion

import farthing
from farthing import Compress, CompressRequest, ModelPrice, Policy, count_tokens

MODELS = ("gpt-4o-mini", "gpt-4.1", "gpt-5")
"""A cheap one, and two dear ones: their providers take off half, three quarters and nine tenths for cached input."""
LEAST_CACHED, STEP = 1024, 128
KEEP = 0.5
MARK = " […] "
_numbers = itertools.count()


class Loopback(Upstream):
    """Bills prompts as a provider does that keeps their beginnings."""

    def __init__(self) -> None:
        self.sent: list[list[dict[str, Any]]] = []
        self.prompt = self.cached = 0
        self._known: set[int] = set()
        super().__init__()

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        messages, model = body["messages"], body["model"]
        self.sent.append(messages)
        sizes = [count_tokens([message], model=model).tokens - 3 for message in messages]
        prefix, chain, is_known = 0, 0, True
        for message, size in zip(messages, sizes, strict=True):
            chain = hash((chain, json.dumps(message, sort_keys=True)))
            is_known = is_known and chain in self._known
            prefix += size if is_known else 0
            self._known.add(chain)
        cached = prefix // STEP * STEP if prefix >= LEAST_CACHED else 0
        prompt = sum(sizes) + 3
        self.prompt += prompt
        self.cached += cached
        usage = {"prompt_tokens": prompt, "prompt_tokens_details": {"cached_tokens": cached}}
        return completion(model, ".", usage)


# ---- what it is compared with: as many tokens of each text, chosen otherwise ----


def pieces(text: str) -> list[str]:
    """Sentences, or what stands between the commas of JSON."""
    return re.findall(r".*?(?:[.!?]\s+|,\s*|\n|$)", text, re.DOTALL)


def filled(order: list[int], parts: list[str], budget: int) -> str:
    sizes = [count_tokens(part, model=MODELS[0]).tokens for part in parts]
    kept: set[int] = set()
    for at in order:
        if sizes[at] <= budget:
            kept.add(at)
            budget -= sizes[at]
        elif sizes[at]:
            break
    text, before = "", -1
    for at in sorted(kept):
        text += (MARK if at != before + 1 else "") + parts[at]
        before = at
    return text


def truncated(name: str) -> Callable[[CompressRequest], str]:
    def shorten(request: CompressRequest) -> str:
        parts = pieces(request.text)
        budget = int(count_tokens(request.text, model=MODELS[0]).tokens * KEEP)
        count = len(parts)
        order = list(range(count))
        if name == "tail":
            order.reverse()
        elif name == "middle out":
            order = [at for pair in zip(range(count), reversed(range(count)), strict=True) for at in pair][:count]
        elif name == "random":
            random.Random(request.text).shuffle(order)
        return filled(order, parts, budget)

    shorten.__qualname__ = name
    return shorten


@dataclass
class Way:
    name: str
    compress: dict[str, Any] | None = field(default_factory=dict)


def ways() -> Iterator[Way]:
    yield Way("as it is", None)
    yield Way("structural", {"methods": ["structural"]})
    tables: dict[str, Any] = {"tables": True}
    yield Way("structural, tables", {"methods": ["structural"], **tables})
    yield Way("structural, tables, extractive", {"methods": ["structural", "extractive"], "keep": KEEP, **tables})
    yield Way("extractive", {"methods": ["extractive"], "keep": KEEP})
    for name in ("head", "tail", "middle out", "random"):
        yield Way(name, {"methods": [truncated(name)]})


def values(arguments: Any) -> Iterator[str]:
    if isinstance(arguments, dict | list):
        for one in arguments.values() if isinstance(arguments, dict) else arguments:
            yield from values(one)
    elif isinstance(arguments, str) and len(arguments) >= 5:
        yield arguments


@dataclass
class Replayed:
    prompt: int
    cached: int
    spent: float
    said_saved: float
    results: tuple[int, int]
    """Tokens of the tool results, each once: as they were, as they were sent."""
    needed: int
    kept: int


def replay(runs: list[list[dict[str, Any]]], way: Way, model: str, rates: tuple[int, int, int], chars: int) -> Replayed:
    upstream = Loopback()
    usd = [rate / 1e6 for rate in rates]
    price = ModelPrice(usd[0], usd[1], cached_input=usd[2])
    compress = (
        None if way.compress is None else Compress(models=[model], parts=["tools"], min_chars=chars, **way.compress)
    )
    policy = Policy(cache=None, models={model: price}, compress=compress)
    client = farthing.OpenAI(base_url=upstream.url, api_key=f"none-{next(_numbers)}", policy=policy)
    needed = kept = before = after = 0
    for run in runs:
        for at, message in enumerate(run):
            if message["role"] != "assistant":
                continue
            client.chat.completions.create(model=model, messages=run[:at])
            sent = upstream.sent.pop()
            old = {i: m["content"] or "" for i, m in enumerate(run[:at]) if m["role"] == "tool"}
            for call in message.get("tool_calls") or ():
                for value in set(values(json.loads(call["function"]["arguments"]))):
                    # What the user said is not the results' to keep.
                    others = (
                        m["content"] or "" for i, m in enumerate(run[:at]) if i not in old and m["role"] != "system"
                    )
                    if any(value in text for text in others):
                        continue
                    if any(value in text for text in old.values()):
                        needed += 1
                        kept += any(value in sent[i]["content"] for i in old)
            if run[at - 1]["role"] == "tool":
                before += count_tokens(run[at - 1]["content"] or "", model=model).tokens
                after += count_tokens(sent[at - 1]["content"], model=model).tokens
    bill = client.savings()
    upstream.close()
    saved = bill.by_stage["compress"].saved if "compress" in bill.by_stage else 0
    return Replayed(
        upstream.prompt, upstream.cached, float(bill.spent or 0), float(saved or 0), (before, after), needed, kept
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the folder of the data")
    parser.add_argument("--prices", type=Path, default=Path(__file__).parents[1] / "src/ledger/prices.json")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--min-chars", type=int, default=500)
    options = parser.parse_args()
    if options.data is None or not options.data.is_dir():
        print(f"left out, there is no folder {options.data or '(--data)'}")
        return
    with gzip.open(options.data / "traffic/taubench_gpt4o_airline_trajectories.json.gz", "rt") as file:
        runs = [run["traj"] for run in json.load(file)][: options.runs]
    listed = json.loads(options.prices.read_text())
    print(f"prices of {listed['date']}; {len(runs)} runs; results of {options.min_chars} characters or more\n")
    print(
        "| model | way | tokens of results, each once | prompt tokens billed | of them cached | USD | saved "
        "| farthing says | needed later | kept |\n|---|---|---|---|---|---|---|---|---|---|"
    )
    for model in MODELS:
        base = listed["providers"]["openai"][model][0]["base"]
        first: Replayed | None = None
        for way in ways():
            one = replay(runs, way, model, (base[0], base[1], base[2]), options.min_chars)
            first = first or one
            share = f"{(first.spent - one.spent) / first.spent:.1%}".replace("%", " %")
            said = f"{one.said_saved / first.spent:.1%}".replace("%", " %")
            print(
                f"| {model} | {way.name} | {one.results[1]:,} of {one.results[0]:,} | {one.prompt:,} | {one.cached:,} "
                f"| {one.spent:.3f} | {share} | {said} | {one.needed:,} | {one.kept / max(one.needed, 1):.1%} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
