-- 0005: the rows of one transaction, in parts.

-- A chunk of a window is found by transaction and id. By the transaction alone each of the
-- hundred chunks of a million rows that were committed at once looked at all million.
DO $$
BEGIN
    FOR leaf IN 0..7 LOOP
        EXECUTE format('DROP INDEX IF EXISTS skald.outbox_%s_xid', leaf);
        EXECUTE format('CREATE INDEX outbox_%s_xid ON skald.outbox_%s (xid, id)', leaf, leaf);
    END LOOP;
END $$;
