"""The policy as a user meets it: what is taken, what it becomes, and what is said about what is not taken."""

from __future__ import annotations

import ast
import copy
import dataclasses
import json
import os
import pickle
import subprocess
import sys
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing import batch_policy
from farthing import policy as room
from farthing.batch_policy import Batch
from farthing.checks import nearest
from farthing.escalate_policy import Escalate
from farthing.exceptions import FarthingError, PolicyError, explain
from farthing.policy import Cache, ModelPrice, Policy
from farthing.route_policy import Route, Rules

pytestmark = pytest.mark.once


class Float64(float):
    """numpy's float64 is a float whose repr is not a number."""

    def __repr__(self) -> str:
        return f"np.float64({float(self)})"


# fmt: off
SIZES = [
    (1, 1), ("1", 1), ("7b", 7), ("1.5KiB", 1536), ("10 kB", 10_000), ("256MiB", 2**28), ("1GB", 10**9),
    ("1 gib", 2**30), ("2TiB", 2**41), (2**63 - 1, 2**63 - 1), (str(2**63 - 1), 2**63 - 1),
]
NO_SIZES: list[Any] = [0, -1, True, 1.5, None, "", "MiB", "-1MB", "1 M", "1e9", "nan", 2**63, "9" * 31, []]
PRICES = [
    (0, "0"), (-0.0, "0"), (3, "3"), (0.1, "0.1"), (1e-06, "0.000001"), ("2.50", "2.5"), ("1e3", "1000"),
    (Decimal("0.0375"), "0.0375"), (Float64(0.15), "0.15"), (Decimal("0E-999999"), "0"), ("1." + "0" * 50, "1"),
]
NO_PRICES = [
    -1, "-0.1", "x", "", None, True, float("nan"), float("inf"), "sNaN", Decimal("Infinity"), 1_000_001, "1e999999",
    "1e-999999", 0.1 + 0.2, "0.0000001", [], b"1",
]
NO_CACHES = [
    ("scope", ["", "a\nb", "\ud800", "x" * 129, 5]),
    ("name", ["", 5]),
    ("deterministic_only", ["yes", None, 1]),
    ("mode", [None, [], "ON"]),
    ("ttl", [0, True, "soon"]),
    ("ignore_headers", [[1], ["a b"], None, ["Authorization"], {"a": 1}, ["caf\xe9"]]),
]
NO_TABLES = [
    {"aliases": {"a": 1}}, {"aliases": {"": "m"}}, {"aliases": {1: "m"}}, {"models": {"m": 5}}, {1: 2},
    {"models": {1: {"input": 1, "output": 1}}}, {"strict": None}, {"cache": [["ttl", 1]]},
]
UNKNOWN = [
    ({"cache": {"max_byte": 1}}, "cache.max_byte", 'did you mean "cache.max_bytes"?'),
    ({"cache": {"Max-Bytes": 1}}, "cache.Max-Bytes", 'did you mean "cache.max_bytes"?'),
    ({"cach": {}}, "cach", 'did you mean "cache"?'),
    ({"ttl": 5}, "ttl", 'did you mean "cache.ttl"?'),
    ({"mode": "on"}, "mode", 'did you mean "cache.mode"?'),
    ({"cache": {"strict": True}}, "cache.strict", 'did you mean "strict"?'),
    ({"xyzzy": 1}, "xyzzy",
     "valid here: cache, models, aliases, upstreams, fallback, budgets, route, escalate, batch, compress, strict"),
    ({"models": {"m.1": {"inptu": 1}}}, 'models."m.1".inptu', 'did you mean "models."m.1".input"?'),
    ({"models": {"gpt-4": {"1": {}}}}, "models.gpt-4.1", 'a model name with a dot is quoted: models."gpt-4.1"'),
]
SAID = [
    ({"models": {"m": {"input": 1}}}, "missing key in the policy: models.m.output"),
    ({"cache": 5}, "cache must be a table (in Python a Cache or a dict) in the policy: 5"),
    ({"strict": 1}, "strict must be true or false in the policy: 1"),
    ({"models": []}, "models must be a table in the policy: []"),
    ({"cache": {"mode": "of"}},
     "cache.mode must be one of on, off, read_only, write_only, refresh in the policy: 'of'\n"
     'hint: did you mean "off"?'),
    ({"aliases": {"a": "b", "b": "c", "c": "a"}},
     "aliases run in a circle in the policy: a -> b -> c -> a\n"
     "hint: an alias names a model that the upstream knows"),
    ({"aliases": {"chat": "fast", "fast": "gpt-4.1"}},
     "aliases point to another alias in the policy: chat -> fast -> gpt-4.1\n"
     'hint: name the model itself: aliases.chat = "gpt-4.1"'),
    ({"cache": {"ignore_headers": "x-a"}},
     "cache.ignore_headers must be a list of header names in the policy: 'x-a'\n"
     'hint: cache.ignore_headers = ["x-request-source"]'),
]
BROKEN = [
    ("cache.max_byte = 1", 'unknown key in farthing.toml: cache.max_byte\nhint: did you mean "cache.max_bytes"?'),
    ("strict = true\n[cache\n", "invalid TOML in farthing.toml: Expected ']' at the end of a table declaration"),
    ("[cache]\nttl = nan", "cache.ttl must be more than 0 seconds and at most 100 years in farthing.toml: 'NaN'"),
    ("[models.m]\ninput = inf\noutput = 1", "models.m.input must be USD per million tokens"),
    (b"strict = true\n# caf\xe9\n", "not UTF-8 in farthing.toml: line 2\nhint: save it as UTF-8"),
    ("a = " + "[" * 5000, "invalid TOML in farthing.toml: "),
    ("strict = " + "9" * 5000, "invalid TOML in farthing.toml: "),
    ("strict = 2020-01-01", "strict must be true or false in farthing.toml"),
]
# fmt: on


