/*
 * heap.h - how this process's malloc behaves. For programs, not for libraries.
 */
#ifndef SKALD_BASE_HEAP_H
#define SKALD_BASE_HEAP_H

/*
 * For a process that makes and frees a dozen small objects per record, between large
 * ones. Call it once, first thing. Does nothing where malloc is not glibc's.
 */
void skald_heap_for_records(void);

#endif
