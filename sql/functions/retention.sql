-- retention.sql - what is kept for a while only, and is not the outbox (relay.sql's ring).

-- How long barrier rows stay, at least: as long as any session may believe that they are
-- there. That is skald.barrier_retention (barrier_is_old reads it), as it is here and as it is
-- set for this database or a role. NULL: for ever, also where one of them is no interval.
CREATE OR REPLACE FUNCTION skald.barrier_kept(p_asked interval) RETURNS interval
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (
        SELECT CASE WHEN bool_or(v.kept IS NULL OR v.kept = '0') THEN NULL
                    ELSE max(v.kept) END
          FROM (SELECT p_asked AS kept
                UNION ALL
                SELECT coalesce(nullif(current_setting('skald.barrier_retention', true), ''),
                                '400 days')::interval
                UNION ALL
                SELECT split_part(c.line, '=', 2)::interval
                  FROM pg_db_role_setting AS s, unnest(s.setconfig) AS c(line)
                 WHERE s.setdatabase IN (0, (SELECT d.oid FROM pg_database AS d
                                              WHERE d.datname = current_database()))
                   AND c.line LIKE 'skald.barrier\_retention=_%') AS v);
EXCEPTION WHEN data_exception THEN
    RETURN NULL;
END $$;

-- Barrier rows of sagas so old that a late action is refused and a late compensation runs
-- without them. A day more, for transactions that looked at their age before. The keys begin
-- with the saga's id, a UUIDv7, so the primary key has the oldest first; ids that do not tell
-- their age stay.
CREATE OR REPLACE FUNCTION skald.barrier_sweep(p_retention interval, p_max int) RETURNS bigint
LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    v_before      timestamptz := clock_timestamp() - p_retention - interval '1 day';
    v_end         text := lpad(to_hex((date_part('epoch', v_before) * 1000)::bigint), 12, '0');
    v_participant text := '';
    v_swept       bigint := 0;
    v_count       bigint;
BEGIN
    v_end := left(v_end, 8) || '-' || substr(v_end, 9);
    LOOP
        SELECT min(b.participant) INTO v_participant FROM skald.barrier AS b
         WHERE b.participant > v_participant;
        EXIT WHEN v_participant IS NULL OR v_swept >= p_max;
        DELETE FROM skald.barrier AS b
         WHERE b.participant = v_participant AND b.idempotency_key = ANY (ARRAY(
            SELECT o.idempotency_key FROM skald.barrier AS o
             WHERE o.participant = v_participant AND o.idempotency_key < v_end
               AND substr(o.idempotency_key, 15, 1) = '7' AND o.at < v_before
             ORDER BY o.idempotency_key LIMIT p_max - v_swept FOR UPDATE SKIP LOCKED));
        GET DIAGNOSTICS v_count = ROW_COUNT;
        v_swept := v_swept + v_count;
    END LOOP;
    RETURN v_swept;
END $$;

-- Called by the leading relay now and then. Small batches: a sweep holds no lock for long,
-- and the next one goes on. NULL: for ever. An open dead letter is never dropped.
DROP FUNCTION IF EXISTS skald.relay_sweep(bigint, interval, interval, interval);
CREATE OR REPLACE FUNCTION skald.relay_sweep(my_term bigint, consumed interval,
    dead_letters interval, audit interval, barrier interval DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    batch CONSTANT int := 10000;
    swept bigint := 0;
    n     bigint;
    kept  interval;
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
    kept := skald.barrier_kept(barrier);
    IF kept IS NOT NULL THEN
        swept := swept + skald.barrier_sweep(kept, batch);
    END IF;
    RETURN swept;
END $$;
