-- views.sql - what people and tools read. Names and columns are published
-- (docs/protocol.md); add columns at the end only.

-- Rows not seen by acked_snapshot wait to be published; those of the newest tick up to
-- done_id are acknowledged already.
CREATE OR REPLACE VIEW skald.relays AS
SELECT 'main'::text AS source,
       r.mode,
       r.stream,
       r.term,
       r.epoch,
       r.position,
       w.lag_rows,
       NULL::bigint AS lag_bytes,                       -- of WAL; poll mode reads none
       coalesce(round(extract(epoch FROM clock_timestamp() - w.oldest)::numeric, 3),
           0)::double precision AS lag_seconds,
       (SELECT count(*) FROM skald.parked_key AS p WHERE p.kind = 'relay') AS parked_keys,
       r.owner,
       r.heartbeat_at
    FROM skald.relay AS r
    CROSS JOIN LATERAL (
        SELECT count(*) AS lag_rows, min(o.at) AS oldest
            FROM skald.outbox AS o
            WHERE o.xid >= pg_snapshot_xmin(r.acked_snapshot)
                AND NOT pg_visible_in_snapshot(o.xid, r.acked_snapshot)
                AND NOT (o.id <= r.done_id
                    AND pg_visible_in_snapshot(o.xid, r.tick_snapshot))) AS w;

-- lag: records of the partition not yet done; NULL: its end is not known. Consumers of consume_offset have no lanes.
CREATE OR REPLACE VIEW skald.consumers AS
SELECT l.consumer_group,
       l.topic,
       l.partition,
       l.lane,
       (SELECT max(p.position) FROM skald.consumer_position AS p
            WHERE p.consumer_group = l.consumer_group AND p.topic = l.topic
                AND p.partition = l.partition AND p.lane = l.lane) AS position,
       l.term,
       l.owner,
       CASE WHEN e.end_offset IS NOT NULL THEN greatest(e.end_offset - l.done, 0) END AS lag
    FROM skald.consumer_lane AS l
    LEFT JOIN skald.consumer_partition AS e USING (consumer_group, topic, partition)
UNION ALL
SELECT o.consumer_group,
       o.topic,
       o.partition,
       NULL::int,
       NULL::text,
       NULL::bigint,
       NULL::text,
       CASE WHEN e.end_offset IS NOT NULL
           THEN greatest(e.end_offset - o.record_offset - 1, 0) END
    FROM skald.consumer_offset AS o
    LEFT JOIN skald.consumer_partition AS e USING (consumer_group, topic, partition);

CREATE OR REPLACE VIEW skald.dead_letters AS
SELECT id, at, consumer_group, topic, partition, record_offset, key, value, headers,
       message_id, class, code, message, fingerprint, attempts, state, correlation_id,
       replay_run
    FROM skald.dead_letter_entry;

CREATE OR REPLACE VIEW skald.parked AS
SELECT kind, place, topic, key, head_message_id, waiting, since, next_at, reason
    FROM skald.parked_key;

CREATE OR REPLACE VIEW skald.audit AS
SELECT at, actor, session_role, action, target, reason, before, after
    FROM skald.audit_entry;
