"""Post every call to a CRM over HTTP, in the order of each call's revisions.

    AMQP_URL=amqp://guest:guest@127.0.0.1:5672/ python docs/examples/to_crm.py https://crm.example.com/api

It needs callfold-client alone. Each call is a resource: `PUT /calls/<source>/<call>` with the record as JSON. The id of the event
is the Idempotency-Key, so a CRM that keeps keys does nothing twice. The ids of handled events are in a file.

One event is sent at a time, so a lower revision never follows a higher one. A CRM that is away or busy is tried again until it
takes the event. One that refuses it ends the program with exit code 1. Start it again by a supervisor: after three attempts the
event is in the queue example.crm.dead, and the next one follows.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
import urllib.error
import urllib.request
from urllib.parse import quote

from callfold_client import CallfoldClientError, Event, SqliteSeenIds, subscribe_sync

QUEUE = "example.crm"
TIMEOUT_S = 10
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 60.0
_AGAIN = {408, 425, 429, 500, 502, 503, 504}


class RefusedError(Exception):
    """The CRM takes the event at no attempt."""


def post(base_url: str, token: str, event: Event) -> None:
    """Send an event until the CRM takes it.

    Raises:
        RefusedError: it answers that it never will.
    """
    source, call = event.call
    headers = {"Content-Type": "application/json", "Idempotency-Key": event.id, "Authorization": f"Bearer {token}"}
    url = f"{base_url.rstrip('/')}/calls/{quote(source, safe='')}/{quote(call, safe='')}"
    request = urllib.request.Request(url, json.dumps(event.data.raw).encode(), headers, method="PUT")  # noqa: S310 - see main
    pause_s = FIRST_PAUSE_S
    while True:
        wait_s = pause_s
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S):  # noqa: S310 - see main
                return
        except urllib.error.HTTPError as error:
            error.close()
            if error.code not in _AGAIN:
                raise RefusedError(f"The CRM refused {event.id} with status {error.code}.") from None
            asked = error.headers.get("Retry-After", "")
            wait_s = min(LONGEST_PAUSE_S, max(pause_s, float(asked))) if asked.isdecimal() else pause_s
            problem = f"status {error.code}"
        except (OSError, urllib.error.URLError) as error:
            problem = type(error).__name__
        print(f"The CRM did not take {event.id} ({problem}). Next attempt in {wait_s:g} s.", file=sys.stderr, flush=True)
        time.sleep(wait_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="address of the CRM's API")
    parser.add_argument("--where", help="filter, such as `talk_seconds > 60 and outcome == 'answered'` (default: every call)")
    parser.add_argument("--seen", default="crm.sqlite", help="file of the ids of handled events (default: %(default)s)")
    parser.add_argument("--limit", type=int, help="number of events after which to stop (default: no limit)")
    options = parser.parse_args()
    if not options.url.startswith(("http://", "https://")):
        parser.error("the address of the CRM must begin with http:// or https://")
    url, token = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/"), os.environ.get("CRM_TOKEN", "")
    try:
        with (
            SqliteSeenIds(options.seen) as seen,
            subscribe_sync(
                url,
                queue=QUEUE,
                filter="call.#",
                where=options.where,
                seen=seen,
                only_newer=True,
                prefetch=1,
                delivery_limit=2,  # two more attempts
                limit=options.limit,
            ) as events,
        ):
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: events.stop())
            print("waiting for calls; Ctrl-C stops", flush=True)
            for event in events:
                post(options.url, token, event)
                print(event.id, flush=True)
    except (CallfoldClientError, RefusedError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
