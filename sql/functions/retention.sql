-- retention.sql - what is kept for a while only, and is not the outbox (relay.sql's ring).

-- Called by the leading relay now and then. Small batches: a sweep holds no lock for long,
-- and the next one goes on. NULL: for ever. An open dead letter is never dropped.
CREATE OR REPLACE FUNCTION skald.relay_sweep(my_term bigint, consumed interval,
    dead_letters interval, audit interval) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    batch CONSTANT int := 10000;
    swept bigint := 0;
    n     bigint;
BEGIN
    IF NOT EXISTS (SELECT FROM skald.relay AS r WHERE r.term = my_term) THEN
        RETURN 0; -- another leads, and sweeps
    END IF;
    IF consumed IS NOT NULL THEN
        DELETE FROM skald.inbox AS i WHERE i.ctid = ANY (ARRAY(
            SELECT o.ctid FROM skald.inbox AS o
             WHERE o.at < clock_timestamp() - consumed LIMIT batch));
        GET DIAGNOSTICS n = ROW_COUNT;
        swept := swept + n;
    END IF;
    IF dead_letters IS NOT NULL THEN
        DELETE FROM skald.dead_letter_entry AS d WHERE d.id = ANY (ARRAY(
            SELECT o.id FROM skald.dead_letter_entry AS o
             WHERE o.at < clock_timestamp() - dead_letters
               AND o.changed_at < clock_timestamp() - dead_letters
               AND o.state NOT IN ('dead', 'requested', 'claimed') LIMIT batch));
        GET DIAGNOSTICS n = ROW_COUNT;
        swept := swept + n;
    END IF;
    IF audit IS NOT NULL THEN
        DELETE FROM skald.audit_entry AS a WHERE a.id = ANY (ARRAY(
            SELECT o.id FROM skald.audit_entry AS o
             WHERE o.at < clock_timestamp() - audit LIMIT batch));
        GET DIAGNOSTICS n = ROW_COUNT;
        swept := swept + n;
    END IF;
    RETURN swept;
END $$;
