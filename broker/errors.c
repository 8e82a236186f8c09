/*
 * errors.c - librdkafka's error codes as a skald_rc: the one table.
 *
 * REJECT: sending or asking the same again cannot succeed until a person changes
 * something about the record, the topic or the rights on it. Everything else is
 * trouble on the way and RETRY, also what makes a producer's handle useless:
 * the next handle can send it.
 */
#include "broker/own.h"

#include <librdkafka/rdkafka.h>
#include <stdarg.h>
#include <stdlib.h>

enum skald_rc
skald__kafka_rc(int code)
{
	static const int rejects[] = {
		RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE,
		RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE,
		RD_KAFKA_RESP_ERR_INVALID_MSG_SIZE,
		RD_KAFKA_RESP_ERR_INVALID_RECORD,
		RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP,
		RD_KAFKA_RESP_ERR_UNSUPPORTED_FOR_MESSAGE_FORMAT,
		RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART,
		RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC,
		RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION,
		RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
		RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED,
		RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION,
		RD_KAFKA_RESP_ERR_INVALID_PARTITIONS,
		RD_KAFKA_RESP_ERR_INVALID_REPLICATION_FACTOR,
		RD_KAFKA_RESP_ERR_INVALID_CONFIG,
		RD_KAFKA_RESP_ERR_POLICY_VIOLATION,
		RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE,
		RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET,
		RD_KAFKA_RESP_ERR__INVALID_ARG,
	};

	if (code == RD_KAFKA_RESP_ERR_NO_ERROR)
		return SKALD_OK;
	for (size_t i = 0; i < sizeof(rejects) / sizeof(rejects[0]); i++)
		if (code == rejects[i])
			return SKALD_REJECT;
	return SKALD_RETRY;
}

bool
skald_kafka_is_refusal(const struct skald_err *err)
{
	return strcmp(err->origin, "kafka") == 0 &&
	       skald__kafka_rc((int)strtol(err->code, NULL, 10)) == SKALD_REJECT;
}

static enum skald_rc fail(struct skald_err *err, enum skald_rc rc, int code,
	const char *fmt, va_list ap) __attribute__((format(printf, 4, 0)));

static enum skald_rc
fail(struct skald_err *err, enum skald_rc rc, int code, const char *fmt, va_list ap)
{
	char number[8], what[200];

	if (vsnprintf(what, sizeof(what), fmt, ap) < 0)
		what[0] = '\0';
	snprintf(number, sizeof(number), "%d", code);
	return skald_fail(err, rc, "kafka", number, "%s: %s", what,
		rd_kafka_err2str((rd_kafka_resp_err_t)code));
}

enum skald_rc
skald__kafka_fail(struct skald_err *err, int code, const char *fmt, ...)
{
	va_list ap;
	enum skald_rc rc;

	va_start(ap, fmt);
	rc = fail(err, skald__kafka_rc(code), code, fmt, ap);
	va_end(ap);
	return rc;
}

enum skald_rc
skald__kafka_fail_as(
	struct skald_err *err, enum skald_rc rc, int code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fail(err, rc, code, fmt, ap);
	va_end(ap);
	return rc;
}
