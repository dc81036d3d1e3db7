"""The command `callfold`: every command has --help, an exit code (0 done, 1 failed, 2 usage or settings), --json where useful."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Annotated

import orjson
import typer
import uvloop
from rich.console import Console

from console import dead_letters as letters
from console.dead_letters import Which
from shared.adapter import make_link, parse_link
from shared.errors import CallfoldError, ConfigError
from shared.ids import SourceName
from shared.log import configure
from shared.process import EXIT_CONFIG, EXIT_FAILURE, leaves, run_process
from shared.settings import Settings, load_settings, variables

app = typer.Typer(
    name="callfold",
    help="Folds FocalScope call callbacks into one trustworthy record per call, published to topics, its recording archived.",
    epilog="Settings are environment variables CALLFOLD_*: `callfold settings` lists them.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,  # locals can hold secrets
    context_settings={"help_option_names": ["-h", "--help"]},
)

Directory = Annotated[Path, typer.Option(help="Where data, logs and sockets of the private servers lie.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]


def main() -> None:
    """Run the command line; errors raised on purpose become one sentence and an exit code."""
    failures: list[CallfoldError] = []
    try:
        app()
    except* CallfoldError as group:
        failures = leaves(group)
    if failures:
        sys.stderr.write(f"callfold: {failures[0]}\n")
        sys.exit(EXIT_CONFIG if isinstance(failures[0], ConfigError) else EXIT_FAILURE)


def _run(work: Coroutine[object, object, int | None]) -> None:
    """Run a command's coroutine; Ctrl-C is the ordinary way to end one that watches."""
    try:
        code = uvloop.run(work)
    except KeyboardInterrupt:
        code = None
    raise typer.Exit(code or 0)


def _settings(*, quiet: bool = True) -> Settings:
    settings = load_settings()
    configure(settings.log_format, "error" if quiet else settings.log_level, process="cli")
    return settings


@app.command()
def ingress() -> None:
    """Run one ingress process: callbacks in over HTTP, durable before 200."""
    from ingress.service import serve  # noqa: PLC0415 - each role loads only what it needs

    _service("ingress", serve)


@app.command()
def worker() -> None:
    """Run one worker process: folds callbacks, publishes completed calls, archives recordings."""
    from worker.service import serve  # noqa: PLC0415

    _service("worker", serve)


@app.command()
def console() -> None:
    """Run the console process (private port)."""
    from console.service import serve  # noqa: PLC0415

    _service("console", serve)


def _service(name: str, serve: Callable[[Settings, asyncio.Event], Awaitable[None]]) -> None:
    raise typer.Exit(run_process(name, serve))


@app.command()
def up(
    directory: Directory = Path(".callfold"),
    ingress_processes: Annotated[int, typer.Option("--ingress", min=1, max=32, help="Ingress processes.")] = 1,
    worker_processes: Annotated[int, typer.Option("--worker", min=1, max=32, help="Worker processes.")] = 1,
) -> None:
    """Start everything on this machine: private RabbitMQ and Redis, ingress, worker, console. Ctrl-C stops it all.

    With CALLFOLD_AMQP_URL or CALLFOLD_REDIS_URL set, that server is used instead of a private one.
    """
    from console.up import up as run_up  # noqa: PLC0415

    _run(run_up(_settings(quiet=False), directory, ingress_processes, worker_processes))


@app.command()
def demo(
    directory: Directory = Path(".callfold/demo"),
    calls: Annotated[int, typer.Option(min=1, max=5000, help="Calls to simulate.")] = 200,
    seed: Annotated[int, typer.Option(help="Seed of scenarios and faults.")] = 513,
) -> None:
    """Run the main job to its end: private servers, simulated calls, every published call compared with the truth."""
    from console.demo import demo as run_demo  # noqa: PLC0415

    load_settings()  # refuses unknown settings before anything starts
    configure("auto", "error", process="demo")
    _run(run_demo(directory, calls=calls, seed=seed, console=Console()))


@app.command()
def simulate(  # noqa: PLR0917 - each is an option of the command line, given by name
    ingress_url: Annotated[str, typer.Option("--ingress", help="Where callbacks go.")] = "http://127.0.0.1:8080",
    source: Annotated[str, typer.Option(help="The source whose adapter link is used.")] = "default",
    calls: Annotated[int, typer.Option(min=1, help="Calls to simulate.")] = 20,
    rate: Annotated[float, typer.Option(min=0.1, help="Calls started per second.")] = 5,
    port: Annotated[int, typer.Option(help="Port that serves dial and recordings (0: any).")] = 0,
    seed: Annotated[int, typer.Option(help="Seed of scenarios and faults.")] = 1,
    *,
    faults: Annotated[bool, typer.Option("--faults/--no-faults", help="Reorder, duplicate and delay callbacks.")] = True,
    as_json: AsJson = False,
) -> None:
    """Be a FocalScope: dial calls against a running ingress, and serve their recordings until all were published."""
    from console.simulate import Load  # noqa: PLC0415
    from console.simulate import simulate as run_simulate  # noqa: PLC0415

    load = Load(ingress_url, SourceName(source), calls, rate, port, seed, faults)
    _run(run_simulate(_settings(), load, as_json=as_json))


def _source_names() -> list[str]:
    try:
        return [str(name) for name in load_settings().load_sources()]
    except CallfoldError:
        return []  # completion has no way to tell an error; the command itself will


