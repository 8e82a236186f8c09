-- 0002: sagas, and the participant barrier.

-- Which installation of which Kafka this database belongs to: a copy must not answer for it.
CREATE TABLE skald.installation (
    only_row         boolean     PRIMARY KEY DEFAULT true CHECK (only_row),
    installation     text        NOT NULL,
    kafka_cluster_id text,                     -- NULL: a dev broker's, which changes at each start
    reply_topic      text        NOT NULL,
    at               timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE skald.saga_definition (
    name       text        NOT NULL,
    version    int         NOT NULL CHECK (version > 0),
    hash       text        NOT NULL,
    body       text        NOT NULL,           -- the definition as deployed, byte by byte
    steps      text[]      NOT NULL,           -- names, in the order of the state vector
    kinds      text[]      NOT NULL,
    is_current boolean     NOT NULL DEFAULT false,
    retired_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (name, version)
);
CREATE UNIQUE INDEX saga_definition_current ON skald.saga_definition (name) WHERE is_current;

-- One row per saga, small: never TOASTed. saga_start inserts it, the orchestrator alone
-- updates it.
CREATE TABLE skald.saga (
    id             uuid        PRIMARY KEY,
    name           text        NOT NULL,
    version        int         NOT NULL,
    key            text        NOT NULL,
    run            int         NOT NULL DEFAULT 1,
    correlation_id text        NOT NULL,
    traceparent    text        NOT NULL,
    causation_id   text,                       -- of the start, for the first command
    status         text        NOT NULL DEFAULT 'running'
        CHECK (status IN ('running', 'compensating', 'stuck', 'finished')),
    outcome        text        CHECK (outcome IN ('completed', 'failed', 'cancelled', 'expired')),
    undo           text        NOT NULL DEFAULT 'none'
        CHECK (undo IN ('none', 'running', 'done', 'stuck', 'resolved')),
    paused         boolean     NOT NULL DEFAULT false,
    overdue        boolean     NOT NULL DEFAULT false,
    signed         boolean     NOT NULL DEFAULT false,
    reason_step    text,
    reason_code    text,
    reason_message text,
    state          text        NOT NULL DEFAULT '',  -- the state vector; '': not begun
    seq            int         NOT NULL DEFAULT 0,   -- of its newest saga_event_entry
    due_at         timestamptz DEFAULT clock_timestamp(), -- when to look again; NULL: an event moves it
    deadline_at    timestamptz,
    command_xid    xid8,                             -- of the newest command, and when it was
    command_at     timestamptz,                      -- written; since when the relay's marks
    published_at   timestamptz,                      -- see it (looked up when it is due)
    created_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at    timestamptz,
    UNIQUE (name, key, run)
) WITH (fillfactor = 70);
CREATE INDEX saga_due ON skald.saga (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX saga_correlation ON skald.saga (correlation_id);
CREATE INDEX saga_open ON skald.saga (status, updated_at) WHERE status <> 'finished';

-- Inserted once: name is '$input', '$output', or a step's.
CREATE TABLE skald.saga_data (
    saga_id uuid NOT NULL,
    name    text NOT NULL,
    data    text NOT NULL,                     -- JSON, its digits untouched
    PRIMARY KEY (saga_id, name)
);

CREATE TABLE skald.saga_event_entry (
    saga_id        uuid        NOT NULL,
    seq            int         NOT NULL,
    at             timestamptz NOT NULL DEFAULT clock_timestamp(),
    kind           text        NOT NULL,
    step           text,
    op             text,
    attempt        int,
    outcome        text,
    detail         text,
    message_id     text,
    correlation_id text,
    traceparent    text,
    PRIMARY KEY (saga_id, seq)
);
CREATE INDEX saga_event_correlation ON skald.saga_event_entry (correlation_id);

-- What others have to say to a saga; taken by the next batch after it locked the saga.
CREATE TABLE skald.saga_inbox (
    id      bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    saga_id uuid        NOT NULL,
    at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    kind    text        NOT NULL,
    body    text
);

-- One row per partition of the reply and command topics: who serves it, how far it is done,
-- and when it was last known to be applied up to its end.
CREATE TABLE skald.saga_partition (
    topic        text        NOT NULL,
    partition    int         NOT NULL,
    owner        text,
    term         bigint      NOT NULL DEFAULT 0,
    until        timestamptz NOT NULL DEFAULT '-infinity',
    done         bigint      NOT NULL DEFAULT 0,      -- every offset below is applied
    caught_up_at timestamptz,
    PRIMARY KEY (topic, partition)
) WITH (fillfactor = 50);
-- The orchestrators that are alive: each serves its share of the partitions.
CREATE TABLE skald.saga_owner (
    owner text        PRIMARY KEY,
    until timestamptz NOT NULL
);
-- Times in which some partition had no caught-up owner for 5 s or more: reply time-outs armed
-- before the end of one start anew.
CREATE TABLE skald.saga_gap (
    began_at timestamptz NOT NULL,
    ended_at timestamptz NOT NULL
);

-- The barrier: what a participant knows of the commands it was sent, one row per key.
--   none      a place to stand on: nothing was ever taken under this key
--   taken     the transaction that was told `run` or `query` has not answered yet;
--             skald.barrier_unanswered() keeps it from committing so
--   pending   will be answered later, by reply_by_key
--   open      answered retryable or unknown: sent, not kept, the next attempt runs
--   answered  success or failure: kept, repeated
--   ended     was pending when its compensation came
-- The trace of an action is not stored but read off all its rows: `done` where one answered
-- success, `maybe` where one is doubtful, taken or pending, else `none`.
CREATE TABLE skald.barrier (
    participant     text COLLATE "C" NOT NULL,
    idempotency_key text COLLATE "C" NOT NULL, -- <saga>:<step>:<op>[:<n>]
    state           text        NOT NULL CHECK
        (state IN ('none', 'taken', 'pending', 'open', 'answered', 'ended')),
    is_doubtful     boolean     NOT NULL DEFAULT false, -- said unknown, or was ended
    is_undone       boolean     NOT NULL DEFAULT false, -- on an action's first key: fenced
    outcome         text        CHECK (outcome IN ('success', 'failure')), -- the kept answer
    data            text,
    headers         jsonb,                     -- pending: of the command to be answered
    at              timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (participant, idempotency_key)
) WITH (fillfactor = 70);
CREATE INDEX barrier_at ON skald.barrier USING brin (at);
