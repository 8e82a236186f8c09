-- 0001: the tables of one source database: outbox, relay, consumers, dead letters, audit.
--
-- Run by skald_migrate inside one transaction, as skald_owner where roles may be
-- created. Everything else (functions, views, rights) is re-applied from
-- sql/functions/ whenever its text changes.

-- The outbox: insert-only. Nobody ever updates or deletes a row; the relay empties
-- whole leaves. A fixed ring of 8 leaves, 2^20 ids each, made here once: no DDL
-- afterwards, so nothing that fails to run can make an INSERT fail or wait.
CREATE SEQUENCE skald.outbox_id AS bigint MINVALUE 0 START 0 CACHE 1;

CREATE TABLE skald.outbox (
    id             bigint      NOT NULL DEFAULT nextval('skald.outbox_id'),
    -- the top-level transaction: what snapshots list (xmin may be a subtransaction's)
    xid            xid8        NOT NULL DEFAULT pg_current_xact_id(),
    message_id     uuid        NOT NULL,
    at             timestamptz NOT NULL DEFAULT clock_timestamp(),
    topic          text        NOT NULL,
    key            bytea,
    type           text        NOT NULL,
    source         text        NOT NULL,
    subject        text,
    content_type   text,
    data           bytea,          -- NULL: a tombstone
    headers        jsonb,          -- NULL: none of its own; an object of texts
    correlation_id text        NOT NULL,
    causation_id   text,
    traceparent    text        NOT NULL,
    expires_at     timestamptz
) PARTITION BY LIST (((id >> 20) & 7));

DO $$
BEGIN
    FOR leaf IN 0..7 LOOP
        EXECUTE format('CREATE TABLE skald.outbox_%s PARTITION OF skald.outbox FOR VALUES IN (%s)
                            WITH (autovacuum_vacuum_insert_threshold = 200000, fillfactor = 100)',
                       leaf, leaf);
        EXECUTE format('CREATE INDEX outbox_%s_xid ON skald.outbox_%s (xid)', leaf, leaf);
    END LOOP;
END $$;

-- Who leads: relays, later the orchestrator. Database clock only.
CREATE TABLE skald.lease (
    kind   text        NOT NULL,
    name   text        NOT NULL,
    owner  text        NOT NULL,
    term   bigint      NOT NULL,
    until  timestamptz NOT NULL,
    PRIMARY KEY (kind, name)
) WITH (fillfactor = 50);

-- The relay of this database: one row.
--   acked_snapshot  whatever it sees is acknowledged by Kafka
--   tick            the newest tick; its rows are what tick_snapshot sees and acked_snapshot
--                   does not, in id order. Equal snapshots: nothing is outstanding.
--   done_*          inside an unfinished tick: up to here acknowledged (a restart goes on there)
CREATE TABLE skald.relay (
    only_row          boolean     PRIMARY KEY DEFAULT true CHECK (only_row),
    stream            text        NOT NULL CHECK (stream ~ '^[0-9a-f]{16}$'),
    epoch             bigint      NOT NULL CHECK (epoch BETWEEN 0 AND 4294967295),
    mode              text        NOT NULL CHECK (mode IN ('poll', 'wal')),
    system_identifier text        NOT NULL,
    timeline          text        NOT NULL,
    acked_snapshot    pg_snapshot NOT NULL,
    tick              bigint      NOT NULL,
    tick_snapshot     pg_snapshot NOT NULL,
    done_id           bigint      NOT NULL DEFAULT -1,
    done_ordinal      bigint      NOT NULL DEFAULT 0,
    position          text,                           -- of the last acknowledged record
    term              bigint      NOT NULL DEFAULT 0,
    owner             text,
    heartbeat_at      timestamptz
) WITH (fillfactor = 50);

-- Each acknowledged tick leaves a mark, kept 1 h: when was what published.
CREATE TABLE skald.relay_mark (
    at       timestamptz NOT NULL,
    snapshot pg_snapshot NOT NULL
);
CREATE INDEX relay_mark_at ON skald.relay_mark (at);

-- Consumers: how far each lane of each partition is done. lanes is fixed at first use.
CREATE TABLE skald.consumer_group (
    consumer_group text PRIMARY KEY,
    lanes          int  NOT NULL CHECK (lanes BETWEEN 1 AND 64)
);

CREATE TABLE skald.consumer_partition (
    consumer_group text   NOT NULL,
    topic          text   NOT NULL,
    partition      int    NOT NULL,
    end_offset     bigint,                     -- the log's end as last seen, for lag
    -- the newest applied record, to notice that a topic was deleted and made again
    seen_offset    bigint,
    seen_digest    bigint,
    stopped        text,                       -- why it does not go on; NULL: it does
    updated_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer_group, topic, partition)
) WITH (fillfactor = 50);

CREATE TABLE skald.consumer_lane (
    consumer_group text   NOT NULL,
    topic          text   NOT NULL,
    partition      int    NOT NULL,
    lane           int    NOT NULL,
    done           bigint NOT NULL,            -- every offset below is done
    term           bigint NOT NULL DEFAULT 0,  -- fences: rises with every claim
    owner          text,
    backend_pid    int,
    PRIMARY KEY (consumer_group, topic, partition, lane)
) WITH (fillfactor = 50);

