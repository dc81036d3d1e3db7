-- The tables of the first release, as its own code creates them.

CREATE TABLE audit (
    id TEXT COLLATE "C" NOT NULL,
    at TEXT COLLATE "C" NOT NULL,
    who TEXT COLLATE "C" NOT NULL,
    action TEXT COLLATE "C" NOT NULL,
    source TEXT COLLATE "C",
    call TEXT COLLATE "C",
    detail TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (id)
);

CREATE INDEX audit_at ON audit (at, id);

CREATE TABLE callfold_schema (
    id INTEGER NOT NULL,
    version INTEGER NOT NULL,
    PRIMARY KEY (id)
);

CREATE TABLE calls (
    source TEXT COLLATE "C" NOT NULL,
    call TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    request_id BIGINT,
    revision INTEGER NOT NULL,
    outcome TEXT COLLATE "C",
    complete BOOLEAN,
    close_reason TEXT COLLATE "C",
    reference TEXT COLLATE "C",
    agent TEXT COLLATE "C",
    number TEXT COLLATE "C",
    recorded BOOLEAN NOT NULL,
    started_at TEXT COLLATE "C" NOT NULL,
    answered_at TEXT COLLATE "C",
    ended_at TEXT COLLATE "C",
    ring_seconds DOUBLE PRECISION,
    talk_seconds DOUBLE PRECISION,
    agents TEXT COLLATE "C" NOT NULL,
    numbers TEXT COLLATE "C" NOT NULL,
    record TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (source, call)
);

CREATE INDEX calls_outcome ON calls (outcome, started_at, name);

CREATE INDEX calls_reference ON calls (reference);

CREATE INDEX calls_source ON calls (source, started_at, name);

CREATE INDEX calls_started ON calls (started_at, name);

CREATE TABLE events (
    id TEXT COLLATE "C" NOT NULL,
    type TEXT COLLATE "C" NOT NULL,
    time TEXT COLLATE "C" NOT NULL,
    source TEXT COLLATE "C" NOT NULL,
    call TEXT COLLATE "C" NOT NULL,
    body TEXT COLLATE "C" NOT NULL,
    reason TEXT COLLATE "C",
    PRIMARY KEY (id)
);

CREATE INDEX events_call ON events (source, call);

CREATE TABLE offsets (
    stream TEXT COLLATE "C" NOT NULL,
    "offset" BIGINT NOT NULL,
    fingerprint TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (stream)
);

CREATE TABLE recordings (
    id TEXT COLLATE "C" NOT NULL,
    leg_id TEXT COLLATE "C" NOT NULL,
    source TEXT COLLATE "C" NOT NULL,
    call TEXT COLLATE "C" NOT NULL,
    call_id TEXT COLLATE "C" NOT NULL,
    guid TEXT COLLATE "C",
    leg TEXT COLLATE "C" NOT NULL,
    state TEXT COLLATE "C" NOT NULL,
    at TEXT COLLATE "C" NOT NULL,
    event TEXT COLLATE "C" NOT NULL,
    uri TEXT COLLATE "C",
    bytes BIGINT,
    sha256 TEXT COLLATE "C",
    seconds DOUBLE PRECISION,
    channels INTEGER,
    sample_rate INTEGER,
    encryption TEXT COLLATE "C",
    attempts INTEGER,
    reason TEXT COLLATE "C",
    PRIMARY KEY (id)
);

CREATE INDEX recordings_call ON recordings (source, call);

CREATE INDEX recordings_guid ON recordings (source, guid);

CREATE INDEX recordings_leg ON recordings (leg_id);

INSERT INTO callfold_schema (id, version) VALUES (1, 2);
