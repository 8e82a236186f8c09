/*
 * own.h - what files of base share with each other only.
 */
#ifndef SKALD_BASE_OWN_H
#define SKALD_BASE_OWN_H

#include <stdbool.h>
#include <stddef.h>

/*
 * Bytes of the well-formed character at p (left > 0), or 0 for NUL and for what
 * the table of RFC 3629, section 4, does not allow.
 */
size_t skald__utf8_bytes(const unsigned char *p, size_t left);

#endif
