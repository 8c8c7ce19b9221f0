"""Whether a small model reads the tables of `structural` as well as JSON: the same questions about the same records.

    python benches/tables.py --model qwen2.5-coder-0.5b --model qwen2.5-coder-1.5b

Made-up orders, a dozen in each list, in several forms: JSON as it comes, what farthing makes of it (`tables = false`,
and tables), and other forms of a table, to compare. A small real model answers questions that have one right answer,
about an order by its number or by its customer; temperature 0. An answer is right when it holds the value of the
record, and none that other records have in the same field. The records come first, so the server reads each list once.

With `--keep-folder FOLDER` each measurement is written down, and the same command again goes on where it ended.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import random
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packs import Kept, gap, share
from upstream import Upstream, completion

import farthing
from farthing import Compress, Policy, count_tokens
from farthing.local import MODELS, LocalServer, fetch

TOLD = "Answer from the documents, with one value of an order and nothing else."
RECORDS, EACH = 12, 20
"""Orders in a list, and questions about it."""
BASE = "JSON without blanks"

FIRST = "Ada Boris Carla Dmitri Elena Farid Greta Hugo Ines Jonas Karin Luis Mira Nils Olga Pavel".split()  # noqa: SIM905
LAST = "Novak Berg Costa Dahl Ekman Fischer Garcia Haas Ivanov Jensen Keller Lopez Moreau Nowak Olsen Petit".split()  # noqa: SIM905
CITIES = "Lyon Porto Graz Bergen Turin Ghent Malmo Krakow Leeds Cork Basel Tartu Bilbao Brno Aarhus Split".split()  # noqa: SIM905
STATES = ("new", "paid", "packed", "shipped", "delivered", "returned", "cancelled")
CARRIERS = ("DHL", "UPS", "GLS", "DPD", "FedEx")
BY_NUMBER = {
    "customer": "Who is the customer of order {id}?",
    "city": "Which city does order {id} go to?",
    "status": "What is the status of order {id}?",
    "carrier": "Which carrier has order {id}?",
    "items": "How many items has order {id}?",
    "total": "What is the total of order {id}?",
}
BY_CUSTOMER = {
    "id": "What is the id of the order of {customer}?",
    "city": "Which city does the order of {customer} go to?",
    "status": "What is the status of the order of {customer}?",
    "carrier": "Which carrier has the order of {customer}?",
    "items": "How many items has the order of {customer}?",
    "total": "What is the total of the order of {customer}?",
}

Record = dict[str, Any]


@dataclass
class Question:
    text: str
    known: str
    others: list[str]
    """What other records have in the same field."""


@dataclass
class Records:
    forms: dict[str, str]
    questions: list[Question]


@dataclass
class Cell:
    """One measurement: all questions once, in one form."""

    said: list[str]
    right: list[bool]
    prompt_tokens: int
    seconds: float


def orders(chance: random.Random) -> list[Record]:
    names = [f"{one} {other}" for one, other in zip(chance.sample(FIRST, 12), chance.sample(LAST, 12), strict=True)]
    cities, totals = chance.sample(CITIES, RECORDS), chance.sample(range(900, 90_000), RECORDS)
    return [
        {
            "id": number,
            "customer": names[at],
            "city": cities[at],
            "status": chance.choice(STATES),
            "carrier": chance.choice(CARRIERS),
            "items": chance.randint(1, 9),
            "total": totals[at] / 100,
        }
        for at, number in enumerate(chance.sample(range(1000, 10_000), RECORDS))
    ]


def asked(records: list[Record], chance: random.Random) -> list[Question]:
    every = [
        (record, field, text)
        for record in records
        for texts in (BY_NUMBER, BY_CUSTOMER)
        for field, text in texts.items()
    ]
    return [
        Question(
            text.format(**record),
            str(record[field]),
            sorted({str(one[field]) for one in records} - {str(record[field])}),
        )
        for record, field, text in chance.sample(every, EACH)
    ]


# ---- forms ----


def compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def rows(records: list[Record]) -> list[list[Any]]:
    return [list(record.values()) for record in records]


def with_lines(records: list[Record]) -> str:
    lines = ",\n".join(compact(row) for row in rows(records))
    return f'{{"columns":{compact(list(records[0]))},"rows":[\n{lines}\n]}}'


def with_header(records: list[Record]) -> str:
    return "[" + ",\n".join(compact(row) for row in [list(records[0]), *rows(records)]) + "]"


def objects_in_lines(records: list[Record]) -> str:
    return "[" + ",\n".join(compact(record) for record in records) + "]"


def as_csv(records: list[Record]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([list(records[0]), *rows(records)])
    return out.getvalue().strip()


def as_markdown(records: list[Record]) -> str:
    lines = [list(records[0]), ["---"] * len(records[0]), *rows(records)]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


class Seen(Upstream):
    """Keeps what was sent."""

    sent = ""

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        self.sent = body["messages"][-1]["content"]
        return completion(body["model"], ".", {"prompt_tokens": 1})


def made(upstream: Seen, text: str, tables: bool) -> str:
    """What farthing sends for it."""
    compress = Compress(models="any", parts="last_user", methods="structural", min_chars=1, tables=tables)
    policy = Policy(cache=None, compress=compress)
    with farthing.OpenAI(base_url=upstream.url, api_key="none", policy=policy) as client:
        client.chat.completions.create(model="any", messages=[{"role": "user", "content": said(text, "?")}])
    found = re.fullmatch(r"<documents>\n?(.*?)\n?</documents>\n\n\?", upstream.sent, re.DOTALL)
    assert found, upstream.sent
    return found[1]


def said(documents: str, question: str) -> str:
    return f"<documents>\n{documents}\n</documents>\n\n{question}"


FORMS: dict[str, Callable[[Seen, list[Record]], str]] = {
    BASE: lambda seen, records: made(seen, json.dumps(records, indent=2), False),
    "table": lambda seen, records: made(seen, json.dumps(records, indent=2), True),
    "table, a line for each row": lambda _, records: with_lines(records),
    "lists, a line each, names first": lambda _, records: with_header(records),
    "JSON, a line for each object": lambda _, records: objects_in_lines(records),
    "JSON, indented by 2": lambda _, records: json.dumps(records, indent=2),
    "CSV": lambda _, records: as_csv(records),
    "Markdown": lambda _, records: as_markdown(records),
}


def lists(count: int, seed: int) -> list[Records]:
    chance, upstream = random.Random(seed), Seen()
    found = []
    for _ in range(count // EACH):
        records = orders(chance)
        forms = {name: form(upstream, records) for name, form in FORMS.items()}
        found.append(Records(forms, asked(records, chance)))
    upstream.close()
    return found


# ---- asking ----


def holds(text: str, value: str) -> bool:
    """A number may be written with zeros at its end, or without."""
    if re.fullmatch(r"[\d.]+", value):
        return float(value) in [float(one) for one in re.findall(r"\d+(?:\.\d+)?", text.replace(",", ""))]
    return re.search(rf"\b{re.escape(value)}\b", text, re.IGNORECASE) is not None


def is_right(text: str, question: Question) -> bool:
    return holds(text, question.known) and not any(holds(text, other) for other in question.others)


def measure(server: LocalServer, model: str, every: list[Records], form: str) -> Cell:
    client = farthing.OpenAI(
        base_url=server.base_url, api_key="local", timeout=600, max_retries=0, policy=Policy(cache=None)
    )

    def ask(one: Records) -> list[str]:
        answers = (
            client.chat.completions.create(
                model=model,
                messages=[
                    {"role": "system", "content": TOLD},
                    {"role": "user", "content": said(one.forms[form], question.text)},
                ],
                temperature=0,
                max_tokens=32,
            )
            for question in one.questions
        )
        return [answer.choices[0].message.content or "" for answer in answers]

    before, started = server.stats()[model]["prompt_tokens"], time.monotonic()
    # Each list in one thread: the server finds it in its cache.
    with client, ThreadPoolExecutor(2) as pool:
        texts = [text for part in pool.map(ask, every) for text in part]
    questions = [question for one in every for question in one.questions]
    right = [is_right(text, question) for text, question in zip(texts, questions, strict=True)]
    return Cell(texts, right, server.stats()[model]["prompt_tokens"] - before, time.monotonic() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", choices=sorted(MODELS), help="default: qwen2.5-coder-0.5b")
    parser.add_argument("--form", action="append", choices=list(FORMS), help="default: all")
    parser.add_argument("--questions", type=int, default=200, help=f"a multiple of {EACH}")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep-folder", type=Path, help="a folder for what was measured")
    options = parser.parse_args()
    kept = Kept(options.keep_folder, Cell)
    every = lists(options.questions, options.seed)
    count = sum(len(one.questions) for one in every)
    for model in options.model or ["qwen2.5-coder-0.5b"]:
        print(f"\n{model}, {count} questions about {len(every)} lists of {RECORDS} orders, seed {options.seed}\n")
        print("| form | tokens of a list, gpt-4o | right, 95 % | against JSON without blanks, points | seconds |")
        print("|---|---|---|---|---|", flush=True)
        with LocalServer([(model, fetch(MODELS[model]))]) as server:
            base: Cell | None = None
            for form in options.form or list(FORMS):
                name = f"tables-{model}-{count}-{options.seed}-{form}"
                cell = kept.or_measured(name, lambda: measure(server, model, every, form))  # noqa: B023
                base = cell if form == BASE else base
                sizes = [count_tokens(one.forms[form], model="gpt-4o").tokens for one in every]
                against = gap(cell.right, base.right) if base is not None and cell is not base else ""
                print(
                    f"| {form} | {sum(sizes) / len(sizes):,.0f} | {share(cell.right)} | {against} "
                    f"| {cell.seconds:.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
