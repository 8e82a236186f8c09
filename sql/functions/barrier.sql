-- barrier.sql - a participant's side of a saga: may this command run, and its answer.
--
-- participate, reply, reply_later, reply_by_key and action_reply are the doors for every
-- language; participant_* is what the runner of this library calls, many commands at once.
-- The table and its states: migrations/0002.sql.
--
--                 participate                    reply
--   (no row) none ----------> taken -+-- success, failure --> answered: kept, repeated
--      open ----------------> taken -+-- retryable, unknown -> open: the next attempt runs
--                                    +-- reply_later -------> pending -- reply_by_key --> as reply
--                                                             pending -- compensation --> ended
--
-- B1  `taken` is never committed (barrier_unanswered), so whoever sees it put it there. How
--     many there are is counted in skald.barrier_open, a setting of the transaction that goes
--     back with a savepoint like the rows; while it is 0 nobody need look at the rows.
-- B2  The row of an action's first key stands for the step: everything but the take of that
--     very key locks it first, so an action and its compensation decide one after the other.
-- B3  A kept answer is repeated whatever came after it.
-- B4  A compensation fences its step (is_undone) in the transaction that takes it.
--
-- enable_seqscan is off because a plan made while the table was tiny outlives that.

-- --- what a command must look like ----------------------------------------------------------

-- Do the patterns of skald.reply_topics (a comma between, * stands for anything) allow it?
CREATE OR REPLACE FUNCTION skald.barrier_may_reply_to(p_topic text) RETURNS boolean
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_patterns text := current_setting('skald.reply_topics', true);
BEGIN
    IF v_patterns IS NULL OR v_patterns = '' THEN
        RETURN starts_with(p_topic, 'skald.replies');
    END IF;
    RETURN EXISTS (
        SELECT FROM regexp_split_to_table(v_patterns, '[,\s]+') AS pattern
         WHERE pattern <> ''
           AND p_topic LIKE replace(regexp_replace(pattern, '([\\%_])', '\\\1', 'g'), '*', '%'));
END $$;

-- Key of the action, compensation: without the round. A query carries its action's.
CREATE OR REPLACE FUNCTION skald.barrier_first_key(p_saga text, p_step text, p_op text)
RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN concat(p_saga, ':', p_step, ':', CASE p_op WHEN 'query' THEN 'action' ELSE p_op END);
END $$;

-- Raise what is wrong with a command; silent if nothing is.
CREATE OR REPLACE FUNCTION skald.barrier_complain(p_headers jsonb, p_participant text)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    c_name CONSTANT text := '^[a-z][a-z0-9-]{0,62}$';
    v_first text;
    v_name  text;
