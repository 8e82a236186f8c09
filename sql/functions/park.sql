-- park.sql - keys that wait because the head of theirs could not be published.
--
-- Parking and releasing are decided by the relay (outbox/park.c, outbox/release.c); people
-- ask for a release through operator_act. Both go through the same door: a marker.
--
-- Where a key waits is told by positions, so that a relay that starts over behaves as the
-- one before it did:
--
--      parked_at     released_at                again_at
--   ----[ wait ......... M )==== let out ==== flows --[ wait .....
--
-- What the marker M lets out is every parked row of the key before it: the same whenever
-- it is asked, until the relay has recorded progress behind M. Then, and only then, rows are
-- deleted, and only then another marker may follow. A row that is refused when it is let out
-- keeps its place there (released_at of the row), so that no other row's position shifts.

-- Let a key out. The marker is a row of the outbox with an empty topic, which no application
-- can write: it reaches the relay in the order of everything else, and at its place the
-- relay publishes what waits. Until then the key stays parked, so nothing overtakes.
-- False: nothing of it waits, or a marker is on its way already.
DROP FUNCTION IF EXISTS skald.park_release(text, bytea);
CREATE OR REPLACE FUNCTION skald.park_release(p_topic text, p_key bytea,
    asked_by text DEFAULT '/skald/operator')
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
    VALUES (gen_random_uuid(), '', p_key, 'skald.relay.release', asked_by, p_topic, '', '')
    RETURNING id INTO v_marker;
    UPDATE skald.parked_key k SET releasing_id = v_marker, next_at = NULL
     WHERE k.kind = 'relay' AND k.topic = p_topic AND k.key = p_key;
    PERFORM skald.outbox_wake();
    RETURN true;
END $$;

-- The relay's fence: true while nobody of a higher term leads, and until this transaction ends.
CREATE OR REPLACE FUNCTION skald.park_fence(my_term bigint) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM FROM skald.relay WHERE term = my_term FOR SHARE;
    RETURN FOUND;
END $$;

-- Rows that wait, all in one transaction: heads (why a key begins to wait, or does again),
-- rows as the relay read them, and rows that were let out and are parked again. A row that
-- is parked already is left alone: the relay came by a second time. A big payload is not
-- sent: r_xid is not NULL, and it is taken from the outbox. NULL: it is not visible there yet.
CREATE OR REPLACE FUNCTION skald.relay_park(my_term bigint,
    h_topic text[], h_key bytea[], h_message text[], h_position text[], h_reason text[],
    h_code text[], h_next_ms bigint[],
    r_position text[], r_parked_key bytea[], r_id bigint[], r_message_id uuid[],
    r_at timestamptz[], r_topic text[], r_key bytea[], r_type text[], r_source text[],
    r_subject text[], r_content_type text[], r_data bytea[], r_headers jsonb[],
    r_correlation text[], r_causation text[], r_traceparent text[], r_expires timestamptz[],
    r_xid bigint[], a_id bigint[], a_position text[])
RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off AS $$
#variable_conflict use_column
BEGIN
    IF NOT skald.park_fence(my_term) THEN
        RETURN false;
    END IF;
    IF EXISTS (SELECT FROM unnest(r_id, r_xid) AS r (id, xid)
        WHERE r.xid IS NOT NULL
            AND NOT EXISTS (SELECT FROM skald.outbox AS o
                WHERE o.xid = r.xid::text::xid8 AND o.id = r.id)
            AND NOT EXISTS (SELECT FROM skald.parked_message AS m WHERE m.id = r.id)) THEN
        RETURN NULL;
    END IF;
    INSERT INTO skald.parked_key AS k (kind, place, topic, key, head_message_id, waiting,
        next_at, reason, code, parked_at)
    SELECT 'relay', 'main', h.topic, h.key, h.message, 0,
        clock_timestamp() + h.next_ms * interval '1 ms', h.reason, h.code, h.position
        FROM unnest(h_topic, h_key, h_message, h_position, h_reason, h_code, h_next_ms)
            AS h (topic, key, message, position, reason, code, next_ms)
    ON CONFLICT (kind, place, topic, key) DO UPDATE SET
        parked_at = least(k.parked_at, excluded.parked_at),
        again_at = CASE WHEN excluded.parked_at > k.released_at
            THEN least(k.again_at, excluded.parked_at) ELSE k.again_at END,
        attempts = k.attempts + 1,
        head_message_id = excluded.head_message_id, next_at = excluded.next_at,
        reason = excluded.reason, code = excluded.code;
    WITH new AS (
        INSERT INTO skald.parked_message (position, parked_key, id, message_id, at, topic,
            key, type, source, subject, content_type, data, headers, correlation_id,
            causation_id, traceparent, expires_at)
        SELECT r.position, r.parked_key, r.id, r.message_id, r.at, r.topic, r.key, r.type,
            r.source, r.subject, r.content_type, coalesce(r.data, o.data), r.headers,
            r.correlation, r.causation, r.traceparent, r.expires
            FROM unnest(r_position, r_parked_key, r_id, r_message_id, r_at, r_topic, r_key,
                r_type, r_source, r_subject, r_content_type, r_data, r_headers,
                r_correlation, r_causation, r_traceparent, r_expires, r_xid)
                AS r (position, parked_key, id, message_id, at, topic, key, type, source,
                    subject, content_type, data, headers, correlation, causation,
                    traceparent, expires, xid)
            LEFT JOIN LATERAL (SELECT t.data FROM skald.outbox AS t
                WHERE t.xid = r.xid::text::xid8 AND t.id = r.id) AS o ON r.xid IS NOT NULL
        ON CONFLICT (id) DO NOTHING
        RETURNING topic, parked_key),
    counted AS (SELECT topic, parked_key, count(*) AS count FROM new GROUP BY 1, 2)
    UPDATE skald.parked_key AS k SET waiting = k.waiting + c.count
        FROM counted AS c
        WHERE k.kind = 'relay' AND k.place = 'main' AND k.topic = c.topic
            AND k.key = c.parked_key;
    UPDATE skald.parked_message AS m SET released_at = a.position
        FROM unnest(a_id, a_position) AS a (id, position) WHERE m.id = a.id;
    RETURN true;
END $$;

-- Delete what was let out and recorded; answers which keys that concerned: parked_at NULL
-- when nothing of the key waits any more. At most `budget` rows.
CREATE OR REPLACE FUNCTION skald.park_clean(budget bigint)
RETURNS TABLE (topic text, key bytea, parked_at text, attempts int)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    k skald.parked_key;
    v_gone bigint;
    v_left bigint;
    v_head text;
BEGIN
    FOR k IN SELECT p.* FROM skald.parked_key AS p, skald.relay AS r
        WHERE p.kind = 'relay' AND p.released_at <= r.position COLLATE "C"
        FOR UPDATE OF p LOOP
        DELETE FROM skald.parked_message WHERE id IN
            (SELECT m.id FROM skald.parked_message AS m WHERE m.topic = k.topic
                AND m.parked_key = k.key AND m.position < k.released_at
                AND m.released_at IS NULL LIMIT budget);
        GET DIAGNOSTICS v_gone = ROW_COUNT;
        budget := budget - v_gone;
        EXIT WHEN budget <= 0;
        UPDATE skald.parked_message AS m SET position = m.released_at, released_at = NULL
            WHERE m.topic = k.topic AND m.parked_key = k.key AND m.released_at IS NOT NULL;
        topic := k.topic;
        key := k.key;
        parked_at := k.again_at;
        attempts := k.attempts;
        IF k.again_at IS NULL THEN
            DELETE FROM skald.parked_key AS p WHERE p.kind = k.kind AND p.place = k.place
                AND p.topic = k.topic AND p.key = k.key;
        ELSE
            SELECT count(*) INTO v_left FROM skald.parked_message AS m
                WHERE m.topic = k.topic AND m.parked_key = k.key;
            SELECT m.message_id INTO v_head FROM skald.parked_message AS m
                WHERE m.topic = k.topic AND m.parked_key = k.key ORDER BY m.position LIMIT 1;
            -- a topic that was found meanwhile is not looked for any more: try by the clock
            UPDATE skald.parked_key AS p SET parked_at = k.again_at, again_at = NULL,
                released_at = NULL, releasing_id = NULL, waiting = v_left,
                head_message_id = v_head, next_at = coalesce(k.next_at,
                    clock_timestamp() + least(300, 5 * 2 ^ least(k.attempts, 6))
                        * interval '1 s')
                WHERE p.kind = k.kind AND p.place = k.place AND p.topic = k.topic
                    AND p.key = k.key;
        END IF;
        RETURN NEXT;
    END LOOP;
END $$;

-- Which keys wait, for a relay that begins to lead. A marker of another epoch that is not
-- recorded comes once more, at another place.
CREATE OR REPLACE FUNCTION skald.relay_parked(my_term bigint)
RETURNS TABLE (topic text, key bytea, parked_at text, released_at text, again_at text,
    attempts int, code text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v_epoch text := (SELECT lpad(to_hex(epoch), 8, '0') FROM skald.relay);
BEGIN
    IF NOT skald.park_fence(my_term) THEN
        RETURN;
    END IF;
    PERFORM skald.park_clean(1000000000);
    -- a key that waits for its topic, which was there when another's was let out
    UPDATE skald.parked_key AS k SET next_at = clock_timestamp()
        WHERE k.kind = 'relay' AND k.next_at IS NULL AND k.releasing_id IS NULL
            AND EXISTS (SELECT FROM skald.parked_key AS o WHERE o.kind = 'relay'
                AND o.topic = k.topic AND o.released_at IS NOT NULL);
    UPDATE skald.parked_message AS m SET released_at = NULL
        FROM skald.parked_key AS k
        WHERE m.topic = k.topic AND m.parked_key = k.key AND m.released_at IS NOT NULL
            AND k.kind = 'relay' AND left(k.released_at, 8) <> v_epoch;
    UPDATE skald.parked_key AS k SET released_at = NULL, again_at = NULL
        WHERE k.kind = 'relay' AND left(k.released_at, 8) <> v_epoch;
    RETURN QUERY SELECT k.topic, k.key, coalesce(k.parked_at, ''), k.released_at, k.again_at,
            k.attempts, k.code
        FROM skald.parked_key AS k WHERE k.kind = 'relay';
END $$;

-- The marker is here: how many rows it lets out. NULL: it is none of this key's, or of a
-- release that is over. held false: another leads.
CREATE OR REPLACE FUNCTION skald.relay_release(my_term bigint, my_topic text, my_key bytea,
    marker_id bigint, marker_position text, marker_xid bigint,
    OUT held boolean, OUT is_seen boolean, OUT row_count bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    v_at text;
BEGIN
    held := skald.park_fence(my_term);
    IF NOT held THEN
        RETURN;
    END IF;
    -- out of the slot comes a marker before its transaction is visible: then what it says of
    -- its key is not, either
    is_seen := EXISTS (SELECT FROM skald.outbox o
        WHERE o.xid = marker_xid::text::xid8 AND o.id = marker_id);
    IF NOT is_seen THEN
        RETURN;
    END IF;
    -- in a catch-up the marker comes again at a later place, and stands there from now on
    UPDATE skald.parked_key SET released_at = greatest(released_at, marker_position)
        WHERE kind = 'relay' AND topic = my_topic AND key = my_key
            AND releasing_id = marker_id
        RETURNING released_at INTO v_at;
    IF v_at <> marker_position THEN
        RAISE EXCEPTION 'a marker stands at %, and stood at %', marker_position, v_at
            USING ERRCODE = 'SK006', DETAIL = format('outbox id %s', marker_id);
    ELSIF v_at IS NOT NULL THEN
        SELECT count(*) INTO row_count FROM skald.parked_message
            WHERE topic = my_topic AND parked_key = my_key
                AND position < marker_position COLLATE "C";
    END IF;
END $$;

-- What it lets out, in order: columns as the outbox's are read, then the place among them.
CREATE OR REPLACE FUNCTION skald.relay_released(my_topic text, my_key bytea,
    marker_position text, after text, rows_max int, bytes_max bigint)
RETURNS TABLE (id bigint, xid xid8, message_id uuid, at timestamptz, topic text, key bytea,
    type text, source text, subject text, content_type text, data bytea, headers jsonb,
    correlation_id text, causation_id text, traceparent text, expires_at timestamptz,
    place text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT m.id, '0'::xid8, m.message_id, m.at, m.topic, m.key, m.type, m.source, m.subject,
        m.content_type, m.data, m.headers, m.correlation_id, m.causation_id, m.traceparent,
        m.expires_at, m.position
    FROM skald.parked_message AS m
    JOIN (SELECT c.id, sum(coalesce(octet_length(c.data), 0)) OVER w
                - coalesce(octet_length(c.data), 0) AS before
            FROM (SELECT p.id, p.position, p.data FROM skald.parked_message AS p
                WHERE p.topic = my_topic AND p.parked_key = my_key
                    AND p.position < marker_position COLLATE "C"
                    AND p.position > after COLLATE "C"
                ORDER BY p.position LIMIT rows_max) AS c
            WINDOW w AS (ORDER BY c.position ROWS UNBOUNDED PRECEDING)) AS n USING (id)
    WHERE n.before < bytes_max
    ORDER BY m.position
$$;

-- Once a second while a key waits: clean up, and let out what is due. Those of `topics_found` are
-- there now. Of the keys that only the broker can judge one goes at a time: each may cost
-- everybody a producer.
CREATE OR REPLACE FUNCTION skald.relay_park_turn(my_term bigint, topics_found text[])
RETURNS TABLE (topic text, key bytea, parked_at text, attempts int)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    IF NOT skald.park_fence(my_term) THEN
        RETURN;
    END IF;
    RETURN QUERY SELECT * FROM skald.park_clean(10000);
    UPDATE skald.parked_key AS k SET next_at = clock_timestamp()
        WHERE k.kind = 'relay' AND k.topic = ANY (topics_found)
            AND (k.releasing_id IS NULL OR k.again_at IS NOT NULL);
    PERFORM skald.park_release(d.topic, d.key, '/skald/relay') FROM (
        (SELECT k.topic, k.key FROM skald.parked_key AS k
            WHERE k.kind = 'relay' AND k.releasing_id IS NULL AND k.code IN ('', '3', '10')
                AND k.next_at <= clock_timestamp() ORDER BY k.next_at LIMIT 1000)
        UNION ALL
        (SELECT k.topic, k.key FROM skald.parked_key AS k
            WHERE k.kind = 'relay' AND k.releasing_id IS NULL AND k.code NOT IN ('', '3', '10')
                AND k.next_at <= clock_timestamp() ORDER BY k.next_at LIMIT 1)) AS d;
END $$;

-- --- partition counts ----------------------------------------------------------------------

-- The count to be used: the one first used, unless the topic was made anew with fewer.
CREATE OR REPLACE FUNCTION skald.relay_topic_use(my_term bigint, my_topic text, here int,
    OUT held boolean, OUT used int)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    held := skald.park_fence(my_term);
    IF NOT held THEN
        RETURN;
    END IF;
    INSERT INTO skald.relay_topic AS t (topic, partitions) VALUES (my_topic, here)
    ON CONFLICT (topic) DO UPDATE SET partitions = least(t.partitions, excluded.partitions),
        at = CASE WHEN excluded.partitions < t.partitions THEN clock_timestamp() ELSE t.at END
    RETURNING partitions INTO used;
END $$;

CREATE OR REPLACE FUNCTION skald.relay_topics(my_term bigint)
RETURNS TABLE (topic text, partitions int)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT t.topic, t.partitions FROM skald.relay_topic AS t
    WHERE EXISTS (SELECT FROM skald.relay WHERE term = my_term)
$$;

-- Nothing is outstanding: from the next record on these counts hold.
CREATE OR REPLACE FUNCTION skald.relay_topic_grow(my_term bigint, my_topics text[],
    counts int[])
RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    IF NOT skald.park_fence(my_term) THEN
        RETURN false;
    END IF;
    UPDATE skald.relay_topic AS t SET partitions = n.count, at = clock_timestamp()
        FROM unnest(my_topics, counts) AS n (topic, count) WHERE t.topic = n.topic;
    RETURN true;
END $$;
