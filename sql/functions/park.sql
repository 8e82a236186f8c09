-- park.sql - keys that wait because the head of theirs could not be published.
--
-- Parking and releasing are decided by the relay (outbox/park.c, outbox/release.c); people
-- ask for a release through operator_act. Both go through the same door: a marker.

-- Let a key out. The marker is a row of the outbox with an empty topic, which no application
-- can write: it reaches the relay in the order of everything else, and at its place the
-- relay publishes what waits. Until then the key stays parked, so nothing overtakes.
-- False: nothing of it waits, or a marker is on its way already.
CREATE OR REPLACE FUNCTION skald.park_release(p_topic text, p_key bytea)
RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_marker bigint;
BEGIN
    PERFORM FROM skald.parked_key k
      WHERE k.kind = 'relay' AND k.topic = p_topic AND k.key = p_key
        AND k.releasing_id IS NULL FOR UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO skald.outbox (message_id, topic, key, type, source, subject, correlation_id,
        traceparent)
    VALUES (gen_random_uuid(), '', p_key, 'skald.relay.release', '/skald', p_topic, '', '')
    RETURNING id INTO v_marker;
    UPDATE skald.parked_key k SET releasing_id = v_marker, next_at = NULL
     WHERE k.kind = 'relay' AND k.topic = p_topic AND k.key = p_key;
    PERFORM skald.outbox_wake();
    RETURN true;
END $$;