BEGIN
    IF p_headers IS NULL OR jsonb_typeof(p_headers) <> 'object' THEN
        PERFORM skald.refuse('SK001', 'headers: must be a JSON object of names and texts');
    ELSIF p_participant IS NULL OR p_participant = '' THEN
        PERFORM skald.refuse('SK001', 'participant: must not be empty');
    ELSIF octet_length(p_participant) > 255 THEN
        PERFORM skald.refuse('SK007', 'participant: must be at most 255 bytes');
    END IF;
    FOREACH v_name IN ARRAY ARRAY['ce_id', 'ce_type', 'ce_sagaid', 'ce_saganame', 'ce_sagastep',
        'ce_sagaop', 'ce_sagaattempt', 'ce_replyto', 'idempotency-key'] LOOP
        IF coalesce(p_headers ->> v_name, '') = '' THEN
            PERFORM skald.refuse('SK001', 'headers.' || v_name || ': is required');
        END IF;
    END LOOP;
    IF octet_length(p_headers ->> 'ce_id') > 255 THEN
        PERFORM skald.refuse('SK007', 'headers.ce_id: must be at most 255 bytes');
    ELSIF octet_length(p_headers ->> 'ce_type') > 249 THEN
        PERFORM skald.refuse('SK007',
            'headers.ce_type: must be at most 249 bytes, so that .reply can follow');
    ELSIF p_headers ->> 'ce_sagaid'
        !~ '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$' THEN
        PERFORM skald.refuse('SK001', 'headers.ce_sagaid: must be a uuid in lower case');
    ELSIF p_headers ->> 'ce_saganame' !~ c_name THEN
        PERFORM skald.refuse('SK001',
            'headers.ce_saganame: must be a lower-case name of 1 to 63 of [a-z0-9-]');
    ELSIF p_headers ->> 'ce_sagastep' !~ c_name THEN
        PERFORM skald.refuse('SK001',
            'headers.ce_sagastep: must be a lower-case name of 1 to 63 of [a-z0-9-]');
    ELSIF p_headers ->> 'ce_sagaop' NOT IN ('action', 'compensation', 'query') THEN
        PERFORM skald.refuse('SK001',
            'headers.ce_sagaop: must be action, compensation or query');
    ELSIF p_headers ->> 'ce_sagaattempt' !~ '^[1-9][0-9]{0,8}$' THEN
        PERFORM skald.refuse('SK001', 'headers.ce_sagaattempt: must be a number from 1');
    END IF;
    v_first := skald.barrier_first_key(p_headers ->> 'ce_sagaid', p_headers ->> 'ce_sagastep',
        p_headers ->> 'ce_sagaop');
    IF p_headers ->> 'idempotency-key' <> v_first
        AND (NOT starts_with(p_headers ->> 'idempotency-key', v_first || ':')
             OR substr(p_headers ->> 'idempotency-key', length(v_first) + 2)
                !~ '^([2-9]|[1-9][0-9]{1,8})$') THEN
        PERFORM skald.refuse('SK001',
            'headers.idempotency-key: must fit saga, step and op: ' || v_first || ' (or :2 ...)');
    ELSIF p_headers ->> 'ce_replyto' !~ '^[A-Za-z0-9._-]{1,249}$'
        OR p_headers ->> 'ce_replyto' IN ('.', '..')
        OR NOT skald.barrier_may_reply_to(p_headers ->> 'ce_replyto') THEN
        PERFORM skald.refuse('SK001', 'headers.ce_replyto: must match skald.reply_topics ('
            || coalesce(nullif(current_setting('skald.reply_topics', true), ''), 'skald.replies*')
            || ')');
    END IF;
END $$;

-- The same for the many that are right; without regular expressions, which cost 20 us.
CREATE OR REPLACE FUNCTION skald.barrier_check(p_headers jsonb, p_participant text)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_saga    text := p_headers ->> 'ce_sagaid';
    v_name    text := p_headers ->> 'ce_saganame';
    v_step    text := p_headers ->> 'ce_sagastep';
    v_op      text := p_headers ->> 'ce_sagaop';
    v_attempt text := p_headers ->> 'ce_sagaattempt';
    v_topic   text := p_headers ->> 'ce_replyto';
BEGIN
    IF v_saga LIKE '________-____-____-____-____________'
        AND translate(v_saga, '0123456789abcdef', '') = '----'
        AND translate(v_name || v_step, 'abcdefghijklmnopqrstuvwxyz0123456789-', '') = ''
        AND ascii(v_name) >= 97 AND length(v_name) <= 63
        AND ascii(v_step) >= 97 AND length(v_step) <= 63
        AND v_op IN ('action', 'compensation')
        AND p_headers ->> 'idempotency-key' = concat(v_saga, ':', v_step, ':', v_op)
        AND translate(v_attempt, '0123456789', '') = '' AND ascii(v_attempt) > 48
        AND length(v_attempt) <= 9
        AND starts_with(v_topic, 'skald.replies') AND length(v_topic) <= 249
        AND translate(lower(v_topic), 'abcdefghijklmnopqrstuvwxyz0123456789-._', '') = ''
        AND coalesce(current_setting('skald.reply_topics', true), '') = ''
        AND octet_length(p_headers ->> 'ce_id') BETWEEN 1 AND 255
        AND octet_length(p_headers ->> 'ce_type') BETWEEN 1 AND 249
        AND octet_length(p_participant) BETWEEN 1 AND 255 THEN
        RETURN;
    END IF;
    PERFORM skald.barrier_complain(p_headers, p_participant);
END $$;

-- Did this saga (a UUIDv7) begin before what the barrier remembers?
CREATE OR REPLACE FUNCTION skald.barrier_is_old(p_saga text) RETURNS boolean
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_setting   text     := current_setting('skald.barrier_retention', true);
    v_retention interval := '400 days';
BEGIN
    IF v_setting <> '' THEN
        v_retention := v_setting::interval;
        IF v_retention = '0' THEN -- for ever
            RETURN false;
        END IF;
    END IF;
    RETURN substr(p_saga, 15, 1) = '7'
        AND to_timestamp(('x' || left(p_saga, 8) || substr(p_saga, 10, 4))::bit(48)::bigint
                         / 1000.0) < now() - v_retention;
