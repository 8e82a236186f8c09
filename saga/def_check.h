/*
 * def_check.h - what the two halves of the validator share: def_check.c knows the
 * members, def_data.c the templates and paths in them.
 */
#ifndef SKALD_SAGA_DEF_CHECK_H
#define SKALD_SAGA_DEF_CHECK_H

#include "base/buf.h"
#include "base/rc.h"
#include "saga/def.h"

enum check_place { CHECK_ACTION, CHECK_UNDO, CHECK_OUTPUT };

struct check {
	struct skald_saga_def *def;
	struct saga_faults *faults;
	struct skald_buf pointer; /* where it looks */
	unsigned step; /* which step it reads */
	enum check_place place;
	bool is_kind_known; /* of that step */
	/* What was told already is not told again by what follows from it: */
	bool has_wrong_kind; /* of a step before: it may be the pivot */
	bool has_foreign; /* a step that cannot be read: any name may be its own */
};

/* A fault at the pointer in hand. rule is a literal; the hint may be empty. */
void skald__check_fault(struct check *ck, const char *rule, const char *hint_fmt, ...)
	SKALD_PRINTF(3, 4);
/* Add a member to the pointer; returns what skald__check_leave takes back. */
size_t skald__check_enter(struct check *ck, const char *name);
size_t skald__check_enter_index(struct check *ck, unsigned index);
void skald__check_leave(struct check *ck, size_t before);

/* Read the member `name` as a template, with every path in it. */
void skald__check_template(struct check *ck, const char *name, struct skald_json value,
	struct saga_template *t);
/* Read the member "key" of an action; NULL: told as a fault. */
struct saga_path *skald__check_key(struct check *ck, struct skald_json value);

#endif
