#!/usr/bin/env python3
"""Writes src/ledger/prices.json from two public price lists, genai-prices and litellm.

    python3 scripts/build_prices.py FOLDER_WITH_THE_TWO_FILES [OUTPUT]

What it stands for: a price that is left out costs a user one line of configuration, a wrong one costs trust. So a model
is taken by its exact id only, with whole prices only, and left out where a price by the token would not be the bill.
Where the two lists disagree, genai-prices is preferred, as it dates its prices; every disagreement is printed.

Prices are whole numbers of 1e-12 USD a token, so nothing is rounded anywhere.
"""

import collections
import dataclasses
import datetime
import decimal
import gzip
import json
import pathlib
import re
import sys

GENAI = "genai_prices.jsonl.gz"
LITELLM = "litellm_model_prices.json.gz"


@dataclasses.dataclass(frozen=True)
class Provider:
    genai: str | None = None
    #: The prefixes of litellm's keys, without the slash; "" = keys that have none.
    litellm: tuple[str, ...] = ()
    #: litellm's names for the provider of such keys.
    litellm_names: tuple[str, ...] = ()
    #: The provider's own long form of an id; the crate strips it too (src/ledger/price/hosts.rs).
    id_prefix: str = ""
    #: Ids that the provider's OpenAI-compatible API can answer with.
    ids: str = r".*"


# One for each provider of src/ledger/price/hosts.rs. Left out: providers that bill in another currency (zhipuai,
# moonshot in China), in units of their own (cloudflare), or whose price the URL does not tell (huggingface, vertex).
PROVIDERS = {
    "anthropic": Provider("anthropic", ("",), ("anthropic",)),
    # Regional deployments ("azure/eu/...") cost more; the URL does not tell them apart, so only plain ids are taken.
    "azure": Provider("azure", ("azure", "azure_ai"), ("azure", "azure_ai"), ids=r"[^/]*"),
    "cerebras": Provider("cerebras", ("cerebras",), ("cerebras",)),
    "cohere": Provider("cohere", ("", "cohere"), ("cohere", "cohere_chat")),
    "deepinfra": Provider(None, ("deepinfra",), ("deepinfra",)),
    "deepseek": Provider("deepseek", ("", "deepseek"), ("deepseek",)),
    "fireworks": Provider(
        "fireworks",
        ("fireworks_ai",),
        ("fireworks_ai", "fireworks_ai-embedding-models"),
        id_prefix="accounts/fireworks/models/",
    ),
    # genai's "google" also holds what Vertex serves, from another host.
    "google": Provider("google", ("gemini",), ("gemini",), id_prefix="models/", ids=r"(gemini|gemma)-.*"),
    "groq": Provider("groq", ("groq",), ("groq",)),
    "hyperbolic": Provider(None, ("hyperbolic",), ("hyperbolic",)),
    "minimax": Provider("minimax", ("minimax",), ("minimax",)),
    "mistral": Provider("mistral", ("mistral",), ("mistral",)),
    "moonshotai": Provider("moonshotai", ("moonshot",), ("moonshot",)),
    "nebius": Provider(None, ("nebius",), ("nebius",)),
    "novita": Provider("novita", ("novita",), ("novita",)),
    "openai": Provider("openai", ("",), ("openai", "text-completion-openai"), ids=r"[^/]*"),
    "openrouter": Provider("openrouter"),
    # Its own models bill each request on top of the tokens; those of others are passed on by a name with a slash.
    "perplexity": Provider("perplexity", ("perplexity",), ("perplexity",), ids=r".+/.+"),
    "sambanova": Provider(None, ("sambanova",), ("sambanova",)),
    "together": Provider("together", ("together_ai",), ("together_ai",)),
    "x-ai": Provider("x-ai", ("xai",), ("xai",)),
    "zai": Provider("zai", ("zai",), ("zai",)),
}

MODES = {"chat", "responses", "completion", "embedding"}

