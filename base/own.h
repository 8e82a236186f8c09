/*
 * own.h - what files of base share with each other only.
 */
#ifndef SKALD_BASE_OWN_H
#define SKALD_BASE_OWN_H

#include <stdbool.h>
#include <stddef.h>

#include "base/slice.h"

/*
 * Bytes of the well-formed character at p (left > 0), or 0 for NUL and for what
 * the table of RFC 3629, section 4, does not allow.
 */
size_t skald__utf8_bytes(const unsigned char *p, size_t left);

/*
 * The escape at p, which points behind its backslash, as UTF-8 in out; returns
 * how many bytes that is and in *used how many of the source it took. Of text
 * that the scanner did not accept it makes something, within bounds.
 */
size_t skald__json_escape(
	const char *p, const char *end, unsigned char out[4], size_t *used);

/* Two raw names, compared as what they mean: <0, 0, >0. */
int skald__json_compare(struct skald_slice a, struct skald_slice b);

#endif
