-- outbox.sql - the writer.
--
-- outbox_add and outbox_add_bytes are doors: SECURITY DEFINER with a search_path of their
-- own. What they call runs inside that and has neither, which is what keeps it quick.

-- Which rule was broken. Only called when one was.
CREATE OR REPLACE FUNCTION skald.outbox_refuse(topic text, key bytea, type text, data bytea,
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
    RAISE EXCEPTION 'outbox_refuse found nothing to refuse' USING ERRCODE = 'XX000';
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

-- Checks, fills in what is inherited, and writes one row.
CREATE OR REPLACE FUNCTION skald.outbox_write(topic text, key bytea, type text, data bytea,
    content_type text, subject text, source text, id uuid, headers jsonb,
    correlation_id text, causation_id text, traceparent text, expires_at timestamptz)
    RETURNS uuid
LANGUAGE plpgsql AS $$
#variable_conflict use_variable
DECLARE
    -- 64 hex digits; the 13th and the 45th are always 4, the 17th and the 49th 8 to b
    entropy   text := replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', '');
    message   text := current_setting('skald.message_id', true);
    parent    text;
    inherited text;
BEGIN
    source := coalesce(nullif(source, ''), nullif(current_setting('skald.source', true), ''),
        '/' || current_database());
    causation_id := coalesce(nullif(causation_id, ''),
        nullif(current_setting('skald.causation_id', true), ''));
    correlation_id := coalesce(nullif(correlation_id, ''),
        nullif(current_setting('skald.correlation_id', true), ''));
    IF (octet_length(topic) BETWEEN 1 AND 249 AND topic !~ '[^A-Za-z0-9._-]'
        AND topic <> '.' AND topic <> '..'
        AND octet_length(type) BETWEEN 1 AND 255 AND octet_length(source) <= 255
        AND (key IS NULL OR octet_length(key) <= 32768)
        AND (data IS NULL OR octet_length(data) <= 16777216)
        AND (content_type IS NULL OR octet_length(content_type) BETWEEN 1 AND 255)
        AND (subject IS NULL OR octet_length(subject) <= 255)
        AND (correlation_id IS NULL OR octet_length(correlation_id) <= 255)
        AND (causation_id IS NULL OR octet_length(causation_id) <= 255)
        AND (expires_at IS NULL OR isfinite(expires_at))) IS NOT TRUE THEN
        PERFORM skald.outbox_refuse(topic, key, type, data, content_type, subject, source,
            correlation_id, causation_id, expires_at);
    END IF;
    IF headers IS NOT NULL AND headers <> '{}' THEN
        PERFORM skald.outbox_check_headers(headers);
        IF headers ? 'traceparent' THEN -- one value per name: the column is its place
            traceparent := coalesce(traceparent, headers ->> 'traceparent');
            headers := headers - 'traceparent';
        END IF;
    ELSE
        headers := NULL;
    END IF;
    IF id IS NULL THEN
        IF message <> '' THEN
            id := skald.next_id(message);
        ELSE
            id := (lpad(to_hex((date_part('epoch', clock_timestamp()) * 1000)::bigint), 12, '0')
                   || '7' || substr(entropy, 14, 19))::uuid;
        END IF;
    END IF;
    inherited := current_setting('skald.traceparent', true);
    parent := coalesce(traceparent, inherited);
    IF parent <> '' AND skald.trace_is_valid(parent) THEN
        IF traceparent IS NULL THEN -- the state belongs to the trace that is continued
            inherited := current_setting('skald.tracestate', true);
            IF inherited <> '' THEN
                headers := jsonb_build_object('tracestate', inherited)
                    || coalesce(headers, '{}');
            END IF;
        END IF;
        traceparent := left(parent, 36) || substr(entropy, 1, 12) || substr(entropy, 61, 4)
            || substr(parent, 53, 3);
    ELSE
        traceparent := '00-' || substr(entropy, 33, 32) || '-' || substr(entropy, 1, 12)
            || substr(entropy, 61, 4) || '-01';
    END IF;
    inherited := current_setting('skald.baggage', true);
    IF inherited <> '' THEN
        headers := jsonb_build_object('baggage', inherited) || coalesce(headers, '{}');
    END IF;
    INSERT INTO skald.outbox (message_id, topic, key, type, source, subject, content_type,
        data, headers, correlation_id, causation_id, traceparent, expires_at)
    VALUES (id, topic, key, type, source, subject, content_type, data, headers,
        coalesce(correlation_id, id::text), causation_id, traceparent, expires_at);
    RETURN id;
END $$;

CREATE OR REPLACE FUNCTION skald.outbox_add(topic text, key text, type text, data jsonb,
    subject text DEFAULT NULL, source text DEFAULT NULL, id uuid DEFAULT NULL,
    headers jsonb DEFAULT '{}', correlation_id text DEFAULT NULL,
    causation_id text DEFAULT NULL, traceparent text DEFAULT NULL,
    expires_at timestamptz DEFAULT NULL) RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN skald.outbox_write(topic, convert_to(key, 'UTF8'), type,
        convert_to(data::text, 'UTF8'),
        CASE WHEN data IS NOT NULL THEN 'application/json' END, subject, source, id, headers,
        correlation_id, causation_id, traceparent, expires_at);
END $$;

CREATE OR REPLACE FUNCTION skald.outbox_add_bytes(topic text, key bytea, type text, data bytea,
    content_type text, subject text DEFAULT NULL, source text DEFAULT NULL,
    id uuid DEFAULT NULL, headers jsonb DEFAULT '{}', correlation_id text DEFAULT NULL,
    causation_id text DEFAULT NULL, traceparent text DEFAULT NULL,
    expires_at timestamptz DEFAULT NULL) RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
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
DECLARE
    entropy text := replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', '');
BEGIN
    IF skald.trace_is_valid(traceparent) THEN
        traceparent := left(traceparent, 36) || substr(entropy, 1, 12)
            || substr(entropy, 61, 4) || substr(traceparent, 53, 3);
    ELSE
        traceparent := '00-' || substr(entropy, 33, 32) || '-' || substr(entropy, 1, 12)
            || substr(entropy, 61, 4) || '-01';
    END IF;
    INSERT INTO skald.outbox (message_id, topic, key, type, source, subject, content_type,
        data, headers, correlation_id, causation_id, traceparent, expires_at)
    VALUES (message_id, topic, key, type, source, subject, content_type, data,
        nullif(headers, '{}'), coalesce(nullif(correlation_id, ''), message_id::text),
        causation_id, traceparent, expires_at);
END $$;
