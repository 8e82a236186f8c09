/*
 * headers_form.h - headers as they are kept: exact bytes, and JSON for people.
 */
#ifndef SKALD_BASE_HEADERS_FORM_H
#define SKALD_BASE_HEADERS_FORM_H

#include "base/buf.h"
#include "base/err.h"
#include "base/headers.h"

/* RFC 4648, with padding. */
void skald_base64_add(struct skald_buf *out, struct skald_slice s);
/* Order, duplicates, nulls, any bytes: lengths, big-endian, and bytes. */
void skald_headers_pack(struct skald_headers headers, struct skald_buf *out);
/* *items is the caller's to free and views packed. REJECT: damaged. */
SKALD_MUSTUSE enum skald_rc skald_headers_unpack(struct skald_slice packed,
	struct skald_header **items, size_t *count, struct skald_err *err);
/* An object of texts, null, or {"base64"}; of one name the last wins in jsonb. */
void skald_headers_json(struct skald_headers headers, struct skald_buf *out);

#endif
