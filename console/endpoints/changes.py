"""Changes of the endpoints that the API manages, as pure functions from one complete state to the next."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace

from console.endpoints.errors import EndpointConflictError, InvalidEndpointError
from console.endpoints.models import GivenEndpoint
from shared.config.endpoints import MAX_ENDPOINTS, parse_endpoint
from shared.errors import ConfigError
from shared.webhooks.endpoint_changes import ManagedEndpoints, Table

Change = Callable[[ManagedEndpoints], ManagedEndpoints]

MAX_PREVIOUS = 4
_PREVIOUS = "previous_secrets"


def added(managed: ManagedEndpoints, name: str, given: GivenEndpoint, secret: str) -> ManagedEndpoints:
    """Add an endpoint with this secret.

    Raises:
        EndpointConflictError: there is one of this name, or there are too many.
        InvalidEndpointError: a setting is invalid.
    """
    if name in managed.tables:
        raise EndpointConflictError(f"There is an endpoint {name}. Choose another name, or change that one.")
    if len(managed.tables) >= MAX_ENDPOINTS:
        raise EndpointConflictError(f"There are {MAX_ENDPOINTS} endpoints, and no more are possible. Remove one.")
    return _with(managed, name, _table(given, {}) | {"secret": secret})


def changed(managed: ManagedEndpoints, name: str, given: GivenEndpoint) -> ManagedEndpoints:
    """Replace the settings of an endpoint. A new secret makes the present one a previous secret.

    Raises:
        InvalidEndpointError: a setting is invalid.
    """
    before = managed.tables[name]
    table = {**_secrets(before), **_table(given, before)}
    if given.secret is not None and given.secret != before["secret"]:
        table |= _rotated(before, given.secret)
    return _with(managed, name, table)


def rotated(managed: ManagedEndpoints, name: str, secret: str) -> ManagedEndpoints:
    """Set a new secret. The present one signs too, until it is removed.

    Raises:
        InvalidEndpointError: the secret is invalid, or is the present one.
    """
    before = managed.tables[name]
    if secret == before["secret"]:
        raise InvalidEndpointError("secret", "secret is the present one. Send another one, or none to have one made.")
    return _with(managed, name, {**before, **_rotated(before, secret)})


def without_previous(managed: ManagedEndpoints, name: str) -> ManagedEndpoints:
    """Remove the previous secrets of an endpoint."""
    return _with(managed, name, {**managed.tables[name], _PREVIOUS: []})


def switched(managed: ManagedEndpoints, name: str, *, is_on: bool) -> ManagedEndpoints:
    """Enable or disable an endpoint. Enabled, it gets events again even if it has answered 410."""
    marked = _unmarked(managed, name) if is_on else managed
    return _with(marked, name, {**managed.tables[name], "enabled": is_on})


def unmarked(managed: ManagedEndpoints, name: str) -> ManagedEndpoints:
    """Enable an endpoint of the file that has answered 410."""
    return _next(_unmarked(managed, name), managed.tables)


def removed(managed: ManagedEndpoints, name: str) -> ManagedEndpoints:
    """Remove an endpoint."""
    return _next(_unmarked(managed, name), {each: table for each, table in managed.tables.items() if each != name})


def changed_settings(before: ManagedEndpoints, after: ManagedEndpoints, name: str) -> list[str]:
    """Name the settings of an endpoint that differ, for the audit trail."""
    one, other = before.tables.get(name, {}), after.tables.get(name, {})
    return sorted(key for key in {*one, *other} if one.get(key) != other.get(key))


def _table(given: GivenEndpoint, before: Table) -> dict[str, object]:
    settings = given.model_dump(exclude={"secret", "name"}, exclude_none=True)
    return settings | {"headers": _headers(given, before)}


def _headers(given: GivenEndpoint, before: Table) -> dict[str, str]:
    known = before.get("headers", {})
    present = {name.lower(): value for name, value in known.items()} if isinstance(known, dict) else {}
    headers: dict[str, str] = {}
    for name, value in given.headers.items():
        kept = present.get(name.lower()) if value is None else value
        if kept is None:
            raise InvalidEndpointError(
                "headers", f"headers has no present value for {name[:100]}. Send its value, or leave it out."
            )
        headers[name] = kept
    return headers


def _secrets(table: Table) -> dict[str, object]:
    return {key: table[key] for key in ("secret", _PREVIOUS) if key in table}


def _rotated(before: Table, secret: str) -> dict[str, object]:
    previous = before.get(_PREVIOUS, [])
    others = [each for each in previous if each != secret] if isinstance(previous, list) else []
    if len(others) >= MAX_PREVIOUS:
        raise InvalidEndpointError("secret", f"secret cannot be set: there are {MAX_PREVIOUS} previous ones. Remove them first.")
    return {"secret": secret, _PREVIOUS: [before["secret"], *others]}


def _unmarked(managed: ManagedEndpoints, name: str) -> ManagedEndpoints:
    return replace(managed, disabled={each: mark for each, mark in managed.disabled.items() if each != name})


def _with(managed: ManagedEndpoints, name: str, table: Table) -> ManagedEndpoints:
    """Return the next state with this table, once it is valid."""
    try:
        parse_endpoint(name, dict(table))
    except ConfigError as error:
        raise _invalid(name, str(error)) from None
    return _next(managed, {**managed.tables, name: table})


def _next(managed: ManagedEndpoints, tables: Mapping[str, Table]) -> ManagedEndpoints:
    return replace(managed, revision=managed.revision + 1, tables=tables)


def _invalid(name: str, sentence: str) -> InvalidEndpointError:
    """Return the error of an endpoint with its parameter, such as `url must begin with https://`."""
    match = re.match(rf"Endpoint {re.escape(name)}, (\w+): ", sentence)
    if match is None:
        return InvalidEndpointError("name" if "name" in sentence[:24] else "endpoint", sentence)
    return InvalidEndpointError(match[1], f"{match[1]} {sentence[match.end() :]}")
