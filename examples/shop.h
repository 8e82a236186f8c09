/*
 * shop.h - what the example services share: the order of a command, and what a
 * real service would not have: trouble on request (for tests), effects counted in
 * a ledger and printed as JSON lines.
 */
#ifndef SKALD_EXAMPLES_SHOP_H
#define SKALD_EXAMPLES_SHOP_H

#include <stdbool.h>

#include <skald/skald.h>

/* Insert-only: an outside program counts effects here. */
#define SHOP_LEDGER \
	"CREATE TABLE IF NOT EXISTS public.ledger (" \
	" id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY," \
	" at timestamptz NOT NULL DEFAULT clock_timestamp(), saga_id uuid, step text," \
	" op text, order_id text, amount numeric, message_id text, correlation_id " \
	"text);"

/*
 * --fail RATE --slow MS --crash RATE --duplicate RATE; rates from 0 to 1.
 * --refuse OP:N   answer `failure` to attempts up to N of every OP (action, compensation)
 */
struct shop_trouble {
	double fail; /* fail, as if the service had trouble of its own */
	double crash; /* SIGKILL itself in the middle of its transaction */
	double duplicate; /* emit the event a second time, as a careless program does */
	double slow_ms; /* sleep inside the transaction */
	const char *emit_topic; /* where events go; "": nowhere */
	unsigned refuse_attempts; /* 0: none */
	enum skald_op refuse_op;
	unsigned short dice[3]; /* of SKALD_SEED, when set */
};

/* The flag's number; FATAL names flag and rule when it is not one or outside 0..max. */
SKALD_MUSTUSE enum skald_rc shop_number(struct skald_service *svc, const char *flag,
	double fallback, double max, double *out, struct skald_err *err);
SKALD_MUSTUSE enum skald_rc shop_trouble_init(
	struct shop_trouble *trouble, struct skald_service *svc, struct skald_err *err);
bool shop_happens(struct shop_trouble *trouble, double rate);
/* Sleep, crash or fail as asked for; call it when the effects are written. */
SKALD_MUSTUSE enum skald_rc shop_trouble(
	struct shop_trouble *trouble, struct skald_err *err);

#define SHOP_FIELD_BYTES 128
/* A member of an event as text; REJECT names field and rule. Digits stay as they are. */
SKALD_MUSTUSE enum skald_rc shop_field(struct skald_json object, const char *name,
	enum skald_json_kind kind, char dst[static SHOP_FIELD_BYTES],
	struct skald_err *err);

/* What an order's event or a saga's command says; "" where it says nothing. */
struct shop_order {
	char order_id[SHOP_FIELD_BYTES], sku[SHOP_FIELD_BYTES];
	char amount[SHOP_FIELD_BYTES], quantity[SHOP_FIELD_BYTES];
	char saga_id[SHOP_FIELD_BYTES];
};

struct shop_effect {
	const char *saga_id; /* NULL: of no saga */
	const char *step, *op, *order_id, *amount, *message_id, *correlation_id;
};
/* Insert it into the ledger, in the open transaction. */
SKALD_MUSTUSE enum skald_rc shop_ledger_add(
	struct pg_conn *tx, const struct shop_effect *effect, struct skald_err *err);
/* One JSON line on stdout, in one write. */
void shop_effect_print(const struct shop_effect *effect);

/* The event of an effect, to emit_topic if there is one; twice when --duplicate says so. */
SKALD_MUSTUSE enum skald_rc shop_announce(struct shop_trouble *trouble,
	struct pg_conn *tx, const char *type, const char *key, struct skald_slice data,
	struct skald_err *err);

/* A command as all three services take it: the order, and the effect to be recorded. */
struct shop_command {
	struct shop_order order;
	char step[SHOP_FIELD_BYTES];
	struct shop_effect effect; /* points into this and into the context */
	bool is_refused; /* --refuse: answered already */
};
/* needed: names of members without which the command is refused (REJECT names them). */
SKALD_MUSTUSE enum skald_rc shop_command_read(struct shop_trouble *trouble,
	struct skald_command *cmd, const char *needed, struct shop_command *out,
	struct skald_reply *reply, struct skald_err *err);
/* The effect is there: ledger, event, trouble, line. */
SKALD_MUSTUSE enum skald_rc shop_command_done(struct shop_trouble *trouble,
	struct shop_command *done, struct skald_command *cmd, struct pg_conn *tx,
	struct skald_err *err);

#endif