END $$;

CREATE OR REPLACE FUNCTION skald.barrier_is_expired(p_headers jsonb) RETURNS boolean
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (p_headers ->> 'ce_expirytime')::timestamptz < clock_timestamp();
EXCEPTION WHEN data_exception THEN
    PERFORM skald.refuse('SK001', 'headers.ce_expirytime: must be an RFC 3339 time');
END $$;

-- --- answers ----------------------------------------------------------------------------------

-- Id of the answer to a command: UUIDv5(its ce_id, participant + ':reply').
CREATE OR REPLACE FUNCTION skald.barrier_reply_id(p_message_id text, p_participant text)
RETURNS uuid LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN skald.uuid5(
        CASE WHEN p_message_id ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
            THEN p_message_id::uuid
            ELSE skald.uuid5('00000000-0000-0000-0000-000000000000', p_message_id) END,
        p_participant || ':reply');
END $$;

-- An answer into the outbox, in the name of the command it belongs to.
CREATE OR REPLACE FUNCTION skald.barrier_send(p_participant text, p_headers jsonb,
    p_outcome text, p_data text, p_barrier text, p_reply_id uuid) RETURNS uuid
LANGUAGE plpgsql AS $$
DECLARE
    v_headers     jsonb;
    v_correlation text := p_headers ->> 'ce_correlationid';
    v_id          uuid := p_reply_id;
BEGIN
    IF v_id IS NULL THEN
        v_id := skald.barrier_reply_id(p_headers ->> 'ce_id', p_participant);
    END IF;
    v_headers := jsonb_build_object(
        'ce_sagaid', p_headers ->> 'ce_sagaid', 'ce_saganame', p_headers ->> 'ce_saganame',
        'ce_sagastep', p_headers ->> 'ce_sagastep', 'ce_sagaop', p_headers ->> 'ce_sagaop',
        'ce_sagaattempt', p_headers ->> 'ce_sagaattempt',
        'idempotency-key', p_headers ->> 'idempotency-key', 'ce_sagaoutcome', p_outcome);
    IF p_barrier IS NOT NULL THEN
        v_headers := v_headers || jsonb_build_object('ce_sagabarrier', p_barrier);
    END IF;
    IF p_headers ?| '{tracestate,baggage}' THEN
        IF octet_length(p_headers ->> 'tracestate') BETWEEN 1 AND 512
            AND skald.trace_is_valid(p_headers ->> 'traceparent') THEN
            v_headers := v_headers || jsonb_build_object('tracestate', p_headers ->> 'tracestate');
        END IF;
        IF octet_length(p_headers ->> 'baggage') BETWEEN 1 AND 4096 THEN
            v_headers := v_headers || jsonb_build_object('baggage', p_headers ->> 'baggage');
        END IF;
    END IF;
    IF coalesce(octet_length(v_correlation), 0) NOT BETWEEN 1 AND 255 THEN
        PERFORM skald.context(p_headers); -- knows the other dialects
        v_correlation := current_setting('skald.correlation_id');
    END IF;
    PERFORM skald.outbox_put(v_id, p_headers ->> 'ce_replyto',
        convert_to(p_headers ->> 'ce_sagaid', 'UTF8'), (p_headers ->> 'ce_type') || '.reply',
        p_participant, NULL, 'application/json', convert_to(p_data, 'UTF8'), v_headers,
        v_correlation, p_headers ->> 'ce_id', p_headers ->> 'traceparent', NULL);
    RETURN v_id;
END $$;

-- The text of an answer: an object; all but success carry code and message.
CREATE OR REPLACE FUNCTION skald.barrier_data(p_outcome text, p_data jsonb) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    v_data jsonb := p_data;
    v_text text;