# Billed by the search, the picture, the second or the page as well, or over another API; usage does not say how much.
NOT_BY_TOKEN = re.compile(
    r"image|tts|transcri|realtime|whisper|voice|speech|orpheus|(?<!re)search|sonar|online|deep-research|"
    r"mistral-ocr|moderation|rerank|decider|veo-|lyria|banana|gemini-omni|\blive\b|preset/|routers/auto|firerouter"
)
# genai's ids that stand for a family, not for a model.
PATTERN_ID = re.compile(r"[*]|-$|\.ft-|^ft:gpt-4o(-mini)?$")

# Disagreements where neither list can be right: DeepSeek gave up genai's hours in September 2025 and retired litellm's
# names in July 2026; what such a request is billed today depends on the model that it is passed to.
LEFT_OUT = {"deepseek/deepseek-chat", "deepseek/deepseek-reasoner", "deepseek/deepseek-v3.2"}

FIELDS = {
    "input_cost_per_token": 0,
    "output_cost_per_token": 1,
    "cache_read_input_token_cost": 2,
    "cache_creation_input_token_cost": 3,
    "input_cost_per_audio_token": 4,
    "output_cost_per_audio_token": 5,
}
COLUMNS = ("input", "output", "cached", "cache_write", "audio_input", "audio_output")
SERVICE_TIERS = {"_batches": "batch", "_flex": "flex", "_priority": "priority"}
LITELLM_PRICE = re.compile("(" + "|".join(FIELDS) + r")(?:_above_(\d+)k_tokens)?(" + "|".join(SERVICE_TIERS) + ")?")
# Prices of parts that usage does not count apart: fine only when they are the price of the whole.
SAME_AS = {
    "input_cost_per_image_token": "input_cost_per_token",
    "input_cost_per_video_token": "input_cost_per_token",
    "output_cost_per_reasoning_token": "output_cost_per_token",
    "output_cost_per_image_token": "output_cost_per_token",
    "output_cost_per_video_token": "output_cost_per_token",
}
NEVER = (
    "input_cost_per_request",
    "input_cost_per_query",
    "input_cost_per_image",
    "citation_cost_per_token",
    "output_cost_per_image",
    "tiered_pricing",
    "input_cost_per_character",
    "output_cost_per_second",
    "input_cost_per_second",
)

#: 1000 USD per million tokens: more than anyone asks.
MOST = 10**9

counts = collections.Counter()


class Unusable(Exception):
    """A price that cannot be taken as it stands; the text is what to count it as."""


def whole(price, million=False):
    """1e-12 USD a token. Both lists went through floats, so 15 digits are read as 12."""
    if price is None:
        return None
    price = decimal.Context(prec=12).create_decimal(price)
    units = price.scaleb(6 if million else 12)
    if units != units.to_integral_value():
        raise Unusable("not a whole number of 1e-12 USD")
    if units < 0:
        raise Unusable("negative")
    return int(units)


class Sheet:
    """What one period or service tier charges: `rates` for small prompts, `above` for those past a threshold."""

    def __init__(self, rates, above):
        self.rates = list(rates)
        self.above = {tokens: list(rates) for tokens, rates in above.items()}

    def all(self):
        return [self.rates, *self.above.values()]

    def clean(self):
        for rates in self.all():
            # litellm's 0 for "no extra charge", and its slips that put a read price there: a write is never cheaper
            # than the input that is written.
            if rates[3] is not None and (rates[0] is None or rates[3] < rates[0]):
                rates[3] = None
            # Answers, reads and speech for nothing are gaps in the list (an embedding has no answer to bill).
            for column in (1, 2, 4, 5):
                rates[column] = rates[column] or None
        base = self.rates
        if not base[0]:
            raise Unusable("no price, or 0")
        for rates in self.above.values():
            if not rates[0]:
                raise Unusable("a threshold without an input price")
            if base[1] and rates[1] is None:
                raise Unusable("a threshold without an output price")
        for rates in self.all():
            # Slips by a factor of a thousand, and columns that were swapped.
            if rates[0] > MOST or (rates[1] or rates[0]) < rates[0] or (rates[2] or 0) > rates[0]:
                raise Unusable("implausible")
        return self

    def aligned(self, other):
        """Itself, at the thresholds of `other`: "from 200,000" is 199,999 in the one list, "above 200k" in another."""

        def rename(tokens):
            return tokens - 1 if tokens not in other.above and tokens - 1 in other.above else tokens

        return Sheet(self.rates, {rename(tokens): rates for tokens, rates in self.above.items()})

    def agrees(self, other):
        """True when no number that both state differs."""
        if self.above.keys() != other.above.keys():
            return False
        pairs = zip(self.all(), [other.rates, *(other.above[tokens] for tokens in self.above)], strict=True)
        return all(
            a == b or a is None or b is None for mine, theirs in pairs for a, b in zip(mine, theirs, strict=True)
        )

    def filled(self, other):
        def fill(mine, theirs):
            return [a if a is not None else b for a, b in zip(mine, theirs, strict=True)]

        above = {tokens: fill(rates, other.above[tokens]) for tokens, rates in self.above.items()}
        return Sheet(fill(self.rates, other.rates), above)

    def json(self):
        def trim(rates):
            rates = list(rates)
            while rates and rates[-1] is None:
                rates.pop()
            return rates

        form = {"base": trim(self.rates)}
        if self.above:
            form["above"] = [[tokens, trim(rates)] for tokens, rates in sorted(self.above.items())]
        return form


