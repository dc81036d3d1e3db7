"""Follow events without AMQP and without any package: store each one in SQLite exactly once.

    CALLFOLD_CONSOLE_KEY=... python docs/examples/events.py http://127.0.0.1:8081 calls.sqlite --topic 'call.#'

An event and its position in the stream are one transaction. A restart goes on after that position, whatever
was restarted and when. The first start begins with what is published from then on. With `--since 7d` it begins earlier.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Iterator
from urllib.parse import urlencode, urlsplit

SCHEMA = """
create table if not exists position (one integer primary key check (one = 1), id text not null);
create table if not exists calls (source text, call text, revision integer not null, event text not null,
                                  primary key (source, call));
"""
STORE = """
insert into calls values (?, ?, ?, ?) on conflict do update
set revision = excluded.revision, event = excluded.event where excluded.revision > calls.revision
"""
SILENCE_S = 30  # the server sends something every ten seconds
PAUSE_S = 1


def stream(url: str, key: str, last_id: str) -> Iterator[tuple[str, str]]:
    """Yield the id and the data of each block; without data it is only a position.

    Raises:
        OSError, http.client.HTTPException: the connection was lost, or the server refused the request.
    """
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.netloc, timeout=SILENCE_S)
    try:
        headers = {"Authorization": f"Bearer {key}", "Accept": "text/event-stream"} | (
            {"Last-Event-ID": last_id} if last_id else {}
        )
        connection.request("GET", f"{parts.path}?{parts.query}", headers=headers)
        response = connection.getresponse()
        if response.status != http.HTTPStatus.OK:
            raise http.client.HTTPException(f"status {response.status}: {response.read(500).decode(errors='replace')}")
        fields: dict[str, str] = {}
        for raw in response:
            name, _, value = raw.decode().rstrip("\r\n").partition(": ")
            if name:
                fields[name] = value
            elif "id" in fields:
                yield fields["id"], fields.pop("data", "")
    finally:
        connection.close()


def follow(url: str, key: str, database: sqlite3.Connection) -> None:
    """Store events until the connection is lost."""
    row = database.execute("select id from position").fetchone()
    for event_id, data in stream(url, key, row[0] if row else ""):
        with database:  # one transaction for the event and the position
            database.execute("insert or replace into position values (1, ?)", (event_id,))
            event = json.loads(data) if data else None
            if event is not None and event["type"].startswith("callfold.call."):
                record = event["data"]
                database.execute(STORE, (record["source"], event["subject"], record["revision"], data))
        if event is not None:
            print(event["id"], flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="address of the console, such as http://127.0.0.1:8081")
    parser.add_argument("file", help="SQLite file of the calls and of the position")
    parser.add_argument("--topic", default="call.#", help="pattern of routing keys (default: %(default)s)")
    parser.add_argument("--where", help="filter, such as `talk_seconds > 60` (default: every event)")
    parser.add_argument("--since", help="RFC 3339 time or age at which the first start begins, such as 7d (default: now)")
    options = parser.parse_args()
    names = ("topic", "where", "since")
    query = urlencode({name: value for name in names if (value := getattr(options, name))})
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(0))
    database = sqlite3.connect(options.file)
    database.executescript(SCHEMA)
    while True:
        try:
            follow(f"{options.url.rstrip('/')}/events?{query}", os.environ.get("CALLFOLD_CONSOLE_KEY", ""), database)
        except (OSError, http.client.HTTPException) as error:
            print(f"The stream is unavailable ({error}). Next attempt in {PAUSE_S} s.", file=sys.stderr, flush=True)
        time.sleep(PAUSE_S)


if __name__ == "__main__":
    main()