def refused(values: Any) -> str:
    with pytest.raises(PolicyError) as caught:
        Policy.from_dict(values)
    return str(caught.value)


@pytest.fixture
def toml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes farthing.toml into a directory of its own and goes there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FARTHING_POLICY", raising=False)

    def write(text: str | bytes) -> str:
        (tmp_path / "farthing.toml").write_bytes(text.encode() if isinstance(text, str) else text)
        return "farthing.toml"

    return write


def test_the_default_is_a_cache_of_256_mib_for_a_day_and_nothing_else() -> None:
    assert json.loads(Policy().to_core()) == {
        "cache": {
            "max_bytes": 268435456,
            "ttl": 86400.0,
            "mode": "on",
            "deterministic_only": False,
            "scope": None,
            "ignore_headers": [],
            "name": None,
            "path": None,
            "max_disk_bytes": 1073741824,
        },
        "models": {},
        "aliases": {},
        "upstreams": {},
        "fallback": None,
        "budgets": [],
        "route": None,
        "escalate": None,
        "batch": None,
        "compress": None,
        "strict": False,
    }


def test_python_dict_and_toml_say_the_same(toml: Any) -> None:
    built = Policy(
        cache=Cache(max_bytes="64MiB", ttl="1h", mode="refresh", ignore_headers=["X-B", "x-a", "x-b"], scope="team"),
        models={"gpt-4.1": ModelPrice("2.50", 10, cached_input=0.5), "free": ModelPrice(0, 0.0)},
        aliases={"chat": "deepseek-v4-flash"},
        strict=True,
    )
    path = toml(
        """
        strict = true
        [cache]
        max_bytes = "64MiB"
        ttl = "1h"
        mode = "refresh"
        ignore_headers = ["X-B", "x-a"]
        scope = "team"
        [models]
        "gpt-4.1" = { input = 2.50, output = 10, cached_input = "0.5" }
        free = { input = 0, output = 0.0 }
        [aliases]
        chat = "deepseek-v4-flash"
        """
    )
    assert Policy.from_toml(path) == built == Policy.from_dict(json.loads(built.to_core()))
    assert built.cache is not None and built.cache.ignore_headers == ("x-a", "x-b")
    assert json.loads(built.to_core())["models"]["gpt-4.1"] == {
        "input": "2.5",
        "output": "10",
        "cached_input": "0.5",
        "cache_write": None,
        "max_output": None,
        "context": None,
        "can": [],
        "cannot": [],
    }


@pytest.mark.parametrize("off", [None, False])
def test_no_cache(off: Any, toml: Any) -> None:
    assert Policy.from_dict({"cache": off}).cache is None
    assert Policy(cache=off) == Policy.from_toml(toml("cache = false"))
    assert json.loads(Policy(cache=off).to_core())["cache"] is None


@pytest.mark.parametrize(("given", "size"), SIZES)
def test_sizes(given: int | str, size: int) -> None:
    assert Cache(max_bytes=given).max_bytes == size


@pytest.mark.parametrize("given", NO_SIZES)
def test_sizes_refused(given: Any) -> None:
    with pytest.raises(PolicyError, match="max_bytes must be"):
        Cache(max_bytes=given)


@pytest.mark.parametrize(("given", "price"), PRICES)
def test_prices(given: Any, price: str) -> None:
    with localcontext() as context:
        context.prec = 1  # a caller's decimal context is none of the policy's business
        core = json.loads(Policy(models={"m": ModelPrice(given, "0.3")}).to_core())
    assert core["models"]["m"]["input"] == price
    assert core["models"]["m"]["output"] == "0.3"