@dataclasses.dataclass
class Period:
    """The last period that is active is the one that counts, as in genai-prices."""

    sheet: Sheet | None
    #: Unix seconds.
    start: int | None = None
    #: Minutes of the day, UTC: from, until.
    hours: tuple[tuple[int, int], ...] = ()
    #: 1 = Monday.
    days: tuple[int, ...] = ()
    tiers: dict[str, Sheet] = dataclasses.field(default_factory=dict)

    def json(self):
        form = {}
        if self.start is not None:
            form["from"] = self.start
        if self.days:
            form["days"] = list(self.days)
        if self.hours:
            form["hours"] = [list(span) for span in self.hours]
        form |= self.sheet.json() if self.sheet else {"base": []}
        for name, sheet in sorted(self.tiers.items()):
            form[name] = sheet.json()
        return form


# --- genai-prices -----------------------------------------------------------------------------------------------


def genai_constraint(text):
    if text is None:
        return {}
    if found := re.fullmatch(r"StartDateConstraint\(start_date=datetime\.date\((\d+), (\d+), (\d+)\)\)", text):
        date = datetime.datetime(*map(int, found.groups()), tzinfo=datetime.timezone.utc)
        return {"start": int(date.timestamp())}
    time = r"datetime\.time\((\d+), (\d+), tzinfo=datetime\.timezone\.utc\)"
    if found := re.fullmatch(rf"TimeOfDateConstraint\(start_time={time}, end_time={time}\)", text):
        a, b, c, d = map(int, found.groups())
        return {"hours": ((60 * a + b, 60 * c + d),)}
    raise Unusable("a constraint of another kind")


def genai_sheet(row):
    columns = [row[name] for name in ("input_mtok", "output_mtok", "cache_read_mtok", "cache_write_mtok")]
    if columns[0] is None and columns[1] is None:
        return None
    tiered = [column for column in columns if isinstance(column, dict)]
    thresholds = {tokens for column in tiered for tokens, _ in column["tiers"]}

    def rate(column, tokens):
        if isinstance(column, dict):
            price = column["base"]
            for start, tier in sorted(column["tiers"]):
                if start <= tokens:
                    price = tier
        else:
            price = column
        return whole(price, million=True)

    def rates(tokens):
        return [*(rate(column, tokens) for column in columns), None, None]

    return Sheet(rates(0), {tokens: rates(tokens) for tokens in thresholds}).clean()


def genai_periods(rows):
    periods = []
    for row in rows:
        period = Period(genai_sheet(row), **genai_constraint(row["constraint"]))
        last = periods[-1] if periods else None
        if last and last.hours and period.hours and last.sheet.json() == period.sheet.json():
            last.hours = tuple(sorted(last.hours + period.hours))
        else:
            periods.append(period)
    if not any(period.sheet for period in periods):
        raise Unusable("no price, or 0")
    return periods


# --- litellm ----------------------------------------------------------------------------------------------------


