"""`callfold dial|calls|show`: start calls, find them, and see everything about one."""

from __future__ import annotations

from typing import Annotated

import typer
from pydantic import ValidationError

from console.cli.common import AsJson, CallArgument, Source, SourceArgument, read_settings, run, source_names
from shared.domain.call import Outcome
from shared.errors import ConfigError

_EPILOG = "Exit codes: 0 dialed, 1 no phone rings, 2 wrong usage, 3 not known: a phone may be ringing."
_STATES = ("open", "ringing", "talking", "ending", "complete")


def _states() -> list[str]:
    return list(_STATES)


def _outcomes() -> list[str]:
    return list(Outcome)


def add_to(app: typer.Typer) -> None:
    """Give these commands to the command line."""
    app.command("dial", epilog=_EPILOG)(dial)
    app.command("calls")(calls)
    app.command("show")(show)


def dial(  # noqa: PLR0917 - each is an option of the command line, given by name
    source: Annotated[str, typer.Option(help="The source's name.", autocompletion=source_names)],
    agent: Annotated[str, typer.Option(help="The agent's extension.")],
    number: Annotated[str, typer.Option(help="The number to dial.")],
    queue_prefix: Annotated[str | None, typer.Option(help="Prefix that chooses an outbound queue.")] = None,
    reference: Annotated[str | None, typer.Option(help="Of your own: it is in the call's record.")] = None,
    metadata: Annotated[list[str] | None, typer.Option(help="NAME=VALUE of your own; can be given again.")] = None,
    idempotency_key: Annotated[
        str | None, typer.Option(help="A repeat within 24 h gets the first answer, and dials nothing.")
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Dial, and print the RequestID: `callfold dial --source acme --agent 1001 --number +4512345678 --reference crm-42`."""
    from console.commands.dial import EXIT_UNKNOWN  # noqa: PLC0415 - each command loads only what it needs
    from console.commands.dial import dial as run_dial  # noqa: PLC0415 - each command loads only what it needs
    from console.dialing.focalscope import DialRequest  # noqa: PLC0415
    from console.validation import first_mistake  # noqa: PLC0415

    pairs = [text.partition("=") for text in metadata or ()]
    if not all(separator for _, separator, _ in pairs):
        raise ConfigError("--metadata is not of the form NAME=VALUE.")
    try:
        wanted = DialRequest(
            source=source,
            agent=agent,
            number=number,
            queue_prefix=queue_prefix,
            reference=reference,
            metadata={name: value for name, _, value in pairs},
        )
    except ValidationError as error:
        raise ConfigError(first_mistake(error, DialRequest)[1]) from None
    if idempotency_key == "":
        raise ConfigError("--idempotency-key is empty: a repeat could not be told from another request.")
    run(
        run_dial(read_settings(), wanted, idempotency_key or "", as_json=as_json),
        interrupted=EXIT_UNKNOWN,
        cut_off="stopped before the answer came. A phone may be ringing: look before you dial again.",
    )


def calls(  # noqa: PLR0917 - as above
    state: Annotated[str | None, typer.Option(help=f"One of {', '.join(_STATES)}.", autocompletion=_states)] = None,
    outcome: Annotated[str | None, typer.Option(help=f"One of {', '.join(Outcome)}.", autocompletion=_outcomes)] = None,
    source: Source = None,
    agent: Annotated[str | None, typer.Option(help="The agent's extension or name; * for any characters.")] = None,
    number: Annotated[str | None, typer.Option(help="The dialed number, CallerID or DID; * for any characters.")] = None,
    reference: Annotated[str | None, typer.Option(help="The reference of the dial request.")] = None,
    since: Annotated[str | None, typer.Option(help="Started then or later: RFC 3339, or 90s, 15m, 2h, 7d ago.")] = None,
    until: Annotated[str | None, typer.Option(help="Started before: RFC 3339, or 90s, 15m, 2h, 7d ago.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Calls at most.")] = 50,
    *,
    recorded: Annotated[bool | None, typer.Option("--recorded/--not-recorded", help="Whether a leg was recorded.")] = None,
    as_json: AsJson = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
) -> None:
    """Find calls, newest start first: `callfold calls --number '+45*' --outcome answered --since 2h --json`."""
    from console.commands.list_calls import Form, list_calls  # noqa: PLC0415

    asked = {
        "state": state,
        "outcome": outcome,
        "source": source,
        "agent": agent,
        "number": number,
        "reference": reference,
        "since": since,
        "until": until,
        "recorded": recorded,
    }
    form = Form.JSON if as_json else Form.CSV if as_csv else Form.TEXT
    run(list_calls(read_settings(), asked, limit, form))


def show(source: SourceArgument, call: CallArgument, *, as_json: AsJson = False) -> None:
    """Print one call, its facts, its raw timeline, and why it is in its state: `callfold show acme 513`."""
    from console.commands.show import show as run_show  # noqa: PLC0415

    run(run_show(read_settings(), source, call, as_json=as_json))
