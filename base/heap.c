/*
 * heap.c - glibc keeps small freed chunks apart ("fast bins") until a large request
 * comes, and then merges all of them. A relayed record has a dozen small ones, its
 * headers, and the rows it comes from are large: every block of a result merged what the
 * next record had to split again, a fifth of the relay's CPU. Without fast bins a chunk
 * is merged when it is freed, and only then.
 */
#include "base/heap.h"

#include <stdlib.h>

#ifdef __GLIBC__
#include <malloc.h>
#endif

void
skald_heap_for_records(void)
{
#ifdef __GLIBC__
	(void)mallopt(M_MXFAST, 0);
#endif
}