def litellm_sheets(entry):
    """The sheet of each service tier, "" being the base."""
    found = collections.defaultdict(lambda: collections.defaultdict(lambda: [None] * len(COLUMNS)))
    for name, price in entry.items():
        if match := LITELLM_PRICE.fullmatch(name):
            field, thousands, tier = match.groups()
            tier = SERVICE_TIERS[tier] if tier else ""
            tokens = int(thousands) * 1000 if thousands else 0
            found[tier][tokens][FIELDS[field]] = whole(price)
    sheets = {}
    for tier, by_threshold in found.items():
        try:
            sheets[tier] = Sheet(by_threshold.pop(0, [None] * len(COLUMNS)), by_threshold).clean()
        except Unusable:
            if not tier:
                raise
            counts["litellm: service tiers left out, incomplete"] += 1
    if "" not in sheets:
        raise Unusable("no price, or 0")
    base = sheets[""]
    for tier, sheet in list(sheets.items()):
        # A tier must price whatever the base prices; one without a threshold of the base knows nothing above it.
        if tier and base.rates[1] and not sheet.rates[1]:
            del sheets[tier]
            counts["litellm: service tiers left out, incomplete"] += 1
        elif tier:
            for tokens in base.above.keys() - sheet.above.keys():
                sheet.above[tokens] = [None] * len(COLUMNS)
    return sheets


def litellm_peak(entry):
    """Off-peak pricing as periods: off-peak always, and the peak in its hours of weekdays."""
    off = dict(entry["off_peak_pricing"])
    windows = {}
    for window in off.pop("windows"):
        spans = window["hours_utc"]
        for day in window["weekdays"]:
            windows.setdefault(day, []).extend([spans] if isinstance(spans, str) else spans)
    if off.pop("weekday_timezone", "UTC") != "UTC" or sorted(windows) != list(range(1, 8)):
        raise Unusable("off-peak hours of another form")

    def peak(spans):
        open_minutes = [True] * 1440
        for span in spans:
            start, end = (60 * int(hour) + int(minute) for hour, minute in (t.split(":") for t in span.split("-")))
            open_minutes[start : end or 1440] = [False] * ((end or 1440) - start)
        edges = [
            minute
            for minute in range(1441)
            if (minute < 1440 and open_minutes[minute]) != (minute > 0 and open_minutes[minute - 1])
        ]
        return tuple(zip(edges[::2], edges[1::2], strict=True))

    peaks = {day: peak(spans) for day, spans in windows.items()}
    hours = set(filter(None, peaks.values()))
    if len(hours) != 1:
        raise Unusable("off-peak hours of another form")
    days = tuple(day for day in sorted(peaks) if peaks[day])
    sheets = litellm_sheets(entry)
    cheap = litellm_sheets(off)
    return [Period(cheap[""]), Period(sheets[""], hours=hours.pop(), days=() if len(days) == 7 else days)]


def litellm_periods(name, entry):
    if entry.get("mode") not in MODES or NOT_BY_TOKEN.search(name):
        raise Unusable("not billed by the token alone")
    if any(entry.get(field) for field in NEVER):
        raise Unusable("not billed by the token alone")
    if any(entry.get(part) and entry[part] != entry.get(of) for part, of in SAME_AS.items()):
        raise Unusable("not billed by the token alone")
    if "off_peak_pricing" in entry:
        return litellm_peak(entry)
    sheets = litellm_sheets(entry)
    return [Period(sheets.pop(""), tiers=sheets)]


# --- both -------------------------------------------------------------------------------------------------------


def short_id(provider, name):
    name = name.lower().removeprefix(provider.id_prefix)
    return name if re.fullmatch(provider.ids, name) and name.isascii() and not set(name) & set('"\\') else None


def read_genai(path, problems):
    rows = collections.defaultdict(lambda: collections.defaultdict(list))
    for line in gzip.decompress(path.read_bytes()).splitlines():
        row = json.loads(line, parse_float=decimal.Decimal)
        counts["genai: rows read"] += 1
        rows[row["provider"]][row["model"]].append(row)
    models = {}
    for key, provider in PROVIDERS.items():
        for name, variants in rows.get(provider.genai, {}).items():
            model = short_id(provider, name)
            try:
                if model is None or PATTERN_ID.search(name):
                    raise Unusable("not an id of this API")
                if NOT_BY_TOKEN.search(model):
                    raise Unusable("not billed by the token alone")
                add(models, (key, model), genai_periods(variants), "genai", problems)
            except Unusable as reason:
                counts[f"genai: models left out, {reason}"] += 1
    return models


