/*
 * envelope.c - what the headers of a record say, and whether they can be believed.
 *
 * A CloudEvent in Kafka's binary mode. What is missing or contradicts itself is
 * refused with header and rule; it becomes a dead letter of class DECODE.
 */
#include "consumers/own.h"

#include "base/clock.h"
#include "base/limits.h"

/* Attributes, trace state, baggage and the application's own, with room to spare. */
#define HEADERS_BYTES_MAX (32 * 1024)
#define HEADERS_COUNT_MAX (SKALD_HEADERS_COUNT_MAX + 64)

static enum skald_rc
refuse(struct skald_err *err, const char *code, struct skald_slice name, const char *rule)
{
	return skald_fail(err, SKALD_REJECT, "message", code, "%.*s: %s",
		(int)(name.bytes > 100 ? 100 : name.bytes), name.data ? name.data : "",
		rule);
}

static enum skald_rc
refuse_name(struct skald_err *err, const char *code, const char *name, const char *rule)
{
	return refuse(err, code, skald_slice_text(name), rule);
}

static bool
is_attribute(struct skald_slice name)
{
	return name.bytes > 3 && memcmp(name.data, "ce_", 3) == 0;
}

/* The same attribute twice with different values: which one is meant? */
static bool
is_contradicted(struct skald_headers headers, size_t index)
{
	const struct skald_header *h = &headers.items[index];

	for (size_t i = 0; i < index; i++) {
		const struct skald_header *other = &headers.items[i];

		if (skald_slice_is_equal(other->name, h->name) &&
			(!skald_slice_is_equal(other->value, h->value) ||
				!other->value.data != !h->value.data))
			return true;
	}
	return false;
}

static enum skald_rc
check_each(struct skald_headers headers, struct skald_err *err)
{
	size_t bytes = 0;

	if (headers.count > HEADERS_COUNT_MAX)
		return refuse_name(err, "size", "headers", "too many");
	for (size_t i = 0; i < headers.count; i++) {
		const struct skald_header *h = &headers.items[i];

		bytes += h->name.bytes + h->value.bytes;
		if (bytes > HEADERS_BYTES_MAX)
			return refuse_name(
				err, "size", "headers", "at most 32 KiB together");
		if (!skald_slice_is_utf8(h->name))
			return refuse_name(err, "utf8", "headers", "a name is not UTF-8");
		if (h->value.data && !skald_slice_is_utf8(h->value))
			return refuse(err, "utf8", h->name, "is not UTF-8");
		if (is_attribute(h->name) && is_contradicted(headers, i))
			return refuse(err, "double", h->name,
				"given twice with different values");
	}
	return SKALD_OK;
}

static enum skald_rc
need(struct skald_headers headers, const char *name, size_t bytes_max,
	struct skald_slice *value, struct skald_err *err)
{
	*value = skald_headers_get(headers, name);
	if (!value->data || !value->bytes)
		return refuse_name(err, "missing", name, "is required");
	if (value->bytes > bytes_max)
		return refuse_name(err, "size", name, "at most 255 bytes");
	return SKALD_OK;
}

static uint64_t
hex64(struct skald_slice digits)
{
	uint64_t value = 0;

	for (size_t i = 0; i < digits.bytes; i++) {
		char c = digits.data[i];

		value = value << 4 | (uint64_t)(c <= '9' ? c - '0' : c - 'a' + 10);
	}
	return value;
}

/* ce_sequence without ce_stream is somebody else's extension, not a position. */
static enum skald_rc
read_position(
	struct skald_headers headers, struct skald__envelope *out, struct skald_err *err)
{
	struct skald_slice stream = skald_headers_get(headers, SKALD_H_STREAM);
	struct skald_slice sequence = skald_headers_get(headers, SKALD_H_SEQUENCE);

	if (!stream.data)
		return SKALD_OK;
	if (!skald_stream_is_valid(stream))
		return refuse_name(
			err, "invalid", SKALD_H_STREAM, "must be 16 hex digits");
	if (!sequence.data)
		return refuse_name(
			err, "missing", SKALD_H_SEQUENCE, "is required beside ce_stream");
	if (!skald_position_parse(sequence, &out->position))
		return refuse_name(err, "invalid", SKALD_H_SEQUENCE,
			"must be a position (8.16.8 hex digits)");
	out->stream = hex64(stream);
	out->has_position = true;
	return SKALD_OK;
}

enum skald_rc
skald__envelope_read(const struct skald_kafka_record *record, struct skald__envelope *out,
	struct skald_err *err)
{
	struct skald_headers headers = record->headers;
	struct skald_slice version, expiry;
	enum skald_rc rc;

	memset(out, 0, sizeof(*out));
	out->id = skald_headers_get(headers, SKALD_H_ID);
	out->type = skald_headers_get(headers, SKALD_H_TYPE);
	rc = check_each(headers, err);
	if (rc)
		return rc;
	rc = need(headers, SKALD_H_SPECVERSION, SKALD_TYPE_BYTES_MAX, &version, err);
	if (!rc)
		rc = need(headers, SKALD_H_ID, SKALD_ID_TEXT_BYTES_MAX, &out->id, err);
	if (!rc)
		rc = need(headers, SKALD_H_SOURCE, SKALD_SOURCE_BYTES_MAX, &out->source,
			err);
	if (!rc)
		rc = need(headers, SKALD_H_TYPE, SKALD_TYPE_BYTES_MAX, &out->type, err);
	if (!rc && !skald_slice_is_text(version, "1.0"))
		rc = refuse_name(err, "invalid", SKALD_H_SPECVERSION, "must be 1.0");
	if (!rc)
		rc = read_position(headers, out, err);
	if (rc)
		return rc;
	expiry = skald_headers_get(headers, SKALD_H_EXPIRY);
	if (expiry.data && !skald_time_parse(expiry, &out->expires_at_us))
		return refuse_name(
			err, "invalid", SKALD_H_EXPIRY, "must be an RFC 3339 time");
	out->is_recovered = skald_slice_is_text(
		skald_headers_get(headers, SKALD_H_RECOVERED), "true");
	out->replay_group = skald_headers_get(headers, SKALD_H_REPLAY_GROUP);
	return SKALD_OK;
}
