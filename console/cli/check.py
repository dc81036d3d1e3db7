"""`callfold doctor|settings|adapter-link|demo|simulate`: check a configuration, and try Callfold out."""

from __future__ import annotations

from math import isfinite
from pathlib import Path
from typing import Annotated

import typer

from console.cli.common import AsJson, Panel, SourceArgument, example, read_settings, run, source_names
from shared.errors import ConfigError


def add_to(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    panel = Panel.CHECK
    app.command(rich_help_panel=panel, epilog=example("callfold doctor --json"))(doctor)
    app.command(rich_help_panel=panel, epilog=example("callfold settings --json"))(settings)
    link_example = example("callfold adapter-link acme --url https://hooks.example.com")
    app.command("adapter-link", rich_help_panel=panel, epilog=link_example)(adapter_link)
    app.command(rich_help_panel=panel, epilog=example("callfold sizing --calls-per-day 20000"))(sizing)
    app.command(rich_help_panel=panel, epilog=example("callfold demo --calls 50"))(demo)
    app.command(rich_help_panel=panel, epilog=example("callfold simulate --calls 20 --rate 5"))(simulate)


def doctor(*, as_json: AsJson = False) -> None:
    """Check servers, archive, directories and sources file.

    Exit code 1 if a check failed.
    """
    from console.commands.doctor import doctor as run_doctor

    run(run_doctor(read_settings(), as_json=as_json))


def settings(*, as_json: AsJson = False) -> None:
    """List every setting with its default."""
    import orjson

    from shared.config.setting_rows import variables

    for variable, default, description in variables():
        row = {"variable": variable, "default": default, "description": description}
        typer.echo(orjson.dumps(row).decode() if as_json else f"{variable}\n    {description} Default: {default or 'none'}")


def adapter_link(
    source: SourceArgument,
    url: Annotated[str, typer.Option(help="Public address of ingress, e.g. https://hooks.example.com.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Print the adapter link for FocalScope, secret included."""
    import orjson

    from console.commands.common import select_sources
    from shared.domain.adapter_link import make_link, parse_link
    from shared.domain.ids import SourceName

    configured = select_sources(read_settings(), source)[SourceName(source)]
    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"Invalid --url {url!r}. Expected an http or https address, e.g. https://hooks.example.com.")
    link = make_link(url, source, configured.secret.get_secret_value() if configured.secret else None)
    unknown = [name for name, _ in sorted(set(parse_link(link).meanings.items()) - set(configured.adapter.meanings.items()))]
    if unknown:
        typer.echo(
            f"The `adapter` of [sources.{source}] lacks {', '.join(unknown)}. Set it to this link, or remove the key.", err=True
        )
    typer.echo(orjson.dumps({"source": source, "link": link, "not_in_adapter": unknown}).decode() if as_json else link)


def _finite(value: float) -> float:
    if not isfinite(value):  # a range lets NaN pass
        raise typer.BadParameter(f"{value} is not a finite number.")
    return value


def sizing(  # noqa: PLR0917 - each is an option of the command line, given by name
    calls_per_day: Annotated[int, typer.Option(min=1, max=100_000_000, help="Number of calls a day.")],
    callbacks_per_call: Annotated[float, typer.Option(callback=_finite, min=1, max=1000, help="Callbacks of a call.")] = 4,
    busy_hour_share: Annotated[
        float, typer.Option(callback=_finite, min=1 / 24, max=1, help="Share of the calls in the busiest hour.")
    ] = 0.15,
    burst: Annotated[
        float, typer.Option(callback=_finite, min=1, max=1000, help="Peak of that hour, as a multiple of its mean.")
    ] = 3,
    recordings_per_call: Annotated[
        float, typer.Option(callback=_finite, min=0, max=100, help="Recordings of a call, on average.")
    ] = 1.4,
    recording_s: Annotated[
        float, typer.Option("--recording-seconds", callback=_finite, min=0, max=86_400, help="Length of a recording, on average.")
    ] = 180,
    recording_bytes_per_s: Annotated[
        int, typer.Option("--recording-bytes-per-second", min=0, max=10_000_000, help="16000: WAV of 8 kHz, 16 bit, mono.")
    ] = 16_000,
    archive_days: Annotated[int, typer.Option(min=0, max=36_500, help="Days that recordings are kept.")] = 365,
    history_days: Annotated[int, typer.Option(min=0, max=36_500, help="Days that rows of the history are kept.")] = 365,
    outage_hours: Annotated[
        float, typer.Option(callback=_finite, min=0, max=8760, help="Hours without RabbitMQ that the spool must hold.")
    ] = 4,
    *,
    as_json: AsJson = False,
) -> None:
    """Compute cores, memory and disks for a number of calls.

    The costs of a callback are measured ones. The table ends with all that was assumed.
    """
    from console.commands.sizing import Load, print_sizing, size

    load = Load(
        calls_per_day,
        callbacks_per_call=callbacks_per_call,
        busy_hour_share=busy_hour_share,
        burst=burst,
        recordings_per_call=recordings_per_call,
        recording_s=recording_s,
        recording_bytes_per_s=recording_bytes_per_s,
        archive_days=archive_days,
        history_days=history_days,
        outage_hours=outage_hours,
    )
    print_sizing(size(load), as_json=as_json)


def demo(
    directory: Annotated[Path, typer.Option(help="Directory for data, logs and sockets of the private servers.")] = Path(
        ".callfold/demo"
    ),
    calls: Annotated[int, typer.Option(min=1, max=5000, help="Number of calls to simulate.")] = 200,
    seed: Annotated[int, typer.Option(help="Random seed of scenarios and faults.")] = 513,
    *,
    as_json: AsJson = False,
) -> None:
    """Simulate calls on private servers and verify each one.

    With --json, stdout has one object with the result; progress goes to stderr.
    """
    from console.local.demo import demo as run_demo
    from shared.config.settings import load_settings
    from shared.log import configure

    load_settings()  # rejects unknown settings before anything starts
    configure("auto", "error", process="demo")
    run(run_demo(directory, calls=calls, seed=seed, as_json=as_json))


def simulate(  # noqa: PLR0917 - each is an option of the command line, given by name
    ingress_url: Annotated[
        str | None, typer.Option("--ingress", help="Ingress URL (default: the configured ingress on this machine).")
    ] = None,
    source: Annotated[
        str, typer.Option(help="Name of the source whose adapter link is used.", autocompletion=source_names)
    ] = "default",
    calls: Annotated[int, typer.Option(min=1, help="Number of calls to simulate.")] = 20,
    rate: Annotated[float, typer.Option(min=0.1, help="Calls started per second.")] = 5,
    port: Annotated[int, typer.Option(help="Port that serves dial requests and recordings (0: any free port).")] = 0,
    seed: Annotated[int, typer.Option(help="Random seed of scenarios and faults.")] = 1,
    *,
    faults: Annotated[bool, typer.Option("--faults/--no-faults", help="Reorder, duplicate and delay callbacks.")] = True,
    as_json: AsJson = False,
) -> None:
    """Simulate a FocalScope that sends callbacks to a running ingress.

    Ends when every simulated call has been published.

    Calls have recordings if the source's recording_url or recording_origin points to the simulator (see --port).
    """
    from console.local.simulate import Load, local_ingress
    from console.local.simulate import simulate as run_simulate
    from shared.domain.ids import SourceName

    config = read_settings()
    load = Load(ingress_url or local_ingress(config), SourceName(source), calls, rate, port, seed, faults)
    run(run_simulate(config, load, as_json=as_json))