@pytest.mark.parametrize("given", NO_PRICES)
def test_prices_refused(given: Any) -> None:
    # None is no price, which one alone cannot be.
    with pytest.raises(PolicyError, match="missing key.*input" if given is None else "input must"):
        ModelPrice(given, 1)


def test_a_price_keeps_the_decimal_it_was_given() -> None:
    assert str(ModelPrice(Decimal("2.50"), "10.00").input) == "2.50"
    assert Policy(models={"m": ModelPrice("2.50", 1)}) == Policy(models={"m": ModelPrice("2.5", 1)})
    assert hash(Policy(models={"m": ModelPrice("2.50", 1)})) == hash(Policy(models={"m": ModelPrice("2.5", 1)}))


@pytest.mark.parametrize(("values", "key", "hint"), UNKNOWN)
def test_an_unknown_key_is_named_with_the_nearest_valid_one(values: dict[str, Any], key: str, hint: str) -> None:
    assert refused(values) == f"unknown key in the policy: {key}\nhint: {hint}"


@pytest.mark.parametrize(("values", "message"), SAID)
def test_what_is_said(values: dict[str, Any], message: str) -> None:
    assert refused(values) == message


@pytest.mark.parametrize(("name", "values"), NO_CACHES)
def test_wrong_values_of_the_cache(name: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(PolicyError, match=name):
            Cache(**{name: value})


@pytest.mark.parametrize("values", NO_TABLES)
def test_wrong_tables(values: dict[Any, Any]) -> None:
    assert "in the policy: " in refused(values)


def test_the_dataclasses_refuse_the_same_and_say_where() -> None:
    with pytest.raises(PolicyError, match=r'unknown key in Cache\(\): max_byte\nhint: did you mean "max_bytes"\?'):
        Cache(max_byte=1)  # type: ignore[call-arg]
    with pytest.raises(PolicyError, match=r"in Policy\(\): -5"):
        Policy(cache={"ttl": -5})  # type: ignore[arg-type]
    with pytest.raises(PolicyError, match=r"in ModelPrice\(\): 'x'"):
        ModelPrice("x", 1)


def test_errors_are_openai_errors_and_value_errors_that_travel() -> None:
    with pytest.raises(PolicyError) as caught:
        Cache(ttl=0)
    assert all(isinstance(caught.value, kind) for kind in (FarthingError, openai.OpenAIError, ValueError))
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert explain("what") == "what"


def test_a_long_or_broken_value_does_not_flood_the_message() -> None:
    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError

    assert len(refused({"cache": {"mode": "x" * 10_000}})) < 250
    assert "a value of type Broken" in refused({"strict": Broken()})


# Routing and escalating

TIERS = {"easy": "small", "hard": "large"}
ROUTE: dict[str, Any] = {"models": ["auto"], "tiers": TIERS}
LADDER: dict[str, Any] = {"models": ["auto"], "ladder": ["small", "large"], "thresholds": [0.8]}
BATCH: dict[str, Any] = {"models": ["auto"]}
THREE = {"tiers": {"a": "a", "b": "b", "c": "c"}}
# fmt: off
NO_ROUTES: list[tuple[Any, str, str]] = [
    ({"models": []}, "route.models is empty", 'route.models = ["auto"] names the models'),
    ({"models": 5}, "route.models must be a list of models", ""),
    ({"tiers": {}}, "route.tiers is empty", "from cheap to dear"),
    ({"tiers": ["a"]}, "route.tiers must be a table", ""),
    ({"tiers": {"a": 5}}, "route.tiers.a must be a text", ""),
    ({"default": "hrad"}, "route.default is not among the tiers: hrad", 'did you mean "hard"?'),
    ({"default": "luxury"}, "route.default is not among the tiers: luxury", "tiers are: easy, hard"),
    ({"by": []}, "route.by is empty", 'route.by = "rules"'),
    ({"by": "rule"}, "route.by must be one of rules, learned, llm: 'rule'", 'did you mean "rules"?'),
    ({"by": ["rules", 5]}, "route.by must be one of rules, learned, llm: 5", ""),
    ({"by": {"rules": 1}}, "route.by must be one of rules, learned, llm, a function, or a list of them", ""),
    ({"by": "llm"}, "missing key: route.llm", 'llm = { model = "gpt-4o-mini" }'),
    ({"by": ["rules", "llm"]}, "missing key: route.llm", "needs a model"),
    ({"by": "learned"}, "missing key: route.weights", "farthing calibrate DATA --router"),
    ({"weights": "/nowhere/router.json"}, "route.weights is not there: /nowhere/router.json", "farthing calibrate"),
    ({"weights": __file__}, "route.weights has no weights of a router", "farthing calibrate"),
    ({"confidence": 1.5}, "route.confidence must be a number from 0 to 1: 1.5", ""),
    ({"confidence": None}, "route.confidence must be a number from 0 to 1: None", ""),
    ({"rules": {"thresholds": [0.1, 0.2]}}, "route.rules.thresholds has 2 numbers", "2 tiers need 1"),
    ({**THREE, "rules": {"thresholds": [0.5]}}, "route.rules.thresholds has 1 numbers", "3 tiers need 2"),
    ({**THREE, "rules": {"thresholds": [0.6, 0.3]}}, "route.rules.thresholds must not fall: [0.6, 0.3]",
     "cheap to dear"),
    ({"rules": {"thresholds": [2]}}, "route.rules.thresholds must be a number from 0 to 1: 2", ""),
    ({"rules": {"when": [{"tier": "code", "words": "1"}]}}, "route.rules.when[0].tier is not among the tiers: code",
     "tiers are: easy, hard"),
    ({"rules": {"when": [{"words": "1"}]}}, "missing key: route.rules.when[0].tier", ""),
    ({"rules": {"when": [{"tier": "easy"}]}}, "route.rules.when: no condition for the tier", 'words = "< 20"'),
    ({"rules": {"when": [{"tier": "easy", "word": "1"}]}}, 'route.rules.when: unknown count: "word"', "known are char"),
    ({"rules": {"when": [{"tier": "easy", "words": "few"}]}}, "route.rules.when: words is no condition", '">= 2"'),
    ({"rules": {"when": {"tier": "easy"}}}, "route.rules.when must be a list of tables", "route.rules.when = [{ tier"),
    ({"rules": {"weights": {"lenght": 1}}}, 'route.rules.weights: unknown feature: "lenght"', "known are length"),
    ({"rules": {"weights": {"length": 1e9}}}, "route.rules.weights: length is out of range", "from -1 to 1"),
    ({"rules": {"weights": {"length": "x"}}}, "route.rules.weights.length must be a number: 'x'", ""),
    ({"rules": {"weight": {}}}, "unknown key: route.rules.weight", 'did you mean "route.rules.weights"?'),
    ({"llm": {}}, "missing key: route.llm.model", ""),
    ({"llm": {"model": "m", "labels": {"esay": "x"}}}, "route.llm.labels is not among the tiers: esay", '"easy"?'),
    ({"llm": {"model": "m", "labels": ["easy", "x"]}}, "route.llm.labels is not among the tiers: x", "easy, hard"),
    ({"llm": {"model": "m", "labels": {"easy": 5}}}, "route.llm.labels.easy must say what the tier is for: 5", ""),
    ({"llm": {"model": "m", "examples": [("p", "x")]}}, "route.llm.examples is not among the tiers: x", "easy, hard"),
    ({"llm": {"model": "m", "examples": ["p"]}}, "route.llm.examples must be a list of pairs", ""),
    ({"llm": {"model": "m", "format": "xml"}}, "route.llm.format must be one of auto, letter, schema, text: 'xml'", ""),
    ({"llm": {"model": "m", "head": -1}}, "route.llm.head must be a number of characters", ""),
    ({"llm": {"model": "m", "head": 0, "tail": 0}}, "route.llm.head and route.llm.tail leave nothing of the prompt: 0",
     "route.llm.head = 1500"),
    ({"affinity": "sticky"}, "route.affinity must be one of stay, rise, off: 'sticky'", 'did you mean "stay"?'),
    ({"affinity_ttl": 0}, "route.affinity_ttl must be more than 0 seconds", '"30m"'),
    ({"timeout": "soon"}, "route.timeout must be more than 0 seconds", '"30m"'),
    ({"baseline": 5}, "route.baseline must be a text", ""),
    ({"tier": {}}, "unknown key: route.tier", 'did you mean "route.tiers"?'),
]
NO_LADDERS: list[tuple[Any, str, str]] = [
    ({"models": []}, "escalate.models is empty", 'escalate.models = ["auto"]'),
    ({"ladder": []}, "escalate.ladder must have two rungs or more: []", "from cheap to dear"),
    ({"ladder": ["one"]}, "escalate.ladder must have two rungs or more: ['one']", "from cheap to dear"),
    ({"ladder": ["a", "a"]}, "escalate.ladder names a model twice: a", ""),
    ({"ladder": ["a", "b", "c"], "thresholds": [0.9, 0.8]}, "escalate.thresholds must not fall: [0.9, 0.8]",
     "cheap to dear"),
    ({"ladder": ["a", "b", "c"], "thresholds": [0.9] * 3}, "escalate.thresholds has 3 numbers", "3 rungs need 2"),
    ({"thresholds": []}, "escalate.thresholds has 0 numbers", "2 rungs need 1"),
    ({"thresholds": None}, "missing key: escalate.thresholds", "thresholds = [0.85], or calibration"),
    ({"thresholds": [1.5]}, "escalate.thresholds must be a number from 0 to 1: 1.5", ""),
    ({"thresholds": "high"}, "escalate.thresholds must be a list of numbers", ""),
    ({"scorer": "judge"}, "missing key: escalate.judge", 'judge = { model = "gpt-4o-mini" }'),
    ({"scorer": {"structural": 1, "judge": 2}}, "missing key: escalate.judge", 'scorer = "judge" needs it'),
    ({"scorer": "agreement"}, "missing key: escalate.agreement", "agreement = { models"),
    ({"scorer": []}, "escalate.scorer is empty", 'escalate.scorer = "structural"'),
    ({"scorer": "structurel"}, "escalate.scorer must be one of structural, logprob", 'did you mean "structural"?'),
    ({"scorer": {"structural": 0}}, "escalate.scorer has a weight that is not more than 0: 0", ""),
    ({"scorer": ["structural"] * 2}, "escalate.scorer names a scorer twice: 'structural'", ""),
    ({"judge": {}}, "missing key: escalate.judge.model", ""),
    ({"judge": {"model": "m", "rubric": " "}}, "escalate.judge.rubric must be a text", ""),
    ({"agreement": {}}, "escalate.agreement compares with nothing", "or samples = 2"),
    ({"agreement": {"samples": 99}}, "escalate.agreement.samples must be a whole number from 0 to 32: 99", ""),
    ({"agreement": {"samples": 1, "compare": "same"}}, "escalate.agreement.compare must be one of exact, numeric", ""),
    ({"scorer": "agreement", "agreement": {"models": ["small"]}},
     "escalate.agreement compares a rung with itself alone: small", "or samples = 2"),
    ({"ladder": ["a", "b", "c"], "scorer": ["structural", "agreement"], "agreement": {"models": ["b"]}},
     "escalate.agreement compares a rung with itself alone: b", "another-cheap-model"),
    ({"timeout": 0}, "escalate.timeout must be more than 0 seconds", '"30m"'),
    ({"deadline": -1}, "escalate.deadline must be more than 0 seconds", '"30m"'),
    ({"max_cost": 0}, "escalate.max_cost must be more than 0: 0", ""),
    ({"max_cost": "much"}, "escalate.max_cost must be USD", ""),
    ({"shadow": 2}, "escalate.shadow must be a number from 0 to 1: 2", ""),
    ({"labels": "all"}, "escalate.labels must be one of features, text, off: 'all'", ""),
    ({"baseline": ""}, "escalate.baseline must be a text", ""),
    ({"rungs": []}, "unknown key: escalate.rungs", "valid here: models, ladder, thresholds"),
]
NO_BATCHES: list[tuple[Any, str, str]] = [
    ({"models": []}, "batch.models is empty", 'batch.models = ["auto"]'),
    ({"models": ["a", "a"]}, "batch.models names a model twice: a", ""),
    ({"models": 5}, "batch.models must be a list of models and aliases: 5", ""),
    ({"window_ms": -1}, "batch.window_ms must be milliseconds, a whole number from 0 to 60000: -1", "0 joins no calls"),
    ({"window_ms": 60_001}, "batch.window_ms must be milliseconds, a whole number from 0 to 60000: 60001", ""),
    ({"window_ms": 0.02}, "batch.window_ms must be milliseconds, a whole number from 0 to 60000: 0.02", "= 20"),
    ({"window_ms": "20ms"}, "batch.window_ms must be milliseconds, a whole number from 0 to 60000: '20ms'", "= 20"),
    ({"window_ms": True}, "batch.window_ms must be milliseconds, a whole number from 0 to 60000: True", ""),
    ({"max_items": 1}, "batch.max_items must be a whole number from 2 to 1000: 1", "batch = false packs nothing"),
    ({"max_items": 1001}, "batch.max_items must be a whole number from 2 to 1000: 1001", "batch.max_items = 10"),
    ({"max_items": [2]}, "batch.max_items must be a whole number from 2 to 1000: [2]", "batch.max_items = 10"),
    ({"max_prompt_tokens": 0}, "batch.max_prompt_tokens must be a number of tokens, from 1 to 1000000000: 0", ""),
    ({"max_answer_tokens": 1.5}, "batch.max_answer_tokens must be a number of tokens, from 1 to 1000000000: 1.5", ""),
    ({"format": "jsn"}, "batch.format must be one of auto, json, lines: 'jsn'", 'did you mean "json"?'),
    ({"vote": 2}, "batch.vote must be an odd number from 1 to 9: 2", "batch.vote = 3 asks three times"),
    ({"vote": 0}, "batch.vote must be an odd number from 1 to 9: 0", "1 asks once"),
    ({"vote": 11}, "batch.vote must be an odd number from 1 to 9: 11", ""),
    ({"vote": True}, "batch.vote must be an odd number from 1 to 9: True", ""),
    ({"check": 1.01}, "batch.check must be a number from 0 to 1: 1.01", ""),
    ({"check": "some"}, "batch.check must be a number from 0 to 1: 'some'", ""),
    ({"always": "yes"}, "batch.always must be true or false: 'yes'", ""),
    ({"window": 20}, "unknown key: batch.window", 'did you mean "batch.window_ms"?'),
    ({"max_tokens": 20}, "unknown key: batch.max_tokens", 'did you mean "batch.max_'),
]
# fmt: on


@pytest.mark.parametrize(("values", "what", "hint"), NO_ROUTES)
def test_wrong_routes(values: dict[str, Any], what: str, hint: str) -> None:
    said, _, hinted = refused({"route": {**ROUTE, **values}}).partition("\nhint: ")
    assert " in the policy" in said and said.replace(" in the policy", "").startswith(what) and hint in hinted


@pytest.mark.parametrize(("values", "what", "hint"), NO_LADDERS)
def test_wrong_ladders(values: dict[str, Any], what: str, hint: str) -> None:
    said, _, hinted = refused({"escalate": {**LADDER, **values}}).partition("\nhint: ")
    assert " in the policy" in said and said.replace(" in the policy", "").startswith(what) and hint in hinted


@pytest.mark.parametrize(("values", "what", "hint"), NO_BATCHES)
def test_wrong_batches(values: dict[str, Any], what: str, hint: str) -> None:
    said, _, hinted = refused({"batch": {**BATCH, **values}}).partition("\nhint: ")
    assert " in the policy" in said and said.replace(" in the policy", "").startswith(what) and hint in hinted


@pytest.mark.parametrize(
    ("part", "name"), [("route", "models"), ("route", "tiers"), ("escalate", "ladder"), ("batch", "models")]
)
def test_what_a_stage_cannot_do_without(part: str, name: str) -> None:
    whole = {"route": ROUTE, "escalate": LADDER, "batch": BATCH}[part]
    assert refused({part: {key: value for key, value in whole.items() if key != name}}) == (
        f"missing key in the policy: {part}.{name}"
    )
    assert refused({part: 5}).startswith(f"{part} must be a table (in Python a {part.title()} or a dict)")


def test_the_stages_alone_say_where_too() -> None:
    with pytest.raises(
        PolicyError, match=r"^default is not among the tiers in Route\(\): x\nhint: tiers are: easy, hard"
    ):
        Route(models="auto", tiers=TIERS, default="x")
    with pytest.raises(PolicyError, match=r"^rules.thresholds has 3 numbers in Route\(\)"):
        Route(models="auto", tiers=TIERS, rules=Rules(thresholds=[0, 0, 0]))
    with pytest.raises(PolicyError, match=r"^ladder must have two rungs or more in Escalate\(\)"):
        Escalate(models="auto", ladder=[], thresholds=0.5)
    with pytest.raises(PolicyError, match=r"^vote must be an odd number from 1 to 9 in Batch\(\): 4\nhint: vote = 3"):
        Batch(models="auto", vote=4)
    with pytest.raises(PolicyError, match=r"^missing key in the policy: escalate.thresholds"):
        Policy.from_dict({"escalate": {"models": "auto", "ladder": ["a", "b"]}})


@pytest.mark.parametrize("off", [None, False])
def test_no_stages(off: Any, toml: Any) -> None:
    assert Policy.from_dict({"route": off, "escalate": off, "batch": off}) == Policy()
    assert Policy.from_toml(toml("route = false\nescalate = false\nbatch = false")) == Policy()


def test_python_dict_and_toml_say_the_same_of_the_stages(toml: Any) -> None:
    built = Policy(
        models={"small": ModelPrice(context=8000, can="images", cannot=["tools", "json_schema"])},
        route=Route(
            models="auto",
            tiers=TIERS,
            by=["rules", "llm"],
            rules={"when": [{"tier": "hard", "code_fences": ">= 1"}], "thresholds": [0.5]},
            llm={"model": "small", "labels": ["easy"], "examples": {"2 + 2?": "easy"}},
            affinity_ttl="1h",
        ),
        escalate=Escalate(models=["auto"], ladder=["small", "large"], thresholds=0.8, max_cost="0.10", labels=False),
        batch=Batch(models="auto", window_ms=0, max_items=25, vote=3, check=0.05, format="lines"),
    )
    path = toml(
        """
        [models.small]
        context = 8000
        can = ["images"]
        cannot = ["json_schema", "tools"]
        [route]
        models = ["auto"]
        tiers = { easy = "small", hard = "large" }
        by = ["rules", "llm"]
        rules = { when = [{ tier = "hard", code_fences = ">= 1" }], thresholds = [0.5] }
        llm = { model = "small", labels = { easy = "" }, examples = [["2 + 2?", "easy"]] }
        affinity_ttl = 3600
        [escalate]
        models = ["auto"]
        ladder = ["small", "large"]
        thresholds = [0.8]
        max_cost = 0.10
        labels = "off"
        [batch]
        models = ["auto"]
        window_ms = 0
        max_items = 25
        vote = 3
        check = 0.05
        format = "lines"
        """
    )
    assert Policy.from_toml(path) == built and Policy.from_toml(path).to_core() == built.to_core()
    assert pickle.loads(pickle.dumps(built)) == built and hash(built) == hash(Policy.from_toml(path))
    assert Policy.from_dict(built.to_show()).to_core() == built.to_core()


def test_what_the_core_is_told_of_batches() -> None:
    built = Policy(batch=Batch(models=["auto", "gpt-4o"]))
    assert json.loads(built.to_core())["batch"] == {
        "models": ["auto", "gpt-4o"],
        "window_ms": 20,
        "max_items": 10,
        "max_prompt_tokens": 8000,
        "max_answer_tokens": 4000,
        "format": "auto",
        "vote": 1,
        "check": 0.0,
        "always": False,
    }
    assert Policy.from_dict(json.loads(built.to_core())) == built


def test_what_is_asked_otherwise_has_other_answers() -> None:
    """Which calls wait, how long, and what is measured, makes no other answers."""
    plain = Batch(models="auto")
    same = [Batch(models=["auto", "b"]), Batch(models="auto", window_ms=0), Batch(models="auto", check=0.5)]
    assert {batch.salt() for batch in same} == {plain.salt()}
    more = [{"max_items": 2}, {"max_prompt_tokens": 9}, {"max_answer_tokens": 9}, {"format": "json"}, {"vote": 3}]
    other = [Batch(models="auto", **values) for values in (*more, {"always": True})]  # type: ignore[arg-type]
    assert len({batch.salt() for batch in (plain, *other)}) == 7


def test_tiers_keep_their_order() -> None:
    """From cheap to dear: another order is another policy."""
    one, other = (Policy(route=Route(models="auto", tiers=tiers)) for tiers in (TIERS, dict(reversed(TIERS.items()))))
    assert one.to_core() != other.to_core()


@pytest.mark.parametrize("name", ["can", "cannot"])
def test_what_models_are_able_to_do(name: str) -> None:
    assert getattr(ModelPrice(**{name: ["tools", "images"]}), name) == ("images", "tools")
    with pytest.raises(PolicyError, match=rf"{name} must be one of images, audio, .*\n?.*did you mean \"images\""):
        ModelPrice(**{name: ["image"]})
    with pytest.raises(PolicyError, match=r"can and cannot say the same in ModelPrice\(\): tools"):
        ModelPrice(can=["tools"], cannot=["tools"])
    assert "models.m.context must be" in refused({"models": {"m": {"context": 0}}})


# Files and the environment


@pytest.mark.parametrize(("text", "message"), BROKEN)
def test_a_broken_file(toml: Any, text: str | bytes, message: str) -> None:
    with pytest.raises(PolicyError) as caught:
        Policy.from_toml(toml(text))
    assert str(caught.value).startswith(message)


def test_a_syntax_error_names_the_line(toml: Any) -> None:
    with pytest.raises(PolicyError, match="line 2"):
        Policy.from_toml(toml("strict = true\n[cache\n"))


def test_a_file_with_a_byte_order_mark_is_read(toml: Any) -> None:
    assert Policy.from_toml(toml(b"\xef\xbb\xbfstrict = true\r\n")).strict


@pytest.mark.parametrize("path", ["missing.toml", ".", "a\0b"])
def test_a_file_that_cannot_be_read(toml: Any, path: str) -> None:
    toml("")
    with pytest.raises(PolicyError, match="cannot read the policy"):
        Policy.from_toml(path)


def test_resolve(toml: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = toml("strict = true")
    strict = Policy(strict=True)
    assert Policy.resolve(strict) is strict
    assert Policy.resolve(path) == Policy.resolve(Path(path)) == Policy.resolve({"strict": True}) == strict
    assert Policy.resolve(None) == Policy()
    monkeypatch.setenv("FARTHING_POLICY", "")
    assert Policy.resolve(None) == Policy()
    monkeypatch.setenv("FARTHING_POLICY", path)
    assert Policy.resolve(None) == strict
    with pytest.raises(PolicyError, match="policy must be a Policy, a path, a dict or None: 5"):
        Policy.resolve(5)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", [None, "strict = 1", "strict ="])
def test_an_error_says_that_the_environment_named_the_file(
    toml: Any, monkeypatch: pytest.MonkeyPatch, text: str | None
) -> None:
    monkeypatch.setenv("FARTHING_POLICY", "gone.toml" if text is None else toml(text))
    with pytest.raises(PolicyError, match=r"\.toml \(named by FARTHING_POLICY\)"):
        Policy.resolve(None)


# A policy is a value

PRICE = st.decimals(0, 1000, places=4) | st.integers(0, 1000) | st.integers(0, 4000).map(lambda i: i / 4)
NAME = st.text("aZ0-._/: \"'\\é漢🙂", min_size=1, max_size=20)
POLICY = st.fixed_dictionaries(
    {},
    optional={
        "cache": st.none()
        | st.fixed_dictionaries(
            {},
            optional={
                "max_bytes": st.integers(1, 2**63 - 1),
                "ttl": st.none() | st.floats(0, 1e9, exclude_min=True),
                "mode": st.sampled_from(["on", "off", "read_only", "write_only", "refresh"]),
                "deterministic_only": st.booleans(),
                "scope": st.none() | NAME,
                "ignore_headers": st.lists(st.from_regex(r"[xX]-[A-Za-z0-9-]{1,9}", fullmatch=True)),
                "name": st.none() | NAME,
            },
        ),
        "models": st.dictionaries(
            NAME, st.fixed_dictionaries({"input": PRICE, "output": PRICE}, optional={"cache_write": st.none() | PRICE})
        ),
        "aliases": st.dictionaries(NAME.map(lambda n: "a:" + n), NAME.map(lambda n: "m:" + n)),
        "strict": st.booleans(),
    },
)


@given(POLICY)
def test_what_the_core_reads_makes_the_same_policy_again(values: dict[str, Any]) -> None:
    policy = Policy.from_dict(values)
    again = Policy.from_dict(json.loads(policy.to_core()))
    assert again == policy and hash(again) == hash(policy) and again.to_core() == policy.to_core()
    for twin in (pickle.loads(pickle.dumps(policy)), copy.deepcopy(policy), dataclasses.replace(policy)):
        assert twin == policy and hash(twin) == hash(policy)


@given(st.sampled_from([f.name for f in dataclasses.fields(Cache)]), st.data())
def test_a_name_with_one_slip_is_recognised(name: str, data: st.DataObject) -> None:
    i = data.draw(st.integers(0, len(name) - 1))
    slip = data.draw(st.sampled_from([name[:i] + name[i + 1 :], name[:i] + "x" + name[i:], name.upper()]))
    guess = nearest(slip, [f.name for f in dataclasses.fields(Cache)])
    assert guess == name


@given(st.text(), st.lists(st.text(), min_size=1))
def test_the_nearest_name_is_always_a_valid_one(name: str, valid: list[str]) -> None:
    assert nearest(name, valid) in [None, *valid]


def test_order_does_not_make_another_policy() -> None:
    one = Policy(aliases={"a": "m", "b": "m"}, cache=Cache(ignore_headers=["x-1", "x-2"]))
    two = Policy(aliases={"b": "m", "a": "m"}, cache=Cache(ignore_headers=["X-2", "x-1"]))
    assert one == two and hash(one) == hash(two) and len({one, two}) == 1


def test_a_policy_cannot_be_changed_also_not_through_what_it_was_made_of() -> None:
    aliases = {"a": "m"}
    policy = Policy(aliases=aliases)
    aliases["a"] = "other"
    assert policy.aliases == {"a": "m"}
    with pytest.raises(TypeError):
        policy.aliases["a"] = "other"  # type: ignore[index]
    with pytest.raises(dataclasses.FrozenInstanceError):
        policy.strict = True  # type: ignore[misc]


@pytest.mark.parametrize(("part", "home"), [(Cache, room), (ModelPrice, room), (Batch, batch_policy)])
def test_the_signature_shown_to_type_checkers_is_the_real_one(part: type[Any], home: Any) -> None:
    tree = ast.parse(Path(home.__file__).read_text(encoding="utf-8"))
    body = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == part.__name__).body
    args = next(f for i in body if isinstance(i, ast.If) for f in i.body if isinstance(f, ast.FunctionDef)).args
    assert [a.arg for a in args.args[1:] + args.kwonlyargs] == [f.name for f in dataclasses.fields(part)]


def test_importing_it_loads_nothing_that_only_files_and_errors_need() -> None:
    root = str(Path(room.__file__).parent.parent)
    code = (
        "import openai, sys; before = set(sys.modules); import farthing.policy;"
        "print(sorted({'tomllib', 'tomli', 'difflib'} & (set(sys.modules) - before)))"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