BEGIN
    IF p_outcome IS NULL OR p_outcome NOT IN ('success', 'failure', 'retryable', 'unknown') THEN
        PERFORM skald.refuse('SK001',
            'outcome: must be success, failure, retryable or unknown');
    END IF;
    IF v_data IS NULL OR jsonb_typeof(v_data) = 'null' THEN
        v_data := '{}';
    ELSIF jsonb_typeof(v_data) <> 'object' THEN
        PERFORM skald.refuse('SK001', 'data: must be a JSON object, or nothing');
    END IF;
    IF p_outcome <> 'success' THEN
        IF NOT v_data ? 'code' AND p_outcome <> 'failure' THEN
            v_data := v_data || jsonb_build_object('code', p_outcome);
        END IF;
        IF NOT v_data ? 'message' THEN
            v_data := v_data || '{"message": ""}';
        END IF;
        IF NOT v_data ? 'code' THEN
            PERFORM skald.refuse('SK001', 'data.code: a failure must say which');
        ELSIF jsonb_typeof(v_data -> 'code') <> 'string'
            OR octet_length(v_data ->> 'code') NOT BETWEEN 1 AND 255 THEN
            PERFORM skald.refuse('SK001', 'data.code: must be a text of 1 to 255 bytes');
        ELSIF jsonb_typeof(v_data -> 'message') <> 'string' THEN
            PERFORM skald.refuse('SK001', 'data.message: must be a text');
        END IF;
    END IF;
    v_text := v_data::text;
    IF octet_length(v_text) > 262144 THEN
        PERFORM skald.refuse('SK007', 'data: must be at most 256 KiB');
    END IF;
    RETURN v_text;
END $$;

-- So many more commands of this transaction wait for an answer.
CREATE OR REPLACE FUNCTION skald.barrier_count(p_more bigint) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('skald.barrier_open', (coalesce(
        nullif(current_setting('skald.barrier_open', true), ''), '0')::bigint + p_more)::text, true);
END $$;

-- Move the row of a taken (or pending) command on; false: it is in another state.
CREATE OR REPLACE FUNCTION skald.barrier_settle(p_participant text, p_key text, p_from text,
    p_is_query boolean, p_outcome text, p_data text) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    v_is_kept boolean := p_outcome IN ('success', 'failure');
BEGIN
    UPDATE skald.barrier AS b
       SET state = CASE WHEN v_is_kept THEN 'answered' ELSE 'open' END,
           outcome = CASE WHEN v_is_kept THEN p_outcome END,
           data = CASE WHEN v_is_kept THEN p_data END,
           headers = NULL,
           is_doubtful = CASE WHEN p_outcome = 'unknown' THEN true
               WHEN p_outcome = 'failure' AND p_is_query THEN false
               ELSE b.is_doubtful END
     WHERE b.participant = p_participant AND b.idempotency_key = p_key AND b.state = p_from;
    IF FOUND AND p_from = 'taken' THEN
        PERFORM skald.barrier_count(-1);
        RETURN true;
    END IF;
    RETURN FOUND;
END $$;

-- Why a key cannot be answered now.
CREATE OR REPLACE FUNCTION skald.barrier_misuse(p_participant text, p_key text, p_who text)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_state text;
BEGIN
    SELECT b.state INTO v_state FROM skald.barrier AS b
     WHERE b.participant = p_participant AND b.idempotency_key = p_key;
    PERFORM skald.refuse('SK006', format('%s: key %s %s', p_who, p_key, CASE
        WHEN v_state = 'taken' THEN 'is taken in this transaction: reply, or reply_later first'
        WHEN v_state = 'pending' THEN 'is pending: answer it with reply_by_key'
        WHEN v_state = 'answered' THEN 'is answered'
        WHEN v_state = 'open' THEN 'is answered; its next attempt may be'
        WHEN v_state = 'ended' THEN 'was ended by its compensation'
        ELSE 'was never taken: call participate first' END));
END $$;

-- --- taking -----------------------------------------------------------------------------------

-- The barrier's own no.
CREATE OR REPLACE FUNCTION skald.barrier_refuse(p_participant text, p_headers jsonb,
    p_code text, p_message text, p_reply_id uuid) RETURNS text
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM skald.barrier_send(p_participant, p_headers, 'failure',
        jsonb_build_object('code', p_code, 'message', p_message)::text, 'refused', p_reply_id);
    RETURN 'refused';
END $$;

-- Fence the step; does its action leave no trace? Its rows stay locked until the end.
CREATE OR REPLACE FUNCTION skald.barrier_undo(p_participant text, p_first text)
RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    v_is_empty boolean := true;
    r record;
