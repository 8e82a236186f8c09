-- saga.sql - starting sagas, deploying definitions, and what people and tools read of both.

-- The saga's own trace: the given one or the transaction's goes on, else a new one begins.
CREATE OR REPLACE FUNCTION skald.saga_trace(p_given text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    v_parent  text := coalesce(p_given, current_setting('skald.traceparent', true));
    v_entropy text := replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', '');
BEGIN
    IF skald.trace_is_valid(v_parent) THEN
        RETURN left(v_parent, 36) || substr(v_entropy, 1, 12) || substr(v_entropy, 61, 4)
            || substr(v_parent, 53, 3);
    END IF;
    RETURN '00-' || substr(v_entropy, 33, 32) || '-' || substr(v_entropy, 1, 12)
        || substr(v_entropy, 61, 4) || '-01';
END $$;

-- The version that a start means: SK004 when there is none, SK006 when it is retired.
CREATE OR REPLACE FUNCTION skald.saga_version(p_name text, p_version int) RETURNS int
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_version int;
    v_retired timestamptz;
BEGIN
    SELECT d.version, d.retired_at INTO v_version, v_retired
      FROM skald.saga_definition d
     WHERE d.name = p_name
       AND CASE WHEN p_version IS NULL THEN d.is_current ELSE d.version = p_version END;
    IF NOT FOUND THEN
        PERFORM skald.refuse('SK004', CASE
            WHEN p_version IS NOT NULL THEN
                format('version: definition %s has no version %s', p_name, p_version)
            WHEN EXISTS (SELECT FROM skald.saga_definition d WHERE d.name = p_name) THEN
                format('version: definition %s has no current version: name one, or run'
                       ' `skald saga use`', p_name)
            ELSE format('name: no definition %s is deployed', p_name) END);
    ELSIF v_retired IS NOT NULL THEN
        PERFORM skald.refuse('SK006',
            format('version: definition %s version %s is retired', p_name, v_version));
    END IF;
    RETURN v_version;
END $$;

CREATE OR REPLACE FUNCTION skald.saga_check_start(p_name text, p_key text, p_input jsonb,
    p_again text, p_correlation_id text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF p_name IS NULL OR p_name !~ '^[a-z][a-z0-9-]{0,62}$' THEN
        PERFORM skald.refuse('SK001', 'name: must be a lower-case name of 1 to 63 of [a-z0-9-]');
    ELSIF p_key IS NULL OR p_key = '' THEN
        PERFORM skald.refuse('SK001', 'key: must be 1 to 255 bytes');
    ELSIF octet_length(p_key) > 255 THEN
        PERFORM skald.refuse('SK007', 'key: must be at most 255 bytes');
    ELSIF p_input IS NULL OR jsonb_typeof(p_input) <> 'object' THEN
        PERFORM skald.refuse('SK001', 'input: must be a JSON object');
    ELSIF octet_length(p_input::text) > 262144 THEN
        PERFORM skald.refuse('SK007', 'input: must be at most 256 KiB');
    ELSIF p_again IS NULL OR p_again NOT IN ('never', 'failed', 'finished') THEN
        PERFORM skald.refuse('SK001', 'again: must be never, failed or finished');
    ELSIF octet_length(p_correlation_id) > 255 THEN
        PERFORM skald.refuse('SK007', 'correlation_id: must be at most 255 bytes');
    ELSIF NOT EXISTS (SELECT FROM skald.installation) THEN
        PERFORM skald.refuse('SK005', 'no orchestrator serves this database: start the saga in'
            ' the one that skaldd serves, or write to topic skald.saga.commands');
    END IF;
END $$;

-- What is kept of an input after its retention. Equal jsonb has equal digests: its text
-- differs in the zeros at the end of a fraction only (outside of strings, which come first).
CREATE OR REPLACE FUNCTION skald.saga_digest(p_input jsonb) RETURNS bytea
LANGUAGE sql IMMUTABLE AS $$
    SELECT sha256(convert_to(regexp_replace(p_input::text,
        '("(?:[^"\\]|\\.)*")|(\.[0-9]*[1-9])0+(?![0-9])|\.0+(?![0-9])', '\1\2', 'g'), 'UTF8'))
$$;

-- One open saga per (name, key). The unique index decides who starts it: a second caller
-- waits for the first and finds its saga, or starts its own if the first rolled back. One
-- that was swept is as good as there.
--
-- What is plainly right is decided here, the rest by saga_check_start and saga_version, which
-- name errors: a transaction calls it once, and each function costs more than what it asks.
CREATE OR REPLACE FUNCTION skald.saga_start(name text, key text, input jsonb,
    version int DEFAULT NULL, again text DEFAULT 'never', correlation_id text DEFAULT NULL,
    traceparent text DEFAULT NULL) RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    v_correlation text := coalesce(nullif(correlation_id, ''),
        nullif(current_setting('skald.correlation_id', true), ''));
    v_input text := input;
    v_version int;
    v_id uuid;
    v_new uuid;
    v_run int;
    v_status text;
    v_outcome text;
    v_is_same boolean;
    v_digits text;
    v_entropy text;
BEGIN
    IF (name ~ '^[a-z][a-z0-9-]{0,62}$' AND octet_length(key) BETWEEN 1 AND 255
        AND left(v_input, 1) = '{' AND octet_length(v_input) <= 262144
        AND again IN ('never', 'failed', 'finished')
        AND coalesce(octet_length(v_correlation), 0) <= 255) IS NOT TRUE THEN
        PERFORM skald.saga_check_start(name, key, input, again, v_correlation);
    END IF;
    LOOP
        -- the newest run, there or swept; the input by the same snapshot
        SELECT r.id, r.run, r.status, r.outcome, r.is_same
          INTO v_id, v_run, v_status, v_outcome, v_is_same
          FROM ((SELECT s.id, s.run, s.status, s.outcome, (SELECT d.data::jsonb = input
                    FROM skald.saga_data d WHERE d.saga_id = s.id AND d.name = '$input')
                 FROM skald.saga s WHERE s.name = saga_start.name AND s.key = saga_start.key
                ORDER BY s.run DESC LIMIT 1)
                UNION ALL
                (SELECT p.id, p.run, 'finished', p.outcome,
                        p.input_digest = skald.saga_digest(input)
                   FROM skald.saga_past p
                  WHERE p.name = saga_start.name AND p.key = saga_start.key
                  ORDER BY p.run DESC LIMIT 1)) AS r(id, run, status, outcome, is_same)
         ORDER BY r.run DESC LIMIT 1;
        IF FOUND AND NOT (v_status = 'finished' AND (again = 'finished'
                OR (again = 'failed' AND v_outcome <> 'completed'))) THEN
            IF v_is_same IS NOT TRUE THEN
                PERFORM skald.refuse('SK003',
                    format('key: saga %s of %s was started with another input', key, name));
            END IF;
            RETURN v_id;
        END IF;
        SELECT d.version INTO v_version FROM skald.saga_definition d, skald.installation i
         WHERE d.name = saga_start.name AND d.retired_at IS NULL
           AND CASE WHEN version IS NULL THEN d.is_current ELSE d.version = version END;
        IF NOT FOUND THEN
            PERFORM skald.saga_check_start(name, key, input, again, v_correlation);
            v_version := skald.saga_version(name, version);
        END IF;
        v_entropy := encode(uuid_send(gen_random_uuid()), 'hex');
        v_digits := concat('0', to_hex((date_part('epoch', clock_timestamp()) * 1000)::bigint),
            '7', substr(v_entropy, 14)); -- a UUIDv7; 11 digits of milliseconds until 2527
        v_new := v_digits;
        INSERT INTO skald.saga AS s (id, name, version, key, run, correlation_id, traceparent,
                                     causation_id)
        VALUES (v_new, name, v_version, key, coalesce(v_run, 0) + 1,
                coalesce(v_correlation, v_new::text),
                CASE WHEN traceparent IS NULL
                          AND coalesce(current_setting('skald.traceparent', true), '') = ''
                     THEN concat('00-', v_digits, '-', left(v_entropy, 16), '-01')
                     ELSE skald.saga_trace(traceparent) END,
                nullif(current_setting('skald.causation_id', true), ''))
        ON CONFLICT ON CONSTRAINT saga_name_key_run_key DO NOTHING;
        IF FOUND THEN
            INSERT INTO skald.saga_data VALUES (v_new, '$input', v_input);
            RETURN v_new;
        END IF;
    END LOOP;
END $$;

-- Definitions. The body was checked by the validator of the library; here its identity.
CREATE OR REPLACE FUNCTION skald.operator_saga_deploy(p_target text, p_actor text,
    p_reason text, p_args jsonb) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    v_version int := (p_args ->> 'version')::int;
    v_hash text := p_args ->> 'hash';
    v_use boolean := coalesce((p_args ->> 'use')::boolean, true);
    v_have text;
BEGIN
    IF v_version IS NULL OR v_hash IS NULL OR p_args ->> 'body' IS NULL THEN
        PERFORM skald.refuse('SK001', 'args: must hold version, hash, body, steps, kinds');
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('skald.saga_definition:' || p_target, 0));
    SELECT d.hash INTO v_have FROM skald.saga_definition d
     WHERE d.name = p_target AND d.version = v_version;
    IF FOUND AND v_have <> v_hash THEN
        PERFORM skald.refuse('SK003', format('version: %s version %s is deployed with another'
            ' content: give the new one another version', p_target, v_version));
    ELSIF FOUND THEN
        RETURN jsonb_build_object('ok', true, 'name', p_target, 'version', v_version,
            'hash', v_hash, 'state', 'unchanged');
    END IF;
    INSERT INTO skald.saga_definition (name, version, hash, body, steps, kinds)
        SELECT p_target, v_version, v_hash, p_args ->> 'body',
               ARRAY(SELECT jsonb_array_elements_text(p_args -> 'steps')),
               ARRAY(SELECT jsonb_array_elements_text(p_args -> 'kinds'));
    INSERT INTO skald.audit_entry (actor, action, target, reason, after)
        VALUES (p_actor, 'saga.deploy', p_target, p_reason,
                jsonb_build_object('version', v_version, 'hash', v_hash));
    IF v_use THEN
        PERFORM skald.operator_saga_use(p_target, p_actor, p_reason, p_args);
    END IF;
    RETURN jsonb_build_object('ok', true, 'name', p_target, 'version', v_version,
        'hash', v_hash, 'state', 'deployed', 'current', v_use);
END $$;

CREATE OR REPLACE FUNCTION skald.operator_saga_use(p_target text, p_actor text,
    p_reason text, p_args jsonb) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    v_version int := skald.saga_version(p_target, (p_args ->> 'version')::int);
    v_before int := (SELECT d.version FROM skald.saga_definition d
                      WHERE d.name = p_target AND d.is_current);
BEGIN
    IF v_before IS DISTINCT FROM v_version THEN
        UPDATE skald.saga_definition d SET is_current = false
         WHERE d.name = p_target AND d.is_current;
        UPDATE skald.saga_definition d SET is_current = true
         WHERE d.name = p_target AND d.version = v_version;
        INSERT INTO skald.audit_entry (actor, action, target, reason, before, after)
            VALUES (p_actor, 'saga.use', p_target, p_reason,
                    jsonb_build_object('version', v_before),
                    jsonb_build_object('version', v_version));
    END IF;
    RETURN jsonb_build_object('ok', true, 'name', p_target, 'version', v_version,
        'before', v_before);
END $$;

-- New starts of it are refused; sagas that run on it go on.
CREATE OR REPLACE FUNCTION skald.operator_saga_retire(p_target text, p_actor text,
    p_reason text, p_args jsonb) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    v_version int := (p_args ->> 'version')::int;
    v_count int;
BEGIN
    IF NOT EXISTS (SELECT FROM skald.saga_definition d WHERE d.name = p_target
                     AND (v_version IS NULL OR d.version = v_version)) THEN
        PERFORM skald.refuse('SK004', format('name: no definition %s%s is deployed', p_target,
            coalesce(' version ' || v_version, '')));
    END IF;
    UPDATE skald.saga_definition d SET retired_at = clock_timestamp()
     WHERE d.name = p_target AND (v_version IS NULL OR d.version = v_version)
       AND d.retired_at IS NULL;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    IF v_count > 0 THEN
        INSERT INTO skald.audit_entry (actor, action, target, reason, after)
            VALUES (p_actor, 'saga.retire', p_target, p_reason,
                    jsonb_build_object('version', v_version, 'retired', v_count));
    END IF;
    RETURN jsonb_build_object('ok', true, 'name', p_target, 'retired', v_count);
END $$;

CREATE OR REPLACE FUNCTION skald.saga_time(p_at timestamptz) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT to_char(p_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
$$;

-- The state vector (saga/vector.c) as steps[] of docs/protocol.md: one item per step,
-- word:attempts:compensation attempts:key round:its compensation's:started:finished:code.
CREATE OR REPLACE FUNCTION skald.saga_steps(p_steps text[], p_kinds text[], p_state text)
RETURNS jsonb LANGUAGE sql STABLE PARALLEL SAFE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$ -- the reader of the view calls it
    SELECT coalesce(jsonb_agg(jsonb_build_object(
               'name', s.name, 'kind', s.kind,
               'state', coalesce(nullif(f.f[1], ''), 'pending'),
               'attempts', coalesce(nullif(f.f[2], ''), '0')::int,
               'compensation_attempts', coalesce(nullif(f.f[3], ''), '0')::int,
               'started_at', skald.saga_time(to_timestamp(nullif(f.f[6], '')::numeric / 1e6)),
               'finished_at', skald.saga_time(to_timestamp(nullif(f.f[7], '')::numeric / 1e6)),
               'error', nullif(f.f[8], '')) ORDER BY s.n), '[]')
      FROM unnest(p_steps, p_kinds) WITH ORDINALITY AS s(name, kind, n)
      LEFT JOIN LATERAL (SELECT string_to_array(
               (string_to_array(split_part(p_state, ';', 1), ','))[s.n], ':') AS f) AS f ON true
$$;

-- What it waits for, as docs/protocol.md says: the whole saga for a person or a daemon, a step
-- for its command to be published, the reply, the end of a backoff, or a person. The core's
-- part of the vector (saga/state.c) has, by step, index, state, wait (1 a reply, 2 a backoff);
-- the 8th number is when that is due.
CREATE OR REPLACE FUNCTION skald.saga_waiting(p_steps text[], s skald.saga)
RETURNS jsonb LANGUAGE sql STABLE PARALLEL SAFE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$ -- the reader of the view calls it
    SELECT coalesce(jsonb_agg(jsonb_build_object('step', w.step, 'what', w.what,
               'since', skald.saga_time(w.since), 'until', skald.saga_time(w.until))
               ORDER BY w.n), '[]')
      FROM (SELECT 0 AS n, NULL::text AS step,
                   CASE WHEN s.paused THEN 'operator' ELSE 'daemon' END AS what,
                   coalesce(CASE WHEN NOT s.paused THEN s.due_at END, s.updated_at) AS since,
                   NULL::timestamptz AS until
             WHERE s.paused OR s.state = '' OR (s.due_at < clock_timestamp() AND NOT EXISTS
                   (SELECT FROM skald.saga_owner o WHERE o.until > clock_timestamp()))
            UNION ALL
            SELECT v.n, v.step,
                   CASE WHEN v.wait = '2' THEN 'backoff'
                        WHEN v.wait <> '1' THEN 'operator'
                        WHEN s.published_at IS NULL AND NOT EXISTS (SELECT FROM skald.relay r
                            WHERE pg_visible_in_snapshot(s.command_xid, r.acked_snapshot))
                        THEN 'relay' ELSE 'reply' END,
                   coalesce((SELECT max(e.at) FROM skald.saga_event_entry e
                              WHERE e.saga_id = s.id AND e.step = v.step
                                AND e.kind IN ('command', 'reply', 'timeout', 'stuck')),
                            s.updated_at),
                   CASE WHEN v.wait IN ('1', '2') THEN to_timestamp(v.due::numeric / 1000) END
              FROM (SELECT f.n, p_steps[f.n] AS step, split_part(f.item, ':', 1) AS word,
                           coalesce(o.o[3], '0') AS wait, o.o[8] AS due
                      FROM unnest(string_to_array(split_part(s.state, ';', 1), ','))
                           WITH ORDINALITY AS f(item, n)
                      LEFT JOIN LATERAL (SELECT string_to_array(p, ' ') AS o
                           FROM unnest((string_to_array(split_part(substr(s.state,
                                strpos(s.state, ';') + 1), '|', 1), ';'))[2:]) AS p
                          WHERE split_part(p, ' ', 1) = (f.n - 1)::text) AS o ON true) AS v
             WHERE v.wait <> '0' OR v.word IN ('stuck', 'undo_stuck')
                OR (v.word = 'unknown' AND s.status = 'stuck')) AS w
     WHERE s.status <> 'finished'
$$;

-- Names and columns are published (docs/protocol.md); add columns at the end only.
CREATE OR REPLACE VIEW skald.sagas AS
SELECT s.id, s.name, s.version, s.key, s.run, s.correlation_id, s.traceparent,
       s.status, s.outcome, s.undo, s.paused, s.overdue, s.signed,
       CASE WHEN s.reason_code IS NOT NULL THEN jsonb_build_object('step', s.reason_step,
            'code', s.reason_code, 'message', s.reason_message) END AS reason,
       skald.saga_steps(d.steps, d.kinds, s.state) AS steps,
       s.due_at, s.deadline_at, s.created_at, s.updated_at, s.finished_at,
       (SELECT i.data FROM skald.saga_data i
         WHERE i.saga_id = s.id AND i.name = '$input') AS input,
       (SELECT json_object_agg(i.name, i.data::json)::text FROM skald.saga_data i
         WHERE i.saga_id = s.id AND i.name NOT IN ('$input', '$output')) AS data,
       (SELECT i.data FROM skald.saga_data i
         WHERE i.saga_id = s.id AND i.name = '$output') AS output,
       skald.saga_waiting(d.steps, s) AS waiting_for
  FROM skald.saga s
  LEFT JOIN skald.saga_definition d ON d.name = s.name AND d.version = s.version;

CREATE OR REPLACE VIEW skald.saga_events AS
SELECT saga_id, seq, at, kind, step, op, attempt, outcome, detail, message_id, correlation_id,
       traceparent
  FROM skald.saga_event_entry;

CREATE OR REPLACE VIEW skald.saga_definitions AS
SELECT d.name, d.version, d.hash, d.is_current AS current, d.retired_at IS NOT NULL AS retired,
       (SELECT count(*) FROM skald.saga s WHERE s.name = d.name AND s.version = d.version
           AND s.status <> 'finished') AS open
  FROM skald.saga_definition d;
