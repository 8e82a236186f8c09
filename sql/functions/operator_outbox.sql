-- operator_outbox.sql - what a person does about the outbox: let parked keys out, drop the
-- head of one, begin a new epoch. Called by operator_act; each leaves a row in the audit.
--
-- A key is named topic/key: the key as text, or as \x and hexadecimal digits when it is
-- none (or begins with \x). args may hold what was seen: {"head": message id, "attempts": n}.
-- Then the act is refused when something has changed since.

CREATE OR REPLACE FUNCTION skald.operator_parked_key(
    p_target text, OUT topic text, OUT key bytea)
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    v_parts text[] := regexp_match(p_target, '^([A-Za-z0-9._-]{1,249})/(.*)$');
BEGIN
    IF v_parts IS NULL THEN
        PERFORM skald.refuse('SK001', 'target: must be topic/key');
    END IF;
    topic := v_parts[1];
    IF v_parts[2] ~* '^\\x([0-9a-f]{2})*$' THEN
        key := decode(substr(v_parts[2], 3), 'hex');
    ELSE
        key := convert_to(v_parts[2], 'UTF8');
    END IF;
END $$;

-- The key, locked, as it was seen; refuses what is not there or has changed.
CREATE OR REPLACE FUNCTION skald.operator_parked(p_target text, p_args jsonb)
RETURNS skald.parked_key
LANGUAGE plpgsql AS $$
DECLARE
    k skald.parked_key;
BEGIN
    SELECT p.* INTO k
      FROM skald.operator_parked_key(p_target) t
      JOIN skald.parked_key p ON p.kind = 'relay' AND p.topic = t.topic AND p.key = t.key
       FOR UPDATE OF p;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'key % is not parked', p_target USING ERRCODE = 'SK004',
            DETAIL = 'target: no such parked key in this database';
    ELSIF (p_args ? 'head' AND p_args ->> 'head' IS DISTINCT FROM k.head_message_id)
        OR (p_args ? 'attempts' AND p_args ->> 'attempts' <> k.attempts::text) THEN
        RAISE EXCEPTION 'key % changed since it was looked at: its head is message %, refused'
            ' % times', p_target, k.head_message_id, k.attempts USING ERRCODE = 'SK006',
            DETAIL = format('head: %s; attempts: %s', k.head_message_id, k.attempts);
    END IF;
    RETURN k;
END $$;

-- Let it out. One that is on its way already is not an error, and nothing new.
CREATE OR REPLACE FUNCTION skald.operator_outbox_retry(
    p_target text, p_actor text, p_reason text, p_args jsonb)
RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    k skald.parked_key := skald.operator_parked(p_target, p_args);
    v_new boolean;
BEGIN
    v_new := skald.park_release(k.topic, k.key);
    IF v_new THEN
        INSERT INTO skald.audit_entry (actor, action, target, reason, before, after)
            VALUES (p_actor, 'outbox.retry', p_target, p_reason,
                    jsonb_build_object('state', 'parked', 'head', k.head_message_id,
                        'waiting', k.waiting, 'attempts', k.attempts, 'why', k.reason),
                    jsonb_build_object('state', 'releasing'));
    END IF;
    RETURN jsonb_build_object('ok', true, 'target', p_target, 'state', 'releasing',
        'waiting', k.waiting, 'new', v_new);
END $$;

-- Drop the head, which will never be published, and let the others out. The audit keeps
-- what it was, never its payload. The marker goes out even when nothing is left: the relay
-- frees the key at its place, so that nothing meanwhile overtakes.
CREATE OR REPLACE FUNCTION skald.operator_outbox_skip(
    p_target text, p_actor text, p_reason text, p_args jsonb)
RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    k skald.parked_key;
    m skald.parked_message;
    v_next text;
    v_waiting bigint;
BEGIN
    IF coalesce(p_reason, '') = '' THEN
        PERFORM skald.refuse('SK001', 'reason: must be given');
    END IF;
    k := skald.operator_parked(p_target, p_args);
    IF k.releasing_id IS NOT NULL THEN
        RAISE EXCEPTION 'key % is being released: allowed now: none; look again when it was',
            p_target USING ERRCODE = 'SK006', DETAIL = 'state: releasing; allowed: none';
    END IF;
    DELETE FROM skald.parked_message p WHERE p.id = (
            SELECT h.id FROM skald.parked_message h
             WHERE h.topic = k.topic AND h.parked_key = k.key
             ORDER BY h.position LIMIT 1)
    RETURNING p.* INTO m;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'key % has no message that waits', p_target USING ERRCODE = 'SK006',
            DETAIL = 'state: empty; allowed: outbox.retry';
    END IF;
    SELECT h.message_id::text INTO v_next FROM skald.parked_message h
     WHERE h.topic = k.topic AND h.parked_key = k.key
     ORDER BY h.position LIMIT 1;
    UPDATE skald.parked_key p
       SET waiting = greatest(p.waiting - 1, 0), head_message_id = v_next
     WHERE p.kind = k.kind AND p.place = k.place AND p.topic = k.topic AND p.key = k.key
    RETURNING p.waiting INTO v_waiting;
    PERFORM skald.park_release(k.topic, k.key);
    INSERT INTO skald.audit_entry (actor, action, target, reason, before, after)
        VALUES (p_actor, 'outbox.skip', p_target, p_reason,
                jsonb_build_object('state', 'parked', 'waiting', k.waiting,
                    'attempts', k.attempts, 'code', k.code, 'why', k.reason,
                    'head', jsonb_build_object('id', m.id, 'message_id', m.message_id,
                        'topic', m.topic, 'type', m.type, 'source', m.source,
                        'position', m.position, 'correlation_id', m.correlation_id)),
                jsonb_build_object('state', 'releasing', 'waiting', v_waiting,
                    'head', v_next));
    RETURN jsonb_build_object('ok', true, 'target', p_target, 'state', 'releasing',
        'waiting', v_waiting, 'skipped', m.message_id);
END $$;

-- The relay begins one as soon as nothing of the old is outstanding.
CREATE OR REPLACE FUNCTION skald.operator_outbox_new_epoch(
    p_target text, p_actor text, p_reason text)
RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    r skald.relay;
BEGIN
    SELECT * INTO r FROM skald.relay FOR UPDATE;
    IF NOT FOUND THEN
        PERFORM skald.refuse('SK005', 'the outbox has no history yet: skald db migrate');
    ELSIF p_target NOT IN ('main', r.stream) THEN
        PERFORM skald.refuse('SK004', format('target: the relay here is main, of stream %s',
            r.stream));
    END IF;
    UPDATE skald.relay SET epoch_wanted = true;
    INSERT INTO skald.audit_entry (actor, action, target, reason, before, after)
        VALUES (p_actor, 'outbox.new-epoch', p_target, p_reason,
                jsonb_build_object('stream', r.stream, 'epoch', r.epoch, 'position', r.position,
                    'epoch_wanted', r.epoch_wanted),
                jsonb_build_object('epoch_wanted', true));
    RETURN jsonb_build_object('ok', true, 'target', p_target, 'stream', r.stream,
        'epoch', r.epoch, 'state', 'wanted');
END $$;
