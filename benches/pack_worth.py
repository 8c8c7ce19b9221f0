"""What a pack saves in tokens and at list prices, from real prompts: arithmetic, no model is asked.

    python benches/pack_worth.py --data ../shared/data

The packs are those that farthing builds: they are sent through `client.farthing.map` to a loopback upstream that
answers with the known answers, and counted with `farthing.count_tokens`. Prices are those of the bundled list
(`src/ledger/prices.json`). A schema is counted as a part of the prompt, as its text: nobody says how providers do.

With a warm cache of the provider's, a prompt of 1,024 tokens or more pays the cached rate for what it begins with, in
steps of 128 tokens: alone and in packs alike. Needs pyarrow.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from upstream import Upstream, completion

import farthing
from farthing import Batch, Policy, count_tokens

SIZES = (2, 5, 10, 20)
MODELS = ("gpt-4o-mini", "gpt-4.1", "gpt-5")
"""A cheap one, and two dear ones: their providers take off half, three quarters and nine tenths for cached input."""
LEAST_CACHED, STEP = 1024, 128
MARK = re.compile(r"each between <(\d+) N>")


@dataclass
class Kind:
    """Questions that have a prompt in common, and what is answered."""

    name: str
    system: str
    pairs: list[tuple[str, str]]


@dataclass
class Sizes:
    """Tokens of the same questions, alone and as a pack. `alone`: of each prompt."""

    prefix: int
    alone: list[int]
    alone_out: int
    pack: int
    pack_out: int


def questions(content: str) -> list[str]:
    """Those of a pack; none: it is none."""
    mark = MARK.search(content)
    return re.findall(rf"\n<{mark[1]} \d+>\n(.*?)\n</{mark[1]}>\n", content, re.DOTALL) if mark else []


class Loopback(Upstream):
    """Answers packs with known answers, and keeps what was sent."""

    def __init__(self, known: dict[str, str]) -> None:
        self.seen: list[tuple[dict[str, Any], str]] = []
        self._known = known
        super().__init__()

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        content = body["messages"][-1]["content"]
        answers = [self._known[text] for text in questions(content) or [content]]
        if "response_format" in body:
            text = json.dumps({str(at): one for at, one in enumerate(answers, 1)}, separators=(",", ":"))
        else:
            text = "\n".join(f"{at}. " + one.replace("\n", "\n   ") for at, one in enumerate(answers, 1))
        self.seen.append((body, text))
        return completion(body["model"], text, {"prompt_tokens": 1})


def kinds(data: Path) -> list[Kind]:
    import pyarrow.parquet as parquet

    rows = parquet.read_table(data / "semantic/banking77.parquet", columns=["text", "category"]).to_pylist()
    labels = sorted({row["category"] for row in rows})
    messages = list({row["text"].strip(): row["category"] for row in rows[:: len(rows) // 60]}.items())
    with gzip.open(data / "compression/nq_oracle.jsonl.gz", "rt") as file:
        passages = [json.loads(line) for line in file][:60]
    own = {f"{row['ctxs'][0]['text']}\n\n{row['question']}?": row["answers"][0] for row in passages}
    with gzip.open(data / "traffic/taubench_gpt4o_airline_trajectories.json.gz", "rt") as file:
        runs = [run["traj"] for run in json.load(file)]
    wiki = runs[0][0]["content"]
    openings = {run[1]["content"].strip(): run[2]["content"] for run in runs if run[2].get("content")}
    ten, all_of = "\n".join(labels[:10]), "\n".join(labels)
    told = "Classify a bank customer's message. Answer with the name of one of these intents, and nothing else:\n"
    return [
        Kind("BANKING77 message, 10 intents", told + ten, messages),
        Kind("BANKING77 message, 77 intents", told + all_of, messages),
        Kind("NQ passage and question", "Answer from the passage, with as few words as possible.", list(own.items())),
        Kind("airline agent's policy, first turn", wiki, list(openings.items())),
    ]


def measure(kind: Kind, size: int, form: str) -> Sizes:
    model = MODELS[0]
    pairs = kind.pairs[:size]
    upstream = Loopback(dict(pairs))
    batch = Batch(
        models=[model],
        window_ms=0,
        always=True,
        max_items=size,
        max_prompt_tokens=10**6,
        max_answer_tokens=10**6,
        format=form,  # type: ignore[arg-type]
    )
    client = farthing.OpenAI(base_url=upstream.url, api_key="none", policy=Policy(batch=batch, cache=None))
    got = client.farthing.map([text for text, _ in pairs], model=model, system=kind.system, progress=False)
    assert [one.choices[0].message.content for one in got] == [answer.strip() for _, answer in pairs], kind.name
    ((body, text),) = upstream.seen
    upstream.close()
    schema = json.dumps(body["response_format"], separators=(",", ":")) if "response_format" in body else ""
    system = {"role": "system", "content": kind.system}
    alone = [[system, {"role": "user", "content": text}] for text, _ in pairs]
    return Sizes(
        prefix=count_tokens(kind.system, model=model),
        alone=[int(count_tokens(messages, model=model)) for messages in alone],
        alone_out=sum(count_tokens(answer, model=model) for _, answer in pairs),
        pack=count_tokens(body["messages"], model=model) + count_tokens(schema, model=model),
        pack_out=count_tokens(text, model=model),
    )


Rates = tuple[int, int, int]
"""Input, output, cached input."""


def cost(prompts: Sequence[int], output: int, prefix: int, rates: Rates, is_warm: bool) -> float:
    """1e-12 USD."""
    total = output * rates[1]
    for prompt in prompts:
        cached = prefix // STEP * STEP if is_warm and prefix >= LEAST_CACHED else 0
        total += cached * rates[2] + (prompt - cached) * rates[0]
    return total


def break_even(sizes: Sizes, rates: Rates | None, is_cached: bool) -> float:
    """Tokens of the prefix from which on a pack costs no more: both costs are linear in it."""
    count = len(sizes.alone)
    more_in = sizes.pack - sizes.prefix - sum(prompt - sizes.prefix for prompt in sizes.alone)
    more_out = sizes.pack_out - sizes.alone_out
    if rates is None:
        return (more_in + more_out) / (count - 1)
    return (more_in * rates[0] + more_out * rates[1]) / ((count - 1) * (rates[2] if is_cached else rates[0]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the folder of the data")
    parser.add_argument("--prices", type=Path, default=Path(__file__).parents[1] / "src/ledger/prices.json")
    options = parser.parse_args()
    if options.data is None or not options.data.is_dir():
        print(f"left out, there is no folder {options.data or '(--data)'}")
        return
    listed = json.loads(options.prices.read_text())
    rates: dict[str, Rates] = {}
    for model in MODELS:
        base = listed["providers"]["openai"][model][0]["base"]
        rates[model] = (base[0], base[1], base[2])
    print(f"prices of {listed['date']}, USD per million tokens, input, output, cached: ", end="")
    print("; ".join(f"{model} {', '.join(f'{rate / 1e6:g}' for rate in rates[model])}" for model in MODELS))
    made = [
        (kind, size, form, measure(kind, size, form))
        for kind in kinds(options.data)
        for form in ("json", "lines")
        for size in SIZES
    ]
    heads = " | ".join(f"{model}, {how}" for model in MODELS for how in ("full price", "warm cache"))
    print(
        f"\n| questions | prefix | own part, mean | form | pack | prompt tokens alone | in the pack | answers alone "
        f"| in the pack | {heads} |\n|---|---|---|---|---|---|---|---|---|" + "---|" * 2 * len(MODELS)
    )
    for kind, size, form, one in made:
        cells = []
        for model in MODELS:
            for is_warm in (False, True):
                apart = cost(one.alone, one.alone_out, one.prefix, rates[model], is_warm)
                packed = cost([one.pack], one.pack_out, one.prefix, rates[model], is_warm)
                cells.append(f"{(apart - packed) / apart:.0%}".replace("%", " %"))
        own = sum(count_tokens(text, model=MODELS[0]) for text, _ in kind.pairs[:size]) / size
        print(
            f"| {kind.name} | {one.prefix:,} | {own:.0f} | {form} | {size} | {sum(one.alone):,} | {one.pack:,} "
            f"| {one.alone_out:,} | {one.pack_out:,} | {' | '.join(cells)} |"
        )
    print("\nPrefix in tokens from which on a pack pays; cached: where each call alone would find it in the cache.\n")
    heads = " | ".join(f"{model}, {how}" for model in MODELS for how in ("full price", "cached"))
    print(f"| questions | form | pack | tokens alone | {heads} |\n|---|---|---|---|" + "---|" * 2 * len(MODELS))
    # It does not depend on the questions but for their answers: the first kind has short ones, the last long ones.
    ends = (made[0][0].name, made[-1][0].name)
    for kind, size, form, one in made:
        if kind.name not in ends:
            continue
        cells = [f"{break_even(one, rates[model], is_cached):.0f}" for model in MODELS for is_cached in (False, True)]
        print(f"| {kind.name} | {form} | {size} | {break_even(one, None, False):.0f} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
