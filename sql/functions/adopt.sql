-- adopt.sql - this database, a copy or one that moved, becomes an installation of its own:
-- other name, other Kafka, other history of its relay. `skald db adopt`.
--
-- Nothing that was committed may be lost, so what is not known to be published is published:
-- under the new stream, as a catch-up (ce_recovered), which consumers dedupe by source and
-- id.

-- Nobody may be at work here: what is in flight would be sent under both histories.
CREATE OR REPLACE FUNCTION skald.adopt_check(p_target text, p_reason text, p_args jsonb)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_owner text := (SELECT min(l.owner) FROM skald.lease l
                      WHERE l.kind = 'relay' AND l.until > clock_timestamp());
BEGIN
    IF octet_length(p_target) > 200 OR p_target !~ '^[A-Za-z0-9._-]+$' THEN
        PERFORM skald.refuse('SK001',
            'target: an installation is 1 to 200 of [A-Za-z0-9._-], as it names topics');
    ELSIF coalesce(p_reason, '') = '' THEN
        PERFORM skald.refuse('SK001', 'reason: must be given');
    ELSIF coalesce(p_args ->> 'reply_topic', '') = '' THEN
        PERFORM skald.refuse('SK001', 'args: must hold reply_topic, and cluster or null');
    END IF;
    v_owner := coalesce(v_owner, (SELECT min(o.owner) FROM skald.saga_owner o
                                   WHERE o.until > clock_timestamp()));
    IF v_owner IS NOT NULL THEN
        PERFORM skald.refuse('SK006', format('daemon: %s works on this database: stop skaldd'
            ' first', v_owner));
    END IF;
END $$;

-- Transaction ids of another cluster say nothing here: rows whose ids are ahead would be
-- published again when this one gets there, new rows would look acknowledged. So each row
-- gets an id of this cluster: of this very transaction what is outstanding, the oldest there
-- is what was published. Published is what the old snapshots say and the relay can have seen
-- when it last gave a sign; never a row that was written since the restore (its tuple bears
-- its own id). Answers how many are outstanding.
CREATE OR REPLACE FUNCTION skald.adopt_renumber(r skald.relay) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    v_me xid8 := pg_current_xact_id();
    -- nobody who is still under way is below it, nor are we
    v_floor xid8 := least(pg_snapshot_xmin(pg_current_snapshot()), v_me);
    v_count bigint;
BEGIN
    UPDATE skald.outbox o
       SET xid = CASE WHEN u.is_done THEN '3'::xid8 ELSE v_me END,
           headers = CASE WHEN u.is_done THEN o.headers
               ELSE coalesce(o.headers, '{}') || '{"ce_recovered": "true"}' END
      FROM (SELECT q.id,
                   coalesce(q.at <= r.heartbeat_at
                       AND q.xmin::text::numeric <> q.xid::text::numeric % 4294967296
                       AND (pg_visible_in_snapshot(q.xid, r.acked_snapshot)
                           OR (q.id <= r.done_id
                               AND pg_visible_in_snapshot(q.xid, r.tick_snapshot))),
                       false) AS is_done
              FROM skald.outbox q) AS u
     WHERE u.id = o.id;
    SELECT count(*) INTO v_count FROM skald.outbox o WHERE o.xid = v_me;
    UPDATE skald.relay SET tick = r.tick + 1, done_id = -1, done_ordinal = 0,
        acked_snapshot = format('%s:%s:', v_floor, v_floor)::pg_snapshot,
        tick_snapshot = format('%s:%s:', v_floor, v_floor)::pg_snapshot;
    DELETE FROM skald.relay_mark;
    -- when their commands are published is to be seen anew
    UPDATE skald.saga SET command_xid = v_me, command_at = clock_timestamp()
     WHERE status <> 'finished' AND command_xid IS NOT NULL AND published_at IS NULL;
    RETURN v_count;
END $$;

-- The same cluster's ids: the snapshots hold. What the open tick has left may have been sent.
CREATE OR REPLACE FUNCTION skald.adopt_recover(r skald.relay) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    v_count bigint;
BEGIN
    UPDATE skald.outbox o
       SET headers = coalesce(o.headers, '{}') || '{"ce_recovered": "true"}'
     WHERE o.xid >= pg_snapshot_xmin(r.acked_snapshot)
       AND NOT pg_visible_in_snapshot(o.xid, r.acked_snapshot)
       AND NOT (o.id <= r.done_id AND pg_visible_in_snapshot(o.xid, r.tick_snapshot));
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END $$;

