"""The command line: reads arguments, calls the rooms that do the work, prints.

Imports what a command needs inside it, and never the SDK before that: `--help` is asked for more often than anything
else. A user's mistake is a message on stderr and exit code 1 (2 where the command line itself is wrong), no traceback.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from .commands import CONTEXT, calibrate, cascade, evaluate
from .commands import manners as _manners


def _version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"farthing {version('farthing')}")
        context.exit()


@click.group(context_settings=CONTEXT)
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_version, help="Show the version and exit."
)
def cli() -> None:
    """farthing cuts what applications pay for LLM calls, and proves it.

    \b
    Examples:
      farthing demo                       two bills side by side, from real models on this machine
      farthing demo --small               the same with smaller models (0.6 GB instead of 1.6 GB)
      farthing local                      an OpenAI-compatible server, to try things without a key
      farthing policy check farthing.toml
      farthing report answers.db          what the programs that share a cache file spent and saved
      farthing cache answers.db list      what is in it
      farthing evaluate outcomes.csv      what a router between two models would be worth
      farthing cascade answers.csv        what two cheap models that agree would be worth
      farthing calibrate drafts.csv       from which score on a draft is good enough
    """


@cli.command(context_settings=CONTEXT)
@click.option("--small", is_flag=True, help="Smaller models: a shorter download, worse answers.")
@click.option("--base-url", metavar="URL", help="An endpoint of your own instead of local models.")
@click.option("--cheap", metavar="NAME", help="The cheap model there.")
@click.option("--dear", metavar="NAME", help="The dear model there.")
@click.option("--json", "as_json", is_flag=True, help="Print the bill as JSON.")
@_manners
def demo(small: bool, base_url: str | None, cheap: str | None, dear: str | None, as_json: bool) -> None:
    """Run a fixed workload through real models, with farthing and without, and print what each cost; then once more
    through two servers of one model, of which the first dies halfway.

    The first run fetches the models (1.6 GB, or 0.6 GB with --small) into a cache folder; FARTHING_MODELS names another
    one. With --base-url the key is taken from OPENAI_API_KEY.

    \b
    Examples:
      farthing demo
      farthing demo --small --json
      farthing demo --base-url http://localhost:11434/v1 --cheap qwen2.5:0.5b --dear qwen2.5:7b
    """
    if base_url is None and (cheap or dear):
        raise click.UsageError("--cheap and --dear name models of the endpoint that --base-url gives")
    if base_url is not None and (small or not (cheap and dear)):
        raise click.UsageError("--base-url needs --cheap and --dear, and goes without --small")
    from .demo import bill
    from .demo.run import outage, run

    died = None
    if base_url is not None:
        with _progress() as progress:
            lines = run(base_url, str(cheap), str(dear), progress)
    else:
        cheap, dear = ("smollm2-135m", "qwen2.5-coder-0.5b") if small else ("qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b")
        with _serving([cheap, dear]) as server, _progress() as progress:
            lines = run(server.base_url, cheap, dear, progress)
            with _serving([cheap]) as first:
                died = outage(first.base_url, server.base_url, cheap, first.close, progress)
    click.echo(bill.as_json(lines, died) if as_json else bill.as_text(lines, died))


@cli.command(context_settings=CONTEXT)
@click.option("--model", "models", multiple=True, metavar="NAME", help="A model to serve; may be given several times.")
@click.option("--small", is_flag=True, help="Serve the smallest model only.")
@click.option("--port", type=click.IntRange(0, 65535), default=8642, show_default=True, help="0 = any that is free.")
@_manners
def local(models: tuple[str, ...], small: bool, port: int) -> None:
    """Serve real small models on this machine, OpenAI-compatible, until Ctrl-C.

    \b
    Examples:
      farthing local                              the two models of the demo
      farthing local --small --port 9000
      farthing local --model smollm2-135m --model qwen2.5-coder-0.5b
    """
    from .local import MODELS

    for name in models:
        if name not in MODELS:
            raise click.BadParameter(f"{name!r}; there are: {', '.join(MODELS)}", param_hint="--model")
    chosen = list(models) or (["smollm2-135m"] if small else ["qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b"])
    with _serving(chosen, port) as server:
        click.echo(f"serving {', '.join(chosen)} at {server.base_url}, until Ctrl-C\n")
        click.echo("    from farthing import OpenAI")
        click.echo(f'    client = OpenAI(base_url="{server.base_url}", api_key="none")')
        click.echo(f'    client.chat.completions.create(model="{chosen[0]}", messages=[...])')
        sys.stdout.flush()
        _until_interrupted()


@cli.group(context_settings=CONTEXT)
def policy() -> None:
    """Check policies.

    \b
    Example:
      farthing policy check farthing.toml
    """


@policy.command(context_settings=CONTEXT)
@click.argument("file", type=click.Path(dir_okay=False))
@_manners
def check(file: str) -> None:
    """Check a policy FILE, and print what holds.

    \b
    Example:
      farthing policy check farthing.toml
    """
    import json

    from .policy import Policy

    checked = Policy.from_toml(file)
    click.echo(f"{file}: ok")
    click.echo(json.dumps(checked.to_show(), indent=2))


@cli.command(context_settings=CONTEXT)
@click.argument("path", type=click.Path(dir_okay=False))
@click.option("--since", metavar="TIME", help="A date (2026-01-31), or how long ago: 24h, 7d. By the hour, or day.")
@click.option("--by", type=click.Choice(["day"]), help="A line for each day (UTC) rather than one bill.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@_manners
def report(path: str, since: str | None, by: str | None, as_json: bool) -> None:
    """Print the bill that the ledgers of all programs with the cache file PATH left in it.

    Running programs add to it about twice a second. Hours older than a week are folded into days.

    \b
    Examples:
      farthing report answers.db
      farthing report answers.db --since 7d --by day
      farthing report answers.db --json
    """
    from . import cache_file

    click.echo(cache_file.report(path, since, by == "day", as_json))


@cli.group(context_settings=CONTEXT, invoke_without_command=True)
@click.argument("path", type=click.Path(dir_okay=False))
@click.pass_context
@_manners
def cache(context: click.Context, path: str) -> None:
    """Look into the cache file PATH, and change it; programs may be using it meanwhile.

    \b
    Examples:
      farthing cache answers.db
      farthing cache answers.db list --tag faq
      farthing cache answers.db show 3fa1
      farthing cache answers.db invalidate --model gpt-4o-mini
      farthing cache answers.db export > answers.jsonl
    """
    context.obj = path
    if context.invoked_subcommand is None:
        context.invoke(stats)


@cache.command(context_settings=CONTEXT)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
@_manners
def stats(path: str, as_json: bool = False) -> None:
    """Count what is in the file, by model and by tag."""
    from . import cache_file

    click.echo(cache_file.stats(path, as_json))


@cache.command("list", context_settings=CONTEXT)
@click.option("--tag", help="Only answers that were stored under this tag.")
@click.option("--model", help="Only answers of this model.")
@click.option("--most", type=click.IntRange(1, 1_000_000), default=50, show_default=True, help="No more than these.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
@_manners
def list_entries(path: str, tag: str | None, model: str | None, most: int, as_json: bool) -> None:
    """List answers, the last used first."""
    from . import cache_file

    click.echo(cache_file.entries(path, tag, model, most, as_json))


@cache.command(context_settings=CONTEXT)
@click.argument("entry")
@click.pass_obj
@_manners
def show(path: str, entry: str) -> None:
    """Show one answer as JSON; ENTRY is the beginning of its name in the list."""
    from . import cache_file

    click.echo(cache_file.show(path, entry))


@cache.command(context_settings=CONTEXT)
@click.option("--tag", help="What was stored under this tag.")
@click.option("--model", help="The answers of this model.")
@click.option("--entry", help="One answer, by the beginning of its name in the list.")
@click.option("--all", "everything", is_flag=True, help="Every answer. The ledger stays.")
@click.pass_obj
@_manners
def invalidate(path: str, tag: str | None, model: str | None, entry: str | None, everything: bool) -> None:
    """Remove answers, also from the memory of running programs, within a second."""
    if bool(tag or model) + bool(entry) + everything != 1:
        raise click.UsageError("say what: --tag, --model or both, or --entry, or --all")
    from . import cache_file

    removed = cache_file.invalidate(path, tag, model, entry)
    click.echo(f"removed {removed:,} answer{'' if removed == 1 else 's'}")


@cache.command(context_settings=CONTEXT)
@click.pass_obj
@_manners
def vacuum(path: str) -> None:
    """Remove what has expired, and give the room back to the disk."""
    from . import cache_file

    before, after, done = cache_file.opened(path).vacuum()
    click.echo(f"{before:,} bytes before, {after:,} after")
    if not done:
        click.echo("a program that has the file open keeps its log long; it gets shorter when that ends", err=True)


@cache.command(context_settings=CONTEXT)
@click.pass_obj
@_manners
def export(path: str) -> None:
    """Write every answer to standard output, a line of JSON each. The first line has the salt of the keys."""
    from . import cache_file

    for line in cache_file.export(path):
        click.echo(line)


@cache.command("import", context_settings=CONTEXT)
@click.argument("lines", type=click.File("r", encoding="utf-8", errors="replace"))
@click.pass_obj
@_manners
def import_lines(path: str, lines: Any) -> None:
    """Read answers that `export` wrote; LINES is a file, or - for standard input. PATH is made when it is not there.

    The keys of a file depend on its salt, so PATH must not be there yet, or have the salt of the export. Answers that
    are there and younger stay.
    """
    from . import cache_file

    click.echo(f"took in {cache_file.import_lines(path, lines):,} answers")


for command in (evaluate, cascade, calibrate):
    cli.add_command(command)


@contextmanager
def _serving(names: list[str], port: int = 0) -> Iterator[Any]:
    """A server of local models, their weights fetched with a progress bar."""
    from .local import MODELS, LocalServer, fetch

    paths = []
    for name in names:
        with _progress() as progress:
            paths.append((name, fetch(MODELS[name], functools.partial(_megabytes, progress, name))))
    click.echo("loading the models", err=True)
    with LocalServer(paths, port) as server:
        yield server


def _megabytes(progress: Callable[[str, int, int], None], name: str, done: int, total: int) -> None:
    progress(f"fetching {name}, MB", done // 1_000_000, total // 1_000_000)


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A function of (label, done, total) that draws a bar on a terminal, and elsewhere writes a line for each label."""
    tty = sys.stderr.isatty()
    last = ""

    def show(label: str, done: int, total: int) -> None:
        nonlocal last
        if tty:
            filled = 30 * done // max(total, 1)
            end = "\n" if done >= total else ""
            click.echo(f"\r{label:<34} [{'#' * filled:<30}] {done}/{total} ", err=True, nl=False)
            click.echo(end, err=True, nl=False)
        elif label != last:
            click.echo(label, err=True)
        last = label

    yield show


def _until_interrupted() -> None:
    import threading

    # With a timeout, because a wait without one cannot be interrupted on Windows.
    while not threading.Event().wait(3600):
        pass


def main() -> None:
    """The entry point."""
    try:
        code = cli.main(standalone_mode=False)
    except click.exceptions.Exit as exit_:
        code = exit_.exit_code
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("", err=True)
        code = 130
    except BrokenPipeError:
        # Whoever read our output has had enough; Python would complain about the pipe once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code or 0)


if __name__ == "__main__":
    main()
