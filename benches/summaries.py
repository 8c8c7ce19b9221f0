"""How good a small model's summaries are, and what the checks of `summarise` let through.

    python benches/summaries.py --data ../shared/data --keep-folder target/summaries

Texts of four passages of Wikipedia (NQ, odd rows), each with its known answer; with `--meetings`, pieces of meetings
(QMSum, needs pyarrow), of which no answer is known. A real small model is asked for the summary by farthing itself, as
a policy with `summarise` does, temperature 0; the receipt says whether it was used, and why not. What the model wrote
is kept, so that summaries that were not used are looked at as well, and so that each limit of lost facts judges the
same ones. An answer is kept when the summary holds a known one, but for case, punctuation and articles. For comparison:
the first half of each text as if it were a summary, and each text without a part of its small words and with two
numbers in each other's place.

With `--keep-folder FOLDER` what the model wrote is written down, and the same command again goes on where it ended.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import random
import re
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from compress_answers import is_right
from packs import share
from upstream import Upstream, completion

import farthing
from farthing import Compress, ModelPrice, Policy, Summarise, count_tokens
from farthing.local import MODELS, LocalServer, fetch

READER = "reader"
"""The model that would read the summary. It is not asked."""
PASSAGES = 4
PIECE = 800
"""Tokens of a piece of a meeting."""
KEEP = 0.5
SHORT = 0.7
"""Share of its letters that the wrong summary of a text has."""
_numbers = itertools.count()


@dataclass
class Text:
    text: str
    answers: list[list[str]]
    """Of each question the known ones."""


@dataclass
class Judged:
    """What became of a summary."""

    written: str
    before: int
    after: int
    """Tokens of the summary, used or not."""
    why: str | None
    """Why it was not used; None: it was."""
    kept: list[bool]
    """Of each question, whether the summary holds an answer."""


class Writer(Upstream):
    """Passes on what is asked of the model that writes, and keeps its answers; nobody else is asked."""

    def __init__(self, model: str, local: str | None, path: Path | None) -> None:
        self._local, self._path, self._lock = local, path, Lock()
        self._model = model
        self.known: dict[str, dict[str, Any]] = {}
        if path is not None and path.is_file():
            self.known = dict(json.loads(line) for line in path.read_text().splitlines())
        super().__init__()

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        if body["model"] != self._model:
            return completion(READER, ".", {"prompt_tokens": 1})
        found = re.search(r"<text-(\w+)>\n(.*)\n</text-\1>$", body["messages"][-1]["content"], re.DOTALL)
        assert found
        text = found[2].strip()
        if text not in self.known:
            made = self.write(body, text)
            with self._lock:
                self.known[text] = made
                if self._path is not None:
                    with open(self._path, "a") as file:
                        file.write(json.dumps([text, made]) + "\n")
        return self.known[text]

    def write(self, body: dict[str, Any], text: str) -> dict[str, Any]:
        data, head = json.dumps(body).encode(), {"content-type": "application/json"}
        with urllib.request.urlopen(urllib.request.Request(f"{self._local}/chat/completions", data, head)) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    def written(self, text: str) -> str:
        content: str = self.known[text]["choices"][0]["message"]["content"] or ""
        return content.strip()


class Cut(Writer):
    """Says the first half of each text."""

    def write(self, body: dict[str, Any], text: str) -> dict[str, Any]:
        words = text.split(" ")
        return completion(self._model, " ".join(words[: len(words) // 2]), {"prompt_tokens": 1})


class Mistaken(Writer):
    """Leaves out small words, and puts the first and the last number in each other's place: wrong, with every fact."""

    def write(self, body: dict[str, Any], text: str) -> dict[str, Any]:
        numbers = list(re.finditer(r"\d+(?:[.,:]\d+)*", text))
        one, other = numbers[0], numbers[-1]
        wrong = text[: one.start()] + other[0] + text[one.end() : other.start()] + one[0] + text[other.end() :]
        words = wrong.split(" ")
        small = [at for at, word in enumerate(words) if re.fullmatch(r"(?!no|nor|not|never|without)[a-z]+", word)]
        random.Random(text).shuffle(small)
        length = len(wrong)
        while small and length > SHORT * len(text):
            at = small.pop()
            length -= len(words[at]) + 1
            words[at] = ""
        return completion(self._model, " ".join(word for word in words if word), {"prompt_tokens": 1})


# ---- texts ----


def passages(path: Path, count: int, seed: int) -> Iterator[Text]:
    with gzip.open(path, "rt") as file:
        rows = [json.loads(line) for line in file][1::2]
    random.Random(seed).shuffle(rows)
    for at in range(0, min(count * PASSAGES, len(rows) - PASSAGES), PASSAGES):
        four = rows[at : at + PASSAGES]
        text = "\n\n".join(row["ctxs"][0]["text"] for row in four)
        yield Text(text, [row["answers"] for row in four if is_right(text, row["answers"])])


def pieces(path: Path, count: int, seed: int) -> Iterator[Text]:
    """One of each meeting, and again, until there are enough."""
    import pyarrow.parquet as parquet

    chance = random.Random(seed)
    meetings = [str(row["transcript"]) for row in parquet.read_table(path, columns=["transcript"]).to_pylist()]
    for at in range(count):
        lines = meetings[at % len(meetings)].splitlines()
        start = chance.randrange(len(lines))
        piece: list[str] = []
        size = 0
        for line in lines[start:]:
            size += count_tokens(line, model="gpt-4o").tokens + 1
            if piece and size > PIECE:
                break
            piece.append(line)
        if size >= PIECE / 2:
            yield Text("\n".join(piece), [])


