-- 0004: fewer indexes under what a saga writes; what is left of a saga that was swept.

-- Whoever looks for a correlation id finds the saga by it, and its history by the saga.
DROP INDEX skald.saga_event_correlation;

-- Without updated_at, and with a due_at that moves only when it must (orchestrator_save),
-- most updates of a saga change no indexed column: they stay on their page (HOT).
DROP INDEX skald.saga_open;
CREATE INDEX saga_open ON skald.saga (status) WHERE status <> 'finished';
COMMENT ON COLUMN skald.saga.due_at IS
    'look again then, or before: it may be too early, never too late; NULL: an event moves it';

-- Only functions of the schema write these words, and a CHECK with a list of texts costs
-- each statement more than the row it writes.
ALTER TABLE skald.saga DROP CONSTRAINT saga_status_check, DROP CONSTRAINT saga_outcome_check,
    DROP CONSTRAINT saga_undo_check;
ALTER TABLE skald.barrier DROP CONSTRAINT barrier_state_check,
    DROP CONSTRAINT barrier_outcome_check;

-- Room for each row's next version on its page.
ALTER TABLE skald.saga SET (fillfactor = 50);
ALTER TABLE skald.barrier SET (fillfactor = 50);

-- The barrier is swept by the age that its keys tell, which its primary key finds.
DROP INDEX skald.barrier_at;

-- A saga whose retention is over: enough to answer saga_start for ever. Of a key the newest
-- runs are in skald.saga, those before them here.
CREATE TABLE skald.saga_past (
    name         text        NOT NULL,
    key          text        NOT NULL,
    run          int         NOT NULL,
    id           uuid        NOT NULL,
    version      int         NOT NULL,
    outcome      text        NOT NULL,
    input_digest bytea       NOT NULL,         -- skald.saga_digest
    finished_at  timestamptz NOT NULL,
    PRIMARY KEY (name, key, run)
);
