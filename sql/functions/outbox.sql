-- outbox.sql - the writer.
--
-- outbox_add and outbox_add_bytes are doors: SECURITY DEFINER with a search_path of their
-- own. What they call runs inside that and has neither, which is what keeps it quick.

-- A NOTIFY makes commits queue behind each other, so it is sent only while the relay sleeps,
-- which relay_sleep says by its is_called. To be asked after the INSERT: then the transaction
-- has its id, and a relay that has set the flag and finds nobody in a snapshot taken later
-- knows that whoever missed it is done, and visible. A transaction that has sent a NOTIFY
-- cannot be prepared (two-phase commit): who does that sets skald.notify to off, and the
-- relay finds the message when it looks by itself.
--
-- Who is called once a transaction asks the sequence first, which is a tenth of this call.
CREATE OR REPLACE FUNCTION skald.outbox_wake() RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF pg_sequence_last_value('skald.relay_sleep') IS NOT NULL
        AND current_setting('skald.notify', true) IS DISTINCT FROM 'off' THEN
        PERFORM pg_notify('skald_outbox', '');
    END IF;
END $$;

-- Every rule, one by one; raises on the first that is broken.
CREATE OR REPLACE FUNCTION skald.outbox_check(topic text, key bytea, type text, data bytea,
    content_type text, subject text, source text, correlation_id text, causation_id text,
    expires_at timestamptz) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF topic IS NULL OR octet_length(topic) NOT BETWEEN 1 AND 249
        OR topic ~ '[^A-Za-z0-9._-]' THEN
        PERFORM skald.refuse('SK001', 'topic: must be 1 to 249 of [A-Za-z0-9._-]');
    ELSIF topic IN ('.', '..') THEN
        PERFORM skald.refuse('SK001', 'topic: must not be . or ..');
    ELSIF octet_length(key) > 32768 THEN
        PERFORM skald.refuse('SK007', 'key: must be at most 32 KiB');
    ELSIF type IS NULL OR type = '' THEN
        PERFORM skald.refuse('SK001', 'type: must be 1 to 255 bytes');
    ELSIF octet_length(type) > 255 THEN
        PERFORM skald.refuse('SK007', 'type: must be 1 to 255 bytes');
    ELSIF octet_length(data) > 16777216 THEN
        PERFORM skald.refuse('SK007', 'data: must be at most 16 MiB');
    ELSIF content_type = '' THEN
        PERFORM skald.refuse('SK001', 'content_type: must not be empty');
    ELSIF octet_length(content_type) > 255 THEN
        PERFORM skald.refuse('SK007', 'content_type: must be at most 255 bytes');
    ELSIF octet_length(subject) > 255 THEN
        PERFORM skald.refuse('SK007', 'subject: must be at most 255 bytes');
    ELSIF octet_length(source) > 255 THEN
        PERFORM skald.refuse('SK007', 'source: must be at most 255 bytes');
    ELSIF octet_length(correlation_id) > 255 THEN
        PERFORM skald.refuse('SK007', 'correlation_id: must be at most 255 bytes');
    ELSIF octet_length(causation_id) > 255 THEN
        PERFORM skald.refuse('SK007', 'causation_id: must be at most 255 bytes');
    ELSIF NOT isfinite(expires_at) THEN
        PERFORM skald.refuse('SK001', 'expires_at: must be finite');
    END IF;
END $$;

-- Headers of the application: names, values, reserved ones.
CREATE OR REPLACE FUNCTION skald.outbox_check_headers(headers jsonb) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    not_text   text;
    reserved   text;
    odd_name   boolean;
    bytes      bigint;
    names      bigint;
