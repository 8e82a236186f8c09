-- 0003: the relay's second way out (WAL), messages that wait, partition counts as used.

-- mode is what the relay does, which need not be what is configured: without a slot, or
-- before the first, it polls. In mode wal acked_snapshot is not exact but a lower bound:
-- everything it sees is acknowledged, and it sees every commit below snapshot_lsn.
ALTER TABLE skald.relay
    ADD COLUMN acked_lsn     pg_lsn,   -- wal: every commit that ends here or before is acknowledged
    ADD COLUMN snapshot_lsn  pg_lsn,   -- wal: acked_snapshot sees all that committed below
    -- Not NULL: rows that acked_snapshot does not see may be in the topics already, under
    -- positions above this one (slot lost, failover). They are looked up there, and what
    -- is published of them is flagged ce_recovered.
    ADD COLUMN recover_from  text,
    ADD COLUMN epoch_wanted  boolean NOT NULL DEFAULT false, -- by `skald outbox new-epoch`
    ADD COLUMN slot_dropped_at timestamptz, -- shed at the disk limit, or lost: since when we poll instead
    ADD COLUMN slot_dropped  text;          -- and why

-- Messages that wait for the head of their key, which could not be published, or for
-- themselves. A copy of the outbox row, whose leaf may be emptied meanwhile.
CREATE TABLE skald.parked_message (
    id             bigint      PRIMARY KEY,  -- of the outbox
    position       text COLLATE "C" NOT NULL, -- where it stood when it was parked
    parked_key     bytea       NOT NULL,     -- key, without one the ce_id's text
    -- where it stood when it was let out and had to be parked again; becomes its position
    -- once that release is over. NULL: waits
    released_at    text COLLATE "C",
    message_id     uuid        NOT NULL,
    at             timestamptz NOT NULL,
    topic          text        NOT NULL,
    key            bytea,
    type           text        NOT NULL,
    source         text        NOT NULL,
    subject        text,
    content_type   text,
    data           bytea,
    headers        jsonb,
    correlation_id text        NOT NULL,
    causation_id   text,
    traceparent    text        NOT NULL,
    expires_at     timestamptz
);
-- A big payload is what is parked most often: compressing it would hold up the others.
ALTER TABLE skald.parked_message ALTER COLUMN data SET STORAGE EXTERNAL;
CREATE INDEX parked_message_key ON skald.parked_message (topic, parked_key, position);

ALTER TABLE skald.parked_key
    ADD COLUMN attempts     int  NOT NULL DEFAULT 1, -- times its head was refused: backoff
    ADD COLUMN code         text NOT NULL DEFAULT '',
    ADD COLUMN releasing_id bigint,  -- outbox id of the marker on its way, or passed and not
                                     -- recorded yet; NULL: none
    ADD COLUMN parked_at    text COLLATE "C", -- rows of the key wait from this position on,
    ADD COLUMN released_at  text COLLATE "C", -- up to this one, where the marker stood,
    ADD COLUMN again_at     text COLLATE "C"; -- and from this one on again

-- Where a key goes depends on how many partitions its topic has: the count stays as first
-- used until nothing is outstanding, also over a restart.
CREATE TABLE skald.relay_topic (
    topic      text        PRIMARY KEY,
    partitions int         NOT NULL CHECK (partitions > 0),
    at         timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Set while the relay sleeps: then, and only then, a writer wakes it by NOTIFY.
CREATE SEQUENCE skald.relay_sleep MINVALUE 0 START 0;

-- Made anew with more arguments and answers by functions/relay.sql.
DROP FUNCTION IF EXISTS skald.relay_lead(bigint, text, text);
DROP FUNCTION IF EXISTS skald.relay_turn(bigint, bigint, text, boolean, boolean, boolean);