# ---- asking ----


def judged(writer: Writer, model: str, texts: list[Text], lost: float) -> list[Judged]:
    # The model that writes costs nothing, so that the stage never rests because summaries are not used.
    policy = Policy(
        cache=None,
        models={READER: ModelPrice("1", "1"), model: ModelPrice("0", "0")},
        compress=Compress(
            models=[READER],
            parts=["last_user"],
            methods=["summarise"],
            summarise=Summarise(model=model, keep=KEEP, max_lost=lost),
            timeout=600,
        ),
    )
    # A key of its own: what was made of a text is kept for who asked.
    key = f"none-{next(_numbers)}"
    client = farthing.OpenAI(base_url=writer.url, api_key=key, timeout=600, max_retries=0, policy=policy)

    def one(text: Text) -> Judged:
        content = f"<documents>\n{text.text}\n</documents>\n\nWhat is said there?"
        answer = client.chat.completions.create(model=READER, messages=[{"role": "user", "content": content}])
        receipt = farthing.receipt(answer)
        assert receipt is not None
        notes = [note for note in receipt.notes if note.startswith("compress: ")]
        used = receipt.compress is not None and bool(receipt.compress.steps)
        written = writer.written(text.text.strip())
        return Judged(
            written,
            count_tokens(text.text, model="gpt-4o").tokens,
            count_tokens(written, model="gpt-4o").tokens,
            None if used else "; ".join(notes) or "it has no fewer tokens",
            [is_right(written, answers) for answers in text.answers],
        )

    with client, ThreadPoolExecutor(2) as pool:
        return list(pool.map(one, texts))


def reason(why: str) -> str:
    return re.sub(r"\d+ of \d+", "some", why.removeprefix("compress: the original was used: "))


def report(name: str, lost: float, found: list[Judged]) -> None:
    used = [one for one in found if one.why is None]
    answers = [kept for one in used for kept in one.kept]
    # Of those that lost an answer how many were used, of those that kept all how many were not.
    bad = [one.why is None for one in found if not all(one.kept)]
    good = [one.why is not None for one in found if all(one.kept) and one.kept]
    before, after = sum(one.before for one in used), sum(one.after for one in used)
    print(
        f"| {name} | {lost:g} | {share([one.why is None for one in found])} of {len(found)} | {before:,} | {after:,} "
        f"| {share(answers) if answers else ''} of {len(answers)} "
        f"| {share(bad) if bad else ''} of {len(bad)} | {share(good) if good else ''} of {len(good)} |",
        flush=True,
    )
    for why, count in Counter(reason(one.why) for one in found if one.why is not None).most_common():
        print(f"    {count} x {why}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=sorted(MODELS), default="qwen2.5-coder-1.5b", help="which one writes")
    parser.add_argument("--data", type=Path, help="the folder with compression/nq_oracle.jsonl.gz")
    parser.add_argument("--meetings", action="store_true", help="pieces of meetings: compression/qmsum.parquet")
    parser.add_argument("--texts", type=int, default=100)
    parser.add_argument(
        "--lost", type=lambda text: [float(one) for one in text.split(",")], default=[0.02, 0.1, 0.25, 0.5, 1]
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep-folder", type=Path, help="a folder for what the model wrote")
    options = parser.parse_args()
    file = "qmsum.parquet" if options.meetings else "nq_oracle.jsonl.gz"
    path = options.data and options.data / "compression" / file
    if path is None or not path.is_file():
        print(f"summaries: left out, there is no file {path or '(--data)'}")
        return
    texts = list((pieces if options.meetings else passages)(path, options.texts, options.seed))
    kept = options.keep_folder and options.keep_folder / f"summaries-{options.model}-{file}.jsonl"
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
    model = options.model
    with LocalServer([(model, fetch(MODELS[model]))]) as server:
        started = time.monotonic()
        model_writer = Writer(model, server.base_url, kept)
        first = judged(model_writer, model, texts, options.lost[0])
        seconds = time.monotonic() - started
    answers = [one for every in first for one in every.kept]
    sizes = sorted(one.after / one.before for one in first)
    print(
        f"\n{model}, {len(texts)} texts of {sum(one.before for one in first) / len(texts):,.0f} tokens, seed "
        f"{options.seed}, {seconds:.0f} s; all summaries: {sum(one.after for one in first):,} of "
        f"{sum(one.before for one in first):,} tokens, the middle one {sizes[len(sizes) // 2]:.0%} of its text"
        + (f"; answers kept {share(answers)} of {len(answers)}" if answers else "")
        + "\n"
    )
    print(
        "| who wrote | max_lost | used | tokens before | after | answers kept in those used "
        "| used, of those that lost one | not used, of those that kept all |\n|---|---|---|---|---|---|---|---|"
    )
    numbered = [text for text in texts if len(set(re.findall(r"\d+", text.text))) > 1]
    for name, writer, these in (
        (model, model_writer, texts),
        ("first half", Cut(model, None, None), texts),
        ("numbers exchanged", Mistaken(model, None, None), numbered),
    ):
        for lost in options.lost:
            report(name, lost, judged(writer, model, these, lost))
        writer.close()


if __name__ == "__main__":
    main()
