-- publication.sql - what the relay's WAL mode reads: inserts into the outbox, and under the
-- outbox's own name, whichever leaf they went to.
--
-- Run by every migration, as the role that connected. A publication needs CREATE on the
-- database and the table's owner, or a superuser. Where the role is neither, the migration
-- goes on: poll mode needs none, and WAL mode says at its start that it is missing.
-- It comes before the slot: one that is older cannot see it.

DO $$
DECLARE
    p record;
BEGIN
    SELECT * INTO p FROM pg_catalog.pg_publication WHERE pubname = 'skald_outbox';
    IF NOT FOUND THEN
        CREATE PUBLICATION skald_outbox FOR TABLE skald.outbox
            WITH (publish = 'insert', publish_via_partition_root = true);
        RETURN;
    END IF;
    IF NOT p.pubinsert OR p.pubupdate OR p.pubdelete OR p.pubtruncate OR NOT p.pubviaroot THEN
        ALTER PUBLICATION skald_outbox
            SET (publish = 'insert', publish_via_partition_root = true);
    END IF;
    -- lost with the schema, when that was dropped and made again
    IF NOT p.puballtables AND NOT EXISTS (SELECT FROM pg_catalog.pg_publication_rel
            WHERE prpubid = p.oid AND prrelid = 'skald.outbox'::pg_catalog.regclass) THEN
        ALTER PUBLICATION skald_outbox ADD TABLE skald.outbox;
    END IF;
EXCEPTION WHEN insufficient_privilege THEN
    RAISE DEBUG 'publication skald_outbox: left as it is: %', SQLERRM;
END $$;
