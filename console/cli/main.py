"""The command `callfold`: every command has --help, an exit code (0 done, 1 failed, 2 usage or settings), --json where useful."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import orjson
import typer

from console.cli.calls import add_to as add_calls_to
from console.cli.common import AsJson, DryRun, Source, SourceArgument, read_settings, run, source_names
from console.cli.dead_letters import dead_letters
from console.cli.recordings import recordings
from console.commands.common import wanted_sources
from console.commands.hints import advised
from console.safe_text import plain
from shared.config.settings import Settings, load_settings, variables
from shared.domain.adapter_link import make_link, parse_link
from shared.domain.ids import SourceName
from shared.errors import CallfoldError, ConfigError
from shared.log import configure
from shared.runtime.process import EXIT_CONFIG, EXIT_FAILURE, EXIT_OK, leaf_errors, run_process

app = typer.Typer(
    name="callfold",
    help="Folds FocalScope call callbacks into one trustworthy record per call, published to topics, its recording archived.",
    epilog="Settings are environment variables CALLFOLD_*: `callfold settings` lists them.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,  # locals can hold secrets
    context_settings={"help_option_names": ["-h", "--help"]},
)

Directory = Annotated[Path, typer.Option(help="Where data, logs and sockets of the private servers lie.")]

app.add_typer(dead_letters, name="dead-letters")
app.add_typer(recordings, name="recordings")
add_calls_to(app)


def _tell_version(wanted: bool) -> None:  # noqa: FBT001 - the shape of an option's callback
    if wanted:
        typer.echo(f"callfold {version('callfold')}")
        raise typer.Exit


@app.callback()
def root(
    *,
    _version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_tell_version, is_eager=True)
    ] = False,
) -> None:
    """Take the options that come before a command."""


def main() -> None:
    """Run the command line; errors raised on purpose become one sentence and an exit code."""
    failures: list[CallfoldError] = []
    try:
        app(prog_name="callfold")  # also where it was started as a module
    except* CallfoldError as group:
        failures = leaf_errors(group)
    if failures:
        sys.stderr.write(f"callfold: {plain(advised(failures[0]))}\n")
        sys.exit(EXIT_CONFIG if isinstance(failures[0], ConfigError) else EXIT_FAILURE)


@app.command()
def ingress() -> None:
    """Run one ingress process: `CALLFOLD_SOURCES=sources.toml callfold ingress`. Callbacks in over HTTP, durable before 200."""
    from ingress.service import serve  # noqa: PLC0415 - each role loads only what it needs

    _service("ingress", serve)


@app.command()
def worker() -> None:
    """Run one worker process: `callfold worker` folds callbacks, publishes completed calls, archives recordings."""
    from worker.service import serve  # noqa: PLC0415

    _service("worker", serve)


@app.command()
def console() -> None:
    """Run the console process: `CALLFOLD_CONSOLE_KEY=... callfold console` serves the private API and the page."""
    from console.service import serve  # noqa: PLC0415

    _service("console", serve)


@app.command()
def history() -> None:
    """Write every call, recording event and audit line into the database CALLFOLD_HISTORY_URL: `callfold history`."""
    from console.history.service import serve  # noqa: PLC0415

    _service("history", serve)


def _service(name: str, serve: Callable[[Settings, asyncio.Event], Awaitable[None]]) -> None:
    raise typer.Exit(run_process(name, serve))


@app.command()
def up(
    directory: Directory = Path(".callfold"),
    ingress_processes: Annotated[int, typer.Option("--ingress", min=1, max=32, help="Ingress processes.")] = 1,
    worker_processes: Annotated[int, typer.Option("--worker", min=1, max=32, help="Worker processes.")] = 1,
) -> None:
    """Start everything on this machine: `callfold up --worker 2`. Ctrl-C stops it all.

    That is a private RabbitMQ and Redis, ingress, worker, console and history.

    With CALLFOLD_AMQP_URL or CALLFOLD_REDIS_URL set, that server is used instead of a private one.
    """
    from console.local.up import up as run_up  # noqa: PLC0415

    run(run_up(read_settings(quiet=False), directory, ingress_processes, worker_processes), interrupted=EXIT_OK)


@app.command()
def demo(
    directory: Directory = Path(".callfold/demo"),
    calls: Annotated[int, typer.Option(min=1, max=5000, help="Calls to simulate.")] = 200,
    seed: Annotated[int, typer.Option(help="Seed of scenarios and faults.")] = 513,
    *,
    as_json: AsJson = False,
) -> None:
    """Run the main job to its end on private servers, each call compared with the truth: `callfold demo --calls 50`.

    With --json the verdict is one object on stdout, what happens on the way is on stderr.
    """
    from console.local.demo import demo as run_demo  # noqa: PLC0415

    load_settings()  # refuses unknown settings before anything starts
    configure("auto", "error", process="demo")
    run(run_demo(directory, calls=calls, seed=seed, as_json=as_json))


@app.command()
def simulate(  # noqa: PLR0917 - each is an option of the command line, given by name
    ingress_url: Annotated[
        str | None, typer.Option("--ingress", help="Where callbacks go. Default: the ingress of the settings on this machine.")
    ] = None,
    source: Annotated[str, typer.Option(help="The source whose adapter link is used.", autocompletion=source_names)] = "default",
    calls: Annotated[int, typer.Option(min=1, help="Calls to simulate.")] = 20,
    rate: Annotated[float, typer.Option(min=0.1, help="Calls started per second.")] = 5,
    port: Annotated[int, typer.Option(help="Port that serves dial and recordings (0: any).")] = 0,
    seed: Annotated[int, typer.Option(help="Seed of scenarios and faults.")] = 1,
    *,
    faults: Annotated[bool, typer.Option("--faults/--no-faults", help="Reorder, duplicate and delay callbacks.")] = True,
    as_json: AsJson = False,
) -> None:
    """Be a FocalScope that calls back a running ingress, until all was published: `callfold simulate --calls 20 --rate 5`.

    Calls are recorded where the source has a recording_url or recording_origin: that of the simulator, with --port.
    """
    from console.local.simulate import Load, local_ingress  # noqa: PLC0415
    from console.local.simulate import simulate as run_simulate  # noqa: PLC0415

    settings = read_settings()
    load = Load(ingress_url or local_ingress(settings), SourceName(source), calls, rate, port, seed, faults)
    run(run_simulate(settings, load, as_json=as_json))


@app.command("adapter-link")
def adapter_link(
    source: SourceArgument,
    url: Annotated[str, typer.Option(help="Public address of ingress, e.g. https://hooks.example.com.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Print the link to paste into FocalScope, secret included: `callfold adapter-link acme --url https://hooks.example.com`."""
    found = wanted_sources(read_settings(), source)[SourceName(source)]
    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"{url!r} is not an http or https address.")
    link = make_link(url, source, found.secret.get_secret_value() if found.secret else None)
    unknown = [name for name, _ in sorted(set(parse_link(link).meanings.items()) - set(found.adapter.meanings.items()))]
    if unknown:
        names = ", ".join(unknown)
        typer.echo(f"The `adapter` of [sources.{source}] does not have {names}: put this link there too, or remove it.", err=True)
    typer.echo(orjson.dumps({"source": source, "link": link, "not_in_adapter": unknown}).decode() if as_json else link)


