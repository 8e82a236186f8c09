-- Dead letters: what a consumer could not apply, with its raw bytes, and the verbs by
-- which an operator brings it back.
--
--   dead --dlq.replay--> requested --runner--> claimed --applied--> resolved
--    ^                                            |
--    +------------- failed again -----------------+---- deadline over ---> expired
--
-- Every arrow is a compare-and-set on (state, version). headers is for people: the last
-- value of each name, a text, null, or {"base64": "..."} when the value is not UTF-8 (or
-- holds a NUL, which jsonb cannot). headers_raw is exact: for each header in order int32
-- length and bytes of the name, int32 length (-1: null) and bytes of the value, big-endian.

-- Exact form of headers that came as jsonb.
CREATE OR REPLACE FUNCTION skald.dead_letter_pack(p_headers jsonb)
RETURNS bytea LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(string_agg(
               int4send(octet_length(h.name)) || h.name
               || CASE WHEN h.value IS NULL THEN int4send(-1)
                       ELSE int4send(octet_length(h.value)) || h.value END, ''::bytea
               ORDER BY h.name), ''::bytea)
      FROM (SELECT convert_to(e.key, 'UTF8') AS name,
                   CASE jsonb_typeof(e.value)
                       WHEN 'null' THEN NULL
                       WHEN 'object' THEN decode(e.value ->> 'base64', 'base64')
                       ELSE convert_to(e.value #>> '{}', 'UTF8')
                   END AS value
              FROM jsonb_each(p_headers) e) h
$$;

-- 16 bytes of a SHA-256 as a UUID of version 8 (RFC 9562: made by our own rule).
CREATE OR REPLACE FUNCTION skald.dead_letter_uuid(p_hash bytea)
RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
    SELECT encode(set_byte(set_byte(substring(p_hash FROM 1 FOR 16),
                                    6, (get_byte(p_hash, 6) & 15) | 128),
                           8, (get_byte(p_hash, 8) & 63) | 128), 'hex')::uuid
$$;

-- A name that no other group, topic pair has, within Kafka's rule for topics.
CREATE OR REPLACE FUNCTION skald.dead_letter_topic(p_group text, p_topic text)
RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN length(t.plain) <= 249 AND t.plain ~ '^[A-Za-z0-9._-]+$' THEN t.plain
                ELSE left(regexp_replace(t.plain, '[^A-Za-z0-9._-]', '_', 'g'), 232) || '-'
                     || left(md5(t.plain), 16) END
      FROM (SELECT 'dlq.' || p_group || '.' || p_topic AS plain) t
$$;

-- Same class, code, type and message but for its numbers: one trouble.
CREATE OR REPLACE FUNCTION skald.dead_letter_fingerprint(
    p_class text, p_code text, p_type text, p_message text)
RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT left(md5(p_class || chr(10) || p_code || chr(10) || coalesce(p_type, '') || chr(10)
                || regexp_replace(p_message, '[0-9]+', '#', 'g')), 16)
$$;

-- The business transaction, in any of the dialects seen in the wild.
CREATE OR REPLACE FUNCTION skald.dead_letter_correlation(p_headers jsonb)
RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT left(coalesce(p_headers ->> 'ce_correlationid',
        (SELECT e.value FROM jsonb_each_text(p_headers) e
          WHERE lower(e.key) = 'x-correlation-id' LIMIT 1),
        p_headers ->> 'correlation-id', p_headers ->> 'correlation_id',
        p_headers ->> 'correlationId', p_headers ->> 'CorrelationId',
        p_headers ->> 'NServiceBus.CorrelationId', p_headers ->> 'kafka_correlationId',
        p_headers ->> 'ce_id'), 255)
$$;

-- Headers of the mirrored record: the original ones that are text and that the relay does
-- not write itself, then x-dlq-*. One value per name.
CREATE OR REPLACE FUNCTION skald.dead_letter_headers(
    e skald.dead_letter_entry, p_consumer text, p_reason text, p_first_failure timestamptz,
    p_truncated boolean)
RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT coalesce((SELECT jsonb_object_agg(h.key, h.value) FROM jsonb_each(e.headers) h
                      WHERE jsonb_typeof(h.value) = 'string' AND h.key NOT LIKE 'x-dlq-%'
                        AND h.key NOT LIKE 'x-replay-%' AND h.key <> ''
                        AND h.key NOT IN ('ce_specversion', 'ce_id', 'ce_source', 'ce_type',
                            'ce_time', 'ce_subject', 'content-type', 'ce_correlationid',
                            'ce_causationid', 'traceparent', 'ce_expirytime', 'ce_stream',
                            'ce_sequence', 'ce_recovered')), '{}')
        || jsonb_strip_nulls(jsonb_build_object(
            'x-dlq-version', '1',
            'x-dlq-id', e.id::text,
            'x-dlq-original-topic', coalesce(e.headers ->> 'x-dlq-original-topic', e.topic),
            'x-dlq-original-partition',
                coalesce(e.headers ->> 'x-dlq-original-partition', e.partition::text),
            'x-dlq-original-offset',
                coalesce(e.headers ->> 'x-dlq-original-offset', e.record_offset::text),
            'x-dlq-original-timestamp', coalesce(e.headers ->> 'x-dlq-original-timestamp',
                (extract(epoch FROM e.record_at) * 1000)::bigint::text),
            'x-dlq-original-key-present', coalesce(e.headers ->> 'x-dlq-original-key-present',
                (e.key IS NOT NULL)::text),
            'x-dlq-original-id', e.message_id,
            'x-dlq-group', e.consumer_group,
            'x-dlq-consumer', p_consumer,
            'x-dlq-handler', p_consumer,
            'x-dlq-class', e.class,
            'x-dlq-reason', p_reason,
            'x-dlq-code', nullif(e.code, ''),
            'x-dlq-message', e.message,
            'x-dlq-fingerprint', e.fingerprint,
            'x-dlq-attempts', e.attempts::text,
            'x-dlq-first-failure',
                to_char(p_first_failure AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
            'x-dlq-last-failure',
                to_char(e.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
            'x-dlq-truncated', CASE WHEN p_truncated THEN 'value' END))
$$;

-- The mirror: same key, same id if that was a UUID, to dlq.<group>.<topic>.
CREATE OR REPLACE FUNCTION skald.dead_letter_mirror(
    e skald.dead_letter_entry, p_consumer text, p_reason text, p_first_failure timestamptz,
    p_plain boolean)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_truncated boolean := coalesce(octet_length(e.value), 0) > 16777216;
    v_headers jsonb := skald.dead_letter_headers(e, p_consumer, p_reason, p_first_failure,
                                                 v_truncated);
    v_trace text := e.headers ->> 'traceparent';
BEGIN
    IF p_plain THEN
        SELECT jsonb_object_agg(h.key, h.value) || '{"x-dlq-truncated": "headers"}'
          INTO v_headers FROM jsonb_each(v_headers) h WHERE h.key LIKE 'x-dlq-%';
    END IF;
    PERFORM skald.outbox_put(
        message_id => CASE WHEN e.message_id
                ~ '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'
            THEN e.message_id::uuid ELSE e.id END,
        topic => skald.dead_letter_topic(e.consumer_group, e.topic),
        key => CASE WHEN octet_length(e.key) <= 32768 THEN e.key END,
        type => CASE WHEN octet_length(e.type) BETWEEN 1 AND 255 THEN e.type
                     ELSE 'skald.dead-letter' END,
        source => CASE WHEN octet_length(e.headers ->> 'ce_source') BETWEEN 1 AND 255
                       THEN e.headers ->> 'ce_source' ELSE '/' || current_database() END,
        subject => CASE WHEN octet_length(e.headers ->> 'ce_subject') BETWEEN 1 AND 255
                        THEN e.headers ->> 'ce_subject' END,
        content_type => CASE WHEN octet_length(e.headers ->> 'content-type') BETWEEN 1 AND 255
                             THEN e.headers ->> 'content-type'
                             ELSE 'application/octet-stream' END,
        data => CASE WHEN v_truncated THEN NULL ELSE e.value END,
        headers => v_headers,
        correlation_id => coalesce(nullif(e.correlation_id, ''), e.id::text),
        causation_id => CASE WHEN octet_length(e.headers ->> 'ce_causationid') BETWEEN 1 AND 255
                             THEN e.headers ->> 'ce_causationid' END,
        traceparent => CASE WHEN v_trace ~ '^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$'
                            THEN v_trace END,
        expires_at => NULL);
END $$;

-- One dead letter, in the transaction that moves the watermarks past it. The same record
-- a second time returns the first id and does nothing.
CREATE OR REPLACE FUNCTION skald.consumer_dead_letter(
    p_group text, p_topic text, p_partition int, p_offset bigint, p_record_at timestamptz,
    p_key bytea, p_value bytea, p_headers jsonb, p_headers_raw bytea, p_class text, p_code text,
    p_message text, p_attempts int, p_reason text, p_first_failure timestamptz, p_consumer text)
RETURNS uuid LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    e skald.dead_letter_entry;
    v_state text;
BEGIN
    e.digest := sha256(
        int4send(coalesce(octet_length(p_key), -1)) || coalesce(p_key, ''::bytea)
        || int4send(coalesce(octet_length(p_value), -1)) || coalesce(p_value, ''::bytea)
        || convert_to(p_headers::text, 'UTF8'));
    e.id := skald.dead_letter_uuid(sha256(
        convert_to(p_group, 'UTF8') || '\x00'::bytea || convert_to(p_topic, 'UTF8')
        || '\x00'::bytea || int4send(p_partition) || int8send(p_offset) || e.digest));
    e.at := clock_timestamp();
    e.consumer_group := p_group;
    e.topic := p_topic;
    e.partition := p_partition;
    e.record_offset := p_offset;
    e.record_at := p_record_at;
    e.key := p_key;
    e.value := p_value;
    e.headers := p_headers;
    e.headers_raw := p_headers_raw;
    e.message_id := left(p_headers ->> 'ce_id', 1024);
    e.type := left(p_headers ->> 'ce_type', 1024);
    e.correlation_id := skald.dead_letter_correlation(p_headers);
    e.class := p_class;
    e.code := left(coalesce(p_code, ''), 64);
    e.message := left(coalesce(p_message, ''), 1024);
    e.fingerprint := skald.dead_letter_fingerprint(e.class, e.code, e.type, e.message);
    e.attempts := coalesce(p_attempts, 1);
    e.state := 'dead';
    e.version := 1;
    e.changed_at := e.at;
    INSERT INTO skald.dead_letter_entry VALUES (e.*) ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        RETURN e.id;
    END IF;
    BEGIN
        PERFORM skald.dead_letter_mirror(e, p_consumer, p_reason, p_first_failure, false);
    EXCEPTION WHEN OTHERS THEN
        -- Headers of strangers may break our limits; the entry itself must not fail by that.
        GET STACKED DIAGNOSTICS v_state = RETURNED_SQLSTATE;
        IF v_state NOT LIKE 'SK%' AND v_state NOT LIKE '22%' AND v_state NOT LIKE '23%' THEN
            RAISE;
        END IF;
        PERFORM skald.dead_letter_mirror(e, p_consumer, p_reason, p_first_failure, true);
    END;
    RETURN e.id;
END $$;

CREATE OR REPLACE FUNCTION skald.dead_letter(
    consumer_group text, topic text, partition int, record_offset bigint, key bytea,
    value bytea, headers jsonb, class text, code text, message text)
RETURNS uuid LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_headers jsonb := coalesce(dead_letter.headers, '{}');
    v_name text;
BEGIN
    PERFORM skald.consumer_check(dead_letter.consumer_group, dead_letter.topic,
        dead_letter.partition);
    IF dead_letter.record_offset IS NULL OR dead_letter.record_offset < 0 THEN
        PERFORM skald.refuse('SK001', 'record_offset: must be 0 or more');
    ELSIF dead_letter.class IS NULL OR dead_letter.class NOT IN
            ('RETRY', 'FATAL', 'DECODE', 'SCHEMA', 'EXPIRED') THEN
        PERFORM skald.refuse('SK001', 'class: one of RETRY, FATAL, DECODE, SCHEMA, EXPIRED');
    ELSIF dead_letter.message IS NULL THEN
        PERFORM skald.refuse('SK001', 'message: must not be null');
    ELSIF jsonb_typeof(v_headers) <> 'object' THEN
        PERFORM skald.refuse('SK001', 'headers: must be an object');
    END IF;
    SELECT h.key INTO v_name FROM jsonb_each(v_headers) h
     WHERE jsonb_typeof(h.value) NOT IN ('string', 'null')
       AND NOT (jsonb_typeof(h.value) = 'object' AND jsonb_typeof(h.value -> 'base64') = 'string')
     LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'headers: "%" must be a text, null, or {"base64": text}', left(v_name, 100)
            USING ERRCODE = 'SK001', DETAIL = 'headers: values are texts, null, or {"base64": text}';
    END IF;
    RETURN skald.consumer_dead_letter(dead_letter.consumer_group, dead_letter.topic,
        dead_letter.partition, dead_letter.record_offset, NULL, dead_letter.key,
        dead_letter.value, v_headers, skald.dead_letter_pack(v_headers), dead_letter.class,
        dead_letter.code, dead_letter.message, 1,
        CASE dead_letter.class WHEN 'RETRY' THEN 'exhausted' WHEN 'FATAL' THEN 'fatal'
             ELSE 'poison' END,
        clock_timestamp(), NULL);
END $$;

-- The owner of a partition takes what an operator asked for. What stands 'claimed' was
-- left by an owner that is gone, or by us on a conflict: the new version shuts it out.
CREATE OR REPLACE FUNCTION skald.consumer_replay_claim(
    p_group text, p_topics text[], p_partitions int[], p_terms bigint[])
RETURNS TABLE (id uuid, version int, topic text, partition int, record_offset bigint,
    record_ms bigint, key bytea, value bytea, headers_raw bytea, attempts int, requested_by text)
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    UPDATE skald.dead_letter_entry e
       SET state = 'claimed', version = e.version + 1, changed_at = clock_timestamp()
     WHERE e.id = (
            SELECT w.id
              FROM unnest(p_topics, p_partitions, p_terms) AS n(topic, partition, term)
              JOIN skald.dead_letter_entry w ON w.consumer_group = p_group
                   AND w.topic = n.topic AND w.partition = n.partition
                   AND w.state IN ('requested', 'claimed')
              JOIN skald.consumer_lane l ON l.consumer_group = p_group AND l.topic = n.topic
                   AND l.partition = n.partition AND l.lane = 0 AND l.term = n.term
             ORDER BY w.changed_at, w.record_offset LIMIT 1 FOR UPDATE OF w SKIP LOCKED)
    RETURNING e.id, e.version, e.topic, e.partition, e.record_offset,
        (extract(epoch FROM e.record_at) * 1000)::bigint, e.key, e.value, e.headers_raw,
        e.attempts, e.requested_by
$$;

-- The end of a replay, in the transaction of its effects: resolved, dead, expired.
CREATE OR REPLACE FUNCTION skald.consumer_replay_end(
    p_id uuid, p_version int, p_state text, p_class text, p_code text, p_message text)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_actor text;
    v_message text := left(p_message, 1024);
BEGIN
    IF p_state IS NULL OR p_state NOT IN ('resolved', 'dead', 'expired') THEN
        RAISE EXCEPTION 'state: one of resolved, dead, expired' USING ERRCODE = 'SK001';
    END IF;
    UPDATE skald.dead_letter_entry e
       SET state = p_state, version = e.version + 1, changed_at = clock_timestamp(),
           attempts = e.attempts + CASE p_state WHEN 'expired' THEN 0 ELSE 1 END,
           class = CASE p_state WHEN 'dead' THEN p_class ELSE e.class END,
           code = CASE p_state WHEN 'dead' THEN left(p_code, 64) ELSE e.code END,
           message = CASE p_state WHEN 'dead' THEN v_message ELSE e.message END,
           fingerprint = CASE p_state
               WHEN 'dead' THEN skald.dead_letter_fingerprint(p_class, left(p_code, 64),
                                                              e.type, v_message)
               ELSE e.fingerprint END
     WHERE e.id = p_id AND e.version = p_version AND e.state = 'claimed'
    RETURNING coalesce(e.requested_by, session_user) INTO v_actor;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'fenced: dead letter % was claimed by another', p_id
            USING ERRCODE = 'SK006';
    END IF;
    INSERT INTO skald.audit_entry (actor, action, target, before, after)
        VALUES (v_actor, 'dlq.replay.end', p_id::text,
                jsonb_build_object('state', 'claimed', 'version', p_version),
                jsonb_strip_nulls(jsonb_build_object('state', p_state, 'version', p_version + 1,
                    'code', nullif(p_code, ''), 'message', v_message)));
END $$;

-- What may be done with a dead letter in this state.
CREATE OR REPLACE FUNCTION skald.dead_letter_verbs(p_state text)
RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE p_state WHEN 'dead' THEN 'replay' ELSE 'none' END
$$;

CREATE OR REPLACE FUNCTION skald.operator_replay(
    p_id uuid, p_actor text, p_reason text, p_args jsonb)
RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    v_state text;
    v_version int;
BEGIN
    SELECT e.state, e.version INTO v_state, v_version
      FROM skald.dead_letter_entry e WHERE e.id = p_id FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no dead letter %', p_id USING ERRCODE = 'SK004',
            DETAIL = 'target: no dead letter of this id in this database';
    ELSIF v_state <> 'dead' THEN
        RAISE EXCEPTION 'dead letter % is %, not dead: allowed now: %', p_id, v_state,
            skald.dead_letter_verbs(v_state) USING ERRCODE = 'SK006',
            DETAIL = format('state: %s; allowed: %s', v_state, skald.dead_letter_verbs(v_state));
    ELSIF p_args ? 'version' AND (p_args ->> 'version') <> v_version::text THEN
        RAISE EXCEPTION 'dead letter % changed since it was looked at: version % is now %', p_id,
            p_args ->> 'version', v_version USING ERRCODE = 'SK006',
            DETAIL = format('version: %s, now %s', p_args ->> 'version', v_version);
    END IF;
    UPDATE skald.dead_letter_entry e
       SET state = 'requested', version = v_version + 1, requested_by = p_actor,
           changed_at = clock_timestamp()
     WHERE e.id = p_id;
    INSERT INTO skald.audit_entry (actor, action, target, reason, before, after)
        VALUES (p_actor, 'dlq.replay', p_id::text, p_reason,
                jsonb_build_object('state', v_state, 'version', v_version),
                jsonb_build_object('state', 'requested', 'version', v_version + 1));
    RETURN jsonb_build_object('ok', true, 'id', p_id, 'state', 'requested',
        'version', v_version + 1);
END $$;

-- A partition that stopped begins anew: its watermark of offsets is dropped, so its owner
-- starts at the first record there is. Positions stay: what was applied is not applied twice.
CREATE OR REPLACE FUNCTION skald.operator_consumer_reset(
    p_target text, p_actor text, p_reason text)
RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    v_parts text[] := regexp_match(p_target, '^(.+)/([A-Za-z0-9._-]+)/([0-9]{1,9})$');
    v_before jsonb;
    v_stopped text;
BEGIN
    IF v_parts IS NULL THEN
        PERFORM skald.refuse('SK001', 'target: must be group/topic/partition');
    END IF;
    SELECT p.stopped INTO v_stopped FROM skald.consumer_partition p
     WHERE p.consumer_group = v_parts[1] AND p.topic = v_parts[2]
       AND p.partition = v_parts[3]::int FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no consumer %', p_target USING ERRCODE = 'SK004',
            DETAIL = 'target: no such group, topic, partition in this database';
    ELSIF v_stopped IS NULL THEN
        RAISE EXCEPTION 'consumer % is not stopped: allowed now: none', p_target
            USING ERRCODE = 'SK006', DETAIL = 'state: running; allowed: none';
    END IF;
    SELECT jsonb_build_object('stopped', v_stopped, 'done', jsonb_agg(l.done ORDER BY l.lane))
      INTO v_before FROM skald.consumer_lane l
     WHERE l.consumer_group = v_parts[1] AND l.topic = v_parts[2]
       AND l.partition = v_parts[3]::int;
    DELETE FROM skald.consumer_lane l
     WHERE l.consumer_group = v_parts[1] AND l.topic = v_parts[2]
       AND l.partition = v_parts[3]::int;
    UPDATE skald.consumer_partition p
       SET stopped = NULL, seen_offset = NULL, seen_digest = NULL, updated_at = clock_timestamp()
     WHERE p.consumer_group = v_parts[1] AND p.topic = v_parts[2]
       AND p.partition = v_parts[3]::int;
    INSERT INTO skald.audit_entry (actor, action, target, reason, before, after)
        VALUES (p_actor, 'consumer.reset', p_target, p_reason, v_before,
                '{"stopped": null, "done": null}');
    RETURN jsonb_build_object('ok', true, 'target', p_target, 'state', 'running');
END $$;

-- Every changing verb of CLI and HTTP comes here: it refuses or acts, and writes the audit.
CREATE OR REPLACE FUNCTION skald.operator_act(
    action text, target text, actor text DEFAULT NULL, reason text DEFAULT NULL,
    args jsonb DEFAULT '{}')
RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_actor text := coalesce(nullif(operator_act.actor, ''), session_user);
    v_id uuid;
BEGIN
    IF operator_act.target IS NULL OR operator_act.target = '' THEN
        PERFORM skald.refuse('SK001', 'target: must not be empty');
    END IF;
    CASE operator_act.action
    WHEN 'dlq.replay' THEN
        IF operator_act.target
                !~* '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$' THEN
            PERFORM skald.refuse('SK001', 'target: must be the id of a dead letter (a uuid)');
        END IF;
        v_id := operator_act.target::uuid;
        RETURN skald.operator_replay(v_id, v_actor, operator_act.reason,
            coalesce(operator_act.args, '{}'));
    WHEN 'consumer.reset' THEN
        RETURN skald.operator_consumer_reset(operator_act.target, v_actor, operator_act.reason);
    WHEN 'saga.deploy' THEN
        RETURN skald.operator_saga_deploy(operator_act.target, v_actor, operator_act.reason,
            coalesce(operator_act.args, '{}'));
    WHEN 'saga.use' THEN
        RETURN skald.operator_saga_use(operator_act.target, v_actor, operator_act.reason,
            coalesce(operator_act.args, '{}'));
    WHEN 'saga.retire' THEN
        RETURN skald.operator_saga_retire(operator_act.target, v_actor, operator_act.reason,
            coalesce(operator_act.args, '{}'));
    WHEN 'outbox.retry' THEN
        RETURN skald.operator_outbox_retry(operator_act.target, v_actor, operator_act.reason,
            coalesce(operator_act.args, '{}'));
    WHEN 'outbox.skip' THEN
        RETURN skald.operator_outbox_skip(operator_act.target, v_actor, operator_act.reason,
            coalesce(operator_act.args, '{}'));
    WHEN 'outbox.new-epoch' THEN
        RETURN skald.operator_outbox_new_epoch(operator_act.target, v_actor,
            operator_act.reason);
    WHEN 'db.adopt' THEN
        RETURN skald.operator_adopt(operator_act.target, v_actor, operator_act.reason,
            coalesce(operator_act.args, '{}'));
    ELSE
        PERFORM skald.refuse('SK001', 'action: one of dlq.replay, consumer.reset, outbox.retry,'
            ' outbox.skip, outbox.new-epoch, saga.deploy, saga.use, saga.retire, db.adopt');
    END CASE;
END $$;