def read_litellm(path, problems):
    entries = json.loads(gzip.decompress(path.read_bytes()), parse_float=decimal.Decimal)
    counts["litellm: entries read"] = len(entries)
    models, excluded = {}, set()
    for key, provider in PROVIDERS.items():
        for name, entry in entries.items():
            if entry.get("litellm_provider") not in provider.litellm_names:
                continue
            prefix = next((p for p in provider.litellm if p and name.startswith(p + "/")), "")
            model = short_id(provider, name.removeprefix(prefix + "/") if prefix else name)
            try:
                # Without a prefix, "together-ai-4.1b-8b" and the like are classes of models.
                if model is None or prefix not in provider.litellm:
                    raise Unusable("not an id of this API")
                try:
                    periods = litellm_periods(model, entry)
                except Unusable as reason:
                    if str(reason) == "not billed by the token alone":
                        excluded.add((key, model))
                    raise
                add(models, (key, model), periods, "litellm", problems)
            except Unusable as reason:
                counts[f"litellm: entries left out, {reason}"] += 1
    return models, excluded


def read_limits(path, models):
    """The most tokens that an answer may have, of the models that have a price. genai-prices has no such column."""
    entries = json.loads(gzip.decompress(path.read_bytes()), parse_float=decimal.Decimal)
    limits = {}
    for key, provider in PROVIDERS.items():
        for name, entry in entries.items():
            if entry.get("litellm_provider") not in provider.litellm_names:
                continue
            prefix = next((p for p in provider.litellm if p and name.startswith(p + "/")), "")
            model = short_id(provider, name.removeprefix(prefix + "/") if prefix else name)
            most = entry.get("max_output_tokens")
            if (key, model) in models and prefix in provider.litellm and isinstance(most, int) and most > 0:
                # Two entries for one model: a bound must hold for both.
                limits[key, model] = max(most, limits.get((key, model), 0))
    counts["limits written"] = len(limits)
    return limits


def as_json(periods):
    return [period.json() for period in periods]


def add(models, key, periods, source, problems):
    """Two rows of one list for one model: what they agree on. None = they disagree on the base."""
    if key not in models:
        models[key] = periods
    elif models[key] is not None and as_json(models[key]) != as_json(periods):
        mine, other = models[key][0], periods[0]
        if len(models[key]) == len(periods) == 1 and mine.sheet.agrees(other.sheet):
            mine.sheet = mine.sheet.filled(other.sheet)
            for tier, sheet in other.tiers.items():
                if tier not in mine.tiers:
                    mine.tiers[tier] = sheet
                elif mine.tiers[tier].json() != sheet.json():
                    del mine.tiers[tier]
                    problems.append(f"{source} twice, tier {tier} left out: {'/'.join(key)}")
        else:
            models[key] = None
            problems.append(f"{source} twice, left out: {'/'.join(key)}")


def merge(genai, litellm, now, name, problems):
    """genai's periods, with what only litellm knows where the two agree on the rest."""
    current = next((p for p in reversed(genai) if not p.hours and (p.start is None or p.start <= now)), None)
    if current and current.sheet and len(litellm) == 2:
        (off, peak), mine = litellm, genai[-1]
        if mine.hours == peak.hours and mine.sheet.agrees(peak.sheet) and current.sheet.agrees(off.sheet):
            # Only litellm knows the weekdays.
            mine.days = peak.days
            return genai
    elif current and current.sheet and not any(p.hours for p in genai):
        other = litellm[0].sheet.aligned(current.sheet)
        if current.sheet.agrees(other):
            current.tiers = {tier: sheet.aligned(current.sheet) for tier, sheet in litellm[0].tiers.items()}
            current.sheet = current.sheet.filled(other)
            return genai
    problems.append(f"disagree, {name}: genai {as_json(genai)} litellm {as_json(litellm)}")
    return None if name in LEFT_OUT else genai