BEGIN
    FOR r IN SELECT b.idempotency_key AS key, b.state, b.is_doubtful, b.outcome
               FROM skald.barrier AS b
              WHERE b.participant = p_participant AND b.idempotency_key >= p_first
                AND b.idempotency_key < p_first || ';' -- what follows ':' in ASCII
              FOR UPDATE LOOP
        v_is_empty := v_is_empty AND NOT r.is_doubtful AND r.outcome IS DISTINCT FROM 'success'
            AND r.state NOT IN ('taken', 'pending');
        IF r.state = 'pending' THEN
            UPDATE skald.barrier AS b SET state = 'ended', is_doubtful = true, headers = NULL
             WHERE b.participant = p_participant AND b.idempotency_key = r.key;
        END IF;
    END LOOP;
    UPDATE skald.barrier AS b SET is_undone = true
     WHERE b.participant = p_participant AND b.idempotency_key = p_first AND NOT b.is_undone;
    RETURN v_is_empty;
END $$;

-- A pending command is asked about again: the answer will be for the newest that asks. Ids
-- of commands are UUIDv7, so a newer one is greater.
CREATE OR REPLACE FUNCTION skald.barrier_wait(p_participant text, p_headers jsonb) RETURNS text
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE skald.barrier AS b SET headers = skald.barrier_headers(p_headers)
     WHERE b.participant = p_participant
       AND b.idempotency_key = p_headers ->> 'idempotency-key' AND b.state = 'pending'
       AND b.headers ->> 'ce_id' COLLATE "C" < p_headers ->> 'ce_id';
    RETURN 'pending';
END $$;

