"""Write every call to PostgreSQL, each event exactly once.

    AMQP_URL=amqp://guest:guest@127.0.0.1:5672/ python docs/examples/to_postgresql.py postgresql://127.0.0.1/crm

It needs callfold-client and psycopg. The id of an event and the work for it are one transaction, committed before the
ack. An event that comes again finds its id, so the totals of an agent count each call once, whatever is killed and when.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from datetime import timedelta

import psycopg

from callfold_client import CallfoldClientError, CallRecord, Event, subscribe_sync

QUEUE = "example.postgresql"
RETRY_S = 2
SCHEMA = """
create table if not exists handled (id text primary key, at timestamptz not null default now());
create table if not exists calls (source text, call text, revision integer not null, outcome text not null,
                                  agent text, talk_seconds double precision not null, primary key (source, call));
create table if not exists agent_totals (agent text primary key, calls bigint not null, talk_seconds double precision not null);
"""
STORE = """
insert into calls values (%s, %s, %s, %s, %s, %s) on conflict (source, call) do update
set revision = excluded.revision, outcome = excluded.outcome, agent = excluded.agent, talk_seconds = excluded.talk_seconds
"""
# Adding is no idempotent work: done twice it would be wrong.
ADD = """
insert into agent_totals values (%s, %s, %s) on conflict (agent) do update
set calls = agent_totals.calls + excluded.calls, talk_seconds = agent_totals.talk_seconds + excluded.talk_seconds
"""


def handle(database: psycopg.Connection, event: Event, record: CallRecord) -> bool:
    """Do the work of one event in one transaction; return False if it was done before."""
    with database.transaction():
        new = database.execute("insert into handled (id) values (%s) on conflict do nothing returning id", (event.id,))
        if new.fetchone() is None:
            return False
        key = event.call
        # Two events of one call wait for each other here, also in two processes.
        database.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", ("/".join(key),))
        select = "select revision, agent, talk_seconds from calls where source = %s and call = %s"
        before = database.execute(select, key).fetchone()
        if before is not None and before[0] >= record.revision:
            return True  # a later revision came first
        if before is not None and before[1]:
            database.execute(ADD, (before[1], -1, -before[2]))
        agent, talk_s = record.agent.extension if record.agent else None, record.talk_seconds or 0.0
        if agent:
            database.execute(ADD, (agent, 1, talk_s))
        database.execute(STORE, (*key, record.revision, record.outcome, agent, talk_s))
        return True


def consume(database: psycopg.Connection, replay: timedelta | None, limit: int | None) -> None:
    """Handle events until a signal or the limit. An error gives the current event back to the queue."""
    url = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/")
    with subscribe_sync(url, queue=QUEUE, filter="call.#", replay_since=replay, limit=limit) as events:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: events.stop())
        print("waiting for calls; Ctrl-C stops", flush=True)
        for event in events:
            if isinstance(event.data, CallRecord) and handle(database, event, event.data):
                print(event.id, event.data.outcome, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("database", help="URL of the database, such as postgresql://user:password@127.0.0.1/crm")
    parser.add_argument("--replay-days", type=float, help="first handle the journal of so many days (default: none)")
    parser.add_argument("--limit", type=int, help="number of events after which to stop (default: no limit)")
    options = parser.parse_args()
    replay = None if options.replay_days is None else timedelta(days=options.replay_days)
    while True:
        try:
            with psycopg.connect(options.database, autocommit=True, connect_timeout=10) as database:
                database.execute(SCHEMA)
                return consume(database, replay, options.limit)
        except psycopg.OperationalError as error:  # it is away: the events wait in the queue
            print(
                f"PostgreSQL is unavailable ({type(error).__name__}). Next attempt in {RETRY_S} s.", file=sys.stderr, flush=True
            )
            time.sleep(RETRY_S)
        except CallfoldClientError as error:
            sys.exit(str(error))


if __name__ == "__main__":
    main()
