"""`client.labels()`: what the core kept, from a file that any process may have written, or from memory."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from upstream import Upstream

from farthing import Cache, CacheError, Label, OpenAI, Policy

# What the SDK's way of sending has nothing to do with.
pytestmark = pytest.mark.once

ROW: dict[str, Any] = {
    "at": 1_700_000_000_123,
    "model": "gpt-4o-mini",
    "rung": "small",
    "kind": "shadow",
    "prompt": bytes(range(32)),
    "features": '{"words": 3}',
    "score": 0.5,
    "scores": '{"judge": 0.5}',
    "good": 1.0,
    "cost": "0.000000000001",
    "dear_cost": None,
    "overhead": "0.5",
    "size": 300,
    "text": "caf\u00e9 \U0001f600\x00",
}


def client(upstream: Upstream, cache: Cache | None) -> OpenAI:
    return OpenAI(base_url=upstream.url, api_key="k", max_retries=0, policy=Policy(cache=cache))


WRITE = """
import ast, sqlite3, sys
row = ast.literal_eval(sys.argv[2])
with sqlite3.connect(sys.argv[1], timeout=10) as tables:
    names, marks = ", ".join(row), ", ".join("?" * len(row))
    tables.execute(f"INSERT INTO labels ({names}) VALUES ({marks})", list(row.values()))
tables.close()
"""


def write(path: Path, **changes: Any) -> None:
    """In a process of its own: a second SQLite in this one would take the locks of the first with it."""
    subprocess.run([sys.executable, "-c", WRITE, str(path), ascii({**ROW, **changes})], check=True)


def ask(one: OpenAI, text: str) -> None:
    one.chat.completions.create(model="m", messages=[{"role": "user", "content": text}])


@pytest.mark.parametrize("cache", [Cache(), None])
def test_without_a_file_there_are_none_at_first(upstream: Upstream, cache: Cache | None) -> None:
    one = client(upstream, cache)
    assert one.labels() == []
    ask(one, "hello")
    assert one.labels() == []


def test_labels_are_read_from_the_file(upstream: Upstream, tmp_path: Path) -> None:
    path = tmp_path / "answers.db"
    one = client(upstream, Cache(path=str(path)))
    assert one.labels() == []
    write(path)
    write(path, kind="escalation", score=None, good=None, text=None, cost=None)
    first, second = one.labels()
    assert first == Label(
        at=datetime(2023, 11, 14, 22, 13, 20, 123_000, timezone.utc),
        model="gpt-4o-mini",
        rung="small",
        kind="shadow",
        prompt=bytes(range(32)).hex(),
        features={"words": 3},
        text="caf\u00e9 \U0001f600\x00",
        score=0.5,
        scores={"judge": 0.5},
        good=1.0,
        cost=Decimal("0.000000000001"),
        dear_cost=None,
        overhead=Decimal("0.5"),
    )
    assert (second.kind, second.score, second.good, second.text, second.cost) == ("escalation", None, None, None, None)
    assert client(upstream, Cache(path=str(path), name="other")).labels() == [first, second]


def test_a_cleared_cache_has_them_still_and_the_command_line_counts_them(upstream: Upstream, tmp_path: Path) -> None:
    path = tmp_path / "answers.db"
    one = client(upstream, Cache(path=str(path)))
    ask(one, "hello")
    one.labels()
    run = [sys.executable, "-m", "farthing", "cache", str(path)]
    assert "labels" not in subprocess.run([*run, "stats"], capture_output=True, text=True, check=True).stdout
    write(path)
    one.cache.clear()
    assert len(one.labels()) == 1
    shown = subprocess.run([*run, "stats"], capture_output=True, text=True, check=True).stdout
    assert "labels     1" in shown
    counts = json.loads(subprocess.run([*run, "stats", "--json"], capture_output=True, text=True, check=True).stdout)
    assert (counts["entries"], counts["labels"]) == (0, 1)


def test_a_row_that_nobody_can_read_costs_only_itself(upstream: Upstream, tmp_path: Path) -> None:
    path = tmp_path / "answers.db"
    one = client(upstream, Cache(path=str(path)))
    one.labels()
    for wrong in ({"prompt": b"short"}, {"features": "{"}, {"kind": "none"}, {"at": "never"}):
        write(path, **wrong)
    write(path)
    assert [label.prompt for label in one.labels()] == [bytes(range(32)).hex()]


def test_a_time_beyond_the_calendar_is_no_crash(upstream: Upstream, tmp_path: Path) -> None:
    path = tmp_path / "answers.db"
    one = client(upstream, Cache(path=str(path)))
    one.labels()
    write(path, at=2**63 - 1)
    with pytest.raises(CacheError, match="label"):
        one.labels()