-- What an answer needs of a command's headers.
CREATE OR REPLACE FUNCTION skald.barrier_headers(p_headers jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE AS $$
    SELECT jsonb_object_agg(e.key, e.value) FROM jsonb_each(p_headers) AS e
     WHERE e.key IN ('ce_id', 'ce_type', 'ce_sagaid', 'ce_saganame', 'ce_sagastep', 'ce_sagaop',
                     'ce_sagaattempt', 'ce_replyto', 'idempotency-key', 'ce_correlationid',
                     'traceparent', 'tracestate', 'baggage')
        OR lower(e.key) ~ 'correlation'
$$;

-- Everything but the plain first take.
CREATE OR REPLACE FUNCTION skald.barrier_decide(p_participant text, p_headers jsonb,
    p_reply_id uuid) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    v_key   text := p_headers ->> 'idempotency-key';
    v_op    text := p_headers ->> 'ce_sagaop';
    v_first text := skald.barrier_first_key(p_headers ->> 'ce_sagaid',
        p_headers ->> 'ce_sagastep', 'action');
    v_step  skald.barrier; -- the row that stands for the step
    v_own   skald.barrier;
    v_is_empty boolean;
BEGIN
    INSERT INTO skald.barrier (participant, idempotency_key, state)
        VALUES (p_participant, v_first, 'none') ON CONFLICT DO NOTHING;
    SELECT b.* INTO STRICT v_step FROM skald.barrier AS b
     WHERE b.participant = p_participant AND b.idempotency_key = v_first FOR UPDATE;
    IF v_key = v_first THEN
        v_own := v_step;
    ELSE
        SELECT b.* INTO v_own FROM skald.barrier AS b
         WHERE b.participant = p_participant AND b.idempotency_key = v_key FOR UPDATE;
    END IF;

    IF v_own.state = 'answered' THEN
        PERFORM skald.barrier_send(p_participant, p_headers, v_own.outcome, v_own.data,
            'duplicate', p_reply_id);
        RETURN 'duplicate';
    ELSIF v_own.state = 'pending' THEN
        RETURN skald.barrier_wait(p_participant, p_headers);
    ELSIF v_own.state = 'taken' THEN
        RETURN 'pending';
    END IF;

    IF v_op = 'action' THEN
        IF v_step.is_undone THEN
            RETURN skald.barrier_refuse(p_participant, p_headers, 'refused',
                'the compensation of this step came first', p_reply_id);
        ELSIF skald.barrier_is_old(p_headers ->> 'ce_sagaid') THEN
            RETURN skald.barrier_refuse(p_participant, p_headers, 'refused',
                'the saga is older than what the barrier remembers', p_reply_id);
        ELSIF skald.barrier_is_expired(p_headers) THEN
            RETURN skald.barrier_refuse(p_participant, p_headers, 'expired',
                'ce_expirytime: is over', p_reply_id);
        END IF;
    ELSIF v_op = 'compensation' THEN
        v_is_empty := skald.barrier_undo(p_participant, v_first);
        IF v_is_empty AND coalesce(v_own.state, 'none') = 'none'
            AND NOT skald.barrier_is_old(p_headers ->> 'ce_sagaid') THEN
            INSERT INTO skald.barrier (participant, idempotency_key, state, outcome, data)
                VALUES (p_participant, v_key, 'answered', 'success', '{}');
            PERFORM skald.barrier_send(p_participant, p_headers, 'success', '{}', 'empty',
                p_reply_id);
            RETURN 'empty';
        END IF;
    END IF;
    PERFORM skald.barrier_count(1);
    IF v_own.state IS NULL THEN
        INSERT INTO skald.barrier (participant, idempotency_key, state)
            VALUES (p_participant, v_key, 'taken');
    ELSE
        UPDATE skald.barrier AS b SET state = 'taken'
         WHERE b.participant = p_participant AND b.idempotency_key = v_key;
    END IF;
    RETURN CASE v_op WHEN 'query' THEN 'query' ELSE 'run' END;
END $$;

-- The verdict on a checked command. Nearly all are an action's first attempt: one INSERT.
CREATE OR REPLACE FUNCTION skald.barrier_take(p_participant text, p_headers jsonb,
    p_reply_id uuid) RETURNS text
LANGUAGE plpgsql AS $$
BEGIN
    IF p_headers ->> 'ce_sagaop' = 'action'
        AND p_headers ->> 'idempotency-key' LIKE '%n' -- no round behind `action`
        AND NOT skald.barrier_is_old(p_headers ->> 'ce_sagaid')
        AND (p_headers ->> 'ce_expirytime' IS NULL
             OR NOT skald.barrier_is_expired(p_headers)) THEN
        INSERT INTO skald.barrier (participant, idempotency_key, state)
            VALUES (p_participant, p_headers ->> 'idempotency-key', 'taken')
            ON CONFLICT DO NOTHING;
        IF FOUND THEN
            PERFORM skald.barrier_count(1);
            RETURN 'run';
        END IF;
    END IF;
    RETURN skald.barrier_decide(p_participant, p_headers, p_reply_id);
END $$;

CREATE OR REPLACE FUNCTION skald.barrier_look(p_participant text, p_key text) RETURNS void
LANGUAGE plpgsql SET enable_seqscan = off AS $$
BEGIN
    IF EXISTS (SELECT FROM skald.barrier AS b WHERE b.participant = p_participant
                  AND b.idempotency_key = p_key AND b.state = 'taken') THEN
        PERFORM skald.refuse('SK002', format('participate: key %s was told to run, and the'
            ' transaction neither replied nor called reply_later', p_key));
    END IF;
END $$;

-- B1. Deferred to COMMIT; in autocommit that is the end of the statement.
CREATE OR REPLACE FUNCTION skald.barrier_unanswered() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF current_setting('skald.barrier_open', true) = '0' THEN
        RETURN NULL;
    END IF;
    PERFORM skald.barrier_look(NEW.participant, NEW.idempotency_key);
    RETURN NULL;
END $$;

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = 'skald.barrier'::regclass
                      AND tgname = 'barrier_answered') THEN
        CREATE CONSTRAINT TRIGGER barrier_answered
            AFTER INSERT OR UPDATE OF state ON skald.barrier
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.state = 'taken')
            EXECUTE FUNCTION skald.barrier_unanswered();
    END IF;
END $$;

