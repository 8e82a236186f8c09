-- context.sql - what a message hands on: correlation, causation, trace; and ids.

-- Raise SK001 or SK007. The rule names the field first: it is both message and DETAIL,
-- because some drivers show only one of them.
CREATE OR REPLACE FUNCTION skald.refuse(code text, rule text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = code, MESSAGE = rule, DETAIL = rule;
END $$;

-- UUIDv7 (RFC 9562): milliseconds, then random.
CREATE OR REPLACE FUNCTION skald.uuid7() RETURNS uuid
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    RETURN (lpad(to_hex((date_part('epoch', clock_timestamp()) * 1000)::bigint), 12, '0')
            || '7' || substr(encode(uuid_send(gen_random_uuid()), 'hex'), 14))::uuid;
END $$;

-- UUIDv5 (RFC 9562), with SHA-1 written out: PostgreSQL has none without an extension.
CREATE OR REPLACE FUNCTION skald.uuid5(namespace uuid, name text) RETURNS uuid
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    mask CONSTANT bigint := 4294967295;
    message       bytea  := uuid_send(namespace) || convert_to(name, 'UTF8');
    padding       int    := (119 - octet_length(message) % 64) % 64;
    h0 bigint := 1732584193; -- 67452301
    h1 bigint := 4023233417; -- efcdab89
    h2 bigint := 2562383102; -- 98badcfe
    h3 bigint := 271733878;  -- 10325476
    h4 bigint := 3285377520; -- c3d2e1f0
    a bigint; b bigint; c bigint; d bigint; e bigint; f bigint; k bigint; x bigint;
    w bigint[];
    digits text;
BEGIN
    message := message || '\x80' || decode(repeat('00', padding), 'hex')
               || int8send(octet_length(message)::bigint * 8);
    FOR block IN 0 .. octet_length(message) / 64 - 1 LOOP
        digits := encode(substring(message FROM block * 64 + 1 FOR 64), 'hex');
        w := ARRAY[]::bigint[];
        FOR t IN 1 .. 16 LOOP
            w[t] := ('x' || substr(digits, t * 8 - 7, 8))::bit(32)::bigint;
        END LOOP;
        FOR t IN 17 .. 80 LOOP
            x := w[t - 3] # w[t - 8] # w[t - 14] # w[t - 16];
            w[t] := ((x << 1) | (x >> 31)) & mask;
        END LOOP;
        a := h0; b := h1; c := h2; d := h3; e := h4;
        FOR t IN 1 .. 80 LOOP
            IF t <= 20 THEN
                f := (b & c) | ((mask - b) & d); k := 1518500249;
            ELSIF t <= 40 THEN
                f := b # c # d; k := 1859775393;
            ELSIF t <= 60 THEN
                f := (b & c) | (b & d) | (c & d); k := 2400959708;
            ELSE
                f := b # c # d; k := 3395469782;
            END IF;
            x := ((((a << 5) | (a >> 27)) & mask) + f + e + k + w[t]) & mask;
            e := d; d := c; c := ((b << 30) | (b >> 2)) & mask; b := a; a := x;
        END LOOP;
        h0 := (h0 + a) & mask; h1 := (h1 + b) & mask; h2 := (h2 + c) & mask;
        h3 := (h3 + d) & mask; h4 := (h4 + e) & mask;
    END LOOP;
    -- the first 128 bits, with version and variant put in (mask - x is ~x of 32 bits, and
    -- all of << >> & | # bind alike: hence the parentheses above)
    h1 := (h1 & 4294905855) | 20480;                      -- the version: ....5...
    h2 := (h2 & 1073741823) | 2147483648;                 -- the variant: top bits 10
    RETURN (lpad(to_hex(h0), 8, '0') || lpad(to_hex(h1), 8, '0')
            || lpad(to_hex(h2), 8, '0') || lpad(to_hex(h3), 8, '0'))::uuid;
END $$;

-- A W3C traceparent that may be continued: version 00, lower case, no id all zero.
CREATE OR REPLACE FUNCTION skald.trace_is_valid(traceparent text) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    RETURN traceparent IS NOT NULL
        AND traceparent ~ '^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$'
        AND substr(traceparent, 4, 32) <> '00000000000000000000000000000000'
        AND substr(traceparent, 37, 16) <> '0000000000000000';
END $$;

-- A child span of parent, or a new trace where parent is none. entropy: 32 random hex digits.
CREATE OR REPLACE FUNCTION skald.trace_child(parent text, entropy text) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    IF parent <> '' AND skald.trace_is_valid(parent) THEN
        RETURN left(parent, 36) || left(entropy, 16) || right(parent, 3);
    END IF;
    RETURN concat('00-', entropy, '-', right(entropy, 12), left(entropy, 4), '-01');
END $$;

-- Enter the context of a message for the rest of the transaction: what outbox_add
-- emits from here on inherits from it. Reads the dialects of base/context.h.
CREATE OR REPLACE FUNCTION skald.context(headers jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    correlation text;
    message     text;
    parent      text;
    state       text;
    carried     text;
BEGIN
    IF headers IS NULL OR jsonb_typeof(headers) <> 'object' THEN
        PERFORM skald.refuse('SK001', 'headers: must be a JSON object of names and texts');
    END IF;
    SELECT h.value INTO correlation
        FROM (SELECT e.key, e.value,
                     CASE e.key WHEN 'ce_correlationid' THEN 1 WHEN 'correlation-id' THEN 3
                         WHEN 'correlation_id' THEN 4 WHEN 'correlationId' THEN 5
                         WHEN 'CorrelationId' THEN 6 WHEN 'NServiceBus.CorrelationId' THEN 7
                         WHEN 'kafka_correlationId' THEN 8 WHEN 'ce_id' THEN 9
                         ELSE CASE WHEN lower(e.key) = 'x-correlation-id' THEN 2 END
                     END AS rank
                  FROM jsonb_each_text(headers) AS e) AS h
        WHERE h.rank IS NOT NULL AND octet_length(h.value) BETWEEN 1 AND 255
        ORDER BY h.rank
        LIMIT 1;
    message := headers ->> 'ce_id';
    IF octet_length(message) > 255 THEN
        message := NULL;
    END IF;
    IF skald.trace_is_valid(headers ->> 'traceparent') THEN
        parent := headers ->> 'traceparent';
        IF octet_length(headers ->> 'tracestate') <= 512 THEN
            state := headers ->> 'tracestate';
        END IF;
    END IF;
    IF octet_length(headers ->> 'baggage') <= 8192 THEN
        carried := headers ->> 'baggage';
    END IF;
    PERFORM set_config('skald.correlation_id', coalesce(correlation, ''), true),
            set_config('skald.causation_id', coalesce(message, ''), true),
            set_config('skald.traceparent', coalesce(parent, ''), true),
            set_config('skald.tracestate', coalesce(state, ''), true),
            set_config('skald.baggage', coalesce(carried, ''), true),
            set_config('skald.message_id', coalesce(message, ''), true),
            set_config('skald.emitted', '0', true);
END $$;

-- Id of the next message emitted in the context of a message: derived, so that a handler
-- that runs again emits the same ids. C handlers count on their own (base/context.h), hence
-- the ":sql:": the two must not derive one id for two messages.
CREATE OR REPLACE FUNCTION skald.next_id(message_id text) RETURNS uuid
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    n         int  := coalesce(nullif(current_setting('skald.emitted', true), ''), '0')::int;
    handler   text := coalesce(nullif(current_setting('skald.handler', true), ''), 'sql');
    namespace uuid;
BEGIN
    IF message_id ~ '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$' THEN
        namespace := message_id::uuid;
    ELSE
        namespace := skald.uuid5('00000000-0000-0000-0000-000000000000', message_id);
    END IF;
    PERFORM set_config('skald.emitted', (n + 1)::text, true);
    RETURN skald.uuid5(namespace, left(handler, 480) || ':sql:' || n);
END $$;