-- Replies and starts of another Kafka have other offsets. Reply time-outs that were armed
-- before now start anew: nobody served this database meanwhile.
CREATE OR REPLACE FUNCTION skald.adopt_sagas(p_target text, p_cluster text, p_reply_topic text)
RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    i skald.installation;
BEGIN
    SELECT * INTO i FROM skald.installation FOR UPDATE;
    IF NOT FOUND THEN -- no orchestrator has ever served it: the first one records itself
        RETURN NULL;
    END IF;
    UPDATE skald.installation SET installation = p_target, kafka_cluster_id = p_cluster,
        reply_topic = p_reply_topic, at = clock_timestamp();
    INSERT INTO skald.saga_gap (began_at, ended_at)
        SELECT coalesce(min(p.caught_up_at), clock_timestamp()), clock_timestamp()
          FROM skald.saga_partition p;
    IF p_cluster IS NULL OR p_cluster IS DISTINCT FROM i.kafka_cluster_id THEN
        DELETE FROM skald.saga_partition;
    ELSE
        DELETE FROM skald.saga_partition p
         WHERE p.topic = i.reply_topic AND p.topic <> p_reply_topic;
        UPDATE skald.saga_partition SET owner = NULL, until = '-infinity', term = term + 1,
            caught_up_at = NULL;
    END IF;
    RETURN jsonb_build_object('installation', i.installation, 'cluster', i.kafka_cluster_id);
END $$;

CREATE OR REPLACE FUNCTION skald.operator_adopt(p_target text, p_actor text, p_reason text,
    p_args jsonb) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    r skald.relay;
    v_cluster text := p_args ->> 'cluster';
    v_system text := '';
    v_is_moved boolean;
    v_outstanding bigint;
    v_before jsonb;
    v_after jsonb;
BEGIN
    SELECT * INTO STRICT r FROM skald.relay FOR UPDATE;
    PERFORM skald.adopt_check(p_target, p_reason, p_args);
    BEGIN -- what may not be read is not compared
        SELECT c.system_identifier::text INTO v_system FROM pg_control_system() c;
    EXCEPTION WHEN insufficient_privilege THEN
        NULL;
    END;
    v_is_moved := pg_snapshot_xmax(r.acked_snapshot) > pg_snapshot_xmax(pg_current_snapshot())
        OR (v_system <> '' AND r.system_identifier NOT IN ('', v_system));
    v_outstanding := CASE WHEN v_is_moved THEN skald.adopt_renumber(r)
                          ELSE skald.adopt_recover(r) END;
    -- the term rises: a relay that slept through all this leads no more
    UPDATE skald.relay SET stream = substr(replace(gen_random_uuid()::text, '-', ''), 17, 16),
        epoch = greatest(r.epoch + 1, floor(extract(epoch FROM clock_timestamp()))::bigint),
        system_identifier = v_system, timeline = '', position = NULL, term = r.term + 1,
        owner = NULL, mode = 'poll', acked_lsn = NULL, snapshot_lsn = NULL,
        recover_from = NULL, epoch_wanted = false,
        slot_dropped = CASE WHEN r.mode = 'wal' THEN 'this database was adopted' END,
        slot_dropped_at = CASE WHEN r.mode = 'wal' THEN clock_timestamp() END;
    v_before := skald.adopt_sagas(p_target, v_cluster, p_args ->> 'reply_topic');
    v_after := jsonb_build_object('stream', n.stream, 'epoch', n.epoch, 'outstanding',
            v_outstanding, 'restored', v_is_moved)
        || CASE WHEN v_before IS NULL THEN '{}' ELSE
            jsonb_build_object('installation', p_target, 'cluster', v_cluster) END
        FROM skald.relay n;
    v_before := coalesce(v_before, '{}')
        || jsonb_build_object('stream', r.stream, 'epoch', r.epoch);
    INSERT INTO skald.audit_entry (actor, action, target, reason, before, after)
        VALUES (p_actor, 'db.adopt', p_target, p_reason, v_before, v_after);
    RETURN jsonb_build_object('ok', true, 'before', v_before, 'after', v_after);
END $$;