@app.command("adapter-link")
def adapter_link(
    source: Annotated[str, typer.Argument(help="The source's name.", autocompletion=_source_names)],
    url: Annotated[str, typer.Option(help="Public address of ingress, e.g. https://hooks.example.com.")],
) -> None:
    """Print the link to paste into FocalScope: every placeholder, and the source's secret."""
    sources = _settings().load_sources()
    found = sources.get(SourceName(source))
    if found is None:
        raise ConfigError(f"There is no source {source}; configured: {', '.join(sources)}. See CALLFOLD_SOURCES.")
    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"{url!r} is not an http or https address.")
    link = make_link(url, source, found.secret.get_secret_value() if found.secret else None)
    unknown = sorted(set(parse_link(link).meanings.items()) - set(found.adapter.meanings.items()))
    if unknown:
        names = ", ".join(name for name, _ in unknown)
        typer.echo(f"The `adapter` of [sources.{source}] does not have {names}: put this link there too, or remove it.", err=True)
    typer.echo(link)


@app.command()
def tail(
    pattern: Annotated[str, typer.Argument(help="Topic pattern: * is one word, # any number.")] = "#",
    since: Annotated[str | None, typer.Option(help="Start so long ago: 90s, 15m, 2h, 7d.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after so many events.")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Follow the published events, e.g. `callfold tail 'call.completed.#' --since 1h --json`."""
    from console.tail import tail as run_tail  # noqa: PLC0415

    _run(run_tail(_settings(), pattern, since, limit, as_json=as_json))


dead_letters = typer.Typer(help="What could not be understood or done: see it, put it back, or drop it.", no_args_is_help=True)
app.add_typer(dead_letters, name="dead-letters")

Queue = Annotated[Which, typer.Option("--queue", help="Whose dead letters.")]
Ids = Annotated[list[str] | None, typer.Argument(help="Ids, or how they begin; none: all that the options leave.")]
Reason = Annotated[str | None, typer.Option(help="Only those with this reason.")]
Source = Annotated[str | None, typer.Option(help="Only those of this source.", autocompletion=_source_names)]
Since = Annotated[str | None, typer.Option(help="Only those first seen so long ago or later: 90s, 15m, 2h, 7d.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only tell how many it would be.")]


@dead_letters.command("list")
def dead_letters_list(
    queue: Queue = Which.CALLBACKS, reason: Reason = None, source: Source = None, since: Since = None, *, as_json: AsJson = False
) -> None:
    """List dead letters, e.g. `callfold dead-letters list --reason invalid_callback --since 2h`."""
    _run(letters.show(_settings(), queue, letters.Filter((), reason, source, since), as_json=as_json, with_body=False))


@dead_letters.command("show")
def dead_letters_show(ids: Ids, queue: Queue = Which.CALLBACKS, *, as_json: AsJson = False) -> None:
    """Print dead letters with what they hold, e.g. `callfold dead-letters show 3f9a`."""
    _run(letters.show(_settings(), queue, letters.Filter(tuple(ids or ())), as_json=as_json, with_body=True))


@dead_letters.command("redrive")
def dead_letters_redrive(
    ids: Ids = None,
    queue: Queue = Which.CALLBACKS,
    reason: Reason = None,
    source: Source = None,
    since: Since = None,
    *,
    dry_run: DryRun = False,
) -> None:
    """Put dead letters back, e.g. after a corrected adapter link: `callfold dead-letters redrive --source acme --dry-run`."""
    _run(letters.redrive(_settings(), queue, letters.Filter(tuple(ids or ()), reason, source, since), dry_run=dry_run))


@dead_letters.command("drop")
def dead_letters_drop(
    ids: Ids = None,
    queue: Queue = Which.CALLBACKS,
    reason: Reason = None,
    source: Source = None,
    since: Since = None,
    *,
    dry_run: DryRun = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove dead letters for good, e.g. `callfold dead-letters drop 3f9a --yes`."""
    if not dry_run and not yes:
        typer.confirm("They exist nowhere else. Drop them?", abort=True)
    _run(letters.drop(_settings(), queue, letters.Filter(tuple(ids or ()), reason, source, since), dry_run=dry_run))


@app.command()
def show(
    source: Annotated[str, typer.Argument(help="The source's name.", autocompletion=_source_names)],
    call: Annotated[str, typer.Argument(help="RequestID, or call-<CallID> where there is none.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Print one call, its facts, its raw timeline, and why it is in its state: `callfold show acme 513`."""
    from console.show import show as run_show  # noqa: PLC0415

    _run(run_show(_settings(), source, call, as_json=as_json))


@app.command()
def rebuild(
    since: Annotated[str, typer.Option(help="Replay so long a time: 90s, 15m, 2h, 7d.")],
    source: Source = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count.")] = False,
    publish: Annotated[bool, typer.Option("--publish", help="Let workers publish what is complete and never was.")] = False,
) -> None:
    """Replay the journal of callbacks into Redis after it was lost; stop the workers first. `callfold rebuild --since 2h`."""
    from console.rebuild import rebuild as run_rebuild  # noqa: PLC0415

    _run(run_rebuild(_settings(), since, source, dry_run=dry_run, publish=publish))


@app.command()
def doctor(*, as_json: AsJson = False) -> None:
    """Check the servers, the archive, the spool and the sources file; exit code 1 if something cannot work."""
    from console.doctor import doctor as run_doctor  # noqa: PLC0415

    _run(run_doctor(_settings(), as_json=as_json))


@app.command()
def settings(*, as_json: AsJson = False) -> None:
    """List every setting with its default."""
    for variable, default, description in variables():
        told = {"variable": variable, "default": default, "description": description}
        typer.echo(orjson.dumps(told).decode() if as_json else f"{variable}\n    {description} Default: {default or 'none'}")
