"""Feed a data frame: append every call to a CSV file, and read it as one row for each call.

    AMQP_URL=amqp://guest:guest@127.0.0.1:5672/ python docs/examples/to_data_frame.py feed calls.csv --replay-days 7
    python docs/examples/to_data_frame.py show calls.csv

`feed` needs callfold-client, `show` and `data_frame` need pd. A row is on the disk before its event is acked. One that is
written twice, because the program was killed in between, is read once: of each call the highest revision counts.
"""

from __future__ import annotations

import argparse
import csv
import os
import signal
import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from callfold_client import CallfoldClientError, CallRecord, Event, subscribe_sync

if TYPE_CHECKING:
    import pandas as pd

QUEUE = "example.data_frame"
COLUMNS = ("source", "call", "revision", "outcome", "call_type", "queue", "agent", "started_at", "ring_seconds", "talk_seconds")


def row_of(event: Event, record: CallRecord) -> tuple[object, ...]:
    agent = record.agent.extension if record.agent else None
    times = (record.started_at.isoformat(), record.ring_seconds, record.talk_seconds)
    return (*event.call, record.revision, record.outcome, record.call_type, record.queue, agent, *times)


def feed(path: Path, replay: timedelta | None, limit: int | None) -> None:
    """Append calls until a signal or the limit."""
    url = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/")
    with path.open("a+", newline="", encoding="utf-8") as file:
        _end_line(file)
        writer = csv.writer(file)
        if path.stat().st_size == 0:
            writer.writerow(COLUMNS)
        with subscribe_sync(url, queue=QUEUE, filter="call.#", replay_since=replay, limit=limit) as events:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: events.stop())
            print("waiting for calls; Ctrl-C stops", flush=True)
            for event in events:
                if isinstance(event.data, CallRecord):
                    writer.writerow(row_of(event, event.data))
                    file.flush()
                    os.fsync(file.fileno())


def _end_line(file: TextIO) -> None:
    """End a line that a killed process wrote in part."""
    file.seek(0)
    text = file.read()
    if text and not text.endswith("\n"):
        file.write("\r\n")


def latest(path: Path) -> list[Mapping[str, str]]:
    """Return one row for each call, that of its highest revision. Lines that were written in part are left out."""
    rows: dict[tuple[str, str], Mapping[str, str]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if any(value is None for value in row.values()) or not row["revision"].isdecimal():
                continue
            key = row["source"], row["call"]
            if key not in rows or int(row["revision"]) >= int(rows[key]["revision"]):
                rows[key] = row
    return list(rows.values())


def data_frame(path: Path) -> pd.DataFrame:
    """Return the calls as a data frame with times and numbers."""
    import pandas as pd  # noqa: PLC0415 - `feed` does not need it

    frame = pd.DataFrame(latest(path), columns=list(COLUMNS))
    frame["started_at"] = pd.to_datetime(frame["started_at"], utc=True, format="ISO8601")
    for column in ("revision", "ring_seconds", "talk_seconds"):
        frame[column] = pd.to_numeric(frame[column])
    return frame


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    feeding = commands.add_parser("feed", help="append calls to the file")
    feeding.add_argument("--replay-days", type=float, help="first append the journal of so many days (default: none)")
    feeding.add_argument("--limit", type=int, help="number of events after which to stop (default: no limit)")
    showing = commands.add_parser("show", help="print calls and talk time by agent")
    for command in (feeding, showing):
        command.add_argument("file", type=Path, help="the CSV file")
    options = parser.parse_args()
    try:
        if options.command == "feed":
            feed(options.file, None if options.replay_days is None else timedelta(days=options.replay_days), options.limit)
        else:
            print(data_frame(options.file).groupby("agent")["talk_seconds"].agg(["count", "sum"]))
    except CallfoldClientError as error:
        sys.exit(str(error))
    except ModuleNotFoundError:
        sys.exit("`show` needs pandas. Install it with `pip install pandas`.")


if __name__ == "__main__":
    main()
