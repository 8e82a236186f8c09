/*
 * relay_config.c - a relay's part of the configuration: [relay], or what the source
 * says otherwise, and [retention].
 */
#include "outbox/outbox.h"

#include <string.h>

#include "base/config.h"

bool
skald_relay_wants_wal(const struct skald_config *config, const char *source)
{
	const char *mode = skald_config_source_text(config, source, "mode");

	return mode && strcmp(mode, "wal") == 0;
}

enum skald_rc
skald_relay_configure(struct skald_relay_conf *conf, const struct skald_config *config,
	const char *source, struct skald_err *err)
{
	conf->source = source;
	conf->poll_min_ms = skald_config_source_ms(config, source, "poll_min");
	conf->poll_max_ms = skald_config_source_ms(config, source, "poll_max");
	conf->wants_wal = skald_relay_wants_wal(config, source);
	conf->slot_limit_bytes = skald_config_source_bytes(config, source, "slot_limit");
	conf->gate = skald_config_source_text(config, source, "gate");
	conf->retention_ms = skald_config_ms(config, "retention", "outbox");
	conf->consumed_ms = skald_config_ms(config, "retention", "consumed");
	conf->dead_letters_ms = skald_config_ms(config, "retention", "dead_letters");
	conf->audit_ms = skald_config_ms(config, "retention", "audit");
	conf->barrier_ms = skald_config_ms(config, "retention", "barrier");
	if (conf->poll_min_ms > conf->poll_max_ms)
		return skald_fail(err, SKALD_REJECT, "config", "",
			"source %s: relay.poll_min: must not be above relay.poll_max",
			source);
	return SKALD_OK;
}