-- --- the doors --------------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION skald.participate(headers jsonb, participant text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off AS $$
BEGIN
    PERFORM skald.barrier_check(participate.headers, participate.participant);
    PERFORM skald.context(participate.headers);
    RETURN skald.barrier_take(participate.participant, participate.headers, NULL);
END $$;

CREATE OR REPLACE FUNCTION skald.reply(headers jsonb, participant text, outcome text,
    data jsonb DEFAULT '{}') RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off AS $$
DECLARE
    v_data text;
BEGIN
    PERFORM skald.barrier_check(reply.headers, reply.participant);
    v_data := skald.barrier_data(reply.outcome, reply.data);
    IF NOT skald.barrier_settle(reply.participant, reply.headers ->> 'idempotency-key', 'taken',
        reply.headers ->> 'ce_sagaop' = 'query', reply.outcome, v_data) THEN
        PERFORM skald.barrier_misuse(reply.participant, reply.headers ->> 'idempotency-key',
            'reply');
    END IF;
    RETURN skald.barrier_send(reply.participant, reply.headers, reply.outcome, v_data, NULL, NULL);
END $$;

CREATE OR REPLACE FUNCTION skald.reply_later(headers jsonb, participant text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off AS $$
BEGIN
    PERFORM skald.barrier_check(reply_later.headers, reply_later.participant);
    UPDATE skald.barrier AS b
       SET state = 'pending', headers = skald.barrier_headers(reply_later.headers)
     WHERE b.participant = reply_later.participant AND b.state = 'taken'
       AND b.idempotency_key = reply_later.headers ->> 'idempotency-key';
    IF NOT FOUND THEN
        PERFORM skald.barrier_misuse(reply_later.participant,
            reply_later.headers ->> 'idempotency-key', 'reply_later');
    END IF;
    PERFORM skald.barrier_count(-1);
END $$;

CREATE OR REPLACE FUNCTION skald.reply_by_key(idempotency_key text, participant text,
    outcome text, data jsonb DEFAULT '{}') RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off AS $$
DECLARE
    v_data text;
    v_row  skald.barrier;
BEGIN
    IF coalesce(reply_by_key.idempotency_key, '') = '' THEN
        PERFORM skald.refuse('SK001', 'idempotency_key: must not be empty');
    ELSIF coalesce(reply_by_key.participant, '') = '' THEN
        PERFORM skald.refuse('SK001', 'participant: must not be empty');
    END IF;
    v_data := skald.barrier_data(reply_by_key.outcome, reply_by_key.data);
    SELECT b.* INTO v_row FROM skald.barrier AS b
     WHERE b.participant = reply_by_key.participant
       AND b.idempotency_key = reply_by_key.idempotency_key FOR UPDATE;
    IF v_row.state = 'ended' THEN
        RETURN NULL;
    ELSIF v_row.state IS DISTINCT FROM 'pending' THEN
        PERFORM skald.barrier_misuse(reply_by_key.participant, reply_by_key.idempotency_key,
            'reply_by_key');
    END IF;
    PERFORM skald.barrier_settle(reply_by_key.participant, reply_by_key.idempotency_key,
        'pending', v_row.headers ->> 'ce_sagaop' = 'query', reply_by_key.outcome, v_data);
    RETURN skald.barrier_send(reply_by_key.participant, v_row.headers, reply_by_key.outcome,
        v_data, NULL, NULL);
END $$;

-- What the action of this command's step answered: of its rounds the one that succeeded,
-- else the last. NULL: no answer is kept.
CREATE OR REPLACE FUNCTION skald.action_reply(headers jsonb, participant text) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off AS $$
DECLARE
    v_first text;
BEGIN
    PERFORM skald.barrier_check(action_reply.headers, action_reply.participant);
    v_first := skald.barrier_first_key(action_reply.headers ->> 'ce_sagaid',
        action_reply.headers ->> 'ce_sagastep', 'action');
    RETURN (SELECT b.data::jsonb FROM skald.barrier AS b
             WHERE b.participant = action_reply.participant AND b.state = 'answered'
               AND b.idempotency_key >= v_first AND b.idempotency_key < v_first || ';'
             ORDER BY b.outcome DESC, length(b.idempotency_key) DESC, b.idempotency_key DESC
             LIMIT 1);
END $$;

-- --- many commands at once: what the runner calls -----------------------------------------------

-- Verdicts, in the order asked. is_plain: an action's first key, checked by the caller
-- (consumers/participant.c) as barrier_check does; expires_us: its deadline. No two commands
-- of one call are of the same step.
DROP FUNCTION IF EXISTS skald.participant_take(text, text[], boolean[], text[], uuid[]);
CREATE OR REPLACE FUNCTION skald.participant_take(p_participant text, p_keys text[],
    p_is_plain boolean[], p_headers text[], p_reply_ids uuid[],
    p_expires_us bigint[] DEFAULT NULL) RETURNS SETOF text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    v_now_us  bigint := extract(epoch FROM clock_timestamp()) * 1000000;
    v_taken   text[] := '{}';
    v_headers jsonb;
BEGIN
    IF coalesce(current_setting('skald.reply_topics', true), '') = '' THEN
        WITH fresh AS (
            INSERT INTO skald.barrier AS b (participant, idempotency_key, state)
                SELECT p_participant, c.key, 'taken'
                  FROM unnest(p_keys, p_is_plain, p_expires_us) AS c(key, is_plain, expires_us)
                 WHERE c.is_plain AND coalesce(c.expires_us > v_now_us, true)
                   AND NOT skald.barrier_is_old(c.key)
                ON CONFLICT DO NOTHING
                RETURNING b.idempotency_key)
        SELECT coalesce(array_agg(f.idempotency_key), '{}') INTO v_taken FROM fresh AS f;
        PERFORM skald.barrier_count(cardinality(v_taken));
    END IF;
    IF cardinality(v_taken) = cardinality(p_keys) THEN
        RETURN QUERY SELECT 'run'::text FROM generate_series(1, cardinality(p_keys));
        RETURN;
    END IF;
    FOR i IN 1 .. cardinality(p_keys) LOOP
        IF p_keys[i] = ANY (v_taken) THEN
            RETURN NEXT 'run';
        ELSE
            v_headers := p_headers[i];
            PERFORM skald.barrier_check(v_headers, p_participant);
            RETURN NEXT skald.barrier_take(p_participant, v_headers, p_reply_ids[i]);
        END IF;
    END LOOP;
END $$;

-- Answers to commands taken in this transaction: the rows settled and the replies sent by
-- one statement with one plan, for of a small batch the planning is what costs.
CREATE OR REPLACE FUNCTION skald.participant_answer(p_participant text, p_keys text[],
    p_is_query boolean[], p_outcomes text[], p_data text[], p_reply_ids uuid[],
    p_topics text[], p_types text[], p_headers text[], p_correlation_ids text[],
    p_causation_ids text[], p_traceparents text[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    v_count    bigint;
    v_is_usual boolean;
BEGIN
    WITH a AS MATERIALIZED (
        SELECT u.*, u.outcome IN ('success', 'failure') AS is_kept
          FROM unnest(p_keys, p_is_query, p_outcomes, p_data, p_reply_ids, p_topics, p_types,
                      p_headers, p_correlation_ids, p_causation_ids, p_traceparents)
               WITH ORDINALITY
               AS u(key, is_query, outcome, data, id, topic, type, headers, correlation_id,
                    causation_id, traceparent, n)),
    settled AS (
        UPDATE skald.barrier AS b
           SET state = CASE WHEN a.is_kept THEN 'answered' ELSE 'open' END,
               outcome = CASE WHEN a.is_kept THEN a.outcome END,
               data = CASE WHEN a.is_kept THEN a.data END,
               is_doubtful = CASE WHEN a.outcome = 'unknown' THEN true
                   WHEN a.outcome = 'failure' AND a.is_query THEN false
                   ELSE b.is_doubtful END
          FROM a CROSS JOIN LATERAL ( -- first the key, then the row, whatever the planner
                SELECT k.ctid AS place FROM skald.barrier AS k -- thinks of the table's size
                 WHERE k.participant = p_participant AND k.idempotency_key = a.key
                   AND k.state = 'taken' OFFSET 0) AS t
         WHERE b.ctid = t.place
        RETURNING 1),
    sent AS (
        INSERT INTO skald.outbox (message_id, topic, key, type, source, content_type, data,
                                  headers, correlation_id, causation_id, traceparent)
            SELECT a.id, a.topic, convert_to(left(a.key, 36), 'UTF8'), a.type, p_participant,
                   'application/json', convert_to(a.data, 'UTF8'), a.headers::jsonb,
                   a.correlation_id, a.causation_id, a.traceparent
              FROM a ORDER BY a.n)
    SELECT (SELECT count(*) FROM settled),
           (SELECT bool_and(starts_with(a.topic, 'skald.replies')) FROM a)
               AND coalesce(current_setting('skald.reply_topics', true), '') = ''
        INTO v_count, v_is_usual;
    IF v_count <> cardinality(p_keys) THEN
        PERFORM skald.refuse('SK006', format('reply: %s of %s commands are not waiting for one:'
            ' did a handler call skald.reply as well?', cardinality(p_keys) - v_count,
            cardinality(p_keys)));
    ELSIF NOT v_is_usual AND EXISTS (SELECT FROM unnest(p_topics) AS t(topic)
                                      WHERE NOT skald.barrier_may_reply_to(t.topic)) THEN
        PERFORM skald.refuse('SK001', 'ce_replyto: must match skald.reply_topics');
    END IF;
    PERFORM skald.outbox_wake();
    PERFORM skald.barrier_count(-v_count);
END $$;
