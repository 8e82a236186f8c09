-- orchestrator.sql - what the orchestrator's loop (saga/orchestrator.c) asks of the database.
--
-- One batch is one transaction: orchestrator_served, then the sagas are locked (those that
-- records name in the order of their ids, due ones as far as nobody else has them), then
-- everything is written back set by set, last orchestrator_done, which fails the whole when
-- another daemon took one of the partitions.
--
-- What a batch calls is plpgsql with generic plans: of a small batch the planning is what
-- costs, and a function in SQL with settings of its own is planned at each call. Arrays come
-- first and rows are found by key, whatever the planner thinks of the tables' sizes.

-- Microseconds since 1970, exact until the year 2255. Both are planned into their callers:
-- they must not claim to be less volatile than what they consist of.
CREATE OR REPLACE FUNCTION skald.orchestrator_at(p_us bigint) RETURNS timestamptz
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT to_timestamp(p_us::float8 / 1000000::float8)
$$;

CREATE OR REPLACE FUNCTION skald.orchestrator_us(p_at timestamptz) RETURNS bigint
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT (extract(epoch FROM p_at) * 1000000)::bigint
$$;

-- --- identity ----------------------------------------------------------------------------

-- The first daemon records who the database belongs to; another pair later is refused. What
-- is wrong, or NULL. p_cluster NULL: a dev broker's, which is not compared.
CREATE OR REPLACE FUNCTION skald.orchestrator_identity(p_installation text, p_cluster text,
    p_reply_topic text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    i skald.installation;
BEGIN
    INSERT INTO skald.installation (installation, kafka_cluster_id, reply_topic)
        VALUES (p_installation, p_cluster, p_reply_topic) ON CONFLICT DO NOTHING;
    SELECT * INTO STRICT i FROM skald.installation;
    IF i.installation <> p_installation THEN
        RETURN format('daemon.installation: this database belongs to installation %s, not %s:'
            ' a copy? `skald db adopt` makes it this one''s', i.installation, p_installation);
    ELSIF i.kafka_cluster_id <> p_cluster THEN
        RETURN format('kafka.bootstrap.servers: this database belongs to Kafka cluster %s, not'
            ' %s: a copy? `skald db adopt` makes it this one''s', i.kafka_cluster_id, p_cluster);
    END IF;
    UPDATE skald.installation SET kafka_cluster_id = coalesce(p_cluster, kafka_cluster_id),
           reply_topic = p_reply_topic
     WHERE (kafka_cluster_id, reply_topic)
           IS DISTINCT FROM (coalesce(p_cluster, kafka_cluster_id), p_reply_topic);
    RETURN NULL;
END $$;

-- --- leases --------------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION skald.orchestrator_partitions(p_topic text, p_count int)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO skald.saga_partition (topic, partition)
        SELECT p_topic, n FROM generate_series(0, p_count - 1) AS n ON CONFLICT DO NOTHING;
END $$;

-- Every half second: renew what is ours, give up what is beyond our share, take what is free
-- up to it. Then every partition that is ours. p_topics: the reply topic first. p_caught_*:
-- those that were applied up to the end they had after that time.
CREATE OR REPLACE FUNCTION skald.orchestrator_beat(p_owner text, p_topics text[],
    p_caught_topics text[], p_caught_partitions int[], p_caught_terms bigint[],
    p_caught_us bigint[])
RETURNS TABLE (topic text, "partition" int, term bigint, done bigint, clock_us bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v_now timestamptz := clock_timestamp();
    v_began timestamptz;
    v_mine int;
    v_share int;
BEGIN
    SELECT min(p.caught_up_at) INTO v_began
      FROM skald.saga_partition p
      JOIN unnest(p_caught_topics, p_caught_partitions, p_caught_terms, p_caught_us)
           AS u(topic, part, term, us)
        ON p.topic = u.topic AND p.partition = u.part AND p.term = u.term
     WHERE p.topic = p_topics[1]
       AND p.caught_up_at < skald.orchestrator_at(u.us) - interval '5 s';
    IF v_began IS NOT NULL THEN
        INSERT INTO skald.saga_gap (began_at, ended_at) VALUES (v_began, v_now);
        DELETE FROM skald.saga_gap WHERE ended_at < v_now - interval '30 days';
    END IF;
    UPDATE skald.saga_partition p SET caught_up_at = skald.orchestrator_at(u.us)
      FROM unnest(p_caught_topics, p_caught_partitions, p_caught_terms, p_caught_us)
           AS u(topic, part, term, us)
     WHERE p.topic = u.topic AND p.partition = u.part AND p.term = u.term
       AND (p.caught_up_at IS NULL OR p.caught_up_at < skald.orchestrator_at(u.us));

    INSERT INTO skald.saga_owner AS o (owner, until) VALUES (p_owner, v_now + interval '2 s')
        ON CONFLICT (owner) DO UPDATE SET until = v_now + interval '2 s';
    DELETE FROM skald.saga_owner WHERE until < v_now - interval '1 min';
    UPDATE skald.saga_partition p SET until = v_now + interval '2 s' WHERE p.owner = p_owner;
    SELECT ceil(count(*)::numeric
                / greatest((SELECT count(*) FROM skald.saga_owner WHERE until > v_now), 1))
      INTO v_share FROM skald.saga_partition p WHERE p.topic = ANY (p_topics);
    SELECT count(*) INTO v_mine FROM skald.saga_partition p WHERE p.owner = p_owner;
    IF v_mine > v_share THEN
        UPDATE skald.saga_partition p SET owner = NULL, until = '-infinity'
         WHERE (p.topic, p.partition) IN (SELECT q.topic, q.partition
            FROM skald.saga_partition q WHERE q.owner = p_owner
            ORDER BY q.partition, q.topic OFFSET v_share);
    ELSIF v_mine < v_share THEN
        UPDATE skald.saga_partition p SET owner = p_owner, until = v_now + interval '2 s',
               term = p.term + 1
         WHERE (p.topic, p.partition) IN (SELECT q.topic, q.partition
            FROM skald.saga_partition q WHERE q.until < v_now AND q.topic = ANY (p_topics)
            ORDER BY q.partition, q.topic LIMIT v_share - v_mine FOR UPDATE SKIP LOCKED);
    END IF;
    RETURN QUERY SELECT p.topic, p.partition, p.term, p.done, skald.orchestrator_us(v_now)
      FROM skald.saga_partition p WHERE p.owner = p_owner ORDER BY p.topic, p.partition;
END $$;

CREATE OR REPLACE FUNCTION skald.orchestrator_leave(p_owner text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM skald.saga_owner WHERE owner = p_owner;
    UPDATE skald.saga_partition SET owner = NULL, until = '-infinity' WHERE owner = p_owner;
END $$;

-- --- a batch, reading ----------------------------------------------------------------------

-- Before the sagas are locked: since when every partition of replies is known to be applied,
-- and the end of the newest gap.
CREATE OR REPLACE FUNCTION skald.orchestrator_served(p_reply_topic text)
RETURNS TABLE (clock_us bigint, caught_up_us bigint, gap_us bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN QUERY SELECT skald.orchestrator_us(clock_timestamp()),
           (SELECT CASE WHEN count(*) = count(p.caught_up_at)
                        THEN skald.orchestrator_us(min(p.caught_up_at)) END
              FROM skald.saga_partition p WHERE p.topic = p_reply_topic),
           (SELECT skald.orchestrator_us(max(g.ended_at)) FROM skald.saga_gap g);
END $$;

-- A saga's row as the loop reads it.
CREATE OR REPLACE FUNCTION skald.orchestrator_lock(p_ids uuid[])
RETURNS SETOF skald.saga
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    IF cardinality(p_ids) > 0 THEN
        RETURN QUERY SELECT * FROM skald.saga s WHERE s.id = ANY (p_ids) ORDER BY s.id FOR UPDATE;
    END IF;
END $$;

-- What is due, new sagas too, as far as no other daemon has it in hand; published_at is looked
-- up where a command of theirs is out.
CREATE OR REPLACE FUNCTION skald.orchestrator_due(p_not uuid[], p_max int)
RETURNS SETOF skald.saga
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off AS $$ -- planned once, while the table is small or not analyzed
DECLARE
    v_now timestamptz := clock_timestamp();
    s skald.saga;
BEGIN
    FOR s IN SELECT * FROM skald.saga g
              WHERE g.due_at <= v_now AND g.id <> ALL (p_not)
              ORDER BY g.due_at LIMIT p_max FOR UPDATE SKIP LOCKED LOOP
        IF s.command_xid IS NOT NULL AND s.published_at IS NULL THEN
            SELECT m.at INTO s.published_at FROM skald.relay_mark m
             WHERE m.at >= s.command_at AND pg_visible_in_snapshot(s.command_xid, m.snapshot)
             ORDER BY m.at LIMIT 1;
        END IF;
        RETURN NEXT s;
    END LOOP;
END $$;

-- What is stored of sagas: its size, and its text where that is wanted.
DROP FUNCTION IF EXISTS skald.orchestrator_look(uuid[], text[]);
CREATE OR REPLACE FUNCTION skald.orchestrator_look(p_ids uuid[], p_names text[],
    p_wanted boolean[] DEFAULT NULL)
RETURNS TABLE (saga_id uuid, name text, data text, bytes int)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    RETURN QUERY SELECT d.saga_id, d.name,
           CASE WHEN u.is_wanted IS NOT FALSE THEN d.data END, octet_length(d.data)
      FROM unnest(p_ids, p_names, p_wanted) AS u(id, name, is_wanted)
      JOIN skald.saga_data d ON d.saga_id = u.id AND d.name = u.name;
END $$;

CREATE OR REPLACE FUNCTION skald.orchestrator_definition(p_name text, p_version int)
RETURNS text LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT d.body FROM skald.saga_definition d WHERE d.name = p_name AND d.version = p_version
$$;

-- --- a batch, writing ----------------------------------------------------------------------

-- due_at is kept while it is before what is due: then the row stays where it is and no index
-- is written (HOT). Whoever looks too early finds nothing due, and moves it.
CREATE OR REPLACE FUNCTION skald.orchestrator_save(p_now_us bigint, p_ids uuid[],
    p_status text[], p_outcome text[], p_undo text[], p_paused boolean[], p_overdue boolean[],
    p_signed boolean[], p_reason_step text[], p_reason_code text[], p_reason_message text[],
    p_state text[], p_seq int[], p_due_us bigint[], p_deadline_us bigint[],
    p_finished_us bigint[], p_published_us bigint[], p_is_sent boolean[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    UPDATE skald.saga s
       SET status = u.status, outcome = u.outcome, undo = u.undo, paused = u.paused,
           overdue = u.overdue, signed = u.signed, reason_step = u.reason_step,
           reason_code = u.reason_code, reason_message = u.reason_message, state = u.state,
           seq = u.seq,
           due_at = CASE WHEN s.due_at > skald.orchestrator_at(p_now_us)
                          AND s.due_at <= skald.orchestrator_at(u.due_us) THEN s.due_at
                         ELSE skald.orchestrator_at(u.due_us) END,
           deadline_at = skald.orchestrator_at(u.deadline_us),
           finished_at = skald.orchestrator_at(u.finished_us),
           published_at = skald.orchestrator_at(u.published_us),
           command_xid = CASE WHEN u.is_sent THEN pg_current_xact_id() ELSE s.command_xid END,
           command_at = CASE WHEN u.is_sent THEN skald.orchestrator_at(p_now_us)
                             ELSE s.command_at END,
           updated_at = skald.orchestrator_at(p_now_us)
      FROM unnest(p_ids, p_status, p_outcome, p_undo, p_paused, p_overdue, p_signed,
                  p_reason_step, p_reason_code, p_reason_message, p_state, p_seq, p_due_us,
                  p_deadline_us, p_finished_us, p_published_us, p_is_sent)
           AS u(id, status, outcome, undo, paused, overdue, signed, reason_step, reason_code,
                reason_message, state, seq, due_us, deadline_us, finished_us, published_us,
                is_sent)
     WHERE s.id = u.id;
END $$;

CREATE OR REPLACE FUNCTION skald.orchestrator_log(p_now_us bigint, p_ids uuid[], p_seq int[],
    p_kind text[], p_step text[], p_op text[], p_attempt int[], p_outcome text[],
    p_detail text[], p_message_id text[], p_correlation_id text[], p_traceparent text[])
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    INSERT INTO skald.saga_event_entry (saga_id, seq, at, kind, step, op, attempt, outcome,
                                        detail, message_id, correlation_id, traceparent)
    SELECT u.id, u.seq, skald.orchestrator_at(p_now_us), u.kind, u.step, u.op, u.attempt,
           u.outcome, u.detail, u.message_id, u.correlation_id, u.traceparent
      FROM unnest(p_ids, p_seq, p_kind, p_step, p_op, p_attempt, p_outcome, p_detail,
                  p_message_id, p_correlation_id, p_traceparent)
           AS u(id, seq, kind, step, op, attempt, outcome, detail, message_id, correlation_id,
                traceparent);
END $$;

CREATE OR REPLACE FUNCTION skald.orchestrator_keep(p_ids uuid[], p_names text[],
    p_data text[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    INSERT INTO skald.saga_data (saga_id, name, data)
    SELECT u.id, u.name, u.data FROM unnest(p_ids, p_names, p_data) AS u(id, name, data)
        ON CONFLICT DO NOTHING;
END $$;

-- Commands and life-cycle events, in this order.
CREATE OR REPLACE FUNCTION skald.orchestrator_send(p_source text, p_ids uuid[],
    p_topics text[], p_keys text[], p_types text[], p_data text[], p_headers text[],
    p_correlation_id text[], p_causation_id text[], p_traceparent text[],
    p_expires_us bigint[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    INSERT INTO skald.outbox (message_id, topic, key, type, source, content_type, data,
        headers, correlation_id, causation_id, traceparent, expires_at)
    SELECT u.id, u.topic, convert_to(u.key, 'UTF8'), u.type, p_source, 'application/json',
           convert_to(u.data, 'UTF8'), u.headers::jsonb, u.correlation_id, u.causation_id,
           u.traceparent, skald.orchestrator_at(u.expires_us)
      FROM unnest(p_ids, p_topics, p_keys, p_types, p_data, p_headers, p_correlation_id,
                  p_causation_id, p_traceparent, p_expires_us)
           WITH ORDINALITY AS u(id, topic, key, type, data, headers, correlation_id,
                causation_id, traceparent, expires_us, n)
     ORDER BY u.n;
    PERFORM skald.outbox_wake();
END $$;

-- A start that came as a message. The new saga, or an SQLSTATE and what it says.
CREATE OR REPLACE FUNCTION skald.orchestrator_start(p_value text, p_headers jsonb)
RETURNS TABLE (id uuid, code text, message text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET lock_timeout = '100ms' AS $$ -- an application's open start of the same key
DECLARE
    v jsonb := p_value::jsonb;
    v_odd text := (SELECT min(k) FROM jsonb_object_keys(v) AS k
                    WHERE k NOT IN ('name', 'key', 'input', 'version', 'again'));
BEGIN
    PERFORM skald.context(p_headers);
    IF v_odd IS NOT NULL THEN
        PERFORM skald.refuse('SK001', left(v_odd, 63) || ': is no member of a start');
    ELSIF jsonb_typeof(v -> 'name') IS DISTINCT FROM 'string'
        OR jsonb_typeof(v -> 'key') IS DISTINCT FROM 'string' THEN
        PERFORM skald.refuse('SK001', 'name, key: must be texts');
    ELSIF v ->> 'version' !~ '^[1-9][0-9]{0,8}$' THEN
        PERFORM skald.refuse('SK001', 'version: must be a whole number from 1');
    END IF;
    id := skald.saga_start(name => v ->> 'name', key => v ->> 'key',
        input => coalesce(v -> 'input', '{}'), version => (v ->> 'version')::int,
        again => coalesce(v ->> 'again', 'never'));
    RETURN NEXT;
EXCEPTION WHEN SQLSTATE 'SK001' OR SQLSTATE 'SK003' OR SQLSTATE 'SK004' OR SQLSTATE 'SK006'
        OR SQLSTATE 'SK007' OR lock_not_available THEN
    id := NULL;
    code := SQLSTATE;
    message := SQLERRM;
    RETURN NEXT;
END $$;

-- Last of all: every offset below is applied. Another owner of one of them: all is undone.
CREATE OR REPLACE FUNCTION skald.orchestrator_done(p_owner text, p_topics text[],
    p_partitions int[], p_terms bigint[], p_done bigint[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_count bigint;
BEGIN
    UPDATE skald.saga_partition p SET done = u.done
      FROM unnest(p_topics, p_partitions, p_terms, p_done) AS u(topic, part, term, done)
     WHERE p.topic = u.topic AND p.partition = u.part AND p.term = u.term
       AND p.owner = p_owner;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    IF v_count <> coalesce(cardinality(p_topics), 0) THEN
        RAISE EXCEPTION 'another orchestrator took a partition' USING ERRCODE = '40001';
    END IF;
END $$;

-- A saga that breaks its batch is left alone for a minute; the loop names it in the log.
CREATE OR REPLACE FUNCTION skald.orchestrator_postpone(p_id uuid) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    UPDATE skald.saga SET due_at = clock_timestamp() + interval '1 min' WHERE id = p_id
$$;

-- A definition of the directory [saga] definitions, checked by the daemon.
CREATE OR REPLACE FUNCTION skald.orchestrator_deploy(p_name text, p_args jsonb)
RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN skald.operator_saga_deploy(p_name, session_user::text, '[saga] definitions', p_args);
END $$;

CREATE OR REPLACE FUNCTION skald.orchestrator_is_due() RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off AS $$
DECLARE
    v_now timestamptz := clock_timestamp();
BEGIN
    RETURN EXISTS (SELECT FROM skald.saga s WHERE s.due_at <= v_now);
END $$;

-- A dead letter of the orchestrator's that an operator wants again; one that a daemon claimed
-- and never ended is free after a while. The core fences what comes twice.
CREATE OR REPLACE FUNCTION skald.orchestrator_replay(p_group text)
RETURNS TABLE (id uuid, version int, topic text, "partition" int, record_offset bigint,
    key bytea, value bytea, headers_raw bytea)
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    UPDATE skald.dead_letter_entry e
       SET state = 'claimed', version = e.version + 1, changed_at = clock_timestamp()
     WHERE e.id = (SELECT w.id FROM skald.dead_letter_entry w
                    WHERE w.consumer_group = p_group AND (w.state = 'requested'
                       OR (w.state = 'claimed' AND w.changed_at < now() - interval '5 s'))
                    ORDER BY w.changed_at LIMIT 1 FOR UPDATE SKIP LOCKED)
    RETURNING e.id, e.version, e.topic, e.partition, e.record_offset, e.key, e.value,
        e.headers_raw
$$;

-- --- retention -----------------------------------------------------------------------------

-- Finished sagas whose retention is over, at most p_max, oldest first: what they did goes,
-- with their events and data; what saga_start needs stays in saga_past. Returns how many.
-- Their ids are UUIDv7, so the primary key finds them. Of a key the oldest run goes first.
CREATE OR REPLACE FUNCTION skald.orchestrator_sweep(p_retention interval, p_max int)
RETURNS int LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off AS $$
DECLARE
    v_before timestamptz := clock_timestamp() - p_retention;
    v_ids uuid[];
BEGIN
    v_ids := ARRAY(
        SELECT s.id FROM skald.saga s
         WHERE s.id < (lpad(to_hex((date_part('epoch', v_before) * 1000)::bigint), 12, '0')
                       || '00000000000000000000')::uuid
           AND s.status = 'finished' AND s.finished_at < v_before
           AND NOT EXISTS (SELECT FROM skald.saga o
                            WHERE o.name = s.name AND o.key = s.key AND o.run < s.run)
         ORDER BY s.id LIMIT p_max FOR UPDATE OF s SKIP LOCKED);
    IF cardinality(v_ids) = 0 THEN
        RETURN 0;
    END IF;
    INSERT INTO skald.saga_past (name, key, run, id, version, outcome, input_digest, finished_at)
        SELECT s.name, s.key, s.run, s.id, s.version, s.outcome,
               skald.saga_digest(d.data::jsonb), s.finished_at
          FROM skald.saga s
          JOIN skald.saga_data d ON d.saga_id = s.id AND d.name = '$input'
         WHERE s.id = ANY (v_ids);
    DELETE FROM skald.saga_event_entry e WHERE e.saga_id = ANY (v_ids);
    DELETE FROM skald.saga_data d WHERE d.saga_id = ANY (v_ids);
    DELETE FROM skald.saga_inbox i WHERE i.saga_id = ANY (v_ids);
    DELETE FROM skald.saga s WHERE s.id = ANY (v_ids);
    RETURN cardinality(v_ids);
END $$;
