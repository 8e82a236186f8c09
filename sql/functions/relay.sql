-- relay: ticks by snapshot difference, and the emptying of the ring of leaves.
-- Called by outbox/tick.c and outbox/ring.c in READ COMMITTED transactions.
--
-- The window of a tick is what tick_snapshot sees and acked_snapshot does not. It is
-- asked for in two parts, so that an old open transaction makes nobody scan from its
-- beginning: every row of a transaction that began after the acknowledged snapshot
-- (xid >= its xmax: none of them is visible in it), and the rows of those that were
-- under way in it and have ended since.

-- The slot of this database's history: slots are the cluster's, so its name is unique there.
CREATE OR REPLACE FUNCTION skald.relay_slot() RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT 'skald_' || stream FROM skald.relay
$$;

-- Why the slot cannot be streamed from; NULL: it can. It is only ever told what was recorded
-- before: a slot that knows more was moved by somebody else, and what lies between is lost
-- to it.
CREATE OR REPLACE FUNCTION skald.relay_slot_trouble(slot text, acked_lsn pg_lsn) RETURNS text
LANGUAGE plpgsql STABLE AS $$
DECLARE
    s pg_replication_slots;
BEGIN
    SELECT * INTO s FROM pg_replication_slots WHERE slot_name = slot;
    IF NOT FOUND THEN
        RETURN 'the replication slot is missing';
    ELSIF s.wal_status = 'lost' THEN
        RETURN 'the replication slot was invalidated: it exceeded max_slot_wal_keep_size';
    ELSIF s.plugin IS DISTINCT FROM 'pgoutput' OR s.database <> current_database() THEN
        RETURN 'the replication slot is another''s';
    ELSIF s.confirmed_flush_lsn > acked_lsn THEN
        RETURN 'the replication slot was advanced by somebody else';
    END IF;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION skald.relay_next_epoch(epoch bigint) RETURNS bigint
LANGUAGE sql AS $$
    SELECT greatest(epoch + 1, floor(extract(epoch FROM clock_timestamp()))::bigint)
$$;

-- A point of WAL as it stands in a position, at the lowest ordinal.
CREATE OR REPLACE FUNCTION skald.relay_position(epoch bigint, lsn pg_lsn) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
    SELECT lpad(to_hex(epoch), 8, '0') || '.'
        || lpad(to_hex((lsn - '0/0'::pg_lsn)::bigint), 16, '0') || '.00000000'
$$;

-- Which cluster and timeline this is; '' where the role may not ask.
CREATE OR REPLACE FUNCTION skald.relay_here(OUT system_identifier text, OUT timeline text)
LANGUAGE plpgsql AS $$
BEGIN
    BEGIN
        SELECT c.system_identifier::text INTO system_identifier FROM pg_control_system() c;
    EXCEPTION WHEN insufficient_privilege THEN
        system_identifier := '';
    END;
    BEGIN
        timeline := substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8);
    EXCEPTION WHEN insufficient_privilege THEN
        timeline := '';
    END;
END $$;

