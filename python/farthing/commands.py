"""Commands that work on rows of outcomes: `farthing evaluate`, `cascade` and `calibrate`. `cli.py` has the others."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable
from typing import Any

import click

__all__ = ["CONTEXT", "calibrate", "cascade", "evaluate", "manners"]

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


def manners(command: Callable[..., Any]) -> Callable[..., Any]:
    """Turns farthing's own errors into messages."""

    @functools.wraps(command)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        from .exceptions import FarthingError

        try:
            return command(*args, **kwargs)
        except FarthingError as error:
            click.echo(f"error: {error}", err=True)
            sys.exit(1)

    return wrapper


@click.command(context_settings=CONTEXT)
@click.argument("file", metavar="FILE")
@click.option("--prompt", default="prompt", show_default=True, metavar="COLUMN", help="The text that was asked.")
@click.option("--cheap", required=True, metavar="COLUMN", help="How right the cheap model was: 0 to 1, or true, false.")
@click.option("--dear", required=True, metavar="COLUMN", help="The same of the dear model.")
@click.option("--group", metavar="COLUMN", help="A subject or task, to compare with its mean.")
@click.option("--cheap-cost", metavar="COLUMN", help="What the cheap answer cost.")
@click.option("--dear-cost", metavar="COLUMN", help="What the dear answer cost.")
@click.option("--labels", default="200,1000", show_default=True, metavar="N,N", help="Labelled rows to learn from.")
@click.option("--seed", default=0, show_default=True, help="Of the folds and the intervals.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@manners
def evaluate(file: str, labels: str, seed: int, as_json: bool, **columns: Any) -> None:
    """What a router between a cheap and a dear model is worth, on questions that both have answered.

    FILE is .csv, .tsv, .jsonl or .parquet. Nothing is sent anywhere. The measures are RouteLLM's (arXiv 2406.18665):
    APGR is 0.5 for a router that knows nothing; CPT(50 %) is the share of calls that must go to the dear model to gain
    half of what it is better by. What is learned is judged on rows that it was not learned from.
    """
    import json

    from .evaluate import Columns, compare, read, shown

    try:
        counts = [int(count) for count in labels.split(",") if count.strip()]
    except ValueError:
        raise click.BadParameter("numbers with commas between them", param_hint="--labels") from None
    if seed < 0 or any(count < 1 for count in counts):
        raise click.BadParameter("numbers of at least 1, and a seed of at least 0", param_hint="--labels")
    found = compare(read(file), Columns(**columns), counts, seed)
    click.echo(json.dumps(found) if as_json else shown(found))


@click.command(context_settings=CONTEXT)
@click.argument("data", metavar="DATA")
@click.option("--score", default="score", show_default=True, metavar="COLUMN", help="What the scorer said, 0 to 1.")
@click.option("--good", default="good", show_default=True, metavar="COLUMN", help="How good the draft is, 0 to 1.")
@click.option("--dear", metavar="COLUMN", help="How good the dear answer is; the loss is then what it is better by.")
@click.option("--rung", metavar="COLUMN", help="The draft's rung: a calibration each.")
@click.option("--prompt", metavar="COLUMN", help="What was asked: of equal ones the first is taken.")
@click.option("--cost", metavar="COLUMN", help="What the draft cost.")
@click.option("--dear-cost", metavar="COLUMN", help="What the dear answer cost, or would have.")
@click.option("--scorer-cost", metavar="COLUMN", help="What judging the draft cost.")
@click.option("--router", is_flag=True, help="Learn a router instead: --prompt, --cheap and --dear, as for evaluate.")
@click.option("--cheap", metavar="COLUMN", help="With --router: how right the cheap model was.")
@click.option("--max-loss", default=0.01, show_default=True, help="Over all answers, what accepted drafts may lose.")
@click.option("--confidence", default=0.95, show_default=True, help="That they do not lose more.")
@click.option("--shadow", type=float, metavar="SHARE", help="The policy's shadow, for labels of a cache file.")
@click.option("--scorer", metavar="NAME[,NAME]", help="Whose scores they are: a policy with others refuses the file.")
@click.option("--seed", type=click.IntRange(0, 2**63), default=0, show_default=True, help="Of the split into parts.")
@click.option("--write", "file", metavar="FILE", help="Write what a policy reads: [escalate] calibration = FILE.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@manners
def calibrate(
    data: str,
    router: bool,
    cheap: str | None,
    max_loss: float,
    confidence: float,
    shadow: float | None,
    scorer: str | None,
    seed: int,
    file: str | None,
    as_json: bool,
    **columns: Any,
) -> None:
    """From which score on a draft is good enough, and whether a ladder with that threshold pays.

    DATA is .csv, .tsv, .jsonl or .parquet with a labelled draft a row, or a cache file with the labels of own traffic.
    Columns for --dear, --rung, --prompt and the costs are found by these names when they are there. Nothing is sent
    anywhere. The map from score to P(good), the threshold and the report come from three separate parts of the rows.

    \b
    Examples:
      farthing calibrate drafts.csv --max-loss 0.02 --write calibration.json
      farthing calibrate answers.db --shadow 0.02
      farthing calibrate outcomes.csv --router --cheap small_right --dear large_right --write router.json
    """
    if router != (cheap is not None):
        raise click.UsageError("--router and --cheap go together")
    scorers = None if scorer is None else _scorers(scorer)
    if router and scorers is not None:
        raise click.UsageError("--scorer is for drafts, not for --router")
    for name, value in (("--max-loss", max_loss), ("--confidence", confidence)):
        if not 0 < value < 1:
            raise click.BadParameter("between 0 and 1", param_hint=name)
    if shadow is not None and not 0 < shadow <= 1:
        raise click.BadParameter("above 0, at most 1", param_hint="--shadow")
    import json

    from . import calibration
    from .calibration_text import shown

    if file is not None:
        calibration.check_place(file)
    if router:
        _learn(data, str(cheap), columns, seed, file, as_json)
        return
    drafts = calibration.read_drafts(data, calibration.Columns(**columns), shadow, seed, scorers)
    found = calibration.calibrate(drafts, max_loss, confidence, seed)
    click.echo(json.dumps(found) if as_json else shown(found))
    if file is not None:
        calibration.write(file, calibration.calibration(found))
        lines = calibration.policy_lines(found, file)
        if not as_json:
            click.echo(f"\n{lines}" if lines else f"\n{file} has maps, but not a threshold for every rung")


def _scorers(text: str) -> tuple[str, ...]:
    from .escalate_policy import SCORERS

    names = tuple(name.strip() for name in text.split(","))
    functions = re.compile(r"callable( ([2-9]|[1-9]\d+))?")
    if len(set(names)) < len(names) or not all(name in SCORERS or functions.fullmatch(name) for name in names):
        what = f"names with commas between them, each once, out of {', '.join(SCORERS)}, callable, callable 2, ..."
        raise click.BadParameter(what, param_hint="--scorer")
    return names


def _learn(data: str, cheap: str, columns: dict[str, str | None], seed: int, file: str | None, as_json: bool) -> None:
    import json

    from . import calibration, learned
    from .evaluate import Columns, read

    names = Columns(prompt=columns["prompt"] or "prompt", cheap=cheap, dear=columns["dear"] or "dear")
    found = learned.learn(read(data), names, seed)
    click.echo(json.dumps(found) if as_json else learned.shown(found))
    if file is not None:
        calibration.write(file, learned.weights(found))


@click.command(context_settings=CONTEXT)
@click.argument("file", metavar="FILE")
@click.option("--question", default="question", show_default=True, metavar="COLUMN", help="An id of the question.")
@click.option("--model", default="model", show_default=True, metavar="COLUMN", help="Who answered.")
@click.option("--answer", default="answer", show_default=True, metavar="COLUMN", help="The extracted answer.")
@click.option("--correct", default="correct", show_default=True, metavar="COLUMN", help="0 to 1, or true, false.")
@click.option("--output-tokens", default="output_tokens", show_default=True, metavar="COLUMN", help="Of the answer.")
@click.option("--input-tokens", metavar="COLUMN", help="Of the prompt; without it only output is priced.")
@click.option("--price", "given", multiple=True, metavar="MODEL=IN,OUT", help="USD a million tokens; many times.")
@click.option("--prices", "price_file", metavar="FILE", help='JSON: {"model": [in, out]}.')
@click.option(
    "--dear", "dears", multiple=True, metavar="MODEL", help="Only beside this one; may be given several times."
)
@click.option("--cheap", "cheaps", multiple=True, metavar="MODEL", help="Only of these; at least two.")
@click.option("--max-loss", default=0.01, show_default=True, help="Accuracy that may be lost where the pair is chosen.")
@click.option("--seed", type=click.IntRange(0, 2**63), default=0, show_default=True, help="Of halves and intervals.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@manners
def cascade(
    file: str,
    given: tuple[str, ...],
    price_file: str | None,
    dears: tuple[str, ...],
    cheaps: tuple[str, ...],
    max_loss: float,
    seed: int,
    as_json: bool,
    **columns: Any,
) -> None:
    """What it is worth to ask two cheap models, and a dear one only where their answers differ.

    FILE is .csv, .tsv, .jsonl or .parquet with an answer a row: question, model, extracted answer, whether it is right,
    tokens. Models without a price are left out. The pair is chosen on one half of the questions and reported on the
    other, beside the best single cheaper model. Nothing is sent anywhere.

    \b
    Example:
      farthing cascade answers.csv --price small=0.15,0.6 --price other=0.1,0.4 --price large=2.5,10
    """
    if not 0 <= max_loss <= 1:
        raise click.BadParameter("0 to 1", param_hint="--max-loss")
    import json

    from . import cascade as room
    from .evaluate import read

    found = room.answers(read(file), room.Columns(**columns), room.prices(price_file, given))
    compared = room.compare(found, dears, cheaps, max_loss, seed)
    click.echo(json.dumps(compared) if as_json else room.shown(compared))
