/*
 * The JSON scanner on any bytes. What it accepts must hold together: every value
 * seen through the iterator is itself a document, names are found by what they
 * mean, and texts survive writing and reading.
 */
#include "base/json.h"

#include "base/assert.h"
#include "base/limits.h"
#include "tests/fuzz/fuzz.h"

enum { BYTES_MAX = 1 << 20 };

static void
check_string(struct skald_json value)
{
	struct skald_slice raw =
		skald_slice_make(value.text.data + 1, value.text.bytes - 2);
	struct skald_buf meaning, written, again;
	struct skald_json root;

	skald_buf_init(&meaning, BYTES_MAX);
	skald_buf_init(&written, 8 * BYTES_MAX);
	skald_buf_init(&again, BYTES_MAX);
	skald_json_unescape(raw, &meaning);
	SKALD_ASSERT(skald_slice_is_utf8(skald_buf_slice(&meaning)));
	skald_json_add_string(&written, skald_buf_slice(&meaning));
	SKALD_ASSERT(skald_json_parse(skald_buf_slice(&written), 8 * BYTES_MAX, 1, &root,
			     NULL) == SKALD_OK);
	skald_json_unescape(
		skald_slice_make(root.text.data + 1, root.text.bytes - 2), &again);
	SKALD_ASSERT(
		skald_slice_is_equal(skald_buf_slice(&meaning), skald_buf_slice(&again)));
	skald_buf_done(&meaning);
	skald_buf_done(&written);
	skald_buf_done(&again);
}

static void
check_member(struct skald_json object, struct skald_slice raw, struct skald_json value)
{
	struct skald_buf name;
	struct skald_json found = { 0 };

	skald_buf_init(&name, BYTES_MAX);
	skald_json_unescape(raw, &name);
	SKALD_ASSERT(skald_json_member(object, name.data ? name.data : "", &found));
	SKALD_ASSERT(found.text.data == value.text.data);
	SKALD_ASSERT(found.text.bytes == value.text.bytes);
	skald_buf_done(&name);
}

static void
check_value(struct skald_json value, unsigned depth, unsigned *looks)
{
	struct skald_json_iter it;
	struct skald_json item, root;
	struct skald_slice name;

	SKALD_ASSERT(depth <= SKALD_JSON_DEPTH_MAX);
	if (value.kind == SKALD_JSON_STRING)
		check_string(value);
	if (depth < 4) { /* the whole again for each level would be quadratic */
		SKALD_ASSERT(skald_json_parse(value.text, BYTES_MAX, SKALD_JSON_DEPTH_MAX,
				     &root, NULL) == SKALD_OK);
		SKALD_ASSERT(root.kind == value.kind);
		SKALD_ASSERT(root.text.bytes == value.text.bytes);
	}
	skald_json_iter_init(&it, value);
	while (skald_json_next(&it, &name, &item)) {
		SKALD_ASSERT((name.data != NULL) == (value.kind == SKALD_JSON_OBJECT));
		if (name.data && (*looks)++ < 100)
			check_member(value, name, item);
		check_value(item, depth + 1, looks);
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct skald_slice text = skald_slice_make(data ? (const void *)data : "", bytes);
	struct skald_err err = SKALD_ERR_INIT;
	struct skald_json root;
	unsigned looks = 0;
	enum skald_rc rc;

	rc = skald_json_parse(text, BYTES_MAX, SKALD_JSON_DEPTH_MAX, &root, &err);
	SKALD_ASSERT(rc == SKALD_OK || (rc == SKALD_REJECT && err.text[0]));
	if (!rc) {
		SKALD_ASSERT(skald_slice_is_utf8(text));
		check_value(root, 0, &looks);
	}
	return 0;
}