CREATE TABLE skald.consumer_position (
    consumer_group text NOT NULL,
    topic          text NOT NULL,
    partition      int  NOT NULL,
    lane           int  NOT NULL,
    stream         text NOT NULL,
    position       text COLLATE "C" NOT NULL,  -- highest applied of this history
    PRIMARY KEY (consumer_group, topic, partition, lane, stream)
) WITH (fillfactor = 50);

-- consume_offset: in-order consumers of any language, one row per partition.
CREATE TABLE skald.consumer_offset (
    consumer_group text   NOT NULL,
    topic          text   NOT NULL,
    partition      int    NOT NULL,
    record_offset  bigint NOT NULL,            -- the last applied
    updated_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer_group, topic, partition)
) WITH (fillfactor = 50);

-- consume_once: a row per message, for records without a position.
CREATE TABLE skald.inbox (
    consumer_group text        NOT NULL,
    message_id     text        NOT NULL,
    at             timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer_group, message_id)
);
CREATE INDEX inbox_at ON skald.inbox USING brin (at);

CREATE TABLE skald.dead_letter_entry (
    id             uuid        PRIMARY KEY,
    at             timestamptz NOT NULL DEFAULT clock_timestamp(),
    consumer_group text        NOT NULL,
    topic          text        NOT NULL,
    partition      int         NOT NULL,
    record_offset  bigint      NOT NULL,
    record_at      timestamptz,
    key            bytea,
    value          bytea,
    headers        jsonb       NOT NULL DEFAULT '{}',  -- readable: last value of each name
    headers_raw    bytea,          -- exact: order, duplicates, nulls, any bytes (consumers/dead.c)
    digest         bytea       NOT NULL,               -- of key, value and headers: same record?
    message_id     text,
    type           text,
    correlation_id text,
    class          text        NOT NULL CHECK (class IN ('RETRY', 'FATAL', 'DECODE', 'SCHEMA', 'EXPIRED')),
    code           text        NOT NULL DEFAULT '',
    message        text        NOT NULL,
    fingerprint    text        NOT NULL,
    attempts       int         NOT NULL DEFAULT 1,
    state          text        NOT NULL DEFAULT 'dead'
        CHECK (state IN ('dead', 'requested', 'claimed', 'resolved', 'archived', 'superseded', 'expired')),
    version        int         NOT NULL DEFAULT 1,     -- compare-and-set
    requested_by   text,
    changed_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    replay_run     uuid,
    UNIQUE (consumer_group, topic, partition, record_offset, digest)
);
CREATE INDEX dead_letter_entry_at ON skald.dead_letter_entry (at);
CREATE INDEX dead_letter_entry_correlation ON skald.dead_letter_entry (correlation_id);
CREATE INDEX dead_letter_entry_wanted ON skald.dead_letter_entry (consumer_group, topic, partition)
    WHERE state IN ('requested', 'claimed');

-- A key that waits because its head could not be published or applied.
CREATE TABLE skald.parked_key (
    kind            text        NOT NULL CHECK (kind IN ('relay', 'consumer')),
    place           text        NOT NULL,
    topic           text        NOT NULL,
    key             bytea       NOT NULL,
    head_message_id text,
    waiting         bigint      NOT NULL DEFAULT 1,
    since           timestamptz NOT NULL DEFAULT now(),
    next_at         timestamptz,
    reason          text        NOT NULL,
    PRIMARY KEY (kind, place, topic, key)
);

CREATE TABLE skald.audit_entry (
    id           bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at           timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor        text        NOT NULL,
    session_role text        NOT NULL DEFAULT session_user,
    action       text        NOT NULL,
    target       text        NOT NULL,
    reason       text,
    before       jsonb,
    after        jsonb
);
CREATE INDEX audit_entry_at ON skald.audit_entry (at);

-- The stream is drawn once per database; the epoch is the second it begins in. Nothing
-- is acknowledged yet: whatever was ever inserted is outstanding. What identifies the
-- server is recorded as far as the migrating role may ask; '' is filled in by the relay.
DO $$
DECLARE
    identifier text := '';
    timeline   text := '';
BEGIN
    IF has_function_privilege('pg_control_system()', 'EXECUTE') THEN
        EXECUTE 'SELECT system_identifier::text FROM pg_catalog.pg_control_system()' INTO identifier;
    END IF;
    IF has_function_privilege('pg_walfile_name(pg_lsn)', 'EXECUTE')
        AND has_function_privilege('pg_current_wal_lsn()', 'EXECUTE')
        AND NOT pg_is_in_recovery() THEN
        EXECUTE 'SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)' INTO timeline;
    END IF;
    INSERT INTO skald.relay (stream, epoch, mode, system_identifier, timeline,
                             acked_snapshot, tick, tick_snapshot)
    VALUES (substr(replace(gen_random_uuid()::text, '-', ''), 17, 16),
            floor(extract(epoch FROM clock_timestamp())), 'poll', identifier, timeline,
            '1:1:', 0, '1:1:');
END $$;
