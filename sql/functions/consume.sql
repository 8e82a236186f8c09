-- Consumers. consume_once and consume_offset are for programs in any language
-- (docs/protocol.md); consumer_* is what the runner of this library calls.
--
-- Lanes: a consumer owns a partition by raising the term of its lane rows. Each
-- transaction of its effects ends with consumer_advance, which matches the rows by
-- that term; whoever lost them matches nothing and rolls back.

CREATE OR REPLACE FUNCTION skald.consumer_check(p_group text, p_topic text, p_partition int)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF p_group IS NULL OR p_group = '' THEN
        PERFORM skald.refuse('SK001', 'consumer_group: must not be empty');
    ELSIF octet_length(p_group) > 255 THEN
        PERFORM skald.refuse('SK007', 'consumer_group: at most 255 bytes');
    ELSIF p_topic IS NULL OR p_topic = '' THEN
        PERFORM skald.refuse('SK001', 'topic: must not be empty');
    ELSIF octet_length(p_topic) > 249 THEN
        PERFORM skald.refuse('SK007', 'topic: at most 249 bytes');
    ELSIF p_partition IS NULL OR p_partition < 0 THEN
        PERFORM skald.refuse('SK001', 'partition: must be 0 or more');
    END IF;
END $$;

-- True the first time for (group, id). A second caller waits for the first; if that
-- one rolls back, the second is the first.
CREATE OR REPLACE FUNCTION skald.consume_once(consumer_group text, message_id text)
RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM skald.consumer_check(consume_once.consumer_group, '-', 0);
    IF consume_once.message_id IS NULL OR consume_once.message_id = '' THEN
        PERFORM skald.refuse('SK001', 'message_id: must not be empty');
    ELSIF octet_length(consume_once.message_id) > 1024 THEN
        PERFORM skald.refuse('SK007', 'message_id: at most 1024 bytes');
    END IF;
    INSERT INTO skald.inbox VALUES (consume_once.consumer_group, consume_once.message_id)
        ON CONFLICT ON CONSTRAINT inbox_pkey DO NOTHING;
    RETURN FOUND;
END $$;

-- True when beyond everything applied: for consumers that read a partition in order.
CREATE OR REPLACE FUNCTION skald.consume_offset(
    consumer_group text, topic text, partition int, record_offset bigint)
RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM skald.consumer_check(consume_offset.consumer_group, consume_offset.topic,
        consume_offset.partition);
    IF consume_offset.record_offset IS NULL OR consume_offset.record_offset < 0 THEN
        PERFORM skald.refuse('SK001', 'record_offset: must be 0 or more');
    END IF;
    INSERT INTO skald.consumer_offset AS o
        VALUES (consume_offset.consumer_group, consume_offset.topic, consume_offset.partition,
                consume_offset.record_offset)
        ON CONFLICT ON CONSTRAINT consumer_offset_pkey DO UPDATE
            SET record_offset = excluded.record_offset, updated_at = now()
            WHERE o.record_offset < excluded.record_offset;
    RETURN FOUND;
END $$;

-- Take a partition: its rows are made at first use (done = p_begin), the term rises, so
-- every transaction of a former owner that has not committed never will. Waits for one
-- that is committing right now; 55P03 when that takes too long (the caller ends it).
CREATE OR REPLACE FUNCTION skald.consumer_claim(
    p_group text, p_topic text, p_partition int, p_lanes int, p_owner text, p_begin bigint)
