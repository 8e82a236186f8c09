#!/usr/bin/env bash
# frames.sh DIR CORPUS - catches the frames of logical replication (pgoutput) that the
# tests of the decoder read, from a real server: DIR/NAME.hex has one frame a line,
# CORPUS/NAME.bin the same for the fuzzer (tests/fuzz/pgoutput.c): a byte, the version of
# the protocol, then each frame behind two bytes of its length.
#
# The server is that of PGHOST, PGPORT, PGUSER: a superuser's, wal_level = logical,
# PostgreSQL 15 or newer. Works in a database of its own, skald_frames, made anew.
set -euo pipefail
export PGTZ=UTC

dir=${1:?usage: frames.sh DIR CORPUS}
corpus=${2:?usage: frames.sh DIR CORPUS}
psql -qX -d postgres -v ON_ERROR_STOP=1 <<'SQL'
SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
    WHERE database = 'skald_frames';
DROP DATABASE IF EXISTS skald_frames;
CREATE DATABASE skald_frames;
SQL

run() { psql -qAtX -d skald_frames -v ON_ERROR_STOP=1 -c "$1"; }

# catch NAME OPTIONS SQL: what the statements send to a slot made just before
catch() {
	local name=$1 options=$2
	run "SELECT pg_create_logical_replication_slot('frames', 'pgoutput')" >/dev/null
	psql -qX -d skald_frames -v ON_ERROR_STOP=1 <<<"$3" >/dev/null
	{
		echo "#" $options
		PGOPTIONS='-c logical_decoding_work_mem=64kB' run \
			"SELECT encode(data, 'hex') FROM pg_logical_slot_get_binary_changes('frames',
				NULL, NULL, 'publication_names', 'frames', $options)"
	} >"$dir/$name.hex"
	run "SELECT pg_drop_replication_slot('frames')" >/dev/null
}

run "
CREATE SCHEMA shop;
CREATE TYPE shop.colour AS ENUM ('red', 'green');
CREATE TABLE shop.orders (id int8 PRIMARY KEY, u uuid, j jsonb, t text, b bytea,
    at timestamptz, ok bool, n int4, big text, plain json);
ALTER TABLE shop.orders ALTER big SET STORAGE EXTERNAL;
CREATE TABLE shop.lines (id int4 PRIMARY KEY, colour shop.colour);
ALTER TABLE shop.lines REPLICA IDENTITY FULL;
CREATE TABLE shop.filler (n int4);
DO \$\$ BEGIN
    EXECUTE (SELECT 'CREATE TABLE shop.wide (' || string_agg(format('c%s int4', n), ', ')
        || ')' FROM generate_series(0, 99) AS n);
END \$\$;
CREATE PUBLICATION frames FOR TABLE shop.orders, shop.lines, shop.wide;
SELECT pg_replication_origin_create('elsewhere')
    WHERE NOT EXISTS (SELECT FROM pg_replication_origin WHERE roname = 'elsewhere')" >/dev/null

rows="INSERT INTO shop.orders VALUES
    (1, '00112233-4455-6677-8899-aabbccddeeff', '{\"a\": 1}', 'text', '\\x00ff',
        '2026-11-20 12:34:56.123456+00', true, -7, 'big', '{}'),
    (2, NULL, NULL, '', '', NULL, false, NULL, NULL, NULL);"
begin_options="'proto_version', '1'"

catch insert-text "$begin_options" "$rows TRUNCATE shop.orders"
catch insert-binary "$begin_options, 'binary', 'true'" "$rows TRUNCATE shop.orders, shop.lines"
catch update "$begin_options, 'binary', 'true'" "BEGIN;
INSERT INTO shop.orders (id, t, big) VALUES (3, 'a', repeat('0123456789', 300));
UPDATE shop.orders SET t = 'b' WHERE id = 3;
UPDATE shop.orders SET id = 4 WHERE id = 3;
DELETE FROM shop.orders WHERE id = 4;
COMMIT"
catch update-text "$begin_options" "BEGIN;
INSERT INTO shop.orders (id, t, big) VALUES (3, 'a', repeat('0123456789', 300));
UPDATE shop.orders SET t = 'b' WHERE id = 3;
DELETE FROM shop.orders WHERE id = 3;
COMMIT"
catch type "$begin_options, 'binary', 'true'" "BEGIN;
INSERT INTO shop.lines VALUES (1, 'red');
UPDATE shop.lines SET colour = 'green';
DELETE FROM shop.lines;
COMMIT"
catch wide "$begin_options, 'binary', 'true'" "INSERT INTO shop.wide
    SELECT (SELECT NULL::int4), $(seq -s , 1 99)"
catch message "'proto_version', '2', 'messages', 'true'" "BEGIN;
SELECT pg_logical_emit_message(true, 'prefix', 'content');
SELECT pg_logical_emit_message(false, '', '');
INSERT INTO shop.orders (id) VALUES (5);
COMMIT"
catch altered "$begin_options, 'binary', 'true'" "BEGIN;
INSERT INTO shop.orders (id, t) VALUES (6, 'before');
ALTER TABLE shop.orders ADD COLUMN more text;
INSERT INTO shop.orders (id, t, more) VALUES (7, 'added', 'more');
ALTER TABLE shop.orders DROP COLUMN u;
INSERT INTO shop.orders (id, t, more) VALUES (8, 'dropped', 'more');
ALTER TABLE shop.orders RENAME COLUMN t TO renamed;
INSERT INTO shop.orders (id, renamed) VALUES (9, 'renamed');
ALTER TABLE shop.orders RENAME COLUMN renamed TO t;
ALTER TABLE shop.orders RENAME TO gone;
INSERT INTO shop.gone (id, t) VALUES (10, 'gone');
ALTER TABLE shop.gone RENAME TO orders;
COMMIT"
catch origin "$begin_options" "SELECT pg_replication_origin_session_setup('elsewhere');
BEGIN;
SELECT pg_replication_origin_xact_setup('0/1234', '2026-11-20 12:34:56+00');
INSERT INTO shop.orders (id) VALUES (11);
COMMIT"
# more than 64 kB that nobody asked for makes the server stream what was asked for
filler="INSERT INTO shop.filler SELECT generate_series(1, 2000);"
for version in 2 3; do
	catch "stream-$version" "'proto_version', '$version', 'streaming', 'on', 'binary', 'true',
		'messages', 'true'" "BEGIN;
INSERT INTO shop.orders (id, t) VALUES (${version}0, 'streamed');
INSERT INTO shop.lines VALUES (1, 'red');
SELECT pg_logical_emit_message(true, 'prefix', 'content');
$filler
SAVEPOINT s;
INSERT INTO shop.orders (id, t) VALUES (${version}1, 'undone');
$filler
ROLLBACK TO s;
UPDATE shop.orders SET t = 'again' WHERE id = ${version}0;
$filler
DELETE FROM shop.lines;
TRUNCATE shop.wide;
COMMIT"
done
psql -qX -d postgres -c 'DROP DATABASE skald_frames'

for file in "$dir"/*.hex; do
	version=$(sed -n "1s/.*'proto_version', '\([0-9]\)'.*/\1/p" "$file")
	{
		printf '%02x' "$version"
		while read -r frame; do
			printf '%04x%s' $((${#frame} / 2)) "$frame"
		done < <(grep -v '^#' "$file")
	} | xxd -r -p >"$corpus/$(basename "$file" .hex).bin"
done
