"""`callfold dial`: send a dial request, journaled and audited like one over HTTP."""

from __future__ import annotations

import sys

import orjson

from console.commands.common import cli_user, select_sources
from console.dialing.dial_keys import DialKeys
from console.dialing.dial_service import DialService, Limits, audited_dial
from console.dialing.focalscope import Dialer, DialRequest, DialState
from shared.config.live_sources import LiveSources
from shared.config.settings import Settings
from shared.errors import CallfoldError
from shared.exit_codes import EXIT_FAILURE, EXIT_OK
from shared.runtime.audit import Audit
from shared.runtime.broker import create_publisher
from shared.runtime.process import background
from shared.runtime.store import open_store
from shared.streams.connections import wait_until_connected

EXIT_UNKNOWN = 3


async def dial(settings: Settings, request: DialRequest, key: str, *, as_json: bool) -> int:
    """Dial once; returns 0 with a RequestID, 1 if no phone rings, 3 if the result is unknown."""
    sources = select_sources(settings, request.source)
    publisher = create_publisher(settings, "dial")
    async with (
        open_store(settings) as store,
        Dialer(settings.dial_timeout_seconds) as dialer,
        background(publisher.run(), (keys := DialKeys(publisher)).run()),
    ):
        await wait_until_connected(publisher)
        dials = DialService(dialer, store.dials, publisher, LiveSources(sources), Limits.of(settings), keys=keys)
        answer = await audited_dial(dials, Audit(publisher), request, cli_user(), key)
    request_id = answer.body.get("request_id")
    if as_json:
        sys.stdout.write(orjson.dumps(answer.body).decode() + "\n")
    elif request_id is not None:
        sys.stdout.write(f"{request_id}\n")
    if request_id is not None:
        return EXIT_OK
    if answer.body["dial_state"] == DialState.UNKNOWN:
        sys.stderr.write(f"callfold: {answer.body['title']} A phone may be ringing, so check before you dial again.\n")
        return EXIT_UNKNOWN
    if as_json:
        return EXIT_FAILURE
    raise CallfoldError(str(answer.body["title"]))