RETURNS TABLE (lane int, done bigint, term bigint, seen_offset bigint, seen_digest bigint,
    stopped text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET lock_timeout = '500ms' AS $$
#variable_conflict use_column
DECLARE
    v_lanes int;
    v_term bigint;
BEGIN
    PERFORM skald.consumer_check(p_group, p_topic, p_partition);
    INSERT INTO skald.consumer_group AS g VALUES (p_group, p_lanes)
        ON CONFLICT ON CONSTRAINT consumer_group_pkey DO NOTHING;
    SELECT g.lanes INTO STRICT v_lanes FROM skald.consumer_group g
        WHERE g.consumer_group = p_group;
    INSERT INTO skald.consumer_partition AS p (consumer_group, topic, partition)
        VALUES (p_group, p_topic, p_partition)
        ON CONFLICT ON CONSTRAINT consumer_partition_pkey DO NOTHING;
    INSERT INTO skald.consumer_lane AS l (consumer_group, topic, partition, lane, done)
        SELECT p_group, p_topic, p_partition, i, p_begin FROM generate_series(0, v_lanes - 1) i
        ON CONFLICT ON CONSTRAINT consumer_lane_pkey DO NOTHING;
    SELECT max(x.term) + 1 INTO v_term FROM
        (SELECT l.term FROM skald.consumer_lane l
          WHERE l.consumer_group = p_group AND l.topic = p_topic AND l.partition = p_partition
          ORDER BY l.lane FOR UPDATE) x;
    RETURN QUERY
        WITH claimed AS (
            UPDATE skald.consumer_lane l
               SET term = v_term, owner = p_owner, backend_pid = pg_backend_pid()
             WHERE l.consumer_group = p_group AND l.topic = p_topic AND l.partition = p_partition
            RETURNING l.lane, l.done)
        SELECT c.lane, c.done, v_term, p.seen_offset, p.seen_digest, p.stopped
          FROM claimed c, skald.consumer_partition p
         WHERE p.consumer_group = p_group AND p.topic = p_topic AND p.partition = p_partition
         ORDER BY c.lane;
END $$;

-- The positions applied, to be read after the claim.
CREATE OR REPLACE FUNCTION skald.consumer_positions(p_group text, p_topic text, p_partition int)
RETURNS TABLE (lane int, stream text, "position" text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT p.lane, p.stream, p.position FROM skald.consumer_position p
     WHERE p.consumer_group = p_group AND p.topic = p_topic AND p.partition = p_partition
$$;

-- Who holds what now: to see who fenced us, whom to end, what an operator let go on.
CREATE OR REPLACE FUNCTION skald.consumer_owners(
    p_group text, p_topics text[], p_partitions int[])
RETURNS TABLE (ordinal int, term bigint, owner text, backend_pid int, stopped text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT w.ordinal::int, l.term, l.owner, l.backend_pid, p.stopped
      FROM unnest(p_topics, p_partitions) WITH ORDINALITY AS w(topic, partition, ordinal)
      LEFT JOIN skald.consumer_lane l ON l.consumer_group = p_group AND l.topic = w.topic
            AND l.partition = w.partition AND l.lane = 0
      LEFT JOIN skald.consumer_partition p ON p.consumer_group = p_group AND p.topic = w.topic
            AND p.partition = w.partition
     ORDER BY w.ordinal
$$;

-- The last statement of a batch: lanes (topic, partition, lane, term, done before, done
-- after) and positions (mark_at: index into the lanes). p_batch was put into the
-- transaction at its begin; if it is missing, a handler ended that transaction.
CREATE OR REPLACE FUNCTION skald.consumer_advance(
    p_group text, p_batch text, p_topics text[], p_partitions int[], p_lanes int[],
    p_terms bigint[], p_before bigint[], p_after bigint[],
    p_mark_at int[], p_streams text[], p_positions text[])
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_matched bigint;
BEGIN
    IF p_batch IS DISTINCT FROM current_setting('skald.batch', true) THEN
        RAISE EXCEPTION 'the handler ended the transaction it was given'
            USING ERRCODE = 'SK006';
    END IF;
    UPDATE skald.consumer_lane l SET done = n.after
      FROM unnest(p_topics, p_partitions, p_lanes, p_terms, p_before, p_after)
           AS n(topic, partition, lane, term, before, after)
     WHERE l.consumer_group = p_group AND l.topic = n.topic AND l.partition = n.partition
       AND l.lane = n.lane AND l.term = n.term AND l.done = n.before;
    GET DIAGNOSTICS v_matched = ROW_COUNT;
    IF v_matched <> cardinality(p_topics) THEN
        RAISE EXCEPTION 'fenced: % of % lanes are no longer ours',
            cardinality(p_topics) - v_matched, cardinality(p_topics) USING ERRCODE = 'SK006';
    END IF;
    IF cardinality(p_mark_at) > 0 THEN
        INSERT INTO skald.consumer_position AS p
            SELECT p_group, p_topics[m.at], p_partitions[m.at], p_lanes[m.at], m.stream, m.pos
              FROM unnest(p_mark_at, p_streams, p_positions) AS m(at, stream, pos)
            ON CONFLICT ON CONSTRAINT consumer_position_pkey DO UPDATE
                SET position = excluded.position WHERE p.position < excluded.position;
    END IF;
END $$;

-- Once a second: nothing below the frontier is in hand, so every lane is done up to it
-- (else a lane without traffic would hold the start of reading back); the newest applied
-- record and the log's end are noted. Returns the ordinals of partitions not ours any more.
CREATE OR REPLACE FUNCTION skald.consumer_tick(
    p_group text, p_topics text[], p_partitions int[], p_terms bigint[], p_frontiers bigint[],
    p_seen_offsets bigint[], p_seen_digests bigint[], p_ends bigint[])
RETURNS SETOF int LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE skald.consumer_lane l SET done = n.frontier
      FROM unnest(p_topics, p_partitions, p_terms, p_frontiers)
           AS n(topic, partition, term, frontier)
     WHERE l.consumer_group = p_group AND l.topic = n.topic AND l.partition = n.partition
       AND l.term = n.term AND l.done < n.frontier;
    UPDATE skald.consumer_partition p
       SET end_offset = coalesce(n.last, p.end_offset),
           seen_offset = coalesce(n.seen, p.seen_offset),
           seen_digest = CASE WHEN n.seen IS NULL THEN p.seen_digest ELSE n.digest END,
           updated_at = clock_timestamp()
      FROM unnest(p_topics, p_partitions, p_terms, p_seen_offsets, p_seen_digests, p_ends)
           AS n(topic, partition, term, seen, digest, last)
     WHERE p.consumer_group = p_group AND p.topic = n.topic AND p.partition = n.partition
       AND EXISTS (SELECT FROM skald.consumer_lane l
                    WHERE l.consumer_group = p_group AND l.topic = n.topic
                      AND l.partition = n.partition AND l.term = n.term);
    RETURN QUERY
        SELECT n.ordinal::int
          FROM unnest(p_topics, p_partitions, p_terms) WITH ORDINALITY
               AS n(topic, partition, term, ordinal)
         WHERE NOT EXISTS (SELECT FROM skald.consumer_lane l
                            WHERE l.consumer_group = p_group AND l.topic = n.topic
                              AND l.partition = n.partition AND l.term = n.term);
END $$;

-- The partition does not go on; null: it does.
CREATE OR REPLACE FUNCTION skald.consumer_stop(
    p_group text, p_topic text, p_partition int, p_term bigint, p_reason text)
RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    UPDATE skald.consumer_partition p SET stopped = p_reason, updated_at = clock_timestamp()
     WHERE p.consumer_group = p_group AND p.topic = p_topic AND p.partition = p_partition
       AND EXISTS (SELECT FROM skald.consumer_lane l
                    WHERE l.consumer_group = p_group AND l.topic = p_topic
                      AND l.partition = p_partition AND l.term = p_term)
$$;

-- Begin at another offset. Positions stay: histories do not depend on offsets.
CREATE OR REPLACE FUNCTION skald.consumer_restart(
    p_group text, p_topic text, p_partition int, p_term bigint, p_begin bigint)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE skald.consumer_lane l SET done = p_begin
     WHERE l.consumer_group = p_group AND l.topic = p_topic AND l.partition = p_partition
       AND l.term = p_term;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'fenced: the partition is no longer ours' USING ERRCODE = 'SK006';
    END IF;
    UPDATE skald.consumer_partition p
       SET stopped = NULL, seen_offset = NULL, seen_digest = NULL, updated_at = clock_timestamp()
     WHERE p.consumer_group = p_group AND p.topic = p_topic AND p.partition = p_partition;
END $$;

-- Which of these ids are new, by their place in the list (of one id twice: the first). The
-- rest was consumed before. Waits as consume_once does; in order of ids, against deadlocks.
CREATE OR REPLACE FUNCTION skald.consumer_inbox(p_group text, p_ids text[])
RETURNS SETOF bigint LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH asked AS (
        SELECT u.id, min(u.n) AS n FROM unnest(p_ids) WITH ORDINALITY AS u(id, n) GROUP BY u.id),
    fresh AS (
        INSERT INTO skald.inbox SELECT p_group, a.id FROM asked a ORDER BY a.id
            ON CONFLICT ON CONSTRAINT inbox_pkey DO NOTHING RETURNING message_id)
    SELECT a.n FROM asked a JOIN fresh f ON f.message_id = a.id
$$;
