"""`callfold schema`."""

from __future__ import annotations

from typing import Annotated

import typer

from console.cli.common import AsJson, Panel, example


def add_to(app: typer.Typer) -> None:
    """Add this command to the command line."""
    app.command(rich_help_panel=Panel.CALLS, epilog=example("callfold schema callfold.call.completed"))(schema)


def _names() -> list[str]:
    from shared.schemas.catalog import schemas

    return sorted(path.partition("/")[0] for path in schemas())


def schema(
    name: Annotated[
        str | None, typer.Argument(help="Type or name of a message, e.g. callfold.call.completed.", autocompletion=_names)
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """List the JSON Schemas of published messages, or print one.

    With --json, a schema is printed on one line.
    """
    from console.commands.schema import list_schemas, print_schema

    if name is None:
        list_schemas(as_json=as_json)
    else:
        print_schema(name, as_json=as_json)