def follow(periods, others, now):
    """A model of litellm alone may be one of genai's by another name: unknown from the day such a price changes."""
    starts = [
        p.start
        for other in others
        for p in other
        if p.start and p.start > now
        if any(q.sheet and q.sheet.rates[:2] == periods[0].sheet.rates[:2] for q in other)
    ]
    return periods + ([Period(None, start=min(starts))] if starts and len(periods) == 1 else [])


def gzip_date(path):
    """The lists carry no date of their own; the archive has that of its making."""
    seconds = int.from_bytes(path.read_bytes()[4:8], "little")
    if not seconds:
        sys.exit(f"{path.name}: no date in the gzip header")
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).date().isoformat(), seconds


def main():
    folder = pathlib.Path(sys.argv[1])
    root = pathlib.Path(__file__).resolve().parent.parent
    output = pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else root / "src/ledger/prices.json"
    genai_date, now = gzip_date(folder / GENAI)
    litellm_date, _ = gzip_date(folder / LITELLM)
    problems = []
    genai = read_genai(folder / GENAI, problems)
    litellm, excluded = read_litellm(folder / LITELLM, problems)
    models = {}
    for key in sorted(genai.keys() | litellm.keys()):
        name = "/".join(key)
        mine, theirs = genai.get(key), litellm.get(key)
        if (key in genai and mine is None) or (key in litellm and theirs is None):
            counts["left out, one list states it twice"] += 1
        elif key in excluded:
            counts["left out, litellm bills it by more than tokens"] += 1
        elif mine and theirs:
            counts["in both lists"] += 1
            if merged := merge(mine, theirs, now, name, problems):
                models[key] = merged
        elif mine:
            counts["in genai only"] += 1
            models[key] = mine
        elif key[1].endswith("latest"):
            # It moves to another model, at a price of its own, and litellm dates nothing.
            counts["left out, an alias that only litellm has"] += 1
        else:
            counts["in litellm only"] += 1
            models[key] = follow(theirs, [p for (owner, _), p in genai.items() if owner == key[0] and p], now)

    write(output, models, genai_date, litellm_date)
    write_limits(output.with_name("limits.json"), read_limits(folder / LITELLM, models))
    for problem in problems:
        print(problem, file=sys.stderr)
    counts["disagreements"] = sum(problem.startswith("disagree") for problem in problems)
    counts["models written"] = len(models)
    counts["bytes written"] = output.stat().st_size
    for what, count in sorted(counts.items()):
        print(f"{count:7} {what}", file=sys.stderr)


def write(output, models, genai_date, litellm_date):
    def compact(value):
        return json.dumps(value, separators=(",", ":"))

    sources = [
        {"source": "https://github.com/pydantic/genai-prices", "date": genai_date, "license": "MIT"},
        {"source": "https://github.com/BerriAI/litellm", "date": litellm_date, "license": "MIT"},
    ]
    lines = [
        "{",
        f'"sources":{compact(sources)},',
        f'"date":{compact(min(genai_date, litellm_date))},',
        '"unit":"1e-12 USD a token",',
        f'"columns":{compact(COLUMNS)},',
        '"providers":{',
    ]
    providers = sorted({provider for provider, _ in models})
    for provider in providers:
        lines.append(f"{compact(provider)}:{{")
        mine = sorted(model for owner, model in models if owner == provider)
        # One line a model: a new list is a diff that can be read.
        lines += [f"{compact(model)}:{compact(as_json(models[provider, model]))}," for model in mine]
        lines[-1] = lines[-1][:-1]
        lines.append("}" if provider == providers[-1] else "},")
    lines += ["}", "}"]
    output.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")


def write_limits(output, limits):
    """By provider and model, the most tokens of an answer; ordered as the prices are."""
    named = collections.defaultdict(dict)
    for (provider, model), most in sorted(limits.items()):
        named[provider][model] = most
    text = json.dumps(named, separators=(",", ":")).replace("},", "},\n")
    output.write_text(text + "\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
