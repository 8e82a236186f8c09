/*
 * applier.c - skald-test-applier: the consumer of the end-to-end tests.
 *
 * Each message is one row of the insert-only table public.effect, without any
 * key that would hide a doubled one. --topic T (required), --slow MS per
 * message, --emit TOPIC. A value with "poison": true is rejected until
 * public.cured has a row; "flaky": N fails N times as its own trouble.
 */
#include <skald/skald.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

struct applier {
	const char *emit;
	long slow_ms;
};

static const char tables[] =
	"CREATE TABLE IF NOT EXISTS public.effect (at timestamptz NOT NULL DEFAULT"
	" clock_timestamp(), n bigserial, message_id text, key text, version bigint,"
	" correlation_id text, pid int NOT NULL, replay boolean NOT NULL);"
	"CREATE TABLE IF NOT EXISTS public.cured (at timestamptz DEFAULT now());";

static enum skald_rc
refuse_poison(struct pg_conn *tx, struct skald_err *err)
{
	struct skald_rows *rows = NULL;
	enum skald_rc rc;

	rc = skald_conn_query(
		tx, "SELECT 1 FROM public.cured LIMIT 1", NULL, 0, &rows, err);
	if (!rc && skald_rows_count(rows) == 0)
		rc = skald_fail(err, SKALD_REJECT, "test", "poison", "poison: not cured");
	skald_rows_free(rows);
	return rc;
}

static enum skald_rc
write_effect(struct skald_delivery *d, struct pg_conn *tx, const char *version,
	struct skald_err *err)
{
	char id[256], key[256], pid[24];
	struct skald_slice k = skald_delivery_key(d);
	const struct skald_context *context = skald_context_current();
	struct skald_param params[6];

	if (!skald_slice_copy(skald_delivery_id(d), id, sizeof(id)) ||
		!skald_slice_copy(k, key, sizeof(key)))
		return skald_fail(
			err, SKALD_REJECT, "test", "long", "id or key: too long");
	params[0] = skald_param_text(id);
	params[1] = k.data ? skald_param_text(key) : SKALD_PARAM_NULL;
	params[2] = skald_param_text(version[0] ? version : NULL);
	params[3] = skald_param_text(context ? context->correlation_id : NULL);
	params[4] = skald_param_int(getpid(), pid);
	params[5] = skald_param_text(skald_delivery_is_replay(d) ? "t" : "f");
	return skald_conn_query(tx,
		"INSERT INTO public.effect (message_id, key, version, correlation_id, "
		"pid,"
		" replay) VALUES ($1, $2, $3::bigint, $4, $5::int, $6::boolean)",
		params, 6, NULL, err);
}

static enum skald_rc
emit(struct applier *a, struct skald_delivery *d, struct pg_conn *tx,
	struct skald_err *err)
{
	struct skald_msg msg = SKALD_MSG_INIT;

	msg.topic = a->emit;
	msg.type = "test.applied";
	msg.key = skald_delivery_key(d);
	msg.data = SKALD_SLICE_LIT("{}");
	return skald_outbox_add(tx, &msg, NULL, err);
}

static enum skald_rc
apply(struct skald_delivery *d, struct pg_conn *tx, void *ctx, struct skald_err *err)
{
	struct applier *a = ctx;
	struct skald_slice value = skald_delivery_value(d);
	struct skald_json root, member;
	char version[24] = "";
	int64_t number = 0;
	enum skald_rc rc = SKALD_OK;

	if (a->slow_ms) {
		struct timespec t = { a->slow_ms / 1000, a->slow_ms % 1000 * 1000000 };

		(void)nanosleep(&t, NULL);
	}
	if (value.data &&
		skald_json_parse(value, 32 << 20, 16, &root, NULL) == SKALD_OK) {
		if (skald_json_member(root, "version", &member) &&
			skald_json_int64(member, &number))
			(void)snprintf(
				version, sizeof(version), "%lld", (long long)number);
		if (skald_json_member(root, "poison", &member) &&
			member.kind == SKALD_JSON_TRUE)
			rc = refuse_poison(tx, err);
		if (!rc && skald_json_member(root, "flaky", &member) &&
			skald_json_int64(member, &number) &&
			skald_delivery_attempt(d) <= number)
			rc = skald_fail(
				err, SKALD_RETRY, "test", "flaky", "flaky: not yet");
	}
	if (!rc)
		rc = write_effect(d, tx, version, err);
	if (!rc && *a->emit)
		rc = emit(a, d, tx, err);
	if (!rc)
		skald_log(SKALD_LOG_DEBUG, "applied message");
	return rc;
}

int
main(int argc, char **argv)
{
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_service *svc = NULL;
	struct applier a = { 0 };
	const char *topic;

	if (skald_service_create(&svc, "applier", argc, argv, &err) ||
		skald_service_setup(svc, tables, &err))
		return skald_service_fail(svc, &err);
	topic = skald_service_flag(svc, "--topic", "test.events");
	a.emit = skald_service_flag(svc, "--emit", "");
	a.slow_ms = strtol(skald_service_flag(svc, "--slow", "0"), NULL, 10);
	if (skald_service_events(svc, topic, &err) ||
		skald_service_on_event(svc, "*", apply, &a, &err))
		return skald_service_fail(svc, &err);
	return skald_service_run(svc);
}
