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
-- Times in which some partition had no caught-up owner for 5 s or more: reply time-outs armed
-- before the end of one start anew.
CREATE TABLE skald.saga_gap (
    began_at timestamptz NOT NULL,
    ended_at timestamptz NOT NULL
);

-- The barrier: a participant's two facts. Per idempotency key the answer ...
CREATE TABLE skald.barrier (
    participant     text        NOT NULL,
    idempotency_key text        NOT NULL,
    saga_id         uuid        NOT NULL,
    step            text        NOT NULL,
    op              text        NOT NULL CHECK (op IN ('action', 'compensation')),
    state           text        NOT NULL CHECK (state IN ('taken', 'pending', 'answered', 'open')),
    outcome         text,                      -- kept: success or failure
    data            text,
    headers         jsonb       NOT NULL,      -- of the command that is to be answered
    at              timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (participant, idempotency_key)
) WITH (fillfactor = 70);
-- ... and per step, across rounds, the trace of the action and whether its undo was taken.
CREATE TABLE skald.barrier_step (
    participant text    NOT NULL,
    saga_id     uuid    NOT NULL,
    step        text    NOT NULL,
    trace       text    NOT NULL DEFAULT 'none' CHECK (trace IN ('none', 'maybe', 'done')),
    is_undone   boolean NOT NULL DEFAULT false,
    PRIMARY KEY (participant, saga_id, step)
) WITH (fillfactor = 70);
