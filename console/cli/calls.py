"""`callfold calls|show|tail|dial|annotate`: find calls, follow events, start and annotate calls."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from console.cli.common import (
    AsJson,
    NamedSource,
    Panel,
    Source,
    example,
    read_settings,
    run,
    source_names,
)
from shared.errors import ConfigError
from shared.exit_codes import EXIT_OK

_DIAL_EXIT_CODES = "Exit codes: 0 dialed, 1 failed (no phone rings), 2 wrong usage, 3 result unknown (a phone may be ringing)."
# Copies of the values of enumerations, whose modules would delay every start. A test compares them.
_OUTCOMES = ("answered", "dialed_missed", "agent_missed", "agent_hung_up", "missed", "unknown")
_TYPES = ("Incoming", "Outgoing", "Internal", "Login", "API", "Conference")
_STATES = ("open", "ringing", "talking", "ending", "complete")

_ANNOTATIONS = ("transcript", "disposition", "consent", "note")


def _annotations() -> list[str]:
    return list(_ANNOTATIONS)


def _states() -> list[str]:
    return list(_STATES)


def _outcomes() -> list[str]:
    return list(_OUTCOMES)


def _types() -> list[str]:
    return list(_TYPES)


def add_to(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    panel = Panel.CALLS
    calls_example = example("callfold calls --number '+45*' --outcome answered --since 2h --json")
    app.command(rich_help_panel=panel, epilog=calls_example)(calls)
    app.command(rich_help_panel=panel, epilog=example("callfold show acme 513"))(show)
    app.command(rich_help_panel=panel, epilog=example("callfold vcon acme 513 --revision 1"))(vcon)
    app.command(rich_help_panel=panel, epilog=example("callfold tail 'call.completed.#' --since 1h --json"))(tail)
    annotate_example = example("callfold annotate acme 513 --type note --text 'Call back on Monday'")
    app.command(rich_help_panel=panel, epilog=annotate_example)(annotate)
    dial_example = example("callfold dial --source acme --agent 1001 --number +4512345678 --reference crm-42")
    app.command(rich_help_panel=panel, epilog=f"{_DIAL_EXIT_CODES}\n\n{dial_example}")(dial)


def calls(  # noqa: PLR0917 - each is an option of the command line, given by name
    state: Annotated[str | None, typer.Option(help=f"One of {', '.join(_STATES)}.", autocompletion=_states)] = None,
    outcome: Annotated[str | None, typer.Option(help=f"One of {', '.join(_OUTCOMES)}.", autocompletion=_outcomes)] = None,
    call_type: Annotated[
        str | None, typer.Option("--type", help=f"One of {', '.join(_TYPES)}; with a RequestID, API.", autocompletion=_types)
    ] = None,
    source: Source = None,
    agent: Annotated[str | None, typer.Option(help="Extension or name of any leg's agent; * matches any characters.")] = None,
    number: Annotated[
        str | None, typer.Option(help="Dialed number, or any leg's CallerID or DID; * matches any characters.")
    ] = None,
    reference: Annotated[str | None, typer.Option(help="Reference of the dial request.")] = None,
    since: Annotated[str | None, typer.Option(help="Earliest start: RFC 3339, or an age like 90s, 15m, 2h, 7d.")] = None,
    until: Annotated[str | None, typer.Option(help="Latest start (exclusive): RFC 3339, or an age like 2h.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of calls.")] = 50,
    *,
    recorded: Annotated[
        bool | None, typer.Option("--recorded/--not-recorded", help="Only calls with, or without, a recorded leg.")
    ] = None,
    as_json: AsJson = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV output.")] = False,
) -> None:
    """List calls, newest first."""
    from console.commands.list_calls import Form, list_calls

    filters = {
        "state": state,
        "outcome": outcome,
        "type": call_type,
        "source": source,
        "agent": agent,
        "number": number,
        "reference": reference,
        "since": since,
        "until": until,
        "recorded": recorded,
    }
    form = Form.JSON if as_json else Form.CSV if as_csv else Form.TEXT
    run(list_calls(read_settings(), filters, limit, form))


def show(
    source: NamedSource,
    call: Annotated[str | None, typer.Argument(help="RequestID, or call-<CallID> if the call has no RequestID.")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Print one call: record, timeline, reason for its state."""
    from console.commands.show import show as run_show

    run(run_show(read_settings(), source, call, as_json=as_json))