@app.command()
def tail(
    pattern: Annotated[str, typer.Argument(help="Topic pattern: * is one word, # any number.")] = "#",
    since: Annotated[str | None, typer.Option(help="Start so long ago: 90s, 15m, 2h, 7d.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after so many events.")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Follow the published events: `callfold tail 'call.completed.#' --since 1h --json`."""
    from console.commands.tail import tail as run_tail  # noqa: PLC0415

    run(run_tail(read_settings(), pattern, since, limit, as_json=as_json), interrupted=EXIT_OK)


@app.command()
def rebuild(
    since: Annotated[str, typer.Option(help="Replay so long a time: 90s, 15m, 2h, 7d.")],
    source: Source = None,
    *,
    dry_run: DryRun = False,
    publish: Annotated[bool, typer.Option("--publish", help="Let workers publish what is complete and never was.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Even while workers run.")] = False,
    as_json: AsJson = False,
) -> None:
    """Replay the journal of callbacks into Redis after it was lost; stop the workers first. `callfold rebuild --since 2h`."""
    from console.commands.rebuild import Mode  # noqa: PLC0415
    from console.commands.rebuild import rebuild as run_rebuild  # noqa: PLC0415

    run(run_rebuild(read_settings(), since, source, Mode(dry_run, publish, force, as_json)))


@app.command()
def retention(
    older_than: Annotated[
        str | None, typer.Option(help="Age from which recordings are deleted: 365d. Default: CALLFOLD_RETENTION_DAYS.")
    ] = None,
    source: Source = None,
    *,
    with_records: Annotated[bool, typer.Option("--with-records", help="Delete the call records in the sidecars too.")] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Delete old recordings; what is held stays: `callfold retention --older-than 365d --source acme --dry-run`."""
    from console.commands.retention import Wanted, age, retain  # noqa: PLC0415

    settings = read_settings(quiet=False)
    run(retain(settings, Wanted(older_than or age(settings), source, with_records, dry_run), as_json=as_json))


@app.command()
def hold(
    source: SourceArgument,
    call: Annotated[
        str | None, typer.Argument(help="RequestID, call-<CallID>, or the GUID of one of its recordings; none: list.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why, for those who come later.")] = "",
    *,
    release: Annotated[bool, typer.Option("--release", help="Release it instead.")] = False,
    ahead: Annotated[bool, typer.Option("--ahead", help="Hold a call that nothing is known of yet.")] = False,
    as_json: AsJson = False,
) -> None:
    """Keep a call's recordings from retention, or list what is held: `callfold hold acme 513 --reason "case 2026-17"`."""
    from console.commands.hold import Wanted, list_holds  # noqa: PLC0415
    from console.commands.hold import hold as run_hold  # noqa: PLC0415

    if call is None:
        run(list_holds(read_settings(), source, as_json=as_json))
    else:
        run(run_hold(read_settings(), Wanted(source, call, reason, release, ahead), as_json=as_json))


@app.command()
def doctor(*, as_json: AsJson = False) -> None:
    """Check servers, archive, directories and the sources file: `callfold doctor --json`; exit code 1 if one cannot work."""
    from console.commands.doctor import doctor as run_doctor  # noqa: PLC0415

    run(run_doctor(read_settings(), as_json=as_json))


@app.command()
def settings(*, as_json: AsJson = False) -> None:
    """List every setting with its default: `callfold settings --json`."""
    for variable, default, description in variables():
        told = {"variable": variable, "default": default, "description": description}
        typer.echo(orjson.dumps(told).decode() if as_json else f"{variable}\n    {description} Default: {default or 'none'}")
