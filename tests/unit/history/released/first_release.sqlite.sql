-- The tables of the first release, as its own code creates them.

CREATE TABLE audit (
    id TEXT NOT NULL,
    at TEXT NOT NULL,
    who TEXT NOT NULL,
    action TEXT NOT NULL,
    source TEXT,
    call TEXT,
    detail TEXT NOT NULL,
    PRIMARY KEY (id)
);

CREATE INDEX audit_at ON audit (at, id);

CREATE TABLE callfold_schema (
    id INTEGER NOT NULL,
    version INTEGER NOT NULL,
    PRIMARY KEY (id)
);

CREATE TABLE calls (
    source TEXT NOT NULL,
    call TEXT NOT NULL,
    name TEXT NOT NULL,
    request_id BIGINT,
    revision INTEGER NOT NULL,
    outcome TEXT,
    complete BOOLEAN,
    close_reason TEXT,
    reference TEXT,
    agent TEXT,
    number TEXT,
    recorded BOOLEAN NOT NULL,
    started_at TEXT NOT NULL,
    answered_at TEXT,
    ended_at TEXT,
    ring_seconds DOUBLE,
    talk_seconds DOUBLE,
    agents TEXT NOT NULL,
    numbers TEXT NOT NULL,
    record TEXT NOT NULL,
    PRIMARY KEY (source, call)
);

CREATE INDEX calls_outcome ON calls (outcome, started_at, name);

CREATE INDEX calls_reference ON calls (reference);

CREATE INDEX calls_source ON calls (source, started_at, name);

CREATE INDEX calls_started ON calls (started_at, name);

CREATE TABLE events (
    id TEXT NOT NULL,
    type TEXT NOT NULL,
    time TEXT NOT NULL,
    source TEXT NOT NULL,
    call TEXT NOT NULL,
    body TEXT NOT NULL,
    reason TEXT,
    PRIMARY KEY (id)
);

CREATE INDEX events_call ON events (source, call);

CREATE TABLE offsets (
    stream TEXT NOT NULL,
    "offset" BIGINT NOT NULL,
    fingerprint TEXT NOT NULL,
    PRIMARY KEY (stream)
);

CREATE TABLE recordings (
    id TEXT NOT NULL,
    leg_id TEXT NOT NULL,
    source TEXT NOT NULL,
    call TEXT NOT NULL,
    call_id TEXT NOT NULL,
    guid TEXT,
    leg TEXT NOT NULL,
    state TEXT NOT NULL,
    at TEXT NOT NULL,
    event TEXT NOT NULL,
    uri TEXT,
    bytes BIGINT,
    sha256 TEXT,
    seconds DOUBLE,
    channels INTEGER,
    sample_rate INTEGER,
    encryption TEXT,
    attempts INTEGER,
    reason TEXT,
    PRIMARY KEY (id)
);

CREATE INDEX recordings_call ON recordings (source, call);

CREATE INDEX recordings_guid ON recordings (source, guid);

CREATE INDEX recordings_leg ON recordings (leg_id);

INSERT INTO callfold_schema (id, version) VALUES (1, 2);
