-- views.sql - what people and tools read. Names and columns are published
-- (docs/protocol.md); add columns at the end only.

-- The relay's replication slot as PostgreSQL tells, and how much WAL lies beyond `acked`.
-- A door, because statistics of slots exist from PostgreSQL 14 on only, and some
-- installations take pg_current_wal_lsn away from everybody. status NULL: there is no slot.
CREATE OR REPLACE FUNCTION skald.wal_slot(slot name, acked pg_lsn, OUT status text,
    OUT lag_bytes bigint, OUT safe_wal_size bigint, OUT wal_held_bytes bigint,
    OUT spill_bytes bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    here pg_lsn;
BEGIN
    BEGIN
        here := CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
            ELSE pg_current_wal_lsn() END;
    EXCEPTION WHEN insufficient_privilege THEN
        NULL;
    END;
    lag_bytes := CASE WHEN here < acked THEN 0 ELSE here - acked END;
    SELECT CASE WHEN s.wal_status = 'lost' THEN 'lost' WHEN s.wal_status = 'unreserved'
               THEN 'unreserved' WHEN s.active THEN 'active' ELSE 'inactive' END,
           s.safe_wal_size, CASE WHEN here < s.restart_lsn THEN 0 ELSE here - s.restart_lsn END
      INTO status, safe_wal_size, wal_held_bytes
      FROM pg_replication_slots AS s WHERE s.slot_name = slot;
    IF status IS NOT NULL AND to_regclass('pg_catalog.pg_stat_replication_slots') IS NOT NULL THEN
        EXECUTE 'SELECT s.spill_bytes FROM pg_stat_replication_slots AS s'
            ' WHERE s.slot_name = $1::text' INTO spill_bytes USING slot;
    END IF;
END $$;

-- Rows not seen by acked_snapshot wait to be published; those of the newest tick up to
-- done_id are acknowledged already. Markers (topic '') are no messages. In mode wal
-- acked_snapshot is a lower bound, so lag_rows is an upper one; lag_bytes is exact.
CREATE OR REPLACE VIEW skald.relays AS
SELECT 'main'::text AS source,
       r.mode,
       r.stream,
       r.term,
       r.epoch,
       r.position,
       w.lag_rows,
       s.lag_bytes,                                     -- of WAL; poll mode reads none: NULL
       coalesce(round(extract(epoch FROM clock_timestamp() - w.oldest)::numeric, 3),
           0)::double precision AS lag_seconds,
       k.keys AS parked_keys,
       r.owner,
       r.heartbeat_at,
       CASE WHEN r.mode = 'wal' OR s.status IS NOT NULL
           THEN 'skald_' || r.stream END AS slot,
       CASE WHEN r.mode = 'wal' THEN coalesce(s.status, 'missing')
           ELSE s.status END AS slot_status,
       s.safe_wal_size,
       s.wal_held_bytes,
       s.spill_bytes,
       k.messages AS parked_messages,
       r.recover_from IS NOT NULL AS recovering,
       r.slot_dropped,
       r.slot_dropped_at,
       r.epoch_wanted
    FROM skald.relay AS r
    CROSS JOIN LATERAL skald.wal_slot(('skald_' || r.stream)::name,
        CASE r.mode WHEN 'wal' THEN r.acked_lsn END) AS s
    CROSS JOIN LATERAL (
        SELECT count(*) AS keys, coalesce(sum(p.waiting), 0)::bigint AS messages
            FROM skald.parked_key AS p WHERE p.kind = 'relay') AS k
    CROSS JOIN LATERAL (
        SELECT count(*) AS lag_rows, min(o.at) AS oldest
            FROM skald.outbox AS o
            WHERE o.xid >= pg_snapshot_xmin(r.acked_snapshot)
                AND o.topic <> ''
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
SELECT kind, place, topic, key, head_message_id, waiting, since, next_at, reason,
       code, attempts, releasing_id IS NOT NULL AS releasing
    FROM skald.parked_key;

CREATE OR REPLACE VIEW skald.audit AS
SELECT at, actor, session_role, action, target, reason, before, after
    FROM skald.audit_entry;
