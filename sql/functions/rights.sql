-- rights.sql - who may what. Runs last, and whenever a function changed.
--
-- Rights go by the names of functions as they are found, so that a new one is covered by
-- its prefix and a missing one is no error; only doors (SECURITY DEFINER) are granted, what
-- they call is nobody's. Roles that do not exist are passed over
-- (`db migrate --no-roles`); run skald.apply_rights() once they do.

CREATE OR REPLACE FUNCTION skald.apply_rights() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    app_functions CONSTANT text :=
        '^(outbox_add|outbox_add_bytes|context|consume_once|consume_offset|dead_letter|consumer_.*'
        '|saga_start|participate|participant_.*|reply|reply_later|reply_by_key|action_reply)$';
    daemon_functions CONSTANT text := '^(relay_.*|park_.*|lease_.*|orchestrator_.*)$';
    operator_functions CONSTANT text := '^operator_act$';
    view_functions CONSTANT text := '^(saga_(steps|waiting)|wal_slot)$'; -- called as whoever reads the view
    -- payload, and who may not read it
    payload CONSTANT text[] := ARRAY['dead_letters.key', 'dead_letters.value',
        'dead_letters.headers', 'sagas.input', 'sagas.data', 'sagas.output', 'saga_events.detail'];
    app boolean := to_regrole('skald_app') IS NOT NULL;
    operator boolean := to_regrole('skald_operator') IS NOT NULL;
    daemon boolean := to_regrole('skald_daemon') IS NOT NULL;
    reader boolean := to_regrole('skald_reader') IS NOT NULL;
    r record;
BEGIN
    FOR r IN SELECT rolname FROM pg_roles
        WHERE rolname IN ('skald_app', 'skald_operator', 'skald_daemon', 'skald_reader') LOOP
        EXECUTE format('GRANT USAGE ON SCHEMA skald TO %I', r.rolname);
        EXECUTE format('GRANT SELECT ON skald.schema_version TO %I', r.rolname);
    END LOOP;

    FOR r IN SELECT p.oid::regprocedure AS signature, p.proname AS name, p.prosecdef AS is_door
        FROM pg_proc AS p WHERE p.pronamespace = 'skald'::regnamespace LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', r.signature);
        IF NOT r.is_door THEN
            CONTINUE;
        ELSIF r.name ~ app_functions THEN
            IF app THEN
                EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO skald_app', r.signature);
            END IF;
            IF daemon THEN
                EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO skald_daemon', r.signature);
            END IF;
        ELSIF r.name ~ daemon_functions AND daemon THEN
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO skald_daemon', r.signature);
        ELSIF r.name ~ view_functions AND reader AND operator AND daemon THEN
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO skald_reader, skald_operator,'
                ' skald_daemon', r.signature);
        ELSIF r.name ~ operator_functions AND operator THEN
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO skald_operator', r.signature);
        END IF;
    END LOOP;

    FOR r IN SELECT c.relname AS name,
            string_agg(format('%I', a.attname), ', ' ORDER BY a.attnum) AS columns
        FROM pg_class AS c
        JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        WHERE c.relnamespace = 'skald'::regnamespace AND c.relkind = 'v'
            AND c.relname || '.' || a.attname <> ALL (payload)
        GROUP BY c.relname LOOP
        IF reader THEN
            EXECUTE format('GRANT SELECT (%s) ON skald.%I TO skald_reader', r.columns, r.name);
        END IF;
        IF daemon THEN
            EXECUTE format('GRANT SELECT (%s) ON skald.%I TO skald_daemon', r.columns, r.name);
        END IF;
        IF operator THEN
            EXECUTE format('GRANT SELECT ON skald.%I TO skald_operator', r.name);
        END IF;
    END LOOP;

    IF daemon THEN
        -- what the loops need: the relay reads rows, the lease is taken by plain statements
        GRANT SELECT ON skald.outbox TO skald_daemon;
        GRANT SELECT, UPDATE ON skald.relay TO skald_daemon;
        GRANT SELECT, INSERT, UPDATE, DELETE ON skald.lease, skald.parked_key TO skald_daemon;
        GRANT SELECT, INSERT, DELETE ON skald.relay_mark TO skald_daemon;
        GRANT USAGE, SELECT ON SEQUENCE skald.outbox_id TO skald_daemon;
        GRANT SELECT ON skald.consumer_group, skald.consumer_partition, skald.consumer_lane,
            skald.consumer_position, skald.consumer_offset TO skald_daemon;
    END IF;
    -- what the views leave out and `skald status`, `doctor`, `outbox ls`, `consumer lanes` show
    FOR r IN SELECT rolname FROM pg_roles
        WHERE rolname IN ('skald_operator', 'skald_daemon', 'skald_reader') LOOP
        EXECUTE format('GRANT SELECT (name, key, run, id, version, outcome, finished_at)'
            ' ON skald.saga_past TO %I', r.rolname);
    END LOOP;
    IF operator THEN
        GRANT SELECT ON skald.outbox, skald.dead_letter_entry, skald.relay, skald.relay_mark,
            skald.lease, skald.consumer_group, skald.consumer_partition, skald.consumer_lane,
            skald.consumer_position, skald.consumer_offset, skald.installation,
            skald.saga_owner, skald.saga_partition TO skald_operator;
        GRANT SELECT ON skald.parked_message, skald.relay_topic TO skald_operator;
    END IF;
    IF reader THEN
        GRANT SELECT (id, xid, message_id, at, topic, key, type, source, subject, content_type,
            correlation_id, causation_id, traceparent, expires_at) ON skald.outbox
            TO skald_reader;
        GRANT SELECT ON skald.relay, skald.relay_mark, skald.lease, skald.consumer_group,
            skald.consumer_partition, skald.consumer_lane, skald.consumer_position,
            skald.consumer_offset, skald.installation, skald.saga_owner, skald.saga_partition
            TO skald_reader;
        GRANT SELECT (id, position, parked_key, released_at, message_id, at, topic, key, type,
            source, subject, content_type, correlation_id, causation_id, traceparent, expires_at)
            ON skald.parked_message TO skald_reader;
        GRANT SELECT ON skald.relay_topic TO skald_reader;
    END IF;
END $$;

SELECT skald.apply_rights();