BEGIN
    IF jsonb_typeof(headers) <> 'object' THEN
        PERFORM skald.refuse('SK001', 'headers: must be a JSON object of names and texts');
    END IF;
    SELECT min(e.key) FILTER (WHERE jsonb_typeof(e.value) <> 'string'),
           min(e.key) FILTER (WHERE lower(e.key) LIKE ANY
               (ARRAY['ce\_%', 'x-dlq-%', 'x-replay-%', 'content-type'])),
           bool_or(octet_length(e.key) NOT BETWEEN 1 AND 255 OR e.key ~ '[^!-~]'),
           sum(octet_length(e.value #>> '{}')),
           count(*)
        INTO not_text, reserved, odd_name, bytes, names
        FROM jsonb_each(headers) AS e;
    IF odd_name THEN
        PERFORM skald.refuse('SK001',
            'headers: names must be 1 to 255 printable ASCII characters without spaces');
    ELSIF reserved IS NOT NULL THEN
        PERFORM skald.refuse('SK001', 'headers.' || reserved
            || ': is reserved (ce_*, x-dlq-*, x-replay-*, content-type)');
    ELSIF not_text IS NOT NULL THEN
        PERFORM skald.refuse('SK001', 'headers.' || not_text || ': must be a text');
    ELSIF bytes > 8192 THEN
        PERFORM skald.refuse('SK007', 'headers: values together must be at most 8 KiB');
    ELSIF names > 100 THEN
        PERFORM skald.refuse('SK007', 'headers: must be at most 100');
    END IF;
END $$;

-- The general way: with context, own headers, long values, or a mistake to name.
CREATE OR REPLACE FUNCTION skald.outbox_write(topic text, key bytea, type text, data bytea,
    content_type text, subject text, source text, id uuid, headers jsonb,
    correlation_id text, causation_id text, traceparent text, expires_at timestamptz)
    RETURNS uuid
LANGUAGE plpgsql AS $$
#variable_conflict use_variable
DECLARE
    -- 32 hex digits; the 13th is always 4, the 17th 8 to b
    entropy   text := encode(uuid_send(gen_random_uuid()), 'hex');
    inherited text;
BEGIN
    IF coalesce(source, '') = '' THEN
        source := coalesce(nullif(current_setting('skald.source', true), ''),
            '/' || current_database());
    END IF;
    IF coalesce(correlation_id, '') = '' THEN
        correlation_id := nullif(current_setting('skald.correlation_id', true), '');
    END IF;
    IF coalesce(causation_id, '') = '' THEN
        causation_id := nullif(current_setting('skald.causation_id', true), '');
    END IF;
    IF (topic ~ '^[A-Za-z0-9_-][A-Za-z0-9._-]*$' AND type <> '' AND content_type <> ''
        AND octet_length(concat(topic, type, content_type, subject, source)) <= 249
        AND octet_length(concat(correlation_id, causation_id)) <= 255
        AND coalesce(greatest(octet_length(key), octet_length(data)), 0) <= 32768
        AND expires_at IS NULL) IS NOT TRUE THEN
        PERFORM skald.outbox_check(topic, key, type, data, content_type, subject, source,
            correlation_id, causation_id, expires_at);
    END IF;
    IF headers = '{}' THEN
        headers := NULL;
    ELSIF headers IS NOT NULL THEN
        PERFORM skald.outbox_check_headers(headers);
        IF headers ? 'traceparent' THEN -- one value per name: the column is its place
            traceparent := coalesce(nullif(traceparent, ''), headers ->> 'traceparent');
            headers := nullif(headers - 'traceparent', '{}');
        END IF;
    END IF;
    IF id IS NULL THEN
        inherited := current_setting('skald.message_id', true);
        IF inherited <> '' THEN
            id := skald.next_id(inherited);
        ELSE
            id := concat('0', to_hex((date_part('epoch', clock_timestamp()) * 1000)::bigint),
                '7', substr(entropy, 14))::uuid;
        END IF;
    END IF;
    IF coalesce(traceparent, '') = '' THEN
        traceparent := current_setting('skald.traceparent', true);
        inherited := current_setting('skald.tracestate', true);
        -- the state belongs to the trace that is continued
        IF inherited <> '' AND skald.trace_is_valid(traceparent) THEN
            headers := jsonb_build_object('tracestate', inherited) || coalesce(headers, '{}');
        END IF;
    END IF;
    inherited := current_setting('skald.baggage', true);
    IF inherited <> '' THEN
        headers := jsonb_build_object('baggage', inherited) || coalesce(headers, '{}');
    END IF;
    INSERT INTO skald.outbox (message_id, topic, key, type, source, subject, content_type,
        data, headers, correlation_id, causation_id, traceparent, expires_at)
    VALUES (id, topic, key, type, source, subject, content_type, data, headers,
        coalesce(correlation_id, id::text), causation_id,
        skald.trace_child(traceparent, entropy), expires_at);
    IF pg_sequence_last_value('skald.relay_sleep') IS NOT NULL THEN
        PERFORM skald.outbox_wake();
    END IF;
    RETURN id;
END $$;

-- The two doors. Each begins with the short way, for a plain message without context: a
-- transaction calls it once, so what it costs is setting up each expression anew (with the
-- rights of an owner who is no superuser), and the fewer functions are named the better;
-- that is also why it stands in both. Whatever is not plainly right goes the general way,
-- which names errors. An id is a UUIDv7: milliseconds have 11 digits until the year 2527.
-- outbox_add makes its digits the new trace's id too; outbox_add_bytes is what the library
-- calls, with an id of its own.
CREATE OR REPLACE FUNCTION skald.outbox_add(topic text, key text, type text, data jsonb,
    subject text DEFAULT NULL, source text DEFAULT NULL, id uuid DEFAULT NULL,
    headers jsonb DEFAULT '{}', correlation_id text DEFAULT NULL,
    causation_id text DEFAULT NULL, traceparent text DEFAULT NULL,
    expires_at timestamptz DEFAULT NULL) RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    payload bytea := convert_to(data::text, 'UTF8');
    entropy text;
    digits  text;
BEGIN
    IF id IS NULL AND subject IS NULL AND source IS NULL AND correlation_id IS NULL
        AND causation_id IS NULL AND traceparent IS NULL AND expires_at IS NULL
        AND headers = '{}' AND topic ~ '^[A-Za-z0-9_-][A-Za-z0-9._-]*$' AND type <> ''
        AND octet_length(concat(topic, type, key)) <= 249
        AND octet_length(payload) <= 16777216
        AND concat(current_setting('skald.correlation_id', true),
            current_setting('skald.causation_id', true),
            current_setting('skald.traceparent', true),
            current_setting('skald.message_id', true)) = '' THEN
        entropy := encode(uuid_send(gen_random_uuid()), 'hex');
        digits := concat('0', to_hex((date_part('epoch', clock_timestamp()) * 1000)::bigint),
            '7', substr(entropy, 14));
        id := digits;
        INSERT INTO skald.outbox (message_id, topic, key, type, source, content_type, data,
            correlation_id, traceparent)
        VALUES (id, topic, convert_to(key, 'UTF8'), type,
            coalesce(nullif(current_setting('skald.source', true), ''),
                '/' || current_database()),
            'application/json', payload, id::text,
            concat('00-', digits, '-', left(entropy, 16), '-01'));
        IF pg_sequence_last_value('skald.relay_sleep') IS NOT NULL THEN
            PERFORM skald.outbox_wake();
        END IF;
        RETURN id;
    END IF;
    RETURN skald.outbox_write(topic, convert_to(key, 'UTF8'), type, payload,
        CASE WHEN data IS NOT NULL THEN 'application/json' END, subject, source, id, headers,
        correlation_id, causation_id, traceparent, expires_at);
END $$;

CREATE OR REPLACE FUNCTION skald.outbox_add_bytes(topic text, key bytea, type text, data bytea,
    content_type text, subject text DEFAULT NULL, source text DEFAULT NULL,
    id uuid DEFAULT NULL, headers jsonb DEFAULT '{}', correlation_id text DEFAULT NULL,
    causation_id text DEFAULT NULL, traceparent text DEFAULT NULL,
    expires_at timestamptz DEFAULT NULL) RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    entropy text;
BEGIN
    IF subject IS NULL AND source IS NULL AND correlation_id IS NULL
        AND causation_id IS NULL AND traceparent IS NULL AND expires_at IS NULL
        AND (headers IS NULL OR headers = '{}') AND topic ~ '^[A-Za-z0-9_-][A-Za-z0-9._-]*$'
        AND type <> '' AND content_type <> ''
        AND octet_length(concat(topic, type, content_type)) <= 249
        AND octet_length(data) <= 16777216 AND (key IS NULL OR octet_length(key) <= 32768)
        AND concat(current_setting('skald.correlation_id', true),
            current_setting('skald.causation_id', true),
            current_setting('skald.traceparent', true),
            current_setting('skald.message_id', true)) = '' THEN
        entropy := encode(uuid_send(gen_random_uuid()), 'hex');
        IF id IS NULL THEN
            id := concat('0',
                to_hex((date_part('epoch', clock_timestamp()) * 1000)::bigint),
                '7', substr(entropy, 14));
        END IF;
        INSERT INTO skald.outbox (message_id, topic, key, type, source, content_type, data,
            correlation_id, traceparent)
        VALUES (id, topic, key, type,
            coalesce(nullif(current_setting('skald.source', true), ''),
                '/' || current_database()),
            content_type, data, id::text,
            concat('00-', entropy, '-', right(entropy, 16), '-01'));
        IF pg_sequence_last_value('skald.relay_sleep') IS NOT NULL THEN
            PERFORM skald.outbox_wake();
        END IF;
        RETURN id;
    END IF;
    RETURN skald.outbox_write(topic, key, type, data, content_type, subject, source, id,
        headers, correlation_id, causation_id, traceparent, expires_at);
END $$;

-- For functions of the owner that write what an application may not (x-dlq-* headers).
-- Granted to nobody; checks nothing.
CREATE OR REPLACE FUNCTION skald.outbox_put(message_id uuid, topic text, key bytea, type text,
    source text, subject text, content_type text, data bytea, headers jsonb,
    correlation_id text, causation_id text, traceparent text, expires_at timestamptz)
    RETURNS void
LANGUAGE plpgsql AS $$
#variable_conflict use_variable
BEGIN
    INSERT INTO skald.outbox (message_id, topic, key, type, source, subject, content_type,
        data, headers, correlation_id, causation_id, traceparent, expires_at)
    VALUES (message_id, topic, key, type, source, subject, content_type, data,
        nullif(headers, '{}'), coalesce(nullif(correlation_id, ''), message_id::text),
        causation_id,
        skald.trace_child(traceparent, encode(uuid_send(gen_random_uuid()), 'hex')),
        expires_at);
    IF pg_sequence_last_value('skald.relay_sleep') IS NOT NULL THEN
        PERFORM skald.outbox_wake();
    END IF;
END $$;
