"""What shorter contexts cost in right answers: the same questions with all passages and with what is left of them.

    python benches/compress_answers.py --others 3 --keep 0.5 --data nq_oracle.jsonl.gz
    python benches/compress_answers.py --way "all of it" --way extractive --data nq_oracle.jsonl.gz

Each question comes with the passage that answers it and with passages of other questions, in an order that the seed
decides, as documents of the user's message. A small real model answers, temperature 0, through farthing with
`[compress]` and without; head and random sentences have the same budget of tokens. An answer is right when it holds one
of the known ones, but for case and articles. Tokens are what the server billed. Everything is in odd rows of the file:
nothing was tuned on them.

With `--keep-folder FOLDER` each measurement is written down, and the same command again goes on where it ended.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import re
import string
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packs import Kept, gap, share

import farthing
from farthing import Compress, CompressRequest, Policy, count_tokens
from farthing.local import MODELS, LocalServer, fetch

ASKED = "Answer from the documents, with as few words as possible: a name, a number or a date, and nothing else."


@dataclass
class Question:
    text: str
    answers: list[str]
    documents: list[str]


@dataclass
class Cell:
    """One measurement: all questions once, in one way."""

    said: list[str]
    right: list[bool]
    prompt_tokens: int
    completion_tokens: int
    seconds: float


def questions(path: Path, count: int, others: int, seed: int) -> Iterator[Question]:
    with gzip.open(path, "rt") as file:
        rows = [json.loads(line) for line in file][1::2]
    chance = random.Random(seed)
    chance.shuffle(rows)
    for row in rows[:count]:
        right = {one.casefold() for one in row["answers"]}
        # A passage that has the answer as well would not be another.
        rest = [other for other in rows if other is not row]
        texts = [row["ctxs"][0]["text"]]
        while len(texts) <= others:
            text = chance.choice(rest)["ctxs"][0]["text"]
            if text not in texts and not any(one in text.casefold() for one in right):
                texts.append(text)
        chance.shuffle(texts)
        yield Question(f"{row['question']}?", row["answers"], texts)


def plainly(text: str) -> str:
    words = re.sub(rf"[{re.escape(string.punctuation)}]", " ", text.casefold()).split()
    return " ".join(word for word in words if word not in ("a", "an", "the"))


def is_right(said: str, answers: list[str]) -> bool:
    return any(f" {plainly(one)} " in f" {plainly(said)} " for one in answers if plainly(one))


def head(keep: float) -> Any:
    def shorten(request: CompressRequest) -> str:
        words = request.text.split(" ")
        budget = count_tokens(request.text, model="gpt-4o").tokens * keep
        low, high = 0, len(words)
        while low < high:
            middle = (low + high + 1) // 2
            fits = count_tokens(" ".join(words[:middle]), model="gpt-4o").tokens <= budget
            low, high = (middle, high) if fits else (low, middle - 1)
        return " ".join(words[:low])

    return shorten


def at_random(keep: float) -> Any:
    """Whole sentences, in their order."""

    def shorten(request: CompressRequest) -> str:
        parts = re.split(r"(?<=[.!?])\s+|\n+", request.text)
        budget = count_tokens(request.text, model="gpt-4o").tokens * keep
        order = list(range(len(parts)))
        random.Random(request.text).shuffle(order)
        kept: list[int] = []
        for at in order:
            text = " ".join(parts[one] for one in sorted([*kept, at]))
            if count_tokens(text, model="gpt-4o").tokens > budget:
                break
            kept.append(at)
        return " ".join(parts[at] for at in sorted(kept))

    return shorten


WAYS: dict[str, Callable[[float], Any]] = {
    "all of it": lambda keep: None,
    "extractive": lambda keep: ("structural", "extractive"),
    "head": lambda keep: (head(keep),),
    "random sentences": lambda keep: (at_random(keep),),
}


def ways(names: list[str], keeps: list[float]) -> Iterator[tuple[str, Compress | None]]:
    for name in names:
        for keep in keeps if name != "all of it" else [1.0]:
            methods = WAYS[name](keep)
            if methods is None:
                yield name, None
            else:
                compress = Compress(models=list(MODELS), parts="last_user", methods=methods, keep=keep, min_chars=200)
                yield f"{name} {keep:g}", compress


def measure(server: LocalServer, model: str, asked: list[Question], compress: Compress | None) -> Cell:
    policy = Policy(cache=None, compress=compress)
    client = farthing.OpenAI(base_url=server.base_url, api_key="local", timeout=600, max_retries=0, policy=policy)

    def ask(question: Question) -> str:
        # One text: what answers the question is chosen from all passages, not from each.
        passages = "\n\n".join(question.documents)
        documents = f"<documents>\n{passages}\n</documents>"
        answer = client.chat.completions.create(
            model=model,
            messages=[
                {"role": "system", "content": ASKED},
                {"role": "user", "content": f"{documents}\n\n{question.text}"},
            ],
            temperature=0,
            max_tokens=24,
        )
        return answer.choices[0].message.content or ""

    before, started = server.stats()[model], time.monotonic()
    with client, ThreadPoolExecutor(2) as pool:
        said = list(pool.map(ask, asked))
    seconds, after = time.monotonic() - started, server.stats()[model]
    return Cell(
        said=said,
        right=[is_right(one, question.answers) for one, question in zip(said, asked, strict=True)],
        prompt_tokens=after["prompt_tokens"] - before["prompt_tokens"],
        completion_tokens=after["completion_tokens"] - before["completion_tokens"],
        seconds=seconds,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", choices=sorted(MODELS), help="default: qwen2.5-coder-0.5b")
    parser.add_argument("--data", type=Path, help="questions of NQ with their passages: nq_oracle.jsonl.gz")
    parser.add_argument("--way", action="append", choices=list(WAYS), help="default: all")
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--others", type=int, default=5, help="passages of other questions, for each")
    parser.add_argument("--keep", type=lambda text: [float(one) for one in text.split(",")], default=[0.5, 0.25])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep-folder", type=Path, help="a folder for what was measured")
    options = parser.parse_args()
    if options.data is None or not options.data.is_file():
        print(f"left out, there is no file {options.data or '(--data)'}")
        return
    kept = Kept(options.keep_folder, Cell)
    asked = list(questions(options.data, options.questions, options.others, options.seed))
    for model in options.model or ["qwen2.5-coder-0.5b"]:
        print(f"\n{model}, {len(asked)} questions, {options.others} other passages, seed {options.seed}\n")
        print(
            "| context | right, 95 % | against all of it, points | prompt tokens | completion tokens | seconds |\n"
            "|---|---|---|---|---|---|"
        )
        with LocalServer([(model, fetch(MODELS[model]))]) as server:
            base: Cell | None = None
            for name, compress in ways(options.way or list(WAYS), options.keep):
                kept_as = f"{model}-{len(asked)}-{options.others}-{name}"
                cell = kept.or_measured(kept_as, lambda: measure(server, model, asked, compress))  # noqa: B023
                base = cell if name == "all of it" else base
                against = gap(cell.right, base.right) if base is not None and cell is not base else ""
                print(
                    f"| {name} | {share(cell.right)} | {against} | {cell.prompt_tokens:,} | {cell.completion_tokens:,} "
                    f"| {cell.seconds:.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