def vcon(
    source: NamedSource,
    call: Annotated[str | None, typer.Argument(help="RequestID, or call-<CallID> if the call has no RequestID.")] = None,
    revision: Annotated[int | None, typer.Option(min=1, help="Published revision (default: the latest).")] = None,
    sign: Annotated[
        Path | None,
        typer.Option(help="PEM file of the key and certificates to sign with (default: CALLFOLD_VCON_SIGNING_KEY)."),
    ] = None,
) -> None:
    """Print a published call as vCon, signed if there is a key."""
    from console.commands.vcon import vcon as run_vcon

    run(run_vcon(read_settings(), source, call, revision, sign))


def tail(
    pattern: Annotated[str, typer.Argument(help="Topic pattern: * matches one word, # any number of words.")] = "#",
    since: Annotated[
        str | None, typer.Option(help="RFC 3339 time, or age to start from, e.g. 90s, 2h, 7d (default: now).")
    ] = None,
    until: Annotated[str | None, typer.Option(help="RFC 3339 time, age or `now` at which to end (default: no end).")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Number of events after which to stop (default: no limit).")] = None,
    *,
    ops: Annotated[bool, typer.Option("--ops", help="Operator events instead of those of calls and recordings.")] = False,
    as_json: AsJson = False,
) -> None:
    """Follow the published events until Ctrl-C, or until a time.

    With only --until, a past time prints the whole journal up to it.
    """
    from console.commands.tail import Span
    from console.commands.tail import tail as run_tail

    span = Span.of(since, until)
    run(run_tail(read_settings(), pattern, span, limit, as_json=as_json, is_ops=ops), interrupted=EXIT_OK)


def annotate(  # noqa: PLR0917 - as above
    source: NamedSource,
    call: Annotated[str | None, typer.Argument(help="RequestID, or call-<CallID> if the call has no RequestID.")] = None,
    kind: Annotated[str, typer.Option("--type", help=f"One of {', '.join(_ANNOTATIONS)}.", autocompletion=_annotations)] = "note",
    text: Annotated[str | None, typer.Option(help="The text; of a disposition its code, of a consent its status.")] = None,
    file: Annotated[
        str | None, typer.Option(help="File with the text, or with the body as a JSON object; - reads stdin.")
    ] = None,
    by: Annotated[str | None, typer.Option(help="Program or person (default: the user).")] = None,
    idempotency_key: Annotated[
        str | None, typer.Option(help="Key of this annotation; a repeat with the same key adds nothing.")
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Add a transcript, disposition, consent or note to a call and print its id."""
    from console.commands.annotate import annotate as run_annotate
    from console.commands.annotate import read_annotation

    new = read_annotation(kind, text, file, by)
    if idempotency_key == "":
        raise ConfigError("Empty --idempotency-key, which cannot identify a repeat. Give a key, or leave the option out.")
    run(run_annotate(read_settings(), source, call, new, idempotency_key or "", as_json=as_json))


def dial(  # noqa: PLR0917 - as above
    source: Annotated[str, typer.Option(help="Source name.", autocompletion=source_names)],
    agent: Annotated[str, typer.Option(help="Agent's extension.")],
    number: Annotated[str, typer.Option(help="Number to dial.")],
    queue_prefix: Annotated[str | None, typer.Option(help="Prefix that selects an outbound queue.")] = None,
    reference: Annotated[str | None, typer.Option(help="Your own reference, stored in the call record.")] = None,
    metadata: Annotated[list[str] | None, typer.Option(help="Your own metadata, NAME=VALUE; repeatable.")] = None,
    idempotency_key: Annotated[
        str | None,
        typer.Option(help="Key of this request; a repeat within 24 h returns the first result without dialing."),
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Dial a number for an agent and print the RequestID."""
    from pydantic import ValidationError

    from console.commands.dial import EXIT_UNKNOWN
    from console.commands.dial import dial as run_dial
    from console.dialing.focalscope import DialRequest
    from console.validation import first_mistake

    pairs = [text.partition("=") for text in metadata or ()]
    if not all(separator for _, separator, _ in pairs):
        raise ConfigError("Invalid --metadata. Expected NAME=VALUE.")
    try:
        request = DialRequest(
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
        raise ConfigError("Empty --idempotency-key, which cannot identify a repeat. Give a key, or leave the option out.")
    run(
        run_dial(read_settings(), request, idempotency_key or "", as_json=as_json),
        interrupted=EXIT_UNKNOWN,
        cut_off="interrupted before FocalScope answered. A phone may be ringing, so check before you dial again.",
    )