-- Take the relay over: fence everybody of a lower term, notice another history (timeline,
-- cluster, mode) and begin a new epoch. A tick that the last leader left open is finished
-- under its old positions first (epoch_due): its rows may be in the topics already.
--
-- my_mode is what is wanted; mode is what is done. From poll to wal leads relay_enter_wal
-- alone. From wal to poll leads this: when poll is wanted, the slot is of no use, or this is
-- another timeline. Then what acked_snapshot does not see may have been published, under
-- positions above recover_from: the next tick is a catch-up.
CREATE OR REPLACE FUNCTION skald.relay_lead(my_term bigint, my_owner text, my_mode text,
    my_reason text DEFAULT NULL,
    OUT held boolean, OUT my_stream text, OUT my_epoch bigint, OUT my_tick bigint,
    OUT is_open boolean, OUT from_id bigint, OUT from_ordinal bigint, OUT epoch_due boolean,
    OUT mode text, OUT acked_lsn bigint, OUT acked text, OUT recover_from text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    r skald.relay;
    here record;
    is_moved boolean;
    why text;
BEGIN
    SELECT * INTO r FROM skald.relay FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the outbox has no history yet' USING ERRCODE = 'SK005',
            DETAIL = 'skald.relay: must hold one row', HINT = 'run: skald db migrate';
    END IF;
    held := r.term <= my_term;
    IF NOT held THEN
        -- a lease that is ours and yet behind was lost and made anew: let it catch up
        UPDATE skald.lease SET term = r.term + 1
            WHERE kind = 'relay' AND name = 'outbox' AND owner = my_owner AND term = my_term;
        RETURN;
    END IF;
    -- Restored into another cluster, whose transaction ids begin anew: new rows would look
    -- acknowledged. Nothing may be published until a person has said what this database is.
    IF pg_snapshot_xmax(r.acked_snapshot) > pg_snapshot_xmax(pg_current_snapshot()) THEN
        RAISE EXCEPTION 'the outbox was copied from another cluster: its transaction ids are '
            'ahead of this one''s' USING ERRCODE = 'SK005',
            DETAIL = 'skald.relay.acked_snapshot: must not lie in the future',
            HINT = 'run: skald db adopt';
    END IF;
    SELECT h.system_identifier, h.timeline INTO here FROM skald.relay_here() h;
    is_moved := (here.system_identifier <> '' AND r.system_identifier NOT IN ('', here.system_identifier))
        OR (here.timeline <> '' AND r.timeline NOT IN ('', here.timeline));
    IF r.mode = 'wal' THEN
        why := CASE WHEN my_mode <> 'wal' THEN coalesce(my_reason, 'mode poll is configured')
            WHEN is_moved THEN 'this is another timeline: the slot stayed behind'
            ELSE skald.relay_slot_trouble('skald_' || r.stream, r.acked_lsn) END;
    END IF;
    is_open := r.acked_snapshot::text <> r.tick_snapshot::text;
    epoch_due := is_open AND (is_moved OR r.epoch_wanted);
    IF why IS NOT NULL THEN -- from wal to poll
        r.recover_from := skald.relay_position(r.epoch, r.snapshot_lsn);
        r.mode := 'poll';
        r.slot_dropped := why;
        r.slot_dropped_at := clock_timestamp();
    ELSIF is_moved AND NOT is_open THEN
        -- what the old primary published after this one's last news is not known here
        r.recover_from := coalesce(r.recover_from, r.position, '');
    END IF;
    IF why IS NOT NULL OR (NOT is_open AND r.mode = 'poll' AND (is_moved OR r.epoch_wanted)) THEN
        r.epoch := skald.relay_next_epoch(r.epoch);
        r.epoch_wanted := false;
    END IF;
    IF NOT (epoch_due AND is_moved) THEN -- else it must still differ the next time
        r.system_identifier := coalesce(nullif(here.system_identifier, ''), r.system_identifier);
        r.timeline := coalesce(nullif(here.timeline, ''), r.timeline);
    END IF;
    UPDATE skald.relay SET term = my_term, owner = my_owner, epoch = r.epoch, mode = r.mode,
        system_identifier = r.system_identifier, timeline = r.timeline,
        recover_from = r.recover_from, epoch_wanted = r.epoch_wanted,
        slot_dropped = r.slot_dropped, slot_dropped_at = r.slot_dropped_at,
        heartbeat_at = clock_timestamp();
    my_stream := r.stream;
    my_epoch := r.epoch;
    my_tick := r.tick;
    from_id := CASE WHEN is_open THEN r.done_id ELSE -1 END;
    from_ordinal := CASE WHEN is_open THEN r.done_ordinal ELSE 0 END;
    mode := r.mode;
    acked_lsn := (r.acked_lsn - '0/0'::pg_lsn)::bigint;
    acked := r.acked_snapshot::text;
    recover_from := r.recover_from;
END $$;

-- One turn: record tick done_tick as acknowledged (NULL: none was out), leave a mark, and
-- open the next tick when there is something in its window. held false: another leads.
-- An idle turn writes nothing, unless `advance`: then the acknowledged snapshot moves up to
-- now past rows that nobody may see yet (a bulk load under way), so as not to look at them
-- again and again.
-- recover_from is of the tick that is opened (NULL: no catch-up); is_quiet: every transaction
-- that had begun before `asleep_xid` (NULL: any) has ended.
CREATE OR REPLACE FUNCTION skald.relay_turn(my_term bigint, done_tick bigint, done_position text,
    open_next boolean, mark boolean, advance boolean, asleep_xid xid8 DEFAULT NULL,
    OUT held boolean, OUT opened bigint, OUT my_epoch bigint, OUT recover_from text,
    OUT is_quiet boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_bitmapscan = off -- the first row answers; a bitmap would fetch them all
AS $$
#variable_conflict use_column
DECLARE
    r skald.relay;
    acked pg_snapshot;
    seen pg_snapshot;
    is_work boolean := false;
BEGIN
    SELECT * INTO r FROM skald.relay WHERE term = my_term;
    held := FOUND;
    IF NOT held THEN
        RETURN;
    END IF;
    IF r.mode <> 'poll' OR done_tick <> r.tick
        OR (done_tick IS NULL AND r.acked_snapshot::text <> r.tick_snapshot::text) THEN
        RAISE EXCEPTION 'tick % is not the open one', done_tick USING ERRCODE = 'SK006',
            DETAIL = format('skald.relay.tick: is %s', r.tick);
    END IF;
    acked := CASE WHEN done_tick IS NULL THEN r.acked_snapshot ELSE r.tick_snapshot END;
    seen := pg_current_snapshot();
    is_quiet := asleep_xid IS NULL OR pg_snapshot_xmin(seen) >= asleep_xid;
    IF open_next THEN
        is_work := EXISTS (SELECT FROM skald.outbox
                WHERE xid >= pg_snapshot_xmax(acked) AND pg_visible_in_snapshot(xid, seen))
            OR EXISTS (SELECT FROM skald.outbox
                WHERE xid = ANY (ARRAY(SELECT x FROM pg_snapshot_xip(acked) AS x
                    WHERE pg_visible_in_snapshot(x, seen))));
    END IF;
    -- nothing was outstanding at a recovery, or its tick is done: from here on as always
    IF r.recover_from IS NOT NULL AND (done_tick IS NOT NULL OR (open_next AND NOT is_work)) THEN
        r.recover_from := NULL;
        advance := true;
    END IF;
    IF r.epoch_wanted AND open_next THEN
        r.epoch := skald.relay_next_epoch(r.epoch);
        advance := true;
    END IF;
    IF is_work OR done_tick IS NOT NULL OR (open_next AND advance) THEN
        IF open_next AND advance AND NOT is_work THEN
            acked := seen; -- nothing lies between the two
        END IF;
        UPDATE skald.relay SET acked_snapshot = acked,
            tick_snapshot = CASE WHEN is_work THEN seen ELSE acked END,
            tick = r.tick + is_work::int, done_id = -1, done_ordinal = 0, epoch = r.epoch,
            -- one that was wanted meanwhile still is
            epoch_wanted = epoch_wanted AND NOT (r.epoch_wanted AND open_next), recover_from = r.recover_from,
            position = coalesce(done_position, position), heartbeat_at = clock_timestamp()
            WHERE term = my_term AND tick = r.tick;
        held := FOUND;
    END IF;
    IF held AND mark THEN
        INSERT INTO skald.relay_mark (at, snapshot) VALUES (clock_timestamp(), acked);
    END IF;
    IF held AND is_work THEN
        opened := r.tick + 1;
    END IF;
    my_epoch := r.epoch;
    recover_from := r.recover_from;
END $$;

-- Inside an open tick: everything up to this row is acknowledged.
CREATE OR REPLACE FUNCTION skald.relay_progress(my_term bigint, my_tick bigint, row_id bigint,
    row_ordinal bigint, row_position text)
RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    UPDATE skald.relay SET done_id = row_id, done_ordinal = row_ordinal, position = row_position,
        heartbeat_at = clock_timestamp()
        WHERE term = my_term AND tick = my_tick AND done_ordinal <= row_ordinal;
    RETURN FOUND;
END $$;

-- From poll to wal: the slot was made before the last tick's snapshot was taken, and that tick
-- is done. So what the slot brings and acked_snapshot does not see is not published.
CREATE OR REPLACE FUNCTION skald.relay_enter_wal(my_term bigint, slot_lsn bigint,
    OUT held boolean, OUT my_epoch bigint, OUT acked text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    r skald.relay;
BEGIN
    SELECT * INTO r FROM skald.relay WHERE term = my_term FOR UPDATE;
    held := FOUND;
    IF NOT held THEN
        RETURN;
    END IF;
    IF r.mode <> 'poll' OR r.acked_snapshot::text <> r.tick_snapshot::text
        OR r.recover_from IS NOT NULL THEN
        RAISE EXCEPTION 'a tick is open' USING ERRCODE = 'SK006',
            DETAIL = 'skald.relay: must poll and have nothing outstanding';
    END IF;
    my_epoch := skald.relay_next_epoch(r.epoch);
    acked := r.acked_snapshot::text;
    UPDATE skald.relay SET mode = 'wal', epoch = my_epoch, epoch_wanted = false,
        acked_lsn = '0/0'::pg_lsn + slot_lsn, snapshot_lsn = '0/0'::pg_lsn + slot_lsn,
        slot_dropped = NULL, slot_dropped_at = NULL, heartbeat_at = clock_timestamp()
        WHERE term = my_term;
END $$;

-- Streaming: every commit up to my_lsn is acknowledged, the last record of it is at
-- my_position. mark_snapshot is reached: it becomes the acknowledged one and a mark (NULL:
-- not reached); it sees every commit below mark_lsn. Answers the next snapshot, and the end of
-- WAL after it was taken. is_drained: nothing is outstanding, so another epoch may begin.
-- safe_wal_bytes: what may still be written until the slot is lost; -1: no limit is set.
DROP FUNCTION IF EXISTS skald.relay_stream_turn(bigint, bigint, text, pg_snapshot, bigint, boolean);
CREATE FUNCTION skald.relay_stream_turn(my_term bigint, my_lsn bigint,
    my_position text, mark_snapshot pg_snapshot, mark_lsn bigint, is_drained boolean,
    OUT held boolean, OUT my_epoch bigint, OUT epoch_due boolean, OUT next_snapshot text,
    OUT next_lsn bigint, OUT wal_held_bytes bigint, OUT wal_behind_bytes bigint,
    OUT safe_wal_bytes bigint, OUT spill_bytes bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    r skald.relay;
BEGIN
    UPDATE skald.relay SET acked_lsn = greatest(acked_lsn, '0/0'::pg_lsn + my_lsn),
        position = coalesce(my_position, position),
        acked_snapshot = coalesce(mark_snapshot, acked_snapshot),
        tick_snapshot = coalesce(mark_snapshot, acked_snapshot),
        snapshot_lsn = coalesce('0/0'::pg_lsn + mark_lsn, snapshot_lsn),
        epoch = CASE WHEN epoch_wanted AND is_drained THEN skald.relay_next_epoch(epoch)
            ELSE epoch END,
        epoch_wanted = epoch_wanted AND NOT is_drained,
        heartbeat_at = clock_timestamp()
        WHERE term = my_term AND mode = 'wal'
        RETURNING * INTO r;
    held := FOUND;
    IF NOT held THEN
        RETURN;
    END IF;
    IF mark_snapshot IS NOT NULL THEN
        INSERT INTO skald.relay_mark (at, snapshot) VALUES (clock_timestamp(), mark_snapshot);
    END IF;
    my_epoch := r.epoch;
    epoch_due := r.epoch_wanted;
    -- the snapshot is taken first: whatever it sees has its commit below the end of WAL
    SELECT pg_current_snapshot()::text, (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint
        INTO next_snapshot, next_lsn;
    wal_behind_bytes := next_lsn - (r.acked_lsn - '0/0'::pg_lsn)::bigint;
    SELECT next_lsn - (s.restart_lsn - '0/0'::pg_lsn)::bigint, coalesce(s.safe_wal_size, -1)
        INTO wal_held_bytes, safe_wal_bytes
        FROM pg_replication_slots s WHERE s.slot_name = 'skald_' || r.stream;
    SELECT s.spill_bytes INTO spill_bytes
        FROM pg_stat_replication_slots s WHERE s.slot_name = 'skald_' || r.stream;
END $$;

-- wal is wanted and cannot be: why, for status and doctor.
CREATE OR REPLACE FUNCTION skald.relay_no_wal(my_term bigint, why text) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    UPDATE skald.relay SET slot_dropped = why,
        slot_dropped_at = coalesce(slot_dropped_at, clock_timestamp())
        WHERE term = my_term AND mode = 'poll' AND slot_dropped IS DISTINCT FROM why
$$;

-- Whether writers wake the relay by NOTIFY.
DROP FUNCTION IF EXISTS skald.relay_doze(bigint, boolean);
CREATE FUNCTION skald.relay_doze(my_term bigint, is_asleep boolean) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT setval('skald.relay_sleep', 0, is_asleep) FROM skald.relay r WHERE r.term = my_term
$$;

-- While nothing happens: a sign of life, and marks older than an hour go, some at a time.
CREATE OR REPLACE FUNCTION skald.relay_tidy(my_term bigint)
RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    DELETE FROM skald.relay_mark WHERE ctid IN
        (SELECT ctid FROM skald.relay_mark WHERE at < clock_timestamp() - interval '1 hour'
            ORDER BY at LIMIT 1000);
    UPDATE skald.relay SET heartbeat_at = clock_timestamp() WHERE term = my_term;
    RETURN FOUND;
END $$;

-- Is there a row in the leaf that the acknowledged snapshot does not see, or that is younger
-- than the retention? Only rows of transactions from `since` on are asked for their age.
CREATE OR REPLACE FUNCTION skald.relay_leaf_is_needed(leaf int, since xid8, retention interval)
RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    acked pg_snapshot;
    is_needed boolean;
BEGIN
    SELECT acked_snapshot INTO STRICT acked FROM skald.relay;
    EXECUTE format('
        SELECT EXISTS (SELECT FROM skald.outbox_%1$s WHERE xid >= pg_snapshot_xmax($1))
            OR EXISTS (SELECT FROM skald.outbox_%1$s
                WHERE xid = ANY (ARRAY(SELECT pg_snapshot_xip($1))))
            OR EXISTS (SELECT FROM skald.outbox_%1$s
                WHERE xid >= $2 AND at > clock_timestamp() - $3)', leaf & 7)
        INTO is_needed USING acked, since, retention;
    RETURN is_needed;
END $$;

-- May the leaf be emptied, as far as can be seen without a lock? Answers from which
-- transaction on rows may have come since, else NULL. The age of the newest row is asked
-- first: it is an index away, all others are a scan.
CREATE OR REPLACE FUNCTION skald.relay_leaf_ready(leaf int, retention interval)
RETURNS xid8
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    since xid8 := pg_snapshot_xmin(pg_current_snapshot());
    newest timestamptz;
BEGIN
    EXECUTE format('SELECT at FROM skald.outbox_%s ORDER BY xid DESC LIMIT 1', leaf & 7)
        INTO newest;
    IF newest > clock_timestamp() - retention
        OR skald.relay_leaf_is_needed(leaf, '0'::xid8, retention) THEN
        RETURN NULL;
    END IF;
    RETURN since;
END $$;

-- The oldest leaf that holds anything, if it may be emptied (else since is NULL); never the
-- one the sequence stands in, and none of `busy`, a bit per leaf that somebody has locked.
-- leaf NULL: nothing to do.
CREATE OR REPLACE FUNCTION skald.relay_ring_oldest(retention interval, busy int,
    OUT leaf int, OUT since xid8)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    here int;
BEGIN
    SELECT (last_value >> 20) & 7 INTO here FROM skald.outbox_id;
    FOR step IN 1..7 LOOP
        leaf := (here + step) & 7;
        IF (busy >> leaf) & 1 = 0
            AND pg_relation_size(format('skald.outbox_%s', leaf)::regclass) > 0 THEN
            since := skald.relay_leaf_ready(leaf, retention);
            RETURN;
        END IF;
    END LOOP;
    leaf := NULL;
END $$;

-- Lock first, then look: a transaction that holds a row here still has its lock, so whoever
-- gets this one sees every row there is. (Looking first loses what commits in between.)
CREATE OR REPLACE FUNCTION skald.relay_leaf_lock(leaf int, since xid8, retention interval)
RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET lock_timeout = '50ms' AS $$
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'a leaf is emptied in read committed only: an older snapshot does not '
            'see every row' USING ERRCODE = 'SK006';
    END IF;
    EXECUTE format('LOCK TABLE ONLY skald.outbox_%s IN ACCESS EXCLUSIVE MODE', leaf & 7);
    RETURN NOT skald.relay_leaf_is_needed(leaf, since, retention)
        AND ((SELECT last_value FROM skald.outbox_id) >> 20) & 7 <> leaf & 7;
END $$;

-- Looks again, so that no caller can empty a leaf that is needed.
CREATE OR REPLACE FUNCTION skald.relay_leaf_truncate(leaf int, since xid8, retention interval)
RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT skald.relay_leaf_lock(leaf, since, retention) THEN
        RETURN false;
    END IF;
    EXECUTE format('TRUNCATE TABLE ONLY skald.outbox_%s', leaf & 7);
    RETURN true;
END $$;

-- On a quiet system the sequence would stand in one leaf for ever, and its rows with it:
-- move it to the next leaf once all here are old and acknowledged. ALTER SEQUENCE, changing
-- nothing, is the lock: while it is held nobody draws an id, so the step can only be forward.
CREATE OR REPLACE FUNCTION skald.relay_ring_move(retention interval)
RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET lock_timeout = '50ms' AS $$
DECLARE
    last bigint;
    leaf int;
BEGIN
    SELECT last_value, (last_value >> 20) & 7 INTO last, leaf FROM skald.outbox_id;
    IF pg_relation_size(format('skald.outbox_%s', leaf)::regclass) = 0
        OR pg_relation_size(format('skald.outbox_%s', (leaf + 1) & 7)::regclass) > 0
        OR skald.relay_leaf_ready(leaf, retention) IS NULL THEN
        RETURN NULL;
    END IF;
    ALTER SEQUENCE skald.outbox_id NO CYCLE;
    SELECT last_value INTO last FROM skald.outbox_id;
    IF (last >> 20) & 7 <> leaf THEN
        RETURN NULL;
    END IF;
    RETURN setval('skald.outbox_id', ((last >> 20) + 1) << 20, false);
END $$;
